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
from collections.abc import Callable
from contextlib import ExitStack

from .config import Config
from .core.course import Course
from .core.delivery import Circuit, Outcome, Sent
from .core.privacy import Privacy
from .destinations import Planned, Sink, opened, planned, privacy_of
from .feeds import Feed, feed_of
from .sensors.clock import now_ms
from .sensors.learnpack import is_logged_in
from .store.journal import Journal, JournalError
from .store.outbox import Outbox, OutboxError

log = logging.getLogger("learnpack-agent")

#: All of one try, from the first byte that is sent to the last one that is read.
LONGEST_S = 60.0


class Courier:
    """All sinks of one course.  Its methods belong to the agent's loop."""

    def __init__(self, config: Config, directory: str, course: Course) -> None:
        self._config = config
        self._directory = directory
        self._course = course
        self._lines: dict[str, Line] = {}
        self._end_at = 0.0
        self._lay(course)
        for line in self._lines.values():
            # What a LearnPack without an agent sent meanwhile is not known.
            line.wake(spread_s=config.send.start_spread_seconds, overtaken=line.one.by_course and is_logged_in(course))

    def set_course(self, course: Course) -> None:
        """The course is another one now: it may name other URLs."""
        self._course = course
        self._lay(course)

    def _lay(self, course: Course) -> None:
        wanted = {one.name: one for one in planned(self._config, course)}
        for name, line in list(self._lines.items()):
            if wanted.get(name) != line.one:
                self._lines.pop(name).finish(0.0)
        for name, one in wanted.items():
            if name in self._lines:
                continue
            if one.refused is not None:
                log.warning("%s is not used: %s", name, one.refused)
                continue
            self._lines[name] = line = Line(one, self._config, self._directory, lambda: self._course)
            line.wake()

    def wake(self, *, now: bool = False) -> None:
        """Something was journaled.  `now`: everything that waits is tried at once, whatever was answered last."""
        for line in self._lines.values():
            line.wake(now=now)

    def overtaken(self) -> None:
        """LearnPack wrote its document: if somebody is logged in, it sends it to the course's URL."""
        for line in self._lines.values():
            if line.one.by_course and line.one.kind.is_document and is_logged_in(self._course):
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
        self._circuit = Circuit()
        self._due = 0.0  # when what is new is sent (monotonic, s)
        self._has_news = self._is_now = self._is_overtaken = False
        self._is_empty = True
        self._end_at: float | None = None  # of the last try
        self._privacy: Privacy | None = None

    # --- from the loop ---

    def wake(self, *, now: bool = False, spread_s: float = 0.0, overtaken: bool = False) -> None:
        """There may be something to send.  `now`: at once; else some time within `spread_s` and the sink's delay."""
        with self._changed:
            if self._end_at is not None:
                return
            if not self._has_news:
                self._due = time.monotonic() + self.one.delay_ms / 1000 + spread_s * random.random()
            self._has_news = True
            self._is_now = self._is_now or now
            self._is_overtaken = self._is_overtaken or overtaken
            self._start()

    def finish(self, end_at: float) -> None:
        """One more try that ends at this time (monotonic, s); in the past: none."""
        with self._changed:
            self._end_at = end_at
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
            try:
                is_empty = self._turn()
            except (JournalError, OutboxError, OSError) as error:
                is_empty = False
                self._learn(Sent(Outcome.RETRY, str(error)))
            except Exception as error:
                # A fault of ours: the sink tries again later and says so, and does not end in silence.
                is_empty = False
                log.debug("%s", self.one.name, exc_info=True)
                self._learn(Sent(Outcome.RETRY, f"a fault in the agent: {error!r}"))
            with self._changed:
                self._is_empty = is_empty
                if self._end_at is not None:
                    break

    def _wait_for_turn(self) -> bool:
        with self._changed:
            while True:
                if self._end_at is not None:
                    return self._end_at > time.monotonic()
                if self._is_empty and not self._has_news:
                    self._thread = None  # under the condition: whoever wakes next starts another
                    return False
                due = self._due if self._is_empty else self._circuit.next_at / 1000
                left = due - time.monotonic()
                if self._is_now or left <= 0:
                    self._is_now = self._has_news = False
                    return True
                self._changed.wait(left)

    def _turn(self) -> bool:
        """Offer what waits; returns whether nothing does any more."""
        with ExitStack() as stack:
            journal = stack.enter_context(Journal.open(self._directory, create=False, read_only=True))
            outbox = stack.enter_context(Outbox(self._directory, journal.id))
            feed = feed_of(self.one, journal, outbox, self._mine, self._course(), self._config.document_max_mb << 20)
            with self._changed:
                feed.is_overtaken, self._is_overtaken = self._is_overtaken, False
            sink: Sink | None = None
            sent: Sent | None = None
            while feed.is_pending(final=self._end_at is not None):
                if sink is None:
                    sink = opened(self.one, self._config, self._course())
                    stack.callback(sink.close)
                sent = self._offered(sink, feed)
                if sent is None or not self._goes_on(sent, feed, outbox):
                    if feed.is_overtaken:
                        self._is_overtaken = True
                    return False
            if sent is not None:
                outbox.note(self.one.name, sent_at=now_ms())
        return True

    def _offered(self, sink: Sink, feed: Feed) -> Sent | None:
        """What the sink said to the next body; None where the time is over."""
        left = LONGEST_S if self._end_at is None else self._end_at - time.monotonic()
        if left <= 0:
            return None
        body = feed.next_body(sink)
        if isinstance(body, Sent):
            return body
        try:
            return sink.send(body, min(left, LONGEST_S))
        finally:
            if not isinstance(body.content, bytes):
                body.content.close()

    def _goes_on(self, sent: Sent, feed: Feed, outbox: Outbox) -> bool:
        """Whether the next body may be offered now."""
        if sent.outcome is Outcome.REJECTED and not feed.is_alone:
            feed.settle(sent)
            return True
        rejected_everything = self._circuit.waits and self._circuit.rejected > 0
        self._learn(sent, outbox)
        if sent.outcome in (Outcome.RETRY, Outcome.WAIT) or self._circuit.waits:
            return False
        feed.settle(sent)
        if sent.outcome is Outcome.DELIVERED and rejected_everything and outbox.send_again(self.one.name):
            self.wake()  # it was not these records
        return True

    def _learn(self, sent: Sent, outbox: Outbox | None = None) -> None:
        """What the answer means for the next one; said where it is news, and shown by `status`."""
        before = self._circuit
        now = int(time.monotonic() * 1000)
        after = before.after(sent.outcome, sent.words, now, random.random(), sent.asked_ms)
        self._circuit = after
        if after.why != before.why:
            where = f"{self.one.name} ({self.one.place})"
            if after.why is None:
                log.info("%s takes records again", where)
            else:
                log.warning("%s takes nothing now, everything waits: %s", where, after.why)
        if outbox is not None and (after.why is not None or before.why is not None):
            next_at = now_ms() + max(0, after.next_at - now)
            outbox.note(
                self.one.name,
                why=after.why,
                waits=after.waits or None,
                failures=after.failures or None,
                failed_at=now_ms() if after.why is not None else None,
                next_at=next_at if after.why is not None else None,
            )

    def _mine(self) -> Privacy:
        if self._privacy is None:
            self._privacy = privacy_of(self._config, self._course())
        return self._privacy
