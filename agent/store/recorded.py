"""What only LearnPack tells of: adopted runs and AI interactions as observations, each once.

A run that LearnPack recorded waits here until the agent would have concluded it itself if it had seen it.  Then either
the journal has it (the same step and kind, its end within `SAME_END_MS`) or it is an observation like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.events import AiInteraction, Interaction
from ..core.learnpack_forms import decoded, milliseconds
from ..core.observations import InteractionRecorded, RunRecorded
from .adoption import row, same_runs, waiting
from .journal import Journal

#: A run is concluded within some ms of its end; where its process was not seen to end, by the next look at the
#: processes.  So long after its end nobody else will tell of it.
PATIENCE_MS = 3_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is to be observed now, which rows need no further look then, and when (ms) to ask again."""

    observations: tuple[RunRecorded | InteractionRecorded, ...]
    rows: tuple[int, ...]
    next_at: int | None


def recorded(journal: Journal, now: int, *, is_logged_in: bool, told: Collection[int] = ()) -> Recorded:
    """What LearnPack recorded and the journal doesn't have, but for the rows that were `told` before.  AI interactions
    count only while a student is logged in.

    The caller marks the rows as concluded once the observations' events are durable: dying in between, the same rows
    are asked for again and found in the journal.
    """
    observations: list[RunRecorded | InteractionRecorded] = []
    rows: list[int] = []
    next_at: int | None = None
    same: dict[tuple[str, str], frozenset[int]] = {}
    with journal.snapshot():
        for key, slug, kind in waiting(journal):
            if key in told:
                continue
            body = row(journal, key)
            started, ended = milliseconds(body.get("started_at")), milliseconds(body.get("ended_at"))
            if kind == AiInteraction.name:
                if is_logged_in and started is not None and not _is_journaled(journal, slug, ended or started):
                    observations.append(InteractionRecorded(now, slug, _interaction(body, started, ended)))
            elif started is not None and ended is not None:
                due = min(ended, now) + PATIENCE_MS if ended < now + PATIENCE_MS else now
                if due > now:
                    next_at = due if next_at is None else min(due, next_at)
                    continue
                if (kind, slug) not in same:
                    same[kind, slug] = frozenset(same_runs(journal, kind, slug).values())
                observations.append(_run(now, slug, kind, started, ended, body, was_seen=key in same[kind, slug]))
            rows.append(key)
    return Recorded(tuple(observations), tuple(rows), next_at)


def _is_journaled(journal: Journal, slug: str, at: int) -> bool:
    query = "SELECT 1 FROM records WHERE event=? AND step_slug=? AND at=?"
    return journal.connection.execute(query, (AiInteraction.name, slug, at)).fetchone() is not None


def _text(body: Mapping[str, Any], name: str) -> str | None:
    text = body.get(name)
    return decoded(text, ours=True) if isinstance(text, str) and text else None


def _run(
    now: int, slug: str, kind: str, started: int, ended: int, body: Mapping[str, Any], *, was_seen: bool
) -> RunRecorded:
    code = body.get("exit_code")
    return RunRecorded(
        at=now,
        slug=slug,
        event=kind,
        started_at=started,
        ended_at=max(started, ended),
        exit_code=code if type(code) is int else None,
        source_code=_text(body, "source_code"),
        stdout=_text(body, "stdout"),
        stderr=_text(body, "stderr"),
        was_seen=was_seen,
    )


def _interaction(body: Mapping[str, Any], started: int, ended: int | None) -> Interaction:
    message, response = body.get("student_message"), body.get("ai_response")
    return Interaction(
        started_at=started,
        ended_at=ended,
        student_message=message if isinstance(message, str) else "",
        ai_response=response if isinstance(response, str) else "",
        source_code=_text(body, "source_code"),
    )
