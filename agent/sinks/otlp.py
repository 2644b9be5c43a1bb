"""OTLP/HTTP logs with JSON (opentelemetry.io, "OTLP Specification 1.x"), for an OpenTelemetry Collector.

What the records look like there is `core.otlp`'s.  Where a receiver says that it refused a part of them
(`partialSuccess`), smaller bodies find out which.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from .. import __version__
from ..core.bodies import Body, Sendable, Whose
from ..core.delivery import Outcome, Sent
from ..core.otlp import logs
from .http import Answer
from .posting import Posting


class Otlp(Posting):
    def body(self, sendables: Sequence[Sendable], whose: Whose) -> Body:
        resource = {
            "service.name": "learnpack-agent",
            "service.version": __version__,
            "learnpack.course": whose.course,
            "learnpack.telemetry_id": whose.telemetry_id,
            "learnpack.user_id": whose.user_id,
        }
        content = orjson.dumps(logs([one.content for one in sendables], resource, __version__))
        return Body(content, count=len(sendables))

    def _judged(self, answer: Answer, body: Body) -> Sent:
        if answer.outcome is Outcome.DELIVERED and (refused := _refused(answer.body)):
            return Sent(Outcome.REJECTED, f"{answer.status}, but it refused {refused} of {body.count} records")
        return super()._judged(answer, body)


def _refused(answer: bytes) -> int:
    """How many of the log records it did not take (`ExportLogsServiceResponse`)."""
    try:
        found = orjson.loads(answer)
        return int(found["partialSuccess"]["rejectedLogRecords"])
    except (ValueError, TypeError, KeyError):  # nothing, or nothing of the kind
        return 0
