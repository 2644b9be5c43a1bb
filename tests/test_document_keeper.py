"""When the document is read, written and left alone: the keeper with a real file and a real journal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import document_keeper
from agent.core.events import Output
from agent.core.observations import Observation, RunRecorded
from agent.document_keeper import SERVER_SILENCE_MS, TORN_MS, WRITE_DELAY_MS, DocumentKeeper
from agent.sensors.clock import now_ms
from agent.store.document_file import DocumentFile
from agent.store.journal import Journal
from agent.store.recorded import recorded
from tests.making import COURSE, a_test, attempt, learnpack_document, learnpack_step


class Desk:
    """A keeper, the course's directory, and what it concluded; `learnpack_since` is a LearnPack server's start."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self.path = directory / "course/.learn/telemetry.json"
        self.path.parent.mkdir(parents=True)
        self.journal = journal
        self.learnpack_since: int | None = None
        self.is_testing = False
        self.concluded: list[Observation] = []
        self.is_durable = True
        self.status: dict[str, object] = {}
        file = DocumentFile(directory / "course", journal)
        self.keeper = DocumentKeeper(
            file, lambda: self.learnpack_since, lambda: self.is_testing, self._conclude, self.status.update
        )

    def _conclude(self, observations: list[Observation]) -> bool:
        self.concluded += observations
        return self.is_durable

    def learnpack_writes(self, text: str) -> None:
        self.path.write_text(text)
        os.utime(self.path, ns=((now_ms() - 100) * 1_000_000,) * 2)
        self.keeper.noticed(now_ms() - 100)

    def work(self) -> None:
        """Do everything that becomes due in the next minute."""
        for _ in range(20):
            deadline = self.keeper.deadline()
            if deadline is None or deadline > now_ms() + 60_000:
                return
            self.keeper.handle(max(deadline, now_ms()), COURSE)

    @property
    def written(self) -> bool:
        return self.path.exists() and "event_id" in self.path.read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Journal.open(tmp_path / "state", create=True) as journal:
        journal.append([a_test("01-hello", 1, 2)], None)
        yield Desk(tmp_path, journal)


DOCUMENT = json.dumps(learnpack_document(learnpack_step("02-loop", compilations=[attempt(2, 3)])))


def test_without_learnpack_the_document_follows_the_journal(desk: Desk) -> None:
    now = now_ms()
    desk.keeper.changed(now)
    assert desk.keeper.deadline() == 0  # what waits since the agent's last life
    desk.keeper.handle(now, COURSE)
    assert desk.keeper.deadline() == now + WRITE_DELAY_MS
    desk.work()
    assert desk.written


def test_a_young_and_silent_server_is_waited_for(desk: Desk) -> None:
    desk.learnpack_since = now_ms() - 1_000
    desk.keeper.handle(now_ms(), COURSE)
    desk.keeper.changed(now_ms())
    assert desk.keeper.deadline() == desk.learnpack_since + SERVER_SILENCE_MS


def test_what_a_living_server_wrote_is_read_and_not_written(desk: Desk) -> None:
    desk.learnpack_since = now_ms() - 60_000
    desk.keeper.changed(now_ms())
    desk.learnpack_writes(DOCUMENT)
    desk.work()
    assert desk.path.read_text() == DOCUMENT
    assert [one.slug for one in desk.concluded if isinstance(one, RunRecorded)] == ["02-loop"]
    desk.learnpack_since = None
    desk.keeper.changed(now_ms(), at_once=True)
    desk.work()
    assert desk.written and "02-loop" in desk.path.read_text()


@pytest.mark.parametrize("is_noticed", [True, False])
def test_what_learnpack_wrote_last_is_concluded_at_the_end(desk: Desk, is_noticed: bool) -> None:
    desk.keeper.handle(now_ms(), COURSE)
    if is_noticed:
        desk.learnpack_writes(DOCUMENT)
    else:
        desk.path.write_text(DOCUMENT)
        desk.keeper.changed(now_ms())
    desk.keeper.finish(now_ms(), COURSE)
    assert [one.slug for one in desk.concluded if isinstance(one, RunRecorded)] == ["02-loop"]


def test_what_could_not_be_made_durable_yet_is_told_once_in_this_life(desk: Desk) -> None:
    desk.is_durable = False
    desk.learnpack_writes(DOCUMENT)
    desk.work()
    told = len(desk.concluded)
    assert told > 0
    again = recorded(desk.journal, now_ms(), is_logged_in=False)
    assert len(again.observations) == told  # for the next life of the agent, if this one dies now
    desk.is_durable = True
    desk.keeper.handle(desk.keeper.deadline() or 0, COURSE)
    assert len(desk.concluded) == told
    assert recorded(desk.journal, now_ms(), is_logged_in=False).rows == ()


@pytest.mark.parametrize("torn", ["", DOCUMENT[:-40], DOCUMENT + '"}]}'])
def test_a_document_on_which_learnpack_could_not_start_is_mended_also_while_one_lives(
    desk: Desk, torn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_keeper, "TORN_MS", 60_000)  # whatever holds this test up, it is not over before
    desk.learnpack_since = now_ms() - 60_000
    desk.keeper.handle(now_ms(), COURSE)
    desk.learnpack_writes(torn)
    desk.keeper.handle(now_ms(), COURSE)
    deadline = desk.keeper.deadline()
    assert deadline is not None and deadline > now_ms()
    assert desk.path.read_text() == torn  # LearnPack may be about to write the rest
    desk.keeper.handle(now_ms() + 60_000, COURSE)
    assert json.loads(desk.path.read_text())["steps"]
    assert desk.written


@pytest.mark.parametrize("then", [DOCUMENT, None], ids=["finished", "deleted"])
def test_a_torn_document_that_is_whole_or_gone_before_it_is_mended_is_left_alone(desk: Desk, then: str | None) -> None:
    desk.learnpack_since = now_ms() - 60_000
    desk.keeper.handle(now_ms(), COURSE)
    desk.learnpack_writes(DOCUMENT[:100])
    desk.keeper.handle(now_ms(), COURSE)
    if then is None:
        desk.path.unlink()
    else:
        desk.path.write_text(then)  # and no notice: a polled file system tells of it later
    desk.keeper.handle(now_ms() + TORN_MS, COURSE)
    assert (desk.path.read_text() if desk.path.exists() else None) == then


def test_a_document_that_is_whole_again_in_time_is_left_alone(desk: Desk) -> None:
    desk.learnpack_since = now_ms() - 60_000
    desk.keeper.handle(now_ms(), COURSE)
    desk.learnpack_writes(DOCUMENT[:100])
    desk.keeper.handle(now_ms(), COURSE)
    desk.learnpack_writes(DOCUMENT)
    desk.work()
    assert desk.path.read_text() == DOCUMENT


def test_an_empty_document_of_a_server_that_tests_is_waited_for(desk: Desk) -> None:
    desk.learnpack_since, desk.is_testing = now_ms() - 60_000, True
    desk.keeper.handle(now_ms(), COURSE)
    desk.learnpack_writes("")
    desk.keeper.handle(now_ms(), COURSE)
    for _ in range(5):
        desk.keeper.handle(desk.keeper.deadline() or 0, COURSE)
    assert desk.path.read_text() == ""
    desk.is_testing = False
    desk.keeper.handle(desk.keeper.deadline() or 0, COURSE)
    assert desk.written


def test_a_course_that_is_gone_is_not_made_again(desk: Desk) -> None:
    desk.keeper.handle(now_ms(), COURSE)
    desk.keeper.is_gone = True
    desk.keeper.changed(now_ms(), at_once=True)
    desk.keeper.noticed(now_ms())
    assert desk.keeper.deadline() is None
    desk.keeper.finish(now_ms(), COURSE)
    assert not desk.path.exists()


def test_what_is_due_moves_with_the_clock(desk: Desk) -> None:
    desk.keeper.handle(now_ms(), COURSE)
    desk.keeper.changed(1_000)
    before = desk.keeper.deadline()
    desk.keeper.shift(5_000)
    assert before is not None and desk.keeper.deadline() == before + 5_000


def test_what_learnpack_wrote_without_a_notice_yet_is_not_replaced(desk: Desk) -> None:
    desk.learnpack_since = now_ms() - 60_000
    desk.keeper.handle(now_ms(), COURSE)
    desk.keeper.learnpack_ran()
    desk.keeper.changed(now_ms())
    desk.path.write_text(DOCUMENT)  # as it does some ms after the run
    desk.keeper.handle(now_ms() + WRITE_DELAY_MS, COURSE)
    assert desk.path.read_text() == DOCUMENT
    assert desk.keeper.deadline() is None


def test_when_something_is_due_is_known_without_a_look(desk: Desk) -> None:
    desk.keeper.changed(now_ms())
    desk.work()  # a document lies there: whose it is can be asked
    desk.learnpack_since = desk.path.stat().st_mtime_ns // 1_000_000 - 1_000
    desk.keeper.changed(now_ms())
    deadline = desk.keeper.deadline()
    desk.journal.close()
    assert deadline is not None and desk.keeper.deadline() == deadline


def test_another_journal_is_asked_for_what_waits_in_it_and_not_for_the_rows_of_the_former(
    desk: Desk, tmp_path: Path
) -> None:
    desk.is_durable = False
    desk.learnpack_writes(DOCUMENT)
    desk.work()
    assert len(desk.concluded) == 1
    desk.is_durable = True
    with Journal.open(tmp_path / "other", create=True) as other:
        desk.keeper.use(other)
        desk.learnpack_writes(DOCUMENT)  # its row gets the key that it had in the former journal
        desk.work()
        assert len(desk.concluded) == 2
        assert recorded(other, now_ms(), is_logged_in=False).rows == ()


def test_how_large_the_document_is_and_how_many_texts_it_lacks_is_told(desk: Desk) -> None:
    desk.journal.append([a_test("01-hello", 3, 4, stdout="x" * 5_000, output=Output.FULL)], None)
    desk.keeper.changed(now_ms())
    desk.work()
    size = desk.path.stat().st_size
    assert desk.status == {"document": None, "document_size": size, "document_omitted": 0}
    desk.keeper.file.limit = 1_000
    desk.keeper.changed(now_ms())
    desk.work()
    assert desk.status["document_omitted"] == 1
    assert desk.status["document_size"] == desk.path.stat().st_size < size
