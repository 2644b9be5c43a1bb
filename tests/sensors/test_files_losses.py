"""The file sensor where notices are lost, limits are reached, directories can't be read, or nothing can be watched."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from agent.core.observations import CourseRead, EventsLost, FileChanged, Observation, QueueRead
from agent.sensors.files import sensor as files_module
from agent.sensors.files.mounts import kind_of, parse_mounts, remote_kind
from agent.sensors.files.observer import ObserverSource
from agent.sensors.files.sensor import open_source
from agent.sensors.files.watches import Interest, Kind, NoSource, Notice, Source
from tests.sensors import namespaces
from tests.sensors.watching import (
    CREATED,
    DELETED,
    MODIFIED,
    SpiedSource,
    Watcher,
    make_step,
    picture_of,
    replace_file,
    spied,
    write_queue,
)
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

APP = "exercises/01-add/app.py"


def files_on_disk(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# --- overflow and bursts ---


@pytest.mark.timeout(120)
def test_a_burst_that_overflows_the_kernels_queue_ends_with_the_right_picture(root: Path) -> None:
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queued > 40_000:
        pytest.skip(f"the kernel queues {queued} events here: too many to fill in a test")
    directories = [root / f"exercises/01-add/d{number}" for number in range(100)]
    for directory in directories:
        directory.mkdir()
        (directory / "old.py").write_text("old\n")
    release = threading.Event()

    def put(seen: Observation) -> None:
        if isinstance(seen, FileChanged):
            release.wait(60)  # the sensor's thread stands still until the burst is over

    with Watcher(root, put=put) as watcher:
        before = time.time_ns() // 1_000_000
        (root / APP).write_text("print('first')\n")
        for number in range(20_000):
            (directories[number % 100] / f"f{number}.py").write_text(f"{number}\n")
        (directories[7] / "old.py").write_text("changed in the burst\n")
        (directories[8] / "old.py").unlink()
        release.set()
        lost = watcher.wait_for(EventsLost, timeout=60)
        assert "overflow" in lost.reason
        assert before <= lost.since <= lost.at
        watcher.wait_for_change("exercises/01-add/d7/old.py", MODIFIED, timeout=60)
        watcher.wait_for_change("exercises/01-add/d8/old.py", DELETED, timeout=60)
        until(lambda: watcher.sensor.health.files >= 20_000, timeout=60, every=0.05)
        watcher.fence()
        assert picture_of(watcher) == files_on_disk(root)
        created = [path for path, change in watcher.changes() if change is CREATED]
        assert len(created) == len(set(created)) == 20_000
        # One loss for the burst; where the queue filled again while everything was compared, another.
        assert len(watcher.losses) <= 5
        (root / APP).write_text("print('after')\n")
        watcher.wait_for_change(APP, MODIFIED)


@pytest.mark.timeout(120)
def test_a_burst_of_20000_files_in_100_new_directories_ends_with_the_right_picture(root: Path) -> None:
    with Watcher(root) as watcher:
        for number in range(100):
            (root / f"exercises/02-loop/n{number}").mkdir()
        for number in range(20_000):
            (root / f"exercises/02-loop/n{number % 100}/f{number}.py").write_text(f"{number}\n")
        until(lambda: watcher.sensor.health.files >= 20_000, timeout=60, every=0.05)
        watcher.fence()
        assert picture_of(watcher) == files_on_disk(root)


def test_what_was_lost_is_found_by_comparing(root: Path) -> None:
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:
        forgotten: list[Notice] = []

        def forget(notices: list[Notice]) -> list[Notice]:
            forgotten.extend(notices)
            return []

        sources[0].turn = forget
        sources[0].wake()
        (root / APP).write_text("print('not told')\n")
        (root / "exercises/01-add/test.py").unlink()
        (root / "exercises/01-add/more/deep").mkdir(parents=True)
        (root / "exercises/01-add/more/deep/x.py").write_text("x\n")
        (root / ".learn/resets/01-add").mkdir()
        write_queue(root, ("initializing", None), ("start_exercise", "01-add"))
        until(lambda: len(forgotten) >= 5)

        def lose(_: list[Notice]) -> list[Notice]:
            sources[0].turn = lambda notices: notices
            return [Notice(Kind.LOST)]

        sources[0].turn = lose
        sources[0].wake()
        watcher.wait_for(EventsLost)
        watcher.wait_for_change(APP, MODIFIED)
        watcher.wait_for_change("exercises/01-add/more/deep/x.py", CREATED)
        watcher.wait_for_change("exercises/01-add/test.py", DELETED)
        watcher.wait_for(QueueRead, lambda seen: len(seen.entries) == 2)
        watcher.wait_for_course(lambda course: not course.steps[1].is_testable)
        changed = watcher.wait_for(FileChanged, lambda seen: seen.path == APP)
        assert abs(changed.at - (root / APP).stat().st_mtime_ns // 1_000_000) <= 1
        assert len(watcher.losses) == 1


def test_a_loss_is_told_once_until_everything_was_compared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_RESCAN_DELAY_S", 3600.0)
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:
        sensor, source = watcher.sensor, sources[0]
        for losses in (1, 2):
            source.turn = lambda _: [Notice(Kind.LOST)]
            for _ in range(3):
                waits = source.waits
                source.wake()
                until(lambda waits=waits: source.waits > waits)  # type: ignore[misc]
            assert len(watcher.losses) == losses
            source.turn = lambda notices: notices
            sensor._due["rescan"] = 0.0
            source.wake()
            until(lambda: not sensor._is_lost)


def test_a_failure_in_the_thread_is_told_in_one_line_and_survived(root: Path) -> None:
    failing = [True]

    def put(seen: Observation) -> None:
        if isinstance(seen, FileChanged) and failing[0]:
            raise RuntimeError("the queue\nis full")

    with Watcher(root, put=put) as watcher:
        (root / APP).write_text("print(1)\n")
        lost = watcher.wait_for(EventsLost)
        assert lost.reason == "the file sensor failed: RuntimeError: the queue\\nis full"
        until(lambda: watcher.sensor._failures >= 2)
        failing[0] = False
        watcher.wait_for_change(APP, MODIFIED)
        assert len(watcher.losses) == 1
        until(lambda: watcher.sensor._failures == 0)
        (root / APP).write_text("print(2)\n")
        until(lambda: watcher.changes_of(APP) == [MODIFIED, MODIFIED])


def test_a_source_that_fails_again_and_again_is_replaced(root: Path) -> None:
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:

        def fail(_: list[Notice]) -> list[Notice]:
            raise OSError(errno.EIO, "the source is broken")

        sources[0].turn = fail
        sources[0].wake()
        until(lambda: len(sources) == 2)
        (root / APP).write_text("print(1)\n")
        watcher.wait_for_change(APP, MODIFIED)
        assert watcher.losses == ["the file sensor failed: OSError: [Errno 5] the source is broken"]


# --- limits, rights, mounts: in a process of its own ---

IN_USER_NAMESPACE = [namespaces.watch_limit, namespaces.instance_limit]
IN_MOUNT_NAMESPACE = [
    namespaces.mounted_over,
    namespaces.unmounted,
    namespaces.unmounted_and_mounted_at_once,
    namespaces.mounted_within,
    namespaces.bound_twice,
]
WITHOUT_PRIVILEGES = [namespaces.unreadable_directory, namespaces.unreadable_file, namespaces.unreadable_parent]


@pytest.mark.parametrize("scene", IN_USER_NAMESPACE, ids=lambda scene: scene.__name__)
def test_a_limit_of_inotify(scene: Callable[[Path], None], tmp_path: Path) -> None:
    namespaces.run_scene(scene, tmp_path, flags="-Ur")


@pytest.mark.parametrize("scene", IN_MOUNT_NAMESPACE, ids=lambda scene: scene.__name__)
def test_a_mount(scene: Callable[[Path], None], tmp_path: Path) -> None:
    namespaces.run_scene(scene, tmp_path, flags="-Urm")


@pytest.mark.parametrize("scene", WITHOUT_PRIVILEGES, ids=lambda scene: scene.__name__)
def test_a_right_that_lacks(scene: Callable[[Path], None], tmp_path: Path) -> None:
    namespaces.run_scene_without_privileges(scene, tmp_path)


# --- other sources ---


def observer_source(observer: Callable[[], BaseObserver]) -> Callable[[str], Source]:
    return lambda root: ObserverSource(root, observer())


def inotify_observer() -> BaseObserver:
    from watchdog.observers.inotify import InotifyObserver

    return InotifyObserver()


# watchdog's own inotify emitter warns when a directory is made and filled at once; as an error that would end it.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(observer_source(lambda: PollingObserver(timeout=0.05)), id="PollingObserver"),
        pytest.param(observer_source(inotify_observer), id="InotifyObserver"),
        pytest.param(lambda root: ObserverSource(root), id="the system's Observer"),
        pytest.param(lambda root: NoSource(), id="no source"),
    ],
)
def test_every_source_sees_the_same(
    root: Path, source: Callable[[str], Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "POLL_S", 0.3)
    monkeypatch.setattr(files_module, "_DUTY", 0)
    with Watcher(root, source=source) as watcher:
        (root / APP).write_text("print(1)\n")
        watcher.wait_for_change(APP, MODIFIED)
        replace_file(root / "exercises/02-loop/app.py", "print(2)\n")
        watcher.wait_for_change("exercises/02-loop/app.py", MODIFIED)
        (root / "exercises/02-loop/test.py").unlink()
        watcher.wait_for_change("exercises/02-loop/test.py", DELETED)
        (root / "exercises/03-new/deep").mkdir(parents=True)
        (root / "exercises/03-new/deep/x.py").write_text("x\n")
        watcher.wait_for_change("exercises/03-new/deep/x.py", CREATED)
        write_queue(root, ("initializing", None), ("start_exercise", "01-add"))
        watcher.wait_for(QueueRead, lambda seen: len(seen.entries) == 2)
        watcher.wait_for_course(lambda course: len(course.steps) == 4)
        (root / "node_modules").mkdir()
        (root / "node_modules/x.js").write_text("x\n")
        watcher.fence()
        assert not [path for path, _ in watcher.changes() if "node_modules" in path]
        away = root.with_name("away")
        root.rename(away)
        watcher.wait_for_gone()
        watcher.forget()
        away.rename(root)
        watcher.wait_for_course(lambda course: len(course.steps) == 4)
        (root / APP).write_text("print('back')\n")
        watcher.wait_for_change(APP, MODIFIED)
        assert watcher.losses == []


def test_an_observer_whose_emitter_fails_is_started_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "POLL_S", 0.3)
    monkeypatch.setattr(files_module, "_DUTY", 0)
    sources: list[ObserverSource] = []

    def opened(root: str) -> Source:
        sources.append(ObserverSource(root, PollingObserver(timeout=0.05)))
        return sources[-1]

    with Watcher(root, source=opened) as watcher:
        (emitter,) = sources[0]._observer.emitters
        emitter.stop()
        watcher.wait_for_gone()
        watcher.wait_for(CourseRead)
        until(lambda: watcher.is_present)
        (root / APP).write_text("print(1)\n")
        watcher.wait_for_change(APP, MODIFIED)


def test_a_network_file_system_is_compared_and_said_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "remote_kind", lambda *_: "nfs4")
    monkeypatch.setattr(files_module, "REMOTE_POLL_S", 0.2)
    monkeypatch.setattr(files_module, "_DUTY", 0)
    sources: list[SpiedSource] = []
    with Watcher(root, source=spied(sources)) as watcher:
        assert "nfs4" in dict(watcher.sensor.health.skipped)["."]
        sources[0].turn = lambda _: []  # another machine writes: inotify says nothing
        sources[0].wake()
        (root / APP).write_text("print('from another machine')\n")
        watcher.wait_for_change(APP, MODIFIED)
        make_step(root, "03-new")
        watcher.wait_for_change("exercises/03-new/app.py", CREATED)
        watcher.wait_for_course(lambda course: len(course.steps) == 4)
        assert watcher.losses == []


@pytest.mark.parametrize(
    ("costs", "then"),
    [
        pytest.param([0.01, 0.01], files_module.POLL_S, id="a small course"),
        pytest.param([2.0, 2.0], 40.0, id="a large one takes a twentieth of the time"),
        pytest.param([0.01, 2.0], files_module.POLL_S, id="held up once"),
        pytest.param([2.0, 0.01], files_module.POLL_S, id="held up once, the time before"),
        pytest.param([2.0], files_module.POLL_S, id="held up at the first time"),
        pytest.param([2.0, 3.0, 1.0], 20.0, id="the shorter of the last two"),
    ],
)
def test_a_poll_that_was_held_up_does_not_put_the_next_one_off(
    root: Path, costs: list[float], then: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(files_module, "time", clock)
    sensor = Watcher(root, source=lambda _: NoSource()).sensor
    assert sensor._arm()
    sensor._state = files_module._State.PRESENT
    for cost in costs:
        monkeypatch.setattr(sensor._tree, "rescan", lambda at, cost=cost: clock.goes(cost))
        sensor._due.clear()
        sensor._poll(0)
    assert sensor._due["poll"] - clock.monotonic() == pytest.approx(then)


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def goes(self, seconds: float) -> None:
        self._now += seconds


def test_nothing_is_polled_where_everything_is_told(root: Path) -> None:
    with Watcher(root) as watcher:
        assert watcher.sensor._timeout() is None


# --- which file systems tell nothing ---

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:5 / /proc rw - proc proc rw
40 22 0:40 / /home rw shared:2 master:1 - nfs4 server:/home rw
41 40 0:41 / /home/ada/local rw - ext4 /dev/sdb rw
42 22 0:42 / /mnt/with\\040space rw - cifs //server/share rw
43 22 0:43 / /work rw - fuse.sshfs a:/b rw
44 22 0:44 / /container rw - fuse.fuse-overlayfs x rw
45 22 0:45 / /stacked rw - nfs a rw
46 45 0:46 / /stacked rw - tmpfs b rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/home", "nfs4", "nfs4"),
        ("/home/ada/course", "nfs4", "nfs4"),
        ("/home/ada/local/course", "ext4", None),
        ("/home/ada", "nfs4", "nfs4"),
        ("/homes/course", "ext4", None),
        ("/mnt/with space/course", "cifs", "cifs"),
        ("/mnt", "ext4", "cifs"),
        ("/work/course", "fuse.sshfs", "fuse.sshfs"),
        ("/container/course", "fuse.fuse-overlayfs", None),
        ("/stacked/course", "tmpfs", None),
        ("/srv", "ext4", None),
    ],
)
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(path: str, kind: str, remote: str | None) -> None:
    mounts = parse_mounts(MOUNTS)
    assert kind_of(path, mounts) == kind
    assert remote_kind(path, mounts) == remote


def test_where_no_mounts_are_known_nothing_is_remote() -> None:
    assert kind_of("/home", []) is None
    assert remote_kind("/home", []) is None


# --- the inotify source itself ---


def test_an_interest_can_be_changed_and_given_up(root: Path) -> None:
    source = open_source(str(root))
    try:
        source.watch(".", str(root), Interest.CONTENT)
        source.watch(".", str(root), Interest.CONTENT | Interest.OPENS)
        (root / "learn.json").read_text()
        assert source.wait(5) == [Notice(Kind.OPENED, ".", "learn.json")]
        source.watch(".", str(root), Interest.CONTENT)
        (root / "learn.json").read_text()
        (root / "new.txt").write_text("x")
        assert source.wait(5) == [Notice(Kind.CREATED, ".", "new.txt"), Notice(Kind.LOOK, ".", "new.txt")]
        source.unwatch(".")
        source.unwatch(".")
        (root / "new.txt").write_text("y")
        assert source.wait(0.05) == []
        assert source.watched() == []
    finally:
        source.close()
        source.close()


@pytest.mark.parametrize("name", ["absent", "file", "link"])
def test_what_is_no_directory_is_an_error_and_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    source = open_source(str(tmp_path))
    try:
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            source.watch(name, str(tmp_path / name), Interest.CONTENT)
        assert source.watched() == []
    finally:
        source.close()


def test_a_waiting_source_is_woken(tmp_path: Path) -> None:
    source = open_source(str(tmp_path))
    try:
        thread = threading.Thread(target=source.wait, args=(None,), daemon=True)
        thread.start()
        source.wake()
        thread.join(50)
        assert not thread.is_alive()
    finally:
        source.close()
