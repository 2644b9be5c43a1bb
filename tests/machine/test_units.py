"""What the units promise: rights, exposure, logs, the target, a reload, mounts that come and go."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.machine.lab import AGENT, STEPS, Lab
from tests.until import until

#: What writes the metrics becomes each student, which needs CAP_SETUID, CAP_SETGID and CAP_KILL.
MOST_EXPOSED = {"agent": 1.5, "discover": 1.5, "metrics": 2.0}

#: What the stand-in for LearnPack needs besides Python.
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py.py")
#: $1 is the student's home.  LearnPack writes to /tmp what its tests print.
TEST_IN_LEARNPACK = """
import json, sys
from pathlib import Path
from tests.standin.courses import PYTHON, make_course
from tests.standin.learnpack import LearnPack
from tests.standin.toolbox import make_toolbox
home = Path(sys.argv[1])
learnpack = LearnPack(home / "course", make_toolbox(home / "toolbox"), TMPDIR="/tmp").start()
print(json.dumps(learnpack.test("01-hello")))
learnpack.stop()
learnpack.end()
"""


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
    sink = f'[[sink]]\nname = "files"\nkind = "jsonl"\ndirectory = "{fred.home}/sink"\ndelay_seconds = 1\n'
    fred.run("mkdir", "sink")
    with lab.configuration(f'log_level = "debug"\n{sink}') as path:
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
    assert (lab.show(unit, "SubState"), lab.show(unit, "NRestarts"), lab.pid(course)) == ("running", "0", pid)
    lab.agent("uninstall", course)


def test_what_is_said_to_an_agent_ends_neither_the_service_nor_the_process(lab: Lab) -> None:
    gwen = lab.student("gwen")
    course = gwen.course()
    lab.installed(course)
    unit, pid = lab.unit(course), lab.pid(course)
    with lab.configuration("output_max_kb = 77"):  # of what an agent is made with: it begins anew
        lab.run("systemctl", "reload", unit)
        until(lambda: lab.log(course).count("ready: watching") == 2, every=0.05)
        assert lab.show(unit, "SubState") == "running"
        lab.agent("pause", course)
        until(lambda: lab.show(unit, "StatusText") == "nothing is recorded: paused", every=0.05)
        assert lab.show(unit, "SubState") == "running"
        lab.agent("resume", course)
        until(lambda: lab.log(course).count("ready: watching") == 3, every=0.05)
        assert lab.show(unit, "SubState") == "running"
        lab.agent("forget", course, "--yes")
        until(lambda: lab.log(course).count("ready: watching") == 4, every=0.05)
        assert (lab.show(unit, "SubState"), lab.pid(course)) == ("running", pid)
        lab.run("systemctl", "stop", unit)
    assert lab.seconds(unit, "InactiveEnter") - lab.seconds(unit, "ActiveExit") < 2.0
    assert lab.show(unit, "Result") == "success"


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


def test_what_a_test_of_learnpack_prints_is_read_in_tmp(lab: Lab, repository: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as stream:
        stream.add(repository / "tests/__init__.py", "tests/__init__.py")
        stream.add(repository / "tests/standin", "tests/standin")
        for path in Path(pytest.__file__).parents[1].iterdir():
            if path.name.split("-")[0] in PYTEST:  # and what each says of itself
                stream.add(path, f"site/{path.name}")
    lab.run("mkdir", "/opt/standin")
    assert lab.tried("tar", "--extract", "--directory=/opt/standin", given=archive.getvalue()).returncode == 0
    hal = lab.student("hal")
    environment = {"PYTHONPATH": "/opt/standin:/opt/standin/site", "PYTHONDONTWRITEBYTECODE": "1"}
    make = "import sys, pathlib; from tests.standin.courses import *; make_course(pathlib.Path(sys.argv[1]), PYTHON)"
    hal.run("python3", "-c", make, f"{hal.home}/course", **environment)
    course = f"{hal.home}/course"
    lab.installed(course)
    told = json.loads(hal.run("python3", "-c", TEST_IN_LEARNPACK, hal.home, **environment))
    assert told["exit_code"] == 1 and "1 failed" in told["stdout"], told
    events = lab.until_recorded(course, "test")
    [seen] = [event for event in events if event["event"] == "test"]
    assert (seen["step_slug"], seen["exit_code"], seen["output"]) == ("01-hello", 1, "full")
    assert (seen["stdout"], seen["stderr"]) == (told["stdout"], told["stderr"])
