"""What only LearnPack tells of is told once, whatever was seen, whenever the agent died."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.events import AiInteraction, Interaction
from agent.core.observations import InteractionRecorded, RunRecorded
from agent.store.adoption import SINCE, adopt, concluded, waiting
from agent.store.journal import Journal
from agent.store.recorded import PATIENCE_MS, recorded
from tests.making import COURSE, a_test, attempt, b64, evidence, learnpack_document, learnpack_step, ms, name

LATER = ms(100)
AI = {"student_message": "why?", "source_code": b64("x"), "ai_response": "so", "starting_at": ms(5), "ending_at": ms(6)}
TALK = Interaction(ms(5), ms(6), "why?", "so", "x")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state", create=True) as journal:
        yield journal


def take(journal: Journal, **lists: Any) -> None:
    data = json.dumps(learnpack_document(learnpack_step("01-hello", **lists))).encode()
    adopt(journal, COURSE, lambda offset, size: data[offset : offset + size])


def told(journal: Journal, now: int = LATER, *, is_logged_in: bool = False) -> list[Any]:
    found = recorded(journal, now, is_logged_in=is_logged_in)
    concluded(journal, found.rows)
    return list(found.observations)


def test_a_run_is_told_once(journal: Journal) -> None:
    take(journal, tests=[attempt(2, 3, 1)], compilations=[attempt(4, 5)])
    told_of = told(journal)
    assert [(one.event, one.started_at, one.ended_at, one.exit_code, one.was_seen) for one in told_of] == [
        ("test", ms(2), ms(3), 1, False),
        ("compile", ms(4), ms(5), 0, False),
    ]
    take(journal, tests=[attempt(2, 3, 1)], compilations=[attempt(4, 5)])
    assert told(journal) == []


def test_what_it_printed_comes_decoded(journal: Journal) -> None:
    take(journal, tests=[attempt(2, 3, 1) | {"stdout": b64("ñ\n"), "source_code": b64("print()"), "stderr": ""}])
    (one,) = told(journal)
    assert isinstance(one, RunRecorded) and (one.source_code, one.stdout, one.stderr) == ("print()", "ñ\n", None)


def test_a_run_that_the_agent_saw_is_told_as_seen(journal: Journal) -> None:
    journal.append([a_test("01-hello", 2, 3.001, 0)], None)
    take(journal, tests=[attempt(2, 3, 0)])
    assert [one.was_seen for one in told(journal)] == [True]


def test_a_run_waits_until_the_agent_would_have_concluded_it(journal: Journal) -> None:
    take(journal, tests=[attempt(2, 3, 1)])
    early = recorded(journal, ms(3) + PATIENCE_MS - 1, is_logged_in=False)
    assert (early.observations, early.rows, early.next_at) == ((), (), ms(3) + PATIENCE_MS)
    assert len(told(journal, ms(3) + PATIENCE_MS)) == 1


def test_a_run_of_a_clock_that_went_wrong_does_not_wait_for_years(journal: Journal) -> None:
    take(journal, tests=[attempt(2, 3_000_000, 1)])
    assert len(told(journal, ms(50))) == 1


def test_it_is_told_again_when_the_agent_died_before_it_was_durable(journal: Journal) -> None:
    take(journal, tests=[attempt(2, 3, 1)])
    assert len(recorded(journal, LATER, is_logged_in=False).observations) == 1
    assert len(recorded(journal, LATER, is_logged_in=False).observations) == 1
    # Durable, but it died before that was noted: the journal has it.
    journal.append([a_test("01-hello", 2, 3, 1)], None)
    assert [one.was_seen for one in told(journal)] == [True]
    assert waiting(journal) == []


def test_the_talk_with_the_tutor_is_told_only_while_the_student_is_logged_in(journal: Journal) -> None:
    take(journal, ai_interactions=[AI])
    assert told(journal, is_logged_in=False) == []
    take(journal, ai_interactions=[AI])
    assert told(journal, is_logged_in=True) == []  # it was said to somebody who was not
    take(journal, ai_interactions=[AI, AI | {"ending_at": ms(9)}])
    assert told(journal, is_logged_in=True) == [
        InteractionRecorded(LATER, "01-hello", Interaction(ms(5), ms(9), "why?", "so", "x"))
    ]


def test_a_talk_that_is_journaled_is_not_told_again(journal: Journal) -> None:
    take(journal, ai_interactions=[AI])
    journal.append([AiInteraction(ms(6), name("01-hello"), TALK, evidence(ms(6)))], None)
    assert told(journal, is_logged_in=True) == []


def test_what_was_recorded_before_the_journal_was_begun_stays_in_the_document(journal: Journal) -> None:
    journal.put_fact(SINCE, ms(4))
    take(journal, tests=[attempt(2, 3, 1), attempt(4, 5, 0)])
    assert [one.started_at for one in told(journal)] == [ms(4)]


def test_quiz_submissions_and_what_another_agent_wrote_wait_for_nobody(journal: Journal) -> None:
    theirs = attempt(2, 3, 1) | {"event_id": "anotherjournal00-7"}
    take(journal, tests=[theirs], quiz_submissions=[{"status": "SUCCESS"}])
    assert waiting(journal) == []
