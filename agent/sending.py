"""What people ask about delivery: what waits and why (`queue`, `status`), what would be sent (`send --preview`), what a
server says to a test (`sinks test`), and a delivery without an agent (`send`).

Sending itself is `agent.courier`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .config import Config
from .core.bodies import Body, Sendable, Whose
from .core.course import Course
from .core.delivery import Outcome, Sent
from .destinations import Planned, credential_for, missing_credentials, opened, planned, privacy_of
from .explain import clock, duration
from .feeds import feed_of, whose
from .sensors.clock import now_ms
from .store.journal import Journal, new_id
from .store.outbox import Outbox, Parked

#: A test waits so long for its answer.
TEST_S = 15.0


# --- what waits ---


def sinks_of(config: Config, course: Course, journal: Journal, directory: str) -> list[dict[str, Any]]:
    """Every sink that is configured, named by the course, or was once: where it leads and how it fares.

    `waiting`: how many records are for it behind its cursor, the oldest from `oldest_at` (ms); `why` is None while it
    takes them; `failed_at` and `next_at` when it failed last and is tried again; `waits_for_somebody`: only a change
    helps.  `parked` are the records that it rejected.  `receiver`: why the 4Geeks receiver would not look at the
    document that was sent last.
    """
    with Outbox(directory, journal.id, read_only=True) as outbox:
        plans = planned(config, course)
        found = [_one(one, journal, outbox) for one in plans]
        for name in sorted(set(outbox.known()) - {one.name for one in plans}):
            waiting = journal.last_number - outbox.cursor(name)
            found.append(
                {"name": name, "kind": None, "place": None, "refused": "it is not configured any more"}
                | {"waiting": waiting, "oldest_at": None, **_fares(name, outbox)}
            )
    return found


def _one(one: Planned, journal: Journal, outbox: Outbox) -> dict[str, Any]:
    waiting, oldest_at = journal.waiting(outbox.cursor(one.name), one.kind.events)
    return {
        "name": one.name,
        "kind": one.config.kind,
        "place": one.place,
        "refused": one.refused,
        "waiting": waiting,
        "oldest_at": oldest_at,
        **_fares(one.name, outbox),
    }


def _fares(name: str, outbox: Outbox) -> dict[str, Any]:
    notes = outbox.notes(name)
    return {
        "why": notes.get("why"),
        "failed_at": notes.get("failed_at"),
        "next_at": notes.get("next_at"),
        "waits_for_somebody": bool(notes.get("waits")),
        "sent_at": notes.get("sent_at"),
        "receiver": notes.get("receiver") or [],
        "parked": [
            {"number": parked.number, "at": parked.at, "words": parked.words, "again": parked.again}
            for parked in outbox.parked(name)
        ],
    }


def sink_lines(sinks: Sequence[Mapping[str, Any]], now: int) -> Iterator[str]:
    """One line a sink, and one for each thing that is wrong with it."""
    for sink in sinks:
        where = f" to {sink['place']} ({sink['kind']})" if sink["place"] else ""
        if sink["refused"]:
            waits = f", {sink['waiting']} wait" if sink["waiting"] else ""
            yield f"{sink['name']}{where}: not used, {sink['refused']}{waits}"
            continue
        if sink["waiting"]:
            state = f"{sink['waiting']} wait, the oldest for {duration(max(0, now - sink['oldest_at']))}"
        else:
            state = "nothing waits"
        last = f", last sent at {clock(sink['sent_at'])}" if sink["sent_at"] else ""
        yield f"{sink['name']}{where}: {state}{last}"
        if sink["why"]:
            when = f"; tried again at {clock(sink['next_at'])}" if sink["next_at"] else ""
            somebody = ", somebody must change something" if sink["waits_for_somebody"] else ""
            yield f"  {sink['why']}{somebody}{when}"
        for words in sink["receiver"]:
            yield f"  the 4Geeks receiver would not look at the document: {words}"
        if sink["parked"]:
            newest = sink["parked"][-1]
            yield (
                f"  {len(sink['parked'])} rejected and kept (`send --parked` tries them again), the newest: record"
                f" {newest['number']} at {clock(newest['at'])}, {newest['words']}"
            )


# --- what would be sent ---


@dataclass(frozen=True, slots=True)
class Shown:
    """A body that would be sent: to which sink, with which headers (no credentials), byte for byte.

    `withheld` says why it would not be sent now; then there is no content.
    """

    sink: Planned
    headers: Mapping[str, str]
    content: bytes
    withheld: str = ""


class _Untouched(Outbox):
    """A preview moves no cursor, also not behind records that are nothing for a sink."""

    def acknowledge(self, sink: str, number: int, parked: Parked | None = None) -> None:
        pass


def previews(config: Config, course: Course, journal: Journal, directory: str, name: str | None) -> Iterator[Shown]:
    """All bodies that wait now, for one sink or for all, in their order."""
    privacy = privacy_of(config, course)
    with _Untouched(directory, journal.id, read_only=True) as outbox:
        for one in planned(config, course):
            if one.refused is not None or name not in (None, one.name):
                continue
            sink = opened(one, config, course)
            feed = feed_of(one, journal, outbox, lambda: privacy, course, config.document_max_mb << 20)
            while feed.is_pending(final=True):
                body = feed.next_body(sink)
                if isinstance(body, Body):
                    yield Shown(one, body.headers, _content(body))
                elif body.outcome is not Outcome.DELIVERED:
                    yield Shown(one, {}, b"", body.words)
                feed.skip()


def _content(body: Body) -> bytes:
    if isinstance(body.content, bytes):
        return body.content
    with body.content as file:
        return file.read()


# --- a test ---


def test_sink(one: Planned, config: Config, course: Course, journal: Journal | None) -> Sent:
    """Sends an event that says of itself that it is a test, and returns what came back.

    `journal`: None before there is one.
    """
    student = Whose(TEST_NAME, None, course.slug)
    if journal is not None:  # without the user_id: with it 4Geeks would file it as this student's
        student = replace(whose(journal, course, privacy_of(config, course)), user_id=None)
    sink = opened(one, config, course)
    try:
        sent = sink.send(sink.body([_marked(one, now_ms())], student), TEST_S)
    finally:
        sink.close()
    if (missing := missing_credentials(one, config, course)) is not None:
        return replace(sent, words=f"{sent.words}; sent without credentials, because {missing}")
    return sent


def _marked(one: Planned, now: int) -> Sendable:
    test_id = f"test-{new_id()}"
    if one.kind.as_attempt or one.kind.is_document:
        # An event that it does not know is an error at the 4Geeks receiver; of a test it only writes a log line.
        content: dict[str, Any] = {"slug": TEST_NAME, "step_position": 0, "event": "test", "data": {TEST_NAME: True}}
    else:
        content = {"number": 0, "id": test_id, "event": TEST_NAME, "at": now, "step_slug": None, "step_position": None}
    return Sendable(0, test_id, content)


TEST_NAME = "learnpack_agent_test"


# --- a delivery without an agent ---


def send_here(config: Config, course: Course, directory: str, within_s: float) -> None:
    """Offers everything that waits to every sink, at once and side by side, for so long at most.

    Nobody else may deliver meanwhile: the caller holds the course's lock.
    """
    from .courier import Courier

    bound = replace(config.send, final_milliseconds=int(within_s * 1000), start_spread_seconds=0)
    courier = Courier(replace(config, send=bound), directory, course)
    courier.begin_finish(send=True)
    courier.finish()


def credentials_word(one: Planned, config: Config) -> str:
    """Which credentials go with it, without a word of them."""
    credential = credential_for(one, config)
    if credential is None:
        return "no credentials"
    source = (
        "the student's LearnPack session"
        if credential.learnpack_session
        else f"systemd credential {credential.credential}"
        if credential.credential
        else "a token of the configuration"
    )
    return f"{credential.scheme}, {source}"
