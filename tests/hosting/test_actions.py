"""What a manager planned is done, or shown: with real files, real links and real programs."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.hosting import actions
from agent.hosting.actions import perform, run, shown
from agent.hosting.manager import Action, ManagerError, Remove, Run, Write

TOLD = Run((sys.executable, "-c", "print('told')"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_077() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_what_is_written_is_for_all_to_read_whatever_the_umask(tmp_path: Path, umask_077: None) -> None:
    path = tmp_path / "new" / "directories" / "file"
    perform([Write(str(path), b"content"), Write(str(tmp_path / "secret"), b"", 0o600)])
    assert path.read_bytes() == b"content"
    assert [mode_of(one) for one in (path, path.parent, path.parent.parent)] == [0o644, 0o755, 0o755]
    assert mode_of(tmp_path / "secret") == 0o600
    assert os.umask(0o077) == 0o077


def test_a_file_that_is_as_wanted_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    perform([Write(str(path), b"content")])
    before = path.stat()
    perform([Write(str(path), b"content")])
    assert path.stat().st_ino == before.st_ino
    path.chmod(0o666)
    perform([Write(str(path), b"content")])
    assert mode_of(path) == 0o644


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a long old content")
    with path.open("rb") as old:
        perform([Write(str(path), b"new")])
        assert old.read() == b"a long old content"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("is_same", [False, True])
def test_a_link_in_the_files_place_is_replaced_and_what_it_leads_to_is_not_touched(
    tmp_path: Path, is_same: bool
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"content" if is_same else b"precious")
    victim.chmod(0o644)
    path = tmp_path / "file"
    path.symlink_to(victim)
    perform([Write(str(path), b"content")])
    assert not path.is_symlink()
    assert path.read_bytes() == b"content"
    assert victim.read_bytes() == (b"content" if is_same else b"precious")


def test_what_can_not_be_written_is_an_error_that_names_it_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(ManagerError, match=f"{tmp_path}/file: Is a directory"):
        perform([Write(str(tmp_path / "file"), b"")])
    assert os.listdir(tmp_path) == ["file"]
    (tmp_path / "plain").write_text("")
    with pytest.raises(ManagerError, match="plain/file: File exists"):
        perform([Write(str(tmp_path / "plain" / "file"), b"")])


def test_what_is_removed_is_gone_and_what_was_not_there_is_well(tmp_path: Path) -> None:
    for name in ("file", "full/kept"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("full")
    perform([Remove(str(tmp_path / name)) for name in ("file", "empty", "link", "full", "nothing", "nowhere/nothing")])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/kept"]


def test_what_can_not_be_removed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(ManagerError, match="Not a directory"):
        perform([Remove(str(tmp_path / "plain" / "file"))])


def test_what_a_command_prints_comes_back_and_its_own_words_are_the_error() -> None:
    assert run(TOLD.argv) == "told\n"
    words = "import sys; sys.stderr.write('no\\n  such\\xff unit\\n'); sys.exit(4)"
    with pytest.raises(ManagerError, match=r"no such.* unit$"):
        run([sys.executable, "-c", words])
    with pytest.raises(ManagerError, match=r"exit code 5$"):
        run([sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(ManagerError, match="/nowhere/program: No such file"):
        run(["/nowhere/program"])


def test_what_may_fail_is_no_error_and_what_it_said_comes_back() -> None:
    perform([Run(("/nowhere/program",), may_fail=True), Run((sys.executable, "-c", "exit(3)"), may_fail=True)])
    assert run([sys.executable, "-c", "print('half'); exit(3)"], may_fail=True) == "half\n"


def test_a_command_has_no_input_to_wait_for() -> None:
    assert run([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"]) == "''\n"


def test_a_command_that_hangs_is_ended_and_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PATIENCE_S", 0.1)
    with pytest.raises(ManagerError, match=r"no answer within 0\.1 s"):
        run([sys.executable, "-c", "import signal; signal.pause()"])


def test_what_follows_a_failure_is_not_done_and_what_was_done_stays(tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    with pytest.raises(ManagerError):
        perform([Write(str(first), b""), Run((sys.executable, "-c", "exit(1)")), Write(str(last), b"")])
    assert os.listdir(tmp_path) == ["first"]


def test_what_is_shown_is_everything_and_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    plan: list[Action] = [
        Write(str(path), b"[Service]\nUser=1\xff\n", 0o600),
        Remove(str(tmp_path)),
        Run(("systemctl", "start", r"a\x20b.service")),
        Run(("/nowhere/program",), may_fail=True),
    ]
    assert list(shown(plan)) == [
        f"# write {path} (mode 0600)",
        "    [Service]",
        "    User=1\ufffd",
        f"# remove {tmp_path}",
        r"systemctl start 'a\x20b.service'",
        "/nowhere/program || true",
    ]
    assert os.listdir(tmp_path) == []
