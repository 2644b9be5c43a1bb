"""The lines of `export --format jsonl`: names that scripts depend on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.core.events import EVENT_TYPES, Event, Origin, Output
from agent.core.events import TestResult as Result
from agent.core.export import public
from agent.core.learnpack_forms import read_attempt
from tests.making import (
    FULL,
    a_compile,
    a_test,
    asked,
    attempt,
    b64,
    completed,
    gap,
    ms,
    opened,
    reset,
    session_end,
    session_start,
    visit,
)

COMMON = ["number", "id", "event", "at", "step_slug", "step_position"]
RUN = [
    "started_at",
    "ended_at",
    "exit_code",
    "signal",
    "source_code",
    "stdout",
    "stderr",
    "output",
    "command",
    "origin",
    "stdout_size",
    "stderr_size",
    "results",
    "message",
    "tests_modified",
]

EVENTS: list[tuple[Event, list[str]]] = [
    (session_start(1), []),
    (session_end(1), ["left"]),
    (opened("01-hello", 1), ["left"]),
    (completed("01-hello", 1), ["tests_modified"]),
    (reset("01-hello", 1), []),
    (a_compile("01-hello", 1, 2), RUN),
    (a_test("01-hello", 1, 2), [*RUN, "whole"]),
    (asked("01-hello", 1, 2), ["started_at", "ended_at", "student_message", "ai_response", "source_code"]),
    (gap(1, 2), ["started_at", "reason"]),
]


@pytest.mark.parametrize(("event", "keys"), EVENTS, ids=lambda value: getattr(value, "name", ""))
def test_a_line_has_exactly_these_keys_in_this_order(event: Event, keys: list[str]) -> None:
    line = public(7, "abc-7", event)
    assert list(line) == [*COMMON, *keys, "evidence"]
    assert (line["number"], line["id"], line["event"]) == (7, "abc-7", event.name)
    assert line["evidence"] == [{"observation": 1, "at": event.at, "words": "because"}]
    assert json.loads(json.dumps(line)) == line


def test_the_table_above_has_every_kind_of_event() -> None:
    assert {event.name for event, _ in EVENTS} == set(EVENT_TYPES)


def test_a_test_is_told_whole_and_decoded() -> None:
    event = a_test("01-hello", 1, 2, None, signal=15, command=("pytest", "test.py"), origin=Origin.TERMINAL, **FULL)
    line = public(3, "abc-3", event)
    assert line["step_slug"] == "01-hello"
    assert line["step_position"] == 1
    wanted: dict[str, Any] = {
        "started_at": ms(1),
        "ended_at": ms(2),
        "exit_code": None,
        "signal": 15,
        "source_code": "print('ñandú')\n",
        "stdout": "ñandú\n",
        "stderr": "",
        "output": "full",
        "command": ["pytest", "test.py"],
        "origin": "terminal",
        "stdout_size": None,
        "stderr_size": None,
        "results": [],
        "message": None,
        "tests_modified": None,
        "whole": True,
    }
    assert {key: line[key] for key in wanted} == wanted


def test_a_test_tells_its_single_results_and_how_much_was_printed() -> None:
    results = (Result("test_a", "passed"), Result("test_b", "failed"))
    event = a_test("01-hello", 1, 2, 1, results=results, stdout_size=9000, stderr_size=0, tests_modified=True)
    line = public(3, "abc-3", event)
    assert line["results"] == [{"name": "test_a", "status": "passed"}, {"name": "test_b", "status": "failed"}]
    assert (line["stdout_size"], line["stderr_size"], line["tests_modified"]) == (9000, 0, True)
    assert public(3, "abc-3", completed("01-hello", 3, tests_modified=True))["tests_modified"] is True


def test_the_visit_that_ends_is_told_where_it_ends() -> None:
    left = visit("00-welcome", 1, 61, 30_000)
    wanted = {"step_slug": "00-welcome", "started_at": ms(1), "ended_at": ms(61), "active_ms": 30_000}
    line = public(2, "abc-2", opened("01-hello", 61, left))
    assert (line["step_slug"], line["left"]) == ("01-hello", wanted)
    assert public(3, "abc-3", session_end(61, left))["left"] == wanted
    assert public(3, "abc-3", session_end(61))["left"] is None


def test_a_question_to_the_tutor_is_told_with_its_answer() -> None:
    line = public(2, "abc-2", asked("01-hello", 1, 3, "¿por qué?", "porque"))
    assert (line["started_at"], line["ended_at"], line["at"]) == (ms(1), ms(3), ms(3))
    assert (line["student_message"], line["ai_response"], line["source_code"]) == ("¿por qué?", "porque", "print()\n")
    assert public(2, "abc-2", asked("01-hello", 1, None))["ended_at"] is None


def test_a_gap_says_since_when_and_why_and_belongs_to_no_step() -> None:
    line = public(1, "abc-1", gap(3, 5))
    assert (line["started_at"], line["at"], line["reason"]) == (ms(3), ms(5), "blind")
    assert line["step_slug"] is None
    assert line["step_position"] is None


def test_what_learnpack_captured_stands_in_for_what_we_did_not() -> None:
    theirs = read_attempt(attempt(1, 2, stdout=b64("printed\n"), stderr=""), "test")
    line = public(1, "abc-1", a_test("01-hello", 1, 2), theirs)
    assert (line["stdout"], line["stderr"], line["source_code"], line["output"]) == (
        "printed\n",
        None,
        "source",
        "partial",
    )


def test_what_we_captured_is_never_replaced() -> None:
    theirs = read_attempt(attempt(1, 2, stdout=b64("All tests passed")), "test")
    line = public(1, "abc-1", a_test("01-hello", 1, 2, **FULL), theirs)
    assert (line["stdout"], line["stderr"], line["output"]) == ("ñandú\n", "", "full")


def test_a_source_from_learnpack_is_no_output() -> None:
    theirs = read_attempt(attempt(1, 2, stdout="", stderr=""), "compile")
    line = public(1, "abc-1", a_compile("01-hello", 1, 2), theirs)
    assert (line["source_code"], line["output"]) == ("source", Output.NONE.value)
