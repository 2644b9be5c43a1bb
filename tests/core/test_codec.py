"""Observations and events to plain data and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.codec import KINDS, CodecError, cleaned, event_from, from_plain, observation_from, to_plain, valid_text
from agent.core.course import Course
from agent.core.events import Event
from agent.core.observations import Change, CourseRead, FileChanged, Observation, ProcessesListed, ProcessExecuted
from tests.making import COURSE, a_test, ms

#: What `os.fsdecode` makes of any bytes: all of Unicode, and lone surrogates for what is no UTF-8.
texts = st.one_of(st.text(max_size=20), st.binary(max_size=12).map(lambda data: data.decode(errors="surrogateescape")))


@cache
def values(wanted: Any) -> st.SearchStrategy[Any]:
    """Any value of a type as the vocabulary uses types."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is int:
        return st.integers(-(2**53), 2**53)
    if wanted is str:
        return texts
    if wanted in (bool, NoneType):
        return st.from_type(wanted)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is frozenset:
        return st.frozensets(values(arguments[0]), max_size=3)
    if arguments:
        return st.one_of(*map(values, arguments))
    if issubclass(wanted, Enum):
        return st.sampled_from(wanted)
    hints = get_type_hints(wanted)
    return st.builds(wanted, **{one.name: values(hints[one.name]) for one in fields(wanted) if one.compare})


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.get)
def test_every_observation_and_event_comes_back_as_it_was(kind: type) -> None:
    read = observation_from if kind in get_args(Observation) else event_from

    @given(value=values(kind))
    @settings(max_examples=12, deadline=None, database=None)
    def holds_for(value: Any) -> None:
        plain = to_plain(value)
        assert read(plain) == value
        assert from_plain(kind, plain) == value
        trace = json.dumps(plain)
        assert trace.isascii()
        assert read(json.loads(trace)) == value
        journal = orjson.loads(orjson.dumps(cleaned(plain)))
        assert to_plain(from_plain(kind, journal)) == cleaned(plain)

    holds_for()


def test_every_member_of_the_closed_unions_has_a_kind_of_its_own() -> None:
    assert set(KINDS) == {*get_args(Observation), *get_args(Event)}
    assert len(set(KINDS.values())) == len(KINDS)
    assert KINDS[ProcessExecuted] == "process_executed"


def test_the_names_that_a_trace_uses_stay_what_they_are() -> None:
    observation = FileChanged(ms(0), "exercises/01-hello/app.py", Change.MODIFIED)
    assert to_plain(observation) == {
        "kind": "file_changed",
        "at": ms(0),
        "path": "exercises/01-hello/app.py",
        "change": "modified",
    }


def test_an_undecodable_name_survives_a_trace_and_is_printable_in_the_journal() -> None:
    observation = FileChanged(0, b"caf\xe9.py".decode(errors="surrogateescape"), Change.CREATED)
    assert observation_from(json.loads(json.dumps(to_plain(observation)))) == observation
    assert cleaned(to_plain(observation))["path"] == "caf\ufffd.py"


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc80\ud800ñ", "plain", "ñ", ""])
def test_a_valid_text_can_be_encoded(text: str) -> None:
    assert valid_text(text).encode().decode() == valid_text(text)
    assert len(valid_text(text)) == len(text)


def test_a_set_is_written_in_one_order_whatever_order_it_has() -> None:
    one = ProcessesListed(0, frozenset([(3, 1), (1, 2), (2, 9)]))
    assert to_plain(one)["alive"] == [[1, 2], [2, 9], [3, 1]]


def test_a_course_is_written_without_what_it_derives_and_finds_its_steps_again() -> None:
    plain = to_plain(CourseRead(0, COURSE))
    assert not [key for key in plain["course"] if key.startswith("_")]
    course = from_plain(Course, plain["course"])
    assert course.step_named("01-hello") == COURSE.steps[1]
    assert course.step_of("exercises/02-loop/app.py") == COURSE.steps[2]


def event_with(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(a_test("01-hello", 1, 2))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = plain
        for parent in parents:
            place = place[parent]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    return plain


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        (event_with(at=KeyError), "Test: missing field 'at'"),
        (event_with(colour="red"), "Test: unknown field 'colour'"),
        (event_with(run__exit_code="0"), "Test.run: Run.exit_code: expected int, got str"),
        (event_with(run__exit_code=True), "Test.run: Run.exit_code: expected int, got bool"),
        (event_with(run__origin="moon"), "Test.run: Run.origin: 'moon' is no Origin"),
        (event_with(run__origin=[]), "Test.run: Run.origin: [] is no Origin"),
        (event_with(run__command="python"), "Test.run: Run.command: expected list, got str"),
        (event_with(run=None), "Test.run: Run: expected dict, got NoneType"),
        (event_with(kind="dance"), "unknown kind 'dance'"),
        (event_with(kind=["test"]), "unknown kind ['test']"),
        (event_with(kind=KeyError), "unknown kind None"),
        ([], "expected dict, got list"),
    ],
)
def test_data_of_another_form_is_one_clear_error(plain: Any, says: str) -> None:
    with pytest.raises(CodecError) as raised:
        event_from(plain)
    assert str(raised.value) == says


def test_an_observation_is_no_event() -> None:
    with pytest.raises(CodecError, match="unknown kind 'file_changed'"):
        event_from(to_plain(FileChanged(0, "a", Change.CREATED)))
    with pytest.raises(CodecError, match=r"Test: kind is 'compile', not 'test'"):
        from_plain(type(a_test("01-hello", 1, 2)), event_with(kind="compile"))


def test_a_tuple_of_another_length_is_an_error() -> None:
    with pytest.raises(CodecError, match="expected 2 items, got 3"):
        from_plain(tuple[int, int], [1, 2, 3])


@dataclass(frozen=True)
class Held:
    """What an inference's state may hold beside the vocabulary."""

    names: dict[str, int]
    last: Observation | None
    share: float


def test_mappings_and_optional_observations_come_back_too() -> None:
    assert is_dataclass(Held)
    for last in (None, FileChanged(1, "a", Change.DELETED)):
        value = Held({"b": 1, "a": 2}, last, 0.5)
        assert from_plain(Held, to_plain(value)) == value


def test_a_type_that_nobody_taught_it_is_an_error() -> None:
    with pytest.raises(CodecError, match="no way to write"):
        to_plain(object())
    with pytest.raises(CodecError, match="no way to read"):
        from_plain(bytes, b"")
