"""The package and the playbook on a machine that runs: systemd is PID 1, agents are at work."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config.places import course_key
from tests.machine.machine import Machine, why_there_is_none
from tests.packaging.package import TOP, missing
from tests.until import until

COURSE = "/home/ada/my-course"
UNIT = r"learnpack-agent@home-ada-my\x2dcourse.service"
JOURNAL = f"/var/lib/learnpack-agent/1500/{course_key(COURSE)}/journal.sqlite3"
#: A venv with ansible-core.
ANSIBLE = "LEARNPACK_TEST_ANSIBLE"


@pytest.fixture
def machine(tmp_path: Path, package: Path, newer: Path) -> Iterator[Machine]:
    """With a course of ada's and the packages in /root."""
    if why := why_there_is_none():
        missing(f"no throw-away machine: {why}")
    with Machine(tmp_path) as machine:
        # Images for containers have one that forbids packages to start anything.
        machine.run("rm", "-f", "/usr/sbin/policy-rc.d")
        machine.run("useradd", "--create-home", "--uid", "1500", "ada")
        machine.write(f"{COURSE}/learn.json", "{}", user="ada")
        machine.write(f"{COURSE}/exercises/01-hello/app.py", "print(1)\n", user="ada")
        machine.write("/root/package.deb", package.read_bytes())
        machine.write("/root/newer.deb", newer.read_bytes())
        yield machine


def pid(machine: Machine, unit: str = UNIT, *, user: str | None = None) -> int:
    manager = [] if user is None else ["--user", f"--machine={user}@.host"]
    return int(machine.run("systemctl", *manager, "show", "--property=MainPID", "--value", unit))


def dpkg(machine: Machine, *arguments: str) -> None:
    machine.run("dpkg", "--no-triggers", "--force-unsafe-io", *arguments)


def test_an_upgrade_restarts_the_agents_that_run_and_no_other(machine: Machine) -> None:
    dpkg(machine, "--install", "/root/package.deb")
    assert machine.run("systemctl", "is-active", "learnpack-agent.target") == "active\n"
    machine.run("learnpack-agent", "install", COURSE)
    until(lambda: pid(machine))
    first, recorded = pid(machine), machine.run("stat", "-c", "%i", JOURNAL)
    dpkg(machine, "--install", "/root/newer.deb")
    until(lambda: pid(machine) not in (0, first))
    assert machine.run("stat", "-c", "%i", JOURNAL) == recorded
    machine.run("systemctl", "stop", UNIT)
    dpkg(machine, "--install", "/root/package.deb")
    assert pid(machine) == 0


def test_an_upgrade_restarts_the_agents_of_a_students_own_manager(machine: Machine) -> None:
    dpkg(machine, "--install", "/root/package.deb")
    machine.run("loginctl", "enable-linger", "ada")
    until(lambda: machine.exists("/run/user/1500/bus"))
    machine.run("learnpack-agent", "install", COURSE, user="ada", XDG_RUNTIME_DIR="/run/user/1500")
    until(lambda: pid(machine, user="ada"))
    first = pid(machine, user="ada")
    dpkg(machine, "--install", "/root/newer.deb")
    until(lambda: pid(machine, user="ada") not in (0, first))


def test_removing_it_ends_the_agents_and_after_another_installation_they_can_be_had_again(machine: Machine) -> None:
    dpkg(machine, "--install", "/root/package.deb")
    machine.run("learnpack-agent", "discover", "--install", "/home")
    machine.run("systemctl", "enable", "--now", "learnpack-agent-discover.timer")
    until(lambda: pid(machine))
    dpkg(machine, "--remove", "learnpack-agent")
    assert machine.tried("pgrep", "-f", "learnpack-agent run").returncode == 1
    listed = machine.run(
        "systemctl", "list-units", "--no-legend", "--plain", "--state=active,failed", "learnpack-agent*"
    )
    assert listed == ""
    assert machine.exists(JOURNAL)
    dpkg(machine, "--install", "/root/package.deb")
    assert machine.run("systemctl", "is-active", "learnpack-agent.target") == "active\n"
    assert pid(machine) == 0
    machine.run("learnpack-agent", "discover", "--install", "/home")
    until(lambda: pid(machine))


def test_the_playbook_watches_the_courses_and_changes_nothing_the_second_time(machine: Machine) -> None:
    if not (venv := os.environ.get(ANSIBLE)):
        missing(f"${ANSIBLE} names no venv with ansible-core")
        return
    machine.run("mkdir", "/opt/playbook")
    for name, path in (("ansible", Path(venv)), ("playbook/playbook.yml", TOP / "systemd/ansible/playbook.yml")):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as stream:
            stream.add(path, name)
        unpacked = machine.tried("tar", "--extract", "--directory=/opt", given=archive.getvalue())
        assert unpacked.returncode == 0, unpacked.stderr

    def play(*variables: str, start: str = "Copy the package") -> str:
        command = ["/opt/ansible/bin/python3", "/opt/ansible/bin/ansible-playbook", "-i", "localhost,", "-c", "local"]
        given = [word for variable in variables for word in ("-e", variable)]
        command += [*given, "--start-at-task", start, "/opt/playbook/playbook.yml"]
        done = subprocess.run(machine.argv(*command), capture_output=True, text=True, check=False)
        assert "PLAY RECAP" in done.stdout, done.stdout + done.stderr
        return done.stdout

    settings = '{"learnpack_agent_settings": {"idle_minutes": 7, "discover_roots": ["/home"]}}'
    sinks = '{"learnpack_agent_sinks": [{"name": "lab", "kind": "jsonl", "directory": "/var/tmp"}]}'
    variables = ("learnpack_agent_deb=/root/package.deb", settings, sinks)
    first = play(*variables)
    assert "failed=0" in first, first
    until(lambda: pid(machine))
    shown = machine.run("learnpack-agent", "config", "show")
    assert "idle_minutes = 7" in shown and 'name = "lab"' in shown
    assert machine.run("systemctl", "is-active", "learnpack-agent-discover.timer") == "active\n"
    again = play(*variables)
    assert "changed=0" in again and "failed=0" in again, again
    broken = play(variables[0], '{"learnpack_agent_settings": {"idle_minute": 7}}', start="Configure it")
    assert "failed=1" in broken and "idle_minutes" in broken, broken
    assert machine.run("learnpack-agent", "config", "show") == shown
