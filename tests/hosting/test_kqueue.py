"""What `KqueueWaiter` builds on, asked of the stand-in, and on a Mac of the kernel; and the waiter with it."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from agent.sensors.processes.level import Mailbox
from agent.sensors.processes.scan import KqueueWaiter

APIS: list[ModuleType] = [select] if hasattr(select, "kqueue") else []
if hasattr(os, "pidfd_open") and os.path.exists("/proc/self/stat"):
    from tests.hosting import kqueue as stand_in

    APIS.append(stand_in)

EXITSTATUS = 0x04000000
pytestmark = pytest.mark.skipif(not APIS, reason="neither kqueue nor pidfds here")


@pytest.fixture(params=APIS, ids=lambda api: api.__name__)
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def queue(api: Any) -> Iterator[Any]:
    queue = api.kqueue()
    yield queue
    queue.close()


class Shell:
    """A process that does what is written to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid
        self.do("echo ready")
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def do(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def reap(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell.reap()


def add(api: Any, queue: Any, pid: int, notes: int) -> None:
    queue.control([api.kevent(pid, api.KQ_FILTER_PROC, api.KQ_EV_ADD, notes)], 0)


@pytest.mark.parametrize(("line", "status"), [("exit 3", 3 << 8), ("exit 0", 0), ("kill -9 $$", signal.SIGKILL)])
def test_the_end_is_told_once_with_its_status(api: Any, queue: Any, shell: Shell, line: str, status: int) -> None:
    add(api, queue, shell.pid, api.KQ_NOTE_EXIT | EXITSTATUS)
    shell.do(line)
    (event,) = queue.control(None, 8, 10)
    assert (event.ident, event.filter) == (shell.pid, api.KQ_FILTER_PROC)
    assert event.fflags & api.KQ_NOTE_EXIT
    assert event.fflags & EXITSTATUS
    assert event.data & 0xFFFF == status
    assert queue.control(None, 8, 0.05) == []


def test_a_status_that_was_not_asked_for_is_not_told(api: Any, queue: Any, shell: Shell) -> None:
    add(api, queue, shell.pid, api.KQ_NOTE_EXIT)
    shell.do("exit 3")
    (event,) = queue.control(None, 8, 10)
    assert not event.fflags & EXITSTATUS


def test_a_process_that_is_gone_and_a_zombie_are_no_processes(api: Any, queue: Any, shell: Shell) -> None:
    add(api, queue, shell.pid, api.KQ_NOTE_EXIT)
    shell.do("exit 0")
    queue.control(None, 8, 10)  # over, and nobody has waited for it
    for is_reaped in (False, True):
        if is_reaped:
            shell.reap()
        with pytest.raises(ProcessLookupError) as caught:
            add(api, queue, shell.pid, api.KQ_NOTE_EXIT)
        assert caught.value.errno == errno.ESRCH


def test_another_users_process_tells_its_end_and_no_status(api: Any, queue: Any) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may signal every process")
    with pytest.raises(PermissionError) as caught:
        add(api, queue, 1, api.KQ_NOTE_EXIT | EXITSTATUS)
    assert caught.value.errno == errno.EACCES
    add(api, queue, 1, api.KQ_NOTE_EXIT)


def test_a_fork_and_an_exec_are_told(api: Any, queue: Any, shell: Shell) -> None:
    add(api, queue, shell.pid, api.KQ_NOTE_EXIT | api.KQ_NOTE_FORK | api.KQ_NOTE_EXEC)
    shell.do("sleep 30 &")
    (event,) = queue.control(None, 8, 10)
    assert (event.ident, event.fflags) == (shell.pid, api.KQ_NOTE_FORK)
    shell.do("kill $!; wait; exec sleep 30")
    (event,) = queue.control(None, 8, 10)
    assert event.fflags & api.KQ_NOTE_EXEC


def test_a_descriptor_that_can_be_read_wakes_it(api: Any, queue: Any) -> None:
    read, write = os.pipe()
    queue.control([api.kevent(read, api.KQ_FILTER_READ, api.KQ_EV_ADD, 0)], 0)
    assert queue.control(None, 8, 0) == []
    os.write(write, b"x")
    (event,) = queue.control(None, 8, 10)
    assert (event.ident, event.filter) == (read, api.KQ_FILTER_READ)
    os.close(read)
    os.close(write)


def test_the_waiter_hears_ends_forks_and_its_mailbox(api: Any, shell: Shell) -> None:
    mailbox = Mailbox()
    waiter = KqueueWaiter(mailbox, api)
    try:
        assert waiter.hold(shell.pid)
        assert waiter.wait(0) == ([], False)
        mailbox.post(trigger=True)
        assert waiter.wait(10) == ([], False)
        assert mailbox.take().trigger
        shell.do("sleep 30 &")
        assert waiter.wait(10) == ([], True)
        shell.do("kill $!; wait; exit 3")
        ends: list[tuple[int, int | None]] = []
        while not ends:
            ends, _ = waiter.wait(10)
        assert ends == [(shell.pid, 3 << 8)]
        assert not waiter.hold(shell.pid)
    finally:
        waiter.close()
        mailbox.close()
