"""Root working for a student: who is asked, as whom, and what a student's files can do to it."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.hosting import owner as module
from agent.hosting.manager import ManagerError, Owner
from agent.hosting.owner import as_user, owner_of, user_named, user_of
from tests.standin.toolbox import REPOSITORY
from tests.users import needs_root

#: A user whom no directory service knows.
SPARE = Owner(61_234, 61_234, "nobody-knows", "/nonexistent")


def ask(question: Callable[[], bytes], timeout_s: float = 30.0, user: Owner = SPARE) -> bytes:
    answer = as_user(user, question, timeout_s)
    with pytest.raises(ChildProcessError):  # none is left behind
        os.waitpid(-1, os.WNOHANG)
    return answer


# --- who ---


def test_a_user_is_known_by_name_and_by_number() -> None:
    root = pwd.getpwuid(0)
    wanted = Owner(0, root.pw_gid, root.pw_name, root.pw_dir)
    assert user_of(0) == user_named(root.pw_name) == user_named("0") == wanted


@pytest.mark.parametrize("name", ["no such user", "61234", "-1", "", "0x0", "٠", "99999999999999999999"])
def test_nobody_is_made_up(name: str) -> None:
    with pytest.raises(ManagerError):
        user_named(name)


def test_a_number_that_nobody_has_is_said() -> None:
    with pytest.raises(ManagerError, match="nobody has the user number 61234"):
        user_of(SPARE.uid)


def test_the_owner_of_a_directory_is_that_of_no_link_and_no_file(tmp_path: Path) -> None:
    assert owner_of(str(tmp_path)).uid == os.geteuid()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(ManagerError, match="not a directory"):
            owner_of(str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        owner_of(str(tmp_path / "nothing"))


@needs_root
def test_a_directory_of_nobody_has_no_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, SPARE.uid, SPARE.gid)
    with pytest.raises(ManagerError, match="nobody has"):
        owner_of(str(tmp_path))


# --- becoming ---

BECOME = """
import os, sys
from agent.hosting.manager import Owner
from agent.hosting.owner import become
os.setgroups([0, 4, 27])
os.environ.update(XDG_CONFIG_HOME="/root/.config", XDG_DATA_HOME="/root/x", XDG_RUNTIME_DIR="/run/user/0",
                  XDG_STATE_HOME="/root/y", DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/0/bus", KEPT="kept")
become(Owner({uid}, {uid}, "nobody-knows", "/home/of/them"))
assert os.getresuid() == ({uid},) * 3 and os.getresgid() == ({uid},) * 3, (os.getresuid(), os.getresgid())
assert os.getgroups() == [{uid}], os.getgroups()
assert not [name for name in os.environ if name.startswith(("XDG_", "DBUS_"))], os.environ
assert os.environ["KEPT"] == "kept"
assert [os.environ[name] for name in ("HOME", "USER", "LOGNAME")] == ["/home/of/them", "nobody-knows", "nobody-knows"]
for number in (0, 1):
    try:
        os.setuid(number)
    except PermissionError:
        pass
    else:
        sys.exit("there is a way back")
print(open("/proc/self/status").read())
"""


@needs_root
def test_who_became_a_student_has_nothing_of_root_and_no_way_back() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", BECOME.format(uid=SPARE.uid)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rights = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("CapPrm", "CapEff", "CapAmb"))]
    assert rights == ["0" * 16] * 3


# --- asking ---


@needs_root
def test_a_question_is_answered_by_that_user_and_the_one_who_asks_stays_root() -> None:
    answer = ask(lambda: f"{os.getuid()} {os.geteuid()} {os.getgroups()} {os.environ['HOME']}".encode())
    assert answer == b"61234 61234 [61234] /nonexistent"
    assert os.getuid() == 0
    assert os.environ["HOME"] != "/nonexistent"


@needs_root
def test_what_that_user_may_not_read_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of root's")
    with pytest.raises(ManagerError, match="Permission denied"):
        ask(secret.read_bytes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can become everybody")
def test_who_is_not_root_asks_nobody_else() -> None:
    with pytest.raises(ManagerError, match="Operation not permitted"):
        ask(lambda: b"an answer")


@needs_root
def test_a_long_answer_comes_whole() -> None:
    answer = os.urandom(3 << 20)
    assert ask(lambda: answer) == answer
    assert ask(lambda: b"") == b""


@needs_root
def test_a_question_that_fails_is_an_error_of_one_line_with_its_words() -> None:
    def fail() -> bytes:
        raise ValueError("it is\nno\x1b[2J course \udcff")

    with pytest.raises(ManagerError) as failure:
        ask(fail)
    assert str(failure.value).startswith("asking failed: it is")
    assert str(failure.value).isprintable()


@needs_root
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_by_its_student_is_an_error(sig: signal.Signals) -> None:
    def die() -> bytes:
        os.kill(os.getpid(), sig)
        return b"an answer"

    with pytest.raises(ManagerError, match="it was killed"):
        ask(die)


@needs_root
@pytest.mark.parametrize("sig", [signal.SIGSTOP, None])
def test_a_child_that_hangs_is_waited_for_no_longer_than_was_said(tmp_path: Path, sig: signal.Signals | None) -> None:
    """In a pipe that nobody writes to, or stopped."""
    tmp_path.chmod(0o777)
    pipe = tmp_path / "learn.json"
    os.mkfifo(pipe, 0o666)

    def hang() -> bytes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if sig is not None:
            os.kill(os.getpid(), sig)
        return os.read(os.open("learn.json", os.O_RDONLY), 1)

    began = time.monotonic()
    before = os.getcwd()
    os.chdir(tmp_path)  # the way there is pytest's and root's
    try:
        with pytest.raises(ManagerError, match=r"no answer within 0 s"):
            ask(hang, 0.2)
    finally:
        os.chdir(before)
    assert time.monotonic() - began < 10


@needs_root
def test_an_endless_answer_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_LIMIT", 1 << 20)
    with pytest.raises(ManagerError):
        ask(lambda: b"x" * (64 << 20))


@needs_root
def test_a_child_that_leaves_a_program_behind_does_not_hold_up_the_answer_for_ever() -> None:
    def leave() -> bytes:
        if os.fork() == 0:
            time.sleep(3)  # holds the pipe open
            os._exit(0)
        return b"an answer"

    began = time.monotonic()
    with pytest.raises(ManagerError):
        as_user(SPARE, leave, 0.5)
    assert time.monotonic() - began < 2.5
