"""What `pip install` and `pipx install` put on a machine beside the program: units and plists."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.packaging.package import TOP

DATA = ("systemd", "systemd/user", "launchd")
KINDS = (".service", ".target", ".timer", ".path", ".plist")


def data_files() -> set[str]:
    return {f"{name}/{path.name}" for name in DATA for path in (TOP / name).iterdir() if path.suffix in KINDS}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("distribution") / "copy"
    copy.mkdir()
    for name in ("agent", "systemd", "launchd"):
        shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(TOP / name, copy)
    return copy


def setup(copy: Path, *arguments: str) -> None:
    command = [sys.executable, "setup.py", "--quiet", *arguments]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_units_and_plists_are_installed_under_share(copy: Path, tmp_path: Path) -> None:
    setup(copy, "install_data", "--install-dir", str(tmp_path))
    share = tmp_path / "share/learnpack-agent"
    assert {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()} == data_files()
    assert data_files() >= {"systemd/learnpack-agent@.service", "systemd/learnpack-agent.target"}


def test_a_source_distribution_holds_what_an_installation_from_it_needs(copy: Path, tmp_path: Path) -> None:
    setup(copy, "sdist", "--dist-dir", str(tmp_path))
    [archive] = tmp_path.iterdir()
    with tarfile.open(archive) as stream:
        names = {name.partition("/")[2] for name in stream.getnames()}
    modules = {str(path.relative_to(TOP)) for path in (TOP / "agent").rglob("*.py")}
    assert modules | data_files() | {"README.md", "LICENSE", "setup.cfg", "setup.py", "agent/py.typed"} <= names
