"""Asks a short program a question: runs it, gives it its input, and reads what it prints.

Promised: no answer takes longer than the time that is given, and none is longer than its limit; what has not ended
by then is killed with its whole process group.  The program can neither ask the student for anything (its standard
input is what is given here) nor keep one of the agent's files open.  Several threads may ask at once.

`subprocess` is not used: it costs 0.5 MB for the rest of the agent's life (measured), and waits without end for a
program that hangs in a dead network file system even after it was killed.  Such a one is left behind here, and reaped
when the next question is asked.

Known to be weak: where SIGCHLD is ignored, no exit code is ever known, and every answer counts as none.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping
from typing import NamedTuple

_CHUNK = 1 << 16
_STDERR_LIMIT = 4096
#: A program that closed its output is gone within 0.1 ms (measured); it is looked after so often.
_REAP_S = 0.0005
#: How long a killed program is waited for.
_KILL_S = 0.1

_left_behind: set[int] = set()


class Answer(NamedTuple):
    """`code` is None where the program was killed (too slow, too long an answer) or could not be waited for."""

    code: int | None
    stdout: bytes
    stderr: bytes


def ask(command: list[str], environment: Mapping[str, str], given: bytes = b"", *, until: float, limit: int) -> Answer:
    """What the program prints, up to `limit` bytes; `until` is a time on the monotonic clock (s).

    The program is looked for on the PATH.  Raises OSError where it can't be started: it is not there, or there are
    no file descriptors or processes left.
    """
    _reap_left_behind()
    with contextlib.ExitStack() as stack:
        ours, theirs = _pipes(stack)
        child = os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs[number], number) for number in (0, 1, 2)],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),  # Python ignores it
        )
        try:
            for descriptor in theirs:
                os.close(descriptor)
            theirs.clear()
            stdout, stderr = _talk(ours, given, until, limit)
        finally:
            code = _ended(child, until if len(ours) == 0 else 0.0)
        return Answer(code, stdout, stderr)


def _pipes(stack: contextlib.ExitStack) -> tuple[dict[int, int], list[int]]:
    """Three pipes: our ends by the number that they have in the program, and its ends; all closed with `stack`."""
    ours: dict[int, int] = {}
    theirs: list[int] = []

    def close() -> None:
        for descriptor in (*ours.values(), *theirs):
            os.close(descriptor)

    stack.callback(close)
    for number in (0, 1, 2):
        read, write = os.pipe()
        ours[number] = write if number == 0 else read
        theirs.append(read if number == 0 else write)
    os.set_blocking(ours[0], False)
    return ours, theirs


def _talk(ours: dict[int, int], given: bytes, until: float, limit: int) -> tuple[bytes, bytes]:
    """Closes and removes each of our ends that is done with; what is left in `ours` was given up."""
    poller = select.poll()
    poller.register(ours[0], select.POLLOUT)
    poller.register(ours[1], select.POLLIN)
    poller.register(ours[2], select.POLLIN)
    printed = {1: bytearray(), 2: bytearray()}
    numbers = {descriptor: number for number, descriptor in ours.items()}
    while ours and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(left * 1000):
            number = numbers[descriptor]
            if number == 0:
                given = _written(descriptor, given)
                is_done = not given
            else:
                chunk = os.read(descriptor, _CHUNK)
                is_done = not chunk
                if number == 1 or len(printed[2]) < _STDERR_LIMIT:
                    printed[number] += chunk
            if is_done:
                poller.unregister(descriptor)
                os.close(ours.pop(number))
        if len(printed[1]) > limit:
            break
    return bytes(printed[1][:limit]), bytes(printed[2])


def _written(descriptor: int, given: bytes) -> bytes:
    """What is left to be written; nothing where nobody reads it any more."""
    try:
        return given[os.write(descriptor, given[:_CHUNK]) :]
    except BlockingIOError:
        return given
    except BrokenPipeError:
        return b""


def _ended(child: int, until: float) -> int | None:
    """The exit code; None where the program did not end by itself until then (at least once is looked)."""
    try:
        if (status := _waited(child, until)) is not None:
            return os.waitstatus_to_exitcode(status)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        if _waited(child, time.monotonic() + _KILL_S) is None:
            _left_behind.add(child)
    except ChildProcessError:  # SIGCHLD is ignored
        pass
    return None


def _waited(child: int, until: float) -> int | None:
    """The wait status, None where there is none until then.  Raises ChildProcessError."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(_REAP_S)


def _reap_left_behind() -> None:
    for child in list(_left_behind):
        try:
            is_over = _waited(child, 0.0) is not None
        except ChildProcessError:
            is_over = True
        if is_over:
            _left_behind.discard(child)
