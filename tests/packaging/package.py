"""The package that the tests look at: $LEARNPACK_TEST_DEB, or built once, in about 40 s."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
BUILD_TOOLS = ("dpkg-buildpackage", "dh")


def missing(why: str) -> None:
    """In CI everything is there; elsewhere a test may do without."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("LEARNPACK_TEST_DEB"):
        return Path(given)
    if lacking := [tool for tool in BUILD_TOOLS if shutil.which(tool) is None]:
        missing(f"a Debian package can't be built here: no {', '.join(lacking)}")
    out = tmp_path_factory.mktemp("package")
    done = subprocess.run([TOP / "systemd/debian/build", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, and its control files in DEBIAN/."""
    directory = tmp_path_factory.mktemp("unpacked") / "package"
    subprocess.run(["dpkg-deb", "--raw-extract", package, directory], check=True)
    return directory


@pytest.fixture(scope="session")
def newer(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package as the next version, with another default configuration."""
    directory = tmp_path_factory.mktemp("newer")
    shutil.copytree(unpacked, directory / "package", symlinks=True)
    control = directory / "package/DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1:"))
    with (directory / "package/etc/learnpack-agent/config.toml").open("a") as stream:
        stream.write("# of the next version\n")
    built = directory / "newer.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(directory / "package"), str(built)]
    subprocess.run(command, check=True, capture_output=True)
    return built
