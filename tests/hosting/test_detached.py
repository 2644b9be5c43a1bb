"""`start --detach`: real processes that detach, what is left of their origin, their log, and who is refused."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import signal
import stat
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import course_key
from agent.hosting import detached
from agent.hosting.detached import LOG_BYTES, RotatedLog, Surroundings, refusal, surroundings
from agent.store.lock import holder
from tests.until import until

REPOSITORY = Path(__file__).parent.parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="what a process is like is read from /proc")


class Place:
    """A course, and what detaches for it."""

    def __init__(self, directory: Path) -> None:
        self.course = directory / "my course"
        (self.course / "exercises" / "01-a").mkdir(parents=True)
        (self.course / "learn.json").write_text("{}")
        self.states = directory / "state"
        self.state = self.states / course_key(str(self.course))
        self.log_path = self.state / "agent.log"

    def start(
        self,
        what: str = "agent",
        *,
        before: Callable[[], object] = lambda: None,
        kept: tuple[int, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """`before` is done in the process before it becomes the command."""

        def begin() -> None:
            os.setsid()
            os.umask(0)
            before()

        return subprocess.run(
            [sys.executable, "-m", "tests.hosting.detaching", what, str(self.course), str(self.states)],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "HOME": str(self.states.parent), **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=begin,
            pass_fds=kept,
        )

    def started(self, *, before: Callable[[], object] = lambda: None) -> int:
        done = self.start(before=before)
        assert (done.returncode, done.stderr) == (0, "")
        return int(done.stdout)

    @property
    def holder(self) -> int | None:
        return holder(self.state) if self.state.is_dir() else None

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def end(self, number: int = signal.SIGKILL) -> None:
        pid = self.holder
        if pid:
            os.kill(pid, number)
            until(lambda: self.holder != pid)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.end()


def fact(pid: int, name: str) -> str:
    """One of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))


# --- lives ---


def test_it_is_ready_when_the_command_ends(place: Place) -> None:
    pid = place.started()
    assert place.holder == pid
    assert "ready: watching" in place.log


def test_a_second_start_says_who_is_running_and_leaves_it_alone(place: Place) -> None:
    pid = place.started()
    second = place.start()
    assert (second.returncode, second.stdout) == (75, "")
    assert second.stderr == f"an agent is already running for this course (process {pid})\n"
    assert place.holder == pid


def test_sigterm_ends_it_and_its_lock(place: Place) -> None:
    place.started()
    place.end(signal.SIGTERM)
    assert place.holder is None
    assert "stopped" in place.log


def test_after_sigkill_what_it_left_is_in_nobodys_way(place: Place) -> None:
    pid = place.started()
    place.end(signal.SIGKILL)
    assert (place.state / "lock").read_text() == f"{pid}\n"
    assert place.started() != pid


def test_sighup_reads_the_configuration_again(place: Place) -> None:
    pid = place.started()
    os.kill(pid, signal.SIGHUP)
    until(lambda: "the configuration was read again" in place.log)
    assert place.holder == pid


def ignore_all() -> None:
    """As nohup and a script's `&` leave it, and a caller that blocks signals."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))


def test_signals_that_the_caller_ignored_or_blocked_work(place: Place) -> None:
    pid = place.started(before=ignore_all)
    if sys.platform == "linux":
        # With this one ignored, no exit code of a program that the agent asks (git) would be known.
        assert not int(fact(pid, "SigIgn"), 16) >> (signal.SIGCHLD - 1) & 1
    os.kill(pid, signal.SIGHUP)
    until(lambda: "the configuration was read again" in place.log)
    place.end(signal.SIGINT)
    place.started(before=ignore_all)
    place.end(signal.SIGTERM)
    assert place.log.count("stopped") == 2


# --- what is left of its origin ---


@linux
def test_it_is_nobodys_child_and_has_no_terminal(place: Place) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    pid = place.started(before=take_terminal)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    parent, group, session, terminal = map(int, fields[1:5])
    assert terminal == 0
    assert session not in (pid, os.getsid(0)), "a leader of a session may get a terminal by opening one"
    assert group == session
    assert parent != os.getpid()
    os.close(ours)
    os.close(theirs)
    assert place.holder == pid


@linux
def test_nothing_of_the_caller_stays_open(place: Place) -> None:
    read, write = os.pipe()
    high = fcntl.fcntl(write, fcntl.F_DUPFD, 700)
    done = place.start(kept=(high, write))
    pid = int(done.stdout)
    os.close(write)
    os.close(high)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b"", "somebody has it open"
    os.close(read)
    opened = {int(one.name): os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()}
    assert [opened[number] for number in range(3)] == ["/dev/null", str(place.log_path), str(place.log_path)]
    assert max(opened) < 100
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert fact(pid, "Umask") == "0077"
    ignored = int(fact(pid, "SigIgn"), 16)
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        assert ignored >> (number - 1) & 1
    heard = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    assert int(fact(pid, "SigBlk"), 16) == sum(1 << (number - 1) for number in heard), "by another thread"


def test_python_daemon_still_has_the_range_that_is_narrowed() -> None:
    import daemon.daemon  # type: ignore[import-untyped]

    assert isinstance(daemon.daemon._total_file_descriptor_range, range)


def test_a_programs_output_has_somewhere_to_go(place: Place) -> None:
    assert place.start("speak").returncode == 0
    until(lambda: place.log == "from a program\nfrom a library\n")


def test_what_a_service_manager_told_the_caller_is_forgotten(place: Place) -> None:
    told = {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": "1", "WATCHDOG_USEC": "1000", "JOURNAL_STREAM": "1:1"}
    assert place.start("tell-environment", variables=told).returncode == 0
    until(lambda: "PATH" in place.log)
    assert not told.keys() & set(place.log.split())


# --- failures ---


def test_a_course_that_is_none_is_78_and_one_line(place: Place) -> None:
    (place.course / "learn.json").write_text("{")
    done = place.start()
    assert (done.returncode, done.stdout) == (78, "")
    assert "learn.json: not valid JSON" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_log_that_is_a_link_is_73_and_its_target_is_left_alone(place: Place, tmp_path: Path) -> None:
    place.state.mkdir(parents=True)
    target = tmp_path / "target"
    target.write_text("mine\n")
    target.chmod(0o644)
    place.log_path.symlink_to(target)
    done = place.start()
    assert (done.returncode, done.stdout) == (73, "")
    assert "agent.log" in done.stderr
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("mine\n", 0o644)


def test_one_that_dies_before_it_is_ready_was_not_started(place: Place) -> None:
    done = place.start("be-killed")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"it was ended before it was ready; see {place.log_path}\n"


def test_one_that_is_stopped_before_it_is_ready_was_not_started(place: Place) -> None:
    done = place.start("leave")
    assert (done.returncode, done.stderr) == (1, "it was stopped before it was ready\n")


def test_a_later_failure_is_in_the_log(place: Place) -> None:
    assert place.start("fail-late").returncode == 0
    until(lambda: "RuntimeError: later on" in place.log)


# --- the log ---


@pytest.fixture
def rotated(tmp_path: Path) -> Iterator[tuple[logging.Logger, Path]]:
    handler = RotatedLog(str(tmp_path / "agent.log"), streams=())
    logger = logging.Logger("rotated")
    logger.addHandler(handler)
    yield logger, tmp_path
    handler.close()


def test_the_log_is_three_files_of_a_megabyte_for_its_owner_only(rotated: tuple[logging.Logger, Path]) -> None:
    logger, directory = rotated
    for number in range(50):
        logger.warning("%d %s", number, "x" * 99_990)
    found = sorted(directory.iterdir())
    assert [path.name for path in found] == ["agent.log", "agent.log.1", "agent.log.2"]
    assert all(path.stat().st_size <= LOG_BYTES for path in found)
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert found[0].read_text().splitlines()[-1].startswith("49 ")


def test_a_log_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    path.write_text("before\n")
    path.chmod(0o644)
    RotatedLog(str(path), streams=()).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "before\n"


def test_a_log_that_was_erased_is_begun_anew(rotated: tuple[logging.Logger, Path]) -> None:
    logger, directory = rotated
    logger.warning("before")
    (directory / "agent.log").unlink()
    logger.warning("after")
    assert (directory / "agent.log").read_text() == "after\n"


def test_the_streams_lead_to_the_newest_file(tmp_path: Path) -> None:
    copy = os.open(os.devnull, os.O_WRONLY)
    handler = RotatedLog(str(tmp_path / "agent.log"), streams=(copy,))
    try:
        os.write(copy, b"one\n")
        handler.doRollover()
        os.write(copy, b"two\n")
    finally:
        handler.close()
        os.close(copy)
    assert (tmp_path / "agent.log.1").read_text() == "one\n"
    assert (tmp_path / "agent.log").read_text() == "two\n"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)])
def test_the_log_is_a_regular_file_or_none(make: Callable[[str], object], tmp_path: Path) -> None:
    path = str(tmp_path / "agent.log")
    make(path)
    with pytest.raises(OSError):
        RotatedLog(path, streams=())


# --- who is refused ---

#: A login shell's child; `environment` is what differs.
SHELL = Surroundings(
    pid=500, parent=400, session=300, parent_name="bash", unit="session-3.scope", has_terminal=True, environment={}
)
SERVICE = replace(
    SHELL, parent=1, session=500, parent_name="systemd", unit="agent.service", has_terminal=False, is_journaled=True
)
SCRIPT = replace(SERVICE, parent=499, session=499, parent_name="agent.sh")

ALLOWED = {
    "a shell": (SHELL, {}),
    "ssh": (replace(SHELL, has_terminal=False), {}),
    "a GNOME terminal": (
        replace(SHELL, unit="vte-spawn-1.scope"),
        {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": "222", "JOURNAL_STREAM": "8:1"},
    ),
    "a terminal in a service, as code-server's": (
        replace(SHELL, unit="code-server@ada.service"),
        {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": "222", "NOTIFY_SOCKET": "/run/systemd/notify"},
    ),
    "cron's @reboot": (
        replace(SHELL, unit="cron.service", has_terminal=False, parent_name="sh"),
        {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": "222", "JOURNAL_STREAM": "8:1"},
    ),
    "cron's @reboot under an older systemd": (
        replace(SHELL, unit="cron.service", has_terminal=False, parent_name="sh"),
        {"INVOCATION_ID": "5f"},
    ),
    "a desktop's autostart, whose output goes to the journal": (
        replace(SHELL, unit="app-gnome-agent-9.scope", has_terminal=False, is_journaled=True),
        {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": "222"},
    ),
    "an orphan of a terminal under an older systemd": (
        replace(SHELL, parent=1, parent_name="systemd"),
        {"INVOCATION_ID": "5f"},
    ),
    "a container's first process's child": (replace(SHELL, parent=1, unit="", has_terminal=False), {}),
    "systemd-cat in a terminal": (replace(SHELL, is_journaled=True, unit="user@1.service"), {}),
    "macOS's Terminal": (SHELL, {"XPC_SERVICE_NAME": "0"}),
    "an orphan of macOS's Terminal": (
        replace(SHELL, parent=1),
        {"XPC_SERVICE_NAME": "application.com.apple.Terminal.1"},
    ),
    "below a job of launchd": (SHELL, {"XPC_SERVICE_NAME": "org.example.job"}),
}

REFUSED = {
    "a service": (SERVICE, {"SYSTEMD_EXEC_PID": "500", "INVOCATION_ID": "5f"}, "systemd"),
    "a service with a terminal": (replace(SERVICE, has_terminal=True), {"SYSTEMD_EXEC_PID": "500"}, "systemd"),
    "a service of an older systemd": (
        replace(SERVICE, is_journaled=False, unit=""),
        {"INVOCATION_ID": "5f"},
        "systemd",
    ),
    "a service's script": (SCRIPT, {"SYSTEMD_EXEC_PID": "499", "INVOCATION_ID": "5f"}, "systemd"),
    "a service's script that logs to a file": (
        replace(SCRIPT, is_journaled=False),
        {"SYSTEMD_EXEC_PID": "499", "NOTIFY_SOCKET": "/run/systemd/notify"},
        "systemd",
    ),
    "a job of launchd": (
        replace(SHELL, parent=1, parent_name="", unit="", has_terminal=False),
        {"XPC_SERVICE_NAME": "learnpack-agent.my-course-1"},
        "launchd",
    ),
}


@pytest.mark.parametrize("who", ALLOWED)
def test_who_may_detach(who: str) -> None:
    around, variables = ALLOWED[who]
    assert refusal(replace(around, environment=variables)) is None


@pytest.mark.parametrize("who", REFUSED)
def test_who_may_not_detach(who: str) -> None:
    around, variables, manager = REFUSED[who]
    words = refusal(replace(around, environment=variables))
    assert words is not None
    assert words.startswith(manager)
    assert "`run`" in words


def test_a_service_gets_one_line_and_no_agent(place: Place) -> None:
    done = place.start("service")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("systemd started this")
    assert done.stderr.count("\n") == 1
    assert not place.state.exists()


def test_what_is_known_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    around = surroundings()
    assert around.is_journaled
    assert (around.pid, around.parent, around.session) == (os.getpid(), os.getppid(), os.getsid(0))
    monkeypatch.setenv("JOURNAL_STREAM", "0:0")
    assert not surroundings().is_journaled


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/user.slice/user-1.slice/session-3.scope\n", "session-3.scope"),
        ("0::/system.slice/cron.service\n", "cron.service"),
        ("8:pids:/system.slice/x\n1:name=systemd:/system.slice/cron.service\n0::/\n", "cron.service"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_is_the_last_part_of_the_control_group(text: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "_text", lambda path: text if path == "/proc/self/cgroup" else "")
    assert surroundings().unit == unit
