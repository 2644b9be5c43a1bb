"""The programs that are measured, each a process of its own that says when it is ready.

`Subject.start` returns how long that took.  The peers in node need chokidar, which is installed from npm into the
benchmark's temporary directory, once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

READY = b"ready: "
_PATIENCE_S = 60.0

#: As LearnPack 2.1.34 does it (`src/utils/watcher.ts`), without its half second of debouncing.
_CHOKIDAR = r"""
const watcher = require("chokidar").watch(process.argv[1], {ignored: /\.pyc$/, ignoreInitial: true})
watcher.on("all", (event, path) => console.log(path)).on("ready", () => console.log("ready: "))
"""


class CannotRun(Exception):
    """A subject that this machine lacks, in one line."""


@dataclass(slots=True)
class Subject:
    """A program to start and stop, again and again.  Its output is one pipe.  `user`: whose it is, if not ours."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    said: bytes = b""
    user: int | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> float:
        """Seconds until it said that it is ready.  Raises CannotRun."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | self.environment,
            cwd="/",
            bufsize=0,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )
        self.said = b""
        while not (line := self.line()).count(READY):
            self.said += line
            if not line or time.monotonic() - began > _PATIENCE_S:
                self.stop()
                raise CannotRun(f"{self.name} did not start: {self.said.decode(errors='replace').strip()[-300:]}")
        took = time.monotonic() - began
        self.said += line
        return took

    def line(self) -> bytes:
        """The next line of its output; waits for it.  Empty at its end."""
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def agent(course: str, state: str, *arguments: str, name: str = "agent") -> Subject:
    command = [sys.executable, "-m", "agent", "run", course, "--state-dir", state, *arguments]
    return Subject(name, command, {"PYTHONPATH": str(REPOSITORY)})


def floor(kind: str, *arguments: str, name: str = "floor") -> Subject:
    return Subject(name, [sys.executable, str(Path(__file__).with_name("floor.py")), kind, *arguments])


def chokidar(directory: str, scratch: str) -> Subject:
    """Raises CannotRun where node, npm or the registry is missing."""
    modules = node_modules(scratch)
    return Subject("chokidar", [node(), "-e", _CHOKIDAR, "--", directory], {"NODE_PATH": modules})


def node() -> str:
    found = shutil.which("node")
    if found is None:
        raise CannotRun("node is not installed: its peers are left out")
    return found


@cache
def node_modules(scratch: str) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise CannotRun("npm is not installed: chokidar is left out")
    where = os.path.join(scratch, "node")
    os.makedirs(where, exist_ok=True)
    command = [npm, "install", "--prefix", where, "--no-audit", "--no-fund", "--silent", "chokidar@3.6.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=where)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["npm failed"])[-1]
        raise CannotRun(f"chokidar could not be installed and is left out: {reason}")
    return os.path.join(where, "node_modules")
