"""Every shell script of the repository is sound."""

from __future__ import annotations

import shutil
import subprocess

from tests.packaging.package import TOP, missing

SHEBANGS = (b"#!/bin/sh\n", b"#!/bin/bash\n", b"#!/usr/bin/env bash\n", b"#!/usr/bin/env sh\n")
OURS = (".ci", "agent", "launchd", "systemd", "tests")


def scripts() -> list[str]:
    files = (path for name in OURS for path in (TOP / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(str(path) for path in files if path.read_bytes().startswith(SHEBANGS))


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        missing("no shellcheck on this machine")
    names = [path.removeprefix(f"{TOP}/") for path in scripts()]
    assert {".ci/run", "systemd/debian/build", "systemd/debian/learnpack-agent.postinst"} <= set(names)
    done = subprocess.run(["shellcheck", *scripts()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
