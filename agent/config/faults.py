"""What is wrong with a configuration, a line each.  No fault shows a value: it may be a token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..core.course import one_line


class Fault(NamedTuple):
    """`where` is a file, a variable or the command line; `line` counts from 1, None: it is not known or there is none.

    `str` of it is what an admin reads: `FILE:LINE: what is wrong`.
    """

    where: str
    line: int | None
    words: str

    def __str__(self) -> str:
        number = "" if self.line is None else f":{self.line}"
        return one_line(f"{self.where}{number}: {self.words}")


class ConfigError(Exception):
    """All faults of all sources, at least one; its text has a line for each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))
