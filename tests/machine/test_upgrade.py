"""The package while agents run: a newer version, and none."""

from __future__ import annotations

from pathlib import Path

from tests.machine.lab import AGENT, UNITS, Lab


def test_in_an_upgrade_the_session_goes_on_and_what_was_recorded_stays(lab: Lab, newer: Path) -> None:
    ada = lab.student("ada")
    course, stopped = ada.course("course"), ada.course("stopped")
    lab.installed(course, stopped)
    lab.agent("stop", stopped)
    ada.works(course)
    before, pid = lab.until_recorded(course, "compile"), lab.pid(course)
    lab.install_package(newer)
    assert lab.pid(course) not in (0, pid)
    assert lab.show(lab.unit(stopped), "ActiveState") == "inactive"
    lab.until_running(course)
    ada.works(course)
    events = lab.until_recorded(course, "compile", 2)
    assert events[: len(before)] == before
    assert [event["event"] for event in events if event["event"].startswith("session")] == ["session_start"]


def test_removing_it_ends_all_and_keeps_what_was_recorded_and_purging_it_leaves_nothing(lab: Lab) -> None:
    cyd = lab.student("cyd")
    course = cyd.course()
    lab.installed(course)
    cyd.works(course)
    lab.until_recorded(course, "compile")
    journals = cyd.journals()
    lab.run("dpkg", "--no-triggers", "--remove", AGENT)
    assert lab.tried("pgrep", "--full", f"{AGENT} run").stdout == b""
    assert lab.exists(journals) and lab.run("find", journals, "-name", "journal.sqlite3") != ""
    assert lab.read(f"{course}/.learn/telemetry.json")
    lab.run("dpkg", "--no-triggers", "--purge", AGENT)
    left = lab.shell('find "$1" /var/lib /usr/lib/systemd /etc -name "*$2*" -not -path "*/dpkg/*"', UNITS, AGENT)
    assert left == ""
    assert lab.run("systemctl", "list-units", "--all", "--no-legend", f"{AGENT}*") == ""
    assert lab.read(f"{course}/.learn/telemetry.json")
