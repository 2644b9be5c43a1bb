"""All agents at once: who sees whose, what each student's files can do to root's look, and which managers there are."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import machine, overview
from agent.config import Config, ConfigError, Fault, course_key
from agent.hosting.launchd import Launchd
from agent.hosting.manager import Instance, State
from agent.hosting.systemd import Systemd
from agent.machine import Watched, all_watched, managers
from agent.overview import CourseState
from agent.store.journal import Journal
from agent.store.lock import Lock
from tests.making import opened, session_start
from tests.users import a_user, needs_root, open_the_way_to

ME = os.geteuid()


class Installed:
    """A service manager in which these are installed."""

    def __init__(self, *instances: Instance) -> None:
        self._instances = list(instances)

    def instances(self) -> list[Instance]:
        return self._instances


class Desk:
    """A machine whose system's records lie in a directory of this test, and students."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.var = directory / "var"
        self.var.mkdir()
        self._patch = monkeypatch
        monkeypatch.setattr(machine, "SYSTEM_STATE_DIRECTORY", str(self.var))
        self.install()
        open_the_way_to(directory)

    def install(self, *instances: Instance) -> None:
        self._patch.setattr(machine, "managers", lambda: [Installed(*instances)])

    def load(self) -> Config:
        """Of whoever calls it, as with the real one."""
        return Config(state_dir=str(self.var / str(os.geteuid())))

    def record(self, course: str, uid: int = ME, *, told: str | None = None) -> Path:
        """Something is recorded of the course; its journal says that it is of `told`."""
        state = self.var / str(uid)
        directory = state / course_key(course)
        with Journal.open(directory, create=True) as journal:
            journal.append([session_start(0), opened("01-hello", 3)], None)
            journal.put_fact("status", {"pid": 7, "course": told or course})
        for path in (state, directory, *directory.iterdir()):
            os.chown(path, uid, -1)
        return directory

    def watched(self) -> list[Watched]:
        return all_watched(self.load)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def student(number: int = 0) -> int:
    return a_user(number).pw_uid


def an_agent(course: str, uid: int = ME, state: State = "running") -> Instance:
    return Instance(course, f"unit of {course}", uid, state)


def seen(watched: Sequence[Watched]) -> list[tuple[str | None, int, str, int]]:
    return [(one.state.course, one.state.uid, one.words, one.state.events) for one in watched]


# --- one's own ---


def test_what_is_installed_and_what_is_recorded_is_one_list(desk: Desk) -> None:
    desk.record("/home/me/both")
    desk.record("/home/me/recorded")
    desk.install(an_agent("/home/me/both", state="failed"), an_agent("/home/me/installed", state="starting"))
    assert seen(desk.watched()) == [
        ("/home/me/both", ME, "failed", 2),
        ("/home/me/installed", ME, "starting", 0),
        ("/home/me/recorded", ME, "stopped", 2),
    ]


def test_a_machine_without_agents_has_none(desk: Desk) -> None:
    assert desk.watched() == []
    desk.var.rmdir()
    assert desk.watched() == []


def test_an_agent_that_runs_is_running_whoever_started_it(desk: Desk) -> None:
    lock = Lock.acquire(desk.record("/home/me/c"))
    try:
        assert seen(desk.watched()) == [("/home/me/c", ME, "running", 2)]
        desk.install(an_agent("/home/me/c", state="failed"))
        assert seen(desk.watched()) == [("/home/me/c", ME, "running", 2)]
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("state", "instance", "words"),
    [
        (CourseState("c-1", 0, pid=5), None, "running"),
        (CourseState("c-1", 0, pid=0), None, "running"),
        (CourseState("c-1", 0, pid=5, silent="paused"), an_agent("/c"), "paused"),
        (CourseState("c-1", 0, silent="paused"), an_agent("/c", state="stopped"), "stopped"),
        (CourseState("c-1", 0), None, "stopped"),
        (CourseState("c-1", 0), an_agent("/c", state="absent"), "absent"),
    ],
)
def test_how_it_fares_is_one_word(state: CourseState, instance: Instance | None, words: str) -> None:
    assert Watched(state, instance).words == words


@pytest.mark.skipif(ME == 0, reason="root sees everybody's")
def test_a_student_sees_the_own_ones_only(desk: Desk) -> None:
    desk.install(an_agent("/home/me/c"), an_agent("/home/other/c", ME + 1))
    assert seen(desk.watched()) == [("/home/me/c", ME, "running", 0)]


# --- everybody's ---


@needs_root
def test_root_sees_everybodys_read_by_each_of_them(desk: Desk) -> None:
    ada, bob = student(0), student(1)
    desk.record("/home/bob/c", bob)
    desk.record("/home/ada/c", ada)
    desk.record("/root/c")
    desk.install(an_agent("/home/ada/c", ada), an_agent("/home/ada/d", ada, "absent"))
    assert seen(desk.watched()) == [
        ("/root/c", 0, "stopped", 2),
        ("/home/ada/c", ada, "running", 2),
        ("/home/ada/d", ada, "absent", 0),
        ("/home/bob/c", bob, "stopped", 2),
    ]


@needs_root
def test_what_a_student_may_not_read_root_does_not_read_for_that_student(desk: Desk) -> None:
    ada = student()
    directory = desk.record("/home/ada/c", ada)
    roots = desk.record("/root/c")
    os.chmod(roots, 0o700)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    directory.symlink_to(roots)
    desk.install(an_agent("/home/ada/c", ada))
    (theirs,) = (one for one in desk.watched() if one.state.uid == ada)
    assert theirs.state.events == 0
    assert theirs.state.trouble is not None and "Permission denied" in theirs.state.trouble


@needs_root
def test_one_students_dead_file_server_holds_up_nobody_elses_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = student(0), student(1)
    desk.record("/home/ada/c", ada)
    desk.record("/home/bob/c", bob)
    desk.install(an_agent("/home/ada/c", ada))
    reading = overview.read_states

    def read_states(state_dir: str, config: Config) -> list[CourseState]:
        if os.geteuid() == ada:
            time.sleep(600)
        return reading(state_dir, config)

    monkeypatch.setattr(machine, "read_states", read_states)
    monkeypatch.setattr(machine, "PATIENCE_S", 0.5)
    hanging, well = desk.watched()
    assert hanging.state.trouble == "no answer within 0 s"
    assert (hanging.state.course, hanging.instance) == ("/home/ada/c", an_agent("/home/ada/c", ada))
    assert seen([well]) == [("/home/bob/c", bob, "stopped", 2)]


@needs_root
def test_a_students_broken_configuration_is_that_students_trouble(desk: Desk) -> None:
    ada, bob = student(0), student(1)
    desk.record("/home/bob/c", bob)
    desk.install(an_agent("/home/ada/c", ada))

    def load() -> Config:
        if os.geteuid() == ada:
            raise ConfigError((Fault("/home/ada/config.toml", 3, "no such key"),))
        return desk.load()

    troubled, well = all_watched(load)
    assert troubled.state.trouble is not None and "no such key" in troubled.state.trouble
    assert well.state.trouble is None


@needs_root
def test_a_user_who_was_deleted_is_the_trouble_of_what_is_installed(desk: Desk) -> None:
    desk.record("/home/gone/c", 61_234)
    desk.install(an_agent("/home/gone/c", 61_234, "failed"))
    (one,) = desk.watched()
    assert one.state.trouble == "nobody has the user number 61234"
    assert one.words == "failed"


@needs_root
def test_no_student_can_speak_for_anothers_course(desk: Desk) -> None:
    ada, bob = student(0), student(1)
    desk.record("/home/bob/c", ada)  # in ada's own state directory
    desk.install(an_agent("/home/bob/c", bob))
    theirs, own = desk.watched()
    assert (theirs.state.uid, theirs.instance, theirs.words) == (ada, None, "stopped")
    assert (own.state.uid, own.state.events, own.words) == (bob, 0, "running")


@needs_root
def test_a_course_whose_name_is_no_utf_8_has_its_agent(desk: Desk) -> None:
    ada = student()
    course = os.fsdecode(b"/home/ada/n\xff")
    desk.record(course, ada)
    desk.install(an_agent(course, ada))
    assert seen(desk.watched()) == [(course, ada, "running", 2)]


@needs_root
def test_what_lies_beside_the_users_directories_is_nobodys(desk: Desk) -> None:
    (desk.var / "notes").mkdir()
    (desk.var / "1x").write_text("")
    assert desk.watched() == []


# --- managers ---


def test_root_manages_the_systems_agents_and_a_user_the_own_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    for uid, wanted in ((0, ["systemd"]), (1000, ["systemd of this user", "systemd"])):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        found = managers()
        assert all(isinstance(one, Systemd) for one in found)
        assert [one.words for one in found] == wanted


def test_without_systemctl_there_is_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert managers() == []


def test_on_a_mac_it_is_launchd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert all(isinstance(one, Launchd) for one in managers(program="/opt/x"))
