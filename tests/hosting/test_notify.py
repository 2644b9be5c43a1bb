"""What systemd is told, through a real socket, and how often."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.hosting import notify as module
from agent.hosting.notify import Watchdog, notify, notify_reloading
from tests.standin.toolbox import REPOSITORY
from tests.until import until

READY = "READY=1\nSTATUS=watching 1 steps"


class Manager:
    """Listens as systemd does."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(30)

    def hear(self) -> str:
        return self._socket.recv(4096).decode()

    def is_told_nothing(self) -> bool:
        if not select.select([self._socket], [], [], 0)[0]:
            return True
        self.hear()
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", one.address)
    yield one
    one.close()


def test_what_is_told_comes_through_the_socket_of_systemd(manager: Manager) -> None:
    notify(READY="1", STATUS="watching ñ")
    assert manager.hear() == "READY=1\nSTATUS=watching ñ"


def test_a_socket_without_a_file_is_one_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"learnpack-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify(STOPPING="1")
        assert listener.recv(100) == b"STOPPING=1"


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY="1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify(READY="1")


def test_who_started_a_detached_agent_hears_it_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    heard: list[dict[str, str]] = []
    monkeypatch.setattr(module, "listeners", [lambda variables: heard.append(dict(variables))])
    notify(READY="1", STATUS="watching")
    assert heard == [{"READY": "1", "STATUS": "watching"}]


def test_a_reload_is_told_with_its_time(manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify_reloading()
    told = dict(line.split("=") for line in manager.hear().splitlines())
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


# --- the watchdog ---


def watchdog(seconds: float, **more: str) -> Watchdog:
    return Watchdog({"WATCHDOG_USEC": str(int(seconds * 1e6)), **more}, os.getpid())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_it_beats_at_once_and_then_at_half_the_interval_and_not_more_often(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    dog = watchdog(20)
    for passed, beats, left in ((0, True, 10), (1, False, 9), (8.5, False, 0.5), (0.5, True, 10), (60, True, 10)):
        clock.now += passed
        for _ in range(3):  # the loop is woken by other things, too
            dog.beat()
        assert dog.timeout(None) == left
        assert not beats or manager.hear() == "WATCHDOG=1"
        assert manager.is_told_nothing()


def test_the_loop_wakes_for_whatever_comes_first() -> None:
    dog = watchdog(200)
    dog.beat()
    assert dog.timeout(5.0) == 5.0
    wait = dog.timeout(500.0)
    assert wait is not None and 99 < wait <= 100
    assert dog.timeout(0.0) == 0.0


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "²"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "x"},
    ],
)
def test_without_a_watchdog_of_its_own_the_loop_sleeps_as_long_as_it_likes(
    manager: Manager, environment: dict[str, str]
) -> None:
    dog = Watchdog(environment, os.getpid())
    assert dog.timeout(None) is None
    assert dog.timeout(7.0) == 7.0
    dog.beat()
    assert manager.is_told_nothing()


@pytest.mark.parametrize("pid", [None, os.getpid()])
def test_it_is_for_this_process_where_no_other_is_named(manager: Manager, pid: int | None) -> None:
    dog = watchdog(1, **({} if pid is None else {"WATCHDOG_PID": str(pid)}))
    dog.beat()
    assert manager.hear() == "WATCHDOG=1"


# --- the real agent ---


class Running:
    """A real agent under this manager."""

    def __init__(self, directory: Path, manager: Manager, **environment: str) -> None:
        (directory / "course" / "exercises" / "01-a").mkdir(parents=True)
        (directory / "course" / "learn.json").write_text("{}")
        self.config = directory / "config.toml"
        self.config.write_text("")
        command = [sys.executable, "-m", "agent", "run", str(directory / "course")]
        command += ["--state-dir", str(directory / "state"), "--config", str(self.config)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "NOTIFY_SOCKET": manager.address, "PYTHONPATH": str(REPOSITORY), **environment},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@pytest.fixture
def ended() -> Iterator[list[Running]]:
    running: list[Running] = []
    yield running
    for one in running:
        one.process.kill()
        one.process.wait()


def test_an_agent_tells_ready_when_it_watches_and_stopping_when_it_is_asked_to(
    tmp_path: Path, manager: Manager, ended: list[Running]
) -> None:
    ended.append(agent := Running(tmp_path, manager))
    assert manager.hear().startswith(READY)
    agent.process.terminate()
    assert manager.hear() == "STOPPING=1"
    assert agent.process.wait(timeout=10) == 0
    assert manager.is_told_nothing(), "without a watchdog"


def test_an_agent_at_rest_feeds_the_watchdog_and_one_that_hangs_does_not(
    tmp_path: Path, manager: Manager, ended: list[Running]
) -> None:
    ended.append(agent := Running(tmp_path, manager, WATCHDOG_USEC="400000"))
    assert manager.hear().startswith(READY)
    assert [manager.hear() for _ in range(4)] == ["WATCHDOG=1"] * 4
    agent.process.send_signal(signal.SIGSTOP)  # it hangs
    until(lambda: _state_of(agent.process.pid) == "T")
    while not manager.is_told_nothing():
        pass
    time.sleep(0.6)  # nothing happens: there is no condition to wait for
    assert manager.is_told_nothing()
    agent.process.send_signal(signal.SIGCONT)
    assert manager.hear() == "WATCHDOG=1"


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_agent_that_waits_for_the_students_consent_feeds_the_watchdog_too(
    tmp_path: Path, manager: Manager, ended: list[Running]
) -> None:
    ended.append(Running(tmp_path, manager, WATCHDOG_USEC="200000", LEARNPACK_AGENT_CONSENT="true"))
    assert manager.hear().startswith("READY=1\nSTATUS=nothing is recorded: ")
    assert [manager.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3


def test_a_reload_is_told_from_its_begin_to_its_end(tmp_path: Path, manager: Manager, ended: list[Running]) -> None:
    ended.append(agent := Running(tmp_path, manager))
    assert manager.hear().startswith(READY)
    for content, told in (
        ("[send]\noutput = false\n", "watching"),
        ("nonsense", "the configuration stays"),
        ("", "watch"),
    ):
        agent.config.write_text(content)
        agent.process.send_signal(signal.SIGHUP)
        assert manager.hear().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert manager.hear().startswith(f"READY=1\nSTATUS={told}")
