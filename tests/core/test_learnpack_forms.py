"""LearnPack's several forms of one thing: all are read, one is written, nothing is lost."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.learnpack_forms import (
    Span,
    decoded,
    encoded,
    encoded_size,
    milliseconds,
    pairs,
    read_attempt,
    same_attempt,
    same_keys,
    session_pairs,
)
from tests.making import b64

N_TILDE = "print('ñandú')\n"


def v5(text: str) -> str:
    """Base64 as the current UI writes it: of the percent-encoded text."""
    return b64(quote(text, safe="!'()*-._~"))


def test_both_base64_rules_of_the_contract_are_read() -> None:
    assert b64(N_TILDE) == "cHJpbnQoJ8OxYW5kw7onKQo="
    assert v5(N_TILDE) == "cHJpbnQoJyVDMyVCMWFuZCVDMyVCQScpJTBB"
    assert decoded("cHJpbnQoJ8OxYW5kw7onKQo=") == N_TILDE
    assert decoded("cHJpbnQoJyVDMyVCMWFuZCVDMyVCQScpJTBB") == N_TILDE


@given(text=st.text())
@settings(max_examples=100, deadline=None, database=None)
def test_any_text_of_the_current_ui_is_read_and_written_back_as_utf8(text: str) -> None:
    assert decoded(v5(text)) == text
    assert decoded(encoded(text), ours=True) == text
    assert len(encoded(text)) == encoded_size(text)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (b64("100% sure\n"), "100% sure\n"),  # a space: not percent-encoded
        (b64("50%\n"), "50%\n"),
        (b64("5%zz"), "5%zz"),  # no valid escape
        (b64("%"), "%"),
        (b64("%E9"), "%E9"),  # an escape, but no UTF-8 behind it
        (b64("a%20b"), "a b"),  # ambiguous: see the module's letter
        (b64("ñ%20"), "ñ%20"),
        ("", ""),
        ("no base64!", "no base64!"),
        ("ñ", "ñ"),
        ("/w==", "/w=="),  # base64, of a byte that is no UTF-8
    ],
)
def test_what_is_not_percent_encoded_stays_as_it_is(field: str, text: str) -> None:
    assert decoded(field) == text


def test_a_text_of_ours_is_never_percent_decoded() -> None:
    assert decoded(b64("a%20b"), ours=True) == "a%20b"
    assert read_attempt({"event_id": "x-1", "stdout": b64("a%20b")}, "test")["stdout"] == b64("a%20b")
    assert read_attempt({"stdout": b64("a%20b")}, "test")["stdout"] == b64("a b")


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000_123.7, 1_700_000_000_123),
        ("1700000000123", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-15T00:13:20.5+02:00", 1_700_000_000_500),
        ("2024-02-29T00:00:00.000Z", 1_709_164_800_000),
        ("2024-03-01T00:00:00.000Z", 1_709_251_200_000),
        ("1999-12-31T23:59:59.999-0100", 946_688_399_999),
        (None, None),
        (True, None),
        ("soon", None),
        ("", None),
        ([1], None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_a_time_is_a_number_of_milliseconds_or_nothing(value: object, at: int | None) -> None:
    assert milliseconds(value) == at


CLI = {"starting_at": 10, "ended_at": 20, "exitCode": 1, "source_code": b64("x"), "stdout": b64("o"), "stderr": ""}


@pytest.mark.parametrize(
    ("raw", "kind", "adds"),
    [
        (CLI, "test", {"started_at": 10, "exit_code": 1}),
        ({**CLI, "exitCode": None}, "compile", {"started_at": 10, "exit_code": None}),
        ({"started_at": 10, "ended_at": 20, "exit_code": 0, "stdout": v5("ñ")}, "test", {"stdout": b64("ñ")}),
        ({"starting_at": 10, "ending_at": 20, "exit_code": 0}, "test", {"started_at": 10, "ended_at": 20}),
        (
            {"starting_at": 1_700_000_000_000, "ended_at": "2023-11-14T22:13:20.123Z", "exitCode": 0},
            "compile",
            {"started_at": 1_700_000_000_000, "ended_at": 1_700_000_000_123, "exit_code": 0},
        ),
        ({"starting_at": 10}, "test", {"started_at": 10, "ended_at": 10, "exit_code": None}),
        ({"ended_at": 20}, "test", {"started_at": 20, "ended_at": 20, "exit_code": None}),
        ({"exit_code": "0"}, "test", {"exit_code": None}),
        ({"exit_code": True}, "test", {"exit_code": None}),
        ({"student_message": "help", "starting_at": 10}, "ai_interaction", {"started_at": 10}),
        ({"status": "ERROR", "quiz_hash": "q"}, "quiz_submission", {}),
    ],
)
def test_an_attempt_gets_the_one_form_and_keeps_its_other_keys(
    raw: dict[str, Any], kind: str, adds: dict[str, Any]
) -> None:
    assert read_attempt(raw, kind) == {**raw, **adds}


@pytest.mark.parametrize("kind", ["compile", "test", "ai_interaction"])
def test_reading_the_one_form_again_changes_nothing(kind: str) -> None:
    once = read_attempt({**CLI, "stdout": v5("ñ\n"), "errorType": "run-time"}, kind)
    assert read_attempt(once, kind) == once


def test_an_attempt_read_twice_keeps_the_first_text_and_every_key() -> None:
    old = {"started_at": 1, "stdout": "first", "stderr": "", "exit_code": None}
    new = {"started_at": 1, "stdout": "second", "stderr": "more", "exit_code": 2, "signal": None}
    assert same_attempt(old, new) == {
        "started_at": 1,
        "stdout": "first",
        "stderr": "more",
        "exit_code": 2,
        "signal": None,
    }


def test_a_copy_whose_texts_were_left_out_never_hides_the_full_one() -> None:
    full = {"started_at": 1, "stdout": "all"}
    bare = {"started_at": 1, "stdout": "", "omitted": True}
    assert same_attempt(full, bare) == full
    assert same_attempt(bare, full) == full
    assert same_attempt(bare, bare) == bare


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ({"opened_at": 5}, {"opened_at": 9}, {"opened_at": 5}),
        ({"opened_at": 9}, {"opened_at": 5}, {"opened_at": 5}),
        ({"opened_at": 9}, {"opened_at": None}, {"opened_at": 9}),
        ({"opened_at": 9}, {}, {"opened_at": 9}),
        ({}, {"completed_at": 7}, {"completed_at": 7}),
        ({"last_interaction_at": 5}, {"last_interaction_at": 4}, {"last_interaction_at": 5}),
        ({"user_id": 1}, {"user_id": ""}, {"user_id": 1}),
        ({"agent": "os"}, {"agent": "vscode"}, {"agent": "vscode"}),
        ({"sessions": [1, 2]}, {"sessions": [1]}, {"sessions": [1, 2]}),
        ({"sessions": [1]}, {"sessions": [1, 2]}, {"sessions": [1, 2]}),
        ({"sessions": [1]}, {"sessions": "x"}, {"sessions": [1]}),
        ({"sessions": [5, 1]}, {"sessions": [4, 2, 3]}, {"sessions": [5, 2, 3]}),
        ({"sessions": None}, {"sessions": [1]}, {"sessions": [1]}),
    ],
)
def test_keys_read_twice_are_never_reduced(old: dict[str, Any], new: dict[str, Any], merged: dict[str, Any]) -> None:
    assert same_keys(old, new) == merged


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([(0, 1000)], [(4, 998)], {0: 0}),  # the launcher's times and LearnPack's
        ([(0, 1000)], [(0, 3500)], {0: 0}),
        ([(0, 1000)], [(0, 3501)], {}),  # the ends are too far apart
        ([(1000, 1260)], [(0, 260)], {}),  # two quick builds, of which each saw another
        ([(0, 260), (1000, 1260)], [(1003, 1259)], {1: 0}),  # the nearest
        ([(0, 260), (1000, 1260)], [(1, 261), (1001, 1261)], {0: 0, 1: 1}),
        ([(1203, 1203)], [(0, 1200)], {0: 0}),  # a React build, known by the files that it left
        ([(105, 105)], [(100, 100)], {0: 0}),  # an HTML build lasts 0 ms
        ([(100, None)], [(90, 9000)], {0: 0}),  # our end is not known
        ([(100, None)], [(2601, 9000)], {}),
        ([(0, 1000), (1, 1001)], [(2, 1002)], {1: 0}),  # one to one
        ([(0, 9000)], [(8000, 9100)], {0: 0}),
        ([], [(0, 1)], {}),
        ([(0, 1)], [], {}),
    ],
)
def test_the_same_run_is_found_once(
    ours: list[tuple[int, int | None]], theirs: list[tuple[int, int | None]], same: dict[int, int]
) -> None:
    def spans(times: list[tuple[int, int | None]]) -> list[Span]:
        return [Span(key, start, end) for key, (start, end) in enumerate(times)]

    assert pairs(spans(ours), spans(theirs)) == same


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([(0, 60_000)], [(1500, 50_000)], {0: 0}),  # LearnPack notes its start a little later
        ([(0, 60_000)], [(1500, None)], {0: 0}),
        ([(0, 60_000), (3_600_000, 3_700_000)], [(1500, None)], {0: 0}),  # never closed: no session of ours is lost
        ([(1_800_000, 3_600_000)], [(0, 3_500_000)], {0: 0}),  # the agent came later
        ([(0, 60_000)], [(80_000, None)], {}),
        ([(0, None)], [(80_000, 90_000)], {0: 0}),
    ],
)
def test_the_same_session_is_found_once(
    ours: list[tuple[int, int | None]], theirs: list[tuple[int, int | None]], same: dict[int, int]
) -> None:
    def spans(times: list[tuple[int, int | None]]) -> list[Span]:
        return [Span(key, start, end) for key, (start, end) in enumerate(times)]

    assert session_pairs(spans(ours), spans(theirs)) == same


def test_base64_of_bytes_that_are_no_text_stays_as_it_is() -> None:
    raw = "//4A"  # ff fe 00
    assert read_attempt({"starting_at": 1, "stdout": raw}, "test")["stdout"] == raw
