"""The agent's end: somebody stopped it, and the session is over; or another begins at once, and it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.codec import from_plain, observation_from, to_plain
from agent.core.events import SessionEnd
from agent.core.inference import Inference, Settings, Snapshot
from agent.core.observations import (
    AgentStarted,
    AgentStopped,
    Change,
    ClockJumped,
    CourseRead,
    FileChanged,
    Observation,
    ProcessesListed,
    ProcessExecuted,
)
from agent.trace import TraceWriter, replay

from .world import COURSE, SERVER, conclude, events_of, executed, exited, queue, told

MINUTE = 60_000
APP = "exercises/01-hello/app.py"
BEGIN: list[Observation] = [AgentStarted(0), CourseRead(0, COURSE)]
RUN: list[Observation] = [executed(10, 5, f"python {APP}"), exited(40, 5)]
SERVED: list[Observation] = [
    *BEGIN,
    executed(100, 10, SERVER),
    queue(200, "initializing", "start_exercise 01-hello"),
]
#: The server of SERVED as another life of the agent finds it.
STILL_THERE = executed(5001, 10, SERVER, found=True, started_at=100)


def end(at: int) -> AgentStopped:
    return AgentStopped(at, is_end=True)


def begin(at: int, *processes: ProcessExecuted) -> list[Observation]:
    keys = frozenset((one.pid, one.born) for one in processes)
    return [AgentStarted(at), CourseRead(at, COURSE), *processes, ProcessesListed(at + 2, keys)]


def after(story: list[Observation]) -> Inference:
    """The next life, which knows what the journal kept."""
    before = Inference()
    events_of(story, inference=before)
    return Inference.resumed(from_plain(Snapshot, to_plain(before.snapshot())))


def sessions(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("session")]


@pytest.mark.parametrize(
    ("story", "ended_at"),
    [
        # with a server the session lasts until now, without one until the last work
        ([*SERVED, end(3000)], 3000),
        ([*BEGIN, *RUN, end(3000)], 40),
        ([*BEGIN, *RUN, executed(100, 10, SERVER), end(3000)], 3000),
        ([*SERVED, executed(300, 11, SERVER), exited(400, 10), end(3000)], 3000),
        # it was over already
        ([*SERVED, exited(900, 10), end(3000)], 900),
        ([*BEGIN, *RUN, end(50 * MINUTE)], 40),
        # two who stop it stop it once
        ([*SERVED, end(3000), end(3001)], 3000),
    ],
)
def test_who_stops_the_agent_ends_the_session(story: list[Observation], ended_at: int) -> None:
    assert sessions(conclude(story))[1:] == [f"session_end @{ended_at}"]


@pytest.mark.parametrize("story", [[*BEGIN, end(3000)], [end(3000)], [*SERVED, AgentStopped(3000)]])
def test_where_no_session_is_open_or_the_agent_only_begins_anew_none_ends(story: list[Observation]) -> None:
    assert "session_end" not in " ".join(conclude(story))


def test_the_end_says_why_and_ends_the_visit() -> None:
    *_, last = events_of([*SERVED, FileChanged(1000, APP, Change.MODIFIED), end(61_000)])
    assert isinstance(last, SessionEnd)
    assert last.evidence[-1].words == "the agent was stopped"
    assert last.left is not None
    assert (last.left.slug, last.left.started_at, last.left.ended_at) == ("01-hello", 200, 61_000)
    assert last.left.active_ms == 61_000 - 200


def test_that_it_ended_is_kept_for_the_next_life() -> None:
    inference = Inference()
    events_of(SERVED, inference=inference)
    inference.unsaved = False
    inference.receive(end(3000))
    assert inference.unsaved
    kept = from_plain(Snapshot, to_plain(inference.snapshot()))
    assert (kept.session, kept.session_ended_at, kept.presence) == (None, 3000, None)


def test_a_server_that_outlives_the_session_begins_the_next_one_where_that_one_ended() -> None:
    lines = conclude([*begin(5000, STILL_THERE), exited(9000, 10)], inference=after([*SERVED, end(3000)]))
    assert lines == ["gap 3000-5000", "session_start @3000", "session_end @9000"]


def test_so_it_does_without_a_next_life() -> None:
    """One server's end ends the session, and only then another is found that was there meanwhile."""
    other = executed(1000, 11, SERVER, found=True, started_at=500)
    story: list[Observation] = [*SERVED, exited(900, 10), other]
    assert sessions(conclude(story)) == ["session_start @100", "session_end @900", "session_start @900"]


def test_a_server_that_began_later_begins_its_own_session() -> None:
    other = executed(5001, 12, SERVER, found=True, started_at=4000)
    lines = conclude(begin(5000, other), inference=after([*SERVED, end(3000)]))
    assert sessions(lines) == ["session_start @4000"]


def test_who_works_again_without_a_server_begins_another_session() -> None:
    later = [*begin(5000), executed(6000, 6, f"python {APP}"), exited(6030, 6)]
    lines = conclude(later, inference=after([*BEGIN, *RUN, end(3000)]))
    assert sessions(lines) == ["session_start @6000"]
    assert sessions(conclude(begin(5000), inference=after([*BEGIN, *RUN, end(3000)]), until=90 * MINUTE)) == []


def test_a_restart_at_once_is_one_session() -> None:
    lines = conclude([*begin(5000, STILL_THERE), exited(9000, 10)], inference=after([*SERVED, AgentStopped(3000)]))
    assert sessions(lines) == ["session_end @9000"]


def test_a_run_in_flight_is_told_in_the_next_life_and_once() -> None:
    begun = executed(1000, 30, f"python {APP}", texts={APP: "print(1)"})
    found = executed(5001, 30, f"python {APP}", found=True, started_at=1000)
    first = conclude([*SERVED, begun, end(3000)])
    assert "compile" not in " ".join(first)
    lines = conclude(
        [*begin(5000, STILL_THERE, found), exited(6000, 30, 3)], inference=after([*SERVED, begun, end(3000)])
    )
    assert lines == ["gap 3000-5000", "session_start @3000", "compile 01-hello 3 @1000-6000 terminal"]


def test_a_clock_that_is_set_back_between_begins_no_session_in_the_future() -> None:
    server = executed(1001, 10, SERVER, found=True, started_at=100)
    inference = after([*SERVED, end(3000)])
    lines = conclude(begin(1000, server), inference=inference)
    (started,) = sessions(lines)
    assert int(started.partition("@")[2]) <= 1002
    jumped: list[Observation] = [*SERVED, exited(3000, 10), ClockJumped(1000, -2100), executed(1001, 11, SERVER)]
    assert sessions(conclude(jumped))[-1] == "session_start @1001"


# --- recordings ---


def test_a_recording_of_it_replays_to_the_same_events(tmp_path: Path) -> None:
    story = [*SERVED, end(3000)]
    writer = TraceWriter(str(tmp_path / "trace"), Settings(), Inference().snapshot())
    for seen in story:
        writer.observation(seen)
    writer.close()
    assert [told(event) for event in replay(str(tmp_path / "trace"))] == conclude(story)
    assert sessions(conclude(story))[-1] == "session_end @3000"


def test_a_recording_from_before_there_was_a_difference_ends_no_session() -> None:
    assert observation_from({"kind": "agent_stopped", "at": 5}) == AgentStopped(5, is_end=False)
    assert observation_from(to_plain(end(5))) == end(5)
