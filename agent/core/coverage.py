"""How much of the sessions was really watched: for each sensor, the time in which it was whole, and at which level.

A sensor is whole from the moment at which it says that it works (`SensorChanged`) until it stops, the agent ends or the
course is gone; what it lost (`EventsLost`) is cut out, from `since` to `at`.  Of an agent that was killed only the time
until its last observation counts.  Time counts where a session was, and sessions are told later than they began and
ended, so the whole times of each sensor are kept (as spans) until the session is over.

A level that can't see some programs is whole all the same when nothing was lost; that is why each level's time is told,
with what it can't see.

Known to be weak: of more than 64 spans the oldest are counted at once, as if the open session ended after them; where
none is open they are forgotten.  A session that was open when this began to count (an agent that was replaced by a
newer one) is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .events import Event, SessionEnd, SessionStart
from .observations import (
    AgentStarted,
    AgentStopped,
    ClockJumped,
    CourseGone,
    CourseRead,
    EventsLost,
    Observation,
    SensorChanged,
)

#: The sensors that are told of, whether they ever worked or not.
SENSORS = ("processes", "files")
#: What a sensor that sees nothing at all says as its level.
NO_LEVEL = "none"
_SPANS = 64


@dataclass(frozen=True, slots=True)
class SensorState:
    """One sensor.

    `level` is None while it does not work; `since` is since when it is whole now, None where it is not.  `spans` are
    the whole times before that: from, to, level.  `whole_ms` is what the sessions that are over had, by level,
    `blind_to` what each level said that it can't see, `losses` how often something was lost, in or outside a session.
    """

    level: str | None = None
    since: int | None = None
    spans: tuple[tuple[int, int, str], ...] = ()
    whole_ms: Mapping[str, int] = field(default_factory=dict)
    blind_to: Mapping[str, str] = field(default_factory=dict)
    losses: int = 0

    def closed(self, at: int) -> SensorState:
        """Not whole any more since this time."""
        if self.since is None or self.level is None:
            return replace(self, since=None)
        spans = self.spans if at <= self.since else (*self.spans, (self.since, at, self.level))
        return replace(self, since=None, spans=spans)

    def without(self, since: int, at: int) -> SensorState:
        """Something was missed between these times."""
        spans: list[tuple[int, int, str]] = []
        current = self.spans
        whole_since = self.since
        if whole_since is not None and whole_since <= at:
            current, whole_since = self.closed(at).spans, at
        for start, end, level in current:
            pieces = ((start, min(end, since), level), (max(start, at), end, level))
            spans += [piece for piece in pieces if piece[0] < piece[1]]
        return replace(self, spans=tuple(spans), since=whole_since, losses=self.losses + 1)

    def whole_between(self, started_at: int, ended_at: int) -> dict[str, int]:
        """ms by level, `whole_ms` included."""
        found = dict(self.whole_ms)
        spans = self.spans
        if self.since is not None and self.level is not None:
            spans = (*spans, (self.since, max(self.since, ended_at), self.level))
        for start, end, level in spans:
            common = min(end, ended_at) - max(start, started_at)
            if common > 0:
                found[level] = found.get(level, 0) + common
        return found

    def shifted(self, by_ms: int) -> SensorState:
        return replace(
            self,
            since=None if self.since is None else self.since + by_ms,
            spans=tuple((start + by_ms, end + by_ms, level) for start, end, level in self.spans),
        )


@dataclass(frozen=True, slots=True)
class CoverageState:
    """All that a restart needs.  `session_ms` is the length of the sessions that are over, the last one of which ended
    at `counted_until`; `seen_until` is the time of the latest observation."""

    sensors: Mapping[str, SensorState] = field(default_factory=dict)
    session_ms: int = 0
    session_since: int | None = None
    counted_until: int | None = None
    seen_until: int | None = None
    course_gone: bool = False


@dataclass(frozen=True, slots=True)
class SensorReport:
    """`whole_ms` of `session_ms` this sensor was whole; `levels` are (level, ms, what it can't see), most first."""

    sensor: str
    session_ms: int
    whole_ms: int
    levels: tuple[tuple[str, int, str], ...]
    losses: int


class Coverage:
    """Fed with every observation and every event; `state` is for the snapshot, `report` for people."""

    def __init__(self, state: CoverageState | None = None) -> None:
        self._state = state or CoverageState()
        self._seen_until = self._state.seen_until  # changes with every observation, so it is put in when asked for

    @property
    def state(self) -> CoverageState:
        return replace(self._state, seen_until=self._seen_until)

    def receive(self, seen: Observation) -> None:
        state = self._state
        match seen:
            case AgentStarted():
                if self._seen_until is not None and seen.at < self._seen_until:
                    # The clock was set back meanwhile, nobody knows by how much: as if no time had passed.
                    self._shift(seen.at - self._seen_until)
                self._close(seen.at if self._seen_until is None else self._seen_until, ended=True)
            case AgentStopped():
                self._close(seen.at, ended=True)
            case CourseGone():
                self._close(seen.at, ended=False)
                self._state = replace(self._state, course_gone=True)
            case CourseRead() if state.course_gone:
                self._state = replace(state, course_gone=False)
                for name, sensor in state.sensors.items():
                    self._put(name, replace(sensor, since=None if sensor.level is None else seen.at))
            case SensorChanged():
                self._changed(seen)
            case EventsLost():
                sensor = self._state.sensors.get(seen.sensor, SensorState())
                self._put(seen.sensor, sensor.without(min(seen.since, seen.at), seen.at))
            case ClockJumped():
                self._shift(seen.by_ms)
            case _:
                pass
        self._seen_until = seen.at if self._seen_until is None else max(self._seen_until, seen.at)

    def concluded(self, event: Event) -> None:
        """Sessions are what time is measured against; other events say nothing here."""
        state = self._state
        if isinstance(event, SessionStart):
            since = event.at if state.counted_until is None else max(event.at, state.counted_until)
            self._state = replace(state, session_since=since)
        elif isinstance(event, SessionEnd) and state.session_since is not None:
            # Where the clock was set back in a session, its end is told as its start; it was by the last observation.
            since = state.session_since
            until = max(since, min(event.at, event.at if self._seen_until is None else self._seen_until))
            session_ms = state.session_ms + until - since
            self._state = replace(state, session_ms=session_ms, session_since=None, counted_until=until)
            for name, sensor in state.sensors.items():
                later = tuple(span for span in sensor.spans if span[1] > until)
                self._put(name, replace(sensor, whole_ms=sensor.whole_between(since, until), spans=later))

    def report(self, now: int | None = None) -> tuple[SensorReport, ...]:
        """All sessions, the open one until `now`; None: until the last observation, where no agent runs."""
        state = self._state
        until = (self._seen_until or 0) if now is None else now
        since = until if state.session_since is None else min(state.session_since, until)
        session_ms = state.session_ms + until - since
        reports = []
        for name in dict.fromkeys((*SENSORS, *state.sensors)):
            sensor = state.sensors.get(name, SensorState())
            whole = sensor.whole_between(since, until)
            levels = sorted(((level, ms, sensor.blind_to.get(level, "")) for level, ms in whole.items()), key=_most)
            reports.append(SensorReport(name, session_ms, sum(whole.values()), tuple(levels), sensor.losses))
        return tuple(reports)

    def _changed(self, seen: SensorChanged) -> None:
        sensor = self._state.sensors.get(seen.sensor, SensorState()).closed(seen.at)
        if seen.level == NO_LEVEL:
            self._put(seen.sensor, replace(sensor, level=None))
            return
        blind_to = {**sensor.blind_to, seen.level: seen.blind_to}
        since = None if self._state.course_gone else seen.at
        self._put(seen.sensor, replace(sensor, level=seen.level, since=since, blind_to=blind_to))

    def _close(self, at: int, *, ended: bool) -> None:
        """No sensor is whole after this time; `ended`: none works any more."""
        for name, sensor in self._state.sensors.items():
            closed = sensor.closed(at)
            self._put(name, replace(closed, level=None) if ended else closed)

    def _shift(self, by_ms: int) -> None:
        state = self._state
        times = (state.session_since, state.counted_until, self._seen_until)
        since, counted, self._seen_until = (None if at is None else at + by_ms for at in times)
        sensors = {name: sensor.shifted(by_ms) for name, sensor in state.sensors.items()}
        self._state = replace(state, sensors=sensors, session_since=since, counted_until=counted)

    def _put(self, name: str, sensor: SensorState) -> None:
        if len(sensor.spans) > _SPANS:
            oldest, kept = sensor.spans[:-_SPANS], sensor.spans[-_SPANS:]
            if (since := self._state.session_since) is not None:
                old = replace(sensor, since=None, spans=oldest)
                sensor = replace(sensor, whole_ms=old.whole_between(since, oldest[-1][1]))
            sensor = replace(sensor, spans=kept)
        self._state = replace(self._state, sensors={**self._state.sensors, name: sensor})


def _most(level: tuple[str, int, str]) -> int:
    return -level[1]
