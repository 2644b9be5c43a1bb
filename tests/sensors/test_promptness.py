"""Short time slices and short turns: asked for without changing anything else."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from agent.sensors.processes.promptness import ask_for_short_slices, let_threads_take_turns


@pytest.fixture
def switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows these slices")
def test_a_thread_that_asks_for_short_slices_keeps_its_niceness_and_its_policy() -> None:
    told: list[tuple[bool, int, int]] = []

    def ask() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        agreed = ask_for_short_slices()
        told.append((agreed, os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), os.sched_getscheduler(0)))

    others = os.getpriority(os.PRIO_PROCESS, os.getpid())
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    ((agreed, nice, policy),) = told
    assert (nice, policy) == (5, os.SCHED_OTHER)
    assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == others
    if os.uname().machine in ("x86_64", "aarch64"):
        assert agreed


@pytest.mark.usefixtures("switch_interval")
def test_threads_take_turns_in_less_than_a_millisecond() -> None:
    let_threads_take_turns()
    assert sys.getswitchinterval() < 0.001
