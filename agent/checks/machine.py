"""The machine: what its kernel can tell, how many watches it gives, what time it has.

What a kernel gives is known to `sensors/processes`; here it is asked by its own self-tests, with the rights of whoever
calls: a service may have fewer (a sandbox) or more (a capability).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..core.course import Course
from ..overview import read_state
from ..sensors.picture import ENVIRONMENT_MARK, Scope, joined
from ..sensors.processes.level import Mailbox, Refused
from ..sensors.processes.sensor import LEVELS
from ..store.journal import Journal, JournalError
from .finding import Finding, Place, command, fault, note, ok, warning

# --- processes ---

#: From which Linux on what can be seen.
_FOR_EVERYBODY, _EXIT_CODES, _PIDFD = (6, 6), (6, 15), (5, 3)


def kernel_version() -> tuple[int, int] | None:
    """Linux's version; None on another system."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(numbers[1]), int(numbers[2])) if sys.platform == "linux" and numbers else None


def kernel(place: Place) -> Finding:
    return kernel_finding(kernel_version())


def kernel_finding(version: tuple[int, int] | None) -> Finding:
    """What this version means for what is seen of processes."""
    if version is None:
        return note(f"{os.uname().sysname} {os.uname().release}: programs of less than 100 ms are mostly not seen")
    name = f"Linux {version[0]}.{version[1]}"
    if version >= _EXIT_CODES:
        return ok(f"{name}: every process can be seen by its own user, exit codes in containers, too")
    if version >= _FOR_EVERYBODY:
        return ok(f"{name}: every process can be seen by its own user; in containers exit codes are not (before 6.15)")
    if version >= _PIDFD:
        return note(f"{name}: the kernel tells of processes only with CAP_NET_ADMIN (before 6.6)")
    return note(f"{name}: the kernel tells of processes only with CAP_NET_ADMIN; else, without pidfds (5.3), of few")


_CAP_NET_ADMIN = 12


def capability(place: Place) -> Finding:
    version = kernel_version()
    if version is None:
        return note("there are no capabilities on this system")
    return capability_finding(version, _effective(), place.course)


def capability_finding(version: tuple[int, int], effective: int, course: Course | None) -> Finding:
    """`effective`: the bits of CapEff."""
    if version >= _FOR_EVERYBODY:
        return ok("CAP_NET_ADMIN is not needed")
    if effective >> _CAP_NET_ADMIN & 1:
        return ok("CAP_NET_ADMIN is needed, and there")
    mend = command("sudo", "learnpack-agent", "install", course.root) if course else ""
    return warning("CAP_NET_ADMIN is needed and not there; the service gets it from `install`", mend)


def _effective() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        return int(next(line for line in stream if line.startswith("CapEff:")).split()[1], 16)


def processes(place: Place) -> Finding:
    """The level that would be chosen here, tried for real, and why none that is better."""
    names = list(LEVELS)
    preferred = place.config.process_sensor
    refusals: list[str] = []
    for name in names[names.index(preferred) if preferred in names else 0 :]:
        mailbox = Mailbox()
        level = LEVELS[name]()
        try:
            level.open(mailbox)
            blind_to = level.blind_to
        except (Refused, OSError) as error:
            refusals.append(f"{name} does not work: {error}{_where(error)}")
            continue
        finally:
            level.close()
            mailbox.close()
        asked_for = f" (process_sensor = {preferred})" if name == preferred else ""
        words = "; ".join([f"seen by {name}{asked_for}; can't see: {blind_to}", *refusals])
        return ok(words) if name == names[0] else note(words) if name == "pidfd" else warning(words)
    return fault("; ".join(["no process can be seen", *refusals]))


def _where(error: BaseException) -> str:
    """In which name spaces we are, where that is why."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _NO_CONNECTOR:
        return " (this is not the machine's own network name space: a container, PrivateNetwork=)"
    own = [words for kind, number, words in _INITIAL if _name_space(kind) not in (None, number)]
    return f" (this is {', '.join(own)}: a container)" if own else ""


#: What is said where the connector is not: it is only in the machine's own network name space.
_NO_CONNECTOR = frozenset((errno.EPROTONOSUPPORT, errno.ECONNREFUSED))
#: The first name spaces of a machine have these numbers (include/linux/proc_ns.h).
_INITIAL = (
    ("pid", 0xEFFFFFFC, "a PID name space of its own"),
    ("user", 0xEFFFFFFD, "a user name space of its own"),
)


def _name_space(kind: str) -> int | None:
    try:
        return int(os.readlink(f"/proc/self/ns/{kind}").partition("[")[2].rstrip("]"))
    except (OSError, ValueError):
        return None


# --- watches ---

SYSCTL_FILE = "/etc/sysctl.d/60-learnpack-agent.conf"
_LIMITS = "/proc/sys/fs/inotify"
#: More than this share of a limit is near it.
_NEAR = 0.8
_LEAST_WATCHES, _LEAST_INSTANCES = 65_536, 512
#: The agent's own, and one while a LearnPack test begins.
_OWN_INSTANCES = 2
#: A course of more directories is none.
_MOST_DIRECTORIES = 200_000


class Use(NamedTuple):
    """inotify's watches and instances."""

    watches: int
    instances: int


def watches(place: Place) -> Finding:
    limit = _limits()
    if limit is None:
        return note("this system has no limit of watches")
    used = used_watches()
    if place.course is None:
        return watches_finding(limit, used, None, is_running=False, is_short=False)
    # Those above the course are watched, too.
    needed = Use(sum(1 for _ in directories_of(place.course)) + place.root.count("/"), _OWN_INSTANCES)
    state = read_state(place.root, place.config.state_dir, place.config)
    is_short = state.files is not None and "max_user_watches" in state.files.blind_to
    return watches_finding(limit, used, needed, is_running=state.is_running, is_short=is_short)


def watches_finding(limit: Use, used: Use, needed: Use | None, *, is_running: bool, is_short: bool) -> Finding:
    """`used` by this user's processes, an agent of this course included when it `is_running`; `is_short`: it says that
    it got too few."""
    more = Use(0, 0) if is_running or needed is None else needed
    here = f"this course needs {needed.watches} watches; " if needed else ""
    told = f"{here}this user's processes have {used.watches} of {limit.watches}, and {used.instances} of"
    told += f" {limit.instances} instances"
    lines = []
    if is_short or used.watches + more.watches > _NEAR * limit.watches:
        number = _rounded(max(_LEAST_WATCHES, limit.watches + 1, 2 * (used.watches + more.watches)))
        lines.append(f"fs.inotify.max_user_watches = {number}")
    if used.instances + more.instances > _NEAR * limit.instances:
        number = _rounded(max(_LEAST_INSTANCES, limit.instances + 1, 2 * (used.instances + more.instances)))
        lines.append(f"fs.inotify.max_user_instances = {number}")
    if not lines:
        return ok(told)
    written = command("printf", "%s\\n", *lines)
    mend = f"{written} | sudo tee {SYSCTL_FILE} && sudo sysctl --system"
    words = f"{told}: {SYSCTL_FILE} should hold {', '.join(lines)}"
    too_few = used.watches + more.watches > limit.watches or used.instances + more.instances > limit.instances
    return fault(words, mend) if is_short or too_few else warning(words, mend)


def _rounded(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _limits() -> Use | None:
    try:
        numbers = []
        for name in ("max_user_watches", "max_user_instances"):
            with open(f"{_LIMITS}/{name}", encoding="ascii") as stream:
                numbers.append(int(stream.read()))
    except (OSError, ValueError):
        return None
    return Use(*numbers)


def used_watches() -> Use:
    """What this user's processes have, as far as they may be looked at."""
    watches = instances = 0
    for base in _own_processes():
        try:
            numbers = os.listdir(f"{base}/fd")
        except OSError:  # gone, or undumpable
            continue
        for number in numbers:
            try:
                if os.readlink(f"{base}/fd/{number}") != "anon_inode:inotify":
                    continue
                with open(f"{base}/fdinfo/{number}", "rb") as stream:
                    watches += sum(line.startswith(b"inotify ") for line in stream)
            except OSError:
                continue
            instances += 1
    return Use(watches, instances)


def _own_processes() -> Iterator[str]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.geteuid():
                    yield f"/proc/{name}"
            except OSError:
                continue


def directories_of(course: Course | None, denied: list[str] | None = None) -> Iterator[str]:
    """The directories of the course that are watched, relative to its root; those that can't be read are added to
    `denied`."""
    if course is None:
        return
    scope = Scope(course.exercises, course.base)
    stack, count = ["."], 0
    while stack and count < _MOST_DIRECTORIES:
        path = stack.pop()
        try:
            with os.scandir(os.path.join(course.root, path)) as listed:
                entries = list(listed)
        except PermissionError:
            if denied is not None:
                denied.append(path)
            continue
        except OSError:  # it went away meanwhile
            continue
        if path != "." and any(entry.name == ENVIRONMENT_MARK for entry in entries):
            continue
        count += 1
        yield path
        inner = [joined(path, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
        stack += [one for one in inner if scope.has_directory(one)]


# --- the clock ---

_STA_UNSYNC = 0x0040
#: This program is younger than the one, and nobody uses it after the other (UTC, s).
_EARLIEST, _LATEST = 1_735_689_600, 4_102_444_800
#: A clock may be that much behind the one that stamped an event (ms).
_AHEAD_MS = 60_000


def clock(place: Place) -> Finding:
    return clock_finding(time.time(), is_synchronised(), _newest(place))


def clock_finding(now: float, synchronised: bool | None, newest: int | None) -> Finding:
    """`now` in s; `newest`: the time (ms) of the newest event, None: there is none."""
    mend = command("sudo", "timedatectl", "set-ntp", "true")
    shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    if not _EARLIEST < now < _LATEST:
        return fault(f"it is not {shown}: the clock is wrong, and all times with it", mend)
    if newest is not None and newest > now * 1000 + _AHEAD_MS:
        told = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest / 1000))
        return warning(f"the newest event is of {told}, which is yet to come: the clock was or is wrong", mend)
    if synchronised is None:
        return note("whether the clock is synchronised is not known here")
    if not synchronised:
        return warning("the clock is not synchronised (NTP): times of several machines can't be compared", mend)
    return ok("synchronised")


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); with room for what is behind `status`."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("before_status", ctypes.c_long * 4),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def is_synchronised() -> bool | None:
    """What the kernel says; None where it can't be asked."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):  # macOS
        return None
    asked = _Timex()  # modes 0: nothing is changed
    return None if adjtimex(ctypes.byref(asked)) < 0 else not asked.status & _STA_UNSYNC


def _newest(place: Place) -> int | None:
    if place.course is None:
        return None
    try:
        with Journal.open(place.directory, create=False, read_only=True) as journal:
            return journal.last_at()
    except JournalError:
        return None
