"""Delivers: a thread for each sink that has something to get, and nothing at all for one that has not.

Promised: at least once, in order, with the same id each time; nothing is forgotten because of a fault, a restart or
weeks without a network, because the queue is the journal and a cursor moves only behind an answer.  One dead server
delays nobody.  With an empty queue there is no thread, no connection and no timer.  What answers mean is
`core.delivery`'s, what is offered next `agent.feeds`', what a body looks like each sink's.

Shared between threads are the fields of a `Line` under its condition, and the course, which is replaced as a whole.
Journal and outbox are opened by each thread for each turn, so that nothing is held while a server is waited for.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any

from .config import Config
from .core.course import Course
from .core.delivery import ALL_REJECTED, Circuit, Outcome, Sent
from .destinations import Planned, Sink, authorization_of, opened, planned, privacy_of
from .feeds import TOO_LARGE, Feed, feed_of
from .sensors.clock import now_ms
from .sensors.learnpack import is_logged_in
from .store.journal import Journal, JournalError
from .store.outbox import Outbox, OutboxCorrupt, OutboxError, set_aside

log = logging.getLogger("learnpack-agent")

#: All of one try, from the first byte that is sent to the last one that is read.
LONGEST_S = 60.0
#: Instead of a server's number: nothing was sent, because it could not be put into a body.
UNSPEAKABLE = 0
#: Making a document costs as much as it is long: it may take a twentieth of the time.
DOCUMENT_DUTY = 20

#: What sinks need is imported by the first turn.  Threads that import packages with circles in them (detect_secrets) at
#: the same time get half of one, and keep it for good.
_IMPORTING = threading.Lock()


class Courier:
    """All sinks of one course.  Its methods belong to the agent's loop."""

    def __init__(self, config: Config, directory: str, course: Course) -> None:
        self._config = config
        self._directory = directory
        self._course = course
        self._lines: dict[str, Line] = {}
        self._refusals: set[tuple[str, str]] = set()  # said already
        self._end_at = 0.0
        # What a LearnPack without an agent sent meanwhile is not known.
        self._lay(course, spread_s=config.send.start_spread_seconds, overtaken=is_logged_in(course))

    def set_course(self, course: Course) -> None:
        """The course is another one now: it may name other URLs."""
        self._course = course
        self._lay(course)

    def set_config(self, config: Config) -> None:
        """From now on these sinks, and sent like this.  What is on its way is broken off and sent again."""
        if (config.send, config.sinks, config.credentials) == (
            self._config.send,
            self._config.sinks,
            self._config.credentials,
        ):
            return
        self._config = config
        for name in list(self._lines):
            self._lines.pop(name).finish(0.0)
        self._refusals.clear()
        self._lay(self._course)

    def _lay(self, course: Course, *, spread_s: float = 0.0, overtaken: bool = False) -> None:
        wanted = {one.name: one for one in planned(self._config, course)}
        for name, line in list(self._lines.items()):
            if wanted.get(name) != line.one:
                self._lines.pop(name).finish(0.0)
        for name, one in wanted.items():
            if name in self._lines:
                continue
            if one.refused is not None:
                if (name, one.refused) not in self._refusals:
                    self._refusals.add((name, one.refused))
                    log.warning("%s is not used: %s", name, one.refused)
                continue
            self._lines[name] = line = Line(one, self._config, self._directory, lambda: self._course)
            line.wake(spread_s=spread_s, overtaken=overtaken and _is_learnpacks(one, course))

    def wake(self, *, now: bool = False) -> None:
        """Something was journaled.  `now`: everything that waits is tried at once, whatever was answered last."""
        for line in self._lines.values():
            line.wake(now=now)

    def hurry(self) -> None:
        """What waits for its moment goes now, but to a server that failed."""
        for line in self._lines.values():
            line.wake(now=line.is_well)

    def overtaken(self) -> None:
        """LearnPack wrote its document: if somebody is logged in, it sends it to the course's URL."""
        for line in self._lines.values():
            if _is_learnpacks(line.one, self._course) and is_logged_in(self._course):
                line.wake(overtaken=True)

    def is_behind(self, journal: str, number: int) -> bool:
        """Whether a sink has not got all records of this journal up to this one."""
        try:
            with Outbox(self._directory, journal, read_only=True) as outbox:
                return any(outbox.cursor(name) < number for name in self._lines)
        except OutboxError:
            return bool(self._lines)

    def begin_finish(self, *, send: bool) -> None:
        """A last try of everything begins; not `send`: everything stays where it is."""
        self._end_at = time.monotonic() + (self._config.send.final_milliseconds / 1000 if send else 0.0)
        for line in self._lines.values():
            line.finish(self._end_at)

    def finish(self) -> None:
        """Waits for the last tries, until their time is over; what is left goes at the next start."""
        for line in self._lines.values():
            line.join(self._end_at - time.monotonic())


class Line:
    """One sink, and the thread that serves it while something waits."""

    def __init__(self, one: Planned, config: Config, directory: str, course: Callable[[], Course]) -> None:
        self.one = one
        self._config = config
        self._directory = directory
        self._course = course
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._circuit: Circuit | None = None  # as the last life left it, before the first turn
        self._said: str | None = None  # why it takes nothing, as it stands in the log
        self._due = 0.0  # when what is new is sent (monotonic, s)
        self._rests_until = 0.0  # no document is made before
        self._authorized_by: int | None = None  # the hash of what went with the last try
        self._sink: Sink | None = None
        self._has_news = self._is_now = self._is_overtaken = False
        self._is_empty = True
        self._end_at: float | None = None  # of the last try

    # --- from the loop ---

    @property
    def is_well(self) -> bool:
        """Whether the last try did not fail."""
        return self._circuit is None or self._circuit.why is None

    def wake(self, *, now: bool = False, spread_s: float = 0.0, overtaken: bool = False) -> None:
        """There may be something to send.  `now`: at once; else some time within `spread_s` and the sink's delay."""
        with self._changed:
            if self._end_at is not None:
                return
            if not self._has_news or overtaken:
                self._due = time.monotonic() + self.one.delay_ms / 1000 + spread_s * random.random()
            self._has_news = True
            self._is_now = self._is_now or now or self._is_welcome_now()
            self._is_overtaken = self._is_overtaken or overtaken
            self._start()

    def _is_welcome_now(self) -> bool:
        """The server wanted credentials, and since then there are others: somebody logged in, or gave them."""
        if self._circuit is None or not self._circuit.waits:
            return False
        now = authorization_of(self.one, self._config, self._course())
        return now is not None and hash(now) != self._authorized_by

    def finish(self, end_at: float) -> None:
        """One more try that ends at this time (monotonic, s); in the past: none, and what is being sent is ended."""
        with self._changed:
            self._end_at = end_at
            if end_at <= time.monotonic() and self._sink is not None:
                self._sink.abort()
            self._start()

    def join(self, timeout_s: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, timeout_s))

    def _start(self) -> None:
        if self._thread is not None:
            self._changed.notify()
            return
        thread = threading.Thread(target=self._work, name=f"sink {self.one.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be had now: the next event asks again
            log.warning("%s: nothing is sent now: %s", self.one.name, error)
        else:
            self._thread = thread

    # --- in its thread ---

    def _work(self) -> None:
        while self._wait_for_turn():
            is_last = self._end_at is not None  # else what was journaled just now would not be tried
            try:
                is_empty = self._turn()
            except (JournalError, OutboxError, OSError) as error:
                is_empty = False
                self._learn_of_trouble(str(error))
                if isinstance(error, OutboxCorrupt):
                    self._begin_anew()
            except Exception as error:
                # A fault of ours: the sink tries again later and says so, and does not end in silence.
                is_empty = False
                log.debug("%s", self.one.name, exc_info=True)
                self._learn_of_trouble(f"a fault in the agent: {type(error).__name__}")
            with self._changed:
                self._is_empty = is_empty
                if is_last:
                    break

    def _learn_of_trouble(self, words: str) -> None:
        """Something here, no server, is why nothing is sent now."""
        sent = Sent(Outcome.RETRY, words)
        try:
            with (
                Journal.open(self._directory, create=False, read_only=True) as journal,
                Outbox(self._directory, journal.id) as outbox,
            ):
                self._learn(sent, outbox)
        except (JournalError, OutboxError, OSError):
            self._learn(sent)

    def _begin_anew(self) -> None:
        """How far the sinks are is not known any more: everything is sent once more, with the same ids."""
        with suppress(OSError):
            if (aside := set_aside(self._directory, str(now_ms()))) is not None:
                log.error("the damaged list of what was sent was moved aside to %s: everything is sent again", aside)

    def _wait_for_turn(self) -> bool:
        with self._changed:
            while True:
                if self._end_at is not None:
                    return self._end_at > time.monotonic()
                if self._is_empty and not self._has_news:
                    self._thread = None  # under the condition: whoever wakes next starts another
                    return False
                due = self._due if self._is_empty else (self._circuit or Circuit()).next_at / 1000
                left = max(due, self._rests_until) - time.monotonic()
                if self._is_now or left <= 0:
                    self._is_now = self._has_news = False
                    return True
                self._changed.wait(left)

    def _turn(self) -> bool:
        """Offer what waits; returns whether nothing does any more."""
        with ExitStack() as stack:
            journal = stack.enter_context(Journal.open(self._directory, create=False, read_only=True))
            outbox = stack.enter_context(Outbox(self._directory, journal.id))
            if self._circuit is None:
                self._circuit = _left_by(outbox.notes(self.one.name))
            course = self._course()
            # Once a turn: the student may have logged in since the last one, and has a name now.
            privacy = cache(lambda: privacy_of(self._config, course))
            feed = feed_of(self.one, journal, outbox, privacy, course, self._config.document_max_mb << 20)
            with self._changed:
                feed.is_overtaken, self._is_overtaken = self._is_overtaken, False
            stack.callback(self._keep_overtaken, feed)
            sink: Sink | None = None
            sent: Sent | None = None
            while feed.is_pending(final=self._end_at is not None):
                if sink is None:
                    sink = self._open(course, stack)
                sent = self._offered(sink, feed)
                if sent is None or not self._goes_on(sent, feed, outbox):
                    return False
            if sent is not None:
                outbox.note(self.one.name, sent_at=now_ms())
        return True

    def _open(self, course: Course, stack: ExitStack) -> Sink:
        with _IMPORTING:
            from .sinks import secrets  # noqa: F401  with the sink's own modules

            sink = opened(self.one, self._config, course)
        authorization = authorization_of(self.one, self._config, course)
        self._authorized_by = None if authorization is None else hash(authorization)
        with self._changed:
            self._sink = sink
        stack.callback(self._close_sink)
        return sink

    def _close_sink(self) -> None:
        with self._changed:
            sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def _keep_overtaken(self, feed: Feed) -> None:
        with self._changed:
            self._is_overtaken = self._is_overtaken or feed.is_overtaken

    def _offered(self, sink: Sink, feed: Feed) -> Sent | None:
        """What the sink said to the next body; None where the time is over."""
        if self._left_s() <= 0:
            return None
        began = time.monotonic()
        try:
            body = feed.next_body(sink)
        except (JournalError, OutboxError, OSError):
            raise
        except Exception as error:  # a fault of ours must not hold up what is behind this record
            log.debug("%s", self.one.name, exc_info=True)
            return Sent(Outcome.REJECTED, f"a fault in the agent: {type(error).__name__}", status=UNSPEAKABLE)
        if self.one.kind.is_document:
            now = time.monotonic()
            self._rests_until = now + DOCUMENT_DUTY * (now - began)
        if isinstance(body, Sent):
            return body
        try:
            left = self._left_s()
            return sink.send(body, left) if left > 0 else None
        finally:
            if not isinstance(body.content, bytes):
                body.content.close()

    def _left_s(self) -> float:
        return LONGEST_S if self._end_at is None else min(LONGEST_S, self._end_at - time.monotonic())

    def _goes_on(self, sent: Sent, feed: Feed, outbox: Outbox) -> bool:
        """Whether the next body may be offered now."""
        circuit = self._circuit or Circuit()
        match sent.outcome:
            case Outcome.REJECTED if not feed.is_alone:
                feed.settle(sent)
                return True
            case Outcome.DELIVERED:
                # First: while it can't be noted (a full disk), the same is sent again, and ever more rarely.
                feed.settle(sent)
                self._learn(sent, outbox)
                # It was not these records: they go before those behind them.
                return not (circuit.rejected >= ALL_REJECTED and outbox.send_again(self.one.name))
            case Outcome.REJECTED:
                # One that is too large, or was rejected before, says nothing of the others.
                counts = sent.status not in (TOO_LARGE, UNSPEAKABLE) and not feed.is_again
                self._learn(sent, outbox, counts=counts)
                if self._circuit is not None and self._circuit.waits:
                    return False
                feed.settle(sent)
                return True
            case _:
                self._learn(sent, outbox)
                return False

    def _learn(self, sent: Sent, outbox: Outbox | None = None, *, counts: bool = True) -> None:
        """What the answer means for the next one; said where it is news, and shown by `status`.

        `counts`: whether a rejection is a sign that everything is rejected.
        """
        before = self._circuit or Circuit()
        now = int(time.monotonic() * 1000)
        after = before.after(sent.outcome, sent.words, now, random.random(), sent.asked_ms)
        if not counts:
            after = Circuit(rejected=before.rejected)
        self._circuit = after
        if after.why != self._said:
            where = f"{self.one.name} ({self.one.place})"
            if after.why is None:
                log.info("%s takes records again", where)
            else:
                log.warning("%s takes nothing now, everything waits: %s", where, after.why)
            self._said = after.why
        is_noteworthy = after.why or before.why or after.rejected != before.rejected
        if outbox is not None and is_noteworthy:
            next_at = now_ms() + max(0, after.next_at - now)
            outbox.note(
                self.one.name,
                why=after.why,
                waits=after.waits or None,
                failures=after.failures or None,
                rejected=after.rejected or None,
                failed_at=now_ms() if after.why is not None else None,
                next_at=next_at if after.why is not None else None,
            )


def _is_learnpacks(one: Planned, course: Course) -> bool:
    """Whether LearnPack sends its document to the same place."""
    return one.kind.is_document and one.config.url == course.batch


def _left_by(notes: Mapping[str, Any]) -> Circuit:
    """How a sink fared in the agent's last life; it is tried at once all the same."""
    why, rejected = notes.get("why"), notes.get("rejected")
    return Circuit(
        waits=bool(notes.get("waits")),
        why=why if isinstance(why, str) else None,
        rejected=rejected if isinstance(rejected, int) else 0,
    )
