"""How agents fare, as it is found in their state directories: with real journals, locks and agents."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from agent.config import Config, SinkConfig, course_key, course_state_dir
from agent.overview import CourseState, Sight, read_state, read_states
from agent.sensors.clock import now_ms
from agent.store.control import change_control
from agent.store.journal import NAME as JOURNAL
from agent.store.journal import SCHEMA, Journal
from agent.store.lock import Lock
from agent.store.outbox import Outbox, Parked
from tests.conftest import Stage
from tests.making import gap, ms, opened, session_end, session_start
from tests.standin.courses import PYTHON, make_course

STATUS: dict[str, Any] = {
    "pid": os.getpid(),
    "version": "9.8.7",
    "started_at": ms(0),
    "lost": 3,
    "processes": {"level": "pidfd", "blind_to": "most"},
    "files": {"level": "inotify", "blind_to": ""},
}


@pytest.fixture
def course(tmp_path: Path) -> str:
    return str(make_course(tmp_path / "course", PYTHON).resolve())


class Desk:
    def __init__(self, course: str, state_dir: Path) -> None:
        self.course = course
        self.config = Config(state_dir=str(state_dir))
        self.directory = Path(course_state_dir(self.config, course))

    def record(self, **status: Any) -> None:
        with Journal.open(self.directory, create=True) as journal:
            journal.append([session_start(0), gap(1, 2), opened("01-hello", 3), gap(4, 5), session_end(6)], None)
            journal.put_fact("status", STATUS | {"course": self.course} | status)

    def state(self) -> CourseState:
        return read_state(self.course, self.config.state_dir, self.config)


@pytest.fixture
def desk(course: str, state_dir: Path) -> Desk:
    return Desk(course, state_dir)


def test_a_course_of_which_nothing_is_recorded_has_a_state_without_trouble(desk: Desk) -> None:
    assert desk.state() == CourseState(course_key(desk.course), os.geteuid(), desk.course)
    assert read_states(desk.config.state_dir, desk.config) == []


def test_the_numbers_are_those_of_the_journal(desk: Desk) -> None:
    desk.record()
    state = desk.state()
    assert (state.events, state.gaps, state.last_event_at, state.version) == (5, 2, ms(6), "9.8.7")
    assert state.journal_bytes >= (desk.directory / JOURNAL).stat().st_size > 0
    assert state.trouble is None and state.silent is None


def test_no_record_is_read(desk: Desk) -> None:
    desk.record()
    with Journal.open(desk.directory, create=True) as journal:
        journal.connection.execute("UPDATE records SET body=x'ff', texts=x'ff'")
        asked: list[str] = []
        journal.connection.set_trace_callback(asked.append)
        assert journal.gaps == 2
        journal.connection.set_trace_callback(None)
        (plan,) = journal.connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()
    assert "USING INDEX records_of_step" in plan[-1]
    state = desk.state()
    assert (state.events, state.gaps, state.trouble) == (5, 2, None)


def test_what_an_agent_says_counts_while_it_runs_and_no_longer(desk: Desk) -> None:
    desk.record()
    lock = Lock.acquire(desk.directory)
    state = desk.state()
    assert (state.is_running, state.pid, state.lost, state.started_at) == (True, os.getpid(), 3, ms(0))
    assert (state.processes, state.files) == (Sight("pidfd", "most"), Sight("inotify"))
    lock.release()
    state = desk.state()
    assert (state.is_running, state.pid, state.lost, state.processes, state.files) == (False, None, 0, None, None)


def test_what_an_agent_said_in_an_earlier_life_is_not_told_of_this_one(desk: Desk) -> None:
    desk.record(pid=os.getpid() + 1)
    lock = Lock.acquire(desk.directory)
    state = desk.state()
    lock.release()
    assert (state.is_running, state.processes, state.lost) == (True, None, 0)


def test_a_journal_knows_its_course_and_no_other_one(desk: Desk) -> None:
    desk.record()
    (state,) = read_states(desk.config.state_dir, desk.config)
    assert (state.course, state.key) == (desk.course, desk.directory.name)
    desk.record(course="/etc")
    (state,) = read_states(desk.config.state_dir, desk.config)
    assert (state.course, state.events) == (None, 10)


def test_all_courses_are_found_and_other_directories_are_none(desk: Desk, tmp_path: Path) -> None:
    desk.record()
    other = str(tmp_path / "other")
    change_control(_made(course_state_dir(desk.config, other)), silent_since=1, silent_until=0)
    (Path(desk.config.state_dir) / "no-course").mkdir()
    (Path(desk.config.state_dir) / "link").symlink_to(desk.directory)
    found = read_states(desk.config.state_dir, desk.config)
    assert [one.key for one in found] == sorted([course_key(desk.course), course_key(other)])
    assert {one.key: one.silent for one in found}[course_key(other)] == "paused"


def _made(directory: str) -> str:
    os.makedirs(directory, mode=0o700)
    return directory


def test_why_nothing_is_recorded_is_told(desk: Desk) -> None:
    desk.record()
    change_control(desk.directory, silent_since=1, silent_until=now_ms() + 60_000)
    assert desk.state().silent == "paused"
    change_control(desk.directory, consent=False)
    assert desk.state().silent == "the student said no"
    (desk.directory / "control.json").write_text("{")
    assert desk.state().trouble == "control.json is damaged: it is no JSON"


def test_a_journal_that_can_t_be_read_is_a_trouble_of_one_line(desk: Desk) -> None:
    desk.record()
    with Journal.open(desk.directory, create=True) as journal:
        journal.connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
    assert "written by a newer learnpack-agent" in (desk.state().trouble or "")
    (desk.directory / JOURNAL).write_bytes(b"no database\n" * 100)
    trouble = desk.state().trouble or ""
    assert "not a database" in trouble and "\n" not in trouble


def test_a_document_that_is_not_written_is_a_trouble_of_the_running_agent(desk: Desk) -> None:
    desk.record(document="no\npermission")
    assert desk.state().trouble is None
    lock = Lock.acquire(desk.directory)
    assert desk.state().trouble == "telemetry.json is not written: no\\npermission"
    lock.release()


def test_what_waits_what_was_rejected_and_who_fails_is_counted(desk: Desk) -> None:
    desk.record()
    desk.config = Config(
        state_dir=desk.config.state_dir,
        sinks=(SinkConfig("one", "otlp", "http://127.0.0.1:9/"), SinkConfig("two", "xapi", "http://127.0.0.1:9/")),
    )
    assert desk.state().waiting == 5 + 3  # xAPI has no word for a gap
    with Journal.open(desk.directory, create=False, read_only=True) as journal:
        id_ = journal.id
    with Outbox(desk.directory, id_) as outbox:
        outbox.acknowledge("one", 4, Parked(2, ms(9), "400"))
        outbox.note("two", why="it failed")
        outbox.acknowledge("gone", 1)
    state = desk.state()
    assert (state.waiting, state.parked, state.failing) == (1 + 3, 1, 1)


def test_a_course_that_is_gone_still_has_its_state(desk: Desk) -> None:
    desk.record()
    shutil.rmtree(desk.course)
    assert (desk.state().events, desk.state().trouble) == (5, None)


def test_a_running_agent_tells_how_it_sees(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON)
    agent = stage.agent(course).start()
    config = Config(state_dir=str(agent.state))
    (state,) = read_states(str(agent.state), config)
    assert agent.process is not None
    assert (state.pid, state.course, state.version) == (agent.process.pid, str(course.resolve()), __version__)
    assert state.processes is not None and state.processes.level in ("connector", "pidfd", "polling")
    assert state.files is not None and state.files.level != "none"
