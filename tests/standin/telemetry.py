"""The `.learn/telemetry.json` that LearnPack CLI 2.1.34 writes: its fields, its moments, its defects.

Kept on purpose: position 0 is never opened; `completed_at` of a tested step is never set; a step without tests is
completed by re-opening itself and only within one life of the server; the exit code is called `exitCode` and the
start `starting_at`; the file is rewritten in place, whole, at every event; a broken file ends the start.
Standard library only: the server runs without the project's packages.
"""

from __future__ import annotations

import base64
import json
import random
import string
from typing import Any

from .telemetry_file import TelemetryFile


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class OwnTelemetry:
    """The document in memory, and the file that it is written to at every event."""

    def __init__(self, file: TelemetryFile, slug: str, steps: list[dict[str, Any]], agent: str, now: int) -> None:
        self.file = file
        self._previous_position: int | None = None
        content = file.read()
        if content is not None:
            self.document: dict[str, Any] = json.loads(content)
            self._next_session(now)
        else:
            self.document = {
                "telemetry_id": "".join(random.choices(string.ascii_lowercase + string.digits, k=16)),
                "slug": slug,
                "agent": agent,
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
        if last and sessions and not sessions[-1].get("ended_at"):
            sessions[-1]["ended_at"] = last
            sessions.append({"started_at": now})

    def _step(self, position: int) -> dict[str, Any]:
        # By its place in the list, as LearnPack does: it never looks for a slug.
        step: dict[str, Any] = self.document["steps"][position]
        return step

    def opened(self, position: int, now: int) -> None:
        if not position:
            return
        step = self._step(position)
        previous = self._step(self._previous_position) if self._previous_position is not None else None
        if previous and not previous["is_testeable"] and "completed_at" not in previous:
            previous["completed_at"] = now
        self._previous_position = position
        step.setdefault("opened_at", now)
        self._interaction(now)

    def ran(self, kind: str, position: int, attempt: dict[str, Any], now: int) -> None:
        """`kind` is "compilations" or "tests"; texts of `attempt` are plain."""
        names = ("source_code", "stdout", "stderr")
        row = {name: encoded(value) if name in names else value for name, value in attempt.items()}
        self._step(position)[kind].append(row)
        self._interaction(now)

    def asked(self, position: int, interaction: dict[str, Any], now: int) -> None:
        """Only the source is base64; question and answer stay plain."""
        row = {**interaction, "source_code": encoded(interaction["source_code"])}
        self._step(position)["ai_interactions"].append(row)
        self._interaction(now)

    def logged_in(self, user_id: Any) -> None:
        self.document["user_id"] = user_id
        self.save()

    def _interaction(self, now: int) -> None:
        self.document["last_interaction_at"] = now
        self.save()

    def save(self) -> None:
        self.file.save(self.document)
