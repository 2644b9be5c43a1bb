"""launchd: the property lists against launchd.plist(5), the plans against a launchctl that remembers what it was told.

Nothing of this was run on a Mac: see agent/hosting/launchd.py.
"""

from __future__ import annotations

import grp
import plistlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.hosting import actions
from agent.hosting.launchd import Launchd, state_of
from agent.hosting.manager import Action, Manager, ManagerError, Owner, Placement, Remove, Run, Write
from agent.machine import _name_of

TOP = Path(__file__).parent.parent.parent
ADA = Owner(501, 20, "ada", "/Users/ada")
COURSE = "/Users/ada/my-course"
PROGRAM = "/usr/local/bin/learnpack-agent"

#: The keys of launchd.plist(5) (macOS 10.14 and later) of which the page demands a type, and the types that it names.
DOCUMENTED: dict[str, tuple[type, ...]] = {
    "AbandonProcessGroup": (bool,),
    "AssociatedBundleIdentifiers": (str, list),
    "Debug": (bool,),
    "Disabled": (bool,),
    "EnableGlobbing": (bool,),
    "EnablePressuredExit": (bool,),
    "EnableTransactions": (bool,),
    "EnvironmentVariables": (dict,),
    "ExitTimeOut": (int,),
    "GroupName": (str,),
    "HardResourceLimits": (dict,),
    "InitGroups": (bool,),
    "KeepAlive": (bool, dict),
    "Label": (str,),
    "LaunchEvents": (dict,),
    "LaunchOnlyOnce": (bool,),
    "LegacyTimers": (bool,),
    "LimitLoadFromHosts": (list,),
    "LimitLoadToHardware": (dict,),
    "LimitLoadToHosts": (list,),
    "LimitLoadToSessionType": (str, list),
    "LowPriorityBackgroundIO": (bool,),
    "LowPriorityIO": (bool,),
    "MachServices": (dict,),
    "MaterializeDatalessFiles": (bool,),
    "Nice": (int,),
    "OnDemand": (bool,),
    "ProcessType": (str,),
    "Program": (str,),
    "ProgramArguments": (list,),
    "QueueDirectories": (list,),
    "RootDirectory": (str,),
    "RunAtLoad": (bool,),
    "SessionCreate": (bool,),
    "Sockets": (dict,),
    "SoftResourceLimits": (dict,),
    "StandardErrorPath": (str,),
    "StandardInPath": (str,),
    "StandardOutPath": (str,),
    "StartCalendarInterval": (dict, list),
    "StartInterval": (int,),
    "StartOnMount": (bool,),
    "ThrottleInterval": (int,),
    "TimeOut": (int,),
    "Umask": (int, str),
    "UserName": (str,),
    "WaitForDebugger": (bool,),
    "WatchPaths": (list,),
    "WorkingDirectory": (str,),
    "inetdCompatibility": (dict,),
}
KEEP_ALIVE = {"SuccessfulExit", "PathState", "OtherJobEnabled", "Crashed", "AfterInitialDemand"}
PROCESS_TYPES = {"Background", "Standard", "Adaptive", "Interactive"}
#: launchctl(1), bootstrap: where a job may be loaded.
SESSION_TYPES = {"Aqua", "Background", "LoginWindow", "StandardIO", "System"}


def assert_documented(job: dict[str, Any]) -> None:
    assert {"Label", "ProgramArguments"} <= job.keys()
    assert {key: type(value) for key, value in job.items() if type(value) not in DOCUMENTED.get(key, ())} == {}
    assert job["KeepAlive"].keys() <= KEEP_ALIVE
    assert job["ProcessType"] in PROCESS_TYPES
    assert job.get("LimitLoadToSessionType", "Aqua") in SESSION_TYPES
    assert all(isinstance(value, str) for value in job.get("EnvironmentVariables", {}).values())
    assert all(isinstance(one, str) for one in job["ProgramArguments"])
    assert job["ProgramArguments"][0].startswith("/"), "launchd looks for a program in no PATH of ours"
    assert -20 <= job["Nice"] <= 20


class FakeLaunchctl:
    """Knows domains and loaded jobs, as launchctl(1) tells of them; `perform` does what a plan says."""

    def __init__(self, *domains: str) -> None:
        self.domains = set(domains)
        self.jobs: dict[str, str] = {}
        self.disabled: set[str] = set()
        self.did: list[str] = []

    def ask(self, argv: Sequence[str]) -> tuple[int, str]:
        verb, *words = argv[1:]
        assert verb == "print", "asking changes nothing"
        (name,) = words
        if name in self.domains:
            return 0, f"{name} = {{\n\ttype = user\n}}\n"
        if name in self.jobs:
            return 0, self.jobs[name]
        domain, _, label = name.rpartition("/")
        if domain not in self.domains:
            return 125, "Domain does not support specified action\n"
        return 113, f'Could not find service "{label}" in domain for {domain}\n'

    def perform(self, plan: list[Action]) -> None:
        for action in plan:
            if isinstance(action, Run):
                self._run(action)
            else:
                actions.perform([action])

    def _run(self, action: Run) -> None:
        program, *words = action.argv
        if program != "/bin/launchctl":
            self.did.append(Path(program).name)
            return
        verb, name = words[0], words[-1]
        self.did.append(" ".join(words))
        if verb == "bootstrap":
            label = plistlib.loads(Path(name).read_bytes())["Label"]
            target = f"{words[1]}/{label}"
            assert words[1] in self.domains, "125"
            assert target not in self.jobs, "37: Operation already in progress"
            assert target not in self.disabled, "5: Input/output error"
            self.jobs[target] = RUNNING
        elif verb == "bootout":
            if name not in self.jobs:
                assert action.may_fail, "3: No such process"
            self.jobs.pop(name, None)
        elif verb == "enable":
            self.disabled.discard(name)
        else:
            assert verb == "kickstart"
            assert name in self.jobs, "113"


RUNNING = """gui/501/learnpack-agent.my-course-b9fcc611 = {
\tactive count = 1
\tpath = /Users/ada/Library/LaunchAgents/learnpack-agent.my-course-b9fcc611.plist
\ttype = LaunchAgent
\tstate = running

\tprogram = /usr/local/bin/learnpack-agent
\targuments = {
\t\t/usr/local/bin/learnpack-agent
\t\trun
\t\t/Users/ada/my-course
\t}

\tenvironment = {
\t\tXPC_SERVICE_NAME => learnpack-agent.my-course-b9fcc611
\t\tstate = stolen
\t\tpid = 1
\t}

\tdomain = gui/501 [100005]
\tminimum runtime = 60
\texit timeout = 10
\truns = 1
\tpid = 1478
\tlast exit code = (never exited)

\tresource coalition = {
\t\tstate = active
\t\tactive count = 1
\t}
\tproperties = keepalive | runatload
}
"""

#: Put together from what people published of `launchctl print`, shortened to what tells of a job's life.
PRINTED: list[tuple[str, tuple[str, int | None, str]]] = [
    (RUNNING, ("running", 1478, "")),
    (
        "x = {\n\tstate = running\n\truns = 48\n\tpid = 38837\n\tlast terminating signal = Killed: 9\n}",
        ("running", 38837, ""),
    ),
    ("x = {\n\tstate = not running\n\truns = 6\n\tlast exit code = 0\n}", ("stopped", None, "")),
    ("x = {\n\tstate = not running\n\truns = 0\n\tlast exit code = (never exited)\n}", ("stopped", None, "")),
    ("x = {\n\tstate = waiting\n\tlast exit code = 1\n}", ("failed", None, "exit code 1")),
    ("x = {\n\tstate = spawn scheduled\n\tlast exit code = 3\n\truns = 137\n}", ("starting", None, "exit code 3")),
    (
        "x = {\n\tstate = spawn scheduled\n\truns = 105\n\tlast terminating signal = Bus error: 10\n}",
        ("starting", None, "ended by a signal (Bus error: 10)"),
    ),
    (
        "x = {\n\tstate = not running\n\tlast exit reason = JETSAM_REASON_MEMORY_IDLE_EXIT\n}",
        ("failed", None, "JETSAM_REASON_MEMORY_IDLE_EXIT"),
    ),
    (
        "x = {\n\tstate = spawn scheduled\n\tlast exit code = 75: EX_TEMPFAIL\n}",
        ("starting", None, "another agent watches this course"),
    ),
    ("something that a later macOS prints", ("stopped", None, "")),
]


@pytest.mark.parametrize(("printed", "told"), PRINTED)
def test_what_launchctl_prints_of_a_job(printed: str, told: tuple[str, int | None, str]) -> None:
    assert state_of(printed) == told


def test_78_may_be_launchds_own_word() -> None:
    state, _, detail = state_of("x = {\n\tstate = spawn scheduled\n\tlast exit code = 78: EX_CONFIG\n}")
    assert state == "starting"
    assert "launchd could not start it" in detail


class Mac:
    """A Library in a directory, and a launchctl for it."""

    def __init__(
        self, library: Path, *, is_user: bool = True, domains: tuple[str, ...] = ("gui/501", "user/501")
    ) -> None:
        self.library = library
        self.launchctl = FakeLaunchctl(*(domains if is_user else ("system",)))
        self.is_user = is_user

    @property
    def launchd(self) -> Launchd:
        """A new one each time, as each command has."""
        return Launchd(
            is_user=self.is_user,
            program=PROGRAM,
            key_of=_name_of,
            ask=self.launchctl.ask,
            uid=501 if self.is_user else 0,
            library=str(self.library),
        )

    def plist_path(self, course: str = COURSE) -> Path:
        directory = "LaunchAgents" if self.is_user else "LaunchDaemons"
        return self.library / directory / f"learnpack-agent.{_name_of(course)}.plist"

    def install(self, course: str = COURSE, owner: Owner = ADA) -> None:
        self.launchctl.perform(self.launchd.install([Placement(course, owner)]))

    def did(self) -> list[str]:
        done, self.launchctl.did = self.launchctl.did, []
        return done


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path)


@pytest.fixture
def admin(tmp_path: Path) -> Mac:
    return Mac(tmp_path, is_user=False)


TARGET = f"gui/501/learnpack-agent.{_name_of(COURSE)}"


def test_it_is_a_manager(mac: Mac) -> None:
    manager: Manager = mac.launchd
    assert manager.words == "launchd of this user"


# --- the property lists ---

NAMES = ["my-course", "a b", "-rf", "ünï", "x" * 200, "<a> & \"b\" 'c'", "]]>", "%i $HOME ~", "日本語", "trailing "]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_user", [True, False])
def test_every_property_list_is_one_by_the_book_and_names_the_course(name: str, is_user: bool, tmp_path: Path) -> None:
    mac = Mac(tmp_path, is_user=is_user)
    content = mac.launchd.plist(Placement(f"/Users/ada/{name}", ADA))
    job = plistlib.loads(content)
    assert_documented(job)
    assert job["ProgramArguments"] == [PROGRAM, "run", f"/Users/ada/{name}"]
    assert re.fullmatch(r"learnpack-agent\.[A-Za-z0-9._-]+", job["Label"])
    if shutil.which("plutil"):
        assert subprocess.run(["plutil", "-lint", "-"], input=content, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("name", ["a\x07b", "a\rb", "a\udcffb"])
def test_a_name_that_xml_does_not_carry_is_refused_in_one_line(name: str, mac: Mac) -> None:
    with pytest.raises(ManagerError, match="can't be written in a property list") as caught:
        mac.launchd.install([Placement(f"/Users/ada/{name}", ADA)])
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


def test_the_agent_stays_in_the_foreground_and_is_begun_again_unless_it_ended_well(mac: Mac) -> None:
    job = plistlib.loads(mac.launchd.plist(Placement(COURSE, ADA)))
    assert job["ProgramArguments"][1] == "run"
    assert job["RunAtLoad"] is True
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    # 75, 77 and 78 can't be excepted: at most once a minute, then.
    assert job["ThrottleInterval"] == 60
    assert (job["ProcessType"], job["LowPriorityIO"]) == ("Background", True)
    assert job["Umask"] == 0o077


def test_a_daemon_runs_as_the_student_and_keeps_journals_where_the_student_finds_them(admin: Mac) -> None:
    owner = Owner(501, grp.getgrall()[0].gr_gid, "ada", "/Users/ada")
    job = plistlib.loads(admin.launchd.plist(Placement(COURSE, owner)))
    assert (job["UserName"], job["GroupName"]) == ("ada", grp.getgrall()[0].gr_name)
    states = f"{admin.library}/Application Support/learnpack-agent/501"
    assert job["EnvironmentVariables"] == {"LEARNPACK_AGENT_STATE_DIR": states}
    made = [action.argv for action in admin.launchd.install([Placement(COURSE, owner)]) if isinstance(action, Run)]
    private = ("/usr/bin/install", "-d", "-o", "501", "-g", str(owner.gid), "-m", "0700")
    assert (*private, states) in made
    assert (*private, str(Path(job["StandardErrorPath"]).parent)) in made


def test_an_agent_of_a_user_has_no_user_name(mac: Mac) -> None:
    job = plistlib.loads(mac.launchd.plist(Placement(COURSE, ADA)))
    assert job.keys() & {"UserName", "GroupName", "EnvironmentVariables", "LimitLoadToSessionType"} == set()


@pytest.mark.parametrize(
    ("name", "is_user"), [("learnpack-agent.plist", True), ("learnpack-agent-daemon.plist", False)]
)
def test_the_example_is_what_install_writes(name: str, is_user: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.hosting.launchd._group_of", {20: "staff"}.get)
    library = Path("/Users/ada/Library" if is_user else "/Library")
    written = Mac(library, is_user=is_user).launchd.plist(Placement(COURSE, ADA))
    example = (TOP / "launchd" / name).read_bytes()
    assert re.sub(rb"<!--\n.*?-->\n", b"", example, flags=re.DOTALL) == written
    assert plistlib.loads(example) == plistlib.loads(written)


# --- plans ---


def test_installing_loads_and_enables_and_twice_is_well(mac: Mac) -> None:
    mac.launchctl.disabled.add(TARGET)
    mac.install()
    assert mac.did() == ["install", f"enable {TARGET}", f"bootstrap gui/501 {mac.plist_path()}"]
    mac.install()
    assert mac.did() == ["install", f"kickstart {TARGET}"]


def test_a_changed_property_list_is_loaded_anew_once_the_old_job_is_gone(mac: Mac) -> None:
    mac.install()
    mac.plist_path().write_bytes(b"of an older version")
    mac.did()
    mac.install()
    assert [one.partition(" ")[0] for one in mac.did()] == ["install", "bootout", "sh", "enable", "bootstrap"]


def test_without_a_graphical_session_a_job_is_one_of_the_background(tmp_path: Path) -> None:
    mac = Mac(tmp_path, domains=("user/501",))
    mac.install()
    assert f"user/501/learnpack-agent.{_name_of(COURSE)}" in mac.launchctl.jobs
    assert plistlib.loads(mac.plist_path().read_bytes())["LimitLoadToSessionType"] == "Background"
    # Somebody logs in at the screen: it is found where it is, and moved when it is installed again.
    mac.launchctl.domains.add("gui/501")
    assert [one.state for one in mac.launchd.instances()] == ["running"]
    mac.install()
    assert list(mac.launchctl.jobs) == [TARGET]


def test_uninstalling_leaves_no_job_and_no_property_list(mac: Mac) -> None:
    mac.install()
    mac.launchctl.perform(mac.launchd.uninstall([COURSE]))
    assert (mac.launchctl.jobs, mac.plist_path().exists()) == ({}, False)
    mac.did()
    assert mac.launchd.uninstall([COURSE]) == [Remove(str(mac.plist_path()))]


def test_start_stop_and_restart(mac: Mac) -> None:
    mac.install()
    mac.did()

    def control(verb: Any, courses: list[str] | None = None) -> list[str]:
        mac.launchctl.perform(mac.launchd.control(verb, courses))
        return [" ".join(one.split()[:-1]) for one in mac.did() if one != "sh"]

    assert control("start") == ["kickstart"]
    assert control("restart", [COURSE]) == ["kickstart -k"]
    assert control("stop") == ["bootout"]
    assert mac.launchctl.jobs == {}
    assert control("stop") == []
    assert control("restart") == ["enable", "bootstrap gui/501"]
    with pytest.raises(ManagerError, match="no agent is installed for it"):
        mac.launchd.control("start", ["/Users/ada/other"])


def test_the_wait_for_a_job_ends_when_launchctl_does_not_know_it(mac: Mac, tmp_path: Path) -> None:
    mac.install()
    wait = next(one for one in mac.launchd.control("stop", None) if isinstance(one, Run) and one.argv[0] == "/bin/sh")
    assert wait.argv[-3:] == ("/bin/launchctl", TARGET, "75")

    def waited(answer: str) -> subprocess.CompletedProcess[str]:
        program = tmp_path / "launchctl"
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
        argv = [*wait.argv[:-3], str(program), "gui/501/a b", "2"]
        return subprocess.run(argv, capture_output=True, text=True)

    assert waited('test "$*" = "print gui/501/a b" && exit 113').returncode == 0
    still = waited("exit 0")
    assert (still.returncode, still.stderr) == (1, "gui/501/a b: launchd does not let go of it\n")


def test_whose_agents_may_be_installed(mac: Mac, admin: Mac) -> None:
    with pytest.raises(ManagerError, match="by that user, or by root"):
        mac.launchd.install([Placement("/Users/bob/c", Owner(502, 20, "bob", "/Users/bob"))])
    root = Owner(0, 0, "root", "/var/root")
    with pytest.raises(ManagerError, match="name the student with --user"):
        admin.launchd.install([Placement("/opt/c", root)])
    assert admin.launchd.install([Placement("/opt/c", root, is_chosen=True)])


# --- what there is ---


@pytest.mark.parametrize("is_user", [True, False])
def test_what_is_installed_is_found_again(is_user: bool, tmp_path: Path) -> None:
    mac = Mac(tmp_path, is_user=is_user)
    assert mac.launchd.instances() == []
    for name in sorted(NAMES, reverse=True):
        mac.install(f"/Users/ada/{name}")
    (mac.plist_path().parent / "com.example.other.plist").write_text("not ours")
    found = mac.launchd.instances()
    assert [one.course for one in found] == sorted(f"/Users/ada/{name}" for name in NAMES)
    assert {(one.uid, one.state, one.pid, one.is_chosen) for one in found} == {(501, "running", 1478, False)}
    mac.launchctl.perform(mac.launchd.control("stop", [COURSE]))
    assert [one.course for one in mac.launchd.instances() if one.state == "stopped"] == [COURSE]


def test_that_somebody_chose_the_owner_is_remembered(admin: Mac) -> None:
    admin.launchctl.perform(admin.launchd.install([Placement(COURSE, ADA, is_chosen=True)]))
    assert [one.is_chosen for one in admin.launchd.instances()] == [True]


@pytest.mark.parametrize("content", [b"", b"<plist", plistlib.dumps({"Label": "x"}), plistlib.dumps([])])
def test_a_property_list_that_install_did_not_write_is_named(content: bytes, mac: Mac) -> None:
    mac.install()
    mac.plist_path("/broken").write_bytes(content)
    with pytest.raises(ManagerError, match="remove it") as caught:
        mac.launchd.instances()
    assert str(caught.value).startswith(str(mac.plist_path("/broken")))


def test_the_log_is_the_file_that_launchd_writes(mac: Mac) -> None:
    mac.install()
    mac.install("/Users/ada/other")
    log = plistlib.loads(mac.plist_path().read_bytes())["StandardErrorPath"]
    tail = ["/usr/bin/tail", "-n", "50"]
    assert mac.launchd.log_command(COURSE, follow=False, lines=50) == [*tail, log]
    assert mac.launchd.log_command(None, follow=True, lines=50)[:5] == [*tail, "-F", log]
    assert len(mac.launchd.log_command(None, follow=True, lines=50)) == 6
    with pytest.raises(ManagerError, match="no agent is installed"):
        mac.launchd.log_command("/Users/ada/none", follow=False, lines=1)


@pytest.mark.skipif(sys.platform == "darwin", reason="there is a launchctl")
@pytest.mark.parametrize("do", [lambda launchd: launchd.instances(), lambda launchd: launchd.control("stop", None)])
def test_a_machine_without_launchctl_says_so(do: Callable[[Launchd], object], mac: Mac) -> None:
    mac.install()
    launchd = Launchd(is_user=True, program=PROGRAM, key_of=_name_of, uid=501, library=str(mac.library))
    with pytest.raises(ManagerError, match="/bin/launchctl: No such file or directory"):
        do(launchd)


def test_a_plan_writes_only_what_others_may_not_change(mac: Mac, admin: Mac) -> None:
    for launchd in (mac.launchd, admin.launchd):
        writes = [action for action in launchd.install([Placement(COURSE, ADA)]) if isinstance(action, Write)]
        assert [one.mode for one in writes] == [0o644]
