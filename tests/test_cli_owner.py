"""Root asked about a student's course: works as that student, also where the student wants it otherwise."""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import cli, machine
from agent.commands.common import become_owner
from agent.config import course_key
from agent.hosting import owner
from agent.hosting.manager import Instance, Owner
from agent.store.journal import Journal
from tests.making import a_compile, opened, session_start
from tests.standin.courses import PYTHON, make_course
from tests.users import a_user, needs_root, open_the_way_to

pytestmark = needs_root

Call = Callable[..., tuple[int, str, str]]
#: As old students' documents are: `repair` has something to do.
OLD = '{"slug": "a-course-of-our-own", "steps": [], "tutorial_started_at": "2024-01-01T00:00:00.000Z"}'


@pytest.fixture
def student() -> pwd.struct_passwd:
    return a_user()


@pytest.fixture
def course(tmp_path: Path, student: pwd.struct_passwd, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A student's, in the student's home."""
    home = tmp_path / "home"
    monkeypatch.setitem(HOMES, student.pw_uid, str(home))
    monkeypatch.setattr(machine, "managers", lambda program=None: [])
    course = make_course(home / "course", PYTHON).resolve()
    (course / ".learn").mkdir(exist_ok=True)
    (course / ".learn" / "telemetry.json").write_text(OLD)
    record(home / ".local" / "state" / "learnpack-agent", course)
    give(home, student.pw_uid)
    open_the_way_to(tmp_path)
    yield str(course)


HOMES: dict[int, str] = {}


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The students' homes, and root's, are directories of these tests."""
    monkeypatch.setenv("HOME", str(tmp_path / "root"))
    known = owner.user_of

    def user_of(uid: int) -> Owner:
        user = known(uid)
        return Owner(user.uid, user.gid, user.name, HOMES.get(uid, user.home))

    monkeypatch.setattr(owner, "user_of", user_of)
    for name in ("XDG_STATE_HOME", "STATE_DIRECTORY", "LEARNPACK_AGENT_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


def record(state: Path, course: Path) -> Path:
    directory = state / course_key(str(course))
    with Journal.open(directory, create=True) as journal:
        journal.append([session_start(0), opened("01-hello", 1), a_compile("01-hello", 2, 3)], None)
    return directory


def give(top: Path, uid: int) -> None:
    for directory, _, files in os.walk(top):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            os.chown(path, uid, uid, follow_symlinks=False)


def not_of(top: Path, uid: int) -> list[str]:
    """What in this directory is another user's."""
    return [str(path) for path in top.rglob("*") if path.lstat().st_uid != uid]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """A command in a process of its own, because it becomes another user for good."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = in_child(lambda: cli.main([str(argument) for argument in arguments]))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def in_child(function: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = function()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["events"],
        ["export", "--format", "jsonl"],
        ["queue"],
        ["pause"],
        ["consent", "yes"],
        ["repair"],
        ["forget", "--yes"],
    ],
    ids=lambda words: words[0],
)
def test_what_root_is_told_and_what_root_leaves_is_the_students(
    call: Call, course: str, student: pwd.struct_passwd, command: list[str]
) -> None:
    code, out, err = call(*command, course)
    assert (code, err) == (0, "")
    home = Path(course).parent
    assert not_of(home, student.pw_uid) == []
    assert command[0] not in ("events", "export") or len(out.splitlines()) == 3
    assert not (home.parent / "root").exists()
    left = {"pause": "control.json", "consent": "control.json", "forget": "receipts", "repair": "lock"}
    if command[0] in left:
        assert list((home / ".local").rglob(left[command[0]]))


def test_where_root_keeps_the_records_root_stays_root(
    call: Call, course: str, student: pwd.struct_passwd, tmp_path: Path
) -> None:
    directory = record(tmp_path / "roots", Path(course))
    code, _, err = call("pause", course, "--state-dir", tmp_path / "roots")
    assert (code, err) == (0, "")
    assert (directory / "control.json").stat().st_uid == 0
    assert not_of(Path(course).parent, student.pw_uid) == []


def test_where_another_student_keeps_them_root_is_that_one(call: Call, course: str, tmp_path: Path) -> None:
    other = a_user(1).pw_uid
    directory = record(tmp_path / "theirs", Path(course))
    give(tmp_path / "theirs", other)
    assert call("pause", course, "--state-dir", tmp_path / "theirs")[0] == 0
    assert (directory / "control.json").stat().st_uid == other


def test_whose_number_nobody_has_is_not_root_either(call: Call, course: str) -> None:
    unknown = 4_000_001
    give(Path(course).parent, unknown)
    code, out, err = call("repair", course, "--dry-run")
    assert (code, err) == (0, "")
    assert "dry run: nothing was written" in out
    code, _, err = call("repair", course)
    assert code == 77 and err.count("\n") == 1  # there is no home in which the original could be kept
    assert not_of(Path(course).parent, unknown) == []


@pytest.mark.parametrize("command", ["status", "doctor", "repair", "pause", "support-bundle"])
def test_a_program_in_roots_home_works_for_a_student_too(course: str, tmp_path: Path, command: str) -> None:
    """`pipx install` by root: whoever became the student can't read the program any more."""
    private = tmp_path / "private"
    shutil.copytree(Path(cli.__file__).parent, private / "agent")
    private.chmod(0o700)
    state = Path(course).parent / ".local" / "state" / "learnpack-agent"
    words = [sys.executable, "-m", "agent", command, course, "--state-dir", str(state)]
    done = subprocess.run(words, cwd=private, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stdout


def who(command: str, course: str, **more: object) -> int:
    """Who works then: 0 root, 1 the student."""

    def become() -> int:
        become_owner(argparse.Namespace(command=command, course=course, **more))
        assert len(set(os.getresuid())) == 1
        return min(os.geteuid(), 1)

    return in_child(become)


@pytest.mark.parametrize("command", ["run", "install", "start", "stop", "logs", "support-bundle"])
def test_what_is_roots_business_stays_so(course: str, command: str) -> None:
    assert who(command, course) == 0


def test_a_look_at_all_is_roots_wherever_root_stands(course: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(course)
    assert who("status", ".", all=True) == 0
    assert who("status", ".", all=False) == 1


@pytest.mark.parametrize("where", ["exercises/01-hello", ".", "gone", "torn"])
def test_the_owner_is_found_from_wherever_in_the_course(course: str, where: str) -> None:
    if where == "torn":
        Path(course, "learn.json").write_text("{")
    elif where == "gone":
        shutil.rmtree(Path(course, "exercises"))
        Path(course, "learn.json").unlink()
    assert who("status", os.path.join(course, where if where.startswith("ex") else ".")) == 1


def test_a_course_of_roots_is_that_students_who_was_named(course: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(Path(course), 0)
    assert who("status", course) == 0

    class Installed:
        def instances(self) -> list[Instance]:
            return [Instance(course, "unit", a_user().pw_uid, "running", is_chosen=True)]

    monkeypatch.setattr(machine, "managers", lambda program=None: [Installed()])
    assert who("status", course) == 1


def test_who_can_not_become_the_student_does_nothing_as_root(
    call: Call, course: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(user: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(owner, "become", refuse)
    code, out, err = call("pause", course)
    assert (code, out) == (77, "")
    assert "Operation not permitted" in err
    assert not list(Path(course).parent.rglob("control.json"))


# --- a hostile student ---


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """What only root may read and write."""
    path = tmp_path / "precious"
    path.mkdir(mode=0o700)
    (path / "telemetry.json").write_text(OLD)
    (path / "telemetry.json").chmod(0o600)
    return path


@pytest.mark.parametrize("what", [".learn", ".learn/telemetry.json", "state", "records", "control.json"])
@pytest.mark.parametrize(
    "command", [["repair"], ["pause"], ["forget", "--yes"], ["status"]], ids=lambda words: words[0]
)
def test_no_link_leads_root_anywhere(
    call: Call, course: str, student: pwd.struct_passwd, precious: Path, what: str, command: list[str]
) -> None:
    home = Path(course).parent
    state = home / ".local" / "state" / "learnpack-agent"
    place = {
        "state": state,
        "records": state / course_key(course),
        "control.json": state / course_key(course) / "control.json",
    }.get(what, Path(course) / what)
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    target = precious / "telemetry.json" if place.suffix == ".json" else precious
    place.symlink_to(target)
    os.chown(place, student.pw_uid, -1, follow_symlinks=False)
    call(*command, course, "--state-dir", state)
    assert os.listdir(precious) == ["telemetry.json"]
    assert (precious / "telemetry.json").read_text() == OLD
    assert (precious / "telemetry.json").stat().st_uid == 0
