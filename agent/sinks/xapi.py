"""xAPI statements for a Learning Record Store (xAPI 1.0.3, part 3; 2.0 with `version = "2.0.0"`).

`url` is the LRS's endpoint, as LRS products show it; `/statements` is added.  A store takes a body as a whole or not at
all, so smaller bodies find a statement that it does not take.  409 of a single one: it has a statement of this id, of a
try whose answer was lost, perhaps with other fields switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit
from uuid import NAMESPACE_URL, uuid5

import orjson

from ..core.bodies import Body, Sendable, Whose
from ..core.delivery import Outcome, Sent
from ..core.xapi import HOME_PAGE, Place, statement
from .http import Answer, Server
from .posting import Posting


class Xapi(Posting):
    def __init__(self, server: Server, version: str) -> None:
        """`version` is that of xAPI: "1.0.3" or "2.0.0"."""
        server.destination = replace(server.destination, url=_statements(server.destination.url))
        super().__init__(server)
        self._version = version

    def body(self, sendables: Sequence[Sendable], whose: Whose) -> Body:
        place = Place(whose.telemetry_id, whose.course, _uuid(f"{whose.telemetry_id}/{whose.course}"))
        made = (statement(one.content, place, _uuid) for one in sendables)
        statements = [one for one in made if one is not None]
        headers = {"X-Experience-API-Version": self._version}
        return Body(orjson.dumps(statements), headers, len(statements))

    def _judged(self, answer: Answer, body: Body) -> Sent:
        if answer.status == 409 and body.count == 1:
            return Sent(Outcome.DELIVERED, "409: it has this statement already")
        return super()._judged(answer, body)


def _uuid(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"{HOME_PAGE}/{name}"))


def _statements(url: str) -> str:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith("/statements") else f"{path}/statements"))
