"""What an answer means for what was sent, and when to try again.

Numbers in, decisions out: which server, which bytes and which socket live in `agent.sinks`, what is sent when in
`agent.courier`.  `OUTCOMES` is the whole table; a sink may be stricter with the text of an answer, never kinder.

Promised: nothing is dropped here.  What a server does not take is tried again (RETRY), waits for somebody who can
change something (WAIT), or is set aside for later (REJECTED), and each of them has words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Outcome(Enum):
    """What becomes of what was sent."""

    DELIVERED = "delivered"
    RETRY = "retry"  # the same again, later
    WAIT = "wait"  # the same again when somebody changed something: credentials, an address, a proxy
    REJECTED = "rejected"  # this server will never take it: parked


class _Row(NamedTuple):
    first: int
    last: int
    outcome: Outcome
    words: str


#: The status codes of HTTP; the first row that holds a number counts.  Everything else is no answer of HTTP's.
OUTCOMES = (
    _Row(200, 299, Outcome.DELIVERED, "taken"),
    _Row(300, 399, Outcome.WAIT, "it points to another address, where nothing is sent"),
    _Row(401, 401, Outcome.WAIT, "it wants credentials"),
    _Row(403, 403, Outcome.WAIT, "it does not allow it with these credentials"),
    _Row(407, 407, Outcome.WAIT, "the proxy wants credentials"),
    _Row(408, 408, Outcome.RETRY, "it waited too long for us"),
    _Row(425, 425, Outcome.RETRY, "it is too early"),
    _Row(429, 429, Outcome.RETRY, "it is asked too often"),
    _Row(400, 499, Outcome.REJECTED, "it does not take this"),
    _Row(500, 599, Outcome.RETRY, "it failed"),
)


def outcome_of(status: int | None) -> tuple[Outcome, str]:
    """What an answer with this status means, and why in words; None: there was no answer (network, time-out)."""
    if status is None:
        return Outcome.RETRY, "no answer"
    for row in OUTCOMES:
        if row.first <= status <= row.last:
            return row.outcome, f"{status}: {row.words}"
    return Outcome.RETRY, f"{status}: no answer of HTTP's"


#: The first try again comes within a second; they get rarer until they come within 15 minutes of each other.
FIRST_MS, LONGEST_MS, _SHORTEST_MS = 1_000, 15 * 60_000, 50
#: A server may ask for a longer pause, but not for ever.
LONGEST_ASKED_MS = 60 * 60_000
#: Who waits for somebody asks now and then whether it is done: a server's fault may be mended there.
PROBE_MS = 60 * 60_000
#: So many records in a row that a server rejected, and none that it took: then it is not the records.
ALL_REJECTED = 10


@dataclass(frozen=True, slots=True)
class Circuit:
    """How a sink fares.  `next_at` is when it may be tried again, 0: at once (ms of a clock that nobody sets); `why` is
    None while it works.

    `waits`: somebody must change something; `rejected` counts the records in a row that were rejected.
    """

    failures: int = 0
    next_at: int = 0
    waits: bool = False
    why: str | None = None
    rejected: int = 0

    def after(self, outcome: Outcome, words: str, now: int, random: float, asked_ms: int | None = None) -> Circuit:
        """The circuit after an answer.  `random` is of [0, 1): the delay is anything up to the longest of its turn
        ("full jitter"), so that 300 machines don't come back in one moment.  `asked_ms`: the server's Retry-After."""
        match outcome:
            case Outcome.DELIVERED:
                return Circuit()
            case Outcome.REJECTED:
                # Whoever rejects is there and knows us: what it failed at or waited for before is over.
                rejected = self.rejected + 1
                if rejected < ALL_REJECTED:
                    return Circuit(rejected=rejected)
                return Circuit(self.failures, now + PROBE_MS, True, f"it rejects everything ({words})", rejected)
            case Outcome.WAIT:
                return Circuit(self.failures + 1, now + PROBE_MS, True, words, self.rejected)
            case Outcome.RETRY:
                failures = self.failures + 1
                delay = _delay_ms(failures, random)
                if asked_ms is not None:
                    delay = max(delay, min(asked_ms, LONGEST_ASKED_MS))
                return Circuit(failures, now + delay, False, words, self.rejected)


def _delay_ms(failures: int, random: float) -> int:
    longest = min(LONGEST_MS, FIRST_MS << min(failures - 1, 20))
    return max(_SHORTEST_MS, int(random * longest))


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a body: the answer's outcome and words, how long the server wants to be left alone, and the number
    of its answer where there was one."""

    outcome: Outcome
    words: str
    asked_ms: int | None = None
    status: int | None = None
