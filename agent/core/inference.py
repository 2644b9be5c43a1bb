"""Observations in, events out: what the student did, concluded from what was seen.

Rule 1 of the package holds: time is an argument.  `receive` takes the next observation, `next_deadline` says
when the inference wants to be asked again without one, `handle_deadline` is that question.  Each returns the
events that it concluded, in order.  `snapshot` is all that a restart needs; `Inference.resumed` begins with it.

What is concluded lives in its parts: when the student was at work in `sessions`, which step he is in and what is
completed in `steps` and `visits`, which processes are a run in `processes` and `commands`, builds without a process in
`builds`, what a run comes to in `runs` and `results`, how much of it all was really watched in `coverage`.  Here each
observation finds its way to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from .builds import Build, Builds
from .commands import parameter_file
from .course import Course, is_source_file
from .coverage import Coverage, CoverageState
from .events import Event
from .notes import Notes
from .observations import (
    AgentStarted,
    AgentStopped,
    Change,
    ClockJumped,
    ConfigRead,
    CourseGone,
    CourseRead,
    EventsLost,
    FileChanged,
    InteractionRecorded,
    Observation,
    Preview,
    PreviewWritten,
    ProcessesListed,
    ProcessExecuted,
    ProcessExited,
    QueueEntry,
    QueueRead,
    ReportRead,
    ResetCopyAppeared,
    RunRecorded,
    SensorChanged,
    TestsCompared,
)
from .processes import FinishedRun, Process, ProcessTree
from .queue import QueuePosition, news
from .runs import Runs
from .sessions import SILENCE_MS, Session, Sessions
from .steps import EDIT_MS, HINT_MS, Steps
from .visits import Hint, OpenVisit, Presence

#: So late may a file be read that was written just now, on a loaded machine.
LATE_MS = 5_000


@dataclass(frozen=True, slots=True)
class Settings:
    """`session_silence_ms`: without a LearnPack server a session ends after so long without work.  `idle_ms`: a longer
    time without a save, a run or an opening is no active time of a step."""

    session_silence_ms: int = SILENCE_MS
    idle_ms: int = 5 * 60_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the inference must know again after a restart of the agent."""

    last_seen: int | None = None
    session: Session | None = None
    session_ended_at: int | None = None
    visits: tuple[tuple[int, str], ...] = ()
    opened: frozenset[str] = frozenset()
    completed: frozenset[str] = frozenset()
    queue: QueuePosition | None = None
    config_current: str | None = None
    gone_since: int | None = None
    in_flight: tuple[ProcessExecuted, ...] = ()
    hints: tuple[Hint, ...] = ()
    first_tests: Mapping[str, str] = field(default_factory=dict)
    presence: OpenVisit | None = None
    coverage: CoverageState | None = None
    unsure: tuple[FinishedRun, ...] = ()


class Inference:
    """The machine.  Not thread-safe: one owner feeds it."""

    def __init__(self, settings: Settings | None = None, snapshot: Snapshot | None = None) -> None:
        settings, kept = settings or Settings(), snapshot or Snapshot()
        self._course: Course | None = None
        self._notes = Notes()
        self._tree = ProcessTree()
        self._builds = Builds()
        self._coverage = Coverage(kept.coverage)
        self._presence = Presence(settings.idle_ms, kept.presence, kept.session_ended_at)
        self._sessions = Sessions(self._notes, self._presence, settings.session_silence_ms, self._tree.servers)
        self._sessions.open, self._sessions.ended_at = kept.session, kept.session_ended_at
        self._steps = Steps(self._notes, self._sessions, self._presence, lambda: self._course)
        self._steps.hints, self._steps.visits.entries = list(kept.hints), list(kept.visits)
        self._steps.opened, self._steps.completed = set(kept.opened), set(kept.completed)
        self._runs = Runs(self._notes, self._sessions, self._steps, lambda: self._course)
        self._runs.first_tests, self._runs.learnpack_step = dict(kept.first_tests), kept.config_current
        self._runs.unsure = list(kept.unsure)
        self._queue = kept.queue
        self._config_known = kept.queue is not None
        self._gone = None if kept.gone_since is None else (kept.gone_since, "the course was gone")
        self._last_seen = kept.last_seen
        self._restored_processes = kept.in_flight
        self._started_at = 0
        self._learnpack_ended_at: int | None = None
        self._quiet_until = 0  # many steps changed at once until then: no student

    @classmethod
    def resumed(cls, snapshot: Snapshot, settings: Settings | None = None) -> Inference:
        """The inference as it was when `snapshot` was taken; processes come back with the first `CourseRead`."""
        return cls(settings, snapshot)

    def snapshot(self) -> Snapshot:
        in_flight = tuple(self._tree.in_flight())
        begun = [*(one.started_at for one in in_flight), *(one.started_at for one in self._runs.unsure)]
        visits = self._steps.visits
        return Snapshot(
            last_seen=self._last_seen,
            session=self._sessions.open,
            session_ended_at=self._sessions.ended_at,
            visits=tuple(visits.since(min(begun)) if begun else visits.entries[-1:]),
            opened=frozenset(self._steps.opened),
            completed=frozenset(self._steps.completed),
            queue=self._queue,
            config_current=self._runs.learnpack_step,
            gone_since=self._gone[0] if self._gone else None,
            in_flight=in_flight,
            hints=tuple(self._steps.hints),
            first_tests=dict(self._runs.first_tests),
            presence=self._presence.visit,
            coverage=self._coverage.state,
            unsure=tuple(self._runs.unsure),
        )

    @property
    def unsaved(self) -> bool:
        """Whether `snapshot()` would differ in something that a restart must know; the owner clears it."""
        return self._notes.unsaved

    @unsaved.setter
    def unsaved(self, value: bool) -> None:
        self._notes.unsaved = value

    @property
    def learnpack_since(self) -> int | None:
        """Since when a LearnPack server of this course lives (ms), None if none is known."""
        return min((server.started_at for server in self._tree.servers()), default=None)

    @property
    def learnpack_is_testing(self) -> bool:
        """Whether a test of LearnPack's goes on: its server does nothing else meanwhile, not even finish a write."""
        return any(process.alive and parameter_file(process.argv) is not None for process in self._tree)

    # --- the three entrances ---

    def receive(self, seen: Observation) -> list[Event]:
        self._notes.number += 1
        self._coverage.receive(seen)
        if not isinstance(seen, ClockJumped):
            self._keep_deadlines(seen.at)  # what was due before comes first, whoever was late
        match seen:
            case AgentStarted():
                self._agent_started(seen)
            case AgentStopped():
                if seen.is_end:
                    self._sessions.agent_ended(seen.at)
                self.unsaved = True
            case CourseRead():
                self._course_read(seen)
            case CourseGone():
                self._gone = self._gone or (seen.at, seen.reason)
                self._steps.hints.clear()
                self.unsaved = True
            case FileChanged():
                self._file_changed(seen)
            case PreviewWritten():
                self._preview_written(seen)
            case QueueRead():
                self._queue_read(seen)
            case ConfigRead():
                self._config_read(seen)
            case ResetCopyAppeared():
                words = f"LearnPack's UI fetched a file of {seen.slug} for the first time (.learn/resets)"
                if self._tree.servers():
                    self._steps.hint(seen.slug, seen.at, HINT_MS, words)
            case ReportRead():
                self._runs.reports[seen.slug] = seen
            case ProcessExecuted():
                self._process_executed(seen)
            case ProcessExited():
                self._process_exited(seen)
            case ProcessesListed():
                self._processes_listed(seen)
            case TestsCompared():
                self._runs.tests_compared(seen)
            case RunRecorded():
                self._runs.recorded(seen)
            case InteractionRecorded():
                self._runs.talked(seen)
            case SensorChanged():
                self.unsaved = True  # of interest for the coverage, and for nothing that is concluded
            case EventsLost():
                self._notes.gap(seen.since, seen.at, f"{seen.sensor}: {seen.reason}", "the sensor said so")
            case ClockJumped():
                self._clock_jumped(seen)
            case _:
                assert_never(seen)
        self._last_seen = max(seen.at, self._last_seen or 0)
        return self._take()

    def next_deadline(self) -> int | None:
        """The time (ms) at which `handle_deadline` may conclude something, None if only an observation can."""
        parts = (self._tree, self._builds, self._runs, self._sessions)
        times = [due for part in parts if (due := part.next_deadline()) is not None]
        return min((*times, *self._steps.deadlines()), default=None)

    def handle_deadline(self, now: int) -> list[Event]:
        self._keep_deadlines(now)
        return self._take()

    def _keep_deadlines(self, now: int) -> None:
        self._steps.handle_deadline(now)
        for run in self._tree.handle_deadline(now):
            self._runs.finished(run, now)
        self._built(self._builds.handle_deadline(now))
        self._runs.handle_deadline(now)
        self._sessions.handle_deadline(now)

    def _take(self) -> list[Event]:
        events = self._notes.take()
        for event in events:
            self._coverage.concluded(event)
        return events

    # --- the agent, the course, the clock ---

    def _agent_started(self, seen: AgentStarted) -> None:
        self._started_at = seen.at
        self._builds.since = seen.at
        if self._last_seen is not None:
            since = min(self._last_seen, seen.at)
            self._notes.gap(since, seen.at, seen.away, "the agent started")
            if seen.at < self._last_seen:
                # The clock was set back meanwhile: nothing that is remembered is in the future.
                for part in (self._presence, self._sessions, self._steps, self._runs):
                    part.shift(seen.at - self._last_seen)

    def _course_read(self, seen: CourseRead) -> None:
        if self._course is not None:
            self._runs.course_changed(self._course, seen.course)
        self._course = seen.course
        restored, self._restored_processes = self._restored_processes, ()
        for process in restored:
            self._tree.executed(seen.course, process, self._notes.number)
        if self._gone is not None:
            since, reason = self._gone
            self._gone = None
            self._notes.gap(since, seen.at, reason, "the course can be read again")

    def _clock_jumped(self, seen: ClockJumped) -> None:
        by = seen.by_ms
        for part in (self._tree, self._builds, self._presence, self._sessions, self._steps, self._runs):
            part.shift(by)
        self._quiet_until += by
        self._started_at += by
        if self._learnpack_ended_at is not None:
            self._learnpack_ended_at += by
        if self._gone is not None:
            self._gone = (self._gone[0] + by, self._gone[1])
        if self._last_seen is not None:
            self._last_seen += by
        reason = f"the clock was set {'forward' if by > 0 else 'back'} by {abs(by)} ms"
        self._notes.gap(min(seen.at, seen.at - by), seen.at, reason, "the clock")

    # --- LearnPack's files ---

    def _queue_read(self, seen: QueueRead) -> None:
        is_baseline = self._queue is None and seen.at < self._started_at
        found = news(self._queue, seen.entries)
        new = found.entries
        if is_baseline:
            # What was in the queue before the agent began is the past, but for the step that is open now.
            opened = [entry for entry in new if entry.name == "start_exercise"]
            new = tuple(opened[-1:]) if self._tree.servers() else ()
        elif found.left_out:
            reason = f"LearnPack's queue got {found.left_out + len(new)} entries at once, too many to be its own"
            self._notes.gap(seen.at, seen.at, reason, f"{found.left_out} of them were left out")
        self._queue = found.position
        self.unsaved = True
        at = self._written_at(seen.at)
        if any(entry.name == "start_exercise" for entry in new) and not any(entry.is_preview for entry in new):
            self._built(self._builds.step_opened())
        for entry in new:
            if not entry.is_preview:
                self._queue_entry(entry, at, is_baseline)
            elif seen.at >= self._started_at:  # when a build from before the agent began was, only LearnPack knows
                self._window_opened(seen.preview or Preview(), at)

    def _written_at(self, at: int) -> int:
        """What LearnPack wrote last may be read when it is gone."""
        ended_at = self._learnpack_ended_at
        if ended_at is None or self._tree.servers() or at - ended_at > LATE_MS:
            return at
        return min(at, ended_at)

    def _queue_entry(self, entry: QueueEntry, at: int, is_baseline: bool) -> None:
        step = self._steps.named(entry.slug)
        match entry.name:
            case "start_exercise" if step is not None:
                words = f"LearnPack noted that {step.slug} was opened (vscode_queue.json)"
                if is_baseline:
                    words = f"{step.slug} was open in LearnPack when the agent first looked (vscode_queue.json)"
                self._steps.open_by_queue(step, at, (self._notes.evidence(at, words),))
            case "reset_exercise" if step is not None:
                self._steps.reset(step, at)
            case "initializing" if not self._tree.servers():
                self._sessions.active(at, "LearnPack began anew (vscode_queue.json)")
            case "connection_ended" if not self._tree.servers():
                # The server's exit tells the same, 10 ms later, where its process can be seen.
                self._sessions.end(at, "LearnPack noted that it ended (vscode_queue.json)")
            case "open_files" | "open_window":  # the UI's own open_window: it shows again what is there
                words = f"LearnPack showed what is open in it (vscode_queue.json got {entry.name})"
                self._sessions.active(at, words, self._steps.visits.current())

    def _config_read(self, seen: ConfigRead) -> None:
        is_baseline = not self._config_known and seen.at < self._started_at
        changed = not is_baseline and seen.current != self._runs.learnpack_step
        self._runs.learnpack_step, self._config_known = seen.current, True
        if changed and seen.current is not None:
            words = f"LearnPack noted that {seen.current} is the current step (config.json)"
            self._steps.hint(seen.current, seen.at, HINT_MS, words)

    def _preview_written(self, seen: PreviewWritten) -> None:
        if self._tree.servers():
            evidence = self._notes.evidence(seen.at, f"LearnPack wrote {seen.name} for its preview window")
            step = self._steps.named(seen.built.slug)
            self._built(self._builds.written(step, seen.name, seen.at, seen.built, evidence))

    def _window_opened(self, built: Preview, at: int) -> None:
        if built.slug is None:
            built = replace(built, slug=self._steps.visits.current())
        words = "LearnPack built the page and opened its preview window (vscode_queue.json got open_window)"
        if built.failed:
            words = "LearnPack opened the preview window on a bundle that throws: a module is missing or can't be built"
        self._built(self._builds.window_opened(at, built, self._notes.evidence(at, words)))

    def _built(self, builds: list[Build]) -> None:
        for build in builds:
            self._steps.forget_hints(build.slug)  # prettier saved the step's files, and no student
            self._runs.built(build)

    # --- the student's files ---

    def _file_changed(self, seen: FileChanged) -> None:
        step = self._course.step_of(seen.path) if self._course else None
        name = seen.path.rpartition("/")[2]
        if step is None or seen.change is Change.DELETED or not is_source_file(name):
            return
        if seen.at < self._quiet_until:
            self._quiet_until = seen.at + EDIT_MS  # a checkout that goes on
            return
        if self._tree.someone_rewrites_files(seen.at, within_ms=500):
            return
        if self._steps.forget_edits_elsewhere(step.slug):
            self._quiet_until = seen.at + EDIT_MS
        elif step.slug == self._steps.visits.at(seen.at):
            self._sessions.active(seen.at, f"{seen.path} saved", step.slug)
        else:
            self._steps.hint(step.slug, seen.at, EDIT_MS, f"{seen.path} was {seen.change.value}", is_edit=True)

    # --- processes ---

    def _process_executed(self, seen: ProcessExecuted) -> None:
        if self._course is None:
            return
        process = self._tree.executed(self._course, seen, self._notes.number)
        if process.is_server and process.alive:
            self._sessions.server_up(process)
        self.unsaved = True

    def _process_exited(self, seen: ProcessExited) -> None:
        process, runs = self._tree.exited(seen, self._notes.number)
        for run in runs:
            self._runs.finished(run, seen.at)
        if process is not None and process.is_server:
            self._server_down(process, seen.at)
        self.unsaved = self.unsaved or process is not None

    def _processes_listed(self, seen: ProcessesListed) -> None:
        gone, runs = self._tree.listed(seen.alive, seen.at, self._notes.number)
        for run in runs:
            self._runs.finished(run, seen.at)
        for process in gone:
            if process.is_server:
                self._server_down(process, seen.at)

    def _server_down(self, server: Process, at: int) -> None:
        self._learnpack_ended_at = at
        self._builds.server_ended(at)
        self._sessions.server_down(server, at)
