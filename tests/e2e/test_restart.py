"""The agent is stopped, killed and started in the middle of work; LearnPack and the student go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.standin.agent import Event, count
from tests.standin.courses import PYTHON, make_course
from tests.standin.score import CLOCK_MS, Truth, assert_perfect, shown
from tests.standin.student import Student
from tests.standin.telemetry_file import now_ms

PATH = "exercises/07-free/app.py"
#: Goes on until it is told to.
LONG = """\
import os, time
print('GO', flush=True)
while not os.path.exists('go'):
    time.sleep(0.01)
raise SystemExit(3)
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    course = make_course(tmp_path / "course", PYTHON, lasting=True)
    (course / PATH).write_text(LONG)
    return course


def sessions(events: list[Event]) -> list[str]:
    return [event["event"] for event in events if event["event"].startswith("session_")]


def test_a_server_that_was_there_first_is_found(stage: Stage, course: Path) -> None:
    learnpack = stage.learnpack(course).start()
    opened = learnpack.open("01-hello")["at"]
    agent = stage.agent(course).start()
    # The step that is open when the agent starts may be concluded, at the time of its opening.
    learnpack.truth[:] = [Truth("open_step", "01-hello", opened, opened, optional=True)]
    learnpack.build("01-hello")
    learnpack.save("01-hello", "print('hello')\n")
    tested = learnpack.test("01-hello")
    learnpack.open("02-sum")
    learnpack.build("02-sum")
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert sessions(events) == ["session_start", "session_end"]
    assert_perfect(events, learnpack.truth, {"01-hello": tested["ended_at"]})


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_a_run_in_flight_over_a_restart_is_one_event(stage: Stage, course: Path, sig: signal.Signals) -> None:
    agent = stage.agent(course).start()
    student = stage.student(course)

    shown_at = []

    def restart(_: Student) -> None:
        shown_at.append(now_ms())
        agent.stop(sig)
        agent.start()
        (course / "go").touch()

    typed = student.type(f"python {PATH}", when="GO", then=restart)
    assert typed.code == 3
    last = student.type("python exercises/01-hello/app.py")
    events = agent.wait_for(lambda events: any(event["at"] >= last.t0 for event in events))
    agent.stop()
    runs = [event for event in agent.events() if event["event"] == "compile"]
    assert [run["step_slug"] for run in runs] == ["07-free", "01-hello"], list(map(shown, events))
    in_flight = runs[0]
    assert in_flight["exit_code"] in (3, None) and in_flight["signal"] is None
    assert typed.t0 - CLOCK_MS <= in_flight["started_at"] <= shown_at[0] + CLOCK_MS
    assert in_flight["source_code"] in (LONG, None)


def test_a_run_that_began_while_the_agent_was_away_is_seen_to_its_end(stage: Stage, course: Path) -> None:
    agent = stage.agent(course)
    student = stage.student(course)

    def start(_: Student) -> None:
        agent.start()
        (course / "go").touch()

    typed = student.type(f"python {PATH}", when="GO", then=start)
    agent.wait_for(lambda events: count(events, "compile") > 0)
    agent.stop()
    assert_perfect(agent.events(), [typed.ran("compile", "07-free", source=LONG)], {})


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_a_restart_repeats_nothing_and_loses_nothing(stage: Stage, course: Path, sig: signal.Signals) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("00-welcome")
    opened = learnpack.open("01-hello")
    learnpack.build("01-hello")
    before = agent.wait_for(lambda events: count(events, "compile") > 0)
    agent.stop(sig)
    agent.start()
    learnpack.build("01-hello")
    between = agent.wait_for(lambda events: count(events, "compile") > 1)
    assert [event["id"] for event in between[: len(before)]] == [event["id"] for event in before]
    agent.stop(sig)
    agent.start()
    learnpack.save("01-hello", "print('hello')\n")
    tested = learnpack.test("01-hello")
    learnpack.stop()
    agent.wait_for(lambda events: sessions(events)[-1:] == ["session_end"])
    agent.stop()
    events = agent.events()
    assert_perfect(events, learnpack.truth, {"00-welcome": opened["at"], "01-hello": tested["ended_at"]})
    assert count(events, "open_step", "01-hello") == 1, "a restart opens nothing"
    assert len({event["id"] for event in events}) == len(events)


def test_a_restart_of_the_agent_leaves_the_students_session_open(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    agent.wait_for(lambda events: count(events, "open_step") > 0)
    assert agent.stop(signal.SIGUSR2) == 0
    assert sessions(agent.events()) == ["session_start"]
    agent.start()
    learnpack.build("01-hello")
    agent.wait_for(lambda events: count(events, "compile") > 0)
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert sessions(events) == ["session_start", "session_end"]
    assert_perfect(events, learnpack.truth, {})


def test_who_stops_the_agent_ends_the_session_and_what_follows_is_another(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    agent.wait_for(lambda events: count(events, "compile") > 0)
    asked = now_ms()
    assert agent.stop() == 0
    stopped = agent.events()
    assert sessions(stopped) == ["session_start", "session_end"]
    end = stopped[-1]
    assert asked - CLOCK_MS <= end["at"] <= now_ms() + CLOCK_MS, "the server goes on, and until now so did the session"
    assert end["left"]["step_slug"] == "01-hello"
    document = agent.document()
    assert document is not None
    assert document["workout_session"][-1]["ended_at"] == end["at"]
    agent.start()
    learnpack.build("01-hello")
    agent.wait_for(lambda events: count(events, "compile") > 1)
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 1)
    assert sessions(events) == ["session_start", "session_end"] * 2
    times = [event["at"] for event in events if event["event"].startswith("session_")]
    assert times == sorted(times)
    assert_perfect(events, learnpack.truth, {})


def test_without_a_server_the_session_ends_with_the_last_work(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    student = stage.student(course)
    student.type("python exercises/01-hello/app.py")
    events = agent.wait_for(lambda events: count(events, "compile") > 0)
    assert agent.stop() == 0
    end = agent.events()[-1]
    assert end["event"] == "session_end"
    worked = max(event["at"] for event in events if event["event"] == "compile")
    assert worked - CLOCK_MS <= end["at"] <= worked + CLOCK_MS
    agent.start()
    agent.stop()
    assert sessions(agent.events()) == ["session_start", "session_end"], "who does nothing has no other session"


def test_a_server_that_went_away_meanwhile_has_its_session_ended(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    agent.wait_for(lambda events: count(events, "open_step") > 0)
    agent.kill()
    learnpack.stop(signal.SIGKILL)
    agent.start()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert sessions(events) == ["session_start", "session_end"]


def test_work_after_a_restart_is_of_the_new_server(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.stop(signal.SIGINT)
    first = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert sessions(first) == ["session_start", "session_end"], "a server that says no goodbye is over too"
    again = stage.learnpack(course).start()
    again.open("02-sum")
    again.build("02-sum")
    again.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 1)
    assert sessions(events) == ["session_start", "session_end"] * 2
    assert_perfect(events, learnpack.truth + again.truth, {})


def test_sigterm_ends_the_agent_within_two_seconds_and_with_zero(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    agent.wait_for(lambda events: count(events, "compile") > 0)
    began = time.monotonic()
    agent.call("--version")
    limit = max(2.0, 10 * (time.monotonic() - began))
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < limit
    document = agent.document()
    assert document is not None
    assert len(document["steps"][1]["compilations"]) == 1
    assert os.path.exists(f"/proc/{learnpack.pid}"), "LearnPack does not notice"
