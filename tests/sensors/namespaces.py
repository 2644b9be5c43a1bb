"""Scenes that need another right or another limit than the test process has: each runs in a process of its own.

`unshare` gives a user namespace, in which inotify's limits are this process's own and mounting harms nobody; no
setting of the machine is touched.  `python -m tests.sensors.namespaces SCENE DIRECTORY` exits 0 if the scene went
as it should.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.observations import CourseGone, CourseRead, EventsLost, QueueRead
from agent.sensors.course import CourseError, find_course, read_course
from agent.sensors.files import sensor as files_module
from tests.sensors.watching import (
    CREATED,
    DELETED,
    MODIFIED,
    Watcher,
    make_course,
    make_step,
    picture_of,
    write_queue,
)
from tests.until import until

REPOSITORY = Path(__file__).parents[2]


def run_scene(scene: Callable[[Path], None], directory: Path, *, flags: str) -> None:
    """Run it in new namespaces (`unshare`'s letters), as root of them; skips where the machine does not allow it."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, flags, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    _run([unshare, flags], scene, directory)


def run_scene_without_privileges(scene: Callable[[Path], None], directory: Path) -> None:
    """Run it without root's right to read everything: as root, without capabilities."""
    if os.geteuid() != 0:
        _run([], scene, directory)
        return
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv here to give up root's rights with")
    _run([setpriv, "--inh-caps=-all", "--bounding-set=-all"], scene, directory)


def _run(prefix: list[str], scene: Callable[[Path], None], directory: Path) -> None:
    command = [*prefix, sys.executable, "-W", "error", "-m", "tests.sensors.namespaces", scene.__name__, str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


# --- the scenes ---


def watch_limit(directory: Path) -> None:
    """Directories over the limit are compared instead, and watched as soon as there is room."""
    limit = Path("/proc/sys/user/max_inotify_watches")
    root = make_course(directory / "course", steps=tuple(f"{number:02}-step" for number in range(30)))
    limit.write_text("20")
    with Watcher(root) as watcher:
        lost = watcher.wait_for(EventsLost)
        assert "limit of inotify watches" in lost.reason, lost
        health = watcher.sensor.health
        assert health.watches <= 20 and len(health.skipped) > 10, health
        for number in range(30):
            (root / f"exercises/{number:02}-step/app.py").write_text("print('found')\n")
        for number in range(30):
            watcher.wait_for_change(f"exercises/{number:02}-step/app.py", MODIFIED)
        make_step(root, "31-new")
        (root / "exercises/29-step/app.py").unlink()
        watcher.wait_for_change("exercises/31-new/app.py", CREATED)
        watcher.wait_for_change("exercises/29-step/app.py", DELETED)
        assert len(watcher.losses) == 1, watcher.losses
        limit.write_text("1000")
        until(lambda: watcher.sensor.health.skipped == ())
        _no_more_polling(watcher)
        (root / "exercises/31-new/app.py").write_text("print('told')\n")
        watcher.wait_for_change("exercises/31-new/app.py", MODIFIED)


def instance_limit(directory: Path) -> None:
    """Without an inotify instance everything is compared, until there is one."""
    limit = Path("/proc/sys/user/max_inotify_instances")
    root = make_course(directory / "course")
    limit.write_text("0")
    with Watcher(root) as watcher:
        assert "instance limit" in watcher.wait_for(EventsLost).reason
        assert watcher.sensor.health.level == "polling"
        (root / "exercises/01-add/app.py").write_text("print(1)\n")
        watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)
        limit.write_text("10")
        until(lambda: watcher.sensor.health.level == "inotify")
        until(lambda: watcher.sensor.health.skipped == ())
        _no_more_polling(watcher)
        (root / "exercises/01-add/app.py").write_text("print(2)\n")
        until(lambda: watcher.changes_of("exercises/01-add/app.py") == [MODIFIED, MODIFIED])
        assert len(watcher.losses) == 1, watcher.losses


def unreadable_directory(directory: Path) -> None:
    """A directory that may not be read is told, and watched when it may."""
    root = make_course(directory / "course")
    step = root / "exercises/01-add"
    step.chmod(0o000)
    (root / "exercises/02-loop").chmod(0o600)
    with Watcher(root) as watcher:
        until(lambda: len(watcher.losses) == 2)
        assert sorted(path for path, _ in watcher.sensor.health.skipped) == ["exercises/01-add", "exercises/02-loop"]
        assert "poll" not in watcher.sensor._due
        (root / "exercises/00-hello/app.py").write_text("print('the rest works')\n")
        watcher.wait_for_change("exercises/00-hello/app.py", MODIFIED)
        step.chmod(0o755)
        (root / "exercises/02-loop").chmod(0o755)
        watcher.wait_for_change("exercises/01-add/app.py", CREATED)
        watcher.wait_for_change("exercises/02-loop/app.py", CREATED)
        until(lambda: watcher.sensor.health.skipped == ())
        step.chmod(0o000)
        make_step(root, "03-new")
        watcher.wait_for_course(lambda course: len(course.steps) == 4)
        watcher.fence()
        assert DELETED not in watcher.changes_of("exercises/01-add/app.py")
        step.chmod(0o755)
        (step / "app.py").write_text("print(3)\n")
        watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)


def unreadable_file(directory: Path) -> None:
    root = make_course(directory / "course")
    app = root / "exercises/01-add/app.py"
    app.chmod(0o000)
    with Watcher(root) as watcher:
        app.chmod(0o600)
        app.write_text("print(1)\n")
        watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)
        assert watcher.losses == []


def unreadable_course(directory: Path) -> None:
    """The right to read lacks: another exit code than a broken configuration."""
    root = make_course(directory / "course")
    for path, reads in (
        (root / "learn.json", (read_course,)),
        (root / "exercises", (read_course,)),
        (root, (read_course, find_course)),
    ):
        mode = path.stat().st_mode
        path.chmod(0o000)
        for read in reads:
            try:
                read(str(root))
            except CourseError as error:
                assert error.permission and "no permission" in str(error) and "\n" not in str(error), error
            else:
                raise AssertionError(f"{path} was read")
        path.chmod(mode)
    step = root / "exercises/01-add"
    step.chmod(0o000)
    course = read_course(str(root))
    step.chmod(0o755)
    assert [(step.slug, len(step.files)) for step in course.steps] == [("00-hello", 3), ("01-add", 0), ("02-loop", 3)]


def unreadable_parent(directory: Path) -> None:
    """The return of the course is seen where the directory above may not be listed."""
    root = make_course(directory / "closed" / "course")
    (directory / "closed").chmod(0o300)
    with Watcher(root) as watcher:
        shutil.move(root, directory / "away")
        watcher.wait_for(CourseGone)
        shutil.move(directory / "away", root)
        watcher.wait_for(CourseRead)
    (directory / "closed").chmod(0o700)


def mounted_over(directory: Path) -> None:
    """Another file system over the course: gone; taken away again: back, and nothing was changed."""
    root = make_course(directory / "course")
    with Watcher(root) as watcher:
        watcher.forget()
        _mount(root)
        gone = watcher.wait_for(CourseGone)
        assert "mounted over" in gone.reason, gone
        (root / "app.py").write_text("print('in the other file system')\n")
        _unmount(root)
        assert watcher.wait_for(CourseRead).course.slug == "small"
        assert watcher.wait_for(QueueRead)
        assert watcher.changes() == []
        (root / "exercises/01-add/app.py").write_text("print(1)\n")
        watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)


def unmounted(directory: Path) -> None:
    """A course on a file system of its own, which goes and comes."""
    root = directory / "course"
    root.mkdir()
    backing = directory / "backing"
    backing.mkdir()
    _mount(backing)
    make_course(backing / "course")
    subprocess.run(["mount", "--bind", str(backing / "course"), str(root)], check=True)
    with Watcher(root) as watcher:
        for number in range(3):
            watcher.forget()
            _unmount(root)
            watcher.wait_for(CourseGone)
            subprocess.run(["mount", "--bind", str(backing / "course"), str(root)], check=True)
            watcher.wait_for(CourseRead)
            (root / "exercises/01-add/app.py").write_text(f"print({number})\n")
            watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)


def unmounted_and_mounted_at_once(directory: Path) -> None:
    """Another file system in the first one's place: the kernel can give it the same device and inode numbers."""
    root = directory / "course"
    root.mkdir()
    _mount(root)
    make_course(root)
    with Watcher(root) as watcher:
        for number in range(10):
            watcher.forget()
            script = 'until umount "$1"; do sleep 0.01; done; mount -t tmpfs none "$1"'  # see _unmount
            subprocess.run(["sh", "-c", script, "sh", str(root)], check=True)
            make_course(root, steps=(f"{number:02}-other",))
            new = f"{number:02}-other"
            watcher.wait_for_course(lambda course, new=new: course.step_named(new) is not None)  # type: ignore[misc]
            until(lambda: watcher.is_present)
            assert watcher.losses or watcher.all(CourseGone)
            (root / f"exercises/{number:02}-other/app.py").write_text("print(1)\n")
            watcher.wait_for_change(f"exercises/{number:02}-other/app.py", MODIFIED)


def mounted_within(directory: Path) -> None:
    """A file system over one step: its files are others now."""
    root = make_course(directory / "course")
    step = root / "exercises/01-add"
    with Watcher(root) as watcher:
        _mount(step)
        assert "mounted" in watcher.wait_for(EventsLost).reason
        watcher.wait_for_change("exercises/01-add/app.py", DELETED)
        (step / "app.py").write_text("print('on another file system')\n")
        watcher.wait_for_change("exercises/01-add/app.py", CREATED)
        _unmount(step)
        watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)
        (step / "app.py").write_text("print('and back')\n")
        until(lambda: watcher.changes_of("exercises/01-add/app.py").count(MODIFIED) == 2)


def bound_twice(directory: Path) -> None:
    """One directory at two paths has one watch: it is told under the first, and the other is named."""
    root = make_course(directory / "course")
    (root / "exercises/03-again").mkdir()
    subprocess.run(["mount", "--bind", str(root / "exercises/01-add"), str(root / "exercises/03-again")], check=True)
    (root / "exercises/04-loop").mkdir()
    subprocess.run(["mount", "--bind", str(root), str(root / "exercises/04-loop")], check=True)
    with Watcher(root) as watcher:
        skipped = dict(watcher.sensor.health.skipped)
        assert len(skipped) == 2 and all("same directory" in reason for reason in skipped.values()), skipped
        (root / "exercises/01-add/app.py").write_text("print(1)\n")
        until(lambda: len(watcher.changes()) == 1)
        watcher.fence()
        assert len(watcher.changes()) == 1
        write_queue(root, ("initializing", None), ("start_exercise", "01-add"))
        watcher.wait_for(QueueRead, lambda seen: len(seen.entries) == 2)
        assert "learn.json" in picture_of(watcher)


def _no_more_polling(watcher: Watcher) -> None:
    """From now on only notices tell: the last comparison is over, and another one is out of the test's reach."""
    files_module.POLL_S = 3600
    watcher.fence()
    until(lambda: watcher.sensor._timeout() is None)


def _unmount(path: Path) -> None:
    """It is busy for the moment in which the sensor reads a file in it."""
    until(lambda: subprocess.run(["umount", str(path)], stderr=subprocess.DEVNULL).returncode == 0)


def _mount(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(path)], check=True)


if __name__ == "__main__":
    files_module.POLL_S = 0.5
    files_module._DUTY = 0  # how long a poll took says nothing here (`test_a_poll_that_was_held_up_...`)
    globals()[sys.argv[1]](Path(sys.argv[2]))
