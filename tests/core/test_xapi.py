"""Statements by the rules of xAPI 1.0.3, part 2 ("Experience API Data").  A real Learning Record Store is elsewhere."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.events import EVENT_TYPES, Event
from agent.core.events import TestResult as Result
from agent.core.export import public
from agent.core.privacy import Privacy
from agent.core.xapi import VERBS, Place, duration, iso, quoted, statement
from tests.making import (
    FULL,
    a_compile,
    a_test,
    asked,
    completed,
    gap,
    opened,
    reset,
    session_end,
    session_start,
    visit,
)


def an_id(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))


PLACE = Place("lp00lp00lp00lp00", "python beginner/ñ", an_id("registration"))

#: Event → its verb, its success, whether it says that something is complete.
ADL, OURS = "http://adlnet.gov/expapi/verbs/", "https://learnpack.co/xapi/verbs/"
EVENTS: list[tuple[Event, str, bool | None, bool | None]] = [
    (session_start(1), ADL + "initialized", None, None),
    (session_end(1, visit("01-hello", 0, 1, 900)), ADL + "terminated", None, None),
    (opened("01-hello", 1, visit("00-welcome", 0, 1, 900)), ADL + "experienced", None, None),
    (a_compile("01-hello", 1, 2, 0, **FULL), OURS + "ran", True, None),
    (a_compile("01-hello", 1, 2, 1, **FULL), OURS + "ran", False, None),
    (a_compile("01-hello", 1, None, None), OURS + "ran", None, None),
    (a_test("01-hello", 1, 2, 0, **FULL), ADL + "passed", True, None),
    (a_test("01-hello", 1, 2, 1, results=(Result("a", "failed"),), message="m"), ADL + "failed", False, None),
    (a_test("01-hello", 1, 2, None, signal=9), ADL + "attempted", None, None),
    (a_test("01-hello", 1, None, None), ADL + "attempted", None, None),
    (completed("01-hello", 1, tests_modified=True), ADL + "completed", None, True),
    (reset("01-hello", 1), OURS + "reset", None, None),
    (asked("01-hello", 1, 2, "why?", "so"), ADL + "asked", None, None),
]


def made(event: Event, **more: Any) -> dict[str, Any]:
    found = statement(public(7, "abc-7", event) | more, PLACE, an_id)
    assert found is not None
    return found


# --- the rules ---

_IRI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x20]+", re.IGNORECASE)
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(-[a-zA-Z0-9]{2,8})*")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")

STATEMENT = {"id", "timestamp", "actor", "verb", "object", "context", "result"}
RESULT = {"score", "success", "completion", "response", "duration", "extensions"}


def assert_iri(text: object) -> None:
    assert isinstance(text, str) and _IRI.fullmatch(text), text
    assert urlsplit(text).netloc, text


def assert_uuid(text: object) -> None:
    assert isinstance(text, str) and str(UUID(text)) == text


def assert_language_map(value: dict[str, Any]) -> None:
    assert value and all(_LANGUAGE.fullmatch(key) and isinstance(text, str) for key, text in value.items())


def assert_no_nulls(value: Any) -> None:
    """2.2: null, and an object or text that is empty, is nothing that a statement may hold (but in extensions)."""
    assert value is not None and value != {}
    for key, one in value.items() if isinstance(value, dict) else ():
        if key != "extensions":
            assert_no_nulls(one)
    for one in value if isinstance(value, list) else ():
        assert_no_nulls(one)


def assert_activity(activity: dict[str, Any]) -> None:
    """2.4.4.1."""
    assert activity.keys() == {"objectType", "id", "definition"}
    assert activity["objectType"] == "Activity"
    assert_iri(activity["id"])
    assert activity["definition"].keys() == {"name", "type"}
    assert_iri(activity["definition"]["type"])
    assert_language_map(activity["definition"]["name"])


def assert_statement(found: dict[str, Any]) -> None:
    """2.4: "Statements"."""
    assert found.keys() <= STATEMENT and found.keys() >= STATEMENT - {"result"}
    assert_no_nulls(found)
    assert_uuid(found["id"])
    assert _TIMESTAMP.fullmatch(found["timestamp"])
    # 2.4.2.1: an Agent has exactly one identifier, and a name and an address would be one too many here.
    assert found["actor"].keys() == {"objectType", "account"} and found["actor"]["objectType"] == "Agent"
    assert found["actor"]["account"].keys() == {"homePage", "name"}
    assert_iri(found["actor"]["account"]["homePage"])
    assert found["actor"]["account"]["name"] == PLACE.student
    assert found["verb"].keys() == {"id", "display"}
    assert_iri(found["verb"]["id"])
    assert_language_map(found["verb"]["display"])
    assert_activity(found["object"])
    # 2.4.6: `platform` only where the object is an activity; it is.
    assert found["context"].keys() <= {"registration", "platform", "contextActivities"}
    assert_uuid(found["context"]["registration"])
    for parents in found["context"].get("contextActivities", {}).values():
        for parent in parents:
            assert_activity(parent)
    result = found.get("result", {"success": True})
    assert result and result.keys() <= RESULT
    for key, kind in (("success", bool), ("completion", bool), ("response", str), ("duration", str)):
        assert isinstance(result.get(key, kind()), kind)
    assert _DURATION.fullmatch(result.get("duration", "PT0S"))
    for key in result.get("extensions", {}):
        assert_iri(key)


@pytest.mark.parametrize(("event", "verb", "success", "completion"), EVENTS)
def test_a_record_becomes_a_statement_by_the_rules(
    event: Event, verb: str, success: bool | None, completion: bool | None
) -> None:
    found = made(event)

    assert_statement(found)
    assert found["id"] == an_id("abc-7")
    assert found["verb"]["id"] == verb
    assert found.get("result", {}).get("success") is success
    assert found.get("result", {}).get("completion") is completion
    assert datetime.fromisoformat(found["timestamp"]).timestamp() * 1000 == event.at


def test_each_kind_of_event_but_the_gap_is_tried_here() -> None:
    assert (
        {event.name for event, *_ in EVENTS} == VERBS.keys() - {"learnpack_agent_test"} == EVENT_TYPES.keys() - {"gap"}
    )


def test_a_gap_is_no_act_of_the_learner() -> None:
    assert statement(public(1, "a-1", gap(1, 2)), PLACE, an_id) is None


@pytest.mark.parametrize("event", [event for event, *_ in EVENTS])
def test_the_same_event_is_the_same_statement(event: Event) -> None:
    assert json.dumps(made(event)) == json.dumps(made(event))


def test_a_step_lies_in_its_course() -> None:
    found, course = made(opened("01-hello", 1)), made(session_start(1))["object"]

    assert course["id"] == "https://learnpack.co/xapi/courses/python%20beginner%2F%C3%B1"
    assert course["definition"] == {
        "type": "http://adlnet.gov/expapi/activities/course",
        "name": {"en": "python beginner/ñ"},
    }
    assert found["object"]["id"] == course["id"] + "/steps/01-hello"
    assert found["object"]["definition"]["name"] == {"en": "01-hello"}
    assert found["context"]["contextActivities"] == {"parent": [course]}
    assert "contextActivities" not in made(session_start(1))["context"]


def test_a_part_of_the_tests_that_passed_is_an_attempt_only() -> None:
    found = made(a_test("01-hello", 1, 2, 0), whole=False)

    assert found["verb"]["id"] == ADL + "attempted"
    assert found["result"]["success"] is True


def test_what_the_run_was_is_in_the_result() -> None:
    found = made(a_test("01-hello", 1, 3.456, 1, **FULL, message="assert", tests_modified=True))["result"]

    ours = "https://learnpack.co/xapi/extensions/"
    assert found["duration"] == "PT2.45S"
    assert found["extensions"] == {
        ours + "source-code": "print('ñandú')\n",
        ours + "stdout": "ñandú\n",
        ours + "stderr": "",
        ours + "message": "assert",
        ours + "exit-code": 1,
        ours + "output": "full",
        ours + "origin": "learnpack",
        ours + "tests-modified": True,
    }


def test_a_question_is_the_response_and_the_answer_an_extension() -> None:
    result = made(asked("01-hello", 1, 2.5, "why?", "so"))["result"]

    assert (result["response"], result["duration"]) == ("why?", "PT1.50S")
    assert result["extensions"]["https://learnpack.co/xapi/extensions/ai-response"] == "so"


def test_a_clock_that_was_set_back_makes_no_negative_duration() -> None:
    assert made(a_compile("01-hello", 5, 2))["result"]["duration"] == "PT0.00S"


def test_a_field_that_is_switched_off_is_no_extension() -> None:
    line = Privacy(source_code=False, output=False).line(public(7, "abc-7", EVENTS[6][0]))

    found = statement(line, PLACE, an_id)

    assert found is not None
    assert_statement(found)
    keys = {key.rpartition("/")[2] for key in found["result"]["extensions"]}
    assert keys == {"exit-code", "output", "origin"}


@pytest.mark.parametrize(
    ("length", "text"),
    [(0, "PT0.00S"), (9, "PT0.00S"), (10, "PT0.01S"), (1_234, "PT1.23S"), (290, "PT0.29S"), (3_600_000, "PT3600.00S")],
)
def test_durations_are_hundredths_of_seconds_that_are_over(length: int, text: str) -> None:
    assert duration(length) == text


@given(st.integers(0, 10**12))
def test_a_duration_loses_less_than_a_hundredth(length: int) -> None:
    text = duration(length)

    assert _DURATION.fullmatch(text)
    assert 0 <= length - round(float(text[2:-1]) * 1000) < 10


def moments() -> list[datetime]:
    """The ends of days around each turn of a month in leap years and others, and 2,000 anywhere."""
    turns = [
        datetime(year, month, 1, tzinfo=UTC) + timedelta(milliseconds=off)
        for year in (1970, 1999, 2000, 2001, 2004, 2024, 2038, 2100, 2101, 2400, 9999)
        for month in range(1, 13)
        for off in (-86_400_000, -1, 0, 1, 86_399_999)
        if (year, off) >= (1970, 0) or month > 1
    ]
    chance = random.Random(1970)
    return turns + [
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=chance.randrange(253_402_300_799_999))
        for _ in range(2_000)
    ]


def test_moments_are_those_of_the_calendar() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for moment in moments():
        since = (moment - epoch) // timedelta(milliseconds=1)
        assert iso(since) == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_leap_days_exist() -> None:
    assert iso(951_782_400_000) == "2000-02-29T00:00:00.000Z"
    assert iso(4_107_542_399_999) == "2100-02-28T23:59:59.999Z"
    assert iso(4_107_542_400_000) == "2100-03-01T00:00:00.000Z"


@given(st.text())
def test_whatever_a_folder_is_called_its_address_is_one_and_tells_the_name(slug: str) -> None:
    address = f"https://learnpack.co/xapi/courses/x/steps/{quoted(slug)}y"

    assert_iri(address)
    assert unquote(quoted(slug)) == slug
    assert "/" not in quoted(slug)


def test_a_slug_of_half_an_emoji_has_an_address_too() -> None:
    assert_iri(f"https://learnpack.co/xapi/courses/{quoted('01-' + chr(0xD83D))}")
