"""The man page: it is the parser's own, and `man` has nothing to complain about."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent import cli
from agent.commands import common
from tests.packaging.package import TOP, missing


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = {**os.environ, "PYTHONPATH": str(TOP), "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, str(TOP / "systemd/debian/manual.py")]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    path = tmp_path_factory.mktemp("manual") / "learnpack-agent.1"
    path.write_bytes(done.stdout)
    return path


def parsers(of: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    subs = [one for action in of._actions if isinstance(action, argparse._SubParsersAction) for one in action.choices]
    choices = [action.choices for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    assert len(subs) == sum(map(len, choices))
    return [of, *(found for names in choices for one in names.values() for found in parsers(one))]


def test_every_command_and_option_is_in_it(page: Path) -> None:
    text = page.read_text().replace("\\", "")
    options = {option for one in parsers(cli.parser()) for action in one._actions for option in action.option_strings}
    for option in options - {"-h", "--help"}:
        assert re.search(rf"^fB{option}", text, re.MULTILINE), option
    for parser in parsers(cli.parser())[1:]:
        assert f".SS fB{parser.prog}fR\n" in text, parser.prog


def test_what_holds_for_all_commands_is_said_once(page: Path) -> None:
    assert page.read_text().count("\\-\\-state\\-dir") < 4
    assert "usage:" not in page.read_text()


def test_every_exit_code_is_in_it(page: Path) -> None:
    codes = {value for name, value in vars(common).items() if name.isupper() and isinstance(value, int)}
    status = page.read_text().split(".SH EXIT STATUS")[1].split(".SH")[0]
    assert {int(number) for number in re.findall(r"^\.B (\d+)$", status, re.MULTILINE)} == {0, *codes}


def test_every_variable_that_is_read_is_in_it(page: Path) -> None:
    source = "".join(path.read_text() for path in (TOP / "agent").rglob("*.py"))
    read = set(re.findall(r"\bLEARNPACK_AGENT_[A-Z]+(?:_[A-Z]+)*\b", source))
    assert read
    variables = page.read_text().split(".SH ENVIRONMENT")[1].split(".SH")[0]
    assert [name for name in read if name not in variables] == []


@pytest.mark.parametrize(
    "checker",
    [("mandoc", "-T", "lint", "-W", "warning"), ("man", "--warnings", "-l", "-E", "UTF-8")],
    ids=lambda one: one[0],
)
def test_no_reader_complains(page: Path, checker: tuple[str, ...]) -> None:
    if shutil.which(checker[0]) is None:
        missing(f"no {checker[0]} on this machine")
    done = subprocess.run([*checker, page], capture_output=True, text=True, check=False)
    complaints = done.stderr + (done.stdout if checker[0] == "mandoc" else "")
    assert (done.returncode, complaints) == (0, "")


def test_it_says_what_day_it_is_of(page: Path) -> None:
    assert '"November 14, 2023"' in page.read_text().splitlines()[0]
