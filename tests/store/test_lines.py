"""Records as others get them: LearnPack's texts where ours are missing, ids that stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.course import Course
from agent.core.events import Compile, Event
from agent.store.adoption import adopt
from agent.store.journal import Journal
from agent.store.lines import Lines, telemetry_id
from tests.making import (
    COURSE,
    FULL,
    a_compile,
    a_test,
    asked,
    attempt,
    b64,
    completed,
    gap,
    learnpack_document,
    learnpack_step,
    ms,
    opened,
    reset,
    session_end,
    session_start,
)


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    with Journal.open(state_dir, create=True) as journal:
        yield journal


def adopted(journal: Journal, document: object, course: Course = COURSE) -> None:
    data = json.dumps(document).encode()
    adopt(journal, course, lambda offset, size: data[offset : offset + size])


ALL: list[Event] = [
    session_start(0),
    opened("01-hello", 1),
    a_compile("01-hello", 2, 3, 1, **FULL),
    a_test("01-hello", 4, 5),
    completed("01-hello", 5),
    reset("01-hello", 6),
    asked("01-hello", 7, 8),
    gap(9, 10),
    session_end(11),
]


def test_every_event_is_a_line_with_its_number_and_an_id_of_its_own_that_stays(journal: Journal) -> None:
    journal.append(ALL, None)
    first = [json.loads(Lines(journal).line(record)) for record in journal.records()]
    assert [line["number"] for line in first] == list(range(1, 10))
    assert [line["event"] for line in first] == [event.name for event in ALL]
    assert len({line["id"] for line in first}) == len(ALL)
    assert [json.loads(Lines(journal).line(record)) for record in journal.records()] == first
    assert all(b"\n" not in Lines(journal).line(record) for record in journal.records())


def test_only_runs_and_questions_have_data_in_learnpacks_form_with_the_records_id(journal: Journal) -> None:
    journal.append(ALL, None)
    lines = Lines(journal)
    data = {record.event.name: lines.data(record) for record in journal.records()}
    ids = {record.event.name: record.id for record in journal.records()}
    assert {name for name, found in data.items() if found} == {"compile", "test", "ai_interaction"}
    for name in ("compile", "test", "ai_interaction"):
        assert data[name]["event_id"] == ids[name]
    run = data["compile"]
    assert (run["started_at"], run["ended_at"], run["exit_code"]) == (ms(2), ms(3), 1)
    assert (run["stdout"], run["source_code"]) == (b64("ñandú\n"), b64("print('ñandú')\n"))
    said = data["ai_interaction"]
    assert (said["student_message"], said["ai_response"], said["source_code"]) == ("why?", "so", b64("print()\n"))


def test_learnpacks_texts_stand_in_where_ours_were_not_captured_and_nowhere_else(journal: Journal) -> None:
    journal.append(
        [a_test("01-hello", 2, 3, 1), a_compile("01-hello", 2, 3), a_compile("01-hello", 20, 21, **FULL)], None
    )
    theirs = attempt(2, 3, 1, stdout=b64("theirs\n"), stderr=b64("oh\n"))
    adopted(
        journal,
        learnpack_document(
            learnpack_step("01-hello", tests=[theirs], compilations=[attempt(20, 21, stdout=b64("theirs\n"))])
        ),
    )
    lines = Lines(journal)
    test, compile_, full = (lines.public(record) for record in journal.records())
    assert (test["stdout"], test["stderr"]) == ("theirs\n", "oh\n")
    assert compile_["stdout"] is None
    assert full["stdout"] == "ñandú\n"
    first, _, third = (lines.data(record) for record in journal.records())
    assert (first["stdout"], third["stdout"]) == (b64("theirs\n"), b64("ñandú\n"))


def test_what_learnpack_wrote_later_is_found_for_a_later_record(journal: Journal) -> None:
    lines = Lines(journal)
    journal.append([a_test("01-hello", 2, 3)], None)
    assert lines.public(next(journal.records()))["stdout"] is None
    adopted(journal, learnpack_document(learnpack_step("01-hello", tests=[attempt(9, 10, stdout=b64("late"))])))
    journal.append([a_test("01-hello", 9, 10)], None)
    assert lines.public(next(journal.records(after=1)))["stdout"] == "late"


def test_bytes_that_are_no_text_come_through_as_valid_json(journal: Journal) -> None:
    journal.append([a_compile("01-hello", 2, 3, **{**FULL, "stdout": "a\udcffb\0"})], None)
    (record,) = journal.records()
    assert isinstance(record.event, Compile)
    line = Lines(journal).line(record)
    assert json.loads(line.decode("utf-8"))["stdout"].startswith("a")


def test_the_documents_id_is_learnpacks_where_it_has_one_else_the_journals(journal: Journal) -> None:
    assert telemetry_id(journal) == journal.id
    adopted(journal, learnpack_document())
    assert telemetry_id(journal) == "lp00lp00lp00lp00"


def test_a_journal_that_is_written_at_this_moment_can_be_read(journal: Journal, state_dir: Path) -> None:
    journal.append(ALL[:3], None)
    with Journal.open(state_dir, create=False, read_only=True) as other:
        lines = Lines(other)
        with journal.transaction():
            journal._inserted(ALL[3])
            assert len([lines.line(record) for record in other.records()]) == 3
        assert len([lines.line(record) for record in other.records()]) == 4
