"""Records as xAPI statements (1.0.3, which 2.0 takes too: IEEE 9274.1.1 keeps its statements).

A statement's id follows from the event's id, so that one that comes twice is the same statement: a Learning Record
Store takes the second one and keeps one (1.0.3, part 3, 2.1.2).  Actors have no name and no e-mail: an account whose
name is LearnPack's telemetry_id.  Verbs are ADL's and TinCan's registered ones; what has none (a reset, a build)
has one of our own, under LearnPack's address.

A gap is no act of the learner and becomes no statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

_ADL = "http://adlnet.gov/expapi/verbs/"
_ACTIVITY = "http://adlnet.gov/expapi/activities/"
_OURS = "https://learnpack.co/xapi/"
HOME_PAGE = "https://learnpack.co"


@dataclass(frozen=True, slots=True)
class Place:
    """Whose records these are: `student` is the account's name (LearnPack's telemetry_id), `course` the course's slug,
    `registration` a UUID of this student's work in this course."""

    student: str
    course: str
    registration: str


#: Event → the verb's id and its name.
VERBS: Mapping[str, tuple[str, str]] = {
    "session_start": (_ADL + "initialized", "initialized"),
    "session_end": (_ADL + "terminated", "terminated"),
    "open_step": (_ADL + "experienced", "experienced"),
    "compile": (_OURS + "verbs/ran", "ran"),
    "test": (_ADL + "attempted", "attempted"),
    "complete_step": (_ADL + "completed", "completed"),
    "reset_step": (_OURS + "verbs/reset", "reset"),
    "ai_interaction": (_ADL + "asked", "asked"),
    "learnpack_agent_test": (_OURS + "verbs/tested-the-connection", "tested the connection"),
}
_PASSED, _FAILED = (_ADL + "passed", "passed"), (_ADL + "failed", "failed")


def statement(line: Mapping[str, Any], place: Place, statement_id: Callable[[str], str]) -> dict[str, Any] | None:
    """The statement of a record as `core.export.public` gives it; None for what is no statement (a gap)."""
    if line["event"] not in VERBS:
        return None
    verb, name = _verb(line)
    context: dict[str, Any] = {"registration": place.registration, "platform": "learnpack-agent"}
    if line["step_slug"] is not None:
        context["contextActivities"] = {"parent": [_course(place)]}
    made: dict[str, Any] = {
        "id": statement_id(line["id"]),
        "timestamp": iso(line["at"]),
        "actor": {"objectType": "Agent", "account": {"homePage": HOME_PAGE, "name": place.student}},
        "verb": {"id": verb, "display": {"en": name}},
        "object": _course(place) if line["step_slug"] is None else _step(place, line),
        "context": context,
    }
    if result := _result(line):
        made["result"] = result
    return made


def _verb(line: Mapping[str, Any]) -> tuple[str, str]:
    """A test of a part of the tests, or one whose end is not known, is an attempt and nothing more."""
    if line["event"] == "test" and line.get("whole") and line.get("exit_code") is not None:
        return _PASSED if line["exit_code"] == 0 else _FAILED
    return VERBS[line["event"]]


def _course(place: Place) -> dict[str, Any]:
    return {
        "objectType": "Activity",
        "id": f"{_OURS}courses/{quoted(place.course)}",
        "definition": {"type": _ACTIVITY + "course", "name": {"en": place.course}},
    }


def _step(place: Place, line: Mapping[str, Any]) -> dict[str, Any]:
    slug = line["step_slug"]
    return {
        "objectType": "Activity",
        "id": f"{_OURS}courses/{quoted(place.course)}/steps/{quoted(slug)}",
        "definition": {"type": _ACTIVITY + "lesson", "name": {"en": slug}},
    }


def _result(line: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    event, code = line["event"], line.get("exit_code")
    if event in ("compile", "test") and code is not None:
        result["success"] = code == 0
    if event == "complete_step":
        result["completion"] = True
    if event == "ai_interaction" and line.get("student_message"):
        result["response"] = line["student_message"]
    if line.get("started_at") is not None and line.get("ended_at") is not None:
        result["duration"] = duration(max(0, line["ended_at"] - line["started_at"]))
    extensions = {
        f"{_OURS}extensions/{key.replace('_', '-')}": line[key] for key in _EXTENSIONS if line.get(key) is not None
    }
    if extensions:
        result["extensions"] = extensions
    return result


_EXTENSIONS = (
    "source_code",
    "stdout",
    "stderr",
    "message",
    "exit_code",
    "signal",
    "output",
    "origin",
    "tests_modified",
    "ai_response",
    "left",
)


def duration(ms: int) -> str:
    """ISO 8601, to a hundredth of a second (1.0.3, part 2, 4.6: an LRS compares no more)."""
    return f"PT{ms // 10 / 100:.2f}S"


def iso(ms: int) -> str:
    """A moment as ISO 8601 in UTC.  (`datetime` reads clocks, so the core has none.)"""
    days, rest = divmod(ms, 86_400_000)
    # Days since 0000-03-01, of which the eras of 400 years are alike (Howard Hinnant, "chrono-Compatible Low-Level
    # Date Algorithms": civil_from_days).
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    date = day - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    seconds, thousandths = divmod(rest, 1000)
    return (
        f"{era * 400 + year + (month <= 2):04}-{month:02}-{date:02}"
        f"T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{thousandths:03}Z"
    )


def quoted(text: str) -> str:
    """A slug as a part of an IRI's path; what is no valid Unicode in it becomes "?"."""
    return quote(text, safe="", errors="replace")
