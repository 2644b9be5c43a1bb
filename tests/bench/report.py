"""What a benchmark hands back: figures of several subjects, and a table of them with ratios.

A figure is the median of its repetitions, or a percentile where its name says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, in which unit, of whom; None where it could not be."""

    what: str
    unit: str
    values: Mapping[str, float | None]


@dataclass(slots=True)
class Report:
    """One table.  The ratios are those of the first subject to those in `against`."""

    title: str
    subjects: tuple[str, ...]
    against: tuple[str, ...] = ()
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, unit: str, values: Mapping[str, float | None]) -> None:
        self.figures.append(Figure(what, unit, dict(values)))

    def plain(self) -> dict[str, Any]:
        figures = [{"what": one.what, "unit": one.unit, **one.values} for one in self.figures]
        return {"title": self.title, "figures": figures, "notes": self.notes}

    def lines(self) -> list[str]:
        first = self.subjects[0]
        against = [name for name in self.against if name in self.subjects]
        header = ["", "unit", *self.subjects, *(f"{first} / {other}" for other in against)]
        rows = [header]
        for one in self.figures:
            row = [one.what, one.unit, *(_number(one.values.get(name)) for name in self.subjects)]
            rows.append(row + [_ratio(one.values.get(first), one.values.get(other)) for other in against])
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        table = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in cells
            ).rstrip()
            for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
        ]
        return [self.title, *table, *(f"- {note}" for note in self.notes)]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _ratio(value: float | None, other: float | None) -> str:
    if value is None or not other:
        return ""
    return f"{value / other:.2f}" if value / other < 100 else f"{value / other:.0f}"


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that is not exceeded by so many percent of all."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
