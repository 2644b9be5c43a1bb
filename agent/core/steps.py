"""Which step the student is in, which were opened, which are completed: openings, the hints of them, completions.

LearnPack's queue tells an opening for sure.  Its config.json, a first copy in resets/ or a save in another step are
hints: they wait a moment for something better, and are believed when nothing came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from .course import Course, Step
from .events import CompleteStep, Evidence, OpenStep, ResetStep, StepName
from .notes import Notes
from .sessions import Sessions
from .visits import Hint, Presence, Visits

#: config.json and resets/ are only hints: LearnPack's queue follows within 5 ms (35 at the first request).
HINT_MS = 500
#: A save in another step opens it unless more steps change in this time: a checkout or a formatter, not a student.
EDIT_MS = 1_500


class Steps:
    """`course` gives the course as it is now, None before it was read."""

    def __init__(
        self, notes: Notes, sessions: Sessions, presence: Presence, course: Callable[[], Course | None]
    ) -> None:
        self._notes = notes
        self._sessions = sessions
        self._presence = presence
        self._course = course
        self.visits = Visits()
        self.opened: set[str] = set()
        self.completed: set[str] = set()
        self.hints: list[Hint] = []
        self._unconfirmed: str | None = None  # opened by LearnPack's config.json or resets/; its queue is late

    def named(self, slug: str | None) -> Step | None:
        course = self._course()
        return course.step_named(slug) if course is not None and slug is not None else None

    def open(self, step: Step, at: int, evidence: tuple[Evidence, ...]) -> None:
        self._sessions.active(at, f"{step.slug} opened")
        self.forget_hints(step.slug)
        self._unconfirmed = None
        left = self.named(self.visits.current())
        is_newest = self.visits.add(at, step.slug)
        self.opened.add(step.slug)
        is_done = left is not None and not left.is_testable and left.slug in self.opened
        if left is not None and is_newest and is_done and left.slug != step.slug:
            # A step without tests is done when the student goes on to another one.
            words = f"it has no tests, and {step.slug} was opened"
            self.complete(left, at, (self._notes.evidence(at, words),))
        visit = self._presence.opened(step.slug, at)
        self._notes.conclude(OpenStep(at, name_of(step), evidence, visit))

    def open_by_queue(self, step: Step, at: int, evidence: tuple[Evidence, ...]) -> None:
        """LearnPack's queue tells an opening; the one that was believed without it already is that one."""
        if step.slug == self._unconfirmed == self.visits.current():
            self._unconfirmed = None
            self._sessions.active(at, f"{step.slug} opened", step.slug)
        else:
            self.open(step, at, evidence)

    def open_in_the_past(self, step: Step, at: int, evidence: tuple[Evidence, ...]) -> None:
        """A step that nobody saw opened was worked in at a time that is long over: no session, no visit."""
        self.opened.add(step.slug)
        self.visits.add(at, step.slug)
        self._notes.conclude(OpenStep(at, name_of(step), evidence))

    def reset(self, step: Step, at: int) -> None:
        self._sessions.active(at, f"{step.slug} reset", step.slug)
        self.forget_hints(step.slug)
        words = f"LearnPack noted that {step.slug} was set back (vscode_queue.json)"
        self._notes.conclude(ResetStep(at, name_of(step), (self._notes.evidence(at, words),)))

    def complete(self, step: Step, at: int, evidence: tuple[Evidence, ...], tests_modified: bool | None = None) -> None:
        """Completion is never undone, and told once."""
        if step.slug not in self.completed:
            self.completed.add(step.slug)
            self._notes.conclude(CompleteStep(at, name_of(step), evidence, tests_modified))

    # --- hints ---

    def hint(self, slug: str, at: int, wait_ms: int, words: str, *, is_edit: bool = False) -> None:
        """Something says that a step was opened; wait a moment for something better."""
        if slug == self.visits.at(at) or any(hint.slug == slug for hint in self.hints):
            return
        if any(opened > at - 2 * HINT_MS and visited == slug for opened, visited in self.visits.entries):
            return
        self.hints.append(Hint(slug, at, at + wait_ms, self._notes.evidence(at, words), is_edit))

    def forget_hints(self, slug: str) -> None:
        self.hints = [hint for hint in self.hints if hint.slug != slug]

    def forget_edits_elsewhere(self, slug: str) -> bool:
        """Whether another step than this one was edited a moment ago; then no edit is a hint any more."""
        if not any(hint.is_edit and hint.slug != slug for hint in self.hints):
            return False
        self.hints = [hint for hint in self.hints if not hint.is_edit]
        return True

    def deadlines(self) -> Iterable[int]:
        return [hint.deadline for hint in self.hints] if self._course() is not None else ()

    def handle_deadline(self, now: int) -> None:
        if self._course() is None:
            return
        due = [hint for hint in self.hints if hint.deadline <= now]
        self.hints = [hint for hint in self.hints if hint not in due]
        for hint in due:
            step = self.named(hint.slug)
            if step is not None and step.slug != self.visits.at(hint.at):
                self.open(step, hint.at, (hint.evidence,))
                self._unconfirmed = None if hint.is_edit else step.slug

    def shift(self, by_ms: int) -> None:
        """The clock was set."""
        self.hints = [replace(hint, at=hint.at + by_ms, deadline=hint.deadline + by_ms) for hint in self.hints]
        self.visits.entries = [(at + by_ms, slug) for at, slug in self.visits.entries]


def name_of(step: Step) -> StepName:
    return StepName(step.slug, step.position)
