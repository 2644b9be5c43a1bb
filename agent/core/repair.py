"""A damaged or old `telemetry.json` → one that LearnPack, the receiver and the agent read as it was meant.

Two steps, and each change is a line: `one_form` reads every value that is there, `concluded` adds what is missing.
Between the two the agent's journal can be put in (`agent.store.repairing`).

Promised: whatever the document holds, the result is one that the receiver's metrics neither crash on nor misread;
nothing that LearnPack wrote is lost, but for what is no value of its kind (whoever calls keeps the original) and
personal data (`fullname`), which the agent's own document never has either; a document that needs nothing comes back
equal, without a line; so does the result.

What is concluded, and from what:

- Times that are missing come from the document's other times.  Sessions that are lost (they stand behind the steps,
  so a cut takes them first) are the times of the recorded work, half an hour of silence between two.
- A step was opened by its first run or its completion at the latest.
- A step with tests is completed by the first test with exit code 0 that LearnPack ran, or that the agent saw and knows
  to be of the whole test file (`"whole": true`).  null, and "All tests passed" in a text, prove nothing.
- A step of the course without tests is completed by the next opening of another step.
- A completion that is there stays, whatever is thought of it.  A `user_id` is never made.
- The last session stays open.  LearnPack ends it itself at its next start and begins the next one only then: after a
  session with an end it never adds one again (measured with CLI 2.1.34).

Known to be weak: the opening of a step is its first one, so a reading step that was left for one that had been opened
before is not completed here; of runs without a time nobody knows when they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .commands import learnpack_tests_a_part
from .course import Course, Step
from .document import StepFacts, step_head
from .learnpack_forms import LISTS
from .mending import Changes, shown
from .one_form import Keys, in_form, place_of
from .sessions import SILENCE_MS

#: The lists that every step has; the others are only there where v5 wrote them.
_REQUIRED_LISTS = ("compilations", "tests", "ai_interactions")


@dataclass(frozen=True, slots=True)
class Repaired:
    """The document and what was changed, a line each; `notes` is what is missing and can't be concluded."""

    document: Keys
    changes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def repair(document: Mapping[str, Any], course: Course, *, telemetry_id: str, at: int) -> Repaired:
    """Both steps.  The document must be this course's, and plain JSON.  See `concluded` for the arguments."""
    read, changes = in_form(document, course)
    found = concluded(read, course, telemetry_id=telemetry_id, at=at)
    return Repaired(found.document, (*changes, *found.changes), found.notes)


def concluded(document: Mapping[str, Any], course: Course, *, telemetry_id: str, at: int) -> Repaired:
    """A document as `in_form` returns it, with everything that it needs.

    `telemetry_id` is for a document without one; `at` (ms), when it was written last, for one without any time.
    """
    changes = Changes()
    mended = dict(document)
    for key, own in (("telemetry_id", telemetry_id), ("slug", course.slug)):
        if key not in mended:
            changes.add("", f"{key}: missing → {shown(own)}")
            mended[key] = own
    mended["steps"] = steps = _concluded_steps(mended.get("steps"), course, changes)
    acts = sorted(_acts(steps))
    _conclude_times(mended, acts, at, changes)
    mended["workout_session"] = _concluded_sessions(mended, acts, changes)
    notes = () if mended.get("user_id") else ("user_id is missing: LearnPack writes it when the student logs in",)
    return Repaired(mended, changes.lines(), notes)


def _concluded_steps(raw: Sequence[Mapping[str, Any]] | None, course: Course, changes: Changes) -> list[Keys]:
    if raw is None:
        changes.add("", f"steps: missing → the {len(course.steps)} of the course")
    steps = _in_order([dict(step) for step in raw or ()], course, changes, tell=raw is not None)
    for index, step in enumerate(steps):
        of_course = course.steps[index] if index < len(course.steps) else None
        place = place_of(index, step)
        _conclude_frame(step, of_course, index, place, changes)
        _conclude_opening(step, place, changes)
        _conclude_by_tests(step, of_course, course, place, changes)
    _conclude_by_leaving(steps, course, changes)
    for index, step in enumerate(steps):
        if "completed_at" in step and step.get("is_completed", True) is not True:
            changes.add(place_of(index, step), f"is_completed: {shown(step['is_completed'])} → True")
            step["is_completed"] = True
    return steps


def _in_order(steps: list[Keys], course: Course, changes: Changes, *, tell: bool) -> list[Keys]:
    """The course's steps first, each at its position, because LearnPack finds them so; then the others."""
    waiting: dict[str, list[Keys]] = {}
    for step in reversed(steps):
        waiting.setdefault(step["slug"], []).append(step)
    ordered = []
    added = []
    placed = set()
    for index, of_course in enumerate(course.steps):
        if waiting.get(of_course.slug):
            step = waiting[of_course.slug].pop()
            placed.add(id(step))
        else:
            lists: Keys = {name: [] for name in _REQUIRED_LISTS}
            step = {**step_head(of_course, StepFacts(of_course.slug)), **lists}
            added.append((index, step))
        ordered.append(step)
    new = {id(step) for _, step in added}
    ordered += [step for step in steps if id(step) not in placed]
    if [id(step) for step in ordered if id(step) not in new] != [id(step) for step in steps]:
        changes.add("", "steps: put into the order of the course")
    if tell:
        for index, step in added:
            changes.add(place_of(index, step), "missing → added, not opened")
    return ordered


def _conclude_frame(step: Keys, of_course: Step | None, index: int, place: str, changes: Changes) -> None:
    """What the receiver and LearnPack need to know of a step; a step that the course does not have keeps its own."""
    for name in _REQUIRED_LISTS:
        if name not in step:
            changes.add(place, f"{name}: missing → []")
            step[name] = []
    position = step.get("position")
    if type(position) is not int or (of_course is not None and position != index):
        changes.add(place, f"position: {_was(step, 'position')} → {index}")
        step["position"] = index
    if not isinstance(step.get("files"), list):
        files = step_head(of_course, StepFacts(step["slug"]))["files"]
        changes.add(place, f"files: {_was(step, 'files')} → {len(files)} of the course")
        step["files"] = files
    if type(step.get("is_testeable")) is not bool:
        testable = of_course.is_testable if of_course is not None else bool(step["tests"])
        changes.add(place, f"is_testeable: {_was(step, 'is_testeable')} → {testable}")
        step["is_testeable"] = testable


def _was(keys: Mapping[str, Any], key: str) -> str:
    return shown(keys[key]) if key in keys else "missing"


def _conclude_opening(step: Keys, place: str, changes: Changes) -> None:
    """Whoever ran something in a step or completed it had opened it: opened is the earliest of all that is known."""
    known = [
        (run["started_at"], "its first run") for run in (*step["compilations"], *step["tests"]) if "started_at" in run
    ]
    if "completed_at" in step:
        known.append((step["completed_at"], "its completion"))
    if not known:
        return
    at, why = min(known)
    opened = step.get("opened_at")
    if opened is None or opened > at:
        changes.add(place, f"opened_at: {_was(step, 'opened_at')} → {at} ({why})")
        step["opened_at"] = at


def _conclude_by_tests(step: Keys, of_course: Step | None, course: Course, place: str, changes: Changes) -> None:
    if "completed_at" in step or not (step["is_testeable"] or (of_course is not None and of_course.is_testable)):
        return
    whole = of_course is None or not learnpack_tests_a_part(course, of_course)
    passed = [
        (run["ended_at"], index) for index, run in enumerate(step["tests"]) if _proves(run, learnpack_tests_whole=whole)
    ]
    if passed:
        at, index = min(passed)
        changes.add(place, f"completed_at: missing → {at} (tests[{index}] passed)")
        step["completed_at"] = at


def _proves(run: Mapping[str, Any], *, learnpack_tests_whole: bool) -> bool:
    """Whether a test proves a completion.  Of its own tests the agent says whether they were of the whole step."""
    if type(run.get("exit_code")) is not int or run["exit_code"] != 0 or "ended_at" not in run:
        return False
    return run.get("whole") is True if "event_id" in run else learnpack_tests_whole


def _conclude_by_leaving(steps: Sequence[Keys], course: Course, changes: Changes) -> None:
    """A step without tests is done when another one is opened; `opened_at` of both proves it."""
    opened = sorted((step for step in steps if "opened_at" in step), key=lambda step: int(step["opened_at"]))
    following: dict[int, Keys] = {}
    later: Keys | None = None
    for step, behind in reversed(list(pairwise(opened))):
        later = behind if behind["opened_at"] > step["opened_at"] else later
        if later is not None:
            following[id(step)] = later
    for index, (step, of_course) in enumerate(zip(steps, course.steps, strict=False)):
        other = following.get(id(step))
        if other is None or of_course.is_testable or step["is_testeable"] or "completed_at" in step:
            continue
        at = other["opened_at"]
        words = f"completed_at: missing → {at} (then {shown(other['slug'])} was opened)"
        changes.add(place_of(index, step), words)
        step["completed_at"] = at


def _acts(steps: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Every moment at which the student did something, as far as the steps know."""
    for step in steps:
        yield from (step[key] for key in ("opened_at", "completed_at") if key in step)
        for name in LISTS:
            for element in step.get(name, ()):
                yield from (element[key] for key in ("started_at", "ended_at") if key in element)


def _conclude_times(mended: Keys, acts: Sequence[int], at: int, changes: Changes) -> None:
    """The document's own times.  `acts` are in order."""
    sessions = [session["started_at"] for session in mended.get("workout_session", ())]
    last = mended.get("last_interaction_at")
    if "tutorial_started_at" not in mended:
        mended["tutorial_started_at"] = min((*acts[:1], *sessions), default=last or at)
        changes.add("", f"tutorial_started_at: missing → {mended['tutorial_started_at']}")
    latest = max((mended["tutorial_started_at"], *acts[-1:]))
    if last is None or last < latest:
        words = "missing" if last is None else str(last)
        why = " (the last that is recorded)" if acts else ""
        changes.add("", f"last_interaction_at: {words} → {latest}{why}")
        mended["last_interaction_at"] = latest


def _concluded_sessions(mended: Mapping[str, Any], acts: Sequence[int], changes: Changes) -> list[Keys]:
    given = mended.get("workout_session")
    if not given and (acts or given is None):
        sessions = _sessions_of(acts or [mended["tutorial_started_at"]])
        words = f"{'missing' if given is None else '[]'} → {len(sessions)}, from the times of what is recorded"
        changes.add("", f"workout_session: {words}")
        return sessions
    sessions = [dict(one) for one in given or ()]
    ordered = sorted(sessions, key=lambda session: int(session["started_at"]))
    if ordered != sessions:
        changes.add("", "workout_session: put into the order of their starts")
    _end_sessions(ordered, sorted((*acts, mended["last_interaction_at"])), changes)
    return ordered


def _end_sessions(sessions: Sequence[Keys], acts: Sequence[int], changes: Changes) -> None:
    """Every session but the last ends at the latest with its last act.  `acts` and sessions are in order."""
    place = 0
    for index, (session, following) in enumerate(pairwise(sessions)):
        end = session["started_at"]
        while place < len(acts) and acts[place] < following["started_at"]:
            end = max(end, acts[place])
            place += 1
        if "ended_at" not in session:
            changes.add(f"workout_session[{index}]", f"ended_at: missing → {end} (the last that is recorded in it)")
            session["ended_at"] = end


def _sessions_of(acts: Sequence[int]) -> list[Keys]:
    sessions: list[Keys] = []
    for at in acts:
        if not sessions or at - sessions[-1]["ended_at"] > SILENCE_MS:
            sessions.append({"started_at": at})
        sessions[-1]["ended_at"] = at
    del sessions[-1]["ended_at"]
    return sessions
