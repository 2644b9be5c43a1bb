"""The `.learn/telemetry.json` that LearnPack CLI 2.1.34 writes: its fields, its moments, its defects.

Kept on purpose: position 0 is never opened; `completed_at` of a tested step is never set; a step without tests is
completed by re-opening itself and only within one life of the server; the exit code is called `exitCode` and the
start `starting_at`; the file is rewritten in place, whole, at every event; a broken file ends the start.
Standard library only: the server runs without the project's packages.
"""

from __future__ import annotations

import base64
import json
import os
import random
import string
from typing import Any


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class OwnTelemetry:
    """The document in memory.  `touched` counts the times that somebody else had changed the file under us."""

    def __init__(self, path: str, slug: str, steps: list[dict[str, Any]], now: int) -> None:
        self.path = path
        self.touched = 0
        self._last: tuple[int, bytes] | None = None
        self._previous: str | None = None
        if os.path.exists(path):
            with open(path, "rb") as file:
                content = file.read()
                self._last = (os.fstat(file.fileno()).st_ino, content)
            self.document: dict[str, Any] = json.loads(content)
            self._next_session(now)
        else:
            self.document = {
                "telemetry_id": "".join(random.choices(string.ascii_lowercase + string.digits, k=16)),
                "slug": slug,
                "agent": "localhost",
                "tutorial_started_at": now,
                "steps": [
                    {
                        "slug": step["slug"],
                        "position": step["position"],
                        "files": step["files"],
                        "ai_interactions": [],
                        "compilations": [],
                        "tests": [],
                        "is_testeable": step["graded"],
                    }
                    for step in steps
                ],
                "workout_session": [{"started_at": now}],
            }
        self.save()

    def _next_session(self, now: int) -> None:
        sessions = self.document["workout_session"]
        last = self.document.get("last_interaction_at")
        # A session without any interaction is never closed, and no new one begins.
        if last and sessions:
            sessions[-1].setdefault("ended_at", last)
            sessions.append({"started_at": now})

    def _step(self, slug: str) -> dict[str, Any]:
        return next(step for step in self.document["steps"] if step["slug"] == slug)

    def opened(self, slug: str, now: int) -> None:
        step = self._step(slug)
        if not step["position"]:
            return
        previous = self._step(self._previous) if self._previous else None
        if previous and not previous["is_testeable"] and "completed_at" not in previous:
            previous["completed_at"] = now
        self._previous = slug
        step.setdefault("opened_at", now)
        self._interaction(now)

    def ran(self, kind: str, slug: str, attempt: dict[str, Any], now: int) -> None:
        """`kind` is "compilations" or "tests"; texts of `attempt` are plain."""
        names = ("source_code", "stdout", "stderr")
        row = {name: encoded(value) if name in names else value for name, value in attempt.items()}
        self._step(slug)[kind].append(row)
        self._interaction(now)

    def asked(self, slug: str, question: str, answer: str, now: int) -> None:
        texts = {"student_message": encoded(question), "source_code": "", "ai_response": encoded(answer)}
        self._step(slug)["ai_interactions"].append({**texts, "starting_at": now - 800, "ended_at": now})
        self._interaction(now)

    def _interaction(self, now: int) -> None:
        self.document["last_interaction_at"] = now
        self.save()

    def save(self) -> None:
        if self._last is not None:
            try:
                with open(self.path, "rb") as file:
                    found = (os.fstat(file.fileno()).st_ino, file.read())
            except FileNotFoundError:
                found = (0, b"")
            if found != self._last:
                self.touched += 1
        content = json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()
        with open(self.path, "wb") as file:
            file.write(content)
            self._last = (os.fstat(file.fileno()).st_ino, content)
