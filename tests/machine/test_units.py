"""What the units promise: rights, exposure, logs, the target, a reload, mounts that come and go."""

from __future__ import annotations

import json
import re

import pytest

from tests.machine.lab import AGENT, STEPS, Lab
from tests.until import until

#: What writes the metrics becomes each student, which needs CAP_SETUID, CAP_SETGID and CAP_KILL.
MOST_EXPOSED = {"agent": 1.5, "discover": 1.5, "metrics": 2.0}


@pytest.mark.parametrize("kind", MOST_EXPOSED)
def test_a_service_is_exposed_little(lab: Lab, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    unit = f"{AGENT}-{kind}.service"
    if kind == "agent":
        course = lab.student("ada").course()
        lab.installed(course)
        unit = lab.unit(course)
    said = lab.run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
    found = re.search(r"exposure level for .*: (\d+\.\d+)", said)
    assert found
    with capsys.disabled():
        print(f"\nsystemd-analyze security {unit}: {found[1]}")
    assert float(found[1]) <= MOST_EXPOSED[kind]


def test_an_agent_has_no_rights_but_its_students(lab: Lab) -> None:
    bob = lab.student("bob")
    course = bob.course()
    lab.installed(course)
    said = lab.read(f"/proc/{lab.pid(course)}/status")
    for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert re.search(rf"^{name}:\t0{{16}}$", said, re.MULTILINE), said
    assert re.search(rf"^Uid:(\t{bob.uid}){{4}}$", said, re.MULTILINE)
    assert re.search(rf"^Gid:(\t{bob.uid}){{4}}$", said, re.MULTILINE)
    assert "NoNewPrivs:\t1" in said and "Seccomp:\t2" in said


def test_what_is_logged_has_its_priority(lab: Lab) -> None:
    cal = lab.student("cal")
    course = cal.course()
    lab.installed(course)
    assert "ready: watching" not in lab.log(course, "--priority=warning")
    assert "ready: watching" in lab.log(course, "--priority=info")
    lab.run("kill", "-KILL", str(lab.pid(course)))
    lab.write(f"{course}/learn.json", "{", user="cal")
    lab.until_active(lab.unit(course), "failed", course)
    assert "learn.json" in lab.log(course, "--priority=err")
    assert not re.search(r"^<\d>", lab.log(course), re.MULTILINE)
    assert "no such course, or a fault in its learn.json" in lab.agent("status", "--all", ok=(1,))
    lab.agent("uninstall", course)


def test_the_target_stops_and_starts_all(lab: Lab) -> None:
    dora = lab.student("dora")
    courses = [dora.course("one"), dora.course("two")]
    lab.installed(*courses)
    lab.run("systemctl", "stop", f"{AGENT}.target")
    assert [lab.state(course) for course in courses] == ["stopped", "stopped"]
    lab.run("systemctl", "start", f"{AGENT}.target")
    for course in courses:
        lab.until_running(course)
    assert lab.agent("stop", "--all").count(": stopped") >= 2
    assert lab.agent("start", "--all").count(": running") >= 2


def test_what_is_stopped_by_hand_stays_stopped_when_others_are_installed(lab: Lab) -> None:
    emil = lab.student("emil")
    stopped, new = emil.course("stopped"), emil.course("new")
    lab.installed(stopped)
    lab.agent("stop", stopped)
    lab.installed(new)
    lab.agent("discover", "/home", "--install")
    assert lab.state(stopped) == "stopped"


def test_a_reload_takes_a_good_configuration_and_refuses_a_bad_one(lab: Lab) -> None:
    fred = lab.student("fred")
    course = fred.course()
    lab.installed(course)
    unit, pid = lab.unit(course), lab.pid(course)
    path = "/etc/learnpack-agent/config.d/50-test.toml"
    sink = f'[[sink]]\nname = "files"\nkind = "jsonl"\ndirectory = "{fred.home}/sink"\ndelay_seconds = 1\n'
    fred.run("mkdir", "sink")
    lab.write(path, f'log_level = "debug"\n{sink}')
    lab.run("chmod", "a+r", path)
    lab.run("systemctl", "reload", unit)
    until(lambda: "the configuration was read again" in lab.log(course), every=0.05)
    fred.works(course)
    lab.until_recorded(course, "compile")
    assert "Compile(" in lab.log(course, "--priority=debug")
    until(lambda: "compile" in lab.shell('cat "$1"/* 2> /dev/null || true', f"{fred.home}/sink"), every=0.1)

    lab.write(path, 'log_levle = "info"\nidle_minutes = "five"\n')
    lab.run("systemctl", "reload", unit)
    until(lambda: "the configuration stays as it was" in lab.log(course), every=0.05)
    errors = [line for line in lab.log(course, "--priority=err").splitlines() if path in line]
    assert len(errors) == 2
    assert f"{path}:1:" in errors[0] and "log_level" in errors[0] and f"{path}:2:" in errors[1]
    fred.works(course, STEPS[1])
    # The old configuration goes on.  (Commands would read the bad one, and say so.)
    until(lambda: lab.log(course, "--priority=debug").count("Compile(") == 2, every=0.1)
    assert (lab.show(unit, "ActiveState"), lab.show(unit, "NRestarts"), lab.pid(course)) == ("active", "0", pid)
    lab.run("rm", path)
    lab.agent("uninstall", course)


def test_a_home_that_is_mounted_after_the_boot_is_watched_and_so_is_one_mounted_over_a_running_agent(lab: Lab) -> None:
    eve = lab.student("eve")
    mount = 'mount -t tmpfs -o "uid=$2,gid=$2,mode=0700" tmpfs "$1"'
    lab.shell(mount, eve.home, str(eve.uid))
    course = eve.course()
    assert f"new        {course}" in lab.agent("discover", "/home", "--install")
    lab.until_running(course)
    eve.works(course)
    lab.until_recorded(course, "compile")
    pid = lab.pid(course)
    lab.shell(mount, eve.home, str(eve.uid))
    assert lab.run("ls", eve.home) == ""
    eve.course()
    eve.works(course, STEPS[1])
    events = lab.until_recorded(course, "compile", 2)
    assert [event["step_slug"] for event in events if event["event"] == "compile"] == list(STEPS)
    until(lambda: lab.exists(f"{course}/.learn/telemetry.json"), every=0.1)
    assert lab.pid(course) == pid
    json.loads(lab.read(f"{course}/.learn/telemetry.json"))
    lab.agent("uninstall", course)
    lab.run("umount", eve.home)
    lab.run("umount", eve.home)
