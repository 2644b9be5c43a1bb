"""The composition root and the only loop.

Each sensor has its own thread and only puts observations on one queue; this loop owns inference, journal and
document.  The order is the promise: an event is journaled (durable) before anything else sees it, and the
document is a fold of the journal.  Nothing wakes the loop but an observation or a deadline of the inference, of
a held-back document, of a journal that waits for room, or of systemd's watchdog.

A full disk keeps events in memory and tries again; what would not fit there is counted and becomes a gap.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import time
from collections.abc import Callable
from dataclasses import replace

import orjson

from . import __version__
from .config import Config
from .core.codec import from_plain, to_plain
from .core.course import Course, printable
from .core.events import Compile, Event, Evidence, Gap, Origin, SessionEnd, Test
from .core.inference import Inference, Settings, Snapshot
from .core.observations import (
    AgentStarted,
    AgentStopped,
    ClockJumped,
    CourseGone,
    CourseRead,
    EventsLost,
    FileChanged,
    Observation,
    ProcessesListed,
    RunRecorded,
    SensorChanged,
)
from .courier import Courier
from .document_keeper import DocumentKeeper, Trouble
from .feeds import PAUSES
from .hosting.notify import Watchdog, notify
from .sensors.clock import now_ms
from .sensors.files.sensor import FileSensor
from .sensors.processes.promptness import let_threads_take_turns
from .sensors.processes.sensor import ProcessSensor
from .store.adoption import SINCE
from .store.document_file import DocumentFile
from .store.journal import Journal, JournalCorrupt, JournalError, JournalGone, dumped, open_or_replace, set_aside
from .store.lock import AlreadyRunning, Lock

log = logging.getLogger("learnpack-agent")

#: A full disk is tried again after this time; so many events wait in memory meanwhile.
FULL_RETRY_MS = 2_000
#: So many observations at most become one journal transaction.
BURST = 512
WAITING_EVENTS = 20_000
#: The wall clock may drift this much against the monotonic one (NTP slews at 0.5 ms/s) before it "jumped".
CLOCK_JUMP_MS = 2_000
#: Work in the course without any process event for so long: is the process sensor still alive?
SENSOR_DOUBT_MS = 60_000

#: Settings that a sensor or the inference was made with.
_FIXED = ("session_silence_minutes", "idle_minutes", "output_max_kb", "process_sensor")

#: The first look at the processes takes some ms, a self-test that gets no answer a second.
PROCESSES_PATIENCE_S = 3.0

_Stop, _Look, _DocumentNoticed = object(), object(), object()


class Agent:
    """One course, watched.  `run` is the loop; any thread may `stop` it, or make it `look` whether it is over."""

    def __init__(
        self,
        course: Course,
        config: Config,
        directory: str,
        record: str | None,
        lock: Lock,
        watchdog: Watchdog,
        away: str | None = None,
        silence: tuple[int, int] | None = None,
    ) -> None:
        """`lock` is the course's, held.  `away`: why there was no agent just now.  `silence`: from when to when nothing
        was to be recorded last."""
        self._course = course
        self._config = config
        self._directory = directory
        self.lock = lock
        self._watchdog = watchdog
        self._away = away or "the agent was not running"
        self._stopping = self._is_silenced = self._is_end = False
        self._waiting: list[Event] = []  # concluded, not yet durable
        self._lost: JournalGone | JournalCorrupt | None = None  # why another journal must be begun
        self._journal = self._open_journal()
        self._was_silent = self._note_silence(silence)
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._courier = Courier(config, directory, course)
        self._settings = Settings(config.session_silence_minutes * 60_000, config.idle_minutes * 60_000)
        self._inference = self._resumed()
        self._document = DocumentKeeper(
            DocumentFile(course.root, self._journal, base=course.base, limit=config.document_max_mb << 20),
            lambda: self._inference.learnpack_since,
            lambda: self._inference.learnpack_is_testing,
            self._conclude_recorded,
            self._put_status,
        )
        self._processes = ProcessSensor(
            course,
            self._queue.put,
            prefer=config.process_sensor,
            output_bytes=config.output_max_kb << 10,
            log=log.info,
            on_level=self._on_level,
        )
        self._files = FileSensor(
            course,
            self._queue.put,
            on_open=self._processes.trigger,
            on_document=lambda: self._queue.put(_DocumentNoticed),
        )
        self._trace = None
        if record is not None:
            from .trace import TraceWriter

            self._trace = TraceWriter(record, self._settings, self._inference.snapshot())
        self._processes_listed = False
        self._files_said: tuple[str, str] | None = None
        self._processes_checked_at = 0
        self._dropped: tuple[int, int] | None = None  # how many events, since when
        self._journal_retry_at: int | None = None
        self._journal_trouble = Trouble()
        self._clock_offset = _clock_offset()
        self._status: dict[str, object] = {
            "pid": os.getpid(),
            "course": course.root,
            "version": __version__,
            "started_at": now_ms(),
            "lost": 0,
            "skipped": 0,
        }

    def _open_journal(self) -> Journal:
        """The journal; a damaged one is moved aside, and that is a gap."""
        now = now_ms()
        journal, aside = open_or_replace(self._directory, str(now))
        if aside is not None:
            self._gap(f"the journal was damaged and moved aside to {aside.name}", "it could not be read")
        if journal.fact(SINCE) is None:
            journal.put_fact(SINCE, now)
        return journal

    def _gap(self, words: str, why: object, since: int | None = None) -> None:
        """Something may have been missed, `since` (ms) that time or just now."""
        log.error("%s: %s", words, why)
        now = now_ms()
        self._waiting.append(Gap(now, now if since is None else min(since, now), words, (Evidence(0, now, str(why)),)))

    def _resumed(self) -> Inference:
        kept = self._journal.state()
        if kept is None:
            return Inference(self._settings)
        try:
            return Inference.resumed(from_plain(Snapshot, orjson.loads(kept)), self._settings)
        except ValueError as error:
            self._gap("what was known before the restart could not be read", error, self._journal.last_at())
            return Inference(self._settings)

    def stop(self, *, is_end: bool = False) -> None:
        """`is_end`: no other agent begins at once, and the session ends with this one."""
        self._is_end = self._is_end or is_end
        self._stopping = True
        self._queue.put(_Stop)

    def look(self) -> None:
        self._queue.put(_Look)

    @property
    def status_line(self) -> str:
        return f"watching {len(self._course.steps)} steps; processes: {self._processes.level}"

    def set_config(self, config: Config) -> bool:
        """Work with these settings from now on.  False: some of them need an agent that begins anew."""
        if any(getattr(config, name) != getattr(self._config, name) for name in _FIXED):
            return False
        self._config = config
        self._document.file.limit = config.document_max_mb << 20
        self._courier.set_config(config)
        return True

    def send_now(self, *, to_all: bool) -> None:
        """What waits goes now; `to_all`: also to servers that failed."""
        if to_all:
            self._courier.wake(now=True)
        else:
            self._courier.hurry()

    def _note_silence(self, silence: tuple[int, int] | None) -> bool:
        """Nothing was to be recorded then: what LearnPack recorded meanwhile is neither told nor sent.  Returns whether
        that is news."""
        known = self._journal.fact(PAUSES) or []
        if silence is None or list(silence) in known:
            return False
        self._journal.put_fact(SINCE, max(silence[1], self._journal.fact(SINCE) or 0))
        self._journal.put_fact(PAUSES, [*known, list(silence)], durable=True)
        return True

    def run(self, is_over: Callable[[Agent], bool]) -> None:
        """`is_over` is asked after `look`."""
        self._is_over = is_over
        let_threads_take_turns()
        try:
            self._begin()
            while not self._stopping:
                self._wait()
        finally:
            self._close()

    def _begin(self) -> None:
        away = "recording was paused" if self._was_silent else self._away
        self._handle(AgentStarted(now_ms(), away))
        self._handle(CourseRead(now_ms(), self._course))
        self._processes.start()
        self._take_until_listed()
        self._files.start()
        self._announce_files()
        self._take_all(BURST)
        self._flush()
        self._document.noticed(now_ms())
        self._document.changed(now_ms())
        self._put_status(ready_at=now_ms(), files=self._files_status())
        log.info(
            "ready: watching %s (%d steps); processes: %s",
            printable(self._course.root),
            len(self._course.steps),
            self._processes.level,
        )
        notify(READY="1", STATUS=self.status_line)

    def _take_until_listed(self) -> None:
        """What runs already must be known before the files are read: is that queue a living server's?"""
        end = time.monotonic() + PROCESSES_PATIENCE_S
        while not self._processes_listed and not self._stopping and (left := end - time.monotonic()) > 0:
            try:
                self._take(self._queue.get(timeout=left))
            except queue.Empty:
                break

    # --- the loop ---

    def _wait(self) -> None:
        """Wait for the next observation or deadline and handle it."""
        deadline = self._next_deadline()
        timeout = None if deadline is None else max(0.0, (deadline - now_ms()) / 1000)
        try:
            first = self._queue.get(timeout=self._watchdog.timeout(timeout))
        except queue.Empty:
            self._note_clock()
        else:
            self._note_clock()
            self._take(first)
            self._take_all(BURST)
            self._flush()
            if self._processes.skipped != self._status["skipped"]:
                self._put_status()
        self._deadlines(now_ms())
        self._watchdog.beat()

    def _take(self, item: object) -> None:
        if item is _DocumentNoticed:
            self._document.noticed(now_ms())
            if self._inference.learnpack_since is not None:
                self._courier.overtaken()
        elif item is _Look:
            if self._is_over(self):
                self._is_silenced = True
                self.stop()
        elif item is not _Stop:
            self._handle(item)  # type: ignore[arg-type]  # only sensors put anything else, and only observations

    def _take_all(self, at_most: int) -> None:
        """What is there already: one journal transaction for a burst."""
        for _ in range(at_most):
            try:
                self._take(self._queue.get_nowait())
            except queue.Empty:
                break

    def _handle(self, seen: Observation) -> None:
        if isinstance(seen, CourseRead):
            # Other names of the course are learned one by one; reading it again does not forget them.
            names = dict.fromkeys((*self._course.aliases, *seen.course.aliases))
            seen = replace(seen, course=replace(seen.course, aliases=tuple(names)))
        if self._trace is not None:
            self._trace.observation(seen)
        match seen:
            case CourseGone():
                self._document.is_gone = True
            case FileChanged():
                self._maybe_doubt_processes(seen.at)
            case ProcessesListed():
                self._processes_listed = True
            case SensorChanged():
                self._processes_listed = self._processes_listed or seen.level == "none"
                log.info("%s are seen by %s; it can't see: %s", seen.sensor, seen.level, seen.blind_to or "nothing")
                self._put_status(**{seen.sensor: {"level": seen.level, "blind_to": seen.blind_to, "since": seen.at}})
            case EventsLost():
                log.warning("%s: something was missed: %s", seen.sensor, seen.reason)
                self._announce_files()
                self._put_status(lost=int(str(self._status["lost"])) + 1, files=self._files_status())
            case CourseRead():
                self._course, self._document.is_gone = seen.course, False
                self._document.file.base = seen.course.base
                self._processes.set_course(seen.course)
                self._courier.set_course(seen.course)
            case _:
                pass
        # What LearnPack's own telemetry tells of is no sign of a LearnPack without one.
        self._conclude(self._inference.receive(seen), were_seen=not isinstance(seen, RunRecorded))

    def _conclude(self, events: list[Event], *, were_seen: bool = True) -> None:
        for event in events:
            log.debug("%s", event)
            if were_seen and isinstance(event, (Compile, Test)) and event.run.origin is Origin.LEARNPACK:
                self._document.learnpack_ran()
            if len(self._waiting) < WAITING_EVENTS:
                self._waiting.append(event)
            else:
                count, since = self._dropped or (0, event.at)
                self._dropped = (count + 1, since)
        if events:
            self._document.changed(now_ms(), at_once=any(isinstance(event, SessionEnd) for event in events))

    def _conclude_recorded(self, observations: list[Observation]) -> bool:
        """What LearnPack recorded and nobody saw; returns whether what follows from it is durable."""
        for seen in observations:
            self._handle(seen)
        self._flush()
        return not self._waiting

    def _next_deadline(self) -> int | None:
        times = (self._inference.next_deadline(), self._journal_retry_at, self._document.deadline())
        return min((time for time in times if time is not None), default=None)

    def _deadlines(self, now: int) -> None:
        deadline = self._inference.next_deadline()
        if deadline is not None and deadline <= now:
            if self._trace is not None:
                self._trace.deadline(now)
            self._conclude(self._inference.handle_deadline(now))
            self._flush()
        if self._journal_retry_at is not None and self._journal_retry_at <= now:
            self._flush()
        if (document := self._document.deadline()) is not None and document <= now:
            self._document.handle(now, self._course)

    # --- the clock ---

    def _note_clock(self) -> None:
        offset = _clock_offset()
        by = offset - self._clock_offset
        self._clock_offset = offset
        if abs(by) >= CLOCK_JUMP_MS:
            self._handle(ClockJumped(now_ms(), by))
            self._document.shift(by)
            if self._journal_retry_at is not None:
                self._journal_retry_at += by

    # --- the journal ---

    def _flush(self) -> None:
        """Make everything concluded so far durable, and what a restart needs to know with it."""
        if not self._waiting and not self._inference.unsaved:
            return
        state = dumped(to_plain(self._inference.snapshot()))
        try:
            self._write_journal(state)
        except JournalError as error:
            self._journal_retry_at = now_ms() + FULL_RETRY_MS
            self._journal_trouble.set(f"the journal takes nothing, events wait in memory: {error}")
            return
        self._inference.unsaved = False
        self._journal_retry_at = None
        if self._journal_trouble.set(None):
            log.info("the journal takes events again")

    def _write_journal(self, state: bytes) -> None:
        """Raises JournalError: nothing was written, and the same is to be tried again."""
        if self._lost is None:
            try:
                self._append(state)
                return
            except (JournalGone, JournalCorrupt) as error:
                # Deleted or destroyed under our feet: another is begun, with everything that still waits.
                self._journal.close()
                self._lost = error
                is_gone = isinstance(error, JournalGone)
                self._gap("the journal was deleted" if is_gone else "the journal was damaged", error)
        self._replace_journal()
        self._append(state)

    def _append(self, state: bytes) -> None:
        if not self._waiting:
            self._journal.save_state(state)
            return
        events = list(self._waiting)
        if self._dropped is not None:
            count, since = self._dropped
            now = now_ms()
            words = f"{count} events were concluded while the disk was full and did not fit in memory"
            events.append(Gap(now, since, words, (Evidence(0, now, "the journal took nothing"),)))
        self._journal.append(events, state)
        self._waiting, self._dropped = [], None
        self._courier.wake()
        self._bound_journal()

    def _bound_journal(self) -> None:
        """The journal stays below the admin's limit: the oldest programs and outputs go, sent or not."""
        limit = self._config.journal_max_mb << 20
        if not limit or (size := self._journal.size) <= limit:
            return
        # A tenth more than is needed, so that it is done seldom.
        count, last = self._journal.drop_texts(size - limit + limit // 10)
        if count:
            unsent = ", some before every sink had got them" if self._courier.is_behind(self._journal.id, last) else ""
            words = f"the oldest programs and outputs were dropped, of {count} runs{unsent}"
            self._gap(words, f"the journal had reached journal_max_mb ({limit >> 20} MB)")
            self._journal.append(self._waiting, None)
            self._waiting = []

    def _replace_journal(self) -> None:
        """Another journal instead of the one that is lost."""
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            self.lock.release()  # it may have been deleted too
            self.lock = Lock.acquire(self._directory)
        except (OSError, AlreadyRunning) as error:
            raise JournalError(str(error)) from error
        if isinstance(self._lost, JournalCorrupt):
            aside = set_aside(self._directory, str(now_ms()))
            log.error("the damaged journal was moved aside to %s", aside)
            self._lost = JournalGone(f"moved aside to {aside}")  # the next one is not damaged
        self._journal = self._open_journal()
        self._lost = None
        self._document.use(self._journal)
        self._put_status()

    def _put_status(self, **facts: object) -> None:
        """What `status` tells about the running agent; written when it changes."""
        self._status.update(facts, skipped=self._processes.skipped)
        with contextlib.suppress(JournalError):  # said by _flush, and written with the next change
            self._journal.put_fact("status", self._status)

    # --- the sensors, and the end ---

    def _files_status(self) -> dict[str, object]:
        health = self._files.health
        blind = "; ".join(f"{path}: {reason}" for path, reason in health.skipped)
        return {"level": health.level, "blind_to": blind, "watches": health.watches, "files": health.files}

    def _announce_files(self) -> None:
        """How the files are watched, where that is news: the file sensor tells it when it is asked."""
        health = self._files_status()
        said = (str(health["level"]), str(health["blind_to"]))
        if said != self._files_said:
            self._files_said = said
            self._handle(SensorChanged(now_ms(), "files", *said))

    def _maybe_doubt_processes(self, at: int) -> None:
        """Files change, but of no process anything was seen for long: another program can switch the kernel's
        process events off (before Linux 6.6), and then they just stop."""
        quiet_since = max(self._processes.last_event_ms, self._processes_checked_at)
        if at - quiet_since > SENSOR_DOUBT_MS:
            self._processes_checked_at = at
            self._processes.check()

    def _on_level(self, level: str) -> None:
        """Called by the process sensor, in its thread, when its level changes."""
        self._files.watch_opens(self._processes.wants_opens)

    def _close(self) -> None:
        """Finish open work: whatever fails, the rest is still tried."""
        if not self._is_silenced:  # else the process goes on: systemd would kill it after TimeoutStopSec=
            notify(STOPPING="1")
        steps: list[Callable[[], object]] = [
            self._files.stop,
            self._processes.stop,
            lambda: self._take_all(self._queue.qsize() + BURST),
            lambda: self._handle(AgentStopped(now_ms(), self._is_end)),
            self._flush_at_last,
            # In a pause nothing leaves, not even what was recorded before it.
            lambda: self._courier.begin_finish(send=not self._is_silenced),
            lambda: self._document.finish(now_ms(), self._course),
            lambda: self._put_status(stopped_at=now_ms()),
            *([self._trace.close] if self._trace is not None else []),
            lambda: self._journal.close(),
            self._courier.finish,
            lambda: log.info("stopped"),
        ]
        with contextlib.ExitStack() as stack:
            for step in reversed(steps):
                stack.callback(step)

    def _flush_at_last(self) -> None:
        self._flush()
        if self._waiting:
            log.error("%d events could not be written: the journal takes nothing", len(self._waiting))


def _clock_offset() -> int:
    """Wall clock minus time since boot (sleep included), ms: changes only when somebody sets the clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return now_ms() - time.clock_gettime_ns(clock) // 1_000_000
