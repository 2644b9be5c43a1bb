"""Which sources there are, and which of two wins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config import Config

from .machine import Machine

TOP = Path(__file__).parents[2]
COURSE = "/home/ada/python-1"


def section(pattern: str, lines: str) -> str:
    return f'[course."{pattern}"]\n{lines}\n'


def test_without_any_file_everything_has_its_default(machine: Machine) -> None:
    config = machine.load()
    assert config == Config(state_dir=str(machine.home / ".local/state/learnpack-agent"))
    assert (config.discover_roots, config.discover_per_user) == (("/home",), 20)


def test_without_any_file_and_fault_nothing_is_imported_that_only_they_need(tmp_path: Path) -> None:
    program = (
        "import sys; from agent.config import load_config, places; places.SYSTEM_DIRECTORY = '/nonexistent'\n"
        "load_config(file=None, environment={'HOME': '/nonexistent'}, arguments={'log_level': 'info'}, course='/x')\n"
        "print(*sorted({'tomllib', 'difflib', 'textwrap', 'agent.config.positions'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=TOP, capture_output=True, check=True, text=True)
    assert done.stdout == "\n"


#: Each source with the next one above it: what sets idle_minutes to 11, and what sets it to 12.
ORDER = [
    ("config.toml", "config.d/10-lab.toml"),
    ("config.d/10-lab.toml", "config.d/20-room.toml"),
    ("config.d/20-room.toml", "user"),
    ("user", "named"),
]


@pytest.mark.parametrize(("lower", "higher"), ORDER)
def test_a_later_file_wins(machine: Machine, lower: str, higher: str) -> None:
    machine.write(higher, "idle_minutes = 12")
    machine.write(lower, "idle_minutes = 11\noutput_max_kb = 7")
    assert (machine.load().idle_minutes, machine.load().output_max_kb) == (12, 7)


def test_the_environment_wins_over_files_and_an_argument_over_the_environment(machine: Machine) -> None:
    machine.write("named", 'log_level = "debug"\nidle_minutes = 9')
    machine.environment |= {"LEARNPACK_AGENT_LOG_LEVEL": "warning", "LEARNPACK_AGENT_IDLE_MINUTES": "12"}
    assert (machine.load().log_level, machine.load().idle_minutes) == ("warning", 12)
    assert machine.load(log_level="error").log_level == "error"


def test_every_single_value_of_the_top_level_has_a_variable(machine: Machine) -> None:
    values = {
        "state_dir": "/srv/x",
        "log_level": "error",
        "session_silence_minutes": 31,
        "idle_minutes": 6,
        "output_max_kb": 257,
        "document_max_mb": 9,
        "journal_max_mb": 0,
        "process_sensor": "polling",
        "consent": True,
        "discover_per_user": 21,
    }
    for key, value in values.items():
        machine.environment[f"LEARNPACK_AGENT_{key.upper()}"] = str(value).lower()
    config = machine.load()
    assert {key: getattr(config, key) for key in values} == values
    machine.environment["LEARNPACK_AGENT_CONSENT"] = "false"
    machine.write("user", "consent = true")
    assert not machine.load().consent


def test_an_empty_variable_says_nothing(machine: Machine) -> None:
    machine.environment |= {"LEARNPACK_AGENT_LOG_LEVEL": "", "LEARNPACK_AGENT_CONSENT": ""}
    assert machine.load().log_level == "info"


def test_of_config_d_only_files_that_end_with_toml_are_read(machine: Machine, tmp_path: Path) -> None:
    machine.write("config.d/10-lab.toml", "idle_minutes = 10")
    wrong = "idle_minutes = 0"
    for name in (".hidden.toml", "20.toml~", "20.toml.bak", "20.toml.dpkg-old", "#20.toml#", "20.conf", "README"):
        machine.write(f"config.d/{name}", wrong)
    (machine.etc / "config.d" / "30.toml").mkdir()
    (machine.etc / "config.d" / "40.toml").symlink_to("/dev/null")
    os.mkfifo(machine.etc / "config.d" / "50.toml")
    assert machine.load().idle_minutes == 10
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("idle_minutes = 60")
    (machine.etc / "config.d" / "60.toml").symlink_to(elsewhere)
    assert machine.load().idle_minutes == 60


def test_a_link_that_leads_nowhere_is_no_rule_left_out_but_a_fault(machine: Machine) -> None:
    machine.write("config.d/10.toml", "")
    (machine.etc / "config.d" / "20.toml").symlink_to("/nonexistent/file")
    (machine.etc / "config.toml").symlink_to("/nonexistent/file")
    assert machine.faults() == [
        "etc/config.toml: No such file or directory",
        "etc/config.d/20.toml: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.toml", "Permission denied"),
        ("config.d/10.toml", "Permission denied"),
        ("config.d", "Permission denied"),
    ],
)
def test_an_admins_file_that_may_not_be_read_is_a_fault(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    machine.write("config.d/10.toml", "")
    machine.write("config.toml", "")
    denied = str(machine.etc / name)
    really_open, really_list = os.open, os.listdir

    def refuse_open(path: str, flags: int) -> int:
        if path == denied:
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, flags)

    def refuse_list(path: str) -> list[str]:
        if path == denied:
            raise PermissionError(13, "Permission denied", path)
        return really_list(path)

    monkeypatch.setattr(os, "open", refuse_open)  # root may read everything
    monkeypatch.setattr(os, "listdir", refuse_list)
    assert machine.faults() == [f"etc/{name}: {words}"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_an_admins_directory_that_may_not_be_looked_at_is_a_fault_and_a_users_is_not(machine: Machine) -> None:
    machine.write("config.toml", "")
    machine.write("user", "")
    machine.etc.chmod(0)
    machine.users.parent.chmod(0)
    try:
        assert [line.split(": ")[1] for line in machine.faults()] == ["Permission denied"] * 2
    finally:
        machine.etc.chmod(0o700)
        machine.users.parent.chmod(0o700)


def test_a_pipe_or_an_endless_file_holds_nobody_up(machine: Machine, tmp_path: Path) -> None:
    machine.users.parent.mkdir(parents=True)
    os.mkfifo(machine.users)
    (tmp_path / "named.toml").symlink_to("/dev/zero")
    assert machine.faults() == [
        "home/.config/learnpack-agent/config.toml: it is no regular file",
        "named.toml: it is larger than 1 MB",
    ]


# --- sections for some courses ---


def test_a_section_holds_for_the_courses_that_its_pattern_fits(machine: Machine) -> None:
    machine.write(
        "config.toml",
        section("/home/*/python-*", "idle_minutes = 9\nconsent = true")
        + '[course."/home/*/python-*".send]\noutput = false\n'
        + section("/home/ada/*", 'process_sensor = "polling"'),
    )
    config = machine.load(COURSE)
    assert (config.idle_minutes, config.consent, config.process_sensor) == (9, True, "polling")
    assert (config.send.output, config.send.source_code) == (False, True)
    for other in (None, "/home/ada/PYTHON-1", "/srv/home/ada/python-1"):
        assert (machine.load(other).idle_minutes, machine.load(other).send.output) == (5, True)


#: file → section or key; what idle_minutes is then.  Within the files of one author a section wins, then the later
#: author; of two sections the later.
SECTIONS: list[tuple[dict[str, str], int]] = [
    ({"config.toml": section("*", "idle_minutes = 11"), "config.d/10.toml": "idle_minutes = 12"}, 11),
    ({"config.toml": section("*", "idle_minutes = 11"), "config.d/10.toml": section("*", "idle_minutes = 12")}, 12),
    ({"config.toml": section("*", "idle_minutes = 11"), "user": "idle_minutes = 12"}, 12),
    ({"user": section("*", "idle_minutes = 11"), "named": "idle_minutes = 12"}, 12),
    ({"config.toml": "idle_minutes = 11", "user": section("*", "idle_minutes = 12")}, 12),
    ({"named": section("/home/*", "idle_minutes = 11") + section("*", "idle_minutes = 12")}, 12),
    ({"named": "idle_minutes = 10\n" + section("/srv/*", "idle_minutes = 11")}, 10),
]


@pytest.mark.parametrize(("files", "minutes"), SECTIONS)
def test_a_section_wins_over_the_other_keys_of_its_author_only(
    machine: Machine, files: dict[str, str], minutes: int
) -> None:
    for name, text in files.items():
        machine.write(name, text)
    assert machine.load(COURSE).idle_minutes == minutes


def test_the_environment_wins_over_a_section(machine: Machine) -> None:
    machine.write("named", section("*", "idle_minutes = 11"))
    machine.environment["LEARNPACK_AGENT_IDLE_MINUTES"] = "13"
    assert machine.load(COURSE).idle_minutes == 13


# --- where journals are kept ---


def test_the_directory_that_the_systems_service_keeps_for_this_user_is_found(machine: Machine) -> None:
    xdg = str(machine.home / ".local/state/learnpack-agent")
    ours = machine.var / str(os.geteuid())
    assert machine.load().state_dir == xdg
    ours.mkdir(parents=True)
    assert machine.load().state_dir == str(ours)
    machine.environment["XDG_STATE_HOME"] = "/xdg"
    assert machine.load().state_dir == str(ours)
    machine.environment["STATE_DIRECTORY"] = "/systemd"
    assert machine.load().state_dir == "/systemd"
    machine.write("user", 'state_dir = "/users"')
    assert machine.load().state_dir == "/users"
    machine.write("user", 'state_dir = ""')
    assert machine.load().state_dir == "/systemd"
    machine.environment["LEARNPACK_AGENT_STATE_DIR"] = "/variables"
    assert machine.load().state_dir == "/variables"
    assert machine.load(state_dir="/arguments").state_dir == "/arguments"


def test_a_link_a_file_and_another_users_directory_are_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    xdg = str(machine.home / ".local/state/learnpack-agent")
    ours = machine.var / str(os.geteuid())
    machine.var.mkdir()
    (tmp_path / "target").mkdir()
    ours.symlink_to(tmp_path / "target")
    assert machine.load().state_dir == xdg
    ours.unlink()
    ours.write_text("")
    assert machine.load().state_dir == xdg
    ours.unlink()
    ours.mkdir()
    other = os.geteuid() + 1
    (machine.var / str(other)).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert machine.load().state_dir == xdg
