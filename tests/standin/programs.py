"""Builds that start programs: Python, Node and Java, each through one or two of compile-run's boxes.

Runs in a thread of its own while the server's loop goes on.  Java has no plugin; its build is what compile-run's
`java.runFile` does: `javac` of a copy in one box, `java` in another, the directory of the copy is never deleted.
Standard library only.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from .launchers import read_line
from .layout import read_text
from .shelljs import write_in_place
from .telemetry_file import now_ms
from .texts import PROMPT_HEADER

VERSION_CHECK = 'python -c "import platform; print(platform.python_version())"'
LANGUAGES = ("python3", "node", "java")


@dataclass(frozen=True)
class Built:
    """What one box said, and when.  `launcher` is the pid of the last box."""

    started_at: int
    source: str
    result: dict[str, Any]
    launcher: int
    error_type: str | None


class Programs:
    def __init__(self, bin_directory: str, modules: str) -> None:
        self.node = os.path.join(bin_directory, "node")
        self.box_path = os.path.join(modules, "compile-run/dist/lib/box")

    def build(self, language: str, entry: str, answers: list[str] | None, **limits: Any) -> Built:
        """`entry` is an absolute path; `limits` are the box's `limit` (s) and `from_output`."""
        if language == "python3":
            subprocess.run(["/bin/sh", "-c", VERSION_CHECK], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        starting = now_ms()
        source = read_text(entry)
        given = None if answers is None else "".join(f"{answer}\n" for answer in answers)
        error_type = "run-time"
        if language == "java":
            copy = self._copy_for_java(entry, source)
            result, launcher = self._box(["javac", copy], None)
            error_type = "compile-time"
            if result["exit_code"] == 0:
                directory, name = os.path.split(copy)
                result, launcher = self._box(["java", "-classpath", directory, name.removesuffix(".java")], given)
                error_type = "run-time"
        else:
            program = ["python", entry] if language == "python3" else ["node", self._copy_for_node(source)]
            result, launcher = self._box(program, given, **limits)
        return Built(starting, source, result, launcher, error_type if result["exit_code"] != 0 else None)

    def _box(
        self, command: list[str], given: str | None, limit: float | None = None, from_output: bool = False
    ) -> tuple[dict[str, Any], int]:
        order = {"command": command, "input": given, "limit": limit, "from_output": from_output}
        ours, theirs = socket.socketpair()
        # Named just "node", as in the real one, our interpreter would look for its library beside the `node` on PATH.
        environment = {**os.environ, "NODE_CHANNEL_FD": str(theirs.fileno()), "PYTHONHOME": sys.base_prefix}
        box = subprocess.Popen(
            ["node", self.box_path],
            executable=self.node,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        ours.sendall(json.dumps(order).encode() + b"\n")
        result: dict[str, Any] = read_line(ours)
        box.terminate()
        box.wait()
        ours.close()
        return result, box.pid

    def _copy_for_node(self, source: str) -> str:
        """A copy with a header, made just before the launcher starts and never deleted."""
        directory = os.path.join(os.environ["HOME"], ".compile-run2/tmp/node")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"source-{random.randbytes(16).hex()}-{now_ms()}.js")
        write_in_place(path, PROMPT_HEADER + " " + source)
        time.sleep(0.005)
        return path

    def _copy_for_java(self, entry: str, source: str) -> str:
        """A copy under its own name in a directory of its own: the class must be called like the file."""
        mark = f"source-{random.randbytes(16).hex()}-{now_ms()}"
        directory = os.path.join(os.environ["HOME"], ".compile-run2/tmp/java", mark)
        os.makedirs(directory)
        path = os.path.join(directory, os.path.basename(entry))
        write_in_place(path, source)
        return path
