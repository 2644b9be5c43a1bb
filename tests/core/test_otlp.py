"""The JSON of OTLP: what the official protobuf definitions make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.events import EVENT_TYPES, Event, Origin, Output
from agent.core.events import TestResult as Result
from agent.core.export import public
from agent.core.otlp import logs
from agent.core.privacy import Privacy
from tests.making import (
    FULL,
    a_compile,
    a_test,
    asked,
    completed,
    gap,
    ms,
    opened,
    reset,
    session_end,
    session_start,
    visit,
)

json_format = pytest.importorskip("google.protobuf.json_format", reason="protobuf is not installed")
service = pytest.importorskip(
    "opentelemetry.proto.collector.logs.v1.logs_service_pb2", reason="opentelemetry-proto is not installed"
)

RESOURCE = {"service.name": "learnpack-agent", "learnpack.course": "demo", "learnpack.user_id": 42, "unknown": None}

EVENTS: list[Event] = [
    session_start(1),
    session_end(1),
    session_end(1, visit("01-hello", 0, 1, 900)),
    opened("01-hello", 1),
    opened("02-loop", 1, visit("01-hello", 0, 1, 900)),
    completed("01-hello", 1),
    completed("01-hello", 1, tests_modified=True),
    reset("01-hello", 1),
    a_compile("01-hello", 1, 2, **FULL),
    a_compile("01-hello", 1, None, None),
    a_test(
        "01-hello", 1, 2, 1, **FULL, message="assert 1 == 2", results=(Result("a", "passed"), Result("b", "failed"))
    ),
    a_test("01-hello", 1, 2, None, signal=9, origin=Origin.TERMINAL, output=Output.PARTIAL, stdout_size=10**12),
    asked("01-hello", 1, 2),
    asked("01-hello", 1, None),
    gap(1, 2),
]


def parsed(request: dict[str, Any]) -> Any:
    """As a collector reads it, but one that takes nothing that it doesn't know."""
    text = json.dumps(request, ensure_ascii=False)
    return json_format.Parse(text, service.ExportLogsServiceRequest(), ignore_unknown_fields=False)


def value_of(value: Any) -> Any:
    """An AnyValue as what it was."""
    match value.WhichOneof("value"):
        case "array_value":
            return [value_of(one) for one in value.array_value.values]
        case "kvlist_value":
            return values_of(value.kvlist_value.values)
        case None:
            raise AssertionError("a value that is none")
        case kind:
            return getattr(value, kind)


def values_of(attributes: Any) -> dict[str, Any]:
    keys = [attribute.key for attribute in attributes]
    assert len(keys) == len(set(keys)), "attributes must be unique"
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


def known(value: Any) -> Any:
    """What is not known is absent, at any depth."""
    if isinstance(value, dict):
        return {key: known(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [known(one) for one in value if one is not None]
    return value


def the_record(request: dict[str, Any]) -> Any:
    (of_resource,) = parsed(request).resource_logs
    (of_scope,) = of_resource.scope_logs
    (record,) = of_scope.log_records
    return record


def test_each_kind_of_event_is_tried_here() -> None:
    assert {event.name for event in EVENTS} == set(EVENT_TYPES)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_the_official_definitions_read_back_all_that_is_known_of_a_record(event: Event) -> None:
    line = public(7, "abc-7", event)

    record = the_record(logs([line], RESOURCE, "1.2.3"))

    attributes = values_of(record.attributes)
    assert attributes.pop("log.record.uid") == "abc-7"
    expected = known({key: value for key, value in line.items() if key not in ("id", "number", "event", "at")})
    assert attributes == {f"learnpack.{key}": value for key, value in expected.items()}
    assert record.event_name == f"learnpack.{event.name}"
    assert record.time_unix_nano == record.observed_time_unix_nano == event.at * 10**6


def test_types_stay_types() -> None:
    line = public(1, "a-1", a_test("01-hello", 1, 2, 0, tests_modified=False, results=(Result("a", "passed"),)))

    attributes = {one.key: one.value for one in the_record(logs([line], {}, "1")).attributes}

    kinds = {key.removeprefix("learnpack."): value.WhichOneof("value") for key, value in attributes.items()}
    assert kinds["exit_code"] == kinds["started_at"] == kinds["step_position"] == "int_value"
    assert kinds["whole"] == kinds["tests_modified"] == "bool_value"
    assert kinds["command"] == kinds["results"] == "array_value"
    assert kinds["output"] == "string_value"
    assert "signal" not in kinds and "message" not in kinds


def test_the_resource_and_the_scope_say_whose_records_these_are() -> None:
    lines = [public(number, f"a-{number}", opened("01-hello", number)) for number in (1, 2, 3)]

    (of_resource,) = parsed(logs(lines, RESOURCE, "1.2.3")).resource_logs

    assert values_of(of_resource.resource.attributes) == known(RESOURCE)
    (of_scope,) = of_resource.scope_logs
    assert (of_scope.scope.name, of_scope.scope.version) == ("learnpack-agent", "1.2.3")
    assert [values_of(record.attributes)["log.record.uid"] for record in of_scope.log_records] == ["a-1", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("event", "number", "text", "words"),
    [
        (gap(1, 2), 13, "WARN", "gap"),
        (opened("01-hello", 1), 9, "INFO", "open_step 01-hello"),
        (a_test("01-hello", 1, 2, 1), 9, "INFO", "test 01-hello exit code 1"),
        (a_test("01-hello", 1, 2, 0), 9, "INFO", "test 01-hello exit code 0"),
        (a_compile("01-hello", 1, 2, None, signal=9), 9, "INFO", "compile 01-hello"),
        (session_start(1), 9, "INFO", "session_start"),
    ],
)
def test_a_person_who_reads_logs_sees_what_it_is(event: Event, number: int, text: str, words: str) -> None:
    record = the_record(logs([public(1, "a-1", event)], {}, "1"))

    assert (record.severity_number, record.severity_text, record.body.string_value) == (number, text, words)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_what_is_sent_again_is_the_same_byte_for_byte(event: Event) -> None:
    first, second = (json.dumps(logs([public(7, "abc-7", event)], RESOURCE, "1")) for _ in range(2))

    assert first == second


def test_a_field_that_is_switched_off_is_no_attribute() -> None:
    line = Privacy(source_code=False, output=False).line(
        public(1, "a-1", a_test("01-hello", 1, 2, **FULL, message="m"))
    )

    attributes = values_of(the_record(logs([line], {}, "1")).attributes)

    assert attributes.keys() & {f"learnpack.{name}" for name in ("source_code", "stdout", "stderr", "message")} == set()
    assert "learnpack.evidence" not in attributes
    assert attributes["learnpack.exit_code"] == 0


@pytest.mark.parametrize(
    ("at", "nanoseconds"),
    [
        (0, 0),
        (1, 10**6),
        (ms(1), ms(1) * 10**6),
        (-1, 0),
        (10**15, 2**64 - 1),
        (18_446_744_073_709, 18_446_744_073_709 * 10**6),
    ],
)
def test_a_moment_that_no_collector_can_hold_does_not_make_it_refuse_all_the_others(at: int, nanoseconds: int) -> None:
    line = public(1, "a-1", opened("01-hello", 1)) | {"at": at}

    assert the_record(logs([line], {}, "1")).time_unix_nano == nanoseconds


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("number", "value"),
    [(2**63 - 1, 2**63 - 1), (2**63, str(2**63)), (1 - 2**63, 1 - 2**63), (-(2**70), str(-(2**70)))],
)
def test_a_number_beyond_64_bits_is_a_text(number: int, value: int | str) -> None:
    line = public(1, "a-1", opened("01-hello", 1)) | {"number_of_it": number}

    assert values_of(the_record(logs([line], {}, "1")).attributes)["learnpack.number_of_it"] == value


def as_any_value(value: Any) -> Any:
    """A number beyond 64 bits becomes a text: OTLP has no place for it."""
    if isinstance(value, dict):
        return {key: as_any_value(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_any_value(one) for one in value]
    is_large = type(value) is int and not -(2**63) < value < 2**63
    return str(value) if is_large else value


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5))
def test_whatever_a_record_holds_the_request_can_be_read(values: dict[str, Any]) -> None:
    line = {**{f"x{key}": value for key, value in values.items()}, "id": "a-1", "event": "gap", "at": 1}

    attributes = values_of(the_record(logs([line], {}, "1")).attributes)

    del attributes["log.record.uid"]
    assert attributes == as_any_value(known({f"learnpack.x{key}": value for key, value in values.items()}))
