"""The real agent as a process: started through its command line, awaited, stopped, asked for its events."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import course_key
from agent.store.journal import Journal, JournalError
from agent.store.lines import Lines

from .score import CLOCK_MS
from .toolbox import REPOSITORY

#: No passing test waits so long for anything.
PATIENCE_SECONDS = 60.0

Event = dict[str, Any]

_TOO_SHORT = re.compile(r"a program that lived \d+ ms was over before it could be read: the machine is busy")


class Agent:
    """One course's agent.  `start` may be called again after `stop` or `kill`: the state directory stays."""

    def __init__(self, course: Path, state: Path, environment: dict[str, str], *, arguments: tuple[str, ...] = ()):
        self.course = course
        self.state = state
        self.arguments = arguments
        self.environment = {**environment, "PYTHONPATH": str(REPOSITORY)}
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None
        state.parent.mkdir(parents=True, exist_ok=True)

    def command(self, verb: str, *more: str, course: Path | None = None) -> list[str]:
        where = str(course or self.course)
        return [sys.executable, "-m", "agent", verb, where, "--state-dir", str(self.state), *more]

    @property
    def log_path(self) -> Path:
        return self.state.parent / f"{self.state.name}-agent-{self.lives}.log"

    @property
    def trace_path(self) -> Path:
        return self.state.parent / f"{self.state.name}-trace-{self.lives}.jsonl"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # ------------------------------------------------------------------------------------------ life

    def start(self, wait: bool = True) -> Agent:
        self.lives += 1
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command("run", "--record", str(self.trace_path), *self.arguments),
                cwd=self.state.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.await_ready()
        return self

    def await_ready(self) -> None:
        process = self._running()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "ready" not in self.log:
            assert process.poll() is None, f"the agent ended with {process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"the agent is not ready:\n{self.log}"
            time.sleep(0.01)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the agent was not started"
        return self.process

    def stop(self, sig: int = signal.SIGTERM) -> int:
        process = self._running()
        process.send_signal(sig)
        return process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def end(self) -> None:
        """For the end of a test: nothing of ours stays behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # ------------------------------------------------------------------------------------------ what it concluded

    def call(self, verb: str, *more: str, course: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Another command of the agent, to its end."""
        return subprocess.run(
            self.command(verb, *more, course=course),
            cwd=self.state.parent,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def journal(self) -> Journal:
        """Its journal, to be read."""
        key = course_key(os.path.realpath(self.course))
        return Journal.open(self.state / key, create=False, read_only=True)

    def events(self) -> list[Event]:
        """What `export` prints, read as it reads (a process of its own each time would be a quarter of a second)."""
        with self.journal() as journal:
            lines = Lines(journal)
            return [json.loads(lines.line(record)) for record in journal.records()]

    def wait_for(self, condition: Callable[[list[Event]], bool], seconds: float = PATIENCE_SECONDS) -> list[Event]:
        """The events, as soon as they meet the condition; an AssertionError that shows them when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                events = self.events()
            except JournalError as error:  # it is begun anew
                assert time.monotonic() < deadline, f"{error}\n{self.log}"
            else:
                if condition(events):
                    return events
                if time.monotonic() > deadline:
                    shown = "\n".join(f"{row['event']} {row.get('step_slug')} at {row['at']}" for row in events)
                    raise AssertionError(f"not within {seconds} s, only:\n{shown}\n{self.log}")
            time.sleep(0.02)

    def observed(self, kind: str) -> list[dict[str, Any]]:
        """The observations of this kind in this life, as recorded in its trace."""
        lines = self.trace_path.read_text().splitlines(keepends=True)
        rows = [json.loads(line).get("observation") for line in lines if line.endswith("\n") and kind in line]
        return [row for row in rows if row is not None and row["kind"] == kind]

    def await_document(self) -> None:
        """Until the agent has written its first document: its start is over then, and it has nothing to do."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.document() is None:
            assert time.monotonic() < deadline, f"there is no document:\n{self.log}"
            time.sleep(0.02)

    def process_level(self) -> str:
        """How processes are seen on this machine: "connector" misses nothing, the others miss short programs."""
        with self.journal() as journal:
            return str(journal.fact("status")["processes"]["level"])

    def require_connector(self) -> None:
        """Skips the test where the kernel's process connector is refused, as in a container."""
        if (level := self.process_level()) != "connector":
            pytest.skip(f"processes are seen by {level!r} here (a container?): it can miss programs of a few ms")

    def may_miss(self) -> float:
        """The share of the short runs that may be missed without it being this test's business."""
        return 0.0 if self.process_level() == "connector" else 0.5

    def document(self) -> dict[str, Any] | None:
        path = self.course / ".learn" / "telemetry.json"
        if not path.exists():
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(document, dict)
        return document


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """What the agent gets of the student's environment: no more than a login gives."""
    names = ("HOME", "LANG", "PATH", "SHELL", "TMPDIR", "USER")
    return {name: environment[name] for name in names if name in environment}


def was_too_short(events: list[Event], began: int, ended: int) -> bool:
    """Whether the agent said that, between these moments, a program was over before a busy machine let it be read."""
    return any(
        event["event"] == "gap"
        and _TOO_SHORT.fullmatch(event["reason"]) is not None
        and began - CLOCK_MS <= event["started_at"]
        and event["at"] <= ended + CLOCK_MS
        for event in events
    )


def count(events: list[Event], kind: str, slug: str | None = None) -> int:
    return sum(event["event"] == kind and slug in (None, event.get("step_slug")) for event in events)
