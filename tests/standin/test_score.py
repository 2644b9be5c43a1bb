"""What the score forgives of builds without a process, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.standin.score import Truth, score

T0 = 1_800_000_000_000
BUILD = Truth(
    "compile", "03-app", T0, T0 + 3000, 0, source=("before", "after"), start_known=False, may_end_at=T0 + 2000
)


def built(**other: Any) -> dict[str, Any]:
    row = {"number": 1, "id": "x-1", "event": "compile", "at": T0 + 3000, "step_slug": "03-app", "exit_code": 0}
    row |= {"started_at": T0 + 2900, "ended_at": T0 + 3000, "signal": None, "source_code": "after", "output": "none"}
    return {**row, "evidence": [{"words": "seen"}], **other}


@pytest.mark.parametrize(
    "other",
    [{}, {"source_code": "before"}, {"started_at": T0}, {"started_at": T0 + 2000, "ended_at": T0 + 2000}],
)
def test_any_of_several_is_right(other: dict[str, Any]) -> None:
    assert score([built(**other)], [BUILD]).is_perfect


@pytest.mark.parametrize(
    "other, what",
    [
        ({"source_code": "else"}, "wrong"),
        ({"source_code": None}, "unknown"),
        ({"ended_at": T0 + 1000}, "wrong"),
        ({"started_at": T0 - 1000}, "missed"),
        ({"exit_code": 1}, "wrong"),
    ],
)
def test_anything_else_is_wrong(other: dict[str, Any], what: str) -> None:
    assert getattr(score([built(**other)], [BUILD]), what)
