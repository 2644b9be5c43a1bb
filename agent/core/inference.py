"""Observations in, events out: what the student did, concluded from what was seen.

Rule 1 of the package holds: time is an argument.  `receive` takes the next observation, `next_deadline` says
when the inference wants to be asked again without one, `handle_deadline` is that question.  Each returns the
events that it concluded, in order.  `snapshot` is all that a restart needs; `Inference.resumed` begins with it.

What is concluded, and from what (docs of LearnPack 2.1.34's behaviour: the comments at each rule):

- sessions: a LearnPack server lives, or (without one) work until half an hour of silence;
- open_step: the queue, else config.json, else a first copy in resets/, else a save or a run in the step;
- compile, test: runs, as `agent.core.processes` finds them;
- complete_step: the step's whole test file passed; a step without tests when another one is opened;
- gap: anything that says "here something may have been missed".

Processes live in `agent.core.processes`, command lines in `agent.core.commands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from .builds import Build, Builds
from .course import Course, Step, is_source_file
from .coverage import Coverage, CoverageState
from .events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Event,
    Evidence,
    Gap,
    OpenStep,
    Origin,
    Output,
    ResetStep,
    Run,
    SessionEnd,
    SessionStart,
    StepName,
    Test,
)
from .learnpack_forms import Span, pairs
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
from .processes import FinishedRun, Key, Process, ProcessTree, is_silent
from .queue import QueuePosition, news
from .results import passed, report_of, run_of
from .runners import Kind
from .visits import Hint, OpenVisit, Presence, Visits

#: config.json and resets/ are only hints: LearnPack's queue follows within 5 ms (35 at the first request).
HINT_MS = 500
#: A save in another step opens it unless more steps change in this time: a checkout or a formatter, not a student.
EDIT_MS = 1_500
#: So many of LearnPack's own records are remembered, in case the agent concludes the same run later.
_RECORDED = 32
#: So many steps that are no more.
_FORMER = 64
#: compile-run starts the program's box right after the compiler's has ended.
NEXT_BOX_MS = 1_000


@dataclass(frozen=True, slots=True)
class Settings:
    """`session_silence_ms`: without a LearnPack server a session ends after so long without work.  `idle_ms`: a longer
    time without a save, a run or an opening is no active time of a step."""

    session_silence_ms: int = 30 * 60_000
    idle_ms: int = 5 * 60_000


@dataclass(frozen=True, slots=True)
class Session:
    """An open session; `server` is the LearnPack server that keeps it open, None for work without one."""

    started_at: int
    last_activity: int
    server: Key | None = None


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


class Inference:
    """The machine.  Not thread-safe: one owner feeds it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._course: Course | None = None
        self._tree = ProcessTree()
        self._session: Session | None = None
        self._session_ended_at: int | None = None
        self._visits = Visits()
        self._presence = Presence(self._settings.idle_ms)
        self._coverage = Coverage()
        self._opened: set[str] = set()
        self._completed: set[str] = set()
        self._queue: QueuePosition | None = None
        self._config_current: str | None = None
        self._config_known = False
        self._reports: dict[str, ReportRead] = {}
        self._hints: list[Hint] = []
        self._former: dict[str, Step] = {}  # steps that are no more, by their path
        self._builds = Builds()
        self._recorded: list[RunRecorded] = []
        self._tests_differ: dict[str, bool] = {}
        self._first_tests: dict[str, str] = {}  # path -> digest of the first content that was seen
        self._compiled: FinishedRun | None = None  # LearnPack's compiler did its work; the program follows
        self._quiet_until = 0  # many steps changed at once until then: no student
        self._gone: tuple[int, str] | None = None
        self._started_at = 0
        self._last_seen: int | None = None
        self._restored_processes: tuple[ProcessExecuted, ...] = ()
        self._number = 0
        self._out: list[Event] = []
        #: Set when `snapshot()` would differ in something that a restart must know; the owner clears it.
        self.unsaved = False

    @classmethod
    def resumed(cls, snapshot: Snapshot, settings: Settings | None = None) -> Inference:
        """The inference as it was when `snapshot` was taken; processes come back with the first `CourseRead`."""
        self = cls(settings)
        self._last_seen, self._session = snapshot.last_seen, snapshot.session
        self._session_ended_at = snapshot.session_ended_at
        self._hints = list(snapshot.hints)
        self._visits.entries = list(snapshot.visits)
        self._opened, self._completed = set(snapshot.opened), set(snapshot.completed)
        self._queue = snapshot.queue
        self._config_current = snapshot.config_current
        self._config_known = snapshot.queue is not None
        if snapshot.gone_since is not None:
            self._gone = (snapshot.gone_since, "the course was gone")
        self._restored_processes = snapshot.in_flight
        self._first_tests = dict(snapshot.first_tests)
        self._presence = Presence(self._settings.idle_ms, snapshot.presence, snapshot.session_ended_at)
        self._coverage = Coverage(snapshot.coverage)
        return self

    def snapshot(self) -> Snapshot:
        in_flight = tuple(self._tree.in_flight())
        oldest = min((one.started_at for one in in_flight), default=None)
        return Snapshot(
            last_seen=self._last_seen,
            session=self._session,
            session_ended_at=self._session_ended_at,
            visits=tuple(self._visits.since(oldest) if oldest is not None else self._visits.entries[-1:]),
            opened=frozenset(self._opened),
            completed=frozenset(self._completed),
            queue=self._queue,
            config_current=self._config_current,
            gone_since=self._gone[0] if self._gone else None,
            in_flight=in_flight,
            hints=tuple(self._hints),
            first_tests=dict(self._first_tests),
            presence=self._presence.visit,
            coverage=self._coverage.state,
        )

    @property
    def learnpack_since(self) -> int | None:
        """Since when a LearnPack server of this course lives (ms), None if none is known."""
        return min((server.started_at for server in self._tree.servers()), default=None)

    # --- the three entrances ---

    def receive(self, seen: Observation) -> list[Event]:
        self._number += 1
        self._coverage.receive(seen)
        if not isinstance(seen, ClockJumped):
            self._keep_deadlines(seen.at)  # what was due before comes first, whoever was late
        match seen:
            case AgentStarted():
                self._agent_started(seen)
            case AgentStopped():
                self.unsaved = True
            case CourseRead():
                self._course_read(seen)
            case CourseGone():
                self._gone = self._gone or (seen.at, seen.reason)
                self._hints.clear()
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
                    self._hint(seen.slug, seen.at, HINT_MS, words)
            case ReportRead():
                self._reports[seen.slug] = seen
            case ProcessExecuted():
                self._process_executed(seen)
            case ProcessExited():
                self._process_exited(seen)
            case ProcessesListed():
                self._processes_listed(seen)
            case TestsCompared():
                self._tests_compared(seen)
            case RunRecorded():
                self._run_recorded(seen)
            case InteractionRecorded():
                self._interaction_recorded(seen)
            case SensorChanged():
                pass  # of interest for `status`, and for nothing that is concluded
            case EventsLost():
                self._gap(seen.since, seen.at, f"{seen.sensor}: {seen.reason}", "the sensor said so")
            case ClockJumped():
                self._clock_jumped(seen)
            case _:
                assert_never(seen)
        self._last_seen = max(seen.at, self._last_seen or 0)
        return self._take()

    def next_deadline(self) -> int | None:
        """The time (ms) at which `handle_deadline` may conclude something, None if only an observation can."""
        times = [hint.deadline for hint in self._hints if self._course is not None]
        times.extend(due for due in (self._tree.next_deadline(), self._builds.next_deadline()) if due is not None)
        if self._session is not None and self._session.server is None:
            times.append(self._session.last_activity + self._settings.session_silence_ms)
        return min(times, default=None)

    def handle_deadline(self, now: int) -> list[Event]:
        self._keep_deadlines(now)
        return self._take()

    def _keep_deadlines(self, now: int) -> None:
        due = [hint for hint in self._hints if hint.deadline <= now and self._course is not None]
        self._hints = [hint for hint in self._hints if hint not in due]
        for hint in due:
            self._believe(hint)
        for run in self._tree.handle_deadline(now):
            self._finished(run, now)
        if (build := self._builds.handle_deadline(now)) is not None:
            self._built(build)
        session = self._session
        if (
            session is not None
            and session.server is None
            and now >= session.last_activity + self._settings.session_silence_ms
        ):
            minutes = self._settings.session_silence_ms // 60_000
            self._end_session(session.last_activity, f"no work for {minutes} minutes, and no LearnPack server")

    def _take(self) -> list[Event]:
        events, self._out = self._out, []
        for event in events:
            self._coverage.concluded(event)
            self.unsaved = True
        return events

    # --- the agent, the course, the clock ---

    def _agent_started(self, seen: AgentStarted) -> None:
        self._started_at = seen.at
        if self._last_seen is None:
            return
        self._gap(min(self._last_seen, seen.at), seen.at, "the agent was not running", "the agent started")
        if self._last_seen > seen.at and self._session is not None:
            # The clock was set back meanwhile: what was last done is not in the future.
            self._session = replace(self._session, last_activity=min(self._session.last_activity, seen.at))

    def _course_read(self, seen: CourseRead) -> None:
        if self._course is not None:
            # A step may be renamed or deleted while its program runs.
            gone = {step.path: step for step in self._course.steps if seen.course.step_named(step.slug) is None}
            self._former = dict([*self._former.items(), *gone.items()][-_FORMER:])
        self._course = seen.course
        restored, self._restored_processes = self._restored_processes, ()
        for process in restored:
            self._tree.executed(seen.course, process, self._number)
        if self._gone is not None:
            since, reason = self._gone
            self._gone = None
            self._gap(since, seen.at, reason, "the course can be read again")

    def _clock_jumped(self, seen: ClockJumped) -> None:
        by = seen.by_ms
        self._tree.shift(by)
        self._builds.shift(by)
        self._presence.shift(by)
        self._hints = [replace(hint, at=hint.at + by, deadline=hint.deadline + by) for hint in self._hints]
        self._visits.entries = [(at + by, slug) for at, slug in self._visits.entries]
        self._reports = {slug: replace(report, at=report.at + by) for slug, report in self._reports.items()}
        self._quiet_until += by
        self._started_at += by
        if self._gone is not None:
            self._gone = (self._gone[0] + by, self._gone[1])
        if self._session_ended_at is not None:
            self._session_ended_at += by
        if self._session is not None:
            self._session = replace(self._session, last_activity=self._session.last_activity + by)
        if self._last_seen is not None:
            self._last_seen += by
        direction = "forward" if by > 0 else "back"
        self._gap(min(seen.at, seen.at - by), seen.at, f"the clock was set {direction} by {abs(by)} ms", "the clock")

    def _gap(self, since: int, at: int, reason: str, words: str) -> None:
        self._out.append(Gap(at, min(since, at), reason, (self._evidence(at, words),)))

    # --- sessions ---

    def _active(self, at: int, words: str, step: Step | None = None) -> None:
        """The student did something at this time, in this step: a session is open."""
        if self._session is None:
            # A run that outlived its session (an hour of silence in it) does not begin the next one in the past.
            at = max(at, self._session_ended_at or at)
            self._session = Session(at, at)
            self._out.append(SessionStart(at, (self._evidence(at, f"first work: {words}"),)))
        elif at > self._session.last_activity:
            self._session = replace(self._session, last_activity=at)
        if step is not None:
            self._presence.active(step.slug, at)
        self.unsaved = True

    def _server_up(self, server: Process) -> None:
        at = server.started_at
        if self._session is None:
            self._session = Session(at, at, server.key)
            self._out.append(SessionStart(at, tuple(server.evidence)))
        elif self._session.server is None:
            self._session = replace(self._session, server=server.key)
        self.unsaved = True

    def _server_down(self, server: Process, at: int) -> None:
        if self._session is None or self._session.server != server.key:
            return
        others = self._tree.servers()
        if others and server.exit_seen:
            self._session = replace(self._session, server=others[0].key)
        elif server.exit_seen:
            self._end_session(at, server.evidence[-1].words)
        else:
            # Its end was not seen: the last work is what is known.  (Another server by now is another session.)
            self._end_session(self._session.last_activity, server.evidence[-1].words)
            if others:
                self._server_up(others[0])

    def _end_session(self, at: int, words: str) -> None:
        if self._session is not None:
            self._session_ended_at = max(at, self._session.started_at)
            left = self._presence.session_ended(self._session_ended_at)
            self._out.append(SessionEnd(self._session_ended_at, (self._evidence(at, words),), left))
            self._session = None

    # --- steps ---

    def _open(self, step: Step, at: int, evidence: tuple[Evidence, ...]) -> None:
        self._active(at, f"{step.slug} opened")
        self._hints = [hint for hint in self._hints if hint.slug != step.slug]
        left = self._visits.current()
        if not self._visits.add(at, step.slug):
            left = None
        self._opened.add(step.slug)
        if left is not None and left != step.slug and self._course is not None:
            # A step without tests is done when the student goes on to another one.
            previous = self._course.step_named(left)
            if previous is not None and not previous.is_testable and left in self._opened:
                self._complete(previous, at, (self._evidence(at, f"it has no tests, and {step.slug} was opened"),))
        self._out.append(OpenStep(at, _name(step), evidence, self._presence.opened(step.slug, at)))

    def _complete(
        self, step: Step, at: int, evidence: tuple[Evidence, ...], tests_modified: bool | None = None
    ) -> None:
        if step.slug not in self._completed:
            self._completed.add(step.slug)
            self._out.append(CompleteStep(at, _name(step), evidence, tests_modified))

    def _hint(self, slug: str, at: int, wait_ms: int, words: str, *, is_edit: bool = False) -> None:
        """Something says that a step was opened; wait a moment for something better."""
        if slug == self._visits.at(at) or any(hint.slug == slug for hint in self._hints):
            return
        if any(opened > at - 2 * HINT_MS and visited == slug for opened, visited in self._visits.entries):
            return
        self._hints.append(Hint(slug, at, at + wait_ms, self._evidence(at, words), is_edit))

    def _believe(self, hint: Hint) -> None:
        step = self._course.step_named(hint.slug) if self._course else None
        if step is not None and step.slug != self._visits.at(hint.at):
            self._open(step, hint.at, (hint.evidence,))

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
            self._gap(seen.at, seen.at, reason, f"{found.left_out} of them were left out")
        self._queue = found.position
        self.unsaved = True
        for entry in new:
            if not entry.is_preview:
                self._queue_entry(entry, seen.at, is_baseline)
            elif not is_baseline:
                self._window_opened(entry, seen)

    def _queue_entry(self, entry: QueueEntry, at: int, is_baseline: bool) -> None:
        step = self._course.step_named(entry.slug) if self._course and entry.slug is not None else None
        match entry.name:
            case "start_exercise" if step is not None:
                words = (
                    "was open when the agent first looked" if is_baseline else "vscode_queue.json got start_exercise"
                )
                self._open(step, at, (self._evidence(at, f"{words}: {step.slug}"),))
            case "reset_exercise" if step is not None:
                self._active(at, f"{step.slug} reset", step)
                self._hints = [hint for hint in self._hints if hint.slug != step.slug]
                words = f"vscode_queue.json got reset_exercise: {step.slug}"
                self._out.append(ResetStep(at, _name(step), (self._evidence(at, words),)))
            case "initializing" if not self._tree.servers():
                self._active(at, "LearnPack began a new queue")
            case "connection_ended" if not self._tree.servers():
                # The server's exit tells the same, 10 ms later, where its process can be seen.
                self._end_session(at, "vscode_queue.json got connection_ended")
            case "open_files" | "open_window":  # the UI's own open_window: it shows again what is there
                self._active(at, f"vscode_queue.json got {entry.name}")

    # --- builds without a process ---

    def _preview_written(self, seen: PreviewWritten) -> None:
        current = self._course.step_named(self._visits.at(seen.at) or "") if self._course else None
        if current is not None and self._tree.servers():
            words = f"LearnPack wrote {seen.name} for its preview window"
            source = seen.source.text if seen.source is not None else None
            self._builds.written(current, seen.name, seen.at, source, self._evidence(seen.at, words))

    def _window_opened(self, entry: QueueEntry, seen: QueueRead) -> None:
        preview = seen.preview
        slug = (preview and preview.slug) or self._visits.current()
        if slug is None:
            return
        failed = preview is not None and preview.failed is True
        words = "LearnPack built the page and opened its preview window (vscode_queue.json got open_window)"
        if failed:
            words = "LearnPack opened the preview window on a bundle that throws: a module is missing or can't be built"
        source = preview.source.text if preview is not None and preview.source is not None else None
        self._built(self._builds.window_opened(slug, seen.at, failed, source, self._evidence(seen.at, words)))

    def _built(self, build: Build) -> None:
        step = self._course.step_named(build.slug) if self._course else None
        if step is None:
            return
        if step.slug not in self._opened:
            self._open(step, build.started_at, build.evidence[:1])
        if self._was_recorded(step.slug, Compile.name, build.started_at, build.ended_at):
            return
        self._active(build.ended_at, f"a build of {step.slug}", step)
        run = Run(build.started_at, build.ended_at, build.exit_code, None, (), Origin.LEARNPACK, build.source)
        self._out.append(Compile(build.ended_at, _name(step), run, build.evidence))

    def _config_read(self, seen: ConfigRead) -> None:
        is_baseline = not self._config_known and seen.at < self._started_at
        changed = not is_baseline and seen.current != self._config_current
        self._config_current, self._config_known = seen.current, True
        if changed and seen.current is not None:
            self._hint(seen.current, seen.at, HINT_MS, f"currentExercise in config.json became {seen.current}")

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
        if any(hint.is_edit and hint.slug != step.slug for hint in self._hints):
            self._hints = [hint for hint in self._hints if not hint.is_edit]
            self._quiet_until = seen.at + EDIT_MS
        elif step.slug == self._visits.at(seen.at):
            self._active(seen.at, f"{seen.path} saved", step)
        else:
            self._hint(step.slug, seen.at, EDIT_MS, f"{seen.path} was {seen.change.value}", is_edit=True)

    # --- processes and runs ---

    def _process_executed(self, seen: ProcessExecuted) -> None:
        if self._course is None:
            return
        process = self._tree.executed(self._course, seen, self._number)
        if process.is_server and process.alive:
            self._server_up(process)
        self.unsaved = True

    def _process_exited(self, seen: ProcessExited) -> None:
        process, runs = self._tree.exited(seen, self._number)
        for run in runs:
            self._finished(run, seen.at)
        if process is not None and process.is_server:
            self._server_down(process, seen.at)
        self.unsaved = self.unsaved or process is not None

    def _processes_listed(self, seen: ProcessesListed) -> None:
        gone, runs = self._tree.listed(seen.alive, seen.at, self._number)
        for run in runs:
            self._finished(run, seen.at)
        for process in gone:
            if process.is_server:
                self._server_down(process, seen.at)

    def _finished(self, run: FinishedRun, now: int) -> None:
        if self._course is None:
            return
        if is_silent(run):
            self._compiled = run if run.purpose.kind is Kind.BUILD and run.origin is Origin.LEARNPACK else None
            return
        run = self._with_compiler(run)
        at = run.ended_at if run.ended_at is not None else now
        steps = self._steps_of(self._course, run)
        for step, target in steps:
            if not self._was_open(step, run):
                words = f"work in this step: {' '.join(run.argv[:4])[:120]}"
                self._open(step, run.started_at, (self._evidence(run.started_at, words), *run.evidence[:1]))
            self._active(run.started_at, f"a run in {step.slug}", step)
            self._active(at, f"a run in {step.slug}", step)
            event = run.purpose.kind.value
            if run.origin is Origin.LEARNPACK and self._was_recorded(step.slug, event, run.started_at, run.ended_at):
                continue
            report = report_of(run, self._reports.get(step.slug), at)
            concluded = run_of(self._course, step, target, run, report)
            if len(steps) > 1 and concluded.exit_code != 0:
                concluded = replace(concluded, exit_code=None)  # one exit code for several steps says nothing of each
            if run.purpose.kind is Kind.TEST:
                self._tested(step, replace(concluded, tests_modified=self._modified(step)), report, at, run.evidence)
            else:
                self._out.append(Compile(at, _name(step), concluded, run.evidence))

    def _tested(self, step: Step, run: Run, report: ReportRead | None, at: int, evidence: tuple[Evidence, ...]) -> None:
        self._out.append(Test(at, _name(step), run, evidence))
        if (words := passed(run, report)) is not None:
            self._complete(step, at, (self._evidence(at, words), *evidence[-1:]), run.tests_modified)

    def _former_step(self, path: str) -> Step | None:
        return next((step for place, step in self._former.items() if path.startswith(place + "/")), None)

    def _with_compiler(self, run: FinishedRun) -> FinishedRun:
        """LearnPack compiles in one box and runs in the next one (Java): that is one build."""
        compiled, self._compiled = self._compiled, None
        if (
            compiled is None
            or run.origin is not Origin.LEARNPACK
            or run.purpose.kind is not Kind.COMPILE
            or compiled.ended_at is None
            or run.started_at - compiled.ended_at > NEXT_BOX_MS
        ):
            return run
        return replace(run, started_at=compiled.started_at, evidence=(*compiled.evidence[:2], *run.evidence))

    def _was_open(self, step: Step, run: FinishedRun) -> bool:
        """Whether this run opens nothing: its step was current when it began, or was opened while it ran."""
        if step.slug in (self._visits.at(run.started_at), self._visits.next_after(run.started_at)):
            return True
        # LearnPack's own current step is another one by now: a build that an opening overtook, no return.
        return run.origin is Origin.LEARNPACK and step.slug in self._opened and step.slug != self._config_current

    def _steps_of(self, course: Course, run: FinishedRun) -> list[tuple[Step, str]]:
        """Each step that a run is about, with its target; code in the root belongs to the step of that time."""
        then = self._visits.at(run.started_at)
        found: dict[str, tuple[Step, str]] = {}
        for target in run.purpose.targets:
            step = course.step_of(target) or self._former_step(target)
            if step is None and then is not None and course.at_root:
                step = course.step_named(then)
            if step is not None:
                found.setdefault(step.slug, (step, target))
        if run.purpose.broad:
            # `pytest` in the course's root is one action: it is work on the step that the student is in.
            return [found[then]] if then in found else []
        if not run.purpose.alternatives:
            return list(found.values())
        if found:
            return [found.get(then or "", next(iter(found.values())))]
        # compile-run's copy of a file that no step holds (an empty one, or saved again at once): LearnPack only
        # runs the step that is open in it.
        current = course.step_named(then) if then is not None else None
        return [(current, current.entry or current.path)] if current is not None else []

    # --- what LearnPack recorded itself ---

    def _run_recorded(self, seen: RunRecorded) -> None:
        """A run of the web UI that the agent didn't see: it was not running, or its sensor was blind.

        Such a run may be long over: it opens its step if nobody had, and no session.
        """
        step = self._course.step_named(seen.slug) if self._course else None
        if step is None:
            return
        evidence = (self._evidence(seen.ended_at, "LearnPack's own telemetry.json tells of it; it was not seen"),)
        if seen.was_seen:
            if seen.event == Test.name and seen.exit_code == 0 and step.is_testable:
                words = "LearnPack's own telemetry.json says that its test passed: exit code 0"
                self._complete(step, seen.ended_at, (self._evidence(seen.ended_at, words),), self._modified(step))
            return
        self._recorded = [*self._recorded[-_RECORDED:], seen]
        if step.slug not in self._opened:
            self._opened.add(step.slug)
            self._visits.add(seen.started_at, step.slug)
            self._out.append(OpenStep(seen.started_at, _name(step), evidence))
        texts = seen.stdout is not None or seen.stderr is not None
        run = Run(
            started_at=seen.started_at,
            ended_at=seen.ended_at,
            exit_code=seen.exit_code,
            signal=None,
            command=(),
            origin=Origin.LEARNPACK,
            source_code=seen.source_code,
            stdout=seen.stdout,
            stderr=seen.stderr,
            output=Output.PARTIAL if texts else Output.NONE,
            whole=seen.event == Test.name and step.is_testable,  # LearnPack's button runs the whole test file
        )
        if seen.event == Test.name:
            self._tested(step, replace(run, tests_modified=self._modified(step)), None, seen.ended_at, evidence)
        else:
            self._out.append(Compile(seen.ended_at, _name(step), run, evidence))

    def _was_recorded(self, slug: str, event: str, started_at: int, ended_at: int | None) -> bool:
        """Whether LearnPack's record of this run came first, so that it is an event already."""
        theirs = [
            Span(number, one.started_at, one.ended_at)
            for number, one in enumerate(self._recorded)
            if (one.slug, one.event) == (slug, event)
        ]
        same = pairs([Span(0, started_at, ended_at)], theirs)
        if same:
            del self._recorded[same[0]]
        return bool(same)

    def _interaction_recorded(self, seen: InteractionRecorded) -> None:
        step = self._course.step_named(seen.slug) if self._course else None
        if step is None:
            return
        at = seen.interaction.ended_at or seen.interaction.started_at
        if self._session is not None and at >= self._session.started_at:
            self._active(at, f"a question to the AI tutor in {step.slug}", step)
        evidence = (self._evidence(at, "LearnPack's own telemetry.json tells of it, and the student is logged in"),)
        self._out.append(AiInteraction(at, _name(step), seen.interaction, evidence))

    # --- the tests that came with the course ---

    def _tests_compared(self, seen: TestsCompared) -> None:
        for file in seen.files:
            differs = file.differs
            if differs is None:
                differs = self._first_tests.setdefault(file.path, file.digest) != file.digest
            self._tests_differ[file.path] = differs
        self.unsaved = True

    def _modified(self, step: Step) -> bool | None:
        """Whether a test file of the step is another than came with the course; None where one was not compared."""
        known = [self._tests_differ.get(path) for path in step.tests]
        return True if True in known else None if None in known or not known else False

    def _evidence(self, at: int, words: str) -> Evidence:
        return Evidence(self._number, at, words)


def _name(step: Step) -> StepName:
    return StepName(step.slug, step.position)
