"""The file sensor on a real disk: what LearnPack's own files become, when the course is another, who opens files."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from agent.core.observations import ConfigRead, QueueEntry, QueueRead, ReportRead, ResetCopyAppeared
from agent.core.observations import TestsCompared as Compared
from tests.sensors.watching import (
    CREATED,
    MODIFIED,
    Watcher,
    make_course,
    make_step,
    picture_of,
    replace_file,
    write_config,
    write_queue,
)
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

APP = "exercises/01-add/app.py"


# --- LearnPack's files ---


def test_the_start_tells_what_the_queue_and_the_configuration_say(root: Path) -> None:
    write_queue(root, ("initializing", None), ("start_exercise", "01-add"))
    write_config(root, "01-add")
    os.utime(root / ".learn/vscode_queue.json", ns=(1, 1_700_000_000_123_000_000))
    with Watcher(root) as watcher:
        queue, config = watcher.everything()
    assert queue == QueueRead(
        1_700_000_000_123, (QueueEntry("initializing", None, "0"), QueueEntry("start_exercise", "01-add", "1"))
    )
    assert isinstance(config, ConfigRead) and config.current == "01-add"


def test_an_opened_step_is_a_configuration_and_a_queue(watcher: Watcher, root: Path) -> None:
    write_config(root, "01-add")
    write_queue(root, ("initializing", None), ("start_exercise", "01-add"))
    assert watcher.wait_for(ConfigRead).current == "01-add"
    assert watcher.wait_for(QueueRead).entries[-1] == QueueEntry("start_exercise", "01-add", "1")
    watcher.fence()
    assert watcher.changes() == []
    assert len(watcher.everything()) == 2


def test_a_queue_written_again_with_the_same_content_is_no_observation(watcher: Watcher, root: Path) -> None:
    write_queue(root, ("initializing", None))
    write_config(root, None)
    watcher.fence()
    assert watcher.everything() == []


def test_a_half_written_file_is_read_again_when_it_is_whole(watcher: Watcher, root: Path) -> None:
    queue = root / ".learn/vscode_queue.json"
    whole = queue.read_text()
    for half in ("", "[", '[{"name": "initial'):
        queue.write_text(half)
        watcher.fence()
    assert watcher.everything() == []
    queue.write_text(whole)
    watcher.fence()
    assert watcher.everything() == []  # it says what it said before
    write_queue(root, ("initializing", None), ("reset_exercise", "02-loop"))
    assert watcher.wait_for(QueueRead).entries[-1] == QueueEntry("reset_exercise", "02-loop", "1")


def test_a_jest_report_is_read(watcher: Watcher, root: Path) -> None:
    (root / ".learn/reports/01-add.json").write_text(
        '{"numPassedTests": 2, "numFailedTests": 1, "numFailedTestSuites": 1, "success": false}'
    )
    seen = watcher.wait_for(ReportRead)
    assert (seen.slug, seen.passed, seen.failed, seen.failed_suites) == ("01-add", 2, 1, 1)
    assert watcher.changes() == []


def test_a_queue_that_is_huge_a_link_or_a_pipe_says_nothing_and_the_next_one_is_read(
    watcher: Watcher, root: Path, tmp_path: Path
) -> None:
    queue = root / ".learn/vscode_queue.json"
    queue.write_text("[" + " " * (8 << 20) + "]")
    watcher.fence()
    queue.unlink()
    (tmp_path / "real.json").write_text('[{"name": "linked"}]')
    queue.symlink_to(tmp_path / "real.json")
    watcher.fence()
    queue.unlink()
    os.mkfifo(queue)
    watcher.fence()
    assert watcher.everything() == []
    queue.unlink()
    write_queue(root, ("start_exercise", "02-loop"))
    assert watcher.wait_for(QueueRead).entries == (QueueEntry("start_exercise", "02-loop", "0"),)


def test_the_first_copy_of_a_step_is_told_but_not_its_files(watcher: Watcher, root: Path) -> None:
    copy = root / ".learn/resets/02-loop"
    copy.mkdir()
    (copy / "app.py").write_text("x\n")
    assert watcher.wait_for(ResetCopyAppeared).slug == "02-loop"
    (copy / "app.py").write_text("y\n")
    watcher.fence()
    assert watcher.changes() == []
    assert len(watcher.all(ResetCopyAppeared)) == 1


def test_the_agents_own_document_is_no_observation(watcher: Watcher, root: Path) -> None:
    for number in range(5):
        temporary = root / f".learn/.telemetry.json.{number}"
        temporary.write_text("{}")
        temporary.replace(root / ".learn/telemetry.json")
    (root / ".learn/telemetry.json").write_text('{"in": "place"}')
    (root / ".learn/telemetry.json").unlink()
    watcher.fence()
    assert watcher.everything() == []


def test_learnpacks_directory_is_watched_when_it_appears(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    shutil.rmtree(root / ".learn")
    with Watcher(root) as watcher:
        assert watcher.everything() == []
        (root / ".learn" / "resets" / "00-hello").mkdir(parents=True)
        write_queue(root, ("initializing", None))
        write_config(root, "00-hello")
        assert watcher.wait_for(QueueRead).entries == (QueueEntry("initializing", None, "0"),)
        assert watcher.wait_for(ConfigRead, lambda seen: seen.current == "00-hello")
        assert watcher.wait_for(ResetCopyAppeared).slug == "00-hello"
        (root / ".learn" / "reports").mkdir()
        (root / ".learn" / "reports" / "a.json").write_text(
            '{"numPassedTests": 1, "numFailedTests": 0, "numFailedTestSuites": 0}'
        )
        assert watcher.wait_for(ReportRead).passed == 1


def test_a_learnpack_directory_that_is_a_link_is_not_followed_and_said_so(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    (root / ".learn").rename(tmp_path / "outside")
    (root / ".learn").symlink_to(tmp_path / "outside")
    with Watcher(root) as watcher:
        assert (".learn", "a symbolic link is not followed") in watcher.sensor.health.skipped
        (tmp_path / "outside/vscode_queue.json").write_text("[]")
        watcher.fence()
        assert watcher.everything() == []
        (root / ".learn").unlink()
        (tmp_path / "outside").rename(root / ".learn")
        watcher.wait_for(QueueRead)
        assert watcher.sensor.health.skipped == ()


def test_clean_deletes_learnpacks_files_without_a_word(watcher: Watcher, root: Path) -> None:
    for path in ("config.json", "vscode_queue.json"):
        (root / ".learn" / path).unlink()
    shutil.rmtree(root / ".learn/resets")
    watcher.fence()
    assert watcher.everything() == []


def test_the_breathecode_directory_takes_the_place_of_learn(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    (root / ".learn").rename(root / ".breathecode")
    with Watcher(root) as watcher:
        assert watcher.course.base == ".breathecode"
        (root / ".breathecode/vscode_queue.json").write_text('[{"name": "start_exercise", "data": "00-hello"}]')
        assert watcher.wait_for(QueueRead, lambda seen: seen.entries[-1].slug == "00-hello")


# --- the course changes ---


def test_a_new_step_is_a_new_course(watcher: Watcher, root: Path) -> None:
    make_step(root, "03-new")
    watcher.wait_for_change("exercises/03-new/test.py", CREATED)
    course = watcher.wait_for_course(lambda course: len(course.steps) == 4 and course.steps[3].is_testable)
    assert course.steps[3].slug == "03-new"


def test_a_removed_step_moves_the_positions(watcher: Watcher, root: Path) -> None:
    shutil.rmtree(root / "exercises/00-hello")
    course = watcher.wait_for_course(lambda course: len(course.steps) == 2)
    assert [(step.slug, step.position) for step in course.steps] == [("01-add", 0), ("02-loop", 1)]


def test_a_new_test_file_makes_a_step_testable(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    (root / "exercises/02-loop/test.py").unlink()
    with Watcher(root) as watcher:
        (root / "exercises/02-loop/tests.py").write_text("def test(): pass\n")
        watcher.wait_for_course(lambda course: course.steps[2].is_testable)


def test_a_save_is_no_new_course(watcher: Watcher, root: Path) -> None:
    (root / APP).write_text("print(1)\n")
    replace_file(root / "exercises/02-loop/app.py", "print(2)\n")
    watcher.fence()
    assert watcher.courses() == []


def test_a_changed_configuration_is_a_new_course_and_a_broken_one_keeps_the_old(
    watcher: Watcher, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        (root / "learn.json").write_text('{"slug": ')
        watcher.fence()
        (root / "learn.json").write_text('{"slug":  ')
        watcher.fence()
    assert watcher.courses() == []
    warnings = [record.message for record in caplog.records if "learn.json" in record.message]
    assert len(warnings) == 1
    (root / "learn.json").write_text('{"slug": "other", "grading": "incremental"}')
    course = watcher.wait_for_course(lambda course: course.slug == "other")
    assert course.at_root


def test_steps_that_move_to_another_directory_are_followed(watcher: Watcher, root: Path) -> None:
    (root / "exercises").rename(root / ".learn/exercises")
    watcher.wait_for_course(lambda course: course.exercises == ".learn/exercises")
    until(lambda: ".learn/exercises/01-add/app.py" in picture_of(watcher))
    (root / ".learn/exercises/01-add/app.py").write_text("print('moved')\n")
    watcher.wait_for_change(".learn/exercises/01-add/app.py", MODIFIED)


def test_a_course_without_any_exercise_gets_its_first(tmp_path: Path) -> None:
    root = tmp_path / "course"
    root.mkdir()
    (root / "learn.json").write_text("{}")
    (root / "README.md").write_text("# one\n")
    with Watcher(root) as watcher:
        make_step(root, "00-first")
        course = watcher.wait_for_course(lambda course: [step.slug for step in course.steps] == ["00-first"])
        assert course.exercises == "exercises"
        (root / "exercises/00-first/app.py").write_text("print(1)\n")
        watcher.wait_for_change("exercises/00-first/app.py", MODIFIED)


# --- opens ---


def test_opens_in_steps_are_told_only_while_they_are_wanted(root: Path) -> None:
    with Watcher(root) as watcher:
        watcher.wait_for(Compared)  # the agent has opened the tests itself
        (root / APP).read_text()
        watcher.fence()
        assert watcher.opened == 0
        watcher.sensor.watch_opens(True)
        until(lambda: watcher.sensor._opens_placed)
        watcher.fence()
        (root / APP).read_text()
        until(lambda: watcher.opened > 0)
        before = watcher.opened
        (root / "learn.json").read_text()
        (root / ".learn/config.json").read_text()
        os.listdir(root / "exercises/01-add")
        watcher.fence()
        assert watcher.opened == before
        watcher.sensor.watch_opens(False)
        until(lambda: not watcher.sensor._opens_placed)
        watcher.fence()
        before = watcher.opened
        (root / APP).read_text()
        watcher.fence()
        assert watcher.opened == before
        (root / APP).write_text("print('still watched')\n")
        watcher.wait_for_change(APP, MODIFIED)


def test_opens_in_the_root_are_told_when_the_code_is_there(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    (root / "learn.json").write_text('{"grading": "incremental"}')
    (root / "app.py").write_text("print(1)\n")
    with Watcher(root, watch_opens=True) as watcher:
        watcher.wait_for(Compared)  # the agent has opened the tests itself
        watcher.fence()
        before = watcher.opened
        (root / "app.py").read_text()
        until(lambda: watcher.opened > before)
