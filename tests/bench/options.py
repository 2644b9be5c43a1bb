"""What a benchmark may be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """`scratch` is a directory for everything that is made.  The rest says how much is measured."""

    scratch: str
    rounds: int = 7
    window_s: float = 20.0
    windows: int = 3
    repetitions: int = 100
    records: int = 20_000
    large: bool = False
