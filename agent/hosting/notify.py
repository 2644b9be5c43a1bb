"""Telling systemd how the service is doing (sd_notify(3), `Type=notify`).  Without systemd: silence."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

#: Hear what is told, too, and must not raise: the parent of a detached agent waits for READY (`hosting.detached`).
listeners: list[Callable[[Mapping[str, str]], None]] = []


def notify(**variables: str) -> None:
    """Send `VARIABLE=value` lines to $NOTIFY_SOCKET, e.g. `notify(READY="1", STATUS="watching")`.

    Never raises: a service manager that does not listen is no reason to stop watching.
    """
    for listener in listeners:
        listener(variables)
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in variables.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)
    except OSError:
        pass


def notify_reloading() -> None:
    """READY ends it.  The time is what `Type=notify-reload` of systemd 253 asks for."""
    notify(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))


class Watchdog:
    """Tells systemd that the loop still turns (`WatchdogSec=`), twice as often as it wants to hear it.

    Only the loop that does the work may call `beat`: a thread of its own would swear that a dead agent lives.
    Without a watchdog there is nothing to wait for, and the loop sleeps as long as it likes.
    """

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        self._interval_s = int(microseconds) / 2e6 if is_ours and microseconds.isdecimal() else 0.0
        self._due = time.monotonic()

    def timeout(self, other: float | None) -> float | None:
        """How long the loop may wait (s) that would wait for `other` (None: for ever)."""
        if not self._interval_s:
            return other
        left = max(0.0, self._due - time.monotonic())
        return left if other is None else min(left, other)

    def beat(self) -> None:
        if self._interval_s and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._interval_s
            notify(WATCHDOG="1")
