"""Agents of a student's own manager: they live from login to logout, or longer, and give way to the admin's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.machine.lab import AGENT, STEPS, Lab, Student
from tests.until import until


@pytest.fixture(scope="module", autouse=True)
def a_logout_takes_effect_at_once(lab: Lab) -> None:
    lab.write("/etc/systemd/logind.conf.d/test.conf", "[Login]\nUserStopDelaySec=0\n")
    lab.run("systemctl", "restart", "systemd-logind")


@contextmanager
def logged_in(student: Student) -> Iterator[None]:
    """From a login, as PAM and systemd make it, to the logout."""
    lab = student.lab
    with lab.started("su", "--login", student.name, "--command", "cat"):
        until(lambda: lab.show(f"user@{student.uid}.service", "ActiveState") == "active", every=0.05)
        yield
    until(lambda: student.name not in lab.run("loginctl", "list-sessions", "--no-legend"), every=0.05)


def agent(student: Student, *command: str, ok: tuple[int, ...] = (0,)) -> str:
    """The command, as the student types it."""
    runtime = f"/run/user/{student.uid}"
    bus = f"unix:path={runtime}/bus"
    done = student.lab.tried(
        *(AGENT, *command), user=student.name, cwd=student.home, XDG_RUNTIME_DIR=runtime, DBUS_SESSION_BUS_ADDRESS=bus
    )
    words = (done.stdout + done.stderr).decode()
    assert done.returncode in ok, words
    return words


def own(student: Student, *command: str) -> str:
    """What the student's `systemctl --user` says."""
    runtime = f"/run/user/{student.uid}"
    return student.run("systemctl", "--user", *command, XDG_RUNTIME_DIR=runtime).strip()


def is_active(student: Student, course: str) -> bool:
    unit = student.lab.unit(course)
    there = student.lab.exists(f"/run/user/{student.uid}/bus")
    return there and own(student, "show", "--property=ActiveState", "--value", unit) == "active"


def processes(student: Student) -> str:
    done = student.lab.tried("pgrep", "--uid", str(student.uid), "--full", f"{AGENT} run")
    return done.stdout.decode()


def test_it_ends_with_the_last_logout_and_its_session_and_begins_with_the_next_login(lab: Lab) -> None:
    ada = lab.student("ada")
    course = ada.course()
    with logged_in(ada):
        assert "installed, running" in agent(ada, "install", course)
        ada.works(course)
        until(lambda: "compile" in agent(ada, "events", course), every=0.1)
        state = own(ada, "show", "--property=NRestarts,Result", lab.unit(course))
        assert "NRestarts=0" in state and "Result=success" in state
    until(lambda: not processes(ada), every=0.1)
    assert agent(ada, "events", course).splitlines()[-1].find("session_end") > 0
    assert not lab.exists(f"/run/user/{ada.uid}/bus")
    with logged_in(ada):
        until(lambda: is_active(ada, course), every=0.1)
        ada.works(course, STEPS[1])
        until(lambda: agent(ada, "events", course).count("session_start") == 2, every=0.1)


def test_with_lingering_it_survives_the_logout_and_a_reboot(lab: Lab) -> None:
    bea = lab.student("bea")
    course = bea.course()
    with logged_in(bea):
        agent(bea, "install", course)
        pid = processes(bea)
        lab.run("loginctl", "enable-linger", "bea")
    assert processes(bea) == pid
    bea.works(course)
    until(lambda: "compile" in agent(bea, "events", course), every=0.1)
    lab.reboot()
    until(lambda: is_active(bea, course), every=0.1)
    bea.works(course)
    until(lambda: agent(bea, "events", course).count("compile") == 2, every=0.1)


def test_the_target_of_a_student_stops_and_starts_the_own_agents(lab: Lab) -> None:
    cyd = lab.student("cyd")
    courses = [cyd.course("one"), cyd.course("two")]
    with logged_in(cyd):
        agent(cyd, "install", *courses)
        own(cyd, "stop", f"{AGENT}.target")
        until(lambda: processes(cyd) == "", every=0.1)
        own(cyd, "start", f"{AGENT}.target")
        until(lambda: len(processes(cyd).split()) == 2, every=0.1)
        assert agent(cyd, "stop", "--all").count(": stopped") == 2
        assert processes(cyd) == ""
        assert agent(cyd, "uninstall", *courses).count(": uninstalled") == 2
        assert own(cyd, "list-units", "--all", "--no-legend", f"{AGENT}@*") == ""


def test_its_exposure_is_told(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    dee = lab.student("dee")
    course = dee.course()
    with logged_in(dee):
        agent(dee, "install", course)
        runtime = f"/run/user/{dee.uid}"
        unit = lab.unit(course)
        said = dee.run("systemd-analyze", "--user", "security", "--no-pager", unit, XDG_RUNTIME_DIR=runtime)
        with capsys.disabled():
            print(f"\n{said.splitlines()[-1]}")
        assert "NoNewPrivs:\t1" in lab.read(f"/proc/{processes(dee).split()[0]}/status")


def test_a_course_that_the_admin_has_watched_gets_no_second_agent(lab: Lab) -> None:
    eve = lab.student("eve")
    course = eve.course()
    lab.installed(course)
    with logged_in(eve):
        said = agent(eve, "install", course, ok=(75,))
        assert said.count("\n") == 1 and course in said and "it has an agent already (systemd)" in said
        assert processes(eve).split() == [str(lab.pid(course))]
        assert "watched" in agent(eve, "discover", eve.home, "--install")
        assert processes(eve).split() == [str(lab.pid(course))]


def test_a_course_that_its_student_has_watched_gets_no_second_agent_from_the_admin(lab: Lab) -> None:
    fay = lab.student("fay")
    course = fay.course()
    with logged_in(fay):
        agent(fay, "install", course)
        pid = processes(fay)
        said = lab.agent("install", course, ok=(75,))
        assert said.count("\n") == 1 and course in said and "it has an agent already" in said
        assert processes(fay) == pid
    until(lambda: not processes(fay), every=0.1)
    # While nobody is logged in the admin is not stopped.  Then the student's own gives way.
    lab.installed(course)
    with logged_in(fay):
        until(lambda: own(fay, "show", "--property=ActiveState", "--value", lab.unit(course)) == "failed", every=0.1)
        assert processes(fay).split() == [str(lab.pid(course))]
        assert "another agent" in agent(fay, "logs", course) or "already" in agent(fay, "logs", course)
