"""Runs that are over become events: which step each is of, whether its tests passed, and each of them once.

A run comes from the process table (`processes`), from the preview that LearnPack built (`builds`), or from LearnPack's
own telemetry, where nobody saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .builds import Build
from .commands import learnpack_tests_a_part
from .course import Course, Step
from .events import AiInteraction, Compile, Evidence, Origin, Output, Run, Test
from .learnpack_forms import Span, pairs
from .notes import Notes
from .observations import InteractionRecorded, ReportRead, RunRecorded, TestsCompared
from .processes import FinishedRun, is_silent
from .results import passed, report_of, run_of
from .runners import Kind
from .sessions import Sessions
from .steps import Steps, name_of

#: So many of LearnPack's own records are remembered, in case the agent concludes the same run later.
_RECORDED = 32
#: So many steps that are no more.
_FORMER = 64
#: A build of which only the box was seen waits so long for LearnPack's own telemetry: it is told 3 s after its end.
UNSURE_MS = 6_000
#: How far LearnPack's times of a build are from its box's: 20 ms (measured), more on a loaded machine.
_SAME_BOX_MS = 250
#: compile-run starts the program's box right after the compiler's has ended.
NEXT_BOX_MS = 1_000


class Runs:
    """`course` gives the course as it is now, None before it was read; `learnpack_step` is LearnPack's own current
    step, as its configuration says."""

    def __init__(self, notes: Notes, sessions: Sessions, steps: Steps, course: Callable[[], Course | None]) -> None:
        self._notes = notes
        self._sessions = sessions
        self._steps = steps
        self._course = course
        self.learnpack_step: str | None = None
        self.reports: dict[str, ReportRead] = {}
        #: path -> digest of the first content of a test file that was seen
        self.first_tests: dict[str, str] = {}
        self._tests_differ: dict[str, bool] = {}
        self._former: dict[str, Step] = {}  # steps that are no more, by their path
        self._recorded: list[RunRecorded] = []
        self._compiled: FinishedRun | None = None  # LearnPack's compiler did its work; the program follows
        self.unsure: list[FinishedRun] = []  # builds of which only the box was seen

    # --- from the process table ---

    def finished(self, run: FinishedRun, now: int) -> None:
        """A run is over.  Where only the box of a build was seen, LearnPack may know more of it: wait for that."""
        if run.is_unseen:
            self.unsure.append(run)
            self._notes.unsaved = True
        else:
            self._finished(run, now)

    def next_deadline(self) -> int | None:
        return min((_told_at(run) for run in self.unsure), default=None) if self._course() is not None else None

    def handle_deadline(self, now: int) -> None:
        if self._course() is None:
            return
        due = [run for run in self.unsure if now >= _told_at(run)]
        self.unsure = [run for run in self.unsure if run not in due]
        for run in due:
            self._finished(run, now)

    def _finished(self, run: FinishedRun, now: int) -> None:
        course = self._course()
        if course is None:
            return
        if is_silent(run):
            self._compiled = run if run.purpose.kind is Kind.COMPILER and run.origin is Origin.LEARNPACK else None
            return
        run = self._with_compiler(run)
        at = run.ended_at if run.ended_at is not None else now
        steps = self._steps_of(course, run)
        for step, target in steps:
            if not self._was_open(step, run):
                words = f"the student worked in {step.slug}, which was not open"
                evidence = (self._notes.evidence(run.started_at, words), *run.evidence[:1])
                self._steps.open(step, run.started_at, evidence)
            self._sessions.active(run.started_at, f"a run in {step.slug}", step.slug)
            self._sessions.active(at, f"a run in {step.slug}", step.slug)
            if run.origin is Origin.LEARNPACK and self._was_recorded(
                step, run.purpose.kind.value, run.started_at, run.ended_at
            ):
                continue
            report = report_of(run, self.reports.get(step.slug), at)
            concluded = run_of(course, step, target, run, report)
            if len(steps) > 1 and concluded.exit_code != 0:
                concluded = replace(concluded, exit_code=None)  # one exit code for several steps says nothing of each
            self._conclude(step, run.purpose.kind is Kind.TEST, concluded, report, at, run.evidence)

    def _conclude(
        self, step: Step, is_test: bool, run: Run, report: ReportRead | None, at: int, evidence: tuple[Evidence, ...]
    ) -> None:
        if not is_test:
            self._notes.conclude(Compile(at, name_of(step), run, evidence))
            return
        run = replace(run, tests_modified=self._modified(step))
        self._notes.conclude(Test(at, name_of(step), run, evidence))
        if (words := passed(run, report)) is not None:
            self._steps.complete(step, at, (*evidence, self._notes.evidence(at, words)), run.tests_modified)

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
        visits = self._steps.visits
        if step.slug in (visits.at(run.started_at), visits.next_after(run.started_at)):
            return True
        # LearnPack's own current step is another one by now: a build that an opening overtook, no return.
        was_opened = step.slug in self._steps.opened
        return run.origin is Origin.LEARNPACK and was_opened and step.slug != self.learnpack_step

    def _steps_of(self, course: Course, run: FinishedRun) -> list[tuple[Step, str]]:
        """Each step that a run is about, with its target; code in the root belongs to the step of that time."""
        then = self._steps.visits.at(run.started_at)
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

    def course_changed(self, old: Course, new: Course) -> None:
        """A step may be renamed or deleted while its program runs."""
        gone = {step.path: step for step in old.steps if new.step_named(step.slug) is None}
        self._former = dict([*self._former.items(), *gone.items()][-_FORMER:])

    def _former_step(self, path: str) -> Step | None:
        return next((step for place, step in self._former.items() if path.startswith(place + "/")), None)

    # --- from the preview ---

    def built(self, build: Build) -> None:
        step = self._steps.named(build.slug)
        if step is None:
            return
        if step.slug not in self._steps.opened:
            self._steps.open(step, build.started_at, build.evidence[:1])
        self._sessions.active(build.ended_at, f"a build of {step.slug}", step.slug)
        if self._was_recorded(step, Compile.name, build.started_at, build.ended_at):
            return
        run = Run(build.started_at, build.ended_at, build.exit_code, None, (), Origin.LEARNPACK, build.source)
        self._notes.conclude(Compile(build.ended_at, name_of(step), run, build.evidence))

    # --- from LearnPack's own telemetry ---

    def recorded(self, seen: RunRecorded) -> None:
        """A run of the web UI that the agent didn't see: it was not running, or its sensor was blind.

        Such a run may be long over: it opens its step if nobody had, and no session.
        """
        course = self._course()
        former = (step for step in self._former.values() if step.slug == seen.slug)
        step = self._steps.named(seen.slug) or next(former, None)
        if course is None or step is None:
            return
        at = seen.ended_at
        is_test = seen.event == Test.name
        whole = is_test and step.is_testable and not learnpack_tests_a_part(course, step)
        if seen.was_seen:
            if whole and seen.exit_code == 0:
                words = "LearnPack's own telemetry.json says that its test passed: exit code 0"
                self._steps.complete(step, at, (self._notes.evidence(at, words),), self._modified(step))
            return
        self._recorded = [*self._recorded[1 - _RECORDED :], seen]
        box = self._box_of(seen)
        words = "LearnPack's own telemetry.json tells of it; it was not seen"
        if box is not None:
            words = "LearnPack's own telemetry.json tells which step it was of, and how it ended"
        evidence = (*(box.evidence if box is not None else ()), self._notes.evidence(at, words))
        if step.slug not in self._steps.opened:
            self._steps.open_in_the_past(step, seen.started_at, evidence)
        has_texts = seen.stdout is not None or seen.stderr is not None
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
            output=Output.PARTIAL if has_texts else Output.NONE,
            whole=whole,
        )
        self._conclude(step, is_test, run, None, at, evidence)

    def _box_of(self, seen: RunRecorded) -> FinishedRun | None:
        """The build of which only the box was seen, if this is LearnPack's record of it; it is sure then."""
        for run in self.unsure:
            distances = (run.started_at - seen.started_at, (run.ended_at or 0) - seen.ended_at)
            if seen.event == Compile.name and max(map(abs, distances)) <= _SAME_BOX_MS:
                self.unsure.remove(run)
                return run
        return None

    def _was_recorded(self, step: Step, event: str, started_at: int, ended_at: int | None) -> bool:
        """Whether LearnPack's record of this run came first, so that it is an event already."""
        theirs = [
            Span(number, one.started_at, one.ended_at)
            for number, one in enumerate(self._recorded)
            if (one.slug, one.event) == (step.slug, event)
        ]
        same = pairs([Span(0, started_at, ended_at)], theirs)
        if same:
            del self._recorded[same[0]]
        return bool(same)

    def talked(self, seen: InteractionRecorded) -> None:
        """The student asked the AI tutor."""
        step = self._steps.named(seen.slug)
        if step is None:
            return
        at = seen.interaction.ended_at or seen.interaction.started_at
        session = self._sessions.open
        if session is not None and at >= session.started_at:
            self._sessions.active(at, f"a question to the AI tutor in {step.slug}", step.slug)
        words = "LearnPack's own telemetry.json tells of it, and the student is logged in"
        self._notes.conclude(AiInteraction(at, name_of(step), seen.interaction, (self._notes.evidence(at, words),)))

    # --- the tests that came with the course ---

    def tests_compared(self, seen: TestsCompared) -> None:
        """Without the course's own, the first content that was seen stands for it."""
        for file in seen.files:
            differs = file.differs
            if differs is None:
                differs = self.first_tests.setdefault(file.path, file.digest) != file.digest
            self._tests_differ[file.path] = differs
        self._notes.unsaved = True

    def _modified(self, step: Step) -> bool | None:
        """Whether a test file of the step is another than came with the course; None where one was not compared."""
        known = [self._tests_differ.get(path) for path in step.tests]
        return True if True in known else None if None in known or not known else False

    def shift(self, by_ms: int) -> None:
        """The clock was set."""
        self.reports = {slug: replace(report, at=report.at + by_ms) for slug, report in self.reports.items()}
        self.unsure = [run.shifted(by_ms) for run in self.unsure]
        self._compiled = self._compiled.shifted(by_ms) if self._compiled is not None else None
        self._recorded = [
            replace(one, started_at=one.started_at + by_ms, ended_at=one.ended_at + by_ms) for one in self._recorded
        ]


def _told_at(run: FinishedRun) -> int:
    """Until when a run that is unsure waits."""
    return (run.ended_at or run.started_at) + UNSURE_MS
