"""The package while agents run: a newer version, an older one, and none."""

from __future__ import annotations

from pathlib import Path

from tests.machine.lab import AGENT, UNITS, Lab
from tests.machine.test_logins import agent as own_agent
from tests.machine.test_logins import logged_in, processes
from tests.until import until


def test_after_an_upgrade_what_ran_runs_in_the_new_version_with_its_session_and_what_was_stopped_does_not(
    lab: Lab, newer: Path, package: Path
) -> None:
    ada = lab.student("ada")
    course, stopped = ada.course("course"), ada.course("stopped")
    lab.installed(course, stopped)
    lab.agent("stop", stopped)
    bea = lab.student("bea")
    own = bea.course()
    with logged_in(bea):
        own_agent(bea, "install", own)
        ada.works(course)
        before = lab.until_recorded(course, "compile")
        for number, one in enumerate((newer, package), start=2):
            pid, own_pid = lab.pid(course), processes(bea)
            lab.install_package(one, "--force-downgrade")
            assert lab.pid(course) not in (0, pid)
            until(lambda was=own_pid: processes(bea) not in ("", was), every=0.1)  # type: ignore[misc]
            assert lab.show(lab.unit(stopped), "ActiveState") == "inactive"
            lab.until_running(course)
            ada.works(course)
            events = lab.until_recorded(course, "compile", number)
            assert events[: len(before)] == before
            assert [event["event"] for event in events if "session" in event["event"]] == ["session_start"]


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
