"""An agent lives as long as its machine: boots, kills, a wedge, stops, a course that goes and comes, a full disk."""

from __future__ import annotations

import json

from tests.machine.lab import STEPS, Lab
from tests.until import until

WATCHDOG_S = 4

#: Stops the main thread of the process $1 and no other, for as long as the process lives.
WEDGE = """
import ctypes, os, sys
SEIZE, INTERRUPT, ALL_THREADS = 0x4206, 0x4207, 0x40000000
pid, libc = int(sys.argv[1]), ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
assert libc.ptrace(SEIZE, pid, None, None) == 0 and libc.ptrace(INTERRUPT, pid, None, None) == 0, ctypes.get_errno()
assert os.WIFSTOPPED(os.waitpid(pid, ALL_THREADS)[1])
print("stopped", flush=True)
while os.WIFSTOPPED(os.waitpid(pid, ALL_THREADS)[1]):
    pass
"""


# --- the boot ---


def test_after_a_reboot_the_agent_is_up_before_anybody_logs_in_and_sees_the_first_run(lab: Lab) -> None:
    ada = lab.student("ada")
    course = ada.course()
    assert f"new        {course}" in lab.agent("discover", "/home", "--install")
    lab.reboot()
    assert lab.show(lab.unit(course), "ActiveState") == "active", lab.log(course)
    assert lab.run("loginctl", "list-users", "--no-legend") == ""
    assert lab.state(course) == "running"
    ada.works(course)
    events = lab.until_recorded(course, "compile")
    # The gap is the time without power.
    assert [event["event"] for event in events] == ["gap", "session_start", "open_step", "compile"]
    assert events[-1]["step_slug"] == STEPS[0]


# --- kills and a wedge ---


def test_an_agent_that_is_killed_is_back_after_the_restart_delay_and_nothing_is_lost_or_doubled(lab: Lab) -> None:
    bob = lab.student("bob")
    course = bob.course()
    lab.installed(course)
    unit, pid = lab.unit(course), lab.pid(course)
    bob.works(course)
    before = lab.until_recorded(course, "compile")
    lab.write(f"{course}/exercises/{STEPS[1]}/app.py", "import sys\nsys.stdin.read()\n", user="bob")
    # This one begins before the kill, and ends after it.
    with lab.started("sh", "-c", "python3 app.py; true", user="bob", cwd=f"{course}/exercises/{STEPS[1]}"):
        lab.until_recorded(course, "open_step", 2)
        lab.run("kill", "-KILL", str(pid))
        until(lambda: lab.pid(course) not in (0, pid) and lab.show(unit, "ActiveState") == "active", every=0.05)
        assert lab.show(unit, "NRestarts") == "1"
        assert 2.0 <= lab.seconds(unit, "ExecMainStart") - lab.seconds(unit, "ActiveExit") < 3.0
    lab.until_recorded(course, "compile", 2)
    bob.works(course)
    events = lab.until_recorded(course, "compile", 3)
    assert events[: len(before)] == before
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["id"] for event in events}) == len(events)
    kinds = [event["event"] for event in events]
    assert kinds.count("session_start") == 1 and kinds.count("session_end") == 0 and kinds.count("compile") == 3


def test_the_watchdog_ends_an_agent_whose_loop_is_wedged_and_no_other(lab: Lab) -> None:
    cyd = lab.student("cyd")
    wedged, resting, paused = courses = [cyd.course(name) for name in ("wedged", "resting", "paused")]
    with lab.settings(WatchdogSec=f"{WATCHDOG_S}s"):
        lab.installed(*courses)
        lab.agent("pause", paused)
        until(lambda: lab.state(paused) == "paused", every=0.1)
        pids = {course: lab.pid(course) for course in courses}
        began = lab.seconds(lab.unit(paused), "Watchdog")
        with lab.started("python3", "-c", WEDGE, str(pids[wedged])) as wedge:
            assert wedge.stdout is not None and wedge.stdout.readline() == b"stopped\n"
            until(lambda: "watchdog" in lab.log(wedged), timeout=3 * WATCHDOG_S, every=0.1)
        assert wedge.returncode == 0
        lab.until_running(wedged)
        assert lab.show(lab.unit(wedged), "NRestarts") == "1"
        cyd.works(wedged)
        lab.until_recorded(wedged, "compile")
        # The others have nothing to do, and say so to the watchdog.
        for course in (resting, paused):
            unit = lab.unit(course)
            until(lambda unit=unit: lab.seconds(unit, "Watchdog") > began + 1.5 * WATCHDOG_S, every=0.1)  # type: ignore[misc]
            assert lab.pid(course) == pids[course]
            assert "watchdog" not in lab.log(course)


# --- stops ---


def test_a_stop_takes_less_than_two_seconds_and_closes_the_session(lab: Lab) -> None:
    dee = lab.student("dee")
    course = dee.course()
    lab.installed(course)
    dee.works(course)
    lab.until_recorded(course, "compile")
    unit = lab.unit(course)
    lab.run("systemctl", "stop", unit)
    assert lab.seconds(unit, "InactiveEnter") - lab.seconds(unit, "ActiveExit") < 2.0
    assert lab.show(unit, "Result") == "success"
    assert lab.kinds(course)[-1] == "session_end"
    document = json.loads(lab.read(f"{course}/.learn/telemetry.json"))
    assert len(document["steps"][0]["compilations"]) == 1
    assert document["workout_session"][-1]["ended_at"]
    assert lab.run("stat", "--format=%U", f"{course}/.learn/telemetry.json").strip() == "dee"


def test_in_a_restart_the_session_goes_on(lab: Lab) -> None:
    eli = lab.student("eli")
    course = eli.course()
    lab.installed(course)
    eli.works(course)
    lab.until_recorded(course, "compile")
    pid = lab.pid(course)
    lab.run("systemctl", "restart", lab.unit(course))
    assert lab.pid(course) != pid
    eli.works(course)
    lab.until_recorded(course, "compile", 2)
    assert [kind for kind in lab.kinds(course) if kind.startswith("session")] == ["session_start"]


# --- the course, and the disk ---


def test_a_course_that_is_deleted_and_cloned_again_goes_on_being_watched(lab: Lab) -> None:
    fay = lab.student("fay")
    course = fay.course()
    fay.shell(
        """git init --quiet && git add . && git -c user.name=f -c user.email=f@school.example commit --quiet -m course
        git clone --quiet --bare . ~/course.git""",
        cwd=course,
    )
    lab.installed(course)
    pid = lab.pid(course)
    fay.works(course)
    lab.until_recorded(course, "compile")
    fay.shell('rm -rf "$1" && git clone --quiet ~/course.git "$1"', course)
    assert not lab.exists(f"{course}/.learn/telemetry.json")
    fay.works(course, STEPS[1])
    lab.until_recorded(course, "compile", 2)
    until(lambda: lab.exists(f"{course}/.learn/telemetry.json"), every=0.1)
    steps = json.loads(lab.read(f"{course}/.learn/telemetry.json"))["steps"]
    assert [len(step["compilations"]) for step in steps] == [1, 1]
    assert lab.pid(course) == pid


def test_what_is_done_while_the_disk_is_full_is_recorded_when_it_has_room_again(lab: Lab) -> None:
    gil = lab.student("gil")
    course = gil.course()
    owner = f"uid={gil.uid},gid={gil.uid},mode=0700"
    lab.shell('mkdir -p "$1" && mount -t tmpfs -o "size=2m,$2" tmpfs "$1"', gil.journals(), owner)
    lab.installed(course)
    gil.works(course)
    lab.until_recorded(course, "compile")
    filler = f"{gil.journals()}/filler"
    lab.tried("dd", "if=/dev/zero", f"of={filler}", "bs=4k")
    assert lab.run("df", "--output=avail", filler).split()[-1] == "0"
    for _ in range(3):
        gil.works(course)
    until(lambda: "the journal takes nothing" in lab.log(course), every=0.1)
    lab.run("rm", filler)
    lab.until_recorded(course, "compile", 4)
    assert lab.kinds(course).count("compile") == 4
    assert lab.show(lab.unit(course), "NRestarts") == "0"
    lab.agent("uninstall", course)
    lab.run("umount", gil.journals())
