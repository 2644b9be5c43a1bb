"""What the 4Geeks receiver would do with a document: what `learnpack-agent check` says, and what is asked before each
batch.

The receiver answers 200 before it looks at anything, keeps the last document (it merges nothing), and approves
the student's task when all steps are completed.  Its rules are facts of its public code (breathecode/assignments:
utils/indicators.py, actions.py): which keys it needs, what its metrics end in an error on, and how it counts.

`rehearse` says what it would conclude; `reduced` says what it would lose by a document that holds less than the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .learnpack_forms import milliseconds

#: Without one of them its first look ends in an error.
REQUIRED = ("user_id", "tutorial_started_at", "last_interaction_at", "workout_session", "steps")
_TIMES = ("tutorial_started_at", "last_interaction_at")

#: A step that was not completed counts for half an hour at most.
_LONGEST_ATTEMPT_S = 1800
#: From this rate (%) on a task is done and approved.
APPROVED_FROM = 99.999
#: Below this a time in milliseconds would be of 1973: then it is in seconds.
_FIRST_MS = 100_000_000_000
#: The years 1 to 9999, which its calendar has; as a text, a number is read in vain up to the year 2**31, and ends in an
#: error beyond.
_CALENDAR_MS = (-62_135_596_800_000, 253_402_300_800_000)
_CRASHING_TEXT_MS = 6.7e19
#: The column in which it keeps the slug.
_LONGEST_SLUG = 200
_ZONE = re.compile(r"(?<=\d)[+-]\d\d:?\d\d$")


@dataclass(frozen=True, slots=True)
class RehearsedStep:
    """`status` is "completed", "attempted", "skipped" or "unread"; the failures are those before the first success."""

    slug: str
    status: str
    seconds: float = 0.0
    failed_compilations: int = 0
    failed_tests: int = 0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`errors`: it would store the document and never look at it, or not even store it; `doubts`: it would count
    something wrongly, in words.  The numbers are its own: `completion_rate`, `engagement` and `frustration` from 0 to
    100 (engagement is below 0 where the last interaction is before the start)."""

    errors: tuple[str, ...]
    doubts: tuple[str, ...]
    steps: tuple[RehearsedStep, ...] = ()
    completion_rate: float = 0.0
    engagement: float = 0.0
    frustration: float = 0.0

    @property
    def approves(self) -> bool:
        """Whether the student's task would be done and approved."""
        return not self.errors and self.completion_rate >= APPROVED_FROM


def rehearse(document: object) -> Rehearsal:
    """What the receiver would do with this document, which may be anything.

    Stricter than the receiver only where something is of a kind that LearnPack never writes (a text for a list).
    """
    if not isinstance(document, Mapping):
        return Rehearsal(("it is no object",), ())
    errors, doubts = list(_errors_of(document)), list(_doubts_of(document))
    last, began = _moment(document.get("last_interaction_at")), _moment(document.get("tutorial_started_at"))
    raw = document.get("steps")
    raw = raw if isinstance(raw, list) else []
    steps: list[RehearsedStep] = []
    for index, step in enumerate(raw):
        wrong = list(_errors_of_step(index, step))
        errors += wrong
        if isinstance(step, dict):
            doubts += _doubts_of_step(_place(index, step), step)
        if not wrong:
            steps.append(_rehearsed(step, last))
    if errors:
        return Rehearsal(tuple(errors), tuple(doubts))
    runs = sum(len(step.get(name, ())) for step in raw for name in ("compilations", "tests"))
    total_s = (last - began) / 1000 if last is not None and began is not None else 0.0
    return Rehearsal((), tuple(doubts), tuple(steps), *_scores(steps, total_s, len(document["workout_session"]), runs))


def _errors_of(document: Mapping[str, Any]) -> Iterator[str]:
    if "event" in document:
        yield "it has an event: it would be taken for a streamed event"
    for key in REQUIRED:
        # A time may be null: it counts as 0 then.
        if key not in document or (document[key] is None and key not in _TIMES):
            yield f"{key} is missing"
        elif key in ("steps", "workout_session") and not isinstance(document[key], list):
            yield f"{key} is no list"
        elif key in _TIMES and _ends_in_error(document[key]):
            yield f"{key} is a time that no calendar has"
    if document.get("user_id") is not None and not _is_number(document["user_id"]):
        yield "user_id is no number"
    slug = document.get("package_slug") or document.get("slug")
    if isinstance(slug, str) and len(slug) > _LONGEST_SLUG:
        yield f"slug is longer than {_LONGEST_SLUG} characters: it answers 500"
    if _holds_nul(document):
        yield "a text holds U+0000, which its database (PostgreSQL's jsonb) refuses: it answers 500"


def _doubts_of(document: Mapping[str, Any]) -> Iterator[str]:
    for key in _TIMES:
        if key in document and _moment(document[key]) is None:
            yield f"{key} is no time: the time on the platform counts as 0"
        yield from _doubts_of_time(document.get(key), key)
    if document.get("slug") is None:
        yield "slug is missing: the asset is found only by the URL's asset_id"
    if "package_id" in document and not _is_number(document["package_id"]):
        yield "package_id is no number: it ends in an error if the URL's asset has no package yet"


def _place(index: int, step: Mapping[str, Any]) -> str:
    return f"steps[{index}] {step.get('slug', '')}".rstrip()


def _errors_of_step(index: int, step: object) -> Iterator[str]:
    """What its look at this step would end in."""
    if not isinstance(step, dict):
        yield f"steps[{index}] is no object"
        return
    place = _place(index, step)
    if "slug" not in step:
        yield f"{place}: it has no slug"
    lists = [name for name in ("compilations", "tests") if not _is_list_of_objects(step.get(name, []))]
    yield from (f"{place}: {name} is no list of objects" for name in lists)
    yield from (f"{place}: {key} is a time that no calendar has" for key in _crashing_times(step))
    opened, completed = _moment(step.get("opened_at")), _moment(step.get("completed_at"))
    if lists or opened is None:
        return
    tests = step.get("tests", [])
    if completed is None:
        ends = [_end(run) for name in ("compilations", "tests") for run in step.get(name, ())]
        if any(_ends_in_error(end) for end in ends):
            yield f"{place}: a run ends at a time that no calendar has"
    else:  # only then does it sort them
        for name in ("compilations", "tests"):
            if not _can_be_sorted(step.get(name, ())):
                yield f"{place}: {name} have times as numbers and as texts"
                return
        tests = list(_until_success(_in_order(tests)))
    if not all("exit_code" in run for run in tests):
        yield f"{place}: a test has no exit_code"


def _crashing_times(step: Mapping[str, Any]) -> list[str]:
    """The second is looked at where the first is a time."""
    if _ends_in_error(step.get("opened_at")):
        return ["opened_at"]
    is_opened = _moment(step.get("opened_at")) is not None
    return ["completed_at"] if is_opened and _ends_in_error(step.get("completed_at")) else []


def _doubts_of_step(place: str, step: Mapping[str, Any]) -> Iterator[str]:
    opened, completed = _moment(step.get("opened_at")), _moment(step.get("completed_at"))
    if opened is None and "opened_at" in step:
        yield f"{place}: opened_at is no time: the step counts as unread"
    elif opened is None and completed is not None:
        yield f"{place}: completed without opened_at: the step counts as unread"
    elif opened is None and (step.get("compilations") or step.get("tests")):
        yield f"{place}: it has runs and no opened_at: the step counts as unread"
    if opened is not None and completed is None and "completed_at" in step:
        yield f"{place}: completed_at is no time: the step counts as not completed"
    if opened is not None and completed is not None and completed < opened:
        yield f"{place}: completed before it was opened: a time below 0 is counted"
    for name in ("opened_at", "completed_at"):
        yield from _doubts_of_time(step.get(name), f"{place}: {name}")


def _doubts_of_time(value: object, name: str) -> Iterator[str]:
    at = _moment(value)
    if at is not None and 0 < at < _FIRST_MS:
        yield f"{name}: {at:.0f} looks like seconds, not milliseconds"


def _moment(value: object) -> float | None:
    """A time as it reads it (ms): a number, a number as text, an ISO text whose zone it leaves out of account.

    Known to be weak: of the ISO texts only those with day, hour, minute and second; it knows more.
    """
    if isinstance(value, (int, float)):
        return value if _CALENDAR_MS[0] <= value < _CALENDAR_MS[1] else None
    if not isinstance(value, str):
        return None
    number = _as_number(value)
    if number is not None:
        return number if _CALENDAR_MS[0] <= number < _CALENDAR_MS[1] else None
    return None if value.endswith("z") else milliseconds(_ZONE.sub("", value))


def _ends_in_error(value: object) -> bool:
    if isinstance(value, (int, float)):
        return not _CALENDAR_MS[0] <= value < _CALENDAR_MS[1]
    number = _as_number(value) if isinstance(value, str) else None
    return number is not None and abs(number) > _CRASHING_TEXT_MS


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    """Whether Django takes it for the number of a row."""
    if isinstance(value, str):
        return re.fullmatch(r"\s*\d{1,18}\s*", value) is not None
    return type(value) is int or (isinstance(value, float) and value.is_integer())


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _holds_nul(document: Mapping[str, Any]) -> bool:
    left: list[Any] = [document]
    while left:
        value = left.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, Mapping):
            left += (*value, *value.values())
        elif isinstance(value, list):
            left += value
    return False


def _start(run: Mapping[str, Any]) -> Any:
    return run.get("started_at", run.get("starting_at")) or 0


def _end(run: Mapping[str, Any]) -> Any:
    return run.get("ended_at", run.get("ending_at"))


def _can_be_sorted(runs: Sequence[Mapping[str, Any]]) -> bool:
    starts = [_start(run) for run in runs]
    is_text = [isinstance(start, str) for start in starts]
    is_number = [isinstance(start, (int, float)) for start in starts]
    return len(runs) < 2 or all(is_text) or all(is_number)


def _rehearsed(step: Mapping[str, Any], last: float | None) -> RehearsedStep:
    slug = str(step["slug"])
    opened, completed = _moment(step.get("opened_at")), _moment(step.get("completed_at"))
    if opened is None:
        return RehearsedStep(slug, "unread")
    compilations = [run for run in step.get("compilations", ()) if "exit_code" in run]
    tests = list(step.get("tests", ()))
    if completed is not None:
        compilations = [run for run in _in_order(step.get("compilations", ())) if "exit_code" in run]
        return RehearsedStep(
            slug, "completed", (completed - opened) / 1000, _failures(compilations), _failures(_in_order(tests))
        )
    runs = (*step.get("compilations", ()), *tests)
    if not runs:
        return RehearsedStep(slug, "skipped", _capped(last, opened))
    ends = [at for run in runs if (at := _moment(_end(run))) is not None]
    return RehearsedStep(
        slug,
        "attempted",
        _capped(max(ends) if ends else last, opened),
        sum(run["exit_code"] != 0 for run in compilations),
        sum(run["exit_code"] != 0 for run in tests),
    )


def _capped(at: float | None, opened: float) -> float:
    return 0.0 if at is None else min((at - opened) / 1000, _LONGEST_ATTEMPT_S)


def _in_order(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(runs, key=_start) if len(runs) > 1 else list(runs)


def _until_success(runs: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for run in runs:
        yield run
        if run.get("exit_code", 1) == 0:
            return


def _failures(runs: Sequence[Mapping[str, Any]]) -> int:
    return sum(run["exit_code"] != 0 for run in _until_success(runs))


def _scores(steps: Sequence[RehearsedStep], total_s: float, sessions: int, runs: int) -> tuple[float, float, float]:
    """completion_rate, engagement and frustration, each from 0 to 100."""
    count = len(steps) or 1
    share = {status: sum(step.status == status for step in steps) / count for status in ("completed", "skipped")}
    incomplete_s = sum(step.seconds for step in steps if step.status in ("attempted", "skipped"))
    compile_struggles = sum(step.failed_compilations for step in steps) / count
    test_struggles = sum(step.failed_tests for step in steps) / count
    engagement = (
        0.3 * min(total_s / 36_000, 1)
        + 0.2 * min(sessions / 5, 1)
        + 0.3 * share["completed"]
        + 0.2 * min(runs / 100, 1)
    )
    frustration = (
        0.3 * (1 - share["completed"] if steps else 0)
        + 0.2 * min(incomplete_s / 18_000, 1)
        + 0.2 * min(compile_struggles / 10, 1)
        + 0.2 * min(test_struggles / 10, 1)
        + 0.1 * share["skipped"]
    )
    return round(100 * share["completed"], 2), round(100 * engagement, 2), round(100 * frustration, 2)


Summary = dict[str, dict[str, int]]

_COUNTED = ("compilations", "tests", "ai_interactions", "quiz_submissions", "sessions")


def summary(document: Mapping[str, Any]) -> Summary:
    """How much a document holds: for each step (by its slug) the lengths of its lists, and whether it was opened and
    completed; under "" the number of sessions.  Small enough to be remembered.  What is no list counts as an empty one.
    """
    counted: Summary = {"": {"workout_session": _length(document.get("workout_session"))}}
    steps = document.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict):
            counts = {name: _length(step.get(name)) for name in _COUNTED}
            counts |= {name: int(_moment(step.get(name)) is not None) for name in ("opened_at", "completed_at")}
            known = counted.setdefault(str(step.get("slug", "")), {})
            known |= {name: known.get(name, 0) + count for name, count in counts.items() if count}
    return counted


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def reduced(before: Summary, after: Summary) -> list[str]:
    """What a receiver that has `before` would lose by `after`, in words; a step that is no more in the course, too."""
    lost = []
    for slug, counts in before.items():
        for name, count in counts.items():
            now = after.get(slug, {}).get(name, 0)
            if now < count:
                lost.append(f"{slug or 'the document'}: {name} {count} → {now}")
    return lost
