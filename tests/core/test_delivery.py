"""What becomes of what was sent: every answer by its number, and when to try again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.delivery import ALL_REJECTED, Circuit, Outcome, outcome_of

D, R, W, X = Outcome.DELIVERED, Outcome.RETRY, Outcome.WAIT, Outcome.REJECTED

#: The longest pause after so many failures in a row (ms): doubled each time, and never more than 15 minutes.
LONGEST = {1: 1_000, 2: 2_000, 3: 4_000, 4: 8_000, 5: 16_000, 9: 256_000, 10: 512_000, 11: 900_000, 1000: 900_000}
HOUR_MS = 3_600_000
NOW = 5_000_000

OUTCOMES = st.sampled_from(Outcome)
ALMOST_ONE = 1 - 2**-53
CHANCE = st.floats(0, ALMOST_ONE)


def expected(status: int) -> Outcome:
    """The issue's table, and that a redirect is not followed and a proxy's credentials are credentials."""
    match status:
        case 401 | 403 | 407:
            return W
        case 408 | 425 | 429:
            return R
    return {2: D, 3: W, 4: X}.get(status // 100, R)


@pytest.mark.parametrize("status", range(100, 600))
def test_each_status_has_its_outcome_and_its_number_in_the_words(status: int) -> None:
    outcome, words = outcome_of(status)

    assert outcome is expected(status)
    assert words.startswith(f"{status}: ") and len(words) > len("200: ")


def test_no_answer_is_tried_again() -> None:
    assert outcome_of(None) == (R, "no answer")


@pytest.mark.parametrize("status", [-1, 0, 1, 99, 600, 999, 10**9])
def test_what_is_no_status_of_http_is_no_reason_to_drop_or_to_acknowledge(status: int) -> None:
    assert outcome_of(status)[0] is R


@pytest.mark.parametrize(
    ("status", "what"), [(401, "credentials"), (403, "credentials"), (407, "proxy"), (301, "another address")]
)
def test_whoever_must_change_something_is_told_what(status: int, what: str) -> None:
    assert what in outcome_of(status)[1]


def after_failures(count: int) -> Circuit:
    circuit = Circuit()
    for _ in range(count):
        circuit = circuit.after(R, "503: it failed", NOW, 0.5)
    return circuit


@pytest.mark.parametrize(("failures", "longest"), LONGEST.items())
def test_the_pause_is_anything_up_to_the_longest_of_its_turn(failures: int, longest: int) -> None:
    before = after_failures(failures - 1)

    pauses = [before.after(R, "", NOW, chance / 1000).next_at - NOW for chance in range(1000)]

    assert min(pauses) == 50  # a server that fails at once isn't asked in a circle
    assert before.after(R, "", NOW, ALMOST_ONE).next_at - NOW == longest - 1
    # Full jitter: each thousandth of the time gets its share, nothing gathers anywhere.
    assert all(0 <= late - early <= longest // 1000 + 1 for early, late in pairwise(pauses))


def test_failures_are_counted_and_say_why() -> None:
    circuit = after_failures(3)

    assert (circuit.failures, circuit.waits, circuit.why) == (3, False, "503: it failed")


@given(st.integers(0, 30), CHANCE, st.integers(-(10**12), 10**12))
def test_a_retry_after_makes_the_pause_longer_and_never_shorter_up_to_an_hour(
    failures: int, chance: float, asked_ms: int
) -> None:
    before = after_failures(failures)
    ours = before.after(R, "", NOW, chance).next_at - NOW

    pause = before.after(R, "", NOW, chance, asked_ms).next_at - NOW

    assert pause == max(ours, min(asked_ms, HOUR_MS))
    assert ours <= pause <= HOUR_MS


def test_who_waits_for_somebody_asks_once_an_hour_whatever_the_chance() -> None:
    for chance in (0.0, 0.5, ALMOST_ONE):
        circuit = Circuit().after(W, "401: it wants credentials", NOW, chance)

        assert (circuit.waits, circuit.next_at, circuit.why) == (True, NOW + HOUR_MS, "401: it wants credentials")


def test_a_server_that_waits_and_then_fails_is_tried_again_soon() -> None:
    circuit = Circuit().after(W, "401", NOW, 0.5).after(R, "no answer", NOW, 0.5)

    assert not circuit.waits
    assert circuit.why == "no answer"
    assert circuit.next_at <= NOW + 2_000


def test_a_rejected_record_holds_up_nothing() -> None:
    circuit = Circuit().after(X, "400: it does not take this", NOW, 0.5)

    assert (circuit.next_at, circuit.waits, circuit.why, circuit.rejected) == (0, False, None, 1)


@pytest.mark.parametrize("earlier", [W, R])
def test_a_server_that_rejects_is_there_again_and_nothing_of_its_trouble_stays(earlier: Outcome) -> None:
    circuit = Circuit().after(earlier, "trouble", NOW, 0.5).after(X, "400", NOW, 0.5)

    assert circuit == Circuit(rejected=1)


def test_ten_rejected_in_a_row_are_not_the_records_fault() -> None:
    circuit = Circuit()
    for number in range(1, ALL_REJECTED):
        circuit = circuit.after(X, "400: no", NOW, 0.5)
        assert (circuit.rejected, circuit.waits) == (number, False)

    circuit = circuit.after(X, "400: no", NOW, 0.5)

    assert ALL_REJECTED == 10
    assert circuit.waits
    assert circuit.next_at == NOW + HOUR_MS
    assert circuit.why == "it rejects everything (400: no)"


def test_after_ten_rejections_one_more_an_hour_later_waits_again_and_one_that_is_taken_ends_it() -> None:
    circuit = Circuit(rejected=ALL_REJECTED, waits=True, next_at=NOW, why="it rejects everything")

    again = circuit.after(X, "404: no", NOW + HOUR_MS, 0.5)

    assert (again.waits, again.next_at) == (True, NOW + 2 * HOUR_MS)
    assert again.after(D, "200: taken", NOW, 0.5) == Circuit()


@pytest.mark.parametrize("between", [R, W])
def test_rejections_are_in_a_row_although_the_server_failed_between_them(between: Outcome) -> None:
    circuit = Circuit()
    for _ in range(ALL_REJECTED):
        circuit = circuit.after(between, "", NOW, 0.5).after(X, "400", NOW, 0.5)

    assert circuit.waits


@given(st.lists(st.tuples(OUTCOMES, CHANCE), max_size=40))
def test_one_that_was_taken_forgets_all_that_was_before(answers: list[tuple[Outcome, float]]) -> None:
    circuit = Circuit()
    for outcome, chance in answers:
        circuit = circuit.after(outcome, "words", NOW, chance)

    assert circuit.after(D, "200: taken", NOW, 0.5) == Circuit(failures=0, next_at=0, waits=False, why=None, rejected=0)


@given(st.lists(st.tuples(OUTCOMES, CHANCE), min_size=1, max_size=40))
def test_whatever_is_answered_nobody_is_left_alone_for_more_than_an_hour_and_a_pause_has_a_reason(
    answers: list[tuple[Outcome, float]],
) -> None:
    circuit = Circuit()
    for outcome, chance in answers:
        circuit = circuit.after(outcome, "words", NOW, chance)
        assert circuit.next_at <= NOW + HOUR_MS
        assert (circuit.next_at > 0) == (circuit.why is not None)
