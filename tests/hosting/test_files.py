"""Where the program is, where the files for service managers are, and who could change them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.hosting import files
from agent.hosting.files import program, shared, why_not_for_all
from agent.hosting.manager import ManagerError
from tests.standin.toolbox import REPOSITORY
from tests.users import open_the_way_to


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python of its own, with a directory for programs and one for data."""
    monkeypatch.setattr(files, "_SCRIPTS", str(tmp_path / "scripts"))
    monkeypatch.setattr(files, "_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(files, "PACKAGED", str(tmp_path / "usr" / "bin" / "learnpack-agent"))
    (tmp_path / "scripts").mkdir()
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    return tmp_path / "scripts"


def test_the_program_is_the_one_that_was_installed_with_this_python(scripts: Path) -> None:
    with pytest.raises(ManagerError, match="install the agent"):
        program()
    (scripts / "learnpack-agent").write_text("")
    assert program() == str(scripts / "learnpack-agent")


def test_the_packages_name_is_taken_only_where_it_leads_to_this_program(scripts: Path) -> None:
    (scripts / "learnpack-agent").write_text("")
    packaged = Path(files.PACKAGED)
    packaged.write_text("another one")
    assert program() == str(scripts / "learnpack-agent")
    packaged.unlink()
    packaged.symlink_to(scripts / "learnpack-agent")
    assert program() == files.PACKAGED


@pytest.mark.parametrize("kind", ["systemd", "launchd"])
def test_the_files_are_those_that_were_installed_else_those_of_the_sources(scripts: Path, kind: str) -> None:
    assert shared(kind) == str(REPOSITORY / kind)
    installed = scripts.parent / "data" / "share" / "learnpack-agent" / kind
    installed.mkdir(parents=True)
    assert shared(kind) == str(installed)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A program that nobody but root can change."""
    if os.geteuid() != 0:
        pytest.skip("a program of root's can only be made by root")
    path = tmp_path / "bin" / "program"
    path.parent.mkdir()
    path.write_text("")
    path.chmod(0o755)
    open_the_way_to(path.parent)
    if (why := why_not_for_all(str(path))) is not None:
        pytest.skip(why)
    return path


def is_for_all(path: str) -> bool:
    why = why_not_for_all(path)
    assert why is None or why.startswith("others than root can change /")
    return why is None


def test_what_only_root_can_change_is_for_all(own: Path) -> None:
    assert is_for_all(str(own))
    assert is_for_all("/")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_can_write_is_not(own: Path, mode: int) -> None:
    own.chmod(mode)
    assert not is_for_all(str(own))
    own.chmod(0o755)
    own.parent.chmod(mode)
    assert not is_for_all(str(own))


def test_what_belongs_to_another_is_not_nor_what_lies_in_anothers_directory(own: Path) -> None:
    os.chown(own, 61_234, -1)
    assert not is_for_all(str(own))
    os.chown(own, 0, -1)
    os.chown(own.parent, 61_234, -1)
    assert not is_for_all(str(own))


def test_a_directory_like_tmp_lets_nobody_change_what_is_roots(own: Path) -> None:
    own.parent.chmod(0o1777)
    assert is_for_all(str(own))
    own.chmod(0o1777)  # of a file that bit says nothing
    assert not is_for_all(str(own))


def test_a_link_is_what_it_leads_to(own: Path, tmp_path: Path) -> None:
    students = tmp_path / "students"
    students.write_text("")
    students.chmod(0o777)
    link = own.parent / "link"
    link.symlink_to(own)
    assert is_for_all(str(link))
    link.unlink()
    link.symlink_to(students)
    assert not is_for_all(str(link))
    (tmp_path / "directory").symlink_to(own.parent)
    assert is_for_all(str(tmp_path / "directory" / "program"))
    own.parent.chmod(0o777)
    assert not is_for_all(str(tmp_path / "directory" / "program"))


def test_what_only_root_can_run_is_for_nobody_else(own: Path) -> None:
    own.chmod(0o700)
    assert why_not_for_all(str(own)) == f"nobody but root can run {own}"
    own.chmod(0o755)
    own.parent.chmod(0o700)
    assert why_not_for_all(str(own)) == f"nobody but root gets to {own.parent}"


def test_a_link_that_leads_nowhere_is_an_error_and_no_loop(own: Path) -> None:
    (own.parent / "link").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        is_for_all(str(own.parent / "link"))
