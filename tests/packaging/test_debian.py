"""The Debian package: what is in it, and what it does to a machine on which no systemd runs (an image being built)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from agent import __version__
from agent.hosting import systemd
from tests.packaging.package import TOP, missing
from tests.packaging.root import Root

SYSTEMD = "etc/systemd/system"
TARGET = f"/{SYSTEMD}/multi-user.target.wants/learnpack-agent.target"
INSTANCE = r"learnpack-agent@home-ada-my\x2dcourse.service"
LINK = f"/{SYSTEMD}/learnpack-agent.target.wants/{INSTANCE}"
DROP_IN = f"/{SYSTEMD}/{INSTANCE}.d/{systemd.DROP_IN}"
MINE = f"/{SYSTEMD}/{INSTANCE}.d/90-mine.conf"
JOURNAL = "/var/lib/learnpack-agent/1500/my-course-00000000/journal.sqlite"
CONFIG = "/etc/learnpack-agent/config.toml"
METRICS = "/var/lib/prometheus/node-exporter/learnpack_agent.prom"
#: What dpkg and its helpers keep for themselves, whatever package comes and goes.
OF_DPKG = re.compile(r"/var/(lib/(dpkg|systemd)|cache|log)/|/etc/ld\.so\.cache$")


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True).stdout.strip()


def watch_a_course(root: Root) -> None:
    """What `install` leaves behind, and what an agent and an admin do."""
    root.write(DROP_IN, b"[Service]\nUser=1500\n")
    root.run("mkdir", "-p", os.path.dirname(LINK))
    root.run("ln", "-s", "/usr/lib/systemd/system/learnpack-agent@.service", LINK)
    root.write(JOURNAL, b"what was recorded", "0600")
    root.write(METRICS, b"learnpack_agent_up 1\n")
    root.write("/etc/learnpack-agent/config.d/10-lab.toml", b"idle_minutes = 7\n")


# --- what is in it ---


def test_the_version_is_the_agents_and_the_python_is_the_one_it_holds_packages_for(package: Path) -> None:
    assert field(package, "Version").startswith(f"{__version__}-")
    assert re.search(r"\bpython3\.\d+\b(?!.*\bpython3\.)", field(package, "Depends"))
    assert "libc6" in field(package, "Depends")


def test_all_units_are_where_systemd_looks_for_them(unpacked: Path) -> None:
    for here, there in (("systemd", "usr/lib/systemd/system"), ("systemd/user", "usr/lib/systemd/user")):
        units = {path.name for path in (TOP / here).glob("learnpack-agent*.*")}
        assert units
        assert {path.name for path in (unpacked / there).iterdir()} == units
    for unit in (unpacked / "usr/lib/systemd").rglob("*.service"):
        commands = re.findall(r"^Exec(?:Start|StartPre|StartPost|Stop)=[-+!@:]*(\S+)", unit.read_text(), re.MULTILINE)
        assert commands and set(commands) == {"/usr/bin/learnpack-agent"}, unit


def test_the_configuration_is_the_admins(unpacked: Path) -> None:
    assert (unpacked / "DEBIAN/conffiles").read_text() == f"{CONFIG}\n"
    assert list((unpacked / "etc/learnpack-agent/config.d").iterdir()) == []


def test_what_was_only_needed_to_build_it_is_not_in_it(unpacked: Path) -> None:
    venv = unpacked / "usr/lib/learnpack-agent"
    assert sorted(path.name for path in (venv / "bin").iterdir()) == ["learnpack-agent", "python3"]
    [packages] = venv.glob("lib/python3.*/site-packages")
    names = {path.name.split("-")[0].lower() for path in packages.iterdir()}
    assert {"agent", "watchdog", "shtab"} <= names
    assert names.isdisjoint({"pip", "setuptools", "wheel", "pytest", "argparse_manpage"})
    assert not list(packages.glob("*.pth"))


def test_no_file_knows_where_it_was_built(unpacked: Path) -> None:
    ours = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]
    bytecode = [path for path in ours if path.suffix == ".pyc" and path.parts[-3] == "agent"]
    assert bytecode
    for path in bytecode:
        assert b"/usr/lib/learnpack-agent/lib/python3" in path.read_bytes()
    for path in ours:
        assert b"/learnpack-agent/debian/" not in path.read_bytes(), path


def test_each_distribution_is_named_in_the_copyright(unpacked: Path) -> None:
    words = (unpacked / "usr/share/doc/learnpack-agent/copyright").read_text()
    found = [path.name.split("-")[0] for path in unpacked.glob("usr/lib/learnpack-agent/lib/*/*/*.dist-info")]
    assert len(found) > 8
    for name in set(found) - {"learnpack_agent"}:
        assert re.search(rf"^Files: bundled/{re.sub('[-_]', '[-_]', name)}/", words, re.MULTILINE | re.IGNORECASE), name


def test_lintian_has_nothing_to_say(package: Path) -> None:
    if shutil.which("lintian") is None:
        missing("no lintian on this machine")
    done = subprocess.run(
        ["lintian", "--allow-root", "--display-info", "--fail-on", "error,warning,info", package],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


# --- what it does ---


def test_installing_it_gives_a_program_that_works_and_watches_nobody(root: Root, package: Path) -> None:
    root.dpkg("--install", str(package))
    assert root.run("learnpack-agent", "--version") == f"learnpack-agent {__version__}\n"
    root.write("/tmp/evil/agent/__init__.py", b"raise SystemExit('what a student left in PYTHONPATH was imported')")
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "--chdir=/tmp/evil")
    assert "COMMAND" in root.run(*as_nobody, "learnpack-agent", "--help", PYTHONPATH="/tmp/evil")
    assert root.exists(TARGET)
    links = [path for path in root.files("/etc/systemd") if "@" in path or path.endswith((".timer", ".path"))]
    assert links == []
    assert root.run("dpkg", "--verify", "learnpack-agent") == ""


def test_every_import_of_the_agent_is_in_the_package(root: Root, package: Path) -> None:
    root.dpkg("--install", str(package))
    script = (
        "import pkgutil, importlib, agent, daemon, detect_secrets, requests, yaml\n"
        "for one in pkgutil.walk_packages(agent.__path__, 'agent.'):\n"
        "    if not one.name.endswith('__main__'): importlib.import_module(one.name)\n"
    )
    root.run("/usr/lib/learnpack-agent/bin/python3", "-I", "-W", "error", "-c", script)
    # Root ran it, and Python would have written what it lacks.
    assert root.run("dpkg", "--verify", "learnpack-agent") == ""
    ours = set(root.run("dpkg", "--listfiles", "learnpack-agent").splitlines())
    assert [path for path in root.files("/usr/lib/learnpack-agent") if path not in ours] == []


def test_upgrade_and_downgrade_keep_what_the_admin_and_the_agents_wrote(root: Root, package: Path, newer: Path) -> None:
    root.dpkg("--install", str(package))
    watch_a_course(root)
    root.write(CONFIG, b"# mine\n")
    root.run("rm", TARGET)  # the admin has disabled it
    for one in (newer, package):
        root.dpkg("--force-confold", "--install", str(one))
        version = root.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "learnpack-agent")
        assert version == f"{field(one, 'Version')} installed"
        assert root.read(CONFIG) == "# mine\n"
        assert root.read(JOURNAL) == "what was recorded"
        assert root.exists(LINK) and root.exists(DROP_IN)
        assert not root.exists(TARGET)


def test_a_configuration_that_nobody_changed_is_replaced_by_an_upgrade(root: Root, package: Path, newer: Path) -> None:
    root.dpkg("--install", str(package))
    root.dpkg("--install", str(newer))
    assert root.read(CONFIG).endswith("# of the next version\n")


def test_removing_it_uninstalls_its_agents_and_keeps_data_and_what_the_admin_wrote(root: Root, package: Path) -> None:
    root.dpkg("--install", str(package))
    watch_a_course(root)
    root.write(MINE, b"[Service]\nCPUWeight=1\n")
    root.dpkg("--remove", "learnpack-agent")
    for gone in (LINK, DROP_IN, METRICS, "/usr/bin/learnpack-agent", "/usr/lib/learnpack-agent"):
        assert not root.exists(gone), gone
    assert root.read(JOURNAL) == "what was recorded"
    for kept in (CONFIG, "/etc/learnpack-agent/config.d/10-lab.toml", MINE):
        assert root.exists(kept), kept


def test_purging_it_leaves_nothing(root: Root, package: Path) -> None:
    before = [path for path in root.files("/etc", "/usr", "/var") if not OF_DPKG.match(path)]
    root.dpkg("--install", str(package))
    watch_a_course(root)
    root.write(MINE, b"[Service]\nCPUWeight=1\n")
    root.write("/home/ada/my-course/.learn/telemetry.json", b"{}")
    root.dpkg("--purge", "learnpack-agent")
    assert [path for path in root.files("/etc", "/usr", "/var") if not OF_DPKG.match(path)] == before
    for gone in ("/var/lib/learnpack-agent", "/etc/learnpack-agent", os.path.dirname(DROP_IN), os.path.dirname(LINK)):
        assert not root.exists(gone), gone
    assert root.read("/home/ada/my-course/.learn/telemetry.json") == "{}"


def test_purging_follows_no_link_that_a_student_made(root: Root, package: Path) -> None:
    root.dpkg("--install", str(package))
    root.write("/srv/precious", b"kept")
    root.run("mkdir", "-p", "/var/lib/learnpack-agent/1500")
    root.run("ln", "-s", "/srv", "/var/lib/learnpack-agent/1500/course")
    root.dpkg("--purge", "learnpack-agent")
    assert root.read("/srv/precious") == "kept"


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_sound(unpacked: Path, name: str) -> None:
    path = unpacked / "DEBIAN" / name
    if not path.exists():
        return
    assert path.stat().st_mode & stat.S_IXUSR
    assert "#DEBHELPER#" not in path.read_text()
    if shutil.which("shellcheck") is None:
        missing("no shellcheck on this machine")
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
