"""The commands of whoever manages agents, with a small service manager of files, with systemd's programs replaced by
ones that write down what they are told, and without any."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from agent import machine
from agent.commands import controlling, managing
from agent.commands.table import login, table
from agent.config import Config, course_key, course_state_dir
from agent.hosting import files
from agent.hosting.actions import shown
from agent.hosting.manager import Action, Instance, ManagerError, Placement, Remove, Run, State, Verb, Write
from agent.hosting.systemd import Systemd
from agent.machine import Watched
from agent.overview import CourseState, Sight
from agent.store.journal import Journal
from agent.store.lock import Lock, holder
from tests.conftest import Stage
from tests.making import opened
from tests.standin.agent import clean_environment
from tests.standin.courses import PYTHON, make_course
from tests.standin.toolbox import REPOSITORY
from tests.test_cli import called
from tests.until import until
from tests.users import a_user, needs_root, open_the_way_to

ME = os.geteuid()
LOGIN = login(ME)

Call = Callable[..., tuple[int, str, str]]


class Files:
    """A service manager: an agent for each file in a directory, which holds its course and whose it is."""

    words = "the manager of files"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.log = directory.parent / f"{directory.name}.log"
        self.states: dict[str, State] = {}
        self.detail = "its learn.json is torn"
        self.chosen: set[str] = set()

    def install(self, placements: Sequence[Placement]) -> list[Action]:
        self.chosen |= {one.course for one in placements if one.is_chosen}
        writes = [Write(self._path(one.course), f"{one.owner.uid} {one.course}".encode()) for one in placements]
        return [*writes, self._do("load", [one.course for one in placements])]

    def uninstall(self, courses: Sequence[str]) -> list[Action]:
        return [self._do("unload", courses), *(Remove(self._path(course)) for course in courses)]

    def control(self, verb: Verb, courses: Sequence[str] | None) -> list[Action]:
        return [self._do(verb, courses or ["ALL"])]

    def instances(self) -> list[Instance]:
        found = []
        for path in sorted(self.directory.iterdir()):
            uid, _, course = path.read_text().partition(" ")
            state = self.states.get(course, "running")
            detail = self.detail if state == "failed" else ""
            found.append(Instance(course, path.name, int(uid), state, 7, detail, course in self.chosen))
        return found

    def log_command(self, course: str | None, *, follow: bool, lines: int) -> list[str]:
        return ["show-log", course or "ALL", str(follow), str(lines)]

    def told(self) -> list[str]:
        """What was done since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def _do(self, verb: str, courses: Sequence[str]) -> Run:
        return Run(("sh", "-c", 'log=$1; shift; echo "$@" >> "$log"', "sh", str(self.log), verb, *courses))

    def _path(self, course: str) -> str:
        return str(self.directory / course_key(course))


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The only one of this machine."""
    one = Files(tmp_path / "manager")
    monkeypatch.setattr(machine, "managers", lambda program=None: [one])
    monkeypatch.setattr(managing, "_program", lambda: "/usr/bin/learnpack-agent")
    return one


@pytest.fixture
def no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "managers", lambda program=None: [])
    monkeypatch.setattr(managing, "_program", lambda: "/usr/bin/learnpack-agent")


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], state_dir: Path) -> Call:
    return lambda *arguments: called(capfd, *arguments, "--state-dir", state_dir)


def make(directory: Path) -> str:
    return str(make_course(directory, PYTHON).resolve())


@pytest.fixture
def course(tmp_path: Path) -> str:
    return make(tmp_path / "home" / "ada" / "my course")


@pytest.fixture
def other(tmp_path: Path) -> str:
    return make(tmp_path / "home" / "ada" / "other")


def place(manager: Files, *courses: str) -> None:
    for course in courses:
        Path(manager._path(course)).write_text(f"{ME} {course}")


# --- install ---


def test_a_course_is_installed_from_any_directory_inside_it_and_its_state_is_told(
    call: Call, manager: Files, course: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(course) / "exercises")
    code, out, err = call("install", "01-hello", ".", course)
    assert (code, err) == (0, "")
    assert out == f"{course}: installed, running, as {LOGIN} (the manager of files)\n"
    assert [(one.course, one.uid, one.is_chosen) for one in manager.instances()] == [(course, ME, False)]
    assert manager.told() == [f"load {course}"]


def test_what_is_no_course_is_not_installed_and_nothing_else_is(
    call: Call, manager: Files, course: str, tmp_path: Path
) -> None:
    code, out, err = call("install", course, tmp_path)
    assert (code, out) == (78, "")
    assert "no learn.json" in err
    assert (manager.instances(), manager.told()) == ([], [])


def test_an_agent_that_fails_at_once_is_a_failure_with_its_reason(
    call: Call, manager: Files, course: str, other: str
) -> None:
    manager.states[course] = "failed"
    code, out, _ = call("install", course, other)
    assert code == 1
    assert f"{course}: installed, failed: its learn.json is torn, as " in out
    assert f"{other}: installed, running, as " in out


@pytest.mark.parametrize("command", ["install", "uninstall", "discover"])
def test_what_is_printed_is_what_would_be_done_and_nothing_is_done(
    call: Call, manager: Files, course: str, other: str, command: str, tmp_path: Path, state_dir: Path
) -> None:
    place(manager, other)
    if command == "install":
        plan = manager.install([Placement(course, managing._owner(course))])
        arguments = [course]
    elif command == "uninstall":
        plan = manager.uninstall([other])
        arguments = [other, "--purge"]
        (state_dir / course_key(other)).mkdir(parents=True)
    else:
        Path(other, "learn.json").unlink()
        if ME == 0:
            os.chown(course, a_user().pw_uid, -1)
        plan = [*manager.uninstall([other]), *manager.install([Placement(course, managing._owner(course))])]
        arguments = ["--install", str(tmp_path / "home")]
    code, out, _ = call(command, *arguments, "--print")
    assert code == 0
    assert out.endswith("\n".join(shown(plan)) + "\n")
    assert [one.course for one in manager.instances()] == [other]
    assert manager.told() == []
    assert command != "uninstall" or (state_dir / course_key(other)).exists()


@needs_root
def test_the_agent_is_the_directorys_owners_unless_root_names_another(call: Call, manager: Files, course: str) -> None:
    student = a_user()
    os.chown(course, student.pw_uid, -1)
    assert f"as {student.pw_name} " in call("install", course)[1]
    assert [(one.uid, one.is_chosen) for one in manager.instances()] == [(student.pw_uid, False)]
    assert f"as {LOGIN} " in call("install", course, "--user", LOGIN)[1]
    assert [(one.uid, one.is_chosen) for one in manager.instances()] == [(ME, True)]
    code, _, err = call("install", course, "--user", "no such user")
    assert (code, err) == (1, "learnpack-agent: there is no user no such user\n")


@pytest.mark.skipif(ME == 0, reason="root may")
def test_who_is_not_root_names_nobody(call: Call, manager: Files, course: str) -> None:
    code, _, err = call("install", course, "--user", LOGIN)
    assert (code, err) == (77, "learnpack-agent: --user is for root\n")
    assert manager.instances() == []


def test_a_course_that_has_an_agent_from_elsewhere_gets_no_second(
    call: Call, manager: Files, course: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admins = Files(tmp_path / "admins")
    place(admins, course)
    monkeypatch.setattr(machine, "managers", lambda program=None: [manager, admins])
    code, _, err = call("install", course)
    assert code == 75
    assert "it has an agent already (the manager of files)" in err
    assert call("discover", "--install", tmp_path / "home")[:2] == (0, f"{'watched':<10} {course}\n")
    assert manager.instances() == []


def test_what_the_manager_can_not_do_is_one_line(
    call: Call, manager: Files, course: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(placements: Sequence[Placement]) -> list[Action]:
        raise ManagerError("it belongs to root")

    monkeypatch.setattr(manager, "install", refuse)
    assert call("install", course) == (1, "", "learnpack-agent: it belongs to root\n")


@pytest.mark.parametrize("command", [["install"], ["discover", "--install"]])
@needs_root
def test_root_installs_no_program_that_somebody_else_can_change(
    call: Call, course: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    manager = Files(tmp_path / "manager")
    monkeypatch.setattr(machine, "managers", lambda program=None: [manager])
    program = tmp_path / "learnpack-agent"
    program.write_text("")
    monkeypatch.setattr(files, "program", lambda: str(program))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for path in (str(program), str(tmp_path / "python")):
        monkeypatch.setattr(files, "why_not_for_all", lambda one, path=path: f"no {one}" if one == path else None)
        code, _, err = call(*command, course)
        assert code == 77
        assert err.startswith(f"learnpack-agent: no {path}: install the agent where everybody can run it")
        assert manager.instances() == []


# --- uninstall ---


def test_what_is_uninstalled_keeps_its_records_unless_they_are_purged(
    call: Call, manager: Files, course: str, other: str, state_dir: Path
) -> None:
    for one in (course, other):
        with Journal.open(state_dir / course_key(one), create=True) as journal:
            journal.append([opened("01-hello", 1)], None)
    place(manager, course, other)
    assert call("uninstall", course)[:2] == (0, f"{course}: uninstalled\n")
    assert (state_dir / course_key(course)).exists()
    assert manager.told() == [f"unload {course}"]
    assert call("uninstall", "--purge", other, course)[:2] == (
        0,
        f"{other}: uninstalled; its journal is erased\n"
        f"{course}: it has no agent of the manager of files; its journal is erased\n",
    )
    assert list(state_dir.iterdir()) == []
    assert call("uninstall", "--purge", course)[1].endswith("; it had no journal\n")


def test_a_course_that_is_gone_can_be_uninstalled_from_anywhere_in_it(
    call: Call, manager: Files, course: str, other: str
) -> None:
    place(manager, course, other)
    gone = Path(course)
    gone.rename(gone.with_name("moved away"))
    assert call("uninstall", gone / "exercises")[:2] == (0, f"{course}: uninstalled\n")
    assert [one.course for one in manager.instances()] == [other]


def test_a_course_in_a_course_is_not_taken_for_that(call: Call, manager: Files, course: str) -> None:
    inner = make(Path(course) / "inner")
    place(manager, course)
    assert "it has no agent" in call("uninstall", inner)[1]
    assert [one.course for one in manager.instances()] == [course]
    place(manager, inner)
    assert call("uninstall", Path(inner) / "exercises")[1] == f"{inner}: uninstalled\n"


def test_a_purge_follows_no_link_that_is_in_the_records(
    call: Call, manager: Files, course: str, state_dir: Path, tmp_path: Path
) -> None:
    place(manager, course)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("")
    (state_dir / course_key(course)).mkdir(parents=True)
    (state_dir / course_key(course) / "receipts").symlink_to(precious)
    assert "is erased" in call("uninstall", "--purge", course)[1]
    assert (precious / "file").exists()


@needs_root
def test_root_purges_as_the_student(call: Call, manager: Files, course: str, state_dir: Path) -> None:
    """In a student's directory root follows what the student put there; the student can't."""
    student = a_user()
    Path(manager._path(course)).write_text(f"{student.pw_uid} {course}")
    directory = state_dir / course_key(course)
    directory.mkdir(parents=True)
    (directory / "roots own").write_text("")
    open_the_way_to(state_dir)
    code, _, err = call("uninstall", "--purge", course)
    assert code == 1
    assert "Permission denied" in err
    assert (directory / "roots own").exists()


# --- discover ---


@pytest.fixture
def home(tmp_path: Path, course: str, other: str) -> Path:
    """With two courses of a user who is not root."""
    if ME == 0:
        student = a_user()
        for one in (course, other):
            os.chown(one, student.pw_uid, -1)
    return tmp_path / "home"


def test_what_is_found_is_told_and_nothing_is_changed(
    call: Call, manager: Files, home: Path, course: str, other: str
) -> None:
    gone = str(home / "ada" / "gone")
    place(manager, other, gone)
    manager.chosen.add(other)
    assert call("discover", home)[:2] == (0, f"new        {course}\nwatched    {other}\ngone       {gone}\n")
    assert manager.told() == []


def test_the_agents_follow_the_courses(call: Call, manager: Files, home: Path, course: str, other: str) -> None:
    assert call("discover", "--install", home)[0] == 0
    assert [one.course for one in manager.instances()] == sorted([course, other])
    assert manager.told() == [f"load {course} {other}"]
    assert call("discover", "--install", home)[:2] == (0, f"watched    {course}\nwatched    {other}\n")
    assert manager.told() == []
    Path(course).rename(home / "elsewhere")
    code, out, _ = call("discover", "--install", home)
    assert code == 0
    assert f"gone       {course}\n" in out
    assert manager.told() == [f"unload {course}", f"load {home / 'elsewhere'}"]


def test_a_course_that_is_cloned_again_meanwhile_is_not_gone(
    call: Call, manager: Files, home: Path, course: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("discover", "--install", home)
    manager.told()
    mark = Path(course, "learn.json")
    content = mark.read_bytes()
    mark.unlink()
    waited: list[float] = []

    def clone(seconds: float) -> None:
        waited.append(seconds)
        mark.write_bytes(content)

    monkeypatch.setattr(time, "sleep", clone)
    assert "gone" not in call("discover", "--install", "--grace", "20", home)[1]
    assert (waited, manager.told()) == ([20.0], [])
    call("discover", "--install", "--grace", "20", home)
    assert waited == [20.0], "nobody waits for what is there"


def test_an_agent_that_could_not_start_is_tried_again_and_one_that_was_stopped_is_not(
    call: Call, manager: Files, home: Path, course: str, other: str
) -> None:
    call("discover", "--install", home)
    manager.told()
    for state, told in (("absent", 1), ("failed", 1), ("stopped", 0), ("starting", 0)):
        manager.states[course] = state  # type: ignore[assignment]
        assert call("discover", "--install", home)[0] == 0
        assert manager.told() == [f"start {course}"] * told
    manager.states[course] = "failed"
    call("discover", "--install", "--print", home)
    assert manager.told() == []


def test_a_student_with_a_torn_course_fails_nobodys_discovery(
    call: Call, manager: Files, home: Path, course: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.states[course] = "failed"
    assert call("discover", "--install", home)[0] == 0
    monkeypatch.setattr(manager, "control", lambda *_: [Run(("false",))])
    code, out, _ = call("discover", "--install", home)
    assert code == 0
    assert f"{course}: failed: its learn.json is torn\n" in out


def test_a_course_of_nobody_is_left_out_and_the_others_are_not(
    call: Call, manager: Files, home: Path, course: str, other: str
) -> None:
    if ME != 0:
        pytest.skip("only root can give directories away")
    os.chown(course, 61_234, -1)
    code, out, _ = call("discover", "--install", home)
    assert code == 0
    assert f"left out   {course}: nobody has the user number 61234\n" in out
    assert [one.course for one in manager.instances()] == [other]


def test_where_and_how_many_is_the_configurations_word(
    call: Call, manager: Files, home: Path, course: str, other: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'discover_roots = ["{home}"]\ndiscover_per_user = 1\n')
    code, out, _ = call("discover", "--install", "--config", config)
    assert code == 0
    assert [one.course for one in manager.instances()] == [course]
    assert f"left out   {other}: its user has 1 agents already (discover_per_user)\n" in out


# --- start, stop, restart ---


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_agents_are_controlled_one_by_one_or_all(
    call: Call, manager: Files, course: str, other: str, verb: str
) -> None:
    place(manager, course, other)
    assert call(verb, Path(course) / "exercises", other)[:2] == (0, f"{course}: running\n{other}: running\n")
    assert manager.told() == [f"{verb} {course}", f"{verb} {other}"]
    code, out, _ = call(verb, "--all")
    assert (code, sorted(out.splitlines())) == (0, [f"{course}: running", f"{other}: running"])
    assert manager.told() == [f"{verb} ALL"]


@pytest.mark.parametrize("arguments", [[], ["--all", "."], ["--all", "--detach"]])
def test_who_names_nothing_or_too_much_is_told_so(call: Call, manager: Files, arguments: list[str]) -> None:
    code, _, err = call("start", *arguments)
    assert code == 2
    assert "name one course or more" in err
    assert manager.told() == []


def test_an_agent_that_does_not_start_is_a_failure_with_the_agents_own_reason(
    call: Call, manager: Files, course: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(manager, course, other)
    manager.states[course] = "failed"
    failing = f"{course}: failed: its learn.json is torn\n"
    assert call("start", course, other)[:2] == (1, f"{failing}{other}: running\n")
    assert call("restart", "--all")[0] == 1
    monkeypatch.setattr(manager, "control", lambda *_: [Run(("false",))])
    assert call("start", course) == (1, failing, "")
    manager.states.clear()
    code, _, err = call("start", course)  # the manager refused, and the agent did not fail
    assert (code, err) == (1, "learnpack-agent: false: exit code 1\n")


def test_where_none_is_installed_none_can_be_started(call: Call, manager: Files, course: str) -> None:
    assert call("stop", "--all")[::2] == (69, "learnpack-agent: no agent is installed (the manager of files)\n")
    code, out, err = call("start", course)
    assert (code, out) == (69, "")
    assert "`install` it" in err and "--detach" in err
    assert call("stop", course)[::2] == (69, f"learnpack-agent: {course}: no agent runs for it\n")


# --- without a service manager ---


class Detached:
    """Agents that the command line started, each ended at last."""

    def __init__(self, stage: Stage, state: Path) -> None:
        self._environment = clean_environment(stage.toolbox.environment()) | {"PYTHONPATH": str(REPOSITORY)}
        self._state = state

    def call(self, *arguments: str, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", *arguments, "--state-dir", str(self._state)]
        return subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
        )

    def pid(self, course: str) -> int | None:
        directory = course_state_dir(Config(state_dir=str(self._state)), course)
        return holder(directory) if os.path.isdir(directory) else None

    def end(self) -> None:
        for path in self._state.iterdir() if self._state.exists() else ():
            with suppress(OSError, TypeError):
                os.kill(holder(path), signal.SIGKILL)  # type: ignore[arg-type]


@pytest.fixture
def detached(stage: Stage, state_dir: Path) -> Iterator[Detached]:
    one = Detached(stage, state_dir)
    yield one
    one.end()


def test_an_agent_is_started_as_a_daemon_looked_at_and_stopped(
    detached: Detached, no_manager: None, call: Call, course: str, other: str
) -> None:
    done = detached.call("start", "--detach", "my course/exercises", other, cwd=os.path.dirname(course))
    assert (done.returncode, done.stderr) == (0, "")
    pids = [detached.pid(course), detached.pid(other)]
    assert done.stdout.splitlines() == [
        f"{one}: started, process {pid}, log {course_state_dir(Config(state_dir=str(detached._state)), one)}/agent.log"
        for one, pid in zip((course, other), pids, strict=True)
    ]
    assert call("start", course)[::2] == (
        75,
        f"learnpack-agent: {course}: its agent runs without a service manager: stop it first\n",
    )
    again = detached.call("start", "--detach", course)
    assert again.returncode == 75
    assert f"already running for this course (process {pids[0]})" in again.stderr

    logs = detached.call("logs", course + "/exercises") if no_systemctl() else None
    assert logs is None or "ready: watching" in logs.stdout

    assert call("stop", course + "/exercises", other) == (0, f"{course}: stopped\n{other}: stopped\n", "")
    assert [detached.pid(course), detached.pid(other)] == [None, None]
    assert call("stop", course)[0] == 69


def no_systemctl() -> bool:
    return not machine.managers()


def test_an_agent_that_does_not_become_ready_fails_and_the_others_start(
    detached: Detached, course: str, other: str
) -> None:
    Path(course, "learn.json").write_text("{")
    done = detached.call("start", "--detach", course, other)
    assert done.returncode == 78
    assert done.stderr.startswith(f"learnpack-agent: {course}: ")
    assert done.stdout.startswith(f"{other}: started, process ")


def test_without_a_service_manager_there_is_a_hint(call: Call, no_manager: None, course: str) -> None:
    for arguments in (["install", course], ["uninstall", course], ["discover"], ["stop", "--all"], ["logs", "--all"]):
        code, _, err = call(*arguments)
        assert (code, "use `start --detach`" in err) == (69, True), arguments


def test_the_log_of_a_detached_agent_is_shown_and_followed(
    call: Call, no_manager: None, course: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("logs", course)[::2] == (
        69,
        f"learnpack-agent: {course}: no agent is installed, and none was started with --detach\n",
    )
    log = state_dir / course_key(course) / "agent.log"
    log.parent.mkdir(parents=True)
    log.write_text("1\n2\n3\n")
    becomes = replaced(monkeypatch)
    call("logs", course, "--lines", "2")
    call("logs", Path(course) / "exercises", "--follow")
    assert becomes == [["tail", "-n", "2", str(log)], ["tail", "-n", "50", "-F", str(log)]]
    done = subprocess.run(becomes[0], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n3\n"


def replaced(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What this process would become."""
    becomes: list[list[str]] = []

    def become(name: str, argv: list[str]) -> None:
        assert name == argv[0]
        becomes.append(argv)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execvp", become)
    return becomes


def test_what_an_installed_agent_said_its_manager_knows(
    call: Call, manager: Files, course: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(manager, course)
    code, _, err = call("logs", course)
    assert (code, err.startswith("learnpack-agent: show-log: ")) == (69, True)
    becomes = replaced(monkeypatch)
    call("logs", Path(course) / "exercises", "--follow", "--lines", "3")
    call("logs", "--all")
    assert becomes == [["show-log", course, "True", "3"], ["show-log", "ALL", "False", "50"]]


def test_one_who_does_not_end_is_said(
    call: Call, no_manager: None, course: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlling, "_STOP_S", 0.1)
    directory = state_dir / course_key(course)
    directory.mkdir(parents=True)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); from agent.store.lock import Lock"
    code += f"; lock = Lock.acquire({str(directory)!r}); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}) as deaf:
        try:
            until(lambda: holder(directory) == deaf.pid)
            assert call("stop", course)[::2] == (1, f"learnpack-agent: {course}: process {deaf.pid} goes on\n")
        finally:
            deaf.kill()


def test_a_lock_that_names_nobody_ends_nobody(call: Call, no_manager: None, course: str, state_dir: Path) -> None:
    directory = state_dir / course_key(course)
    directory.mkdir(parents=True)
    lock = Lock.acquire(directory)
    try:
        (directory / "lock").write_text("0\n")
        code, _, err = call("stop", course)
        assert (code, err) == (1, f"learnpack-agent: {course}: which process its agent is can't be read\n")
    finally:
        lock.release()


@needs_root
def test_a_student_can_not_make_root_end_another_process(
    call: Call, no_manager: None, course: str, state_dir: Path
) -> None:
    student = a_user()
    os.chown(course, student.pw_uid, -1)
    directory = state_dir / course_key(course)
    directory.mkdir(parents=True)
    open_the_way_to(state_dir)
    lock = Lock.acquire(directory)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as victim:
        try:
            (directory / "lock").write_text(f"{victim.pid}\n")
            (directory / "lock").chmod(0o644)
            for path in (directory, directory / "lock"):
                os.chown(path, student.pw_uid, -1)
            code, _, err = call("stop", course)
            assert (code, "Operation not permitted" in err) == (1, True)
            assert victim.poll() is None
        finally:
            victim.kill()
            lock.release()


# --- systemd's own programs, replaced ---

PROGRAM = """\
#!/bin/sh
for word; do printf '%s ' "$word"; done >> "$0.log"
echo >> "$0.log"
[ "$1" != show ] || cat "$0.answer"
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs; `systemctl.log` holds what the one was told, `systemctl.answer` what it shows."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("systemctl", "journalctl"):
        (directory / name).write_text(PROGRAM)
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    (tmp_path / "etc").mkdir()
    manager = Systemd(
        is_user=False,
        program="/opt/bin/learnpack-agent",
        units=str(REPOSITORY / "systemd"),
        key_of=course_key,
        etc=str(tmp_path / "etc"),
        vendor=[],
        release="6.18",
        is_booted=True,
    )
    monkeypatch.setattr(machine, "managers", lambda program=None: [manager])
    monkeypatch.setattr(managing, "_program", lambda: "/opt/bin/learnpack-agent")
    return directory


def test_systemd_is_told_all_of_it_and_in_this_order(call: Call, systemctl: Path, home: Path, course: str) -> None:
    instance = subprocess.run(["systemd-escape", "--path", course], capture_output=True, text=True, check=False)
    if instance.returncode:
        pytest.skip("no systemd-escape on this machine")
    unit = f"learnpack-agent@{instance.stdout.strip()}.service"
    (systemctl / "systemctl.answer").write_text(f"Id={unit}\nActiveState=active\nMainPID=7\n")

    def told() -> list[str]:
        lines = (systemctl / "systemctl.log").read_text().splitlines()
        (systemctl / "systemctl.log").unlink()
        return [line.strip() for line in lines if not line.startswith("show ")]

    assert call("install", course)[0] == 0
    assert told() == [
        "daemon-reload",
        f"enable --quiet learnpack-agent.target {unit}",
        f"reset-failed {unit}",
        "start --job-mode=ignore-dependencies learnpack-agent.target",
        f"restart {unit}",
    ]
    assert call("restart", course)[:2] == (0, f"{course}: running\n")
    assert told() == [f"reset-failed {unit}", f"restart {unit}"]
    assert call("stop", "--all")[0] == 0
    assert told() == [f"stop learnpack-agent.target {unit}"]
    assert call("uninstall", course)[:2] == (0, f"{course}: uninstalled\n")
    assert told() == [
        f"disable --quiet --now {unit}",
        "disable --quiet --now learnpack-agent.target",
        "daemon-reload",
        f"reset-failed {unit}",
    ]


# --- status --all ---


def a_state(course: str | None, **more: object) -> CourseState:
    return CourseState(course_key(course or "/gone"), ME, course, **more)  # type: ignore[arg-type]


NOW = 10_000_000


def test_the_table_has_a_line_for_each_agent_and_one_for_what_is_wrong() -> None:
    watched = [
        Watched(
            a_state(
                "/home/ada/a",
                pid=7,
                processes=Sight("pidfd"),
                last_event_at=NOW - 120_000,
                waiting=3,
                parked=2,
                gaps=1,
            ),
            None,
        ),
        Watched(a_state("/home/ada/b"), Instance("/home/ada/b", "unit", ME, "failed", None, "no permission")),
        Watched(a_state(None, pid=7, silent="paused"), None),
    ]
    lines = [line.split() for line in table(watched, NOW)]
    assert lines == [
        ["COURSE", "USER", "STATE", "PROCESSES", "LAST", "EVENT", "QUEUE", "GAPS"],
        ["/home/ada/a", LOGIN, "running", "pidfd", "2", "min", "ago", "3", "(+2", "aside)", "1"],
        ["/home/ada/b", LOGIN, "failed", "-", "never", "0", "0"],
        ["no", "permission"],
        [course_key("/gone"), LOGIN, "paused", "-", "never", "0", "0"],
        ["paused"],
    ]
    assert len({line.index(LOGIN) for line in table(watched, NOW) if LOGIN in line}) == 1, "in columns"


@pytest.mark.parametrize(
    ("course", "shown_as"),
    [
        ("/home/ada/" + "x" * 38, "/home/ada/" + "x" * 38),
        ("/home/ada/" + "x" * 36 + "yzz", "/home/ada/xxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxyzz"),
        ("/home/ada/" + "x" * 245, "/home/ada/xxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxx"),
        ("/home/ada/new\nline", r"/home/ada/new\nline"),
    ],
)
def test_a_long_path_is_shortened_in_the_middle(course: str, shown_as: str) -> None:
    _, line = table([Watched(a_state(course), None)], NOW)
    assert len(shown_as) <= 48
    assert line.startswith(f"{shown_as}  ")


def test_all_agents_are_shown_and_one_that_is_not_well_is_an_exit_code(
    call: Call, manager: Files, course: str, other: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SYSTEM_STATE_DIRECTORY", "/nowhere")
    assert call("status", "--all") == (0, "no agent is installed, and nothing is recorded\n", "")
    place(manager, course, other)
    code, out, _ = call("status", "--all")
    assert (code, len(out.splitlines())) == (0, 3)
    manager.states[other] = "failed"
    code, out, _ = call("status", "--all")
    assert code == 1
    assert out.splitlines()[-1] == "    its learn.json is torn"


def test_everything_about_all_agents_is_one_json_array(
    manager: Files, course: str, other: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent import cli

    monkeypatch.setattr(machine, "SYSTEM_STATE_DIRECTORY", "/nowhere")
    place(manager, course, other)
    manager.states[other] = "failed"
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["status", "--all", "--json", "--state-dir", str(state_dir)]) == 1
    assert isinstance(out.buffer, io.BytesIO)
    first, second = json.loads(out.buffer.getvalue())
    assert (first["course"], first["state"], first["detail"]) == (course, "running", None)
    assert (second["course"], second["state"], second["detail"]) == (other, "failed", "its learn.json is torn")
    assert first["uid"] == ME and "waiting" in first
