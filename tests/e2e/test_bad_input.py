"""What the world can do to the agent: no course, a broken course, a course that goes away, odd names."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from agent import cli
from tests.conftest import Stage
from tests.standin.agent import PATIENCE_SECONDS, Agent, count
from tests.standin.courses import LASTS, ODD, PYTHON, make_course
from tests.standin.score import Truth, assert_perfect
from tests.until import until

not_for_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON, lasting=True)


def assert_one_line(agent: Agent, code: int) -> str:
    """`run` ends by itself with this code and one line on stderr, and no traceback."""
    agent.start(wait=False)
    assert agent.process is not None
    assert agent.process.wait(PATIENCE_SECONDS) == code, agent.log
    lines = agent.log.splitlines()
    assert len(lines) == 1, agent.log
    return lines[0]


# ---------------------------------------------------------------------------------------------- before the start


def test_a_directory_that_is_no_course_is_one_clear_line(stage: Stage, tmp_path: Path) -> None:
    directory = tmp_path / "no-course"
    directory.mkdir()
    line = assert_one_line(stage.agent(directory), 78)
    assert "learn.json" in line
    assert list(directory.iterdir()) == [], "nothing is made in a directory that is no course"


def test_a_directory_that_is_not_there_is_one_clear_line(stage: Stage, tmp_path: Path) -> None:
    assert "nowhere" in assert_one_line(stage.agent(tmp_path / "nowhere"), 78)


@pytest.mark.parametrize("content", [b"", b"[" * 200_000], ids=["empty", "deep"])
def test_a_broken_learn_json_is_one_clear_line(stage: Stage, course: Path, content: bytes) -> None:
    (course / "learn.json").write_bytes(content)
    assert "learn.json" in assert_one_line(stage.agent(course), 78)


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"slug": "a"', b"[]", b"null", b'"text"', b"\xff\xfe\x00"],
    ids=["torn", "unclosed", "list", "null", "text", "binary"],
)
def test_so_is_every_other_broken_learn_json(course: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    (course / "learn.json").write_bytes(content)
    assert cli.main(["run", str(course), "--state-dir", str(course.parent / "state")]) == 78
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "learn.json" in err


def test_a_huge_learn_json_does_not_hang_the_start(stage: Stage, course: Path) -> None:
    (course / "learn.json").write_text(json.dumps({"slug": "big", "filler": "x" * 30_000_000}))
    agent = stage.agent(course)
    agent.start(wait=False)
    assert agent.process is not None
    process = agent.process
    until(lambda: "ready" in agent.log or process.poll() is not None)
    assert process.poll() in (None, 78), agent.log
    if process.poll() is None:
        assert agent.stop() == 0


def test_odd_values_in_learn_json_do_not_matter(stage: Stage, course: Path) -> None:
    odd: dict[str, object] = {
        "slug": None,
        "title": 7,
        "grading": ["x"],
        "telemetry": "no",
        "entries": 3,
        "exercisesPath": {},
    }
    (course / "learn.json").write_text(json.dumps(odd))
    agent = stage.agent(course).start()
    student = stage.student(course)
    ran = student.type("python exercises/07-free/app.py")
    events = agent.wait_for(lambda events: count(events, "compile") > 0)
    assert_perfect(events, [ran.ran("compile", "07-free")])


def test_a_second_agent_says_that_there_is_one(stage: Stage, course: Path) -> None:
    first = stage.agent(course).start()
    second = stage.agent(course)
    second.lives = 100  # its own log
    assert_one_line(second, 75)
    student = stage.student(course)
    ran = student.type("python exercises/07-free/app.py")
    events = first.wait_for(lambda events: count(events, "compile") > 0)
    assert_perfect(events, [ran.ran("compile", "07-free")])


def test_a_state_directory_that_is_a_file_is_one_clear_line(stage: Stage, course: Path, tmp_path: Path) -> None:
    agent = stage.agent(course)
    agent.state.write_text("a file")
    assert_one_line(agent, 73)


@not_for_root
def test_a_state_directory_that_may_not_be_written_is_one_clear_line(stage: Stage, course: Path) -> None:
    agent = stage.agent(course)
    agent.state.mkdir(mode=0o500)
    assert_one_line(agent, 77)


# ---------------------------------------------------------------------------------------------- the .learn directory


def test_a_course_without_dot_learn_is_watched_and_its_first_server_is_seen(stage: Stage, course: Path) -> None:
    shutil.rmtree(course / ".learn")
    agent = stage.agent(course).start()
    student = stage.student(course)
    ran = student.type("python exercises/07-free/app.py").ran("compile", "07-free")
    agent.wait_for(lambda events: count(events, "compile") > 0)
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "compile") > 1 and count(events, "session_end") > 0)
    assert agent.stop() == 0
    assert_perfect(agent.events(), [ran, *learnpack.truth])
    assert agent.document() is not None


def test_a_dot_learn_that_is_a_symbolic_link_is_not_followed_and_runs_are_seen(
    stage: Stage, course: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (course / ".learn").rename(elsewhere)
    (course / ".learn").symlink_to(elsewhere)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.build("01-hello")
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    # Of the opening nobody tells; the build is what opened the step.
    assert_perfect(events, [truth for truth in learnpack.truth if truth.kind == "compile"], {})
    assert "a symbolic link is not followed" in agent.log
    assert agent.stop() == 0, agent.log
    assert agent.document() is None, "nothing is written through the link"


@not_for_root
def test_a_dot_learn_that_may_not_be_written_costs_only_the_document(stage: Stage, course: Path) -> None:
    (course / ".learn").chmod(0o555)
    try:
        agent = stage.agent(course).start()
        student = stage.student(course)
        ran = student.type("python exercises/07-free/app.py")
        events = agent.wait_for(lambda events: count(events, "compile") > 0)
        assert_perfect(events, [ran.ran("compile", "07-free")])
        assert agent.stop() == 0, agent.log
        assert agent.document() is None
    finally:
        (course / ".learn").chmod(0o755)


DEEP = '{"odd": [%s' + "[" * 3000 + "]" * 3000 + "]}"


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"steps": [',
        "[]",
        '{"steps": {"a": 1}, "workout_session": 7}',
        '{"odd": ' + "[" * 300 + "]" * 300 + "}",
        DEEP % "",
        DEEP % '"\\ud800", ',
        '{"odd": ["\\ud800", ' + "9" * 30 + "]}",
    ],
    ids=["empty", "torn", "list", "odd", "deep", "very deep", "very deep with a surrogate", "big with a surrogate"],
)
def test_a_torn_telemetry_json_stops_nothing_and_is_whole_afterwards(stage: Stage, course: Path, content: str) -> None:
    (course / ".learn/telemetry.json").write_text(content)
    agent = stage.agent(course).start()
    student = stage.student(course)
    ran = student.type("python exercises/07-free/app.py")
    agent.wait_for(lambda events: count(events, "compile") > 0)
    assert agent.stop() == 0, agent.log
    assert "Traceback" not in agent.log
    assert_perfect(agent.events(), [ran.ran("compile", "07-free")])
    document = agent.document()
    assert document is not None and [step["slug"] for step in document["steps"]] == list(PYTHON)
    assert len(document["steps"][7]["compilations"]) == 1


def test_rubbish_in_learnpacks_files_is_no_event_and_stops_nothing(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    agent.wait_for(lambda events: count(events, "open_step") > 0)
    reports = course / ".learn/reports"
    reports.mkdir()
    for rubbish in ("", "{", '{"currentExercise": 9}', '{"numFailedTests": "none"}', "\0\1", "7", "[1, 2]"):
        for name in ("vscode_queue.json", "config.json", "reports/01-hello.json"):
            # Not into the queue: a list that is shorter than before is the queue of a new server.
            if not (name == "vscode_queue.json" and rubbish.startswith("[")):
                (course / ".learn" / name).write_text(rubbish)
    learnpack.open("02-sum")
    learnpack.build("02-sum")
    learnpack.stop()
    events = agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert_perfect(events, learnpack.truth, {})
    assert agent.stop() == 0, agent.log


def test_a_learn_json_that_breaks_while_watched_stops_nothing(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    learn = course / "learn.json"
    text = learn.read_text()
    learn.write_text("{")
    student = stage.student(course)
    ran = student.type("python exercises/07-free/app.py")
    agent.wait_for(lambda events: count(events, "compile") > 0)
    learn.write_text(text)
    assert agent.stop() == 0, agent.log
    assert_perfect(agent.events(), [ran.ran("compile", "07-free")])


# ---------------------------------------------------------------------------------------------- a course that goes away


def work_again(stage: Stage, agent: Agent, course: Path, slug: str = "07-free") -> None:
    """The agent has found the course again: a run and a save there are seen."""
    student = stage.student(course)
    before = len(agent.events())

    def is_seen() -> bool:
        student.type(f"python exercises/{slug}/app.py")
        with contextlib.suppress(AssertionError):
            agent.wait_for(lambda events: count(events[before:], "compile", slug) > 0, seconds=1)
            return True
        return False

    until(is_seen)
    student.close()


def test_a_course_that_is_deleted_and_cloned_again_is_found_again(stage: Stage, course: Path, tmp_path: Path) -> None:
    shutil.copytree(course, tmp_path / "origin", symlinks=True)
    agent = stage.agent(course).start()
    work_again(stage, agent, course)
    shutil.rmtree(course)
    shutil.copytree(tmp_path / "origin", course, symlinks=True)
    work_again(stage, agent, course)
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    events = agent.wait_for(lambda events: count(events, "open_step", "01-hello") > 0)
    assert count(events, "open_step", "01-hello") == 1
    learnpack.stop()
    assert agent.stop() == 0, agent.log
    assert agent.document() is not None


def test_a_course_that_is_moved_away_and_back_is_found_again(stage: Stage, course: Path, tmp_path: Path) -> None:
    agent = stage.agent(course).start()
    work_again(stage, agent, course)
    course.rename(tmp_path / "away")
    student = stage.student(tmp_path / "away")
    student.type("python exercises/02-sum/app.py")
    student.close()
    (tmp_path / "away").rename(course)
    work_again(stage, agent, course)
    assert agent.stop() == 0, agent.log
    assert not (tmp_path / "away").exists()


def test_a_course_that_is_deleted_for_good_does_not_come_back_from_the_dead(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    work_again(stage, agent, course)
    shutil.rmtree(course)
    until(lambda: agent.observed("course_gone"))
    agent.stop()
    assert not course.exists(), "nothing is made at the old place"
    assert count(agent.events(), "compile") > 0, "what was seen is kept"


def test_git_checkout_over_the_course_is_no_work(stage: Stage, course: Path) -> None:
    student = stage.student(course)
    git = "git -c user.name=a -c user.email=a@example.org"
    student.type(f"git init -q . && git add -A && {git} commit -qm one")
    (course / "exercises/01-hello/app.py").write_text("print('hello')\n")
    student.type(f"{git} commit -qam two")
    agent = stage.agent(course).start()
    checked_out = student.type("git checkout -q HEAD~1; git checkout -q -")
    ran = student.type("python exercises/07-free/app.py")
    events = agent.wait_for(lambda events: count(events, "compile") > 0)
    assert [run["step_slug"] for run in events if run["event"] in ("compile", "test")] == ["07-free"]
    assert_perfect(
        events,
        [ran.ran("compile", "07-free"), Truth("edit", "01-hello", checked_out.t0, checked_out.t1, window=True)],
        completed={},
    )


# ---------------------------------------------------------------------------------------------- names


def test_exercises_with_odd_names_are_told_apart(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "a course, ñ and 'quotes'", ODD, lasting=True)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    student = stage.student(course)
    completed: dict[str, int | None] = {}
    before: str | None = None
    for slug in ODD:
        opened = learnpack.open(slug)
        if before is not None:
            completed[before] = opened["at"]
        learnpack.build(slug)
        quoted = "'" + slug.replace("'", "'\\''") + "'"
        learnpack.truth.append(student.type(f"python exercises/{quoted}/app.py").ran("compile", slug))
        before = slug
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    assert_perfect(agent.events(), learnpack.truth, completed)
    document = agent.document()
    assert document is not None and [step["slug"] for step in document["steps"]] == sorted(ODD)


def test_names_that_are_no_text_stop_nothing(stage: Stage, course: Path) -> None:
    bad = os.fsencode(course) + b"/exercises/08-\xff\xfe"
    os.mkdir(bad)
    for name in (b"app.py", b"\xe9t\xe9.py"):
        with open(bad + b"/" + name, "w") as file:
            file.write(LASTS)
    agent = stage.agent(course).start()
    student = stage.student(course)
    student.type("python exercises/08-*/app.py")
    ran = student.type("python exercises/07-free/app.py")
    events = agent.wait_for(lambda events: count(events, "compile", "07-free") > 0)
    assert [run["step_slug"] for run in events if run["event"] == "compile"][-1] == "07-free"
    assert count(events, "compile") == 2
    assert agent.stop() == 0, agent.log
    assert agent.document() is not None
    assert ran.code == 0


def test_a_course_behind_a_symbolic_link_is_the_same_course(stage: Stage, course: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(course)
    agent = stage.agent(link).start()
    learnpack = stage.learnpack(link).start()
    learnpack.open("07-free")
    learnpack.build("07-free")
    student = stage.student(course)
    learnpack.truth.append(student.type("python exercises/07-free/app.py").ran("compile", "07-free"))
    learnpack.truth.append(student.type(f"python {link}/exercises/07-free/app.py").ran("compile", "07-free"))
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    agent.stop()
    assert_perfect(agent.events(), learnpack.truth, {})


def test_a_step_that_appears_while_watched_is_a_step(stage: Stage, course: Path) -> None:
    agent = stage.agent(course).start()
    new = course / "exercises/08-new"
    new.mkdir()
    (new / "README.md").write_text("# new\n")
    (new / "app.py").write_text(LASTS)
    work_again(stage, agent, course, "08-new")
    assert agent.stop() == 0, agent.log
    document = agent.document()
    assert document is not None and [step["slug"] for step in document["steps"]] == [*PYTHON, "08-new"]
