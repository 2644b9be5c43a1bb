"""The line of a key."""

from __future__ import annotations

import time
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.positions import LONGEST_FILE, LONGEST_VALUE, Positions
from agent.config.showing import toml

FILE = '''\
# [send]
a = 1
"b.c" = 2
d.e.f = 3
g = """
a = 2
[send]
"""

  [ send ] # x
output = false
h = [
  [
    1, # ]
  ],
  "]",
]
i = { j = 1, "k l" = 2 }
[[sink]]
name = "a"
[[sink]]

name = "b"
[sink.headers]
x = "y"
[[sink]]
[course."/home/*/[a]".send]
output = 1
'''

LINES: list[tuple[tuple[str | int, ...], int | None]] = [
    (("a",), 2),
    (("b.c",), 3),
    (("d",), 4),
    (("d", "e", "f"), 4),
    (("g",), 5),
    (("send",), 10),
    (("send", "output"), 11),
    (("send", "h"), 12),
    (("send", "i"), 18),
    (("send", "i", "k l"), 18),
    (("sink",), 19),
    (("sink", 0), 19),
    (("sink", 0, "name"), 20),
    (("sink", 1), 21),
    (("sink", 1, "name"), 23),
    (("sink", 1, "headers", "x"), 25),
    (("sink", 2), 26),
    (("course", "/home/*/[a]"), 27),
    (("course", "/home/*/[a]", "send", "output"), 28),
    (("sink", 2, "name"), None),
    (("sink", 3), None),
    (("a", "b"), None),
    (("nothing",), None),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_a_key_has_the_line_in_which_its_statement_begins(path: tuple[str | int, ...], line: int | None) -> None:
    assert Positions(FILE).line(path) == line


UNFINISHED = [("a = 1\n", None), ("", None), ("a = 1\n\nb = [\n1,\n", 3), ('x = """\n', 1), ("a = [1,\n2]\nb = '''", 3)]


@pytest.mark.parametrize(("text", "line"), UNFINISHED)
def test_what_never_ends_has_the_line_in_which_it_begins(text: str, line: int | None) -> None:
    assert Positions(text).unfinished() == line


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(), st.integers(0, 3)), max_size=8, unique_by=lambda one: one[0]))
def test_whatever_keys_are_called_each_is_found_in_its_line(keys: list[tuple[str, str, int]]) -> None:
    text, lines = "", {}
    for key, value, above in keys:
        text += "# x = 1\n" * above
        lines[key] = text.count("\n") + 1
        text += f"{toml(_encodable(key))} = [{toml(_encodable(value))},\n]\n"
    positions = Positions(text)
    assert set(tomllib.loads(text)) == {_encodable(key) for key in lines}
    for key, line in lines.items():
        assert positions.line((_encodable(key),)) == line


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def test_a_file_that_is_too_long_has_no_lines_and_costs_nothing() -> None:
    text = "a = 1\n" + "\n" * (LONGEST_FILE - 1)
    assert Positions(text).line(("a",)) is None
    assert Positions(text[:-1]).line(("a",)) == 1


def test_behind_a_value_that_is_too_long_nothing_has_a_line_and_what_is_before_it_has() -> None:
    def found(lines: int) -> list[Any]:
        value = "b = [\n" + "1,\n" * (lines - 2) + "]\n"
        positions = Positions(f"a = 1\n{value}c = 1\n")
        return [positions.line((key,)) for key in "abc"]

    began = time.process_time()
    assert found(LONGEST_VALUE) == [1, 2, LONGEST_VALUE + 2]
    assert found(LONGEST_VALUE + 1) == found(LONGEST_FILE - 10) == [1, None, None]
    assert time.process_time() - began < 20  # some 0.5 s; all lines of the longest would be 11 s more
