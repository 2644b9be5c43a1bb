"""The agent in a venv that only root can change, as `pipx install --global` makes it: no package, and its own units."""

from __future__ import annotations

from agent.config import course_key
from tests.machine.lab import AGENT, UNITS, Lab

VENV = "/opt/pipx/venvs/learnpack-agent"
#: The package carries a venv: moved, with what names its place.
MOVE = """
mkdir -p "${1%/*}"
cp -a /usr/lib/learnpack-agent "$1"
ln -sf "$(realpath "/usr/lib/learnpack-agent/bin/python3")" "$1/bin/python3"
sed -i "s:/usr/lib/learnpack-agent:$1:" "$1/bin/learnpack-agent"
dpkg --purge learnpack-agent
ln -s "$1/bin/learnpack-agent" /usr/local/bin/learnpack-agent
"""


def test_an_agent_in_a_venv_is_run_by_systemd_and_leaves_nothing(lab: Lab) -> None:
    lab.shell(MOVE, VENV)
    before = lab.run("find", UNITS)
    ada = lab.student("ada")
    courses = [ada.course("one"), ada.course("two")]
    lab.installed(*courses)
    unit = lab.unit(courses[0])
    assert f"path={VENV}/bin/{AGENT} " in lab.show(unit, "ExecStart")
    assert lab.show(unit, "FragmentPath") == f"{UNITS}/{AGENT}@.service"
    ada.works(courses[0])
    lab.until_recorded(courses[0], "compile")
    lab.run("mkdir", "-p", "/var/lib/prometheus/node-exporter")
    lab.run("systemctl", "start", f"{AGENT}-metrics.service")
    metrics = lab.read("/var/lib/prometheus/node-exporter/learnpack_agent.prom")
    for course in courses:
        assert f'learnpack_agent_up{{course="{course_key(course)}",uid="{ada.uid}"}} 1' in metrics
    lab.run("systemctl", "enable", "--now", f"{AGENT}-discover.timer")
    lab.agent("uninstall", *courses)
    assert lab.exists(f"{UNITS}/{AGENT}@.service"), "the timer is there for the next course"
    lab.run("systemctl", "start", f"{AGENT}-discover.service")
    assert [lab.state(course) for course in courses] == ["running", "running"]
    lab.run("systemctl", "disable", "--now", f"{AGENT}-discover.timer")
    lab.agent("uninstall", *courses)
    assert lab.run("find", UNITS) == before
    assert lab.run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"{AGENT}*") == ""
