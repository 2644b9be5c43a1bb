"""A student: an interactive bash on a pseudo-terminal in the course, and the ways in which editors save."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .score import Truth

PATIENCE_SECONDS = 60.0
#: The pause after each line: windows of two lines must not touch.
PAUSE_SECONDS = 0.15
#: The prompt shows the return code of the line before it.
_PROMPT = re.compile(rb"\{(\d+)\} ")


@dataclass(frozen=True)
class Typed:
    """One line: when it was typed, when the prompt was back, what the shell returned and showed."""

    line: str
    t0: int
    t1: int
    code: int
    output: str

    def ran(
        self, kind: str, slug: str, *, sig: int | None = None, code: int | None = None, source: str | None = None
    ) -> Truth:
        """The truth that this line was this run.  `code` where the shell's own code is not the program's."""
        exit_code = None if sig else self.code if code is None else code
        return Truth(
            kind,
            slug,
            self.t0,
            self.t1,
            exit_code,
            sig,
            source=source,
            origin="terminal",
            window=True,
            label=self.line,
        )


def _now() -> int:
    return time.time_ns() // 1_000_000


class Student:
    """`with Student(course, environment) as student: student.type("python app.py")`."""

    def __init__(self, course: Path, environment: dict[str, str]) -> None:
        self.course = course
        self._read = b""
        ours, theirs = pty.openpty()
        # Without echo, what is read back is what programs wrote.
        attributes = termios.tcgetattr(theirs)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        # A session of its own makes the terminal the controlling one: Ctrl-C then reaches the program in front.
        self._shell = subprocess.Popen(
            ["sh", "-c", f"exec 0<>{os.ttyname(theirs)} 1>&0 2>&0; exec bash --norc -i"],
            cwd=course,
            env={**environment, "PS1": "{$?} ", "HISTFILE": "/dev/null"},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        self._terminal = ours
        self._wait(lambda: _PROMPT.search(self._read) is not None, "the shell did not start")

    def __enter__(self) -> Student:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._shell.pid

    def close(self) -> None:
        if self._shell.poll() is None:
            self._shell.kill()
            self._shell.wait()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    # ------------------------------------------------------------------------------------------ the terminal

    def _pump(self, seconds: float) -> None:
        if select.select([self._terminal], [], [], seconds)[0]:
            try:
                self._read += os.read(self._terminal, 65536)
            except OSError:
                time.sleep(seconds)

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{complaint}: {self._read[-500:]!r}"
            self._pump(0.01)

    def keys(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def type(self, line: str, *, when: str | None = None, then: Callable[[Student], object] | None = None) -> Typed:
        """Types a line and waits for the prompt.  Once `when` was shown on the terminal, does `then`."""
        self._read = b""
        t0 = _now()
        self.keys(line + "\n")
        if when is not None:
            shown = when.encode()
            self._wait(lambda: shown in self._read, f"{when!r} was not shown by {line!r}")
        if then is not None:
            then(self)
        self._wait(lambda: _PROMPT.search(self._read) is not None, f"no prompt after {line!r}")
        t1 = _now()
        found = _PROMPT.search(self._read)
        assert found is not None
        time.sleep(PAUSE_SECONDS)
        return Typed(line, t0, t1, int(found[1]), self._read[: found.start()].decode(errors="replace"))

    def interrupt(self) -> None:
        """Ctrl-C, to the program in front: the shell takes it for its own until it has given the terminal away."""
        self._wait(lambda: os.tcgetpgrp(self._terminal) != self._shell.pid, "no program is in front")
        self.keys("\x03")
        self._wait(lambda: not self.children(), "Ctrl-C ended nothing")

    def kill(self, text: str, sig: int = signal.SIGKILL) -> None:
        """A signal to each program below the shell whose command line has this text."""
        for pid in self.children():
            if text in _command_line(pid):
                os.kill(pid, sig)

    def children(self) -> list[int]:
        """Everything below the shell, now."""
        found: list[int] = []
        todo = [self._shell.pid]
        while todo:
            parent = todo.pop()
            try:
                text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
            except OSError:
                continue
            todo += map(int, text.split())
            found += map(int, text.split())
        return found

    # ------------------------------------------------------------------------------------------ editors

    def _edit(self, slug: str, write: Callable[[], None]) -> Truth:
        t0 = _now()
        write()
        return Truth("edit", slug, t0, _now())

    def save_in_place(self, path: str, text: str) -> Truth:
        """VS Code's default, nano."""
        target = self.course / path
        return self._edit(target.parent.name, lambda: _write(target, text))

    def save_by_rename(self, path: str, text: str) -> Truth:
        target = self.course / path
        temporary = target.with_name(target.name + ".tmp")

        def write() -> None:
            _write(temporary, text)
            temporary.rename(target)

        return self._edit(target.parent.name, write)

    def save_like_vim(self, path: str, text: str) -> Truth:
        """vim outside /tmp: swap file, the test file 4913, the old file moved aside, a new one, the backup deleted."""
        target = self.course / path
        swap = target.with_name(f".{target.name}.swp")
        probe = target.with_name("4913")
        backup = target.with_name(target.name + "~")

        def write() -> None:
            swap.write_bytes(b"b0VIM")
            probe.write_bytes(b"")
            probe.chmod(0o644)
            probe.unlink()
            target.rename(backup)
            _write(target, text)
            target.chmod(0o644)
            backup.unlink()
            swap.unlink()

        return self._edit(target.parent.name, write)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
