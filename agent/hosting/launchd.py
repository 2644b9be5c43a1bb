"""Agents as jobs of launchd, on macOS: a LaunchAgent of the user who calls, or a LaunchDaemon for any student's course.

One property list per course; its label is `learnpack-agent.` and the course's key.  The program stays in the
foreground, as launchd demands.  What the keys mean is written in launchd.plist(5); where that page leaves a choice:

- KeepAlive {SuccessfulExit: false}: begun again unless it ended with 0, so SIGTERM and `stop` end it.
- ThrottleInterval 60: launchd has no RestartPreventExitStatus.  An agent that can't work (75 another agent, 77 no
  permission, 78 no course, or a fault in the configuration) is begun again once a minute at most, 0.3 s of work each,
  and works when the fault is mended.  One that had run for a minute is back at once.  (PathState would not help: the
  conditions of KeepAlive are joined by "or".)
- LimitLoadToSessionType Background where there is no graphical session (`user/UID` in the place of `gui/UID`).
- `bootout` may return before the job is gone (error 36), and then `bootstrap` fails (5, 37): so it is waited for.

NOT RUN ON A MAC.  The keys are checked against a table of launchd.plist(5), and `launchctl print` against outputs that
people published; its form is no interface ("NOT API", launchctl(1)).  launchd rotates no logs: the agent writes a few
lines a day.  What launchd itself refuses, a log that it can't open for one, looks as if the agent had ended with 78.
"""

from __future__ import annotations

import os
import plistlib
import re
from collections.abc import Callable, Mapping, Sequence

from .files import content_of, names_in
from .manager import Action, Instance, ManagerError, Owner, Placement, Remove, Run, State, Verb, Write

PREFIX = "learnpack-agent."
_GONE_AFTER_S = 15
_EXIT_S = 10
_THROTTLE_S = 60
#: launchd.plist(5) has no place for words of others; the agent does not look at it.
_CHOSEN = "LEARNPACK_OWNER_IS_CHOSEN"

#: $1 launchctl, $2 the job, $3 how many times to look.
_UNTIL_GONE = (
    'for i in $(seq "$3"); do "$1" print "$2" >/dev/null 2>&1 || exit 0; sleep 0.2; done;'
    ' echo "$2: launchd does not let go of it" >&2; exit 1'
)

#: The fields of a job stand behind one tab, those of what it contains behind more.
_FIELD = re.compile(r"^\t([^\t=]+?) = (.*)$", re.MULTILINE)
_CODES = {
    "75": "another agent watches this course",
    "77": "no permission",
    "78": "no such course, or a fault in its learn.json or in the configuration, or launchd could not start it",
}

#: Asks launchctl: the exit code, and what was printed.
Ask = Callable[[Sequence[str]], tuple[int, str]]


def ask_launchctl(argv: Sequence[str]) -> tuple[int, str]:
    import subprocess

    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except OSError as error:
        raise ManagerError(f"{argv[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ManagerError(f"{' '.join(argv)}: no answer within 30 s") from None
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


class Launchd:
    """`is_user`: the jobs of the user who calls, else those of the system.  `program` is the agent's absolute path.
    `environment` is given to each agent.  The others are for tests."""

    def __init__(
        self,
        *,
        is_user: bool,
        program: str,
        key_of: Callable[[str], str],
        environment: Mapping[str, str] | None = None,
        ask: Ask = ask_launchctl,
        uid: int | None = None,
        library: str | None = None,
        launchctl: str = "/bin/launchctl",
    ) -> None:
        """`key_of` gives a short name that belongs to one path alone.  `library` is where everything is kept: ~/Library
        or /Library."""
        self._is_user = is_user
        self._program = program
        self._key_of = key_of
        self._environment = dict(environment or {})
        self._ask = ask
        self._uid = os.geteuid() if uid is None else uid
        self._library = library or (os.path.expanduser("~/Library") if is_user else "/Library")
        self._launchctl = launchctl
        self._domain: str | None = None

    @property
    def words(self) -> str:
        return "launchd of this user" if self._is_user else "launchd"

    # --- plans ---

    def install(self, placements: Sequence[Placement]) -> list[Action]:
        actions: list[Action] = []
        for one in placements:
            if self._is_user and one.owner.uid != self._uid:
                raise ManagerError(
                    f"{one.course}: for {one.owner.name} it has to be installed by that user, or by root"
                )
            if not self._is_user and one.owner.uid == 0 and not one.is_chosen:
                raise ManagerError(f"{one.course}: it belongs to root; name the student with --user")
            plist = Write(self._plist_of(one.course), self.plist(one))
            is_same = content_of(plist.path) == plist.content
            loaded = self._loaded(one.course)
            actions += [*self._directories(one.owner), plist]
            if loaded is not None and is_same:
                actions.append(self._do("kickstart", loaded[0]))
            else:  # a job that is loaded keeps the property list that it was loaded with
                actions += [*self._unload(one.course), *self._load(one.course)]
        return actions

    def uninstall(self, courses: Sequence[str]) -> list[Action]:
        return [action for one in courses for action in (*self._unload(one), Remove(self._plist_of(one)))]

    def control(self, verb: Verb, courses: Sequence[str] | None) -> list[Action]:
        """One that was stopped comes back with the next login or boot."""
        if courses is None:
            courses = [one.course for one in self.instances()]
        actions: list[Action] = []
        for course in courses:
            if not os.path.exists(self._plist_of(course)):
                raise ManagerError(f"{course}: no agent is installed for it")
            if verb == "stop":
                actions += self._unload(course)
            elif (loaded := self._loaded(course)) is None:
                actions += self._load(course)
            else:  # without -k one that runs is left alone
                actions.append(self._do("kickstart", *(["-k"] if verb == "restart" else []), loaded[0]))
        return actions

    def _load(self, course: str) -> list[Action]:
        """`enable` first: a job that somebody disabled can't be loaded.  RunAtLoad starts it."""
        domain = self._domain_now()
        return [
            self._do("enable", f"{domain}/{self._label(course)}"),
            self._do("bootstrap", domain, self._plist_of(course)),
        ]

    def _unload(self, course: str) -> list[Action]:
        if (loaded := self._loaded(course)) is None:
            return []
        return [
            self._do("bootout", loaded[0], may_fail=True),
            Run(("/bin/sh", "-c", _UNTIL_GONE, "sh", self._launchctl, loaded[0], str(_GONE_AFTER_S * 5))),
        ]

    def _do(self, *words: str, may_fail: bool = False) -> Run:
        return Run((self._launchctl, *words), may_fail=may_fail)

    def _directories(self, owner: Owner) -> list[Action]:
        """launchd makes the log itself, as the user, but not its directory."""
        if self._is_user:
            return [Run(("/usr/bin/install", "-d", "-m", "0700", self._logs_of(owner.uid)))]
        private = ("-o", str(owner.uid), "-g", str(owner.gid), "-m", "0700")
        return [
            Run(("/usr/bin/install", "-d", *mode, path))
            for own in (self._logs_of(owner.uid), self._states_of(owner.uid))
            for mode, path in ((("-m", "0755"), os.path.dirname(own)), (private, own))
        ]

    # --- what there is ---

    def instances(self) -> list[Instance]:
        directory = os.path.dirname(self._plist_of("/"))
        names = [name for name in names_in(directory) if name.startswith(PREFIX) and name.endswith(".plist")]
        return sorted((self._instance(os.path.join(directory, name)) for name in names), key=lambda one: one.course)

    def log_command(self, course: str | None, *, follow: bool, lines: int) -> list[str]:
        found = [one for one in self.instances() if course in (None, one.course)]
        if not found:
            raise ManagerError("no agent is installed" if course is None else f"{course}: no agent is installed for it")
        paths = [self._log_of(one.course, one.uid) for one in found]
        return ["/usr/bin/tail", "-n", str(lines), *(["-F"] if follow else []), *paths]

    def _instance(self, path: str) -> Instance:
        try:
            plist = plistlib.loads(content_of(path) or b"")
            course, variables = str(plist["ProgramArguments"][-1]), plist.get("EnvironmentVariables", {})
            states = variables.get("LEARNPACK_AGENT_STATE_DIR")
            uid = self._uid if self._is_user else int(os.path.basename(states))
        except Exception as error:  # plistlib lets the XML parser's errors through
            raise ManagerError(f"{path}: not as `install` writes it ({error}); remove it") from None
        loaded = self._loaded(course)
        state, pid, detail = ("stopped", None, "") if loaded is None else state_of(loaded[1])
        is_chosen = variables.get(_CHOSEN) == "yes"
        return Instance(course, self._label(course), uid, state, pid, detail, is_chosen)

    def _loaded(self, course: str) -> tuple[str, str] | None:
        """The job as launchctl names it, and what it says of it; None where it is not loaded."""
        for domain in self._domains():
            target = f"{domain}/{self._label(course)}"
            code, text = self._ask((self._launchctl, "print", target))
            if code == 0:
                return target, text
        return None

    def _domains(self) -> tuple[str, ...]:
        """The graphical session's first: where there is none, there is only what ssh gets."""
        return (f"gui/{self._uid}", f"user/{self._uid}") if self._is_user else ("system",)

    def _domain_now(self) -> str:
        """Where a job is to be loaded."""
        if self._domain is None:
            *better, last = self._domains()
            self._domain = next((one for one in better if self._ask((self._launchctl, "print", one))[0] == 0), last)
        return self._domain

    # --- files ---

    def _label(self, course: str) -> str:
        return PREFIX + self._key_of(course)

    def _plist_of(self, course: str) -> str:
        return os.path.join(
            self._library, "LaunchAgents" if self._is_user else "LaunchDaemons", f"{self._label(course)}.plist"
        )

    def _logs_of(self, uid: int) -> str:
        return os.path.join(self._library, "Logs", "learnpack-agent", *([] if self._is_user else [str(uid)]))

    def _log_of(self, course: str, uid: int) -> str:
        return os.path.join(self._logs_of(uid), f"{self._key_of(course)}.log")

    def _states_of(self, uid: int) -> str:
        return os.path.join(self._library, "Application Support", "learnpack-agent", str(uid))

    def plist(self, placement: Placement) -> bytes:
        """The property list.  Raises ManagerError where a name can't be written in one."""
        course, owner = placement.course, placement.owner
        log = self._log_of(course, owner.uid)
        variables = dict(self._environment)
        job: dict[str, object] = {
            "Label": self._label(course),
            "ProgramArguments": [self._program, "run", course],
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": _THROTTLE_S,
            "ExitTimeOut": _EXIT_S,
            "WorkingDirectory": "/",  # that of the course would pin it
            "Umask": 0o077,
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "ProcessType": "Background",
            "LowPriorityIO": True,
            # More would cost short programs: they have to be read before they are over (see `promptness`).
            "Nice": 1,
        }
        if not self._is_user:
            job["UserName"] = owner.name
            if (group := _group_of(owner.gid)) is not None:
                job["GroupName"] = group
            variables["LEARNPACK_AGENT_STATE_DIR"] = self._states_of(owner.uid)
        elif self._domain_now().startswith("user/"):
            job["LimitLoadToSessionType"] = "Background"
        if placement.is_chosen:
            variables[_CHOSEN] = "yes"
        if variables:
            job["EnvironmentVariables"] = variables
        try:
            content = plistlib.dumps(job)
            if plistlib.loads(content) != job:  # XML has one line end only
                raise ValueError("XML would change it")
        except Exception as error:  # a control character, bytes that are no UTF-8
            raise ManagerError(
                f"{ascii(course)[1:-1]}: this name can't be written in a property list: {error}"
            ) from None
        return content


#: `state` as launchd names it, for a job that is loaded; "not running" and what is not here depends on its last end.
_STATES: Mapping[str, State] = {"running": "running", "spawn scheduled": "starting", "xpcproxy": "starting"}


def state_of(printed: str) -> tuple[State, int | None, str]:
    """State, pid and details of a job, from what `launchctl print` says of it."""
    said = dict(reversed(_FIELD.findall(printed)))  # of two the first
    state = _STATES.get(said.get("state", ""))
    pid = said.get("pid", "")
    code = said.get("last exit code", "0").partition(":")[0]
    signal = said.get("last terminating signal", "")
    if state == "running":
        return state, int(pid) if pid.isdigit() else None, ""
    if signal:
        ended = f"ended by a signal ({signal})"
    elif code.isdigit() and code != "0":
        ended = _CODES.get(code, f"exit code {code}")
    else:
        ended = said.get("last exit reason", "")
    return state or ("failed" if ended else "stopped"), None, ended


def _group_of(gid: int) -> str | None:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None  # then it is the user's own
