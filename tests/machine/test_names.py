"""Which courses have agents: any name, one agent for one course, and what comes and goes."""

from __future__ import annotations

import pytest

from tests.machine.lab import AGENT, MAKE_COURSE, PROGRAM, STEPS, UNITS, Lab
from tests.until import until

NAMES = ("a b", "-rf", "ünï", "x" * 200, '50% $HOME "q"', "it's \\x41 $(id) ~", "ü" * 100)


def instances(lab: Lab) -> list[str]:
    """All that is left of any agent: files, and units that systemd knows."""
    script = 'find "$1" -name "$2@?*"; systemctl list-units --all --plain --no-legend "$2@*" | cut -d " " -f 1'
    return sorted(lab.shell(script, UNITS, AGENT).splitlines())


def test_a_course_of_any_name_is_installed_watched_shown_and_uninstalled(lab: Lab) -> None:
    before = instances(lab)
    ada = lab.student("ada")
    courses = [ada.course(name) for name in NAMES]
    # As somebody would type it who is there.
    said = lab.shell(f"exec {AGENT} install -- *", cwd=ada.home)
    for course in courses:
        assert f"{course}: installed, running, as ada (systemd)" in said
        ada.works(course)
    for course in courses:
        lab.until_recorded(course, "compile")
        assert "ready: watching" in lab.agent("logs", course)
    states = lab.states()
    assert {course: states[course]["state"] for course in courses} == dict.fromkeys(courses, "running")
    assert sum(" running " in line for line in lab.agent("status", "--all").splitlines()) >= len(courses)
    assert lab.agent("stop", *courses).count(": stopped") == len(courses)
    assert lab.agent("start", *courses).count(": running") == len(courses)
    assert lab.agent("uninstall", *courses).count(": uninstalled") == len(courses)
    assert instances(lab) == before


def test_two_installs_and_a_link_to_the_course_are_one_agent(lab: Lab) -> None:
    before = instances(lab)
    bea = lab.student("bea")
    course = bea.course()
    lab.installed(course)
    pid = lab.pid(course)
    bea.shell("ln -s course link; ln -s . here")
    for name in (course, f"{bea.home}/link", f"{bea.home}/here/link/exercises", f"{course}/"):
        lab.agent("install", name)
    assert lab.pid(course) == pid
    assert [path for path in lab.states() if path.startswith(bea.home)] == [course]
    bea.works(f"{bea.home}/link")
    lab.until_recorded(course, "compile")
    assert "uninstalled" in lab.agent("uninstall", f"{bea.home}/link")
    assert instances(lab) == before


def test_a_course_of_root_is_only_watched_for_a_user_who_is_named(lab: Lab) -> None:
    cleo = lab.student("cleo")
    course = "/srv/courses/shared"
    lab.shell(MAKE_COURSE, course, PROGRAM, *STEPS)
    said = lab.agent("install", course, ok=(1, 77))
    assert said.count("\n") == 1 and "belongs to root" in said and "--user" in said
    lab.agent("install", course, "--user", "cleo")
    lab.until_running(course)
    assert lab.run("ps", "-o", "user=", "-p", str(lab.pid(course))).strip() == "cleo"
    cleo.works(course)
    lab.until_recorded(course, "compile")
    # It has been decided who watches it: to look for courses changes nothing about that.
    pid = lab.pid(course)
    lab.agent("discover", "/srv", "--install")
    assert lab.pid(course) == pid
    lab.agent("uninstall", course)


def test_a_course_outside_of_home_is_written_to_and_one_on_the_top_level_too(lab: Lab) -> None:
    dan = lab.student("dan")
    for course in ("/srv/dan/my course", "/dans"):
        lab.shell(MAKE_COURSE + 'chown -R dan: "$course"', course, PROGRAM, *STEPS)
        lab.installed(course)
        dan.works(course)
        lab.until_recorded(course, "compile")
        until(lambda course=course: lab.exists(f"{course}/.learn/telemetry.json"), every=0.1)  # type: ignore[misc]
        lab.agent("uninstall", course)


def test_a_course_that_is_gone_at_boot_is_no_failure_and_watched_when_it_is_back(lab: Lab) -> None:
    eve = lab.student("eve")
    first, second = eve.course("first"), eve.course("second")
    lab.installed(first, second)
    eve.shell("mkdir away && mv first second away")
    lab.reboot()
    for course in (first, second):
        assert lab.show(lab.unit(course), "ActiveState") == "inactive"
        assert lab.state(course) == "absent"
    eve.shell("mv away/first .")
    lab.agent("discover", "/home", "--install")
    lab.until_running(first)
    assert not lab.is_installed(second)
    eve.shell("mv away/second .")
    lab.look_for_courses()
    lab.until_running(second)
    for course in (first, second):
        eve.works(course)
        lab.until_recorded(course, "compile")


def test_the_timer_watches_what_was_cloned_and_leaves_what_was_deleted(lab: Lab) -> None:
    fin = lab.student("fin")
    old = fin.course("old")
    lab.installed(old)
    new = fin.course("projects/school/new")
    fin.shell("rm -rf old")
    lab.look_for_courses()
    lab.until_running(new)
    assert not lab.is_installed(old)
    assert lab.show(lab.unit(old), "ActiveState") == "inactive"
    fin.works(new)
    lab.until_recorded(new, "compile")
    lab.run("systemctl", "enable", "--now", f"{AGENT}-discover.timer")
    assert lab.show(f"{AGENT}-discover.timer", "ActiveState") == "active"
    assert lab.show(f"{AGENT}-discover.timer", "NextElapseUSecMonotonic") not in ("", "infinity")


def test_an_installation_shows_what_it_would_do_and_does_nothing_then(lab: Lab) -> None:
    gus = lab.student("gus")
    course = gus.course()
    shown = lab.agent("install", course, "--print")
    assert f"User={gus.uid}" in shown and lab.unit(course) in shown
    assert not lab.is_installed(course)


@pytest.mark.parametrize("place", ["/nowhere", "/etc"])
def test_what_is_no_course_is_not_installed(lab: Lab, place: str) -> None:
    said = lab.agent("install", place, ok=(78,))
    assert said.count("\n") == 1 and place in said
