"""The file systems: of what kind, whose, how much is left."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator

from ..core.course import one_line
from ..sensors.files.mounts import is_remote, kind_of, read_mounts, remote_kind
from ..store.journal import NAME as JOURNAL
from ..store.lock import NAME as LOCK
from ..store.on_disk import NAME as DOCUMENT
from ..store.outbox import NAME as OUTBOX
from .finding import Finding, Place, asked, command, existing, fault, note, ok, warning, worst
from .machine import directories_of

# --- kinds ---

#: What lies there is gone after a reboot.
_IN_MEMORY = frozenset(("tmpfs", "ramfs"))


def course_file_system(place: Place) -> Finding:
    mounts = read_mounts()
    if (remote := remote_kind(place.root, mounts)) is not None:
        words = "it tells nothing of changes, so the course is compared every 2 s, and runs are found that late"
        return note(f"{remote}, a network file system: {words}")
    kind = kind_of(place.root, mounts)
    return note("of what kind it is is not known here") if kind is None else ok(f"{kind}, it tells of each change")


def state_file_system(place: Place) -> Finding:
    path = os.path.realpath(place.directory)
    return state_file_system_finding(path, kind_of(path, read_mounts()))


def state_file_system_finding(path: str, kind: str | None) -> Finding:
    if kind is None:
        return note("of what kind it is is not known here")
    local = command("sudo", "install", "-d", "-m", "0700", "-o", str(os.geteuid()), "-g", str(os.getegid()))
    if is_remote(kind):
        words = "SQLite's locks do not hold there, and a journal may be damaged: it belongs on a local disk"
        return fault(f"{one_line(path)} lies on {kind}: {words}", f"{local} /var/lib/learnpack-agent/{os.geteuid()}")
    if kind in _IN_MEMORY:
        words = "what is recorded there is lost at the next reboot"
        return warning(f"{one_line(path)} lies on {kind}: {words}", f"{local} /var/lib/learnpack-agent/{os.geteuid()}")
    return ok(f"{kind}, a local file system")


# --- rights ---


def course_rights(place: Place) -> Finding:
    denied: list[str] = []
    for _ in directories_of(place.course, denied):
        pass
    if denied:
        more = f" and {len(denied) - 1} more" if len(denied) > 1 else ""
        words = f"no permission to read {one_line(denied[0])}{more}: what happens there is not seen"
        return warning(words, command("chmod", "-R", "u+rX", place.root))
    return worst([_owner(place), _learnpack_directory(place)])


def _owner(place: Place) -> Finding:
    owner, own = os.stat(place.root).st_uid, os.geteuid()
    if owner == own:
        return ok("the course is ours and can be read")
    if own == 0:
        words = (
            f"the course belongs to user {owner}: root's agent sees only root's processes, `install` makes the owner's"
        )
        return warning(words, command("learnpack-agent", "install", place.root))
    words = f"the course belongs to user {owner}: an agent of ours (user {own}) sees only our processes"
    return warning(words, command("sudo", "learnpack-agent", "install", place.root))


def _learnpack_directory(place: Place) -> Finding:
    assert place.course is not None
    path = os.path.join(place.root, place.course.base)
    if not os.path.lexists(path):
        if os.access(place.root, os.W_OK | os.X_OK):
            return ok(f"{place.course.base} is made when it is needed")
        words = f"{place.course.base} can't be made: no permission to write"
        return fault(words, command("chmod", "u+rwx", place.root))
    if not os.access(path, os.W_OK | os.X_OK):
        words = f"telemetry.json can't be written: no permission in {place.course.base}"
        return fault(words, command("chmod", "u+rwx", path))
    return ok(f"{place.course.base} can be written")


def state_rights(place: Place) -> Finding:
    path = place.directory
    if not os.path.lexists(path):
        above = existing(path)
        if os.access(above, os.W_OK | os.X_OK):
            return ok("the state directory is made when it is needed")
        owner = f"{os.geteuid()}:{os.getegid()}"
        mend = f"{command('sudo', 'mkdir', '-p', path)} && {command('sudo', 'chown', owner, path)}"
        return fault(f"the state directory can't be made: no permission to write in {one_line(above)}", mend)
    info = os.stat(path)
    if not stat.S_ISDIR(info.st_mode):
        return fault(f"{one_line(path)} is no directory", command("mv", path, f"{path}.aside"))
    if info.st_uid != os.geteuid():
        words = f"the state directory belongs to user {info.st_uid}, not to us (user {os.geteuid()})"
        return fault(words, command("sudo", "chown", "-R", f"{os.geteuid()}:{os.getegid()}", path))
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return fault("no permission in the state directory", command("chmod", "0700", path))
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        words = f"others may look into the state directory (mode {mode:04o})"
        return warning(words, command("chmod", "0700", path))
    return ok("the state directory is ours alone")


def links(place: Place) -> Finding:
    """Symbolic links where the agent follows none."""
    assert place.course is not None
    base = os.path.join(place.root, place.course.base)
    for path in (base, os.path.join(base, DOCUMENT)):
        if os.path.islink(path):
            words = f"{one_line(os.path.relpath(path, place.root))} is a symbolic link: telemetry.json is not written"
            return fault(words, command("rm", path))
    for name in (JOURNAL, LOCK, OUTBOX):
        if os.path.islink(path := os.path.join(place.directory, name)):
            return fault(f"{name} in the state directory is a symbolic link", command("rm", path))
    exercises = os.path.join(place.root, place.course.exercises)
    if place.course.exercises != "." and os.path.realpath(exercises) != exercises:
        return warning(f"{one_line(place.course.exercises)} is reached by a symbolic link: nothing in it is watched")
    return ok("none where there should be none")


# --- room ---

_MB = 1 << 20
_FULL, _LOW = 5 * _MB, 200 * _MB
_FEW_FILES = 1000


def space(place: Place) -> Finding:
    paths = {"state directory": existing(place.directory)} | ({"course": place.root} if place.course else {})
    return worst([*(_room(what, path) for what, path in paths.items()), *_quota()])


def _room(what: str, path: str) -> Finding:
    found = os.statvfs(path)
    files = found.f_favail if found.f_files else _FEW_FILES  # btrfs and others count none
    return room_finding(what, found.f_bavail * found.f_frsize, files, is_read_only=bool(found.f_flag & os.ST_RDONLY))


def room_finding(what: str, free: int, files: int, *, is_read_only: bool) -> Finding:
    """`free` in bytes; `files` is how many more there may be."""
    if is_read_only:
        return fault(f"the {what}'s file system is read-only")
    if free < _FULL or not files:
        why = "no file more can be made" if free >= _FULL else f"{free / _MB:.1f} MB are left"
        return fault(f"the {what}'s file system is full: {why}; events wait in memory")
    if free < _LOW or files < _FEW_FILES:
        return warning(f"the {what}'s file system is nearly full: {free / _MB:.0f} MB and {files} files are left")
    return ok(f"the {what} has {free / _MB:.0f} MB left")


def _quota() -> Iterator[Finding]:
    """quota(1) speaks only of file systems where the user has more than is allowed."""
    answer = asked("quota", "-q") if shutil.which("quota") else None
    if answer is not None and answer.stdout.strip():
        yield fault("this user's disk quota is used up", command("quota"))
