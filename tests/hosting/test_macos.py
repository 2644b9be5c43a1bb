"""The whole agent on the path that macOS takes: psutil, polling with kqueue, watchdog's Observer, no /proc."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, clean_environment, count
from tests.standin.courses import PYTHON, make_course
from tests.standin.toolbox import Toolbox
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a Mac needs no stand-in")

APP = "exercises/{}/app.py"
#: Each of the student's programs can be read before it is over.
LASTS = "import time\ntime.sleep(0.5)\n"


class MacAgent(Agent):
    def command(self, verb: str, *more: str, course: Path | None = None) -> list[str]:
        python, *rest = super().command(verb, *more, course=course)
        assert rest[:2] == ["-m", "agent"]
        return [python, "-m", "tests.hosting.macos", *rest[2:]]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    course = make_course(tmp_path / "course", PYTHON)
    (course / APP.format("01-hello")).write_text(LASTS + "print('hello')\n")
    (course / APP.format("02-sum")).write_text(LASTS + "raise SystemExit(7)\n")
    return course


@pytest.fixture
def mac(toolbox: Toolbox, tmp_path: Path, course: Path) -> Iterator[MacAgent]:
    environment = {**clean_environment(toolbox.environment()), "ALL_PROCESSES_BELOW": str(os.getpid())}
    agent = MacAgent(course, tmp_path / "state", environment)
    yield agent
    agent.end()


def test_the_levels_are_those_of_macos(mac: MacAgent) -> None:
    mac.start()
    with mac.journal() as journal:
        status = journal.fact("status")
    assert status["processes"]["level"] == "polling"
    assert "exit codes" not in status["processes"]["blind_to"], "kqueue tells them"
    assert (status["files"]["level"], status["files"]["blind_to"]) == ("observer", "")
    assert mac.call("status").returncode == 0
    assert mac.stop() == 0


def test_work_in_a_terminal_is_seen_with_its_exit_codes(mac: MacAgent, stage: Stage, course: Path) -> None:
    mac.start()
    student = stage.student(course)
    assert student.type("python exercises/01-hello/app.py").code == 0
    assert student.type("python exercises/02-sum/app.py").code == 7
    events = mac.wait_for(lambda events: count(events, "compile") == 2)
    runs = [event for event in events if event["event"] == "compile"]
    assert [(one["step_slug"], one["exit_code"]) for one in runs] == [("01-hello", 0), ("02-sum", 7)]
    assert [event["step_slug"] for event in events if event["event"] == "open_step"] == ["01-hello", "02-sum"]
    assert count(events, "gap") == 0
    assert mac.stop() == 0
    document = mac.document()
    assert document is not None
    assert [len(step["compilations"]) for step in document["steps"][1:3]] == [1, 1]


def test_a_save_is_seen_and_opens_its_step(mac: MacAgent, course: Path) -> None:
    mac.start()
    (course / APP.format("07-free")).write_text("print('another')\n")
    events = mac.wait_for(lambda events: count(events, "open_step", "07-free") == 1)
    assert count(events, "gap") == 0


def test_learnpack_is_seen_and_a_test_completes_its_step(mac: MacAgent, stage: Stage, course: Path) -> None:
    mac.start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    tested = learnpack.test("01-hello")
    mac.wait_for(lambda events: count(events, "session_start") == 1)
    events = mac.wait_for(lambda events: count(events, "test", "01-hello") == 1)
    (test,) = [event for event in events if event["event"] == "test"]
    assert test["exit_code"] in (tested["exit_code"], None), "its end may be over before a look; never a wrong code"
    learnpack.stop()
    mac.wait_for(lambda events: count(events, "session_end") == 1)


def test_a_course_that_is_deleted_and_cloned_again_is_watched_again(
    mac: MacAgent, course: Path, tmp_path: Path
) -> None:
    mac.start()
    away = tmp_path / "away"
    os.rename(course, away)
    until(lambda: "deleted or moved away" in mac.log)
    os.rename(away, course)
    until(lambda: "the course is there again" in mac.log)
    (course / APP.format("01-hello")).write_text("print('back')\n")
    mac.wait_for(lambda events: count(events, "open_step", "01-hello") == 1)


def test_after_sigkill_it_goes_on(mac: MacAgent, stage: Stage, course: Path) -> None:
    mac.start()
    mac.kill()
    mac.start()
    stage.student(course).type("python exercises/01-hello/app.py")
    mac.wait_for(lambda events: count(events, "compile", "01-hello") == 1)
    assert mac.call("repair", "--dry-run").returncode == 75, "it is found, by its lock"
