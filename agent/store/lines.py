"""Records as others get them: what was concluded, and what LearnPack recorded of the same run.

Only reading: a journal that the agent writes at this moment can be read.
"""

from __future__ import annotations

from typing import Any

from ..core.document import attempt
from ..core.events import AiInteraction, Compile, Test
from ..core.export import public
from ..core.learnpack_forms import encoded
from .adoption import keys_of, row, same_runs
from .journal import Journal, Record, dumped


class Lines:
    """LearnPack's own texts of a run stand in where ours were not captured.

    Which runs LearnPack recorded too is asked once per step and kind, and again for a record that came after that
    (`events --follow`; what LearnPack writes later than the event is read is not in its line).
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._dropped_to = journal.dropped_to
        self._same: dict[tuple[str, str], tuple[int, dict[int, int]]] = {}

    def line(self, record: Record) -> bytes:
        """A line of `export`: one JSON object, without a line end."""
        return dumped(self.public(record))

    def public(self, record: Record) -> dict[str, Any]:
        """The same as `core.export.public` makes it; `omitted` where the journal dropped the texts of a run."""
        line = public(record.number, record.id, record.event, self._learnpacks(record))
        return line | {"omitted": True} if self._is_omitted(record) else line

    def data(self, record: Record) -> dict[str, Any]:
        """The record as an element of a step's list in LearnPack's document; {} for what is in none."""
        event = record.event
        match event:
            case Compile() | Test():
                return attempt(event.run, record.id, self._learnpacks(record), omitted=self._is_omitted(record))
            case AiInteraction():
                said = event.interaction
                return {
                    "event_id": record.id,
                    "student_message": said.student_message,
                    "source_code": encoded(said.source_code or ""),
                    "ai_response": said.ai_response,
                    "started_at": said.started_at,
                    "ended_at": said.ended_at,
                }
            case _:
                return {}

    def _is_omitted(self, record: Record) -> bool:
        return isinstance(record.event, (Compile, Test)) and record.number <= self._dropped_to

    def _learnpacks(self, record: Record) -> dict[str, Any] | None:
        event = record.event
        if not isinstance(event, (Compile, Test)):
            return None
        kind, slug = event.name, event.step.slug
        asked_at, same = self._same.get((kind, slug), (0, {}))
        if asked_at < record.number:
            with self._journal.snapshot():
                asked_at, same = self._journal.last_number, same_runs(self._journal, kind, slug)
            self._same[kind, slug] = asked_at, same
        if record.number not in same:
            return None
        with self._journal.snapshot():
            return row(self._journal, same[record.number])


def telemetry_id(journal: Journal) -> str:
    """The document's: LearnPack's where it has one, else the journal's own id."""
    return str(keys_of(journal, "document").get("telemetry_id") or journal.id)
