"""The file sensor on a real disk: what counts as a change, and what LearnPack's own files become."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.observations import (
    CourseGone,
    FileChanged,
    Observation,
)
from agent.sensors.files import tree
from agent.sensors.files.tree import HOLD_S
from tests.sensors.watching import (
    CREATED,
    DELETED,
    MODIFIED,
    SpiedSource,
    Watcher,
    is_comparing,
    replace_file,
    spied,
    unchanged_for,
)
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

APP = "exercises/01-add/app.py"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Callable[[Watcher], None]:
    """What is in doubt stays so for as long as the test works on it; the result ends that, once nothing is."""
    monkeypatch.setattr(tree, "HOLD_S", 3600.0)

    def over(watcher: Watcher) -> None:
        until(lambda: watcher.sensor._tree.next_doubt() is None)
        monkeypatch.setattr(tree, "HOLD_S", HOLD_S)

    return over


# --- saves ---


def test_an_in_place_save_is_one_modification(watcher: Watcher, root: Path) -> None:
    with open(root / APP, "w") as file:
        file.write("print(1)\n")
        file.flush()
        file.write("print(2)\n")
    watcher.wait_for_change(APP, MODIFIED)
    watcher.fence()
    assert watcher.changes() == [(APP, MODIFIED)]


def test_a_save_is_stamped_with_the_time_of_its_close(watcher: Watcher, root: Path) -> None:
    before = time.time_ns() // 1_000_000
    (root / APP).write_text("x = 1\n")
    seen = watcher.wait_for_change(APP, MODIFIED)
    assert before <= seen.at <= time.time_ns() // 1_000_000


def test_a_save_by_rename_is_one_modification(watcher: Watcher, root: Path) -> None:
    replace_file(root / APP, "print(1)\n")
    watcher.wait_for_change(APP, MODIFIED)
    watcher.fence()
    assert watcher.changes() == [(APP, MODIFIED)]


def test_vims_save_is_one_modification(watcher: Watcher, root: Path, patient: Callable[[Watcher], None]) -> None:
    step = root / "exercises/01-add"
    (step / ".app.py.swp").write_bytes(b"swap")
    (step / "4913").write_text("")
    (step / "4913").unlink()
    (step / "app.py").rename(step / "app.py~")
    until(lambda: watcher.sensor._tree.next_doubt() is not None)  # its absence was noticed
    with open(step / "app.py", "w") as file:
        file.write("print('vim')\n")
        file.flush()
        os.fsync(file.fileno())
    (step / "app.py~").unlink()
    (step / ".app.py.swp").unlink()
    watcher.wait_for_change(APP, MODIFIED)
    patient(watcher)
    watcher.fence()
    assert watcher.changes() == [(APP, MODIFIED)]


def test_a_file_that_is_absent_for_longer_is_deleted_and_created(watcher: Watcher, root: Path) -> None:
    (root / APP).rename(root / f"{APP}~")
    deleted = watcher.wait_for_change(APP, DELETED)
    assert time.time_ns() // 1_000_000 - deleted.at >= HOLD_S * 1000 - 1  # stamped when it went, told when it was sure
    (root / f"{APP}~").rename(root / APP)
    watcher.wait_for_change(APP, CREATED)
    watcher.fence()
    assert watcher.changes() == [(APP, DELETED), (APP, CREATED)]


def test_a_file_that_is_absent_for_a_moment_and_comes_back_the_same_did_not_change(
    watcher: Watcher, root: Path, patient: Callable[[Watcher], None]
) -> None:
    text = (root / APP).read_text()
    (root / APP).unlink()
    until(lambda: watcher.sensor._tree.next_doubt() is not None)
    (root / APP).write_text(text)
    patient(watcher)
    watcher.fence()
    assert watcher.changes() == []


def test_sed_in_place_is_one_modification(watcher: Watcher, root: Path) -> None:
    temporary = root / "exercises/01-add/sedAb3dE9"
    temporary.write_text("print('sed')\n")
    temporary.replace(root / APP)
    watcher.wait_for_change(APP, MODIFIED)
    watcher.fence()
    assert watcher.changes() == [(APP, MODIFIED)]


def test_touch_and_a_save_of_the_same_text_are_no_change(watcher: Watcher, root: Path) -> None:
    text = (root / APP).read_text()
    os.utime(root / APP)
    (root / APP).touch()
    (root / APP).write_text(text)
    replace_file(root / APP, text)
    watcher.fence()
    assert watcher.everything() == []


def test_two_saves_of_the_same_size_within_one_tick_of_the_clock_are_both_seen(watcher: Watcher, root: Path) -> None:
    for text in ("a = 1\n", "a = 2\n", "a = 3\n"):
        (root / APP).write_text(text)
        count = int(text[4])
        until(lambda count=count: watcher.changes_of(APP).count(MODIFIED) >= count)  # type: ignore[misc]
    watcher.fence()
    assert watcher.changes_of(APP) == [MODIFIED] * 3


def test_a_new_a_renamed_and_a_deleted_file_are_told(watcher: Watcher, root: Path) -> None:
    step = root / "exercises/01-add"
    (step / "helper.py").write_text("x = 1\n")
    watcher.wait_for_change("exercises/01-add/helper.py", CREATED)
    (step / "helper.py").rename(step / "tool.py")
    watcher.wait_for_change("exercises/01-add/tool.py", CREATED)
    watcher.wait_for_change("exercises/01-add/helper.py", DELETED)
    (step / "tool.py").unlink()
    watcher.wait_for_change("exercises/01-add/tool.py", DELETED)


def test_a_hard_link_and_a_file_that_got_its_name_when_it_was_whole_are_seen(watcher: Watcher, root: Path) -> None:
    os.link(root / APP, root / "exercises/01-add/linked.py")
    watcher.wait_for_change("exercises/01-add/linked.py", CREATED)
    descriptor = os.open(root / "exercises/01-add", os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(descriptor, b"print('whole')\n")
        # Only with a directory's descriptor does Python use linkat(2), which follows the link in /proc.
        os.link(f"/proc/self/fd/{descriptor}", root / "exercises/01-add/named.py", src_dir_fd=descriptor)
    finally:
        os.close(descriptor)
    watcher.wait_for_change("exercises/01-add/named.py", CREATED)


def test_what_tools_leave_for_a_moment_is_never_told(watcher: Watcher, root: Path) -> None:
    step = root / "exercises/01-add"
    names = (
        ".app.py.swp .app.py.swx 4913 app.py~ .#app.py #app.py# app.py.tmp sedXyZ123 app.cpython-311.pyc app.pyc"
        " .watchman-cookie-host-1-2 .DS_Store .hidden.py app.py.1234567 app.py___jb_tmp___ .nfs0000123"
    ).split()
    for name in names:
        (step / name).write_text(name)
    (root / "pytest-cache-files-ab12").mkdir()
    (root / ".pytest_cache" / "v").mkdir(parents=True)
    (root / ".pytest_cache" / "v" / "x.py").write_text("x")
    (step / "__pycache__").mkdir()
    (step / "__pycache__" / "app.py").write_text("x")
    (root / "node_modules" / "a").mkdir(parents=True)
    (root / "node_modules" / "a" / "index.js").write_text("x")
    watcher.fence()
    assert watcher.everything() == []


def test_files_over_a_mebibyte_are_compared_without_reading_them(watcher: Watcher, root: Path) -> None:
    big = root / "exercises/01-add/data.csv"
    big.write_bytes(b"1,2\n" * 400_000)
    watcher.wait_for_change("exercises/01-add/data.csv", CREATED)
    with open(big, "ab") as file:
        file.write(b"3,4\n")
    watcher.wait_for_change("exercises/01-add/data.csv", MODIFIED)


def test_odd_names_are_kept_as_they_are(watcher: Watcher, root: Path) -> None:
    directory = os.fsencode(root / "exercises/01-add")
    for name in (b"with space.py", b"new\nline.py", b"\xff\xfe.py", "ñandú.py".encode()):
        with open(directory + b"/" + name, "wb") as file:
            file.write(b"x = 1\n")
        watcher.wait_for_change(f"exercises/01-add/{os.fsdecode(name)}", CREATED)
    assert watcher.losses == []


def test_a_link_a_pipe_and_a_socket_are_no_files(watcher: Watcher, root: Path) -> None:
    step = root / "exercises/01-add"
    os.symlink("/etc/passwd", step / "link.py")
    os.mkfifo(step / "pipe.py")
    os.symlink(step, step / "loop")
    os.symlink("/etc", root / "exercises" / "04-link")
    watcher.fence()
    assert watcher.changes() == []


def test_a_file_that_becomes_a_link_is_deleted(watcher: Watcher, root: Path) -> None:
    (root / APP).unlink()
    os.symlink("/etc/passwd", root / APP)
    watcher.wait_for_change(APP, DELETED)
    watcher.fence()
    assert watcher.changes() == [(APP, DELETED)]


def test_an_emptied_file_is_modified_when_it_stays_empty(watcher: Watcher, root: Path) -> None:
    (root / APP).write_text("")
    watcher.wait_for_change(APP, MODIFIED)
    watcher.fence()
    assert watcher.changes() == [(APP, MODIFIED)]


def test_a_file_that_is_empty_between_two_saves_is_not_told_to_be(
    watcher: Watcher, root: Path, patient: Callable[[Watcher], None]
) -> None:
    text = (root / APP).read_text()
    (root / APP).write_text("")
    until(lambda: watcher.sensor._tree.next_doubt() is not None)
    (root / APP).write_text(text)
    patient(watcher)
    watcher.fence()
    assert watcher.changes() == []


# --- directories ---


def test_a_tree_made_at_once_is_found_whole(watcher: Watcher, root: Path, patient: Callable[[Watcher], None]) -> None:
    for number in range(300):
        deep = root / f"exercises/01-add/a{number}/b/c"
        deep.mkdir(parents=True)
        (deep / "x.py").write_text(f"x = {number}\n")
    for number in range(300):
        watcher.wait_for_change(f"exercises/01-add/a{number}/b/c/x.py", CREATED)
    patient(watcher)
    watcher.fence()
    assert len(watcher.changes()) == len(set(watcher.changes_of_files())) == 300
    (root / "exercises/01-add/a7/b/c/x.py").write_text("changed\n")
    watcher.wait_for_change("exercises/01-add/a7/b/c/x.py", MODIFIED)


def test_a_removed_directory_deletes_its_files_and_its_watches(watcher: Watcher, root: Path) -> None:
    before = watcher.sensor.health.watches
    deep = root / "exercises/01-add/a/b"
    deep.mkdir(parents=True)
    (deep / "x.py").write_text("x\n")
    watcher.wait_for_change("exercises/01-add/a/b/x.py", CREATED)
    shutil.rmtree(root / "exercises/01-add/a")
    watcher.wait_for_change("exercises/01-add/a/b/x.py", DELETED)
    until(lambda: watcher.sensor.health.watches == before)


def test_a_renamed_directory_is_watched_under_its_new_name(watcher: Watcher, root: Path) -> None:
    (root / "exercises/01-add").rename(root / "exercises/05-sum")
    watcher.wait_for_change("exercises/05-sum/app.py", CREATED)
    watcher.wait_for_change(APP, DELETED)
    (root / "exercises/05-sum/app.py").write_text("print(5)\n")
    watcher.wait_for_change("exercises/05-sum/app.py", MODIFIED)
    assert not [path for path, change in watcher.changes() if path == APP and change is not DELETED]


def test_a_directory_moved_out_of_the_course_is_heard_of_no_more(watcher: Watcher, root: Path, tmp_path: Path) -> None:
    (root / "exercises/01-add").rename(tmp_path / "elsewhere")
    watcher.wait_for_change(APP, DELETED)
    watcher.fence()  # the other files of the step
    watcher.forget()
    (tmp_path / "elsewhere/app.py").write_text("print('elsewhere')\n")
    watcher.fence()
    assert watcher.changes() == []


def test_a_directory_that_is_replaced_at_once_is_watched_again(watcher: Watcher, root: Path, tmp_path: Path) -> None:
    for number in range(20):
        (root / "exercises/01-add").rename(tmp_path / f"old-{number}")
        step = root / "exercises/01-add"
        step.mkdir()
        (step / "app.py").write_text(f"print({number})\n")
    watcher.fence()
    watcher.forget()
    (root / APP).write_text("print('last')\n")
    watcher.wait_for_change(APP, MODIFIED)
    (tmp_path / "old-3/app.py").write_text("print('old')\n")
    watcher.fence()
    assert watcher.changes() == [(APP, MODIFIED)]


def test_a_virtual_environment_made_in_a_step_is_left_out(watcher: Watcher, root: Path) -> None:
    environment = root / "exercises/01-add/env"
    (environment / "lib/python3.11").mkdir(parents=True)
    (environment / "bin").mkdir()
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (environment / "bin/activate.py").write_text("x\n")
    watcher.fence()
    (environment / "lib/python3.11/module.py").write_text("x\n")
    watcher.fence()
    assert [path for path, _ in watcher.changes() if path.endswith("module.py")] == []
    assert not [path for path in watcher.sensor._tree.directories if "/env" in path]
    assert ("exercises/01-add/env", "a virtual environment") in watcher.sensor.health.skipped


def test_only_the_directories_that_matter_are_watched(root: Path) -> None:
    for path in ("node_modules/a/b", ".git/objects", "venv/lib", ".learn/_app/js", ".learn/dist", "src/deep", "docs"):
        (root / path).mkdir(parents=True)
    (root / "venv" / "pyvenv.cfg").write_text("home = /usr\n")
    (root / ".learn/resets/00-hello").mkdir()
    (root / "exercises/01-add/node_modules/x").mkdir(parents=True)
    with Watcher(root) as watcher:
        assert watcher.sensor._tree.directories == {
            ".",
            ".learn",
            ".learn/dist",
            ".learn/reports",
            ".learn/resets",
            "exercises",
            "exercises/00-hello",
            "exercises/01-add",
            "exercises/02-loop",
        }
        above = len(root.parents)
        assert watcher.sensor.health.watches == 9 + above


# --- cost ---


def test_nothing_wakes_up_while_nothing_happens(root: Path) -> None:
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:
        (root / APP).write_text("print(1)\n")
        watcher.fence()
        until(lambda: sources[0].is_at_rest)  # it waits for notices, without an end
        until(lambda: unchanged_for(watcher.thread_id, 0.5))  # and that is so for the kernel too
        wakes = sources[0].wakes
        (root / APP).read_text()  # a reader is nothing that happens
        assert not threading.Event().wait(0.5)
        assert sources[0].wakes == wakes
        (root / APP).write_text("print(2)\n")
        until(lambda: sources[0].wakes > wakes)


def test_a_save_is_told_within_milliseconds_of_the_close(root: Path) -> None:
    delays: list[float] = []
    closed = [0.0]

    def put(seen: object) -> None:
        if isinstance(seen, FileChanged) and seen.path == APP:
            delays.append(time.perf_counter() - closed[0])

    with Watcher(root, put=put) as watcher:
        for number in range(100):
            with open(root / APP, "w") as file:
                file.write(f"print({number})\n")
                file.flush()
                closed[0] = time.perf_counter()
            until(lambda number=number: len(watcher.changes_of(APP)) > number)  # type: ignore[misc]
    delays.sort()
    # Half a millisecond is usual.  A machine that is busy holds up most of them; what the sensor waits for, all.
    assert delays[5] < 0.010


def test_a_stopped_sensor_leaves_nothing_open_and_may_be_stopped_again(root: Path) -> None:
    until(lambda: not is_comparing())  # which opens files, now and then
    before = len(os.listdir("/proc/self/fd"))
    watcher = Watcher(root)
    watcher.sensor.start()
    assert len(os.listdir("/proc/self/fd")) > before
    watcher.sensor.stop()
    watcher.sensor.stop()
    until(lambda: len(os.listdir("/proc/self/fd")) == before)
    assert watcher.all(CourseGone) == []


def test_the_sensors_descriptors_do_not_survive_an_exec(watcher: Watcher) -> None:
    inheritable = [
        os.readlink(f"/proc/self/fd/{number}")
        for number in map(int, os.listdir("/proc/self/fd"))
        if number > 2 and os.path.lexists(f"/proc/self/fd/{number}") and os.get_inheritable(number)
    ]
    assert not [target for target in inheritable if "inotify" in target or "mountinfo" in target]


def test_a_receiver_that_hangs_holds_a_stop_up_for_a_second_only(root: Path) -> None:
    go_on, is_in = threading.Event(), threading.Event()

    def hang(observation: Observation) -> None:
        if isinstance(observation, FileChanged):
            is_in.set()
            go_on.wait(50)

    watcher = Watcher(root, put=hang)
    watcher.sensor.start()
    try:
        (root / APP).write_text("print(1)\n")
        assert is_in.wait(50)
        begun = time.monotonic()
        watcher.sensor.stop()
        assert time.monotonic() - begun < 10
        assert watcher.sensor._thread.is_alive()  # it hangs still, and was left behind
    finally:
        go_on.set()
        watcher.sensor._thread.join(50)
    assert not watcher.sensor._thread.is_alive()
