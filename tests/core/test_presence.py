"""Time per step: visits, and the time in them in which something was done.  Times are minutes here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.codec import from_plain, to_plain
from agent.core.events import Visit
from agent.core.visits import OpenVisit, Presence

MINUTE = 60_000
IDLE = 5


def minutes(visit: Visit | None) -> tuple[str, float, float, float] | None:
    """(slug, started, ended, active) in minutes."""
    if visit is None:
        return None
    return visit.slug, visit.started_at / MINUTE, visit.ended_at / MINUTE, visit.active_ms / MINUTE


class Day:
    """`Day("open a 0", "act a 3", "end 10").left` are the visits that ended, in minutes."""

    def __init__(self, *lines: str, presence: Presence | None = None) -> None:
        self.presence = presence or Presence(IDLE * MINUTE)
        self.left: list[tuple[str, float, float, float]] = []
        for line in lines:
            self.do(line)

    def do(self, line: str) -> None:
        verb, *words = line.split()
        at = round(float(words[-1]) * MINUTE)
        left = None
        if verb == "open":
            left = self.presence.opened(words[0], at)
        elif verb == "act":
            self.presence.active(words[0], at)
        elif verb == "end":
            left = self.presence.session_ended(at)
        else:
            self.presence.shift(at)
        if (told := minutes(left)) is not None:
            self.left.append(told)


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        # what is done counts, with what lies between
        (["open a 0", "act a 3", "open b 4"], [("a", 0, 4, 4)]),
        (["open a 0", "act a 5", "act a 10", "end 12"], [("a", 0, 12, 12)]),
        # a gap that is longer counts nothing, neither before an act nor before leaving
        (["open a 0", "act a 3", "act a 20", "open b 22"], [("a", 0, 22, 5)]),
        (["open a 0", "open b 60"], [("a", 0, 60, 0)]),
        (["open a 0", "act a 2", "end 600"], [("a", 0, 600, 2)]),
        # each step has its own visits, and the same step again is another one
        (["open a 0", "open b 1", "open a 3", "end 4"], [("a", 0, 1, 1), ("b", 1, 3, 2), ("a", 3, 4, 1)]),
        # opening again what is open is an act in it
        (["open a 0", "open a 4", "act a 8", "end 8"], [("a", 0, 8, 8)]),
        # a click through four steps is four visits of nothing
        (["open a 0", "open b 0", "open c 0", "end 0"], [("a", 0, 0, 0), ("b", 0, 0, 0), ("c", 0, 0, 0)]),
    ],
)
def test_a_visit_lasts_until_the_step_is_left_and_counts_the_time_between_acts(
    lines: list[str], left: list[tuple[str, float, float, float]]
) -> None:
    assert Day(*lines).left == left


def test_work_after_a_session_began_anew_is_a_new_visit_of_the_step() -> None:
    assert Day("open a 0", "act a 2", "end 3", "act a 60", "act a 64", "end 64").left == [
        ("a", 0, 3, 3),
        ("a", 60, 64, 4),
    ]


def test_a_session_in_which_no_step_was_touched_ends_no_visit() -> None:
    assert Day("end 3", "end 9").left == []


def test_a_session_that_ended_in_silence_ends_the_visit_when_the_last_thing_was_done() -> None:
    assert Day("open a 0", "act a 4", "end 4").left == [("a", 0, 4, 4)]


def test_what_was_seen_after_the_end_of_the_session_does_not_belong_to_the_visit() -> None:
    assert Day("open a 0", "act a 4", "end 3").left == [("a", 0, 3, 3)]
    assert Day("open a 4", "end 3").left == [("a", 4, 4, 0)]


def test_a_long_run_is_an_act_at_its_start_and_one_at_its_end() -> None:
    # 20 minutes, told at its end; meanwhile the student saved twice
    assert Day("open a 0", "act a 10", "act a 12", "act a 2", "act a 22", "end 22").left == [("a", 0, 22, 4)]


def test_a_late_act_in_a_gap_makes_it_two() -> None:
    assert Day("open a 0", "act a 8", "act a 4", "end 8").left == [("a", 0, 8, 8)]
    assert Day("open a 0", "act a 20", "act a 4", "end 20").left == [("a", 0, 20, 4)]


def test_what_is_older_than_the_visit_is_too_late_for_it() -> None:
    assert Day("open a 0", "open b 10", "act a 9", "end 10").left == [("a", 0, 10, 0), ("b", 10, 10, 0)]


def test_an_act_for_a_step_that_was_left_shows_that_the_student_was_there() -> None:
    # a build of a that the opening of b overtook
    assert Day("open a 0", "open b 1", "act a 3", "act b 6", "end 6").left[-1] == ("b", 1, 6, 5)


def test_an_opening_that_is_told_late_cuts_the_visit_where_it_was() -> None:
    # a server of step b is started in a terminal at 5 and ends at 20; the files that are saved meanwhile are a's
    day = Day("open a 0", "act a 4", "act a 7", "act a 9", "open b 5", "act b 20", "end 20")
    assert day.left == [("a", 0, 5, 5), ("b", 5, 20, 4)]


def test_an_opening_that_is_older_than_the_visit_changes_nothing() -> None:
    assert Day("open a 0", "open b 10", "open c 5", "act b 12", "end 12").left == [("a", 0, 10, 0), ("b", 10, 12, 2)]


def test_a_run_that_outlived_its_session_begins_no_visit_in_that_session() -> None:
    # its start (10) lies in the session that ended at 30; its end (33) is the first work of the next one
    day = Day("open a 0", "act a 30", "end 30", "act a 10", "act a 33", "end 33")
    assert day.left == [("a", 0, 30, 0), ("a", 33, 33, 0)]


def test_what_is_told_after_the_session_it_was_in_begins_no_visit() -> None:
    day = Day("open a 0", "end 30", "act a 20", "open b 25", "act a 30")
    assert day.left == [("a", 0, 30, 0)]
    assert day.presence.visit is None


def test_the_clock_may_be_set_in_the_middle_of_a_visit() -> None:
    assert Day("open a 0", "act a 3", "shift 600", "act a 605", "open b 606").left == [("a", 600, 606, 6)]
    assert Day("open a 600", "act a 603", "shift -600", "act a 5", "open b 6").left == [("a", 0, 6, 6)]
    assert Day("open a 600", "end 610", "shift -600", "act a 12", "end 13").left[-1] == ("a", 12, 13, 1)


def test_midnight_and_a_suspended_machine_are_time_like_any_other() -> None:
    midnight = 24 * 60
    assert Day(f"open a {midnight - 2}", f"act a {midnight + 2}", f"end {midnight + 3}").left[0][3] == 5
    assert Day("open a 0", "act a 2", "act a 480", "end 481").left == [("a", 0, 481, 3)]


def test_a_visit_goes_on_across_a_restart() -> None:
    before = Day("open a 0", "act a 2").presence
    kept = from_plain(OpenVisit, to_plain(before.visit))
    assert kept == before.visit
    after = Day("act a 6", "act a 30", "end 31", presence=Presence(IDLE * MINUTE, kept))
    assert after.left == [("a", 0, 31, 7)]


def test_the_end_of_the_last_session_is_known_after_a_restart() -> None:
    day = Day("act a 10", "act a 31", "end 33", presence=Presence(IDLE * MINUTE, None, 30 * MINUTE))
    assert day.left == [("a", 31, 33, 2)]


def test_of_very_many_stretches_of_work_none_is_lost() -> None:
    lines = [line for start in range(0, 1000 * 10, 10) for line in (f"act a {start}", f"act a {start + 3}")]
    presence = Day(*lines).presence
    assert presence.visit is not None
    assert presence.visit.active_ms == 1000 * 3 * MINUTE
    assert len(to_plain(presence.visit)["stretches"]) == 64
    presence.active("a", 101 * MINUTE)  # too late even for a late one
    assert presence.visit.active_ms == 1000 * 3 * MINUTE


def counted(acts: Sequence[int]) -> int:
    return sum(later - earlier for earlier, later in pairwise(sorted(acts)) if later - earlier <= IDLE)


@given(st.permutations(range(8)), st.lists(st.integers(0, 12), min_size=8, max_size=8), st.integers(0, 20))
@settings(deadline=None, database=None)
def test_acts_may_come_in_any_order(order: list[int], gaps: list[int], end: int) -> None:
    times = [sum(gaps[: number + 1]) for number in range(8)]
    leaves = times[-1] + end
    day = Day("open a 0", *(f"act a {times[number]}" for number in order), f"end {leaves}")
    assert day.left == [("a", 0, leaves, counted([0, *times, leaves]))]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None, database=None)
def test_visits_share_the_time_out_and_lose_and_invent_none(acts: list[tuple[str, int, bool]]) -> None:
    """Openings and acts in order: one visit begins where the one before it ends, and all the active time is in one."""
    times: list[int] = []
    lines, current = ["open a 0"], "a"
    for slug, gap, is_opening in acts:
        times.append(gap + (times[-1] if times else 0))
        current = slug if is_opening else current
        lines.append(f"{'open' if is_opening else 'act'} {current} {times[-1]}")
    left = Day(*lines, f"end {times[-1]}").left
    assert sum(active for *_, active in left) == counted([0, *times])
    assert [started for _, started, *_ in left] == [0, *(ended for _, _, ended, _ in left[:-1])]
    assert all(earlier[0] != later[0] for earlier, later in pairwise(left))
    assert all(0 <= active <= ended - started for _, started, ended, active in left)
