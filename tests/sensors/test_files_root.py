"""The course deleted, cloned again, moved, replaced: the file sensor says so, and works again when it is back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.observations import ConfigRead, CourseGone, CourseRead, FileChanged, Observation, QueueRead
from agent.sensors.files import sensor as files_module
from tests.sensors.watching import (
    MODIFIED,
    SpiedSource,
    Watcher,
    make_course,
    make_step,
    spied,
    unchanged_for,
    write_queue,
)
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

APP = "exercises/01-add/app.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_course(tmp_path / "home" / "work" / "course")


@contextmanager
def unhurried(root: Path) -> Iterator[None]:
    """However long it takes to make what is made in here, the course is not quiet before the last change, after it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files_module, "SETTLE_S", 3600.0)
        patched.setattr(files_module, "_SETTLE_LIMIT_S", 7200.0)
        yield
    (root / "learn.json").open("a").close()  # not `touch`, which nobody is told of


def since_gone(watcher: Watcher) -> list[type[Observation]]:
    """What was told since the course was gone last, or since all was forgotten."""
    kinds = [type(seen) for seen in watcher.everything()]
    return kinds[len(kinds) - kinds[::-1].index(CourseGone) :] if CourseGone in kinds else kinds


def works_again(watcher: Watcher) -> None:
    """The return is told by the course and by no change of a file; then a save is seen."""
    until(lambda: CourseRead in since_gone(watcher))
    until(lambda: watcher.is_present)
    assert FileChanged not in since_gone(watcher)
    (watcher.root / APP).write_text("print('works again')\n")
    watcher.wait_for_change(APP, MODIFIED)


def test_a_deleted_course_is_gone_and_back_when_it_is_made_again(watcher: Watcher, root: Path) -> None:
    shutil.rmtree(root)
    assert watcher.wait_for(CourseGone).reason == "the course's directory was deleted or moved away"
    until(lambda: not watcher.is_present)
    watcher.forget()
    with unhurried(root):
        make_course(root, steps=("00-hello", "01-add"))
    assert len(watcher.wait_for(CourseRead).course.steps) == 2
    works_again(watcher)


def test_a_course_that_is_replaced_at_once_is_gone_and_back(watcher: Watcher, root: Path) -> None:
    for number in range(5):
        watcher.forget()
        with unhurried(root):
            shutil.rmtree(root)
            make_course(root, steps=("00-hello", "01-add", f"1{number}-new"))
        watcher.wait_for(CourseGone)
        new = f"1{number}-new"
        watcher.wait_for_course(lambda course, new=new: course.step_named(new) is not None)  # type: ignore[misc]
        works_again(watcher)


def test_a_course_that_is_deleted_while_somebody_works_in_it_is_gone(watcher: Watcher, root: Path) -> None:
    # The kernel keeps the directory, and the watch on it, for as long as a process lives there.
    shell = subprocess.Popen(["sleep", "60"], cwd=root)
    try:
        shutil.rmtree(root)
        watcher.wait_for(CourseGone)
        with unhurried(root):
            make_course(root)
        works_again(watcher)
    finally:
        shell.kill()
        shell.wait()


def test_a_moved_course_is_gone_until_it_is_moved_back(watcher: Watcher, root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "elsewhere")
    watcher.wait_for(CourseGone)
    (tmp_path / "elsewhere" / APP).write_text("print('elsewhere')\n")
    (tmp_path / "elsewhere").rename(root)
    works_again(watcher)


def test_a_course_is_gone_when_a_directory_above_it_is_renamed(watcher: Watcher, root: Path) -> None:
    above = root.parents[1]
    above.rename(above.with_name("renamed"))
    watcher.wait_for(CourseGone)
    above.with_name("renamed").rename(above)
    works_again(watcher)


def test_a_course_is_gone_when_everything_above_is_deleted_and_made_again_step_by_step(
    watcher: Watcher, root: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "home")
    watcher.wait_for(CourseGone)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "other").mkdir()
    (tmp_path / "home" / "work").mkdir()
    with unhurried(root):
        make_course(root)
    works_again(watcher)


def test_a_directory_of_the_same_path_is_another_course(watcher: Watcher, root: Path, tmp_path: Path) -> None:
    make_course(tmp_path / "new", steps=("00-hello", "01-add", "02-b", "03-c"))
    root.rename(tmp_path / "old")
    (tmp_path / "new").rename(root)
    watcher.wait_for(CourseGone)
    watcher.wait_for_course(lambda course: len(course.steps) == 4)
    works_again(watcher)
    watcher.forget()
    (tmp_path / "old" / APP).write_text("print('old')\n")
    watcher.fence()
    assert watcher.everything() == []


def test_the_course_is_waited_for_until_it_can_be_read(watcher: Watcher, root: Path) -> None:
    configuration = root / "learn.json"
    settle, tried_with = watcher.sensor._tasks["settle"], list[str | None]()

    def spied_settle(at: int) -> None:
        found = configuration.read_text() if configuration.exists() else None
        settle(at)
        tried_with.append(found)

    watcher.sensor._tasks["settle"] = spied_settle
    shutil.rmtree(root)  # if that is slow, what is left of the course is read as another course
    watcher.wait_for(CourseGone)
    watcher.forget()
    make_step(root, "01-add")
    until(lambda: None in tried_with)
    configuration.write_text('{"slug": ')
    until(lambda: '{"slug": ' in tried_with)
    assert watcher.courses() == []
    configuration.write_text('{"slug": "whole"}')
    assert watcher.wait_for(CourseRead).course.slug == "whole"
    works_again(watcher)


def test_a_clone_at_work_is_one_return(watcher: Watcher, root: Path) -> None:
    due = watcher.sensor._due
    shutil.rmtree(root)
    watcher.wait_for(CourseGone)
    watcher.forget()
    with unhurried(root):
        root.mkdir()
        (root / "learn.json").write_text('{"slug": "cloned"}')
        until(lambda: "settle" in due)
        for number in range(20):
            before = due["settle"]
            make_step(root, f"{number:02}-step")
            until(lambda before=before: due["settle"] > before)  # type: ignore[misc]
        assert watcher.courses() == []
    course = watcher.wait_for(CourseRead).course
    assert len(course.steps) == 20
    watcher.fence()
    assert watcher.changes() == []
    assert len(watcher.courses()) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_real_git_clone_brings_the_course_back(watcher: Watcher, root: Path, tmp_path: Path) -> None:
    origin = make_course(tmp_path / "origin", steps=tuple(f"{number:02}-step" for number in range(40)))
    shutil.rmtree(origin / ".learn")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "a course"]):
        subprocess.run(["git", *command], cwd=origin, env=environment, check=True, capture_output=True)
    for _ in range(2):
        watcher.forget()
        with unhurried(root):
            shutil.rmtree(root)
            subprocess.run(["git", "clone", "-q", origin, root], env=environment, check=True, capture_output=True)
        watcher.wait_for(CourseGone)
        watcher.wait_for_course(lambda course: len(course.steps) == 40)
        until(lambda: watcher.is_present)
        (root / "exercises/39-step/app.py").write_text("print(1)\n")
        watcher.wait_for_change("exercises/39-step/app.py", MODIFIED)
        # Deletions may have been told before the root went, if that took long; after that, only the course.
        kinds = [type(seen) for seen in watcher.everything()]
        after = watcher.everything()[kinds.index(CourseGone) :]
        assert kinds.count(CourseGone) == 1
        assert [type(seen) for seen in after] == [CourseGone, CourseRead, FileChanged]


def test_learnpacks_files_are_told_again_when_the_course_is_back(watcher: Watcher, root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "away")
    watcher.wait_for(CourseGone)
    watcher.forget()
    write_queue(tmp_path / "away", ("initializing", None), ("start_exercise", "02-loop"))
    (tmp_path / "away").rename(root)
    watcher.wait_for(ConfigRead)
    kinds = [type(seen) for seen in watcher.everything()]
    assert kinds == [CourseRead, QueueRead, ConfigRead]


def test_a_file_in_the_place_of_the_course_is_no_course(watcher: Watcher, root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("a file\n")
    watcher.wait_for(CourseGone)
    until(lambda: "root" in watcher.sensor._due)
    root.unlink()
    with unhurried(root):
        make_course(root)
    works_again(watcher)


def test_a_course_that_is_gone_at_the_start_is_waited_for(root: Path) -> None:
    watcher = Watcher(root)
    shutil.rmtree(root)
    with watcher:
        watcher.wait_for(CourseGone)
        with unhurried(root):
            make_course(root)
        works_again(watcher)


def test_what_happens_beside_the_course_wakes_nobody(root: Path) -> None:
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:
        watcher.fence()
        until(lambda: sources[0].is_at_rest)
        wakes = sources[0].wakes
        for above in (root.parent, root.parents[1]):
            (above / "other.txt").write_text("x")
            (above / "other").mkdir()
            (above / "other.txt").rename(above / "renamed.txt")
        threading.Event().wait(0.3)
        assert sources[0].wakes == wakes
        until(lambda: unchanged_for(watcher.thread_id, 0.2))
        (root / "other.txt").write_text("x")
        until(lambda: sources[0].wakes > wakes)


def test_nothing_is_polled_while_the_course_is_gone(root: Path) -> None:
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:
        shutil.rmtree(root)
        watcher.wait_for(CourseGone)
        until(lambda: sources[0].is_at_rest)
        wakes = sources[0].wakes
        (root.parent / "other.txt").write_text("x")  # this wakes it, and is none of its business
        until(lambda: sources[0].wakes > wakes)
        until(lambda: sources[0].is_at_rest)
        assert not watcher.is_present
