"""What node reads is read: half an emoji and bytes that are no text cost themselves, and not the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.json_as_node import read_as_node, valid_unicode


def strict(text: bytes) -> object:
    """A parser that takes valid Unicode only, as orjson does."""
    plain = json.loads(text.decode())
    json.dumps(plain, ensure_ascii=False).encode()
    return plain


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb'"\ud83d\udc0d"', "🐍"),
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\udc0d\ud83d"', "\ufffd\ufffd"),
        (rb'"\uD83Dx\uDC0D"', "\ufffdx\ufffd"),
        (rb'"\ud83d\ud83d\udc0d"', "\ufffd🐍"),
        (rb'"\\ud83d \"\ud83d"', '\\ud83d "\ufffd'),
        (rb'{"\ud83d": 1}', {"\ufffd": 1}),
        (b'"caf\xe9 \\ud83d"', "caf\ufffd \ufffd"),
        (b'"\xed\xa0\xbd"', "\ufffd\ufffd\ufffd"),
        ('"ñ 🐍"'.encode(), "ñ 🐍"),
    ],
)
def test_what_is_no_valid_unicode_becomes_a_replacement_character(text: bytes, read: object) -> None:
    assert read_as_node(text, strict) == read


@pytest.mark.parametrize("text", [b"", b"{", rb'"\ud83', rb'{"a": "\ud83d"', b"\xff", b'"\xff', rb'"\q\ud83d"'])
def test_what_is_no_json_for_node_either_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_as_node(text, strict)


@settings(database=None, deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_that_javascript_may_write_is_read(text: str) -> None:
    written = json.dumps(text).encode()
    there_and_back = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert read_as_node(written, strict) == there_and_back


@settings(database=None, deadline=None)
@given(st.binary())
def test_whatever_the_bytes_are_what_comes_out_is_text_and_stays_as_it_is(data: bytes) -> None:
    valid, replaced = valid_unicode(data)
    valid.decode()
    assert (valid == data) == (not replaced)
    assert valid_unicode(valid) == (valid, [])
