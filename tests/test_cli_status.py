"""`status` and `explain`: what a teacher reads of the time that was spent, of what was seen, and of why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import cli
from agent.config import Config, course_state_dir, load_config
from agent.core.codec import to_plain
from agent.core.coverage import Coverage, CoverageState
from agent.core.events import Event, Evidence, Gap, Origin, Output, SessionStart
from agent.core.events import TestResult as Result
from agent.core.inference import Snapshot
from agent.core.observations import AgentStarted, EventsLost, SensorChanged
from agent.core.sessions import Session
from agent.core.visits import OpenVisit
from agent.explain import duration
from agent.status import percent
from agent.store.journal import Journal, dumped
from agent.store.lock import Lock
from tests.making import (
    T0,
    a_compile,
    a_test,
    asked,
    completed,
    gap,
    ms,
    opened,
    reset,
    session_end,
    session_start,
    visit,
)

MINUTE = 60_000
Record = Callable[..., None]
Show = Callable[..., str]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    course = tmp_path / "course"
    for name in ("00-welcome", "01-hello", "02-loop"):
        (course / "exercises" / name).mkdir(parents=True)
        (course / "exercises" / name / "README.md").write_text("# hi\n")
    (course / "learn.json").write_text('{"slug": "demo"}')
    return course.resolve()


@pytest.fixture
def directory(course: Path, state_dir: Path) -> str:
    return course_state_dir(Config(state_dir=str(state_dir)), str(course))


@pytest.fixture
def record(directory: str) -> Record:
    """`record(*events, state=Snapshot(...))` journals them."""

    def record(*events: Event, state: Snapshot | None = None) -> None:
        with Journal.open(directory, create=True) as journal:
            journal.append(events, None if state is None else dumped(to_plain(state)))

    return record


@pytest.fixture
def show(capfd: pytest.CaptureFixture[str], course: Path, state_dir: Path, record: Record) -> Show:
    """What a command prints of the course."""

    def show(command: str, *arguments: object) -> str:
        code = cli.main([command, str(course), *map(str, arguments), "--state-dir", str(state_dir)])
        out, err = capfd.readouterr()
        assert (code, err) == (0, "")
        return out

    return show


def status(show: Show) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(show("status", "--json"))
    return found


def steps(show: Show) -> dict[str, tuple[int, int]]:
    """Per step: visits, and active time in ms."""
    return {one["slug"]: (one["visits"], one["active_ms"]) for one in status(show)["steps"]}


def line_of(text: str, start: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return line


# Time


def test_status_shows_the_visits_of_each_step_and_how_long_there_was_work(record: Record, show: Show) -> None:
    record(
        session_start(0),
        opened("01-hello", 1),
        opened("02-loop", 1000, visit("01-hello", 1, 1000, 12 * MINUTE)),
        opened("01-hello", 1100, visit("02-loop", 1000, 1100, 90_000)),
        session_end(1200, visit("01-hello", 1100, 1200, 30_000)),
    )
    assert steps(show) == {"00-welcome": (0, 0), "01-hello": (2, 12 * MINUTE + 30_000), "02-loop": (1, 90_000)}
    text = show("status")
    assert "; 2 visits, 12 min" in line_of(text, "    1  01-hello")
    assert "; 1 visit, 90 s" in line_of(text, "    2  02-loop")
    assert "visit" not in line_of(text, "    0  00-welcome")
    assert not any(line.startswith("visit") for line in text.splitlines())


def test_status_shows_the_visit_that_goes_on(record: Record, show: Show) -> None:
    going_on = OpenVisit("02-loop", ms(1000), ((ms(1000), ms(1060)), (ms(2000), ms(2120))), 60_000)
    state = Snapshot(session=Session(ms(0), ms(2120)), visits=((ms(1000), "02-loop"),), presence=going_on)
    record(
        session_start(0),
        opened("01-hello", 1),
        opened("02-loop", 1000, visit("01-hello", 1, 1000, MINUTE)),
        state=state,
    )
    assert steps(show)["02-loop"] == (1, 4 * MINUTE)
    found = status(show)["visit"]
    assert found == {
        "step_slug": "02-loop",
        "started_at": ms(1000),
        "last_act_at": ms(2120),
        "active_ms": 4 * MINUTE,
    }
    text = show("status")
    assert "02-loop since" in line_of(text, "visit") and "4 min of work" in line_of(text, "visit")
    assert "1 visit, 4 min  <- here" in line_of(text, "    2  02-loop")


def test_a_visit_to_a_step_that_nothing_else_tells_of_is_shown(record: Record, show: Show) -> None:
    record(session_end(1200, visit("07-gone", 1, 2, 1000)))
    assert steps(show)["07-gone"] == (1, 1000)
    assert "07-gone" in show("status")


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_390, "1.3 s"),
        (59_999, "59 s"),
        (119_999, "119 s"),
        (12 * MINUTE + 59_999, "12 min"),
        (200 * MINUTE, "3 h 20 min"),
        (60 * MINUTE, "1 h 0 min"),
        (52 * 60 * MINUTE, "2 d 4 h"),
    ],
)
def test_a_length_of_time_is_never_told_longer_than_it_was(length: int, words: str) -> None:
    assert duration(length) == words


def test_the_idle_gap_is_five_minutes_unless_told_otherwise(tmp_path: Path) -> None:
    def idle(text: str) -> int:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return load_config(file=str(file), environment={"XDG_CONFIG_HOME": str(tmp_path)}, arguments={}).idle_minutes

    assert idle("") == 5
    assert idle("idle_minutes = 15") == 15


# Coverage


def covered(*, killed: bool = False) -> CoverageState:
    """A session that began 100 minutes ago; its processes were seen by two levels, and for 2 minutes not at all."""
    now = int(time.time() * 1000)
    coverage = Coverage()
    for seen in (
        AgentStarted(now - 110 * MINUTE),
        SensorChanged(now - 110 * MINUTE, "processes", "connector", "programs of 1 ms"),
        SensorChanged(now - 110 * MINUTE, "files", "inotify", ""),
    ):
        coverage.receive(seen)
    coverage.concluded(SessionStart(now - 100 * MINUTE, ()))
    coverage.receive(SensorChanged(now - 60 * MINUTE, "processes", "pidfd", "programs of 10 ms"))
    coverage.receive(EventsLost(now - 50 * MINUTE, now - 52 * MINUTE, "processes", "buffer full"))
    return coverage.state


def test_status_shows_of_how_much_of_the_sessions_each_sensor_saw_everything(
    record: Record, show: Show, directory: str
) -> None:
    record(session_start(0), state=Snapshot(coverage=covered()))
    lock = Lock.acquire(directory)  # an agent runs: it sees until now
    try:
        found, text = status(show)["coverage"], show("status")
    finally:
        lock.release()
    processes = found["processes"]
    assert processes["share"] == pytest.approx(0.98, abs=0.001)
    assert processes["losses"] == 1
    assert [(each["level"], round(each["ms"] / MINUTE)) for each in processes["levels"]] == [
        ("pidfd", 58),
        ("connector", 40),
    ]
    assert found["files"]["share"] == 1
    told = line_of(text, "coverage")
    assert "processes 98 % (pidfd 58 %, connector" in told or "processes 97.9 % (pidfd 57 %, connector" in told
    assert "files 100 % (inotify)" in told
    assert "processes by connector could not see: programs of 1 ms" in text


def test_without_an_agent_nothing_is_covered_after_its_last_observation(record: Record, show: Show) -> None:
    record(session_start(0), state=Snapshot(coverage=covered()))
    processes = status(show)["coverage"]["processes"]
    assert round(processes["session_ms"] / MINUTE) == 50
    assert processes["share"] == pytest.approx(0.96, abs=0.001)


def test_a_sensor_that_never_worked_is_told_of(record: Record, show: Show) -> None:
    coverage = Coverage()
    coverage.receive(AgentStarted(0))
    coverage.receive(SensorChanged(0, "files", "inotify", ""))
    coverage.concluded(SessionStart(0, ()))
    coverage.receive(SensorChanged(9, "processes", "none", "all programs"))
    record(session_start(0), state=Snapshot(coverage=coverage.state))
    assert "processes 0 %, files 100 % (inotify)" in line_of(show("status"), "coverage")


def test_before_the_first_session_there_is_no_coverage(record: Record, show: Show) -> None:
    record(gap(1, 2), state=Snapshot(coverage=CoverageState()))
    assert line_of(show("status"), "coverage") == "coverage  no session yet"
    record(state=Snapshot())
    assert line_of(show("status"), "coverage") == "coverage  no session yet"


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (1000, 1000, "100 %"),
        (999_999, 1_000_000, "99.9 %"),
        (995, 1000, "99.5 %"),
        (980, 1000, "98 %"),
        (899, 1000, "89 %"),
        (290, 1000, "29 %"),
        (1, 1_000_000, "0 %"),
        (0, 1, "0 %"),
    ],
)
def test_nothing_less_than_all_is_a_hundred_percent(part: int, whole: int, words: str) -> None:
    assert percent(part, whole) == words


# What the agent counted


def test_what_was_left_out_is_told_where_it_is_not_zero(record: Record, show: Show, directory: str) -> None:
    said: dict[str, Any] = {"skipped": 3, "document_size": 8_388_608, "document_omitted": 12}
    record(session_start(0))
    with Journal.open(directory, create=False) as journal:
        journal.put_fact("status", said)
    assert said.items() <= status(show)["agent"].items()
    text = show("status")
    assert line_of(text, "skipped") == "skipped   3 times a process was left out because looking at it failed"
    assert line_of(text, "document") == "document  without the texts of 12 runs, to keep it small (8.0 MB)"
    with Journal.open(directory, create=False) as journal:
        journal.put_fact("status", {**said, "skipped": 0, "document_omitted": 0})
    assert not any(line.startswith(("skipped", "document")) for line in show("status").splitlines())


# Gaps


def test_a_few_gaps_are_shown_each_with_its_reason(record: Record, show: Show) -> None:
    record(gap(1, 2), gap(5, 9))
    text = show("status")
    assert [line.split(": ")[-1] for line in text.splitlines() if line.startswith("gap ")] == ["blind", "blind"]
    assert "in all" not in text


def test_many_gaps_are_summed_by_their_reason_and_the_newest_are_shown(record: Record, show: Show) -> None:
    def a_gap(start: int, length: int, reason: str) -> Gap:
        return replace(gap(start, start + length), reason=reason)

    words = "processes: a program that lived {} ms was over before it could be read"
    busy = [a_gap(n, 1, words.format(30 + n)) for n in range(480)]
    off = [a_gap(1000 + 100 * n, 60, "the agent was not running") for n in range(19)]
    record(*busy, *off, a_gap(5000, 4, "exercises/02-loop: no room"))
    found = status(show)
    assert len(found["gaps"]) == 500
    assert found["gap_reasons"] == [
        {
            "reason": "the agent was not running",
            "count": 19,
            "total_ms": 19 * 60_000,
            "last_at": ms(1000 + 1800 + 60),
        },
        {
            "reason": words.format("N"),
            "count": 480,
            "total_ms": 480_000,
            "last_at": ms(480),
        },
        {"reason": "exercises/02-loop: no room", "count": 1, "total_ms": 4000, "last_at": ms(5004)},
    ]
    lines = show("status").splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("gaps"))
    assert lines[first : first + 5] == [
        "gaps      500 in all, 27 min together:",
        "          19 times, 19 min together: the agent was not running",
        "          480 times, 8 min together: processes: a program that lived N ms was over before it could be read",
        "          once, 4.0 s together: exercises/02-loop: no room",
        "          the newest 5 (`status --json` has all):",
    ]
    assert [line.startswith("gap ") for line in lines[first + 5 : first + 11]] == [True] * 5 + [False]
    assert lines[first + 9].endswith("no room")


def test_gaps_of_very_many_reasons_are_counted_to_the_last(record: Record, show: Show) -> None:
    record(*(replace(gap(10 * n, 10 * n + 1), reason=f"reason {'x' * n}") for n in range(25)))
    text = show("status")
    assert "15 times, 15 s together: 15 other reasons" in text


# explain


def evidence(*said: tuple[float, str]) -> tuple[Evidence, ...]:
    return tuple(Evidence(number, ms(at), words) for number, (at, words) in enumerate(said, start=7))


def test_explain_tells_the_chain_oldest_first_and_what_follows(record: Record, show: Show) -> None:
    chain = evidence(
        (10, "LearnPack started a command (process 11)"),
        (10.03, "LearnPack started a test: pytest ./exercises/01-hello/test.py (process 13)"),
        (10.4, "LearnPack's command was over (process 11)"),
        (10.38, "the test ended well, exit code 0 (process 13)"),
    )
    test = replace(a_test("01-hello", 10, 10.4, 0, tests_modified=True, output=Output.FULL), evidence=chain)
    record(opened("01-hello", 1), test, completed("01-hello", 10.4), a_test("01-hello", 20, 21))
    lines = show("explain", 2).splitlines()
    assert lines[0] == "The student tested 01-hello in LearnPack: it ended well, with exit code 0, after 400 ms."
    assert lines[1].startswith("(event 2, ")
    start = lines.index("What was seen:")
    assert [line[16:] for line in lines[start + 1 : start + 5]] == [
        "LearnPack started a command (process 11) (observation 7)",
        "LearnPack started a test: pytest ./exercises/01-hello/test.py (process 13) (observation 8)",
        "the test ended well, exit code 0 (process 13) (observation 10)",
        "LearnPack's command was over (process 11) (observation 9)",
    ]
    assert [line[:14].strip() for line in lines[start + 2 : start + 5]] == ["+0.030 s", "+0.380 s", "+0.400 s"]
    assert lines[lines.index("What follows:") + 1 :] == [
        "  It was the step's whole test file and it passed, so the step counts as completed.",
        "  The test file is not the one that came with the course.",
        "  What it printed is recorded.",
    ]
    assert "  The step counted as completed already." in show("explain", 4).splitlines()


def test_what_was_seen_several_times_in_a_row_is_told_once(record: Record, show: Show) -> None:
    chain = evidence(
        (10, "it began"), (10.1, "it went on"), (10.2, "it went on"), (10.3, "it ended"), (11, "it went on")
    )
    record(replace(a_compile("01-hello", 10, 11), evidence=chain))
    seen = show("explain", 1).partition("What was seen:")[2].partition("What follows:")[0].strip().splitlines()
    assert [line.split("  ")[-1] for line in seen] == [
        "it began (observation 7)",
        "it went on (observations 8 to 9)",
        "it ended (observation 10)",
        "it went on (observation 11)",
    ]


EXPLAINED: list[tuple[Event, str, list[str]]] = [
    (session_start(1), "The student began to work.", []),
    (session_end(1), "The student's session ended.", []),
    (opened("01-hello", 1), "The student opened 01-hello.", []),
    (
        opened("01-hello", 721, visit("00-welcome", 1, 721, 700_000)),
        "The student opened 01-hello.",
        ["With that the student left 00-welcome: there since ", ", 12 min, with 11 min of work."],
    ),
    (
        session_end(3601, visit("00-welcome", 1, 3601, 0)),
        "session ended.",
        [", 1 h 0 min, with no work"],
    ),
    (
        a_compile("01-hello", 1, 3.5, 1, origin=Origin.TERMINAL),
        "The student ran 01-hello in a terminal: it failed, with exit code 1, after 2.5 s.",
        ["What it printed is not recorded."],
    ),
    (
        a_compile("01-hello", 1, None, None, origin=Origin.OTHER, output=Output.PARTIAL),
        "The student ran 01-hello by way of another program: how it ended could not be seen.",
        ["Its end was not seen", "nothing was concluded about success", "recorded in part"],
    ),
    (
        a_compile("01-hello", 1, 2, None, signal=2),
        "it was stopped by signal 2, after 1.0 s.",
        ["It did not end by itself, so nothing was concluded about success."],
    ),
    (
        a_test("01-hello", 1, 2, 1, results=(Result("a", "passed"), Result("b", "failed")), tests_modified=False),
        "The student tested 01-hello in LearnPack: it failed, with exit code 1",
        [
            "1 of 2 tests passed.",
            "Failed: b.",
            "The test file is the one that came with the course.",
            "The step does not count as completed by this.",
        ],
    ),
    (
        a_test("01-hello", 1, 2, 1, results=tuple(Result(f"t{n}", "failed") for n in range(8))),
        "it failed",
        ["Failed: t0, t1, t2, t3, t4 and 3 more.", "Whether the test file is the one that came with the course"],
    ),
    (
        replace(a_test("01-hello", 1, 2), run=replace(a_test("01-hello", 1, 2).run, whole=False)),
        "The student ran a test of 01-hello",
        ["It was not the step's whole test file, so it does not complete the step, however it ended."],
    ),
    (
        completed("01-hello", 1, tests_modified=True),
        "The student completed 01-hello.",
        ["never taken back", "The test file is not the one that came with the course."],
    ),
    (reset("01-hello", 1), "The student set 01-hello back to how it came with the course.", []),
    (
        asked("01-hello", 1, 2, "why\ndoes it " + "x" * 300),
        "The student asked LearnPack's AI tutor about 01-hello.",
        ["The question: why does it xxx", "x..."],
    ),
    (gap(3, 8), "For 5.0 s something may have been missed: blind.", ["may be missing from the record"]),
]


@pytest.mark.parametrize(("event", "sentence", "consequences"), EXPLAINED, ids=lambda value: getattr(value, "name", ""))
def test_every_event_is_explained_in_a_sentence_and_in_what_follows(
    record: Record, show: Show, event: Event, sentence: str, consequences: list[str]
) -> None:
    record(event)
    text = show("explain", 1)
    assert sentence in text.splitlines()[0]
    _, _, follows = text.partition("What follows:")
    assert [each for each in consequences if each not in follows] == []
    assert bool(follows) == bool(consequences)
    assert "because (observation 1)" in text


def test_every_kind_of_event_is_in_the_table() -> None:
    from agent.core.events import EVENT_TYPES

    assert {event.name for event, _, _ in EXPLAINED} == set(EVENT_TYPES)


def test_an_event_is_found_by_its_number_and_by_its_id_and_by_nothing_else(
    record: Record, show: Show, course: Path, state_dir: Path, directory: str, capfd: pytest.CaptureFixture[str]
) -> None:
    record(opened("01-hello", 1))
    with Journal.open(directory, create=False) as journal:
        number = f"{journal.id}-1"
    assert show("explain", number) == show("explain", 1)
    for other in ("01", "0", "2", "x-1", "-1", f"{number}x", "1" * 30, "¹", "", number.replace("-", "--")):
        code = cli.main(["explain", str(course), "--state-dir", str(state_dir), "--", other])
        assert (code, capfd.readouterr().out) == (1, ""), other


def test_times_are_local_ones(record: Record, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    record(opened("01-hello", 0))
    for zone, told in (("UTC", "2023-11-14 22:13:20.000"), ("Asia/Tokyo", "2023-11-15 07:13:20.000")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert told in show("explain", 1)
    monkeypatch.undo()
    time.tzset()
    assert T0 == 1_700_000_000_000
