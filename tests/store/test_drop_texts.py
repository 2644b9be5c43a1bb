"""The journal that an admin bounds: the oldest programs and outputs go, runs stay, and every reader says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.core.events import Test
from agent.store.fold import chunks, plan
from agent.store.journal import Journal
from agent.store.lines import Lines
from tests.making import COURSE, a_test, opened

OUTPUT = "x" * 20_000


def printed(number: int) -> Test:
    test = a_test("01-hello", number * 10, number * 10 + 5)
    return replace(test, run=replace(test.run, stdout=OUTPUT, source_code="print()"))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state", create=True) as journal:
        journal.append([opened("01-hello", 1), *map(printed, range(40))], None)
        yield journal


def document(journal: Journal) -> list[dict[str, Any]]:
    folded = orjson.loads(b"".join(chunks(journal, plan(journal, COURSE, 5))))
    tests: list[dict[str, Any]] = next(step for step in folded["steps"] if step["slug"] == "01-hello")["tests"]
    return tests


def test_the_oldest_texts_go_first_and_no_more_than_needed(journal: Journal) -> None:
    size = journal.size
    assert journal.drop_texts(100_000) == (5, 6)  # the first record is no run
    assert size - journal.size >= 90_000
    assert journal.dropped_to == 6
    assert [test.get("omitted", False) for test in document(journal)] == [True] * 5 + [False] * 35
    assert [test["stdout"] == "" for test in document(journal)] == [True] * 5 + [False] * 35


def test_what_is_dropped_later_adds_to_what_was_dropped_before(journal: Journal) -> None:
    journal.drop_texts(100_000)
    assert journal.drop_texts(100_000) == (5, 11)
    assert sum(test.get("omitted", False) for test in document(journal)) == 10


def test_the_newest_keep_theirs_whatever_is_asked_for(journal: Journal) -> None:
    assert journal.drop_texts(1 << 40) == (24, 25)
    assert journal.drop_texts(1 << 40) == (0, 0)
    assert journal.dropped_to == 25
    assert [test.get("omitted", False) for test in document(journal)] == [True] * 24 + [False] * 16


def test_the_room_is_used_again_before_the_file_grows(journal: Journal, tmp_path: Path) -> None:
    journal.drop_texts(1 << 40)
    pages = journal.connection.execute("PRAGMA page_count").fetchone()[0]
    journal.append([printed(number) for number in range(40, 60)], None)
    assert journal.connection.execute("PRAGMA page_count").fetchone()[0] <= pages


def test_a_line_says_that_its_texts_were_dropped(journal: Journal) -> None:
    journal.drop_texts(100_000)
    lines = Lines(journal)
    told = [lines.public(record) for record in journal.records()]
    assert [line["number"] for line in told if line.get("omitted")] == [2, 3, 4, 5, 6]
    assert {line["stdout"] for line in told if line.get("omitted")} == {None}
    assert [lines.data(record)["omitted"] for record in journal.records(after=1) if record.number <= 6] == [True] * 5


def test_a_document_that_is_bounded_too_counts_each_run_once(journal: Journal) -> None:
    journal.drop_texts(100_000)
    folded = plan(journal, COURSE, 5, limit=500_000)
    assert folded.texts_from > 7
    assert folded.omitted == folded.texts_from - 2
