"""Chooses how processes are seen, says which way it is, and changes it when it fails.

Promised: the best level that passes a self-test is used: the proc connector, else pidfds with looks triggered by
opened files, else polling.  A level that fails is replaced within milliseconds, and what may have been missed is
said (EventsLost).  A better level is tried again after 30 s, then ever more rarely, but only if it had worked or
was refused for a passing reason: a container never wakes up for it.  One thread, which only puts observations.

What each level can do lives in `proc_connector`, `pidfd` and `scan`; what has been reported in `tracking`.
"""

from __future__ import annotations

import select
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.course import Course
from ...core.observations import EventsLost, Observation, SensorChanged
from ...core.printed import OUTPUT_BYTES
from ..clock import now_ms
from .capture import Captures
from .level import Failed, Level, Mailbox, Refused
from .pidfd import PidfdScan
from .proc_connector import Connector
from .procfs import Procfs, has_procfs
from .promptness import ask_for_short_slices
from .scan import Polling, Psutil
from .tracking import SENSOR, Reader, Tracker

#: Best first.
LEVELS: Mapping[str, Callable[[], Level]] = (
    {"connector": Connector, "pidfd": PidfdScan, "polling": Polling}
    if sys.platform == "linux"
    else {"polling": Polling}
)

NO_LEVEL = "none"
_BLIND = "all programs"

_FIRST_WAIT_S, _LONGEST_WAIT_S = 30.0, 600.0

#: How long `stop` waits for the thread.
_STOP_S = 5.0


@dataclass(slots=True)
class _Candidate:
    """A level that may be used.  `due` is when it may be tried (`time.monotonic`), None: never again."""

    name: str
    make: Callable[[], Level]
    wait_s: float
    level: Level | None = None
    due: float | None = 0.0
    opened: float = 0.0
    refusal: str = field(default="")


class ProcessSensor:
    """The process sensor.  All methods may be called from any thread and return at once.

    `put` and `on_level` are called in the sensor's thread, `on_level` with the level's name right after its
    SensorChanged; `log` gets whole sentences, one per change.  `prefer` is "auto" or the first level to try.
    `output_bytes`: at most so much of each stream of a LearnPack test is told; 0: nothing is read of it.
    `levels` and `waits_s` (first and longest wait before a better level is tried again) are seams for tests.
    """

    def __init__(
        self,
        course: Course,
        put: Callable[[Observation], None],
        *,
        prefer: str = "auto",
        output_bytes: int = OUTPUT_BYTES,
        log: Callable[[str], None] = lambda text: None,
        on_level: Callable[[str], None] = lambda level: None,
        levels: Sequence[Callable[[], Level]] | None = None,
        waits_s: tuple[float, float] = (_FIRST_WAIT_S, _LONGEST_WAIT_S),
    ) -> None:
        self._course = course
        self._put = put
        self._log = log
        self._on_level = on_level
        self._output_bytes = output_bytes
        self._first_wait_s, self._longest_wait_s = waits_s
        names = list(LEVELS)
        first = names.index(prefer) if prefer in LEVELS else 0
        makers = levels if levels is not None else [LEVELS[name] for name in names[first:]]
        self._candidates = [
            _Candidate(getattr(make, "name", f"level {number}"), make, self._first_wait_s)
            for number, make in enumerate(makers)
        ]
        self._current: _Candidate | None = None
        self._announced: tuple[str, str] | None = None
        self._tracker: Tracker | None = None
        self._mailbox = Mailbox()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def level(self) -> str:
        """The level in use: "connector", "pidfd", "polling", or "none" (also before one was chosen)."""
        return self._announced[0] if self._announced is not None else NO_LEVEL

    @property
    def wants_opens(self) -> bool:
        """Whether the level in use needs `trigger` when a course file is opened."""
        current = self._current
        return current is not None and current.level is not None and current.level.wants_opens

    @property
    def last_event_ms(self) -> int:
        """When anything was last seen of any process; 0 if never."""
        current = self._current
        return current.level.last_event_ms if current is not None and current.level is not None else 0

    @property
    def skipped(self) -> int:
        """How many times a process was left out because looking at it failed."""
        return self._tracker.skipped if self._tracker is not None else 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=SENSOR, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop observing; nothing is put after this returns.  Takes a few ms; 1 s during a self-test.

        A thread that hangs (in a dead network file system, say) is left behind after 5 s, and may still put."""
        self._mailbox.post(stop=True)
        if self._thread is None:
            self._mailbox.close()
            return
        self._thread.join(_STOP_S)
        if not self._thread.is_alive():
            self._thread = None

    def trigger(self) -> None:
        """Something happened in the course's files: a level that has to look looks now."""
        if self.wants_opens:
            self._mailbox.post(trigger=True)

    def check(self) -> None:
        """Prove again that the level works: files change, but no process was seen for a while."""
        self._mailbox.post(check=True)

    def set_course(self, course: Course) -> None:
        """From now on this is the course."""
        self._mailbox.post(course=course)

    # the sensor's thread

    def _run(self) -> None:
        try:
            self._see()
        finally:
            # Only here: while the thread lives it may wait on the descriptor, and its number could be another's.
            self._mailbox.close()

    def _see(self) -> None:
        ask_for_short_slices()
        try:
            reader: Reader = Procfs() if has_procfs() else Psutil()
        except Refused as refused:
            self._log(f"No process can be seen: {refused}.")
            self._announce()
            return
        captures = Captures(self._mailbox, self._output_bytes)
        self._tracker = tracker = Tracker(self._course, self._put, reader, self._log, captures)
        try:
            self._see_with(tracker)
        finally:
            tracker.close()

    def _see_with(self, tracker: Tracker) -> None:
        while not self._stopping:
            if self._current is None:
                self._current = self._open_one_of(self._candidates)
                self._announce()
            self._mailbox.retry_at = self._next_retry()
            try:
                if self._current is None:
                    self._wait(tracker)
                else:
                    self._observe(self._current, tracker)
            except Exception as error:
                # Whatever it was, also a mistake of ours: another level sees more than a dead thread.
                self._replace(error)
        self._leave()

    def _observe(self, current: _Candidate, tracker: Tracker) -> None:
        """Run the level until it is asked to stop or a better one is due; take the better one if it works."""
        assert current.level is not None
        current.level.run(tracker, self._mailbox)
        if self._mailbox.asked_to_stop():
            self._stopping = True
            return
        better = self._open_one_of(self._candidates[: self._candidates.index(current)])
        if better is not None:
            self._log(f"Processes are seen by the {better.name} level again.")
            current.level.close()
            current.level = None
            # It gave way, it did not fail: at hand if the better one fails again.
            current.due = 0.0
            self._current = better
            self._announce()

    def _wait(self, tracker: Tracker) -> None:
        """No level works: wait until one may be tried again."""
        select.select([self._mailbox], [], [], self._mailbox.timeout())
        orders = self._mailbox.take()
        self._stopping = orders.stop
        if orders.course is not None:
            tracker.course = orders.course

    def _open_one_of(self, candidates: Sequence[_Candidate]) -> _Candidate | None:
        """The first candidate that is due and works, opened."""
        for candidate in candidates:
            now = time.monotonic()
            if candidate.due is None or candidate.due > now:
                continue
            level = candidate.make()
            try:
                level.open(self._mailbox)
            except (Refused, OSError) as error:
                level.close()
                passing = candidate.opened > 0 or (isinstance(error, Refused) and error.passing)
                self._postpone(candidate, again=passing)
                if str(error) != candidate.refusal:
                    candidate.refusal = str(error)
                    self._log(f"Processes can't be seen by the {candidate.name} level: {error}.")
                continue
            candidate.level, candidate.due, candidate.opened, candidate.refusal = level, None, now, ""
            return candidate
        return None

    def _postpone(self, candidate: _Candidate, *, again: bool) -> None:
        candidate.due = time.monotonic() + candidate.wait_s if again else None
        candidate.wait_s = min(candidate.wait_s * 2, self._longest_wait_s)

    def _replace(self, error: Exception) -> None:
        """The level in use failed: say so, and leave it."""
        current, self._current = self._current, None
        if current is None or current.level is None:
            raise error
        now = now_ms()
        since = min(current.level.last_event_ms or now, now)
        current.level.close()
        current.level = None
        if time.monotonic() - current.opened > self._longest_wait_s:
            current.wait_s = self._first_wait_s  # it had worked for long: this is a new trouble
        self._postpone(current, again=True)
        what = str(error) if isinstance(error, Failed | OSError) else f"{type(error).__name__}: {error}"
        self._log(f"The {current.name} level stopped seeing processes: {what}.")
        self._put(EventsLost(now, since, SENSOR, f"the {current.name} level failed: {what}"))

    def _next_retry(self) -> float | None:
        """When a better level than the one in use is due."""
        better = self._candidates
        if self._current is not None:
            better = better[: better.index(self._current)]
        return min((candidate.due for candidate in better if candidate.due is not None), default=None)

    def _announce(self) -> None:
        level = self._current.level if self._current is not None else None
        said = (level.name, level.blind_to) if level is not None else (NO_LEVEL, _BLIND)
        if said == self._announced:
            return
        self._announced = said
        self._put(SensorChanged(now_ms(), SENSOR, *said))
        self._on_level(said[0])

    def _leave(self) -> None:
        if self._current is not None and self._current.level is not None:
            self._current.level.close()
            self._current.level = None
