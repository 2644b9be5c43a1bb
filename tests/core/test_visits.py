"""Visits and coverage as the inference concludes them from what was seen.  `m(3)` is three minutes."""

from __future__ import annotations

import pytest

from agent.core.codec import from_plain, to_plain
from agent.core.coverage import Coverage
from agent.core.events import Event, OpenStep, SessionEnd, Visit
from agent.core.inference import Inference, Settings, Snapshot
from agent.core.observations import (
    AgentStarted,
    AgentStopped,
    Change,
    ClockJumped,
    CourseRead,
    EventsLost,
    FileChanged,
    Observation,
    ProcessesListed,
    SensorChanged,
)

from .world import COURSE, SERVER, events_of, executed, exited, queue

HELLO, MORE = "exercises/01-hello/app.py", "exercises/04-more/app.py"


def m(minutes: float) -> int:
    return round(minutes * 60_000)


BEGIN: list[Observation] = [AgentStarted(0), CourseRead(0, COURSE)]


def saved(at: float, path: str = HELLO) -> FileChanged:
    return FileChanged(m(at), path, Change.MODIFIED)


def ran(start: float, end: float, path: str = HELLO, pid: int = 50) -> list[Observation]:
    return [executed(m(start), pid, f"python {path}"), exited(m(end), pid)]


def served(at: float, *entries: str, pid: int = 10) -> list[Observation]:
    """A LearnPack server, its queue half a minute later."""
    return [executed(m(at), pid, SERVER), queue(m(at + 0.5), "initializing", *entries)]


def left(events: list[Event]) -> list[Visit]:
    return [event.left for event in events if isinstance(event, OpenStep | SessionEnd) and event.left is not None]


def visit(slug: str, started: float, ended: float, active: float) -> Visit:
    return Visit(slug, m(started), m(ended), m(active))


def again(inference: Inference) -> Inference:
    """The agent's next life, with what it had written down."""
    return Inference.resumed(from_plain(Snapshot, to_plain(inference.snapshot())))


def test_a_visit_is_told_with_the_opening_that_ends_it_and_with_the_end_of_the_session() -> None:
    events = events_of(
        [
            *BEGIN,
            *served(1, "start_exercise 01-hello"),
            saved(3),
            saved(4),
            queue(m(6), "initializing", "start_exercise 01-hello", "start_exercise 04-more"),
            *ran(20, 21, MORE),
            exited(m(22), 10),
        ]
    )
    assert left(events) == [visit("01-hello", 1.5, 6, 4.5), visit("04-more", 6, 22, 2)]
    assert [event.name for event in events if isinstance(event, OpenStep | SessionEnd) and event.left is not None] == [
        "open_step",
        "session_end",
    ]


def test_a_session_of_terminal_work_ends_with_the_last_thing_that_was_done() -> None:
    events = events_of([*BEGIN, *ran(1, 2), saved(4)], until=m(60))
    assert left(events) == [visit("01-hello", 1, 4, 3)]


def test_after_lunch_the_same_step_is_visited_anew_without_an_opening() -> None:
    events = events_of([*BEGIN, *ran(1, 2), saved(4), saved(90), *ran(92, 93)], until=m(200))
    assert left(events) == [visit("01-hello", 1, 4, 3), visit("01-hello", 90, 93, 3)]
    assert [event.at for event in events if isinstance(event, OpenStep)] == [m(1)]


def test_learnpack_started_again_on_the_same_step_is_another_visit() -> None:
    events = events_of(
        [
            *BEGIN,
            *served(1, "start_exercise 01-hello"),
            saved(3),
            exited(m(5), 10),
            *served(6, pid=11),
            saved(8),
            exited(m(9), 11),
        ]
    )
    assert left(events) == [visit("01-hello", 1.5, 5, 3.5), visit("01-hello", 8, 9, 1)]


def test_a_run_of_twenty_minutes_is_work_at_its_start_and_at_its_end() -> None:
    events = events_of([*BEGIN, saved(0.5), *ran(1, 21), saved(23)], until=m(100))
    assert left(events) == [visit("01-hello", 0.5, 23, 2.5)]


def test_a_visit_goes_on_across_a_restart_of_the_agent() -> None:
    before = Inference()
    events = events_of([*BEGIN, *served(1, "start_exercise 01-hello"), saved(3), AgentStopped(m(4))], inference=before)
    assert left(events) == []
    events = events_of(
        [
            AgentStarted(m(5)),
            CourseRead(m(5), COURSE),
            executed(m(5), 10, SERVER, found=True, started_at=m(1)),
            ProcessesListed(m(5), frozenset({(10, 100)})),
            saved(6),
            queue(m(7), "initializing", "start_exercise 01-hello", "start_exercise 04-more"),
        ],
        inference=again(before),
    )
    assert left(events) == [visit("01-hello", 1.5, 7, 5.5)]


@pytest.mark.parametrize("by", [600, -600])
def test_setting_the_clock_makes_a_visit_neither_longer_nor_shorter(by: int) -> None:
    start = 1000.0
    events = events_of(
        [
            AgentStarted(m(start)),
            CourseRead(m(start), COURSE),
            *ran(start + 1, start + 2),
            ClockJumped(m(start + by + 3), m(by)),
            saved(start + by + 4),
        ],
        until=m(start + by + 100),
    )
    assert left(events) == [visit("01-hello", start + by + 1, start + by + 4, 3)]


def test_a_clock_that_was_set_back_while_the_agent_was_off_loses_no_work() -> None:
    before = Inference()
    events_of(
        [AgentStarted(m(1000)), CourseRead(m(1000), COURSE), *served(1001, "start_exercise 01-hello"), saved(1003)],
        inference=before,
    )
    events = events_of(
        [
            AgentStarted(m(500)),
            CourseRead(m(500), COURSE),
            executed(m(500), 10, SERVER, found=True, started_at=m(498)),
            ProcessesListed(m(500), frozenset({(10, 100)})),
            queue(m(502), "initializing", "start_exercise 01-hello", "start_exercise 04-more"),
        ],
        inference=again(before),
    )
    # 1.5 minutes before, and 2 after: nobody knows how long it was off, so nothing is counted for that
    assert left(events) == [visit("01-hello", 498.5, 502, 3.5)]


def test_the_idle_gap_is_a_setting() -> None:
    story = [*BEGIN, *ran(1, 1), saved(9)]
    assert left(events_of(story, until=m(60))) == [visit("01-hello", 1, 9, 0)]
    patient = Inference(Settings(idle_ms=m(10)))
    assert left(events_of(story, until=m(60), inference=patient)) == [visit("01-hello", 1, 9, 8)]


def test_looking_at_the_step_in_learnpacks_page_is_an_act_in_it() -> None:
    opened = ("initializing", "start_exercise 01-hello")
    events = events_of(
        [
            *BEGIN,
            *served(1, "start_exercise 01-hello"),
            queue(m(4), *opened, "open_files"),
            queue(m(8), *opened, "open_files", "reset_exercise 01-hello"),
            exited(m(9), 10),
        ]
    )
    assert left(events) == [visit("01-hello", 1.5, 9, 7.5)]


# Coverage


def whole(inference: Inference, now: float) -> dict[str, dict[str, float]]:
    """Per sensor the whole minutes by level; what is left of "session" is not whole."""
    reports = Coverage(inference.snapshot().coverage).report(m(now))
    return {
        one.sensor: {"session": one.session_ms / m(1), **{level: ms / m(1) for level, ms, _ in one.levels}}
        for one in reports
    }


SENSORS: list[Observation] = [
    SensorChanged(0, "processes", "connector", "little"),
    SensorChanged(0, "files", "inotify", ""),
]


def test_coverage_is_the_share_of_the_sessions_in_which_a_sensor_lost_nothing() -> None:
    inference = Inference()
    events_of(
        [
            *BEGIN,
            *SENSORS,
            *served(1, "start_exercise 01-hello"),
            EventsLost(m(5), m(4), "processes", "buffer full"),
            SensorChanged(m(6), "processes", "pidfd", "more"),
            exited(m(11), 10),
        ],
        inference=inference,
    )
    assert whole(inference, now=20) == {
        "processes": {"session": 10, "pidfd": 5, "connector": 4},
        "files": {"session": 10, "inotify": 10},
    }


def test_a_session_that_ended_in_silence_is_covered_until_its_last_work() -> None:
    inference = Inference()
    events_of([*BEGIN, *SENSORS, *ran(1, 2), saved(4)], until=m(60), inference=inference)
    assert whole(inference, now=60)["processes"] == {"session": 3, "connector": 3}


def test_the_time_in_which_the_agent_was_off_in_a_session_is_not_covered() -> None:
    inference = Inference()
    events_of([*BEGIN, *SENSORS, *served(1), AgentStopped(m(4))], inference=inference)
    inference = again(inference)
    events_of(
        [
            AgentStarted(m(6)),
            CourseRead(m(6), COURSE),
            executed(m(6), 10, SERVER, found=True, started_at=m(1)),
            SensorChanged(m(6), "processes", "connector", "little"),
            ProcessesListed(m(6), frozenset({(10, 100)})),
        ],
        inference=inference,
    )
    assert whole(inference, now=11) == {
        "processes": {"session": 10, "connector": 8},
        "files": {"session": 10, "inotify": 3},
    }


def test_the_level_of_a_sensor_is_worth_writing_down() -> None:
    inference = Inference()
    events_of(BEGIN, inference=inference)
    inference.unsaved = False
    inference.receive(SENSORS[0])
    assert inference.unsaved
