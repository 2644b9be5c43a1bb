"""What a sink still has to get, the next body of it, and what becomes of that when the answer is there.

A feed lives for one turn of a sink's thread: it reads the journal from the sink's cursor and moves the cursor behind
an answer.  `Records` offers records one by one or some together; where a server rejects some together, it halves them
until the one is alone that the server does not take, and parks that one.  `Document` offers the whole document, when
one of the sink's events has happened.

Threads and waiting are `agent.courier`'s, what a body looks like each sink's.
"""

from __future__ import annotations

import os
from binascii import crc32
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO, Protocol, cast

import orjson

from .core.bodies import Body, Sendable, Whose
from .core.course import Course, printable
from .core.delivery import Outcome, Sent
from .core.learnpack_forms import OUTPUTS
from .core.privacy import Privacy
from .core.receiver import Summary, reduced, rehearse, summary
from .destinations import Planned, Sink
from .sensors.clock import now_ms
from .sensors.learnpack import user_id_of
from .store.adoption import keys_of
from .store.fold import chunks, plan
from .store.journal import Journal, Record
from .store.lines import Lines, telemetry_id
from .store.outbox import Outbox, Parked

#: So much of programs and outputs goes into one body, unless a single record has more.
BODY_BYTES = 512 << 10
#: A document in memory up to this size; a longer one lies in a file.
_SPOOL_BYTES = 1 << 20
#: Where a server says that a document is too large, the oldest outputs are left out, down to this size.
_SMALLEST_DOCUMENT = 32 << 10
TOO_LARGE = 413

#: Records of pauses: nothing that LearnPack recorded in one is sent.  A fact of the journal: [[from, to], ...] in ms.
PAUSES = "pauses"


class Feed(Protocol):
    #: Somebody else sent a document to the same place: ours is sent once more.
    is_overtaken: bool

    @property
    def is_alone(self) -> bool:
        """Whether what was offered can't be divided: a rejection is one of a record."""
        ...

    @property
    def is_again(self) -> bool:
        """Whether what was offered was rejected before."""
        ...

    def is_pending(self, *, final: bool) -> bool:
        """Whether there is something to offer.  It costs little: nothing is rendered.  `final`: before the end."""
        ...

    def next_body(self, sink: Sink) -> Body | Sent:
        """The next body, or why there is none to be sent now."""
        ...

    def settle(self, sent: Sent) -> None:
        """What was just offered was taken, or never will be."""
        ...

    def skip(self) -> None:
        """What was just offered is not to be offered again in this life (a preview)."""
        ...


def feed_of(
    one: Planned, journal: Journal, outbox: Outbox, privacy: Callable[[], Privacy], course: Course, limit: int
) -> Feed:
    """`limit` is the document's, in bytes."""
    if one.kind.is_document:
        return Document(one, journal, outbox, privacy, course, limit)
    return Records(one, journal, outbox, privacy, course)


def whose(journal: Journal, course: Course, privacy: Privacy) -> Whose:
    """LearnPack puts the user_id into its document at the login only; its session has it ever after."""
    user_id = keys_of(journal, "document").get("user_id") or user_id_of(course)
    # A course without a slug is called like its directory, and that may be called like the student.
    is_directory = course.slug == printable(os.path.basename(course.root))
    return Whose(telemetry_id(journal), user_id, privacy.text(course.slug) if is_directory else course.slug)


class Records:
    """Records in their order, each body once, those that are to be tried again first."""

    def __init__(
        self, one: Planned, journal: Journal, outbox: Outbox, privacy: Callable[[], Privacy], course: Course
    ) -> None:
        self._name, self._kind = one.name, one.kind
        self._journal, self._outbox = journal, outbox
        self._privacy, self._course = privacy, course
        self._lines = Lines(journal)
        self._again = deque(parked.number for parked in outbox.parked(one.name) if parked.again)
        self._passed = self._read_to = outbox.cursor(one.name)
        self._records: Iterator[Record] = iter(())
        self._ahead: deque[Record] = deque()
        self._at_most = self._kind.at_most
        self._offered: list[Record] = []
        self._whose: Whose | None = None
        self._is_shown = False  # a preview moves nothing
        self.is_overtaken = False

    def is_pending(self, *, final: bool) -> bool:
        if self._again or self._ahead or self._read_ahead():
            return True
        if self._read_to > self._passed and not self._is_shown:
            self._passed = self._read_to
            self._outbox.acknowledge(self._name, self._read_to)  # nothing of it is anything for this sink
        return False

    def next_body(self, sink: Sink) -> Body | Sent:
        self._offered = self._next_records()
        if not self._offered:  # a parked record of which the journal knows nothing any more
            return Sent(Outcome.DELIVERED, "nothing")
        privacy = self._privacy()
        sendables = [self._sendable(record, privacy) for record in self._offered]
        if self._whose is None:
            self._whose = whose(self._journal, self._course, privacy)
        return sink.body(sendables, self._whose)

    def _next_records(self) -> list[Record]:
        if self._again:
            record = self._journal.record(self._again[0])
            return [] if record is None else [record]
        taken: list[Record] = []
        size = 0
        while len(taken) < self._at_most and size < BODY_BYTES:
            if len(taken) == len(self._ahead) and not self._read_ahead():
                break
            record = self._ahead[len(taken)]
            taken.append(record)
            size += _size(record)
        return taken

    def _read_ahead(self) -> bool:
        for _ in range(2):
            for record in self._records:
                self._read_to = record.number
                if record.event.name in self._kind.events:
                    self._ahead.append(record)
                    return True
            self._records = self._journal.records(after=self._read_to)  # what came since
        return False

    def _sendable(self, record: Record, privacy: Privacy) -> Sendable:
        event = record.event
        if not self._kind.as_attempt:
            return Sendable(record.number, record.id, privacy.line(self._lines.public(record)))
        step = getattr(event, "step", None)
        content = {
            "slug": step.slug if step else None,
            "step_position": step.position if step else None,
            "event": event.name,
            "data": privacy.attempt(self._lines.data(record)),
        }
        return Sendable(record.number, record.id, content)

    def settle(self, sent: Sent) -> None:
        if self._again:
            number = self._again.popleft()
            if sent.outcome is Outcome.DELIVERED:
                self._outbox.unpark(self._name, number)
            else:
                self._outbox.park(self._name, Parked(number, now_ms(), sent.words))
            return
        if sent.outcome is Outcome.DELIVERED:
            self._pass(len(self._offered))
        elif len(self._offered) > 1:
            self._at_most = len(self._offered) // 2
        else:
            self._pass(1, Parked(self._offered[0].number, now_ms(), sent.words))
            self._at_most = self._kind.at_most

    def _pass(self, count: int, parked: Parked | None = None) -> None:
        self._passed = self._offered[-1].number
        for _ in range(count):
            self._ahead.popleft()
        self._outbox.acknowledge(self._name, self._passed, parked)

    def skip(self) -> None:
        self._is_shown = True
        if self._again:
            self._again.popleft()
            return
        for _ in self._offered:
            self._ahead.popleft()

    @property
    def is_alone(self) -> bool:
        return len(self._offered) <= 1

    @property
    def is_again(self) -> bool:
        return bool(self._again)


def _size(record: Record) -> int:
    """About the bytes of its texts."""
    run = getattr(record.event, "run", None)
    return 1_000 if run is None else 1_000 + sum(len(getattr(run, name) or "") for name in OUTPUTS)


class Document:
    """The document as it is when it is sent: the newest stands for all before it."""

    def __init__(
        self,
        one: Planned,
        journal: Journal,
        outbox: Outbox,
        privacy: Callable[[], Privacy],
        course: Course,
        limit: int,
    ) -> None:
        self._name, self._kind = one.name, one.kind
        self._journal, self._outbox = journal, outbox
        self._privacy, self._course = privacy, course
        self._limit = min(limit, outbox.notes(one.name).get("document_limit") or limit)
        self._last = 0
        self._size = 0
        self._refused_size = 0  # of the last one that was too large
        self._summary: Summary = {}
        self._errors: tuple[str, ...] = ()
        self._is_shown = False
        self.is_overtaken = False

    @property
    def is_alone(self) -> bool:
        return True

    @property
    def is_again(self) -> bool:
        return False

    def is_pending(self, *, final: bool) -> bool:
        if self._is_shown:
            return False
        cursor = self._outbox.cursor(self._name)
        if any(parked.again for parked in self._outbox.parked(self._name)):
            return True
        last = self._journal.last_number
        if self.is_overtaken and last:
            return True
        if final:
            return last > cursor
        return self._journal.has_any(cursor, self._kind.events)

    def next_body(self, sink: Sink) -> Body | Sent:
        import tempfile

        spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES, "w+b")  # noqa: SIM115  the body's, which closes it
        thin = self._write(spool)
        self._summary = summary(thin)
        lost = reduced(self._outbox.notes(self._name).get("sent") or {}, self._summary)
        if lost:
            spool.close()
            words = f"the document holds less than what was sent last ({lost[0]}{', …' if lost[1:] else ''}): not sent"
            return Sent(Outcome.WAIT, words)
        self._errors = rehearse(thin).errors
        self._size = spool.tell()
        spool.seek(0)
        from .sinks.learnpack import document_body

        # The same document has the same id at each try, another one never.
        return document_body(cast("BinaryIO", spool), f"{self._journal.id}-document-{self._last}-{self._checksum:08x}")

    def _write(self, spool: Any) -> Mapping[str, Any]:
        """Writes the document and returns it without its texts: all that the receiver's rules look at."""
        privacy = self._privacy()
        with self._journal.snapshot():
            self._last = self._journal.last_number
            planned = plan(self._journal, self._course, now_ms(), self._limit)
            silence = _Silence(self._journal)
            thin: dict[str, Any] = silence.without(privacy.plain(orjson.loads(planned.head)))
            student = whose(self._journal, self._course, privacy)
            if student.user_id is not None:
                thin["user_id"] = student.user_id
            if thin["slug"] == self._course.slug:
                thin["slug"] = student.course
            head = orjson.dumps(thin)
            heads = [privacy.plain(silence.of_step(orjson.loads(step))) for _, step in planned.steps]
            steps = tuple((slug, orjson.dumps(step)) for (slug, _), step in zip(planned.steps, heads, strict=True))
            thin["steps"] = heads

            def changed(index: int, name: str, element: dict[str, Any]) -> dict[str, Any] | None:
                if "event_id" not in element and silence.covers(element.get("started_at")):
                    return None
                kept = {key: value for key, value in element.items() if key not in OUTPUTS}
                heads[index].setdefault(name, []).append(kept)
                return privacy.attempt(element)

            self._checksum = 0
            for piece in chunks(self._journal, replace(planned, head=head, steps=steps), changed):
                spool.write(piece)
                self._checksum = crc32(piece, self._checksum)
        return thin

    def settle(self, sent: Sent) -> None:
        if sent.outcome is Outcome.REJECTED:
            is_smaller = not self._refused_size or self._size < self._refused_size
            if sent.status == TOO_LARGE and self._size > _SMALLEST_DOCUMENT and is_smaller:
                self._limit, self._refused_size = self._size // 2, self._size
                self._outbox.note(self._name, document_limit=self._limit)
                return  # once more, smaller
            self._outbox.acknowledge(self._name, self._last, Parked(self._last, now_ms(), sent.words))
        else:
            self._outbox.note(self._name, sent=self._summary, receiver=list(self._errors) or None)
            self._outbox.acknowledge(self._name, self._last)
        for parked in self._outbox.parked(self._name):
            if parked.number < self._last or sent.outcome is Outcome.DELIVERED:
                self._outbox.unpark(self._name, parked.number)  # this document holds it
        self.is_overtaken = False

    def skip(self) -> None:
        self._is_shown = True


class _Silence:
    """The times in which nothing was to be recorded: what only LearnPack knows of them does not leave."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pauses: list[list[int]] = journal.fact(PAUSES) or []

    def covers(self, at: object) -> bool:
        return isinstance(at, int) and any(start <= at < end for start, end in self._pauses)

    def of_step(self, step: dict[str, Any]) -> dict[str, Any]:
        """A step's head: an opening or a completion of such a time is that of our records, if they have one."""
        for key, event in (("opened_at", "open_step"), ("completed_at", "complete_step")):
            if self.covers(step.get(key)):
                ours = self._journal.first_at(str(step.get("slug")), event)
                step = {**step, key: ours} if ours else {name: value for name, value in step.items() if name != key}
        return step

    def without(self, head: dict[str, Any]) -> dict[str, Any]:
        """The document's head: no session of such a time, and no time of its own in it."""
        if not self._pauses:
            return head
        sessions = [one for one in map(self._session, head["workout_session"]) if one is not None]
        times = {key: self._moved(head[key]) for key in ("tutorial_started_at", "last_interaction_at")}
        return {**head, **times, "workout_session": sessions}

    def _session(self, session: dict[str, Any]) -> dict[str, Any] | None:
        """One that goes on after the pause begins with its end."""
        began, ended = session.get("started_at"), session.get("ended_at")
        if not isinstance(began, int) or not self.covers(began):
            return session
        end = self._moved(began)
        goes_on = (self._journal.last_at() or 0) >= end if ended is None else ended > end
        return {**session, "started_at": end} if goes_on else None

    def _moved(self, at: int) -> int:
        """To the end of the pause; LearnPack's last interaction before it is not known any more."""
        return next((end for start, end in self._pauses if start <= at < end), at)
