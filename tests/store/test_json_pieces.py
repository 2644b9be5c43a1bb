"""A document taken apart without holding it: the same as parsing it whole, however it is cut into reads."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.store.json_pieces import Unreadable, take_apart

KEYS = ("tests", "compilations")

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
steps = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "slug": st.text(max_size=5),
            "tests": st.lists(anything, max_size=3),
            "compilations": anything,
            "files": anything,
        },
    ),
    max_size=3,
)
documents = st.dictionaries(st.text(max_size=5), anything, max_size=2).flatmap(
    lambda top: steps.map(lambda several: {**top, "steps": several})
)


class Slow(io.RawIOBase):
    """Gives a few bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data = io.BytesIO(data)
        self.size = size

    def take(self, _: int) -> bytes:
        return self.data.read(self.size)


def put_together(data: bytes, size: int = 7) -> Any:
    """Takes apart and joins again."""
    rest, pieces = take_apart(Slow(data, size).take, KEYS)
    document = json.loads(rest)
    for piece in pieces:
        document["steps"][piece.step][piece.key].append(json.loads(data[piece.start : piece.end]))
    return document


@given(document=documents, indent=st.sampled_from([None, 2]), ascii_only=st.booleans(), size=st.integers(1, 50))
@settings(max_examples=100, deadline=None, database=None)
def test_nothing_is_lost_between_the_rest_and_the_pieces(
    document: Any, indent: int | None, ascii_only: bool, size: int
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    assert put_together(text.encode(), size) == document


def test_the_elements_of_the_lists_are_not_in_the_rest() -> None:
    data = b'{"steps": [{"slug": "a", "tests": [{"x": 1}, {"x": "]"}], "files": [1]}], "tests": [2]}'
    rest, pieces = take_apart(io.BytesIO(data).read, KEYS)
    assert json.loads(rest) == {"steps": [{"slug": "a", "tests": [], "files": [1]}], "tests": [2]}
    assert [(piece.step, piece.key, data[piece.start : piece.end]) for piece in pieces] == [
        (0, "tests", b'{"x": 1}'),
        (0, "tests", b'{"x": "]"}'),
    ]


def test_a_document_can_be_larger_than_what_is_read_at_once() -> None:
    document = {"steps": [{"slug": "a", "tests": [{"stdout": 'a"\\' * 100_000}, {"stdout": "b" * 300_000}]}]}
    assert put_together(json.dumps(document).encode(), 1 << 16) == document


@pytest.mark.parametrize("size", [1, 1000])
def test_a_document_torn_anywhere_is_unreadable(size: int) -> None:
    document = {"slug": "demo", "steps": [{"slug": "a", "tests": [{"exit_code": 0}, 5], "files": []}], "n": 12}
    data = json.dumps(document).encode()
    for end in range(len(data)):
        with pytest.raises(Unreadable):
            put_together(data[:end], size)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"  \n", "it ends in the middle"),
        (b"[]", "it is no object"),
        (b"hello", "it is no object"),
        (b"{} {}", "something follows its end"),
        (b'{"steps": [{"tests": [1 2]}]}', "a comma is missing"),
        (b'{"a": "', "it ends in the middle"),
    ],
)
def test_something_else_is_unreadable_for_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        take_apart(io.BytesIO(data).read, KEYS)


def test_a_text_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.json_pieces._LONGEST_TOKEN", 1 << 20)

    class Endless:
        given = 0

        def take(self, size: int) -> bytes:
            first, self.given = self.given == 0, self.given + size
            assert self.given < 1 << 23
            return b'{"a": "' if first else b"x" * size

    with pytest.raises(Unreadable, match="more than 64 MiB"):
        take_apart(Endless().take, KEYS)
