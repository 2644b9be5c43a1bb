"""LearnPack's own two ways: each event as it happens (streaming), and the whole document at certain moments (batch).

Bodies and headers are those of LearnPack CLI 2.1.34 (`managers/telemetry.ts`): JSON, `Authorization: Token …`.  What
LearnPack doesn't have: an id for each event, in the header `Idempotency-Key`, and in the attempt as `event_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import orjson

from ..core.bodies import Body, Sendable, Whose
from .posting import Posting


class Streaming(Posting):
    """One event in one body."""

    def body(self, sendables: Sequence[Sendable], whose: Whose) -> Body:
        (one,) = sendables
        content = {
            "slug": one.content["slug"],
            "telemetry_id": whose.telemetry_id,
            # Before a login LearnPack's has none, and the receiver ends in an error on null.
            **({} if whose.user_id is None else {"user_id": whose.user_id}),
            "step_position": one.content["step_position"],
            "event": one.content["event"],
            "data": one.content["data"],
        }
        return Body(orjson.dumps(content), id_header(one.id))


class Batch(Streaming):
    """The document (`document_body`); a single event only for a test of the connection: a body with an `event` is no
    document, so it replaces none."""


def document_body(file: BinaryIO, document_id: str) -> Body:
    """A whole document, in a file because it may be long."""
    return Body(file, id_header(document_id))


def id_header(event_id: str) -> dict[str, str]:
    """draft-ietf-httpapi-idempotency-key-header: a text in quotes."""
    return {"Idempotency-Key": f'"{event_id}"'}
