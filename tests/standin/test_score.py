"""What the score forgives of builds without a process, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.standin.score import TOLERANCE_MS, Truth, score

T0 = 1_800_000_000_000
BUILD = Truth(
    "compile", "03-app", T0, T0 + 3000, 0, source=("before", "after"), start_known=False, may_end_at=T0 + 2000
)


#: It lasted as long because the machine was slow: what the agent says lies between the two times.
SPANNED = Truth("compile", "03-app", T0 + 2000, T0 + 3000, 0, span=(T0, T0 + 3100))
LATE = T0 + 3100 + TOLERANCE_MS + 1


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
        ({"ended_at": T0 + 2000 - TOLERANCE_MS - 1}, "wrong"),
        ({"started_at": T0 - TOLERANCE_MS - 1}, "missed"),
        ({"exit_code": 1}, "wrong"),
    ],
)
def test_anything_else_is_wrong(other: dict[str, Any], what: str) -> None:
    assert getattr(score([built(**other)], [BUILD]), what)


@pytest.mark.parametrize(
    "other, is_perfect",
    [
        ({"started_at": T0 + 100, "ended_at": T0 + 1000}, True),
        ({"started_at": T0 - 51}, False),
        ({"ended_at": LATE}, False),
        ({"started_at": LATE, "ended_at": LATE}, False),
    ],
)
def test_what_an_action_did_lies_between_its_beginning_and_its_end(other: dict[str, Any], is_perfect: bool) -> None:
    assert score([built(**other)], [SPANNED]).is_perfect == is_perfect


def test_a_completion_lies_within_the_action_that_completed() -> None:
    done = built(number=2, id="x-2", event="complete_step")
    for at, is_perfect in ((T0 + 500, True), (T0 - 51, False), (LATE, False)):
        assert score([built(), {**done, "at": at}], [SPANNED], {"03-app": T0 + 3000}).is_perfect == is_perfect
