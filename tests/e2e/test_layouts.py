"""Where a course has its steps and its settings: incremental, a single README, steps in the root, older names."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import INCREMENTAL, LASTS, PYTHON, ROOTED, SINGLE, make_course, make_incremental_course
from tests.standin.learnpack import LearnPack
from tests.standin.score import Truth, assert_perfect

Completed = Mapping[str, int | None]


def finish(agent: Agent, learnpack: LearnPack, completed: Completed, more: tuple[Truth, ...] = ()) -> list[Event]:
    """Ends both; the agent's events are the truth, and its document is of this course."""
    may_miss = agent.may_miss()
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    events = agent.events()
    assert_perfect(events, [*learnpack.truth, *more], completed, may_miss=may_miss)
    return events


def read_document(course: Path, base: str = ".learn") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((course / base / "telemetry.json").read_text(encoding="utf-8"))
    return document


def runs_in(document: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Step → compilations and tests."""
    return {step["slug"]: (len(step["compilations"]), len(step["tests"])) for step in document["steps"]}


def test_incremental_code_at_the_root_belongs_to_the_step_that_is_open(stage: Stage, tmp_path: Path) -> None:
    course = make_incremental_course(tmp_path / "course")
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    student = stage.student(course)
    completed: dict[str, int | None] = {}
    learnpack.open("00-welcome")
    completed["00-welcome"] = learnpack.open("01-first")["at"]
    edits = [student.save_in_place("app.py", "print('fir' + 'st')\n" + LASTS)]
    learnpack.build("01-first")
    completed["01-first"] = learnpack.test("01-first")["ended_at"]
    learnpack.open("02-second")
    # The same program at the same place is of another step now.
    learnpack.build("02-second")
    learnpack.truth.append(student.type("python app.py").ran("compile", "02-second"))
    assert learnpack.test("02-second")["exit_code"] == 1
    learnpack.save("", "print('first')\nprint('second')\n" + LASTS)
    learnpack.truth.append(student.type("cd .learn; python ../app.py; cd ..").ran("compile", "02-second", code=0))
    completed["02-second"] = learnpack.test("02-second")["ended_at"]
    # Back in the first step: its tests are not run again, and it is not completed again.
    learnpack.open("01-first")
    learnpack.build("01-first")
    # The UI has no button for it, but the copies of the step's own files can be written back.
    learnpack.reset("02-second")
    edits = [Truth("edit", "01-first", edits[0].started_at, edits[0].ended_at)]
    finish(agent, learnpack, completed, tuple(edits))
    document = read_document(course)
    assert [step["slug"] for step in document["steps"]] == list(INCREMENTAL)
    assert runs_in(document) == {"00-welcome": (0, 0), "01-first": (2, 1), "02-second": (3, 2)}
    assert [step["is_testeable"] for step in document["steps"]] == [False, True, True]


def test_incremental_terminal_work_without_a_server_has_no_step_to_go_to(stage: Stage, tmp_path: Path) -> None:
    """Nobody knows which step is meant before one was opened: the tests name theirs, the program at the root can't."""
    course = make_incremental_course(tmp_path / "course")
    (course / "app.py").write_text("print('first')\n" + LASTS)
    agent = stage.agent(course).start()
    may_miss = agent.may_miss()
    student = stage.student(course)
    unknown = student.type("python app.py")
    tested = student.type("python -m pytest -q .learn/exercises/01-first/test.py")
    after = student.type("python app.py")
    assert (tested.code, after.code) == (0, 0)
    agent.wait_for(lambda events: count(events, "test") > 0 and count(events, "compile", "01-first") > 0)
    agent.stop()
    maybe = [Truth("compile", slug, unknown.t0, unknown.t1, 0, window=True, optional=True) for slug in ("00-welcome",)]
    truth = [tested.ran("test", "01-first"), after.ran("compile", "01-first"), *maybe]
    assert_perfect(agent.events(), truth, {"01-first": None}, may_miss=may_miss)


def test_a_course_of_a_single_readme_is_one_step(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", {}, root_files=SINGLE)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    student = stage.student(course)
    learnpack.open("default-index")
    learnpack.build("default-index")
    assert learnpack.test("default-index")["exit_code"] == 1
    learnpack.save("", "print('single')\n")
    learnpack.truth.append(student.type("python app.py").ran("compile", "default-index"))
    tested = learnpack.test("default-index")
    assert tested["exit_code"] == 0, tested["stdout"]
    learnpack.truth.append(student.type("pytest -q test.py").ran("test", "default-index"))
    # A directory that the student makes beside the README is no step.
    (course / "notes").mkdir()
    (course / "notes/idea.py").write_text("print('idea')\n")
    learnpack.truth.append(student.type("python app.py").ran("compile", "default-index"))
    finish(agent, learnpack, {"default-index": tested["ended_at"]})
    document = read_document(course)
    assert runs_in(document) == {"default-index": (3, 3)}
    assert document["steps"][0]["opened_at"] > 0, "LearnPack itself never opens position 0"


def test_steps_in_the_root_are_steps(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", ROOTED, exercises=".")
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    student = stage.student(course)
    completed: dict[str, int | None] = {}
    learnpack.open("00-welcome")
    completed["00-welcome"] = learnpack.open("01-one")["at"]
    learnpack.build("01-one")
    learnpack.truth.append(student.type("cd 01-one; python app.py; cd ..").ran("compile", "01-one", code=0))
    completed["01-one"] = learnpack.open("02-two")["at"]
    assert learnpack.test("02-two")["exit_code"] == 1
    learnpack.save("02-two", "print('two')\n", base=".")
    completed["02-two"] = learnpack.test("02-two")["ended_at"]
    learnpack.truth.append(student.type("python 01-one/app.py").ran("compile", "01-one"))
    learnpack.reset("02-two")
    learnpack.build("02-two")
    finish(agent, learnpack, completed)
    document = read_document(course)
    assert runs_in(document) == {"00-welcome": (0, 0), "01-one": (3, 0), "02-two": (1, 2)}


@pytest.mark.parametrize(
    "config, base",
    [
        ("bc.json", ".learn"),
        ("bc.json", ".breathecode"),
        ("learn.json", ".breathecode"),
        (".learn/learn.json", ".learn"),
    ],
)
def test_settings_and_base_of_every_age_are_found(stage: Stage, tmp_path: Path, config: str, base: str) -> None:
    course = make_course(tmp_path / "course", PYTHON, lasting=True, config=config, base=base)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=config != "bc.json").start()
    assert (course / base / "config.json").exists()
    learnpack.open("00-welcome")
    opened = learnpack.open("01-hello")
    learnpack.build("01-hello")
    learnpack.save("01-hello", "print('hello')\n")
    tested = learnpack.test("01-hello")
    learnpack.stop()
    completed = {"00-welcome": opened["at"], "01-hello": tested["ended_at"]}
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    assert_perfect(agent.events(), learnpack.truth, completed)
    document = read_document(course, base)
    assert document["slug"] == "a-course-of-our-own"
    assert runs_in(document)["01-hello"] == (1, 1)
    others = {".learn", ".breathecode"} - {base}
    assert not any((course / name / "telemetry.json").exists() for name in others)


@pytest.mark.parametrize("settings", [{"disabledActions": ["test", "reset"]}, {"disableGrading": True}])
def test_where_learnpack_runs_no_tests_the_terminal_still_does(
    stage: Stage, tmp_path: Path, settings: Mapping[str, object]
) -> None:
    course = make_course(tmp_path / "course", PYTHON, settings, lasting=True)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    student = stage.student(course)
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    assert learnpack.test("01-hello")["kind"] == "nothing"
    learnpack.save("01-hello", "print('hello')\n")
    tested = student.type("pytest -q exercises/01-hello/test.py")
    learnpack.truth.append(tested.ran("test", "01-hello"))
    finish(agent, learnpack, {"01-hello": None})


def test_vscodes_mode_opens_steps_without_fetching_files(stage: Stage, tmp_path: Path) -> None:
    """The editor is asked to open the files: no copies are made, and the list of files is no step."""
    course = make_course(tmp_path / "course", PYTHON, lasting=True)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    for slug in ("01-hello", "02-sum", "01-hello"):
        learnpack.do("open", slug=slug, fetch=False)
        learnpack.do("open_files", files=[f"exercises/{slug}/app.py"])
        learnpack.build(slug)
    assert not (course / ".learn/resets").exists()
    finish(agent, learnpack, {})


def test_learnpacks_clean_takes_the_files_and_not_the_telemetry(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON, lasting=True)
    agent = stage.agent(course).start()
    first = stage.learnpack(course, own_telemetry=True).start()
    first.open("01-hello")
    first.build("01-hello")
    first.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    first.clean()
    assert sorted(path.name for path in (course / ".learn").iterdir()) == ["telemetry.json"]
    time.sleep(0.3)
    again = stage.learnpack(course, own_telemetry=True).start()
    again.open("02-sum")
    again.build("02-sum")
    again.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 1)
    assert agent.stop() == 0, agent.log
    assert_perfect(agent.events(), [*first.truth, *again.truth], {})
    assert runs_in(read_document(course))["01-hello"] == runs_in(read_document(course))["02-sum"] == (1, 0)
