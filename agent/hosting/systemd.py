"""Agents as units of systemd, of the system's manager (root: any student's course) or of a user's own.

The unit files are those of `systemd/` as they stand; only the program's path is another where it is installed
elsewhere.  What differs from course to course is a drop-in beside the template: whose it is, where it may write.  An
instance is named by the course's path as `systemd-escape --path` writes it, so `%f` in the template is the course.
Where that is too long for a unit's name, the course's key is the instance, and the drop-in names the path.

Where systemd is not the running init (an image is being built), units are enabled and nothing is started.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .actions import run
from .files import PACKAGED, content_of, names_in
from .manager import Action, Instance, ManagerError, Placement, Remove, Run, State, Verb, Write

TEMPLATE = "learnpack-agent@.service"
TARGET = "learnpack-agent.target"
DROP_IN = "50-course.conf"
#: Of a unit, with its suffix (`UNIT_NAME_MAX` of systemd).
_NAME_MAX = 255
#: Before this Linux the kernel tells of processes only who has CAP_NET_ADMIN.
_FREE_EVENTS = (6, 6)
#: The first line of a unit file that no package brought.
_WRITTEN = b"# Written by `learnpack-agent install`.\n"
_NAME = re.compile(r"learnpack-agent@(.+)\.service")
_STATES: dict[str, State] = {"active": "running", "reloading": "running", "activating": "starting", "failed": "failed"}
_CODES = {
    "75": "another agent watches this course",
    "77": "no permission",
    "78": "no such course, or a fault in its learn.json or in the configuration (`learnpack-agent config check`)",
}


class Systemd:
    """`is_user`: the manager of the user who calls.  `program` is the agent's absolute path, `units` the directory of
    the unit files; `ask` runs a command and returns what it prints; the others are for tests."""

    def __init__(
        self,
        *,
        is_user: bool,
        program: str,
        units: str,
        key_of: Callable[[str], str],
        ask: Callable[[Sequence[str]], str] = run,
        etc: str | None = None,
        vendor: Sequence[str] | None = None,
        release: str | None = None,
        is_booted: bool | None = None,
    ) -> None:
        """`key_of` gives a short name that belongs to one path alone."""
        config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        kind = "user" if is_user else "system"
        self._is_user = is_user
        self._program = program
        self._units = os.path.join(units, "user") if is_user else units
        self._key_of = key_of
        self._ask = ask
        self._etc = etc or (os.path.join(config_home, "systemd", "user") if is_user else "/etc/systemd/system")
        self._vendor = vendor if vendor is not None else [f"/usr/lib/systemd/{kind}", f"/lib/systemd/{kind}"]
        self._release = release or platform.release()
        self._is_booted = os.path.isdir("/run/systemd/system") if is_booted is None else is_booted
        self._systemctl = ("systemctl", "--user") if is_user else ("systemctl",)

    @property
    def words(self) -> str:
        return "systemd of this user" if self._is_user else "systemd"

    # --- plans ---

    def install(self, placements: Sequence[Placement]) -> list[Action]:
        actions = self._unit_files()
        units: list[str] = []
        changed: list[str] = []
        for one in placements:
            if one.owner.uid == 0 and not one.is_chosen and not self._is_user:
                raise ManagerError(f"{one.course}: it belongs to root; name the student with --user")
            unit = self.unit_of(one.course)
            drop_in = Write(self._drop_in(unit), self._settings(one).encode())
            units.append(unit)
            if content_of(drop_in.path) != drop_in.content:
                changed.append(unit)
            actions.append(drop_in)
        actions += [*self._reload(), self._do("enable", "--quiet", TARGET, *units)]
        if self._is_booted:
            # Those that failed for good are tried again.  The target alone: it would start what somebody stopped.
            actions.append(self._do("reset-failed", *units, may_fail=True))
            actions.append(self._do("start", "--job-mode=ignore-dependencies", TARGET))
            # One that fails (a torn learn.json) holds up no other; its state tells.
            actions += [self._do("restart", *changed, may_fail=True)] if changed else []
            same = [unit for unit in units if unit not in changed]
            actions += [self._do("start", *same, may_fail=True)] if same else []
        return actions

    def uninstall(self, courses: Sequence[str]) -> list[Action]:
        units = [self.unit_of(course) for course in courses]
        now = ("--now",) if self._is_booted else ()
        actions: list[Action] = [self._do("disable", "--quiet", *now, *units, may_fail=True)]
        for unit in units:
            path = self._drop_in(unit)
            actions += [Remove(path), Remove(os.path.dirname(path))]
        if {one.name for one in self._installed()} <= set(units) and (written := self._left_over()):
            actions.append(self._do("disable", "--quiet", *now, TARGET, may_fail=True))
            actions += map(Remove, written)
        actions += self._reload()
        if self._is_booted:
            actions.append(self._do("reset-failed", *units, may_fail=True))
        return actions

    def _reload(self) -> list[Action]:
        return [self._do("daemon-reload")] if self._is_booted else []

    def _do(self, *words: str, may_fail: bool = False) -> Run:
        return Run((*self._systemctl, *words), may_fail=may_fail)

    def control(self, verb: Verb, courses: Sequence[str] | None) -> list[Action]:
        if courses is None:
            # Each by name, too: systemctl waits for what it is told, not for what a stopped target takes with it.
            instances = self.instances()
            units = [TARGET, *(one.name for one in instances)]
            failed = [one.name for one in instances if one.state == "failed"]
        else:
            failed = units = [self.unit_of(course) for course in courses]
        before: list[Action] = []
        if verb != "stop" and failed:
            before.append(self._do("reset-failed", *failed, may_fail=True))
        return [*before, self._do(verb, *units)]

    # --- what there is ---

    def instances(self) -> list[Instance]:
        found = sorted(self._installed(), key=lambda one: one.course)
        states = self._states([one.name for one in found])
        return [replace(one, **states.get(one.name, {})) for one in found]

    def log_command(self, course: str | None, *, follow: bool, lines: int) -> list[str]:
        unit = "learnpack-agent*" if course is None else self.unit_of(course)
        which = f"--user-unit={unit}" if self._is_user else f"--unit={unit}"
        return ["journalctl", which, f"--lines={lines}", "--no-pager", *(["--follow"] if follow else [])]

    def _installed(self) -> Iterator[Instance]:
        """Those that `install` left, without their state."""
        for name in names_in(self._etc):
            unit = name.removesuffix(".d")
            if unit == name or _NAME.fullmatch(unit) is None:
                continue
            said = dict(re.findall(rb"^(\w+)=(.*)$", content_of(self._drop_in(unit)) or b"", re.MULTILINE))
            if b"Course" in said:
                uid = int(said[b"User"]) if said.get(b"User", b"").isdigit() else os.geteuid()
                course = unescaped(said[b"Course"].decode(errors="replace"))
                yield Instance(course, unit, uid, "stopped", is_chosen=said.get(b"Chosen") == b"yes")

    def _states(self, units: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What an Instance says of its state, by unit."""
        if not units or not self._is_booted:
            return {}
        wanted = "Id,ActiveState,MainPID,StatusText,Result,ExecMainStatus"
        answer = self._ask((*self._systemctl, "show", f"--property={wanted}", *units))
        states: dict[str, dict[str, Any]] = {}
        for block in answer.split("\n\n"):
            said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            state = _STATES.get(said.get("ActiveState", ""), "stopped")
            if state == "stopped" and said.get("Result") == "exec-condition":
                state = "absent"
            detail = said.get("StatusText", "") if state == "running" else ""
            if state == "failed":
                code = said.get("ExecMainStatus", "")
                detail = _CODES.get(code, f"{said.get('Result', '')}, exit code {code}")
            pid = int(said.get("MainPID") or 0) or None
            states[said.get("Id", "")] = {"state": state, "pid": pid, "detail": detail}
        return states

    # --- files ---

    def unit_of(self, course: str) -> str:
        unit = f"learnpack-agent@{escaped(course)}.service"
        if len(unit) <= _NAME_MAX - len(".d"):
            return unit
        return f"learnpack-agent@{escaped('/' + self._key_of(course))}.service"

    def _drop_in(self, unit: str) -> str:
        return os.path.join(self._etc, f"{unit}.d", DROP_IN)

    def _settings(self, placement: Placement) -> str:
        course, owner = placement.course, placement.owner
        lines = ["# Written by `learnpack-agent install`; `uninstall` removes it."]
        is_short = self.unit_of(course) == f"learnpack-agent@{escaped(course)}.service"
        service: list[str] = []
        if not is_short:
            lines += ["[Unit]", f"Description=LearnPack agent {self._key_of(course)}"]
            lines += [f"RequiresMountsFor={_listed(_sayable(course))}"]
        if not is_short or "$" in course:  # for systemd a variable, also in what %f stands for
            word = quoted(course)
            service += ["ExecCondition=", f"ExecCondition=/usr/bin/test -d {word}"]
            service += ["ExecStart=", f"ExecStart={quoted(self._program, is_program=True)} run {word}"]
        if not self._is_user:
            service += [f"User={owner.uid}", f"StateDirectory=learnpack-agent/{owner.uid}", "StateDirectoryMode=0700"]
            service += self._reach(course)
            if _version(self._release) < _FREE_EVENTS:
                service += ["CapabilityBoundingSet=CAP_NET_ADMIN", "AmbientCapabilities=CAP_NET_ADMIN"]
        if service:
            lines += ["[Service]", *service]
        # Of no concern to systemd (`X-`): what `uninstall` and `discover` must know.
        lines += ["[X-LearnPack]", f"Course={escaped(course)}", f"Chosen={'yes' if placement.is_chosen else 'no'}", ""]
        return "\n".join(lines)

    def _reach(self, course: str) -> list[str]:
        """Where the template's view of the files would not let the agent work."""
        top = "/" + course.split("/")[1]
        if top == "/home":
            return []
        if top in ("/root", "/run"):
            return ["ProtectHome=no", f"ReadWritePaths=-{top}"]
        if top in (course, "/") or _sayable(top) != top:
            return ["ProtectSystem=full"]  # to mount the course itself would pin its inode
        return [f"ReadWritePaths=-{_listed(top)}"]

    def _unit_files(self) -> list[Action]:
        """What a package did not bring, or brought with another program."""
        if not self._program.isprintable() or set(self._program) & set("\"'\\"):
            raise ManagerError(f"{self._program}: systemd starts no program whose path has such letters in it")
        actions: list[Action] = []
        try:
            names = sorted(name for name in os.listdir(self._units) if name.startswith("learnpack-agent"))
        except OSError as error:
            raise ManagerError(f"the unit files are not there: {self._units}: {error.strerror}") from None
        for name in names:
            content = content_of(path := os.path.join(self._units, name))
            if content is None:
                raise ManagerError(f"{path}: can't be read")
            written = os.path.join(self._etc, name)
            if self._program == PACKAGED and any(
                os.path.exists(os.path.join(directory, name)) for directory in self._vendor
            ):
                if _is_written(written):  # before there was a package; it would win
                    actions.append(Remove(written))
                continue
            program = quoted(self._program, is_program=True).encode()
            content = re.sub(
                rb"(?m)^(Exec\w+=)" + re.escape(PACKAGED.encode()), rb"\1" + program.replace(b"\\", rb"\\"), content
            )
            actions.append(Write(written, _WRITTEN + content))
        return actions

    def _left_over(self) -> list[str]:
        """The unit files that `install` wrote, unless somebody enabled one beside the target (a timer)."""
        names = names_in(self._etc)
        wants = [os.path.join(self._etc, name) for name in names if name.endswith(".wants")]
        enabled = {name for directory in wants for name in names_in(directory)}
        written = {name: os.path.join(self._etc, name) for name in names if name.startswith("learnpack-agent")}
        written = {name: path for name, path in written.items() if _is_written(path)}
        return [] if (enabled & written.keys()) - {TARGET} else list(written.values())


def _is_written(path: str) -> bool:
    """Whether `install` wrote this unit file."""
    return (content_of(path) or b"").startswith(_WRITTEN)


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def escaped(path: str) -> str:
    """An absolute path as systemd names units for it (systemd.unit(5), "String Escaping")."""
    words = "/".join(part for part in path.split("/") if part)
    if not words:
        return "-"
    letters = (
        "-"
        if byte == ord("/")
        else chr(byte)
        if chr(byte) in _PLAIN and not (number == 0 and byte == ord("."))
        else f"\\x{byte:02x}"
        for number, byte in enumerate(os.fsencode(words))
    )
    return "".join(letters)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")


def unescaped(name: str) -> str:
    """The path that `escaped` made this of."""
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), name.encode().replace(b"-", b"/"))
    return "/" + os.fsdecode(raw).strip("/")


def quoted(text: str, *, is_program: bool = False) -> str:
    """One word of a command as it is: no space ends it, no specifier and no variable is in it.  In the path of the
    program itself systemd looks for no variables."""
    raw = os.fsencode(text).replace(b"%", b"%%")
    raw = raw if is_program else raw.replace(b"$", b"$$")
    if re.fullmatch(rb"[\w/.:@+-]+", raw):
        return raw.decode()
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in raw) + '"'


def _listed(path: str) -> str:
    """One path of a list of paths, in which systemd knows no `\\x20`."""
    return '"' + path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _sayable(path: str) -> str:
    """The path, or the nearest directory above it that can stand in a list of paths: no line ends in its name."""
    while not path.isprintable():
        path = os.path.dirname(path)
    return path
