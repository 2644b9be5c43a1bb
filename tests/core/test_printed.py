"""What was printed becomes text, and a long text keeps its head and its tail."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.events import Captured
from agent.core.printed import OUTPUT_BYTES, captured, shortened


def cut(data: bytes, limit: int) -> Captured | None:
    return captured(lambda offset, length: data[offset : offset + length], len(data), limit)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"3 passed\n", "3 passed\n"),
        ("¡ñandú 🦜!".encode(), "¡ñandú 🦜!"),
        # As node 20 decodes them (`fs.readFileSync(path, 'utf8')`).
        (b"\xff", "\ufffd"),
        (b"a\xe2\x82b", "a\ufffdb"),
        (b"\xf0\x9f\x92", "\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        (b"\xef\xbb\xbfbom", "\ufeffbom"),
    ],
)
def test_bytes_become_text_as_node_makes_it(data: bytes, text: str) -> None:
    assert cut(data, OUTPUT_BYTES) == Captured(text, len(data))


def test_a_long_output_keeps_its_head_and_its_tail_and_says_what_is_missing() -> None:
    data = b"the beginning" + b"x" * 1_000 + b"the end"
    assert cut(data, 20) == Captured("the beginn\n… 1000 bytes left out …\nxxxthe end", 1_020, whole=False)


def test_an_output_of_just_the_limit_is_whole() -> None:
    assert cut(b"x" * 20, 20) == Captured("x" * 20, 20)
    longer = cut(b"x" * 21, 20)
    assert longer is not None and not longer.whole


def test_a_character_is_never_cut_in_two() -> None:
    for before in range(4):
        for limit in range(40, 48):
            data = b"x" * before + "🦜é€".encode() * 100
            seen = cut(data, limit)
            assert seen is not None and "\ufffd" not in seen.text


def test_the_middle_of_a_huge_output_is_not_read() -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return b"x" * length

    seen = captured(read, 2 << 30, 1_000)
    assert seen is not None and seen.size == 2 << 30
    assert asked == [(0, 500), ((2 << 30) - 500, 500)]


@pytest.mark.parametrize("size", [10, 100])
def test_what_gives_less_than_it_says_gives_nothing(size: int) -> None:
    assert captured(lambda offset, length: b"x" * (length - 1), size, 50) is None


@settings(database=None, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 100))
def test_whatever_was_printed_what_is_kept_and_what_is_not_add_up(data: bytes, limit: int) -> None:
    seen = cut(data, limit)
    assert seen is not None
    assert (seen.size, seen.whole) == (len(data), len(data) <= limit)
    if seen.whole:
        assert seen.text == data.decode("utf-8", "replace")
    else:
        head, left_out, tail = re.split(r"\n… (\d+) bytes left out …\n", seen.text)
        assert data.decode("utf-8", "replace").startswith(head[:-1])
        assert limit - 6 <= len(data) - int(left_out) <= limit
        assert data.endswith(tail.encode()) or "\ufffd" in tail


def test_a_long_text_is_cut_in_the_same_way() -> None:
    assert shortened("é" * 10, 20) == "é" * 10
    assert shortened("é" * 10, 10) == "éé\n… 12 bytes left out …\néé"
    assert shortened("short") == "short"
    assert len(shortened("x" * 1_000_000)) < OUTPUT_BYTES + 100
