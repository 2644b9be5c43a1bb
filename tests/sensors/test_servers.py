"""One look at the process table: does a LearnPack server of this course live?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.sensors.course import read_course
from agent.sensors.processes import servers
from agent.sensors.processes.level import Refused
from agent.sensors.processes.procfs import has_procfs
from agent.store.lock import NAME, Lock
from tests.conftest import Stage
from tests.standin.courses import PYTHON, make_course


@pytest.mark.parametrize("with_procfs", [True, False])
def test_a_living_server_of_this_course_is_found_and_no_other(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_procfs: bool
) -> None:
    if with_procfs and not has_procfs():
        pytest.skip("this machine has no /proc")
    monkeypatch.setattr(servers, "has_procfs", lambda: with_procfs)
    course = read_course(str(make_course(tmp_path / "course", PYTHON)))
    other = read_course(str(make_course(tmp_path / "other", PYTHON)))
    assert servers.server_of(course) is None
    learnpack = stage.learnpack(Path(course.root)).start()
    assert servers.server_of(course) == learnpack.pid
    assert servers.server_of(other) is None
    learnpack.stop()
    assert servers.server_of(course) is None


def test_where_processes_can_not_be_read_none_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise Refused("psutil is not installed")

    monkeypatch.setattr(servers, "has_procfs", lambda: False)
    monkeypatch.setattr(servers, "Psutil", refused)
    course = read_course(str(make_course(tmp_path / "course", PYTHON)))
    assert servers.server_of(course) is None


@pytest.mark.parametrize("with_procfs", [True, False])
def test_a_process_that_holds_a_courses_lock_is_its_agent_wherever_the_lock_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_procfs: bool
) -> None:
    if with_procfs and not has_procfs():
        pytest.skip("this machine has no /proc")
    monkeypatch.setattr(servers, "has_procfs", lambda: with_procfs)
    end = f"/{tmp_path.name}-5eed/lock"
    assert servers.agent_of(end) is None
    lock = tmp_path / f"anywhere{end}"
    lock.parent.mkdir(parents=True)
    with lock.open("w"):
        assert servers.agent_of(end) == os.getpid()
        assert servers.agent_of(f"/other{end}") is None
    assert servers.agent_of(end) is None


def test_where_processes_can_not_be_read_no_agent_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise Refused("psutil is not installed")

    monkeypatch.setattr(servers, "has_procfs", lambda: False)
    monkeypatch.setattr(servers, "Psutil", refused)
    assert servers.agent_of("/lock") is None


def test_of_two_agents_of_a_course_with_different_state_directories_the_later_one_sees_the_earlier(
    tmp_path: Path,
) -> None:
    locks = {}
    for name in ("earlier", "later"):
        directory = tmp_path / name / "course-1234abcd"
        directory.mkdir(parents=True)
        locks[name] = Lock.acquire(directory), str(directory / NAME)
    os.utime(locks["earlier"][1], ns=(1, 1))
    assert servers.agent_before(locks["later"][1]) == os.getpid()
    assert servers.agent_before(locks["earlier"][1]) is None
    locks["earlier"][0].release()
    assert servers.agent_before(locks["later"][1]) is None
    locks["later"][0].release()
