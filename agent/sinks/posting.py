"""What all sinks have in common that post to a server."""

from __future__ import annotations

from ..core.bodies import Body
from ..core.delivery import Sent
from .http import Answer, Server


class Posting:
    def __init__(self, server: Server) -> None:
        self._server = server

    def send(self, body: Body, within_s: float) -> Sent:
        """Offer it.  Raises nothing."""
        return self._judged(self._server.post(body.content, body.headers, within_s), body)

    def _judged(self, answer: Answer, body: Body) -> Sent:
        """A kind of server may say more than its status code does."""
        return Sent(answer.outcome, answer.words, answer.asked_ms, answer.status)

    def close(self) -> None:
        self._server.close()

    def abort(self) -> None:
        self._server.abort()
