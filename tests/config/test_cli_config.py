"""`config check`, `config show`, `config default`; and that every command knows the sections for its course."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.config import Config

from .machine import Machine

TOKEN = "abcdef0123456789secret"
TOP = Path(__file__).parents[2]


@pytest.fixture
def machine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Whose environment is this process's."""
    for name in list(os.environ):
        if name.startswith(("LEARNPACK_AGENT_", "XDG_")) or name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(machine.home))
    return machine


@pytest.fixture
def course(tmp_path: Path) -> Path:
    root = tmp_path / "python-1"
    (root / "exercises" / "01-a").mkdir(parents=True)
    (root / "learn.json").write_text("{}")
    return root


def called(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, list[str]]:
    code = main(["config", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out, err.splitlines()


def test_check_names_the_files_that_were_read(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert called(capfd, "check") == (0, "ok: there is no file, everything has its default\n", [])
    first, second = machine.write("config.toml", ""), machine.write("config.d/1.toml", "idle_minutes = 4")
    assert called(capfd, "check") == (0, f"ok: {first}, {second}\n", [])


def test_each_fault_is_a_line_and_the_exit_code_is_78(
    machine: Machine, course: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = machine.write("config.toml", "idel_minutes = 4\n\nconsent = 1\n")
    second = machine.write("user", "[send]\ncourse_hosts = 1\n")
    faults = [
        f"learnpack-agent: {first}:1: unknown key idel_minutes (did you mean idle_minutes?)",
        f"learnpack-agent: {first}:3: consent must be true or false",
        f"learnpack-agent: {second}:2: send: course_hosts must be a list of texts",
    ]
    assert called(capfd, "check") == (78, "", faults)
    assert called(capfd, "show") == (78, "", faults)
    assert main(["status", str(course)]) == 78
    assert capfd.readouterr().err.splitlines() == faults
    assert called(capfd, "default")[0] == 0


def test_what_is_not_on_the_disk_is_a_fault_for_check(
    machine: Machine, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "there").write_text(TOKEN)
    path = machine.write(
        "config.toml",
        '[send]\nca_file = "/nonexistent.pem"\n[credentials."A.org"]\ncredential = "missing"\n'
        '[credentials."b.org"]\ncredential = "there"\n[course."/x".send]\nca_file = "/nonexistent/2"\n'
        '[[sink]]\nname = "a"\nkind = "otlp"\nurl = "https://a.org"\n[[sink]]\nname = "b"\nkind = "otlp"\n'
        'url = "https://b.org"\n',
    )
    missing = "No such file or directory"
    files = [
        f"learnpack-agent: {path}:2: send: ca_file can't be read: {missing}",
        f"learnpack-agent: {path}:8: send: ca_file can't be read: {missing}",
    ]
    assert called(capfd, "check") == (78, "", files)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    words = f'credentials."a.org": credential can\'t be read in $CREDENTIALS_DIRECTORY: {missing}'
    assert called(capfd, "check") == (78, "", [*files, f"learnpack-agent: {path}:4: {words}"])
    assert called(capfd, "show")[0] == 0  # it would run


def test_what_works_and_was_hardly_meant_is_a_warning(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    sink = '[[sink]]\nname = "a"\nkind = "otlp"\nurl = "https://a.org:8443"\n'
    path = machine.write("config.toml", f'{sink}[credentials."A.org:8443"]\ntoken = "{TOKEN}"\n')
    path.chmod(0o640)
    assert called(capfd, "check") == (0, f"ok: {path}\n", [])
    path.chmod(0o644)
    warning = f"warning: {path}: it holds a token, and everybody on this machine can read it (0644)"
    assert called(capfd, "check") == (0, f"ok: {path}\n", [warning])
    machine.write("config.toml", f'{sink}headers = {{ a = "{TOKEN}" }}\n')
    warning = (
        f"warning: {path}: it holds headers, which may be a token, and everybody on this machine can read it (0644)"
    )
    assert called(capfd, "check") == (0, f"ok: {path}\n", [warning])
    machine.write("config.toml", f'{sink}[credentials."a.org"]\ncredential = "x"\n')
    warning = f'warning: {path}:5: credentials."a.org": no sink\'s URL names this host'
    assert called(capfd, "check") == (0, f"ok: {path}\n", [warning])
    machine.write("config.toml", f'{sink}[credentials."a.org"]\ncredential = "x"\nfor_courses = true\n')
    assert called(capfd, "check") == (0, f"ok: {path}\n", [])


def test_show_takes_the_sections_for_a_course_and_says_where_values_are_from(
    machine: Machine, course: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    machine.write("config.toml", f'[course."{tmp_path}/python-?"]\nidle_minutes = 9\n')
    (tmp_path / "link").symlink_to(course)
    line = f"idle_minutes = 9  # {machine.etc}/config.toml:2"
    for directory in (course, course / "exercises" / "01-a", tmp_path / "link", tmp_path / "python-2"):
        code, out, err = called(capfd, "show", "--origin", directory)
        assert (code, err) == (0, [])
        assert line in out.splitlines()
    assert "idle_minutes = 5" in called(capfd, "show")[1].splitlines()
    assert "idle_minutes = 9" in called(capfd, "show", course)[1].splitlines()


def test_options_of_all_commands_stand_before_or_behind_the_action(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    named = machine.write("named", "")
    assert called(capfd, "--config", named, "check") == (0, f"ok: {named}\n", [])
    assert called(capfd, "check", "--config", named) == (0, f"ok: {named}\n", [])
    assert 'log_level = "error"  # the command line' in called(capfd, "show", "--origin", "--log-level", "error")[1]


def test_the_default_file_can_be_written_to_a_file_in_any_language(machine: Machine, tmp_path: Path) -> None:
    """And what a terminal can't show is TOML all the same."""
    environment = {"HOME": str(machine.home), "LC_ALL": "C", "PYTHONPATH": str(TOP), "PYTHONIOENCODING": "ascii"}
    machine.write("user", '[send]\nca_file = "/ü"\n')

    def written(action: str) -> str:
        command = [sys.executable, "-m", "agent", "config", action]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()

    assert 'ca_file = "/ü"' in written("show")
    assert written("default").startswith("# Configuration of learnpack-agent.")


def test_the_agent_gets_the_sections_for_its_course_and_again_when_it_reads_them_again(
    machine: Machine, course: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import agent.host

    found: list[int] = []

    def run(root: str, config: Config, reload: object, *, record: object, is_only: bool) -> None:
        found.append(config.idle_minutes)
        machine.write("config.toml", f'[course."{course}"]\nidle_minutes = 10\n')
        monkeypatch.chdir("/")
        assert callable(reload)
        found.append(reload().idle_minutes)

    monkeypatch.setattr(agent.host, "run", run)
    machine.write("config.toml", f'[course."{course}"]\nidle_minutes = 9\n')
    (tmp_path / "relative.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "python-1", "--config", "relative.toml"]) == 0
    assert found == [9, 10]


def test_consent_can_be_asked_for_in_some_courses_only(
    machine: Machine, course: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.write("config.toml", f'[course."{course}"]\nconsent = true\n')
    assert main(["resume", str(course)]) == 1
    assert "nothing is recorded: " in capfd.readouterr().err
    machine.write("config.toml", f'[course."{course}-other"]\nconsent = true\n')
    assert main(["resume", str(course)]) == 0
