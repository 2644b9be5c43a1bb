"""`doctor`: what it finds on real file systems, in real repositories, of real servers and processes, and that the
commands which it offers mend what it found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from agent.checks import learnpack, machine, places, service
from agent.checks.finding import Finding, Level, Place, asked, ok, worst
from agent.config import Config, Credential, Fault, Send, SinkConfig
from agent.core.course import Course
from agent.destinations import Planned, planned
from agent.doctor import OF_A_COURSE, OF_THE_MACHINE, PATIENCE_S, checks_for, examine, has_fault, lines, plain
from agent.hosting.manager import Instance, State
from agent.sensors.clock import now_ms
from agent.sensors.course import read_course
from agent.sensors.files.inotify import InotifySource
from agent.sensors.files.mounts import read_mounts
from agent.sensors.files.watches import Interest
from agent.store.journal import NAME as JOURNAL
from agent.store.journal import SCHEMA, Journal
from agent.store.lock import Lock
from tests.conftest import Stage
from tests.making import gap, session_start
from tests.sinks.faults import FaultServer, page, redirect, self_signed, silence, status
from tests.sinks.faults import ok as answers
from tests.standin.courses import PYTHON, make_course
from tests.standin.toolbox import REPOSITORY
from tests.test_cli import called

LINUX = sys.platform == "linux"
needs_linux = pytest.mark.skipif(not LINUX, reason="it is about Linux")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make name spaces and other users' files")
needs_no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_course(tmp_path / "my course", PYTHON).resolve()


@pytest.fixture
def place(root: Path, state_dir: Path) -> Place:
    return Place(Config(state_dir=str(state_dir)), read_course(str(root)))


def again(place: Place) -> Place:
    """The course as it is now."""
    return replace(place, course=read_course(place.root))


def mended(finding: Finding) -> None:
    """Does what it says."""
    done = subprocess.run(["/bin/sh", "-c", finding.mend], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), finding.mend


# --- the kernel ---


@pytest.mark.parametrize(
    ("version", "level", "words"),
    [
        ((6, 15), Level.OK, "exit codes in containers, too"),
        ((6, 14), Level.OK, "in containers exit codes are not"),
        ((6, 6), Level.OK, "by its own user"),
        ((6, 5), Level.NOTE, "only with CAP_NET_ADMIN"),
        ((5, 3), Level.NOTE, "only with CAP_NET_ADMIN (before 6.6)"),
        ((4, 19), Level.NOTE, "without pidfds"),
        (None, Level.NOTE, "mostly not seen"),
    ],
)
def test_a_kernel_s_version_says_what_is_seen(version: tuple[int, int] | None, level: Level, words: str) -> None:
    found = machine.kernel_finding(version)
    assert (found.level, words in found.words) == (level, True), found


def test_the_capability_is_asked_for_where_the_kernel_needs_it() -> None:
    course = Course("/home/ada/my course", "demo")
    assert machine.capability_finding((6, 6), 0, course).level is Level.OK
    assert "and there" in machine.capability_finding((5, 10), 1 << 12, course).words
    missing = machine.capability_finding((5, 10), ~(1 << 12) & 0xFFFF, course)
    assert missing.level is Level.WARNING
    assert missing.mend == "sudo learnpack-agent install '/home/ada/my course'"


@needs_linux
def test_this_kernel_and_its_capabilities_are_read(place: Place) -> None:
    version = machine.kernel_version()
    assert version is not None and os.uname().release.startswith(f"{version[0]}.{version[1]}")
    assert machine.kernel(place).words.startswith(f"Linux {version[0]}.{version[1]}:")
    assert machine.capability(place).level in (Level.OK, Level.WARNING)


# --- processes ---


def test_the_level_that_works_here_is_found_by_trying(place: Place) -> None:
    found = machine.processes(place)
    assert found.level is not Level.FAULT and found.words.startswith("seen by ")
    polled = machine.processes(replace(place, config=Config(process_sensor="polling")))
    assert polled.words.startswith("seen by polling (process_sensor = polling)")


def test_why_a_better_level_does_not_work_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setitem(machine.LEVELS, "connector", lambda: machine_connector(refuse))  # type: ignore[attr-defined]
    found = machine.processes(place)
    assert "connector does not work: the kernel refuses process events: Operation not permitted" in found.words
    assert found.words.startswith(("seen by pidfd", "seen by polling"))
    assert found.level is (Level.NOTE if found.words.startswith("seen by pidfd") else Level.WARNING)


def machine_connector(open_socket: Callable[[], socket.socket]) -> Any:
    from agent.sensors.processes.proc_connector import Connector

    return Connector(open_socket)


@needs_root
@needs_linux
def test_another_network_name_space_is_named_as_the_reason() -> None:
    printed = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "agent", "doctor", "--json"],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    ).stdout
    (found,) = (one for one in json.loads(printed)["findings"] if one["check"] == "processes")
    assert "network name space" in found["words"] and "container" in found["words"]
    assert found["level"] == "note"


# --- watches ---


@needs_linux
def test_the_watches_of_this_user_s_processes_are_counted(tmp_path: Path) -> None:
    before = machine.used_watches()
    source = InotifySource()
    for number in range(50):
        (tmp_path / str(number)).mkdir()
        source.watch(str(number), str(tmp_path / str(number)), Interest.NAMES)
    now = machine.used_watches()
    source.close()
    others = [before, machine.used_watches()]  # those of other programs, which come and go
    assert now.watches - min(one.watches for one in others) >= 50
    assert now.instances > min(one.instances for one in others)


@needs_linux
def test_what_a_course_needs_is_what_its_agent_takes(stage: Stage, root: Path, place: Place) -> None:
    step = "exercises/01-hello"
    for name in ("node_modules/deep", f"{step}/.git", f"{step}/src/deep", f"{step}/venv", ".learn/resets/01-hello"):
        (root / name).mkdir(parents=True)
    (root / step / "venv" / "pyvenv.cfg").write_text("")
    agent = stage.agent(root).start()
    with agent.journal() as journal:
        taken = journal.fact("status")["files"]["watches"]
    listed = list(machine.directories_of(again(place).course))
    assert taken == len(listed) + len(Path(root).parents)
    assert "exercises/01-hello/src/deep" in listed and "exercises/01-hello/venv" not in listed


LIMIT = machine.Use(1000, 128)


@pytest.mark.parametrize(
    ("used", "needed", "more", "level", "lines"),
    [
        ((10, 3), (30, 2), {}, Level.OK, []),
        ((790, 3), (30, 2), {}, Level.WARNING, ["fs.inotify.max_user_watches = 65536"]),
        ((790, 3), (30, 2), {"is_running": True}, Level.OK, []),
        ((990, 3), (30, 2), {}, Level.FAULT, ["fs.inotify.max_user_watches = 65536"]),
        ((10, 3), (30, 2), {"is_short": True}, Level.FAULT, ["fs.inotify.max_user_watches = 65536"]),
        ((10, 127), (30, 2), {}, Level.FAULT, ["fs.inotify.max_user_instances = 512"]),
        ((900, 120), None, {}, Level.WARNING, ["fs.inotify.max_user_watches = 65536", "fs.inotify.max_user_instances"]),
        ((60_000, 3), (90_000, 2), {}, Level.FAULT, ["fs.inotify.max_user_watches = 524288"]),
    ],
)
def test_the_line_for_sysctl_is_offered_where_a_limit_is_near(
    used: tuple[int, int], needed: tuple[int, int] | None, more: dict[str, bool], level: Level, lines: list[str]
) -> None:
    found = machine.watches_finding(
        LIMIT,
        machine.Use(*used),
        machine.Use(*needed) if needed else None,
        **{"is_running": False, "is_short": False, **more},
    )
    assert found.level is level, found
    assert all(line in found.words and line in found.mend for line in lines)
    assert bool(found.mend) == bool(lines)
    if lines:
        assert "/etc/sysctl.d/60-learnpack-agent.conf" in found.words
        printed = subprocess.run(["/bin/sh", "-c", found.mend.split(" | ")[0]], capture_output=True, text=True).stdout
        assert [line.partition(" = ")[0] for line in printed.splitlines()] == [
            line.partition(" = ")[0] for line in lines
        ]


@needs_linux
def test_a_course_is_held_against_the_limits_of_this_machine(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = machine.used_watches()
    monkeypatch.setattr(machine, "_LIMITS", str(tmp_path))
    (tmp_path / "max_user_watches").write_text(f"{used.watches + 2}\n")
    (tmp_path / "max_user_instances").write_text("100000\n")
    found = machine.watches(place)
    assert (found.level, "fs.inotify.max_user_watches = 65536" in found.mend) == (Level.FAULT, True), found
    assert f"needs {len(list(machine.directories_of(place.course))) + len(Path(place.root).parents)} " in found.words
    (tmp_path / "max_user_watches").write_text("100000\n")
    assert machine.watches(place).level is Level.OK
    assert "needs" not in machine.watches(replace(place, course=None)).words


# --- the clock ---

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("now", "synchronised", "newest", "level", "words"),
    [
        (NOW, True, int(NOW * 1000), Level.OK, "synchronised"),
        (NOW, False, None, Level.WARNING, "not synchronised"),
        (NOW, None, None, Level.NOTE, "not known"),
        (NOW, True, int(NOW * 1000) + 3_600_000, Level.WARNING, "yet to come"),
        (1000.0, True, None, Level.FAULT, "the clock is wrong"),
        (NOW * 3, True, None, Level.FAULT, "the clock is wrong"),
    ],
)
def test_a_clock_is_judged(now: float, synchronised: bool | None, newest: int | None, level: Level, words: str) -> None:
    found = machine.clock_finding(now, synchronised, newest)
    assert (found.level, words in found.words) == (level, True), found


@needs_linux
def test_the_kernel_is_asked_whether_the_clock_is_synchronised(place: Place) -> None:
    assert machine.is_synchronised() in (True, False)
    with Journal.open(place.directory, create=True) as journal:
        journal.append([replace(session_start(0), at=now_ms() + 10 * 60_000)], None)
    assert "yet to come" in machine.clock(place).words


# --- file systems, rights, room ---


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", Level.OK),
        ("nfs4", Level.FAULT),
        ("cifs", Level.FAULT),
        ("fuse.sshfs", Level.FAULT),
        ("tmpfs", Level.WARNING),
        (None, Level.NOTE),
    ],
)
def test_a_journal_belongs_on_a_local_disk(kind: str | None, level: Level) -> None:
    found = places.state_file_system_finding("/home/ada/.local/state/learnpack-agent/x", kind)
    assert found.level is level
    assert (f"/var/lib/learnpack-agent/{os.geteuid()}" in found.mend) == (level > Level.NOTE)


def test_a_course_on_a_network_file_system_is_compared(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "network" not in places.course_file_system(place).words
    mounts = read_mounts()
    monkeypatch.setattr(places, "read_mounts", lambda: [*mounts, mounts[-1]._replace(point=place.root, kind="nfs4")])
    found = places.course_file_system(place)
    assert found.level is Level.NOTE and found.words.startswith("nfs4, a network file system")


def test_a_state_directory_is_ours_alone_and_made_so(place: Place) -> None:
    assert places.state_rights(place).level is Level.OK
    os.makedirs(place.directory, mode=0o700)
    assert places.state_rights(place).level is Level.OK
    os.chmod(place.directory, 0o755)
    found = places.state_rights(place)
    assert (found.level, "mode 0755" in found.words) == (Level.WARNING, True)
    mended(found)
    assert places.state_rights(place).level is Level.OK


@needs_root
def test_a_state_directory_of_another_user_is_a_fault(place: Place) -> None:
    os.makedirs(place.directory, mode=0o700)
    os.chown(place.directory, 1500, 1500)
    found = places.state_rights(place)
    assert (found.level, "user 1500" in found.words) == (Level.FAULT, True)
    mended(replace(found, mend=found.mend.removeprefix("sudo ")))
    assert places.state_rights(place).level is Level.OK


@needs_root
def test_a_course_of_another_user_is_that_user_s(root: Path, place: Place) -> None:
    assert places.course_rights(place).level is Level.OK
    os.chown(root, 1500, 1500)
    found = places.course_rights(place)
    assert (found.level, "belongs to user 1500" in found.words) == (Level.WARNING, True)
    assert found.mend == f"learnpack-agent install '{root}'"


@needs_no_root
def test_a_directory_that_can_t_be_read_is_named_and_mended(root: Path, place: Place) -> None:
    (root / "exercises" / "01-hello").chmod(0)
    found = places.course_rights(place)
    assert (found.level, "exercises/01-hello" in found.words) == (Level.WARNING, True)
    mended(found)
    assert places.course_rights(place).level is Level.OK


@needs_no_root
def test_a_learnpack_directory_that_can_t_be_written_is_a_fault(root: Path, place: Place) -> None:
    (root / ".learn").chmod(0o500)
    found = places.course_rights(place)
    assert (found.level, "telemetry.json can't be written" in found.words) == (Level.FAULT, True)
    mended(found)
    assert places.course_rights(place).level is Level.OK


def test_links_are_found_where_the_agent_follows_none(root: Path, place: Place, tmp_path: Path) -> None:
    (root / ".learn").mkdir(exist_ok=True)
    assert places.links(place).level is Level.OK
    victim = tmp_path / "victim.json"
    victim.write_text("{}")
    (root / ".learn" / "telemetry.json").symlink_to(victim)
    found = places.links(place)
    assert (found.level, ".learn/telemetry.json is a symbolic link" in found.words) == (Level.FAULT, True)
    mended(found)
    assert places.links(place).level is Level.OK and victim.exists()
    os.makedirs(place.directory)
    os.symlink(victim, os.path.join(place.directory, JOURNAL))
    assert places.links(place).level is Level.FAULT


@pytest.mark.parametrize(
    ("free", "files", "is_read_only", "level"),
    [
        (10 << 30, 1 << 20, False, Level.OK),
        (100 << 20, 1 << 20, False, Level.WARNING),
        (10 << 30, 10, False, Level.WARNING),
        (1 << 20, 1 << 20, False, Level.FAULT),
        (10 << 30, 0, False, Level.FAULT),
        (10 << 30, 1 << 20, True, Level.FAULT),
    ],
)
def test_room_is_judged(free: int, files: int, is_read_only: bool, level: Level) -> None:
    assert places.room_finding("course", free, files, is_read_only=is_read_only).level is level


def test_the_room_of_both_file_systems_is_looked_at(place: Place) -> None:
    found = places.space(place)
    assert "course" in found.words or "state directory" in found.words
    assert "course" not in places.space(replace(place, course=None)).words


def test_of_several_findings_the_worst_counts_and_brings_its_command() -> None:
    found = worst([ok("a"), Finding(Level.WARNING, "b", "mend b"), Finding(Level.FAULT, "c", "mend c")])
    assert found == Finding(Level.FAULT, "b; c", "mend c")
    assert worst([ok("a"), ok("b")]) == ok("a; b")


# --- LearnPack ---


def a_package(directory: Path, version: str = "2.1.34", *, telemetry: bool = True) -> Path:
    package = directory / "node_modules" / "@learnpack" / "learnpack"
    (package / "lib" / "managers").mkdir(parents=True)
    (package / "bin").mkdir()
    (package / "bin" / "run").write_text("#!/bin/sh\n")
    (package / "bin" / "run").chmod(0o755)
    (package / "package.json").write_text(json.dumps({"name": "@learnpack/learnpack", "version": version}))
    if telemetry:
        (package / "lib" / "managers" / "telemetry.js").write_text("")
    return package


def test_learnpack_is_found_on_the_path(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = a_package(tmp_path / "lib")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "learnpack").symlink_to(package / "bin" / "run")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    found = learnpack.learnpack(place)
    assert found.words == f"LearnPack 2.1.34 ({package.resolve()}) writes telemetry.json itself, too"


@pytest.mark.parametrize("where", [".npm/_npx/0badcafe", ".nvm/versions/node/v20.1.0/lib", ".npm-global/lib"])
def test_learnpack_is_found_where_npm_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    a_package(tmp_path / where, "2.0.1", telemetry=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    found = learnpack.installed()
    assert found is not None and (found.version, found.has_telemetry) == ("2.0.1", False)


def test_without_learnpack_that_is_a_note(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnpack, "_places", lambda running: iter([str(tmp_path)]))
    assert learnpack.learnpack(place).level is Level.NOTE


def test_a_configuration_that_learnpack_does_not_survive_is_a_fault(root: Path, place: Place) -> None:
    (root / ".learn").mkdir(exist_ok=True)
    (root / ".learn" / "config.json").write_text("")
    found = learnpack.learnpack(place)
    assert (found.level, "LearnPack can't start" in found.words) == (Level.FAULT, True)
    mended(found)
    assert learnpack.learnpack(place).level is not Level.FAULT


def test_a_server_a_login_and_the_course_s_urls_are_told(stage: Stage, root: Path, place: Place) -> None:
    assert learnpack.server(place).words.startswith("no LearnPack server runs; nobody is logged in")
    config = json.loads((root / "learn.json").read_text())
    (root / "learn.json").write_text(json.dumps({**config, "telemetry": {"batch": "https://api.example.org/x"}}))
    session = root / ".learn" / ".session"
    session.mkdir(parents=True)
    (session / "5af0").write_text(json.dumps({"key": "bc-payload", "value": {"token": "t0ken"}}))
    words = learnpack.server(again(place)).words
    assert "a student is logged in" in words and "a URL for batch" in words and "sends its own" in words
    assert "api.example.org" not in words and "t0ken" not in words
    server = stage.learnpack(root)
    server.start()
    assert "a LearnPack server runs (process" in learnpack.server(again(place)).words


@needs_root
@needs_linux
def test_an_agent_with_a_temporary_directory_of_its_own_is_found(place: Place) -> None:
    assert learnpack.capture(place).level is Level.OK
    os.makedirs(place.directory)
    script = "import fcntl, os, sys; fcntl.flock(3, fcntl.LOCK_EX); os.write(3, b'%d' % os.getpid());"
    script += "print(flush=True); sys.stdin.read()"
    python = os.path.realpath(sys.executable)  # a venv may lie in /tmp
    inside = f'mount -t tmpfs none /tmp && exec {python} -c "$1" 3>&$0'
    with open(os.path.join(place.directory, "lock"), "w") as lock:
        process = subprocess.Popen(
            ["unshare", "--mount", "/bin/bash", "-c", inside, str(lock.fileno()), script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[lock.fileno()],
        )
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    found = learnpack.capture(place)
    process.communicate()
    assert (found.level, "PrivateTmp" in found.words) == (Level.WARNING, True), found


# --- git ---


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


@pytest.fixture(params=["top", "below"])
def repository(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Path:
    """Where `git init` was said: in the course, or above it."""
    top = root if request.param == "top" else root.parent
    git(top, "init", "--quiet")
    (root / ".learn").mkdir(exist_ok=True)
    (root / ".learn" / "telemetry.json").write_text("{}")
    return top


def test_a_course_without_git_has_nothing_to_ignore(place: Place) -> None:
    assert learnpack.git(place) == ok("the course is in no git repository")


def test_a_document_that_git_would_add_is_ignored_by_the_line_that_is_offered(repository: Path, place: Place) -> None:
    found = learnpack.git(place)
    assert (found.level, "not ignored" in found.words) == (Level.WARNING, True)
    assert ".git/info/exclude" in found.mend
    mended(found)
    assert learnpack.git(place).level is Level.OK
    git(repository, "add", ".")
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True).stdout
    assert "telemetry.json" not in listed and "learn.json" in listed


def test_a_document_that_is_tracked_is_taken_out_by_the_line_that_is_offered(repository: Path, place: Place) -> None:
    git(repository, "add", ".")
    before = (repository / ".git" / "index").read_bytes()
    found = learnpack.git(place)
    assert (found.level, "is tracked" in found.words) == (Level.WARNING, True)
    assert (repository / ".git" / "index").read_bytes() == before
    mended(found)
    assert learnpack.git(place).level is Level.OK
    assert (Path(place.root) / ".learn" / "telemetry.json").exists()


def test_signs_in_a_path_mean_nothing_in_the_line(tmp_path: Path, state_dir: Path) -> None:
    git(tmp_path, "init", "--quiet")
    root = make_course(tmp_path / "#a [b]* 'c' \\d?", PYTHON).resolve()
    place = Place(Config(state_dir=str(state_dir)), read_course(str(root)))
    mended(learnpack.git(place))
    assert learnpack.git(place).level is Level.OK


def test_a_git_that_refuses_is_a_note(repository: Path, place: Place) -> None:
    (repository / ".git" / "HEAD").write_text("nonsense")
    assert learnpack.git(place).level is Level.NOTE


# --- sinks ---


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def sink_at(place: Place, url: str, **more: Any) -> Finding:
    sink = SinkConfig("school", "otlp", url)
    config = replace(place.config, sinks=(sink,), **more)
    return service.sink(Planned("school", sink), replace(place, config=config))


def test_a_server_is_reached_without_an_event_and_without_a_token(place: Place, server: FaultServer) -> None:
    asked: list[tuple[str, bytes]] = []
    headers: list[dict[str, str]] = []

    def answer(request: Any) -> None:
        asked.append((request.method, request.body))
        headers.append(request.headers)
        request.answer(405)

    server.behave = lambda request: answer
    host = server.url.removeprefix("http://")
    credentials = {host: Credential(token="t0ken0123456789", plain_http=True)}
    found = sink_at(place, f"{server.url}/v1/logs?key=qu3ry", credentials=credentials)
    assert found == ok(f"{host} (otlp): reached")
    assert asked == [("OPTIONS", b"")]
    assert "t0ken" not in str(headers)


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        (answers, Level.OK, "reached"),
        (status(401), Level.OK, "reached"),
        (status(404), Level.OK, "reached"),
        (page, Level.WARNING, "captive portal"),
        (redirect("http://login.example.org/"), Level.WARNING, "captive portal"),
        (status(511), Level.WARNING, "captive portal"),
        (status(503), Level.WARNING, "answers 503"),
    ],
)
def test_what_answers_is_judged(place: Place, server: FaultServer, fault: Any, level: Level, words: str) -> None:
    server.behave = lambda request: fault
    found = sink_at(place, server.url)
    assert (found.level, words in found.words) == (level, True), found


def test_a_server_that_is_not_reached_is_told_with_why(place: Place, server: FaultServer, tmp_path: Path) -> None:
    server.refuse()
    assert "not reached: Connection refused" in sink_at(place, server.url).words
    assert "its name can't be resolved" in sink_at(place, "http://nowhere.invalid/").words
    tls = self_signed(tmp_path)
    with FaultServer(tls=tls) as secure:
        found = sink_at(place, secure.url)
        assert (found.level, "certificate is not trusted" in found.words) == (Level.WARNING, True), found
        trusted = sink_at(place, secure.url, send=Send(ca_file=str(tls.ca_file)))
        assert trusted.level is Level.OK, trusted


def test_a_server_that_says_nothing_is_waited_for_a_few_seconds(
    place: Place, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.ANSWER_S < PATIENCE_S
    monkeypatch.setattr(service, "ANSWER_S", 0.3)
    server.behave = lambda request: silence
    begun = time.monotonic()
    assert sink_at(place, server.url).level is Level.WARNING
    assert time.monotonic() - begun < 5


def test_credentials_that_are_not_here_are_told(place: Place, server: FaultServer) -> None:
    host = server.url.removeprefix("http://")
    found = sink_at(place, server.url, credentials={host: Credential(credential="lrs")})
    assert (found.level, "no credential lrs" in found.words) == (Level.NOTE, True)


def test_a_directory_for_files_must_be_there_and_writable(place: Place, tmp_path: Path) -> None:
    sink = SinkConfig("files", "jsonl", directory=str(tmp_path / "out"))
    found = service.sink(Planned("files", sink), place)
    assert (found.level, found.mend) == (Level.FAULT, f"sudo mkdir -p {tmp_path / 'out'}")
    (tmp_path / "out").mkdir()
    assert service.sink(Planned("files", sink), place).level is Level.OK


def test_each_sink_has_a_check_also_one_that_a_course_names(root: Path, place: Place) -> None:
    config = json.loads((root / "learn.json").read_text())
    (root / "learn.json").write_text(json.dumps({**config, "telemetry": {"batch": "http://127.0.0.1:9/x"}}))
    place = replace(again(place), config=replace(place.config, send=Send(course_hosts=())))
    (name, check) = checks_for(place)[-1]
    assert (name, check(place).level) == ("sink course-batch", Level.NOTE)
    assert [one.name for one in planned(place.config, read_course(str(root)))] == ["course-batch"]


# --- the agent ---


class Keeper:
    """A service manager that has one agent."""

    words = "a keeper"

    def __init__(self, course: str, state: State, pid: int | None = None) -> None:
        self.instance = Instance(course, "learnpack-agent@x.service", 0, state, pid, "no permission")

    def instances(self) -> list[Instance]:
        return [self.instance]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"doctor must not {name}")


def kept(place: Place, state: State, pid: int | None = None) -> Place:
    return replace(place, managers=(Keeper(place.root, state, pid),))


def test_an_agent_that_does_not_run_is_told_with_what_starts_it(place: Place) -> None:
    found = service.agent(place)
    assert (found.level, found.mend) == (Level.WARNING, f"learnpack-agent install '{place.root}'")
    stopped = service.agent(kept(place, "stopped"))
    assert (stopped.level, stopped.mend) == (Level.WARNING, f"learnpack-agent start '{place.root}'")
    failed = service.agent(kept(place, "failed"))
    assert (failed.level, "failed: no permission" in failed.words) == (Level.FAULT, True)


def test_an_agent_that_runs_is_told_with_who_looks_after_it(stage: Stage, root: Path, place: Place) -> None:
    agent = stage.agent(root).start()
    assert agent.process is not None
    place = replace(place, config=Config(state_dir=str(agent.state)))
    found = service.agent(place)
    assert found.level is Level.NOTE
    assert f"it runs (process {agent.process.pid})" in found.words and "no service manager" in found.words
    assert "processes are seen by " in found.words
    managed = service.agent(kept(place, "running", agent.process.pid))
    assert (managed.level, "learnpack-agent@x.service looks after it" in managed.words) == (Level.OK, True)
    elsewhere = service.agent(replace(place, config=Config(state_dir=str(stage.directory / "elsewhere"))))
    assert (elsewhere.level, "another state directory" in elsewhere.words) == (Level.WARNING, True)


def test_an_agent_of_another_version_is_to_be_started_again(place: Place) -> None:
    with Journal.open(place.directory, create=True) as journal:
        journal.put_fact("status", {"pid": os.getpid(), "version": "0.0.1"})
    lock = Lock.acquire(place.directory)
    found = service.agent(place)
    lock.release()
    assert (found.level, found.mend) == (Level.WARNING, f"learnpack-agent restart '{place.root}'")
    assert f"of version 0.0.1, this program of {__version__}" in found.words


UNIT = "learnpack-agent@home-ada-my\\x20course.service"


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        (f"0::/system.slice/system-learnpack\\x2dagent.slice/{UNIT}\n", UNIT),
        (f"12:pids:/user.slice/user@7.service/x\n1:name=systemd:/user.slice/user@7.service/app.slice/{UNIT}\n", UNIT),
        ("0::/user.slice/user-7.slice/session-3.scope\n", None),
        ("0::/system.slice/ssh.service\n", None),
    ],
)
def test_the_unit_of_a_process_is_read_from_its_control_group(group: str, unit: str | None) -> None:
    assert service.unit_in(group) == unit


def test_a_journal_is_read_and_a_damaged_one_a_fault(place: Place) -> None:
    assert service.journal(place).words == "there is none yet"
    with Journal.open(place.directory, create=True) as journal:
        journal.append([session_start(0), gap(1, 2)], None)
    assert service.journal(place).words.startswith("2 events, 1 gaps")
    with Journal.open(place.directory, create=True) as journal:
        journal.connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
    assert "newer learnpack-agent" in service.journal(place).words
    Path(place.directory, JOURNAL).write_bytes(b"no database\n" * 100)
    found = service.journal(place)
    assert (found.level, "damaged" in found.words) == (Level.FAULT, True)


def test_faults_in_the_configuration_are_told(place: Place) -> None:
    assert service.configuration(place).level is Level.OK
    fault = Fault("/etc/learnpack-agent/config.toml", 3, "unknown key conzent")
    found = service.configuration(replace(place, faults=(fault,)))
    assert (found.level, str(fault) in found.words) == (Level.FAULT, True)


# --- all of it ---


def test_a_check_that_hangs_is_a_finding_and_the_others_are_told(place: Place) -> None:
    never = threading.Event()

    def hangs(place: Place) -> Finding:
        never.wait(60)
        return ok("late")

    begun = time.monotonic()
    first, second = examine(place, [("hangs", hangs), ("other", lambda place: ok("well"))], 0.2)
    assert time.monotonic() - begun < 5
    never.set()
    assert (first.finding.level, "no answer within 0.2 s" in first.finding.words) == (Level.FAULT, True)
    assert second.finding == ok("well")


def test_a_check_that_fails_is_a_finding_of_one_line(place: Place) -> None:
    def fails(place: Place) -> Finding:
        raise OSError(5, "a\nb")

    (one,) = examine(place, [("fails", fails)])
    assert one.finding == Finding(Level.WARNING, "it could not be looked at: [Errno 5] a\\nb")


def test_programs_are_asked_side_by_side_and_each_gets_its_own_answer() -> None:
    def code(number: int) -> int | None:
        answer = asked("/bin/sh", "-c", f"sleep 0.0{number % 5}; exit {number}")
        return answer and answer.code

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(code, range(40))) == list(range(40))
    assert asked("/no/such/program") is None
    assert asked("/bin/sh", "-c", "sleep 30", within_s=0.1) is None


def test_a_sound_course_has_no_fault_and_is_not_changed(root: Path, place: Place, state_dir: Path) -> None:
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))
    examined = examine(place)
    assert [one.check for one in examined] == [name for name, _ in (*OF_THE_MACHINE, *OF_A_COURSE)]
    assert [one for one in examined if one.finding.level is Level.FAULT] == []
    assert not has_fault(examined)
    assert [one for one in examined if "could not be looked at" in one.finding.words] == []
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*")) == before
    assert not state_dir.exists()


def test_every_finding_is_a_line_and_every_command_another() -> None:
    from agent.doctor import Examined

    examined = [
        Examined("a", ok("well\nspoken")),
        Examined("longer", Finding(Level.FAULT, "bad", "mend it")),
    ]
    assert list(lines(examined)) == [
        "ok       a       well\\nspoken",
        "fault    longer  bad",
        "                 mend it: mend it",
    ]
    found = plain(examined, Place(Config()))
    assert found["faults"] == 1 and found["course"] is None
    assert found["findings"][1] == {"check": "longer", "level": "fault", "words": "bad", "mend": "mend it"}


def test_the_command_ends_with_1_where_there_is_a_fault(
    capfd: pytest.CaptureFixture[str], root: Path, state_dir: Path
) -> None:
    code, out, err = called(capfd, "doctor", root, "--json", "--state-dir", state_dir)
    found = json.loads(out)
    assert (code, err, found["faults"], found["course"]) == (0, "", 0, str(root))
    (root / ".learn").mkdir(exist_ok=True)
    (root / ".learn" / "telemetry.json").symlink_to("/nowhere")
    code, out, _ = called(capfd, "doctor", root / "exercises", "--state-dir", state_dir)
    assert code == 1 and "fault    links" in out and f"mend it: rm '{root}/.learn/telemetry.json'" in out


def test_without_a_course_only_the_machine_is_looked_at(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, out, _ = called(capfd, "doctor", "--json", "--state-dir", state_dir)
    assert [one["check"] for one in json.loads(out)["findings"]] == [name for name, _ in OF_THE_MACHINE]
    assert called(capfd, "doctor", tmp_path / "nothing", "--state-dir", state_dir)[0] == 78


def test_a_faulty_configuration_is_found_and_the_rest_looked_at(
    capfd: pytest.CaptureFixture[str], root: Path, tmp_path: Path, state_dir: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('log_level = "loud"\nconzent = true\n')
    code, out, _ = called(capfd, "doctor", root, "--json", "--config", path, "--state-dir", state_dir)
    found = {one["check"]: one for one in json.loads(out)["findings"]}
    assert (code, found["configuration"]["level"]) == (1, "fault")
    assert f"{path}:2" in found["configuration"]["words"] and found["links"]["level"] == "ok"
