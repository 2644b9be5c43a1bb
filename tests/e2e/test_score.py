"""The score finds what is wrong: otherwise a perfect score would mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.standin.score import Truth, score

T0 = 1_800_000_000_000


def run(number: int, at: int = T0, **other: Any) -> dict[str, Any]:
    row = {"number": number, "id": f"x-{number}", "event": "compile", "at": at + 90, "step_slug": "01-hello"}
    row |= {"started_at": at, "ended_at": at + 90, "exit_code": 0, "signal": None, "source_code": "a", "output": "none"}
    return {**row, "origin": "learnpack", "evidence": [{"words": "seen"}], **other}


TRUTH = [
    Truth("compile", "01-hello", T0, T0 + 90, 0, source="a", origin="learnpack"),
    Truth("compile", "01-hello", T0 + 2000, T0 + 2090, 0, source="a", origin="learnpack"),
]
BOTH = [run(1), run(2, T0 + 2000)]


def test_the_truth_itself_is_perfect() -> None:
    assert score(BOTH, TRUTH, {}).is_perfect


@pytest.mark.parametrize(
    "events, what",
    [
        (BOTH[:1], "missed"),
        ([*BOTH, run(3, T0 + 2100)], "invented"),
        ([run(1, step_slug="02-sum"), BOTH[1]], "invented"),
        ([run(1, event="test"), BOTH[1]], "missed"),
        ([run(1, exit_code=1), BOTH[1]], "wrong"),
        ([run(1, exit_code=None, signal=9), BOTH[1]], "wrong"),
        ([run(1, exit_code=None), BOTH[1]], "unknown"),
        ([run(1, source_code=None), BOTH[1]], "unknown"),
        ([run(1, source_code="b"), BOTH[1]], "wrong"),
        ([run(1, origin="terminal"), BOTH[1]], "wrong"),
        ([run(1, ended_at=None), BOTH[1]], "wrong"),
        ([run(1, ended_at=T0 + 5000), BOTH[1]], "wrong"),
        ([run(1, at=T0 - 5000), BOTH[1]], "missed"),
        ([run(1, evidence=[]), BOTH[1]], "wrong"),
        ([run(2), run(1, T0 + 2000)], "wrong"),
        ([run(1, id="x-2"), BOTH[1]], "wrong"),
        ([*BOTH, run(3, event="open_step", step_slug="07-free")], "invented"),
        ([*BOTH, run(3, event="complete_step")], "invented"),
    ],
)
def test_a_difference_is_found(events: list[dict[str, Any]], what: str) -> None:
    assert getattr(score(events, TRUTH, {}), what)


def test_a_missing_completion_and_a_doubled_one_are_found() -> None:
    done = run(3, T0 + 2000, event="complete_step")
    assert score(BOTH, TRUTH, {"01-hello": None}).missed
    assert score([*BOTH, done], TRUTH, {"01-hello": T0 + 2090}).is_perfect
    assert score([*BOTH, done], TRUTH, {"01-hello": T0 + 9000}).wrong
    assert score([*BOTH, done, {**done, "number": 4, "id": "x-4"}], TRUTH, {"01-hello": None}).invented


def test_a_line_in_a_terminal_is_a_window() -> None:
    truth = [Truth("compile", "01-hello", T0 - 300, T0 + 300, 0, window=True)]
    assert score([run(1)], truth).is_perfect
    assert score([run(1, T0 + 400)], truth).missed


def test_work_explains_an_open_and_nothing_else_does() -> None:
    opened = run(3, event="open_step")
    assert score([*BOTH, opened], TRUTH).is_perfect
    assert score([*BOTH, {**opened, "at": T0 + 60_000}], TRUTH).invented
