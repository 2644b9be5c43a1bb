"""The loop's own steps, one by one, with a real journal: what it does when the world, or it itself, fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import Config
from agent.core.events import Gap
from agent.core.observations import AgentStarted, CourseRead, RunRecorded
from agent.document_keeper import SERVER_SILENCE_MS
from agent.hosting.notify import Watchdog
from agent.sensors.clock import now_ms
from agent.sensors.course import read_course
from agent.sensors.processes.sensor import ProcessSensor
from agent.service import Agent
from agent.store.adoption import SINCE
from agent.store.journal import NAME, Journal, Record
from agent.store.lock import Lock, holder
from tests.core.world import SERVER, executed
from tests.making import a_compile, ms, opened
from tests.standin.courses import PYTHON, make_course
from tests.store.test_journal import files_no_larger_than

Start = Callable[[], Agent]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON)


@pytest.fixture
def start(course: Path, state_dir: Path) -> Iterator[Start]:
    """An agent whose sensors don't run: `start()`."""
    agents: list[Agent] = []

    def start() -> Agent:
        state_dir.mkdir(exist_ok=True)
        if agents:
            agents[-1].lock.release()  # the host's, in the agent's next life
        lock = Lock.acquire(state_dir)
        watchdog = Watchdog({}, os.getpid())
        agents.append(Agent(read_course(str(course)), Config(), str(state_dir), None, lock, watchdog))
        return agents[-1]

    yield start
    for agent in agents:
        agent._close()
        agent.lock.release()


def concluded(agent: Agent, slug: str = "01-hello") -> None:
    """The agent concludes that a step was opened, and tries to write that down."""
    agent._conclude([opened(slug, 1)])
    agent._flush()


def records(state_dir: Path) -> list[Record]:
    with Journal.open(state_dir, create=False, read_only=True) as journal:
        return list(journal.records())


def gaps(state_dir: Path) -> list[Gap]:
    return [record.event for record in records(state_dir) if isinstance(record.event, Gap)]


def names(state_dir: Path) -> list[str]:
    return [record.event.name for record in records(state_dir)]


# A journal that is lost in mid-life


def test_while_no_other_journal_can_be_begun_events_wait_and_the_loss_is_told_once(
    start: Start, state_dir: Path
) -> None:
    agent = start()
    concluded(agent)
    shutil.rmtree(state_dir)
    state_dir.touch()
    for slug in ("02-sum", "03-reading", "07-free"):
        concluded(agent, slug)
    state_dir.unlink()
    agent._flush()
    assert names(state_dir) == ["open_step", "gap", "open_step", "open_step"]
    assert [gap.reason for gap in gaps(state_dir)] == ["the journal was deleted"]
    assert holder(state_dir) == os.getpid()


def test_while_another_agent_has_the_course_events_wait(start: Start, state_dir: Path) -> None:
    agent = start()
    concluded(agent)
    shutil.rmtree(state_dir)
    state_dir.mkdir()
    other = Lock.acquire(state_dir)
    concluded(agent, "02-sum")
    assert not (state_dir / NAME).exists()
    other.release()
    agent._flush()
    assert names(state_dir) == ["open_step", "gap"]


def test_another_journal_knows_since_when_it_is_kept_and_what_the_agent_tells_of_itself(
    start: Start, state_dir: Path
) -> None:
    agent = start()
    agent._put_status(ready_at=5)
    shutil.rmtree(state_dir)
    began = now_ms()
    concluded(agent)
    with Journal.open(state_dir, create=False, read_only=True) as journal:
        assert journal.fact(SINCE) >= began
        assert journal.fact("status")["ready_at"] == 5


def destroy(agent: Agent, state_dir: Path) -> None:
    """All that lies on the disk of the journal is damaged, and SQLite has to read it again."""
    agent._journal.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (state_dir / NAME).open("r+b") as file:
        file.write(b"\xff" * (state_dir / NAME).stat().st_size)
    agent._journal.connection.execute("PRAGMA shrink_memory")


def test_a_journal_that_is_destroyed_is_replaced_as_soon_as_there_is_room(start: Start, state_dir: Path) -> None:
    agent = start()
    concluded(agent)
    destroy(agent, state_dir)
    with files_no_larger_than(100):
        for slug in ("02-sum", "03-reading", "07-free"):
            concluded(agent, slug)
    agent._flush()
    assert sorted(names(state_dir)) == ["gap", "open_step", "open_step", "open_step"]
    assert [gap.reason for gap in gaps(state_dir)] == ["the journal was damaged"]
    (aside,) = (
        path for path in state_dir.iterdir() if "damaged" in path.name and not path.name.endswith(("wal", "shm"))
    )
    assert set(aside.read_bytes()) == {0xFF}


def damage(journal: Journal, name: str) -> None:
    """The first page of a table or an index is damaged, and SQLite has to read it again."""
    execute = journal.connection.execute
    page_size = execute("PRAGMA page_size").fetchone()[0]
    (page,) = execute("SELECT rootpage FROM sqlite_master WHERE name=?", (name,)).fetchone()
    execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with journal.path.open("r+b") as file:
        file.seek((page - 1) * page_size)
        file.write(b"\xff" * page_size)
    execute("PRAGMA shrink_memory")


def test_damage_that_is_not_met_by_opening_is_moved_aside_too(start: Start, state_dir: Path) -> None:
    agent = start()
    concluded(agent)
    damage(agent._journal, "records_of_step")
    concluded(agent, "02-sum")
    assert sorted(names(state_dir)) == ["gap", "open_step"]


# What can't be read at the start


def test_a_journal_with_a_fact_that_cannot_be_read_is_moved_aside(start: Start, state_dir: Path) -> None:
    start()._close()
    with Journal.open(state_dir, create=False) as journal:
        journal.put_fact("document", {})
        journal.connection.execute("UPDATE facts SET value=x'7b' WHERE key='document'")
    start()._flush()
    (gap,) = gaps(state_dir)
    assert gap.reason.startswith("the journal was damaged and moved aside to journal.sqlite3.damaged-")


@pytest.mark.parametrize("table", ["records", "facts"])
def test_a_journal_whose_first_reads_meet_damage_is_moved_aside(start: Start, state_dir: Path, table: str) -> None:
    start()._close()
    with Journal.open(state_dir, create=False) as journal:
        journal.append([opened("01-hello", 1)], b"x" * 20_000)
        damage(journal, table)
    start()._flush()
    (gap,) = gaps(state_dir)
    assert gap.reason.startswith("the journal was damaged and moved aside to journal.sqlite3.damaged-")


@pytest.mark.parametrize("state", [b"{", b"[]", b'{"session": 7}', b"\xff", "text", 7])
def test_a_state_that_cannot_be_read_is_a_gap_since_the_newest_record(
    start: Start, state_dir: Path, state: object
) -> None:
    with Journal.open(state_dir, create=True) as journal:
        journal.append([opened("01-hello", 1), a_compile("01-hello", 2, 3)], b"{}")
        journal.connection.execute("UPDATE facts SET value=? WHERE key='state'", (state,))
    start()._flush()
    (gap,) = gaps(state_dir)
    assert gap.reason == "what was known before the restart could not be read"
    assert gap.started_at == ms(3) < gap.at


# LearnPack's own telemetry


def test_a_run_that_only_learnpacks_telemetry_tells_of_is_no_sign_that_it_has_none(start: Start, course: Path) -> None:
    agent = start()
    agent._handle(AgentStarted(now_ms()))
    agent._handle(CourseRead(now_ms(), read_course(str(course))))
    began = now_ms()
    agent._handle(executed(began, 10, SERVER, cwd=str(course.resolve())))
    agent._document.handle(now_ms(), agent._course)
    agent._handle(RunRecorded(now_ms(), "01-hello", "compile", began, began + 100, 0))
    agent._flush()
    assert agent._document.deadline() == began + SERVER_SILENCE_MS


# What it counts


def test_processes_that_were_left_out_are_told_with_the_next_observation(
    start: Start, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start()
    monkeypatch.setattr(ProcessSensor, "skipped", 2)
    agent._queue.put(AgentStarted(now_ms()))
    agent._wait()
    with Journal.open(state_dir, create=False, read_only=True) as journal:
        assert journal.fact("status")["skipped"] == 2


# Another configuration


def test_what_can_be_changed_in_mid_life_is_changed_and_the_rest_is_not(start: Start) -> None:
    agent = start()
    for fixed in (
        replace(Config(), session_silence_minutes=1),
        replace(Config(), idle_minutes=1),
        replace(Config(), output_max_kb=1),
        replace(Config(), process_sensor="polling"),
    ):
        assert not agent.set_config(replace(fixed, document_max_mb=3))
        assert agent._document.file.limit == Config().document_max_mb << 20
    assert agent.set_config(replace(Config(), document_max_mb=3, journal_max_mb=7))
    assert agent._document.file.limit == 3 << 20
    assert agent._config.journal_max_mb == 7


# The end


@pytest.mark.parametrize(("calls", "has_ended"), [([False], False), ([True], True), ([True, False], True)])
def test_the_session_ends_with_the_agent_unless_another_begins_at_once(
    start: Start, course: Path, state_dir: Path, calls: list[bool], has_ended: bool
) -> None:
    agent = start()
    agent._handle(AgentStarted(now_ms()))
    agent._handle(CourseRead(now_ms(), read_course(str(course))))
    agent._handle(executed(now_ms(), 10, SERVER, cwd=str(course.resolve())))
    for is_end in calls:
        agent.stop(is_end=is_end)
    agent._close()
    assert names(state_dir) == ["session_start", *(["session_end"] if has_ended else [])]


def test_whatever_fails_at_the_end_the_rest_is_still_tried(start: Start, state_dir: Path, course: Path) -> None:
    agent = start()
    agent._conclude([opened("01-hello", 1)])
    agent._queue.put("no observation")  # a mistake of ours: nothing can handle it
    with pytest.raises(AttributeError):
        agent._close()
    assert "open_step" in names(state_dir)
    with Journal.open(state_dir, create=False, read_only=True) as journal:
        assert "stopped_at" in journal.fact("status")
    assert json.loads((course / ".learn/telemetry.json").read_text())["steps"]


def test_a_bounded_journal_drops_the_oldest_outputs_and_says_so(
    course: Path, state_dir: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start()
    monkeypatch.setattr(agent, "_config", replace(Config(), journal_max_mb=1))
    run = a_compile("01-hello", 1, 2)
    large = replace(run, run=replace(run.run, stdout="x" * 40_000))
    for _ in range(60):
        agent._conclude([large])
        agent._flush()
        assert agent._journal.size < 1.2 * (1 << 20)
    reasons = [gap.reason for gap in gaps(state_dir)]
    assert reasons
    assert all(reason.startswith("the oldest programs and outputs were dropped, of ") for reason in reasons)
    assert names(state_dir).count("compile") == 60
    assert not agent._waiting
