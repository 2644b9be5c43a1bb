"""In which line of a TOML file a key stands.

tomllib does not tell, so it is asked more than once.  First for where each statement ends: the shortest run of lines
that parses by itself is one (what is inside a longer value, never does).  Then for the first statement after which the
key is there.  No TOML is understood here.

Known to be weak: of a list of inline tables every key has the line in which the list begins.  A file of more than
LONGEST_FILE lines has no positions, and none is known behind a value of more than LONGEST_VALUE: 300 lines take 0.3 s,
2,000 would take 11.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from .checking import Path

LONGEST_FILE = 2000
LONGEST_VALUE = 300


class Positions:
    """Of the keys of one file with this text, which need not be TOML as a whole."""

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        self._lines = lines if len(lines) <= LONGEST_FILE else []
        self._ends = list(self._statements())
        self._parsed = cache(self._parse)

    def line(self, path: Path) -> int | None:
        """The line (from 1) in which the statement begins that sets this key or table first; None: not known."""
        if not self._ends or not holds(self._parsed(len(self._ends)), path):
            return None
        without, holding = 0, len(self._ends)  # so many statements
        while holding - without > 1:
            middle = (without + holding) // 2
            if holds(self._parsed(middle), path):
                holding = middle
            else:
                without = middle
        return self._begin(holding - 1)

    def unfinished(self) -> int | None:
        """The line in which the first statement begins that never ends; None: there is none, or it is not known."""
        begin = self._begin(len(self._ends))
        return begin if begin <= len(self._lines) else None

    def _begin(self, number: int) -> int:
        return (self._ends[number - 1] if number else 0) + 1

    def _statements(self) -> Iterator[int]:
        """After how many lines a statement (an empty line, a comment) ends."""
        begin = 0
        for end in range(1, len(self._lines) + 1):
            if end - begin > LONGEST_VALUE:
                return
            if _parsed("\n".join(self._lines[begin:end])) is not None:
                yield end
                begin = end

    def _parse(self, statements: int) -> Mapping[str, Any]:
        return _parsed("\n".join(self._lines[: self._ends[statements - 1]])) or {}


def _parsed(text: str) -> Mapping[str, Any] | None:
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def holds(found: Any, path: Path) -> bool:
    """Whether there is such a key in these tables."""
    for key in path:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
