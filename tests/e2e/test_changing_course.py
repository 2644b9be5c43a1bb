"""A course that changes under the student's hands: steps that go away, `git pull`, edited queues, two documents."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.learnpack_forms import encoded
from tests.conftest import Stage
from tests.standin.agent import Event, count
from tests.standin.courses import PYTHON, make_course
from tests.standin.student import Student
from tests.until import until

SLOW = "import time\ntime.sleep(1.5)\nprint('hello')\n"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON, lasting=True)


def runs(events: list[Event]) -> list[tuple[str, str, int | None]]:
    return [(event["event"], event["step_slug"], event["exit_code"]) for event in events if "exit_code" in event]


def while_it_runs(student: Student, do: Callable[[], object]) -> None:
    """Runs the slow program of 01-hello, and does this in the middle of it."""

    def then(_: Student) -> None:
        time.sleep(0.5)  # the agent has seen it, and the file sensor will see the change long before its end
        do()

    student.type("python exercises/01-hello/app.py; echo done", when="STARTED", then=then)


@pytest.mark.parametrize("change", ["rename", "delete"])
def test_a_step_that_goes_away_while_its_program_runs_keeps_the_run(stage: Stage, course: Path, change: str) -> None:
    step = course / "exercises/01-hello"
    (step / "app.py").write_text("print('STARTED', flush=True)\n" + SLOW)
    agent = stage.agent(course).start()

    def go_away() -> None:
        if change == "rename":
            step.rename(course / "exercises/01-hallo")
        else:
            shutil.rmtree(step)

    with stage.student(course) as student:
        while_it_runs(student, go_away)
        events = agent.wait_for(lambda events: count(events, "compile") > 0)
        assert runs(events) == [("compile", "01-hello", 0)]
        student.type("python exercises/07-free/app.py")
    agent.wait_for(lambda events: count(events, "compile", "07-free") > 0)
    assert agent.stop() == 0
    assert "Traceback" not in agent.log


def git(directory: Path, *words: str) -> None:
    who = ("-c", "user.name=teacher", "-c", "user.email=teacher@example.org")
    subprocess.run(["git", "-C", str(directory), *who, *words], check=True, capture_output=True)


def test_a_git_pull_in_mid_work_is_no_work_and_its_tests_are_the_courses(stage: Stage, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    upstream = make_course(tmp_path / "upstream", PYTHON, lasting=True)
    git(upstream, "init", "-q")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "course")
    course = tmp_path / "course"
    git(tmp_path, "clone", "-q", str(upstream), str(course))
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.save("01-hello", "print('hello')\n")
    # The teacher renames a step, changes another one's code and test, and adds a first one: positions move.
    git(upstream, "mv", "exercises/07-free", "exercises/08-free")
    (upstream / "exercises/02-sum/app.py").write_text("# better stub\n")
    for slug in ("01-hello", "02-sum"):
        test = upstream / f"exercises/{slug}/test.py"
        test.write_text(test.read_text() + "\n\ndef test_the_teachers_second():\n    pass\n")
    (upstream / "exercises/00-before").mkdir()
    (upstream / "exercises/00-before/README.md").write_text("# before\n")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "better")
    git(course, "pull", "-q", "--no-rebase", "--no-edit")
    learnpack.test("01-hello")
    events = agent.wait_for(lambda events: count(events, "complete_step", "01-hello") > 0)
    with stage.student(course) as student:
        student.type("python exercises/08-free/app.py")
    events = agent.wait_for(lambda events: count(events, "compile") > 0)
    learnpack.stop()
    opened = [event["step_slug"] for event in events if event["event"] == "open_step"]
    assert opened == ["01-hello", "08-free"], "what git wrote opened nothing"
    assert runs(events) == [("test", "01-hello", 0), ("compile", "08-free", 0)]
    tests = [event["tests_modified"] for event in events if event["event"] == "test"]
    assert tests == [False], "the teacher's new tests are the course's"
    positions = {event["step_slug"]: event["step_position"] for event in events if event["event"] == "compile"}
    steps = sorted(path.name for path in (course / "exercises").iterdir() if path.is_dir())
    assert positions == {"08-free": steps.index("08-free")}
    assert agent.stop() == 0


def test_an_edited_or_torn_queue_opens_nothing_twice(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.open("02-sum")
    agent.wait_for(lambda events: count(events, "open_step") == 2)
    queue = course / ".learn/vscode_queue.json"
    whole = queue.read_text()
    entries = json.loads(whole)
    config = course / ".learn/config.json"
    for number, content in enumerate(
        (whole[:40], "", "[]", "{}", json.dumps(entries[:-1]), json.dumps(entries[1:]), whole)
    ):
        read = len(agent.observed("queue_read"))
        queue.write_text(content)
        # Of a torn queue nothing comes; but when what was written after it has been read, it has been read too.
        seen = len(agent.observed("config_read"))
        config.write_text(json.dumps({"currentExercise": "02-sum", "number": number}))
        until(lambda seen=seen: len(agent.observed("config_read")) > seen)  # type: ignore[misc]
        is_list = content.startswith("[") and content.endswith("]")
        assert (len(agent.observed("queue_read")) > read) == is_list, content
    learnpack.open("07-free")
    events = agent.wait_for(lambda events: count(events, "open_step", "07-free") > 0)
    assert [event["step_slug"] for event in events if event["event"] == "open_step"] == [
        "01-hello",
        "02-sum",
        "07-free",
    ]
    learnpack.stop()
    assert agent.stop() == 0


def document_of(telemetry_id: str, slug: str, at: int) -> str:
    run = {"starting_at": at, "ended_at": at + 200, "exitCode": 0, "source_code": encoded("x"), "stdout": encoded("y")}
    steps = [{"slug": slug, "position": 1, "compilations": [run], "tests": [], "ai_interactions": [], "files": []}]
    head = {"telemetry_id": telemetry_id, "slug": "", "tutorial_started_at": at, "workout_session": []}
    return json.dumps({**head, "steps": steps})


def test_the_runs_of_two_documents_are_all_kept(stage: Stage, course: Path) -> None:
    path = course / ".learn/telemetry.json"
    now = int(time.time() * 1000)
    path.parent.mkdir(exist_ok=True)
    path.write_text(document_of("first00000000000", "01-hello", now - 90_000))
    agent = stage.agent(course).start()
    wait_for_document(path, "01-hello", telemetry_id="first00000000000")
    replacement = path.with_name("other.json")
    replacement.write_text(document_of("second0000000000", "02-sum", now - 60_000))
    os.replace(replacement, path)
    with stage.student(course) as student:  # work, so that the document is written again
        student.type("python exercises/07-free/app.py")
    agent.wait_for(lambda events: count(events, "compile", "07-free") > 0)
    wait_for_document(path, "01-hello", "02-sum", "07-free", telemetry_id="first00000000000")
    assert agent.stop() == 0
    assert "another telemetry_id" in agent.log


def wait_for_document(path: Path, *slugs: str, telemetry_id: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        document = json.loads(path.read_text())
        ran = {step["slug"] for step in document["steps"] if step["compilations"]}
        if ran == set(slugs) and document["telemetry_id"] == telemetry_id and "last_interaction_at" in document:
            return
        assert time.monotonic() < deadline, (ran, document["telemetry_id"])
        time.sleep(0.05)
