"""`start --detach`: an agent that lives on without a service manager, by python-daemon (PEP 3143).

    CLI ── fork ── DaemonContext (forks twice more, setsid) ── run(log)
     └── waits at a pipe ◄───── "ready PID" or "failed CODE WORDS" ──┘

Promised: `start_detached` returns when the agent watches, and raises when it does not; nobody is told "started" of one
that died.  There is no pidfile but the course's lock (`store/lock.py`): it holds the pid, the kernel ends it with the
process, and a stale one means nothing, so `kill -9` needs no cleaning up.  python-daemon's own pidfile is a file that
has to be deleted, and is not used.  umask 077, working directory /, no terminal, no descriptor of the caller's; what
is logged, printed or cried out goes to `agent.log` in the course's state directory.

Where a service manager started the command it is refused (`refusal`): the manager would take the end of the command for
the end of the agent, and kill what is left.

Known to be weak: a start that hangs (a dead network file system) is waited for until Ctrl-C, and then goes on.  Where
logind ends a user's processes at logout (KillUserProcesses=yes), it ends this one, too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import NoReturn

from . import notify
from .terminal import has_terminal

LOG = "agent.log"
#: With the two before it: 3 MB at most.
LOG_BYTES, LOGS_BEFORE = 1_000_000, 2

#: What a service manager told whoever called us is not ours.
_NOT_OURS = (
    "NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS LISTEN_PID LISTEN_FDNAMES JOURNAL_STREAM INVOCATION_ID"
    " SYSTEMD_EXEC_PID XPC_SERVICE_NAME"
).split()

_FAILURE = 1


class CannotDetach(Exception):
    """A service manager started this command.  One line that says what to do instead."""


class DidNotStart(Exception):
    """There is no agent now.  The exit code that it would have had in the foreground, and one line."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


def log_path(directory: str) -> str:
    """The log of the detached agent whose state directory this is."""
    return os.path.join(directory, LOG)


def start_detached(
    run: Callable[[logging.Handler], object], directory: str, explained: Callable[[Exception], tuple[int, str]]
) -> int:
    """Start `run` as a daemon; returns its pid once it has told that it is ready (`notify(READY="1")`).

    `run` gets the handler that all logging should go to, and blocks until the agent's end; it is called in /, so its
    paths have to be absolute.  `directory` is the course's state directory, which is made.  `explained` gives the exit
    code and the line for an exception of `run`.  Raises CannotDetach, DidNotStart, or OSError (state directory, fork).
    """
    if (why := refusal(surroundings())) is not None:
        raise CannotDetach(why)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _become_daemon(run, directory, explained, told)
    os.close(told)
    try:
        with open(heard, "rb") as pipe:
            words = pipe.readline().decode(errors="backslashreplace").rstrip("\n").split(" ", 2)
    finally:
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored
            os.waitpid(child, 0)
    match words:
        case ["ready", pid]:
            return int(pid)
        case ["failed", code, line]:
            raise DidNotStart(int(code), line)
    raise DidNotStart(_FAILURE, f"it was ended before it was ready; see {log_path(directory)}")


def _become_daemon(
    run: Callable[[logging.Handler], object],
    directory: str,
    explained: Callable[[Exception], tuple[int, str]],
    told: int,
) -> NoReturn:
    """In the child: never returns into the caller's frames, which are the parent's business."""
    parent = _Parent(told)
    code = _FAILURE
    try:
        _detach(told)
        notify.listeners.append(parent.hear)
        run(RotatedLog(log_path(directory)))
        parent.tell("failed 1 it was stopped before it was ready")
        code = 0
    except Exception as error:
        code, line = explained(error)
        if not parent.tell(f"failed {code} " + " ".join(line.splitlines())):
            logging.getLogger("learnpack-agent").exception("ended by a failure")
    finally:
        logging.shutdown()
        os._exit(code)


class _Parent:
    """Who waits at the pipe, until it was told something."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def hear(self, variables: Mapping[str, str]) -> None:
        """What the agent tells its service manager."""
        if "READY" in variables:
            self.tell(f"ready {os.getpid()}")

    def tell(self, line: str) -> bool:
        """False if nobody hears it: it was told something already, or has gone (Ctrl-C)."""
        if self._pipe is None:
            return False
        pipe, self._pipe = self._pipe, None
        try:
            os.write(pipe, line.encode(errors="backslashreplace") + b"\n")
        except BrokenPipeError:
            return False
        finally:
            os.close(pipe)
        return True


def _detach(told: int) -> None:
    """Two forks, and all that a daemon should do; only `told` and the standard streams (/dev/null) stay open."""
    import daemon.daemon  # type: ignore[import-untyped]

    # It closes every number up to the hard limit, which is a million in a desktop session and a thousand million in
    # some containers.  Without close_range(2) (macOS, older glibc) each million took 2 s.
    with contextlib.suppress(OSError):  # no /dev/fd
        daemon.daemon._total_file_descriptor_range = range(max(map(int, os.listdir("/dev/fd"))) + 1)
    context = daemon.DaemonContext(
        # Left to itself it does not detach if stdin is a socket, as it is under node, or the parent is process 1.
        detach_process=True,
        umask=0o077,
        files_preserve=[told],
        # Its own map would make SIGTERM an exception.  What was ignored by whoever called us (a script's `&`, nohup)
        # has to work: the agent's handlers come with `run`.
        signal_map={
            signal.SIGTERM: signal.SIG_DFL,
            signal.SIGINT: signal.SIG_DFL,
            signal.SIGHUP: signal.SIG_DFL,
            signal.SIGCHLD: signal.SIG_DFL,
            signal.SIGTSTP: None,
            signal.SIGTTIN: None,
            signal.SIGTTOU: None,
        },
    )
    context.open()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for descriptor in (0, 1, 2):  # it opens them anew, so that programs we start would have none
        os.set_inheritable(descriptor, True)
    for name in _NOT_OURS:
        os.environ.pop(name, None)


class RotatedLog(RotatingFileHandler):
    """`path`, mode 0600, and what was in it before in `path.1` and `path.2`.  It also takes what is written to
    `streams`, which lead to the newest file.  A file that was erased (`forget`) is begun anew.

    Never through a symbolic link, and only a regular file: OSError.
    """

    def __init__(self, path: str, streams: tuple[int, ...] = (1, 2)) -> None:
        self._streams = streams
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOGS_BEFORE, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise FileExistsError(errno.EEXIST, "not a regular file", self.baseFilename)
        self._inode = _inode(status)
        os.fchmod(descriptor, 0o600)
        for stream in self._streams:
            os.dup2(descriptor, stream)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def shouldRollover(self, record: logging.LogRecord) -> int:
        if self.stream is not None and not self._is_in_place():
            self.stream.close()
            self.stream = self._open()
        return super().shouldRollover(record)

    def _is_in_place(self) -> bool:
        try:
            return self._inode == _inode(os.lstat(self.baseFilename))
        except OSError:
            return False


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


# --- who started us ---


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What can be known of who started this process."""

    pid: int
    parent: int
    session: int
    parent_name: str = ""
    #: The last part of its control group, where systemd manages them: `cron.service`, `session-3.scope`.
    unit: str = ""
    has_terminal: bool = False
    #: Whether stdout or stderr is the very stream that $JOURNAL_STREAM names.
    is_journaled: bool = False
    environment: Mapping[str, str] | None = None


def refusal(around: Surroundings) -> str | None:
    """Why not to detach; None: nothing speaks against it.

    Most variables of systemd are inherited by everything below a service, so they prove nothing: a GNOME terminal,
    cron's `@reboot` and a terminal in a browser (code-server) all have $INVOCATION_ID.  Only what names this very
    process does, or, for a service's script, what leads straight to the manager while there is no terminal and no
    login session.
    """
    environment = around.environment or {}
    if environment.get("SYSTEMD_EXEC_PID") == str(around.pid):  # systemd 248 and later
        return _words("systemd")
    is_older = "INVOCATION_ID" in environment and "SYSTEMD_EXEC_PID" not in environment
    # A service's main process leads a session of its own; an orphan of a terminal, which has the same parent, does not.
    if is_older and around.parent_name == "systemd" and around.session == around.pid:
        return _words("systemd")
    is_told = around.is_journaled or "NOTIFY_SOCKET" in environment
    if is_told and around.unit.endswith(".service") and not around.has_terminal:
        return _words("systemd")
    # In a terminal of macOS it is "0", or the application's.
    service = environment.get("XPC_SERVICE_NAME", "0")
    if around.parent == 1 and service not in ("", "0") and not service.startswith("application."):
        return _words("launchd")
    return None


def _words(manager: str) -> str:
    return f"{manager} started this, and looks after the agent itself: give it `run` in the place of `start --detach`"


def surroundings() -> Surroundings:
    """Those of this process."""
    parent = os.getppid()
    groups = [line.partition(":")[2] for line in _text("/proc/self/cgroup").splitlines()]
    # The only hierarchy ("0::/path"), else the one that is systemd's own ("1:name=systemd:/path").
    paths = [path for name, _, path in (group.partition(":") for group in groups) if name in ("", "name=systemd")]
    return Surroundings(
        pid=os.getpid(),
        parent=parent,
        session=os.getsid(0),
        parent_name=_text(f"/proc/{parent}/comm").strip(),
        unit=max((path.rpartition("/")[2] for path in paths), key=len, default=""),
        has_terminal=has_terminal(),
        is_journaled=any(_is_journal(descriptor) for descriptor in (1, 2)),
        environment=dict(os.environ),
    )


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _is_journal(descriptor: int) -> bool:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
