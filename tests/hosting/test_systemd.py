"""systemd: the plans as data, the unit files as systemd itself reads them, the names that courses have.

That agents work in them is tested in tests/machine, with a real systemd as PID 1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.hosting.actions import perform
from agent.hosting.files import PACKAGED
from agent.hosting.manager import Action, Instance, ManagerError, Owner, Placement, Remove, Run, Write
from agent.hosting.systemd import DROP_IN, Systemd, escaped, quoted, unescaped
from agent.machine import _name_of
from tests.users import open_the_way_to

TOP = Path(__file__).parents[2]
UNITS = TOP / "systemd"
ADA = Owner(1000, 1000, "ada", "/home/ada")
ROOT = Owner(0, 0, "root", "/root")
PROGRAM = "/opt/agent/bin/learnpack-agent"
COURSE = "/home/ada/my-course"
UNIT = r"learnpack-agent@home-ada-my\x2dcourse.service"
TARGET = "learnpack-agent.target"

#: The longest name that a file can have, in bytes.
NAME_MAX = 255

ODD_NAMES = (
    "a b",
    "-rf",
    "ünï",
    "50%",
    "50%$HOME",
    "${HOME}",
    "a$$b",
    "%h",
    "q\"q'q",
    "back\\slash",
    "tab\there",
    "new\nline",
    "return\rhere",
    os.fsdecode(b"n\xffn"),
    ".hidden",
    "a-b_c:d.e@f",
    "[x]*?",
    "x" * 200,
    "x" * NAME_MAX,
    "-" * NAME_MAX,
    "ü" * (NAME_MAX // 2),
    '%$"\\' * (NAME_MAX // 4),
    "y\n" * (NAME_MAX // 2),
)


class Desk:
    """A machine's directories of unit files, and what its systemd would answer."""

    def __init__(self, directory: Path) -> None:
        self.etc = directory / "etc"
        self.vendor = directory / "vendor"
        self.etc.mkdir()
        self.vendor.mkdir()
        self.answer = ""
        self.asked: list[Sequence[str]] = []

    def manager(self, *, is_user: bool = False, **more: Any) -> Systemd:
        facts: dict[str, Any] = {"program": PROGRAM, "units": str(UNITS), "release": "6.18.5", "is_booted": True}
        return Systemd(
            is_user=is_user,
            key_of=_name_of,
            ask=self._ask,
            etc=str(self.etc),
            vendor=[str(self.vendor)],
            **(facts | more),
        )

    def _ask(self, argv: Sequence[str]) -> str:
        self.asked.append(argv)
        return self.answer

    def written(self, actions: Sequence[Action]) -> None:
        """What the plan writes and removes is done; nobody is told."""
        perform(action for action in actions if not isinstance(action, Run))

    def install(self, *placements: Placement, **more: Any) -> None:
        self.written(self.manager(**more).install(placements))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def told(desk: Desk, actions: Sequence[Action]) -> list[str]:
    """A plan in words: files by their paths below the directory of units."""
    lines: list[str] = []
    for action in actions:
        match action:
            case Write():
                assert action.mode == 0o644
                lines.append(f"write {os.path.relpath(action.path, desk.etc)}")
            case Remove():
                lines.append(f"remove {os.path.relpath(action.path, desk.etc)}")
            case Run():
                lines.append(" ".join(action.argv) + (" or not" if action.may_fail else ""))
    return lines


def drop_in(desk: Desk, placement: Placement, **more: Any) -> list[str]:
    """The lines of the course's own file."""
    actions = desk.manager(**more).install([placement])
    (content,) = (one.content for one in actions if isinstance(one, Write) and one.path.endswith(f"/{DROP_IN}"))
    return content.decode().splitlines()


# --- plans ---

ALL_UNITS = [
    "write learnpack-agent-discover.service",
    "write learnpack-agent-discover.timer",
    "write learnpack-agent-metrics.service",
    "write learnpack-agent-metrics.timer",
    "write learnpack-agent.target",
    "write learnpack-agent@.service",
]


def test_to_install_is_to_write_what_differs_to_enable_and_to_start_it(desk: Desk) -> None:
    assert told(desk, desk.manager().install([Placement(COURSE, ADA)])) == [
        *ALL_UNITS,
        f"write {UNIT}.d/50-course.conf",
        "systemctl daemon-reload",
        f"systemctl enable --quiet {TARGET} {UNIT}",
        f"systemctl reset-failed {UNIT} or not",
        f"systemctl start --job-mode=ignore-dependencies {TARGET}",
        f"systemctl restart {UNIT} or not",
    ]


def test_a_user_installs_in_the_own_manager_and_needs_not_say_who_it_runs_as(desk: Desk) -> None:
    manager = desk.manager(is_user=True)
    assert told(desk, manager.install([Placement(COURSE, ADA)])) == [
        "write learnpack-agent.target",
        "write learnpack-agent@.service",
        f"write {UNIT}.d/50-course.conf",
        "systemctl --user daemon-reload",
        f"systemctl --user enable --quiet {TARGET} {UNIT}",
        f"systemctl --user reset-failed {UNIT} or not",
        f"systemctl --user start --job-mode=ignore-dependencies {TARGET}",
        f"systemctl --user restart {UNIT} or not",
    ]
    assert drop_in(desk, Placement(COURSE, ADA), is_user=True) == [
        "# Written by `learnpack-agent install`; `uninstall` removes it.",
        "[X-LearnPack]",
        r"Course=home-ada-my\x2dcourse",
        "Chosen=no",
    ]


def test_in_an_image_that_is_being_built_nothing_is_started(desk: Desk) -> None:
    manager = desk.manager(is_booted=False)
    assert told(desk, manager.install([Placement(COURSE, ADA)]))[len(ALL_UNITS) + 1 :] == [
        f"systemctl enable --quiet {TARGET} {UNIT}"
    ]
    assert told(desk, manager.uninstall([COURSE]))[:1] == [f"systemctl disable --quiet {UNIT} or not"]
    assert not any(isinstance(one, Run) for one in manager.uninstall([COURSE])[1:])


def test_what_runs_as_it_should_is_left_alone_and_what_is_another_now_begins_anew(desk: Desk) -> None:
    other = "/home/ada/other"
    desk.install(Placement(COURSE, ADA), Placement(other, ADA))
    bob = Owner(1001, 1001, "bob", "/home/bob")
    plan = told(desk, desk.manager().install([Placement(COURSE, ADA), Placement(other, bob)]))
    assert plan[-2:] == [
        "systemctl restart learnpack-agent@home-ada-other.service or not",
        f"systemctl start {UNIT} or not",
    ]


def test_to_uninstall_is_to_stop_it_and_to_leave_nothing(desk: Desk) -> None:
    assert told(desk, desk.manager().uninstall([COURSE])) == [
        f"systemctl disable --quiet --now {UNIT} or not",
        f"remove {UNIT}.d/50-course.conf",
        f"remove {UNIT}.d",
        "systemctl daemon-reload",
        f"systemctl reset-failed {UNIT} or not",
    ]
    desk.install(Placement(COURSE, ADA))
    desk.written(desk.manager().uninstall([COURSE]))
    assert list(desk.etc.iterdir()) == []


def test_the_last_agent_takes_the_unit_files_with_it(desk: Desk) -> None:
    other, own = "/home/ada/other", desk.etc / "learnpack-agent-own.service"
    own.write_text("[Service]\nExecStart=/bin/true\n")
    desk.install(Placement(COURSE, ADA), Placement(other, ADA))
    desk.written(desk.manager().uninstall([COURSE]))
    assert (desk.etc / TARGET).exists()
    plan = desk.manager().uninstall([other])
    removed = [line.replace("write", "remove") for line in ALL_UNITS]
    assert told(desk, plan)[3:-2] == [f"systemctl disable --quiet --now {TARGET} or not", *removed]
    desk.written(plan)
    assert list(desk.etc.iterdir()) == [own]


def test_a_timer_that_somebody_enabled_keeps_the_unit_files(desk: Desk) -> None:
    desk.install(Placement(COURSE, ADA))
    for directory, name in (
        ("multi-user.target.wants", TARGET),
        ("timers.target.wants", "learnpack-agent-discover.timer"),
    ):
        (desk.etc / directory).mkdir()
        (desk.etc / directory / name).symlink_to(desk.etc / name)
    desk.written(desk.manager().uninstall([COURSE]))
    assert desk.manager().instances() == []
    assert {f"write {name}" for name in os.listdir(desk.etc)} >= set(ALL_UNITS)


def test_an_admins_own_settings_for_a_course_outlive_its_agent(desk: Desk) -> None:
    desk.install(Placement(COURSE, ADA))
    own = desk.etc / f"{UNIT}.d" / "override.conf"
    own.write_text("[Service]\nCPUWeight=1\n")
    desk.written(desk.manager().uninstall([COURSE]))
    assert own.exists()
    assert desk.manager().instances() == []


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_some_agents_are_told_by_name_and_all_by_the_target(desk: Desk, verb: Any) -> None:
    before = [] if verb == "stop" else [f"systemctl reset-failed {UNIT} or not"]
    assert told(desk, desk.manager().control(verb, [COURSE])) == [*before, f"systemctl {verb} {UNIT}"]
    assert told(desk, desk.manager().control(verb, None)) == [f"systemctl {verb} {TARGET}"]


def test_those_that_failed_for_good_are_tried_again_with_all_the_others(desk: Desk) -> None:
    desk.install(Placement(COURSE, ADA), Placement("/home/ada/other", ADA))
    desk.answer = f"Id={UNIT}\nActiveState=failed\n"
    assert told(desk, desk.manager().control("start", None)) == [
        f"systemctl reset-failed {UNIT} or not",
        f"systemctl start {TARGET} {UNIT} learnpack-agent@home-ada-other.service",
    ]


def test_a_course_of_root_needs_a_student_who_is_named(desk: Desk) -> None:
    with pytest.raises(ManagerError, match="--user"):
        desk.manager().install([Placement(COURSE, ROOT)])
    assert "User=0" in drop_in(desk, Placement(COURSE, ROOT, is_chosen=True))
    assert desk.manager(is_user=True).install([Placement(COURSE, ROOT)])  # in a container everybody is


@pytest.mark.parametrize(
    ("is_user", "course", "argv"),
    [
        (False, COURSE, ["journalctl", f"--unit={UNIT}", "--lines=7", "--no-pager"]),
        (False, None, ["journalctl", "--unit=learnpack-agent*", "--lines=7", "--no-pager", "--follow"]),
        (True, COURSE, ["journalctl", f"--user-unit={UNIT}", "--lines=7", "--no-pager"]),
    ],
)
def test_what_agents_said_is_in_the_journal_of_systemd(
    desk: Desk, is_user: bool, course: str | None, argv: list[str]
) -> None:
    assert desk.manager(is_user=is_user).log_command(course, follow=course is None, lines=7) == argv


# --- unit files ---


def test_what_a_package_brought_is_not_written_again(desk: Desk) -> None:
    for unit in UNITS.glob("learnpack-agent*"):
        shutil.copy(unit, desk.vendor)
    plan = told(desk, desk.manager(program=PACKAGED).install([Placement(COURSE, ADA)]))
    assert plan[0] == f"write {UNIT}.d/50-course.conf"
    assert told(desk, desk.manager().install([Placement(COURSE, ADA)]))[: len(ALL_UNITS)] == ALL_UNITS


def test_a_package_takes_the_place_of_what_was_written_before_it_came(desk: Desk) -> None:
    desk.install(Placement(COURSE, ADA))
    for unit in UNITS.glob("learnpack-agent*"):
        shutil.copy(unit, desk.vendor)
    admins = desk.etc / "learnpack-agent.target"
    admins.write_text("[Unit]\nDescription=An admin's own\n")
    desk.install(Placement(COURSE, ADA), program=PACKAGED)
    assert sorted(path.name for path in desk.etc.glob("learnpack-agent*") if path.is_file()) == [admins.name]


def test_the_packaged_program_is_started_as_the_files_say_where_no_package_brought_them(desk: Desk) -> None:
    desk.install(Placement(COURSE, ADA), program=PACKAGED)
    for name in os.listdir(desk.etc):
        if (desk.etc / name).is_file():
            assert (desk.etc / name).read_bytes().partition(b"\n")[2] == (UNITS / name).read_bytes()


@pytest.mark.parametrize(
    ("program", "word"),
    [
        (PROGRAM, PROGRAM),
        ("/opt/a b/learnpack-agent", '"/opt/a b/learnpack-agent"'),
        ("/opt/5%$x/learnpack-agent", '"/opt/5%%$x/learnpack-agent"'),
        ("/opt/ü/learnpack-agent", r'"/opt/\xc3\xbc/learnpack-agent"'),
    ],
)
def test_another_programs_path_takes_the_place_of_the_packaged_one(desk: Desk, program: str, word: str) -> None:
    desk.install(Placement(COURSE, ADA), program=program)
    lines = (desk.etc / "learnpack-agent@.service").read_text().splitlines()
    assert f"ExecStart={word} run %f" in lines
    assert "ExecCondition=/usr/bin/test -d %f" in lines
    written = "".join(path.read_text() for path in desk.etc.glob("learnpack-agent*") if path.is_file())
    assert PACKAGED not in written


@pytest.mark.parametrize("program", ["/opt/a\nb/x", "/opt/a\\b/x", '/opt/"a"/x', "/opt/o'a/x"])
def test_a_program_that_systemd_would_not_start_is_not_installed(desk: Desk, program: str) -> None:
    with pytest.raises(ManagerError, match="systemd starts no program"):
        desk.manager(program=program).install([Placement(COURSE, ADA)])


def test_unit_files_that_are_not_there_or_can_not_be_read_are_an_error(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(ManagerError, match="not there"):
        desk.manager(units=str(tmp_path / "nowhere")).install([])
    units = tmp_path / "units"
    units.mkdir()
    (units / "learnpack-agent.target").symlink_to("nowhere")
    with pytest.raises(ManagerError, match=r"learnpack-agent\.target: can't be read"):
        desk.manager(units=str(units)).install([])


def test_the_drop_in_says_whose_it_is_and_where_records_lie(desk: Desk) -> None:
    assert drop_in(desk, Placement(COURSE, ADA, is_chosen=True)) == [
        "# Written by `learnpack-agent install`; `uninstall` removes it.",
        "[Service]",
        "User=1000",
        "StateDirectory=learnpack-agent/1000",
        "StateDirectoryMode=0700",
        "[X-LearnPack]",
        r"Course=home-ada-my\x2dcourse",
        "Chosen=yes",
    ]


@pytest.mark.parametrize(
    ("release", "has_it"),
    [
        ("4.19.0-27-amd64", True),
        ("6.1.0-18-amd64", True),
        ("6.5.13", True),
        ("6.6.0", False),
        ("6.10.2-arch1", False),
        ("7.0", False),
    ],
)
def test_only_a_kernel_that_asks_for_it_gets_cap_net_admin(desk: Desk, release: str, has_it: bool) -> None:
    lines = drop_in(desk, Placement(COURSE, ADA), release=release)
    assert ("CapabilityBoundingSet=CAP_NET_ADMIN" in lines) is has_it
    assert ("AmbientCapabilities=CAP_NET_ADMIN" in lines) is has_it
    assert "CapabilityBoundingSet" not in "".join(drop_in(desk, Placement(COURSE, ADA), release=release, is_user=True))


@pytest.mark.parametrize(
    ("course", "lines"),
    [
        ("/home/ada/c", []),
        ("/srv/courses/c", ['ReadWritePaths=-"/srv"']),
        ('/5% "of" \\it/c', ['ReadWritePaths=-"/5%% \\"of\\" \\\\it"']),
        ("/root/c", ["ProtectHome=no", "ReadWritePaths=-/root"]),
        ("/run/user/1000/c", ["ProtectHome=no", "ReadWritePaths=-/run"]),
        ("/course", ["ProtectSystem=full"]),
        ("/new\nline/course", ["ProtectSystem=full"]),
        ("/", ["ProtectSystem=full"]),
        ("/homely/c", ['ReadWritePaths=-"/homely"']),
    ],
)
def test_wherever_a_course_lies_its_agent_reaches_it(desk: Desk, course: str, lines: list[str]) -> None:
    written = drop_in(desk, Placement(course, ADA))
    assert [one for one in written if one.startswith(("Protect", "ReadWrite"))] == lines


# --- what there is ---


@pytest.mark.parametrize(
    ("answer", "state", "pid", "detail"),
    [
        ({"ActiveState": "active", "MainPID": "7", "StatusText": "watching 3 steps"}, "running", 7, "watching 3 steps"),
        ({"ActiveState": "reloading", "MainPID": "7"}, "running", 7, ""),
        ({"ActiveState": "activating", "MainPID": "7", "StatusText": "x"}, "starting", 7, ""),
        ({"ActiveState": "activating", "SubState": "auto-restart", "MainPID": "0"}, "starting", None, ""),
        ({"ActiveState": "inactive", "MainPID": "0", "Result": "success"}, "stopped", None, ""),
        ({"ActiveState": "deactivating", "MainPID": "7"}, "stopped", 7, ""),
        ({"ActiveState": "inactive", "MainPID": "0", "Result": "exec-condition"}, "absent", None, ""),
        (
            {"ActiveState": "failed", "MainPID": "0", "Result": "exit-code", "ExecMainStatus": "77"},
            "failed",
            None,
            "no permission",
        ),
        (
            {"ActiveState": "failed", "MainPID": "0", "Result": "watchdog", "ExecMainStatus": "6"},
            "failed",
            None,
            "watchdog, exit code 6",
        ),
        ({}, "stopped", None, ""),
    ],
)
def test_each_state_is_read_from_what_systemd_shows(
    desk: Desk, answer: dict[str, str], state: str, pid: int | None, detail: str
) -> None:
    desk.install(Placement(COURSE, ADA))
    desk.answer = "".join(f"{key}={value}\n" for key, value in {"Id": UNIT, **answer}.items())
    assert desk.manager().instances() == [Instance(COURSE, UNIT, 1000, state, pid, detail)]  # type: ignore[arg-type]


def test_many_are_asked_about_at_once(desk: Desk) -> None:
    courses = [f"/home/ada/{number}" for number in range(3)]
    desk.install(*(Placement(course, ADA) for course in reversed(courses)))
    units = [f"learnpack-agent@home-ada-{number}.service" for number in range(3)]
    desk.answer = "\n".join(
        f"MainPID={number + 10}\nActiveState=active\nStatusText=a=b\nId={unit}\n" for number, unit in enumerate(units)
    )
    assert [(one.course, one.pid, one.detail) for one in desk.manager().instances()] == [
        (course, number + 10, "a=b") for number, course in enumerate(courses)
    ]
    ((*_, first, second, third),) = desk.asked
    assert [first, second, third] == units


def test_every_exit_code_that_is_not_tried_again_has_words(desk: Desk) -> None:
    codes = re.findall(r"(?m)^RestartPreventExitStatus=(.*)$", (UNITS / "learnpack-agent@.service").read_text())[0]
    desk.install(Placement(COURSE, ADA))
    for code in codes.split():
        desk.answer = f"Id={UNIT}\nActiveState=failed\nExecMainStatus={code}\n"
        (one,) = desk.manager().instances()
        assert one.detail and code not in one.detail.split("`")[0]


def test_where_systemd_does_not_run_nobody_is_asked_and_all_are_stopped(desk: Desk) -> None:
    desk.install(Placement(COURSE, ADA))
    (one,) = desk.manager(is_booted=False).instances()
    assert (one.state, desk.asked) == ("stopped", [])


def test_a_machine_without_agents_has_none(desk: Desk) -> None:
    assert desk.manager().instances() == []
    desk.etc.rmdir()
    assert desk.manager().instances() == []
    assert desk.asked == []


def test_what_somebody_else_left_beside_the_units_is_no_agent(desk: Desk) -> None:
    for name in ("learnpack-agent@.service.d", "learnpack-agent@home-x.service.d", "other@home-ada.service.d", "x.d"):
        (desk.etc / name).mkdir()
        (desk.etc / name / "override.conf").write_text("[X-LearnPack]\nCourse=home-ada\n")
    (desk.etc / "learnpack-agent@home-y.service").write_text("[X-LearnPack]\nCourse=home-ada\n")
    assert desk.manager().instances() == []


def test_a_drop_in_of_another_tool_says_at_least_which_course_it_is_of(desk: Desk) -> None:
    (desk.etc / f"{UNIT}.d").mkdir()
    (desk.etc / f"{UNIT}.d" / DROP_IN).write_bytes(b"[Service]\nUser=ada\n[X-LearnPack]\nCourse=home-\xff\n")
    (one,) = desk.manager(is_booted=False).instances()
    assert (one.uid, one.is_chosen, one.course) == (os.geteuid(), False, "/home/\ufffd")


def test_a_directory_that_can_not_be_listed_is_an_error(desk: Desk) -> None:
    desk.etc.rmdir()
    desk.etc.write_text("")
    with pytest.raises(ManagerError, match="Not a directory"):
        desk.manager().instances()


# --- names ---

paths = st.lists(
    st.binary(min_size=1, max_size=20).filter(lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")),
    max_size=4,
).map(lambda names: os.fsdecode(b"/" + b"/".join(names)))


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="no systemd-escape on this machine")
@given(paths)
@example("/")
@example("/.hidden/.x")
@example("/home/ada/a b-c\\x20ü%\n")
@settings(deadline=None, database=None, max_examples=150)
def test_names_are_escaped_as_systemd_does_it(path: str) -> None:
    done = subprocess.run(["systemd-escape", "--path", "--", path], capture_output=True, check=True)
    assert os.fsdecode(done.stdout).removesuffix("\n") == escaped(path)


@given(paths)
@settings(deadline=None, database=None)
def test_what_is_escaped_comes_back(path: str) -> None:
    assert unescaped(escaped(path)) == path


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_course_of_any_name_is_found_again_under_a_name_that_systemd_takes(desk: Desk, name: str) -> None:
    course = f"/home/ada/{name}"
    desk.install(Placement(course, ADA))
    (one,) = desk.manager(is_booted=False).instances()
    assert one.course == course
    assert len(f"{one.name}.d") <= NAME_MAX
    assert one.name == desk.manager().unit_of(course)


def test_long_names_that_differ_are_different_agents(desk: Desk) -> None:
    unit_of = desk.manager().unit_of
    # The checksum in a state directory's name is the same for both: a student can make such a pair in a second.
    one, other = (f"/home/ada/{'x' * 200}/{name}" for name in ("plumless", "buckeroo"))
    assert unit_of(one) != unit_of(other)
    assert unit_of(f"/home/ada/{'x' * 250}") != unit_of(f"/home/bob/{'x' * 250}")


# --- as systemd itself reads it ---


class Reader:
    """systemd, asked what it makes of the unit files in a directory; nothing is started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = next(
            (path for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if os.access(path, os.X_OK)), None
        )

    def read(self, units: Path, wanted: Sequence[str]) -> dict[str, dict[str, list[str]]]:
        """Of each unit what it has of each key, as systemd shows it."""
        (self._directory / "runtime").mkdir(mode=0o700, exist_ok=True)
        wants = units / "default.target.wants"
        wants.mkdir()
        (units / "default.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for unit in wanted:
            (wants / unit).symlink_to(units / "learnpack-agent@.service")
        environment = {"SYSTEMD_UNIT_PATH": str(units), "HOME": str(self._directory), "PATH": os.environ["PATH"]}
        environment |= {"XDG_RUNTIME_DIR": str(self._directory / "runtime"), "SYSTEMD_LOG_LEVEL": "err"}
        command = [str(self._program), "--test", "--user", "--unit=default.target"]
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # which it refuses to be
            os.chown(self._directory / "runtime", 1500, 1500)
            for path in (self._directory, units):
                open_the_way_to(path)
            user = {"user": 1500, "group": 1500, "extra_groups": []}
        done = subprocess.run(command, env=environment, capture_output=True, check=False, cwd="/", **user)
        if b"-> Unit default.target" not in done.stdout:
            pytest.skip(f"systemd tests nothing here: {os.fsdecode(done.stderr)[-300:]}")
        found: dict[str, dict[str, list[str]]] = {}
        keys: dict[str, list[str]] = {}
        for line in os.fsdecode(done.stdout).split("\n"):
            if (begin := re.match(r"\s*-> Unit (.*):", line)) is not None:
                keys = found.setdefault(begin[1], {})
            elif (pair := re.match(r"\s*([A-Z][A-Za-z ]*): (.*)", line)) is not None:
                keys.setdefault(pair[1], []).append(pair[2])
        return found


@pytest.fixture
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    if not any(os.access(path, os.X_OK) for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")):
        pytest.skip("no systemd on this machine")
    return Reader(tmp_path_factory.mktemp("reader"))


_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}


def words(line: str) -> list[str]:
    """A command as systemd shows it, which is as a shell would take it, to the words that the program gets."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', line)
    letters = re.compile(r"\\([0-7]{3}|.)")

    def letter(escape: re.Match[str]) -> str:
        if len(escape[1]) == 3:
            return os.fsdecode(bytes([int(escape[1], 8)]))
        return _LETTERS.get(escape[1], escape[1])

    # What stands in quotes are bytes: two of them may be one letter.
    quoted = (os.fsdecode(os.fsencode(letters.sub(letter, one or other))) for one, other in found)
    return [as_argument(word) for word in quoted]


def as_argument(word: str) -> str:
    """What the program gets: `$$` is a dollar, and `${X}` a variable, which is empty."""
    return re.sub(r"\$(\$|\{\w*\})", lambda found: "$" if found[1] == "$" else "", word)


def test_systemd_starts_the_agent_with_the_courses_very_name(desk: Desk, reader: Reader) -> None:
    program = "/opt/5% $x ${y}/learnpack-agent"
    places = {
        desk.manager().unit_of(course): course
        for course in [*(f"/home/ada/{name}" for name in ODD_NAMES), "/srv/x y/c", "/c d", '/ünï %\\/"c"', "/r\nt/c"]
    }
    desk.install(*(Placement(course, ADA) for course in places.values()), program=program)
    read = reader.read(desk.etc, list(places))
    for unit, course in places.items():
        condition, start = (words(line) for line in read[unit]["Command Line"][:2])
        assert condition == ["/usr/bin/test", "-d", course]
        assert start == [as_argument(program), "run", course]  # its name; its path has no variables for systemd
        assert read[unit]["Unit Load State"] == ["loaded"]
        if course.isprintable():
            assert f"{course} (origin-file)" in read[unit]["RequiresMountsFor"]
        top = "/" + course.split("/")[1]
        if top == "/home":
            assert read[unit]["ReadWritePaths"] == ["-/tmp -/var/tmp"]
        elif course == top or not top.isprintable():
            assert read[unit]["ProtectSystem"] == ["full"]
        else:
            assert read[unit]["ReadWritePaths"] == [f"-/tmp -/var/tmp -{top}"]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
@settings(deadline=None, database=None)
def test_a_quoted_word_has_no_letter_that_means_something_to_systemd(text: str) -> None:
    word = quoted(text)
    assert word.isascii() and word.isprintable()
    assert re.fullmatch(r'"([^"\\]|\\x[0-9a-f]{2})*"|[\w/.:@+-]+', word)
    inner = word.removeprefix('"').removesuffix('"').replace("%%", "%").replace("$$", "$").encode()
    raw = re.sub(rb"\\x(..)", lambda found: bytes([int(found[1], 16)]), inner)
    assert raw == text.encode()


def analyze(*arguments: str, units: Path) -> subprocess.CompletedProcess[str]:
    """As systemd-analyze sees these unit files, and no other."""
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "XDG_RUNTIME_DIR": str(units.parent)}
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, env=environment, check=False
    )


needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "bin $x 5%" / "learnpack-agent"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@needs_analyze
@pytest.mark.parametrize("is_user", [False, True])
def test_systemd_finds_no_fault_in_any_unit_with_its_drop_in(desk: Desk, program: str, is_user: bool) -> None:
    # A colon would be taken for an alias here, and what is not UTF-8 can't be printed.
    courses = [f"/home/ada/{name}" for name in ODD_NAMES if ":" not in name and os.fsencode(name).isascii()]
    placements = [Placement(course, ADA) for course in [*courses, "/srv/x y/c", "/c d"]]
    desk.install(*placements, is_user=is_user, program=program, release="6.1")
    units = [desk.manager().unit_of(one.course) for one in placements]
    units += [path.name for path in desk.etc.iterdir() if path.is_file() and "@" not in path.name]
    scope = ["--user"] if is_user else []
    done = analyze(*scope, "verify", "--man=no", *(str(desk.etc / unit) for unit in units), units=desk.etc)
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
@pytest.mark.parametrize(("course", "limit"), [(COURSE, 1.5), ("/srv/courses/c", 1.5)])
def test_the_agent_is_exposed_as_little_as_was_promised(
    desk: Desk, capsys: pytest.CaptureFixture[str], course: str, limit: float
) -> None:
    desk.install(Placement(course, ADA))
    unit = desk.manager().unit_of(course)
    done = analyze("security", "--offline=yes", "--json=short", unit, units=desk.etc)
    if done.returncode and "offline" in done.stderr:
        pytest.skip("systemd before 250 can't say it of files")
    whole = analyze("security", "--offline=yes", unit, units=desk.etc).stdout
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", whole)
    assert found is not None, whole
    worst = sorted(json.loads(done.stdout), key=lambda row: -float(row["exposure"] or 0))[:5]
    with capsys.disabled():
        print(f"\nsystemd-analyze security {unit}: {found[1]} (most: {', '.join(row['name'] for row in worst)})")
    assert float(found[1]) <= limit


# --- what must hold in the unit files whatever the machine has ---


def settings_of(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"(?m)^(\w+)=(.*)$", (UNITS / name).read_text()):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", ["learnpack-agent@.service", "user/learnpack-agent@.service"])
def test_the_unit_runs_the_agent_in_the_foreground_and_waits_for_ready(name: str) -> None:
    unit = settings_of(name)
    assert unit["Type"] == ["notify"]
    assert unit["ExecStart"] == [f"{PACKAGED} run %f"]
    assert unit["RestartPreventExitStatus"] == ["75 77 78"]
    assert unit["RestartKillSignal"] == ["SIGUSR2"]
    assert float(unit["WatchdogSec"][0]) > 0


def test_a_users_unit_keeps_every_promise_of_the_systems_that_it_can() -> None:
    """What is left out needs name spaces, as the file says: a difference is meant."""
    system, user = settings_of("learnpack-agent@.service"), settings_of("user/learnpack-agent@.service")
    assert not {key for key in user if user[key] != system.get(key)}
    left_out = {key for key in system if key not in user}
    assert left_out == {
        *("RequiresMountsFor", "After", "CapabilityBoundingSet", "AmbientCapabilities", "KeyringMode", "RemoveIPC"),
        *("ProtectSystem", "ProtectHome", "BindPaths", "ReadWritePaths", "PrivateTmp", "PrivateDevices"),
        *("PrivateMounts", "ProtectProc", "ProcSubset", "ProtectClock", "ProtectControlGroups", "ProtectHostname"),
        *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
    }
