"""The README's claims that a change can make untrue: commands, options of config.toml, and what CI runs."""

from __future__ import annotations

import configparser
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from agent import cli
from agent.config import Config, Credential, Send, SinkConfig, load_config
from agent.config.showing import toml
from agent.config.words import WORDS

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
#: How chatty pip is is no part of what is tested.
QUIET = {"-q", "--quiet", "--disable-pip-version-check"}


def commands_of(line: str) -> list[list[str]]:
    """A line of shell as its commands, with the venv at `.venv`."""
    return [
        [word for word in shlex.split(one) if word not in QUIET] for one in line.replace("$venv", ".venv").split("&&")
    ]


DEMO, TESTS = (commands_of(block) for block in re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL))


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(TOP / "setup.cfg")
    return parser


def test_the_first_screen_holds_the_two_commands() -> None:
    assert README.index("-m pytest") < README.index("\n## ")
    assert [commands[0] for commands in (DEMO, TESTS)] == [["python3", "-m", "venv", ".venv"]] * 2


def test_the_demo_command_is_what_the_package_installs() -> None:
    scripts = [line.split(" = ") for line in setup()["options.entry_points"]["console_scripts"].split("\n") if line]
    assert DEMO[1:] == [[".venv/bin/pip", "install", "."], [f".venv/bin/{scripts[0][0]}", "demo"]]
    assert scripts[0][1] == f"{cli.__name__}:{cli.main.__name__}"


def test_the_test_command_is_what_ci_runs() -> None:
    lines = (TOP / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    run = [commands_of(line)[0] for line in lines if line.startswith(("python3 -m venv", '"$venv'))]
    assert [command for command in run if command in TESTS] == TESTS
    assert run[-1] == TESTS[-1]


def test_every_extra_that_a_command_installs_exists() -> None:
    extras = [extra for command in TESTS for word in command for extra in re.findall(r"^\.\[(.*)\]$", word)]
    assert extras
    assert all(extra in setup()["options.extras_require"] for extra in extras)


def test_the_table_of_settings_is_the_configuration() -> None:
    """Key, default and meaning, row by row: the words are those of `config default`."""
    for above, table, defaults in (("| `config.toml` |", "", Config()), ("`[send]`, for all", "send", Send())):
        keys = [field.name for field in fields(defaults) if field.name not in ("send", "sinks", "credentials")]
        rows = [f"| `{key}` | `{toml(getattr(defaults, key))}` | {WORDS[table][key]} |" for key in keys]
        assert README[README.index(above) :].split("|---|\n")[1].split("\n\n")[0].splitlines() == rows


def test_the_readme_names_every_key_of_the_other_tables() -> None:
    told = README[README.index("`[[sink]]`: ") :].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", told.split("`[credentials")[0]) == [field.name for field in fields(SinkConfig)]
    keys = [field.name for field in fields(Credential)]
    assert [key for key in keys if f"`{key}`" not in told.split("`[credentials")[1]] == []


def test_the_examples_of_a_configuration_are_some(tmp_path: Path) -> None:
    courses, example = re.findall(r"```toml\n(.*?)\n```", README, re.DOTALL)
    (tmp_path / "config.toml").write_text(courses)
    exam, other = (
        load_config(file=str(tmp_path / "config.toml"), environment={}, arguments={}, course=course)
        for course in ("/home/ada/exam-1", "/home/ada/python")
    )
    assert (exam.idle_minutes, exam.consent, exam.send.output) == (10, True, False)
    assert (other.idle_minutes, other.consent, other.send.output) == (10, False, True)
    (tmp_path / "config.toml").write_text(example)
    config = load_config(file=str(tmp_path / "config.toml"), environment={}, arguments={})
    assert [sink.name for sink in config.sinks] == ["school", "lrs"]
    assert sorted(config.credentials) == ["breathecode.herokuapp.com", "lrs.school.example"]


def test_every_command_of_the_help_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) >= 7
    assert [command for command in commands if f"learnpack-agent {command}" not in README] == []
