"""`python -m tests.hosting.macos run COURSE_DIR ...` is the whole agent as it decides and works on macOS, on Linux.

- `sys.platform` is "darwin" before any module of the agent is loaded: every choice by platform is macOS's.
- `select.kqueue` is there (`tests/hosting/kqueue.py`); what only Linux has in `os`, `select` and `time` is not.
- For the agent's own code there is no /proc.  psutil, which reads it here, is macOS's psutil as far as its answers go.
- watchdog's `Observer` is its PollingObserver: as FSEvents it tells of no opening and no close, and of several changes
  of a file once, late.

- The processes of the machine are those below $ALL_PROCESSES_BELOW: psutil opens eight files here to read one, and a
  look at all of a busy machine took seconds.

What it can't show: psutil's, watchdog's and the kernel's own behaviour on a Mac.
"""

from __future__ import annotations

import errno
import os
import select
import sqlite3  # noqa: F401  what decides by platform when it is loaded, decides for Linux
import sys
import time
import urllib.request  # noqa: F401
from pathlib import Path

import psutil
import watchdog.observers
from watchdog.observers.polling import PollingObserver

from tests.hosting import kqueue as stand_in

AGENT = str(Path(__file__).parent.parent.parent / "agent")
NOT_ON_MACOS = {
    os: ("eventfd", "pidfd_open", "O_PATH", "O_TMPFILE", "memfd_create", "sched_getscheduler", "getrandom", "setns"),
    select: ("epoll",),
    time: ("CLOCK_BOOTTIME",),
}


def hide_proc(event: str, arguments: tuple[object, ...]) -> None:
    if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], str):
        return
    if arguments[0].startswith("/proc") and sys._getframe(1).f_code.co_filename.startswith(AGENT):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), arguments[0])


def processes_below(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        found += map(int, stand_in.children_of(one))
    return found


def become_a_mac() -> None:
    top = int(os.environ["ALL_PROCESSES_BELOW"])
    psutil.pids = lambda: processes_below(top)
    watchdog.observers.Observer = lambda: PollingObserver(timeout=0.1)  # type: ignore[assignment]
    for name in dir(stand_in):
        if name in ("kqueue", "kevent") or name.startswith("KQ_"):
            setattr(select, name, getattr(stand_in, name))
    for module, names in NOT_ON_MACOS.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "darwin"
    sys.addaudithook(hide_proc)
    for name in [name for name in sys.modules if name.split(".")[0] == "agent"]:
        del sys.modules[name]  # loaded as on Linux, for the stand-in


if __name__ == "__main__":
    become_a_mac()
    from agent.cli import main

    sys.exit(main())
