"""Of how much of the sessions each sensor saw all that it can see.  Times are plain numbers."""

from __future__ import annotations

import pytest

from agent.core.codec import from_plain, to_plain
from agent.core.course import Course
from agent.core.coverage import SENSORS, Coverage, CoverageState
from agent.core.events import Evidence, Gap, SessionEnd, SessionStart
from agent.core.observations import (
    AgentStarted,
    AgentStopped,
    Change,
    ClockJumped,
    CourseGone,
    CourseRead,
    EventsLost,
    FileChanged,
    Observation,
    SensorChanged,
)

COURSE = Course("/c", "demo")
Line = Observation | SessionStart | SessionEnd | Gap


def start(at: int) -> SessionStart:
    return SessionStart(at, ())


def ended(at: int) -> list[Line]:
    """The end of a session, and what it was concluded from."""
    return [FileChanged(at, "app.py", Change.MODIFIED), SessionEnd(at, ())]


def level(at: int, name: str, sensor: str = "processes") -> SensorChanged:
    return SensorChanged(at, sensor, name, f"what {name} can't see")


def lost(since: int, at: int, sensor: str = "processes") -> EventsLost:
    return EventsLost(at, since, sensor, "buffer full")


def set_back(end: SessionEnd) -> list[Line]:
    """A session in which the clock was set back, and what was told as its end."""
    return [
        AgentStarted(1000),
        level(1001, "connector"),
        start(1010),
        ClockJumped(60, -1000),
        lost(70, 80),
        FileChanged(110, "app.py", Change.MODIFIED),
        end,
    ]


def coverage_of(*lines: Line, coverage: Coverage | None = None) -> Coverage:
    coverage = coverage or Coverage()
    for line in lines:
        if isinstance(line, SessionStart | SessionEnd | Gap):
            coverage.concluded(line)
        else:
            coverage.receive(line)
    return coverage


def told(coverage: Coverage, now: int | None = None, sensor: str = "processes") -> tuple[int, dict[str, int]]:
    """(session time, whole time by level) of one sensor."""
    one = next(report for report in coverage.report(now) if report.sensor == sensor)
    assert one.whole_ms == sum(ms for _, ms, _ in one.levels)
    return one.session_ms, {name: ms for name, ms, _ in one.levels}


@pytest.mark.parametrize(
    ("lines", "session", "whole"),
    [
        # a sensor that worked all the time, and one that never did
        ([AgentStarted(0), level(1, "connector"), start(10), *ended(110)], 100, {"connector": 100}),
        ([AgentStarted(0), start(10), *ended(110)], 100, {}),
        ([AgentStarted(0), level(1, "none"), start(10), *ended(110)], 100, {}),
        # it began in the session, and ended in it
        ([AgentStarted(0), start(10), level(40, "connector"), *ended(110)], 100, {"connector": 70}),
        ([AgentStarted(0), level(1, "connector"), start(10), level(60, "none"), *ended(110)], 100, {"connector": 50}),
        # another level, and back
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                level(30, "pidfd"),
                level(80, "connector"),
                *ended(110),
            ],
            100,
            {"connector": 50, "pidfd": 50},
        ),
        # what it lost is cut out, once where two losses are of the same time
        ([AgentStarted(0), level(1, "connector"), start(10), lost(20, 30), *ended(110)], 100, {"connector": 90}),
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                lost(20, 30),
                lost(25, 40),
                lost(20, 40),
                *ended(110),
            ],
            100,
            {"connector": 80},
        ),
        # a loss that is told after the level had changed
        (
            [AgentStarted(0), level(1, "connector"), start(10), level(60, "pidfd"), lost(50, 70), *ended(110)],
            100,
            {"connector": 40, "pidfd": 40},
        ),
        # before the session, across its start, and of another sensor
        ([AgentStarted(0), level(1, "connector"), lost(2, 5), start(10), *ended(110)], 100, {"connector": 100}),
        ([AgentStarted(0), level(1, "connector"), lost(2, 20), start(10), *ended(110)], 100, {"connector": 90}),
        (
            [AgentStarted(0), level(1, "connector"), start(10), lost(20, 30, "files"), *ended(110)],
            100,
            {"connector": 100},
        ),
        # a session that is known late (the agent found a server running) and one that ended in silence
        ([AgentStarted(50), level(60, "connector"), start(10), *ended(110)], 100, {"connector": 50}),
        ([AgentStarted(0), level(1, "connector"), start(10), lost(120, 130), *ended(110)], 100, {"connector": 100}),
        # the course was away
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                CourseGone(30, "deleted"),
                CourseRead(50, COURSE),
                *ended(110),
            ],
            100,
            {"connector": 80},
        ),
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                CourseGone(30, "deleted"),
                level(40, "pidfd"),
                CourseRead(50, COURSE),
                *ended(110),
            ],
            100,
            {"connector": 20, "pidfd": 60},
        ),
        # the agent was asked to stop, or was killed after its last observation, in a session that goes on
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                AgentStopped(30),
                AgentStarted(60),
                level(61, "connector"),
                *ended(110),
            ],
            100,
            {"connector": 69},
        ),
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                lost(25, 25),
                AgentStarted(60),
                level(61, "connector"),
                *ended(110),
            ],
            100,
            {"connector": 64},
        ),
        # two sessions; what is between them is none
        (
            [
                AgentStarted(0),
                level(1, "connector"),
                start(10),
                *ended(20),
                lost(22, 25),
                start(40),
                lost(45, 50),
                *ended(60),
            ],
            30,
            {"connector": 25},
        ),
        # the clock was set, forward and back
        (
            [AgentStarted(0), level(1, "connector"), start(10), lost(20, 30), ClockJumped(1060, 1000), *ended(1110)],
            100,
            {"connector": 90},
        ),
        (set_back(SessionEnd(110, ())), 100, {"connector": 90}),
        # ... back by more than the session's length, so that its end is told as its start
        (set_back(SessionEnd(1010, ())), 100, {"connector": 90}),
        # ... and while the agent did not run, so that nobody knows by how much
        (
            [
                AgentStarted(1000),
                level(1001, "connector"),
                start(1010),
                AgentStopped(1060),
                AgentStarted(500),
                level(500, "connector"),
                *ended(550),
            ],
            100,
            {"connector": 100},
        ),
    ],
)
def test_the_time_of_the_sessions_in_which_a_sensor_was_whole(
    lines: list[Line], session: int, whole: dict[str, int]
) -> None:
    coverage = coverage_of(*lines)
    assert told(coverage) == (session, whole)
    # a restart in between changes nothing: everything is in the state
    again = Coverage()
    for line in lines:
        again = coverage_of(line, coverage=Coverage(from_plain(CoverageState, to_plain(again.state))))
    assert again.state == coverage.state


def test_a_session_that_is_open_counts_until_now() -> None:
    coverage = coverage_of(AgentStarted(0), level(1, "connector"), start(10), lost(20, 30))
    assert told(coverage, now=60) == (50, {"connector": 40})
    assert told(coverage, now=110) == (100, {"connector": 90})


def test_without_an_agent_a_session_counts_until_the_last_observation() -> None:
    coverage = coverage_of(AgentStarted(0), level(1, "connector"), start(10), lost(20, 30))
    assert told(coverage) == (20, {"connector": 10})


def test_both_sensors_are_told_of_even_if_one_never_said_a_word() -> None:
    coverage = coverage_of(AgentStarted(0), level(0, "inotify", "files"), start(10), *ended(20))
    assert [report.sensor for report in coverage.report()] == list(SENSORS)
    assert told(coverage, sensor="files") == (10, {"inotify": 10})
    assert told(coverage, sensor="processes") == (10, {})


def test_each_level_says_what_it_cannot_see_the_longest_first() -> None:
    coverage = coverage_of(
        AgentStarted(0), level(0, "connector"), start(0), level(10, "polling"), *ended(100), lost(100, 100)
    )
    (report,) = (one for one in coverage.report() if one.sensor == "processes")
    assert report.levels == (
        ("polling", 90, "what polling can't see"),
        ("connector", 10, "what connector can't see"),
    )
    assert report.losses == 1


def test_a_loss_without_length_is_counted() -> None:
    (report, _) = coverage_of(AgentStarted(0), level(0, "connector"), start(0), lost(5, 5), *ended(10)).report()
    assert (report.whole_ms, report.losses) == (10, 1)


def test_before_the_first_session_there_is_nothing_to_tell() -> None:
    assert told(coverage_of(AgentStarted(0), level(1, "connector")), now=50) == (0, {})
    assert told(Coverage()) == (0, {})


def test_other_events_and_an_end_without_a_start_say_nothing() -> None:
    gap = Gap(50, 40, "blind", (Evidence(1, 50, "because"),))
    assert told(coverage_of(AgentStarted(0), level(1, "connector"), *ended(20), gap), now=60) == (0, {})


def test_two_sessions_never_count_the_same_time_twice() -> None:
    # the second one is told to have begun while the first one was open
    coverage = coverage_of(AgentStarted(0), level(0, "connector"), start(10), *ended(50), start(30), *ended(90))
    assert told(coverage) == (80, {"connector": 80})


def test_the_state_stays_small_whatever_is_lost() -> None:
    coverage = coverage_of(AgentStarted(0), level(0, "connector"), start(0))
    for number in range(1, 1000):
        coverage.receive(lost(number * 10, number * 10 + 1))
    assert len(coverage.state.sensors["processes"].spans) <= 64
    coverage_of(*ended(10_000), coverage=coverage)
    assert told(coverage) == (10_000, {"connector": 10_000 - 999})
    coverage.receive(lost(20_000, 20_010))
    assert len(coverage.state.sensors["processes"].spans) <= 2
