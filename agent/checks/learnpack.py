"""LearnPack: which one is here, what it writes itself, whether what its tests print can be read, and git.

Known to be weak: a LearnPack that is installed where neither PATH, npm nor nvm would put it is only known while it
runs in the course.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from ..core.course import one_line
from ..sensors.files.git import NoAnswerError, repository_above, tracking_of
from ..sensors.learnpack import config_trouble, is_logged_in
from ..sensors.picture import read_regular
from ..sensors.processes.procfs import Procfs
from ..sensors.processes.servers import server_of
from ..store.lock import holder
from ..store.on_disk import NAME as DOCUMENT
from .finding import Finding, Place, command, fault, note, ok, warning

PACKAGE = "@learnpack/learnpack"
_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Installed:
    """A LearnPack on the disk.  `has_telemetry`: it writes telemetry.json itself (2.1.34 does)."""

    version: str
    path: str
    has_telemetry: bool


def learnpack(place: Place) -> Finding:
    if place.course is not None and (trouble := config_trouble(place.course)) is not None:
        path = os.path.join(place.root, place.course.base, "config.json")
        return fault(trouble, command("rm", path))
    found = installed(server_of(place.course) if place.course else None)
    if found is None:
        return note("LearnPack is not found; work in a terminal and in editors is seen all the same")
    own = "writes telemetry.json itself, too" if found.has_telemetry else "writes no telemetry.json itself"
    return ok(f"LearnPack {found.version} ({one_line(found.path)}) {own}")


def installed(running: int | None = None) -> Installed | None:
    """The LearnPack that this process runs, else the one that the current user's shell would start."""
    return next(filter(None, map(_package_at, _places(running))), None)


def _places(running: int | None) -> Iterator[str]:
    """Directories that may be that of the package, the likeliest first."""
    for program in (_program_of(running) if running else None, shutil.which("learnpack")):
        path = os.path.realpath(program) if program else "/"
        while (above := os.path.dirname(path)) != path:
            path = above
            yield path
    if (node := shutil.which("node")) is not None:
        prefix = os.path.dirname(os.path.dirname(os.path.realpath(node)))
        yield os.path.join(prefix, "lib", "node_modules", PACKAGE)
    home = os.path.expanduser("~")
    for pattern in (
        "/usr/local/lib/node_modules",
        "/usr/lib/node_modules",
        "/opt/homebrew/lib/node_modules",
        f"{glob.escape(home)}/.npm-global/lib/node_modules",
        f"{glob.escape(home)}/.nvm/versions/node/*/lib/node_modules",
        f"{glob.escape(home)}/.npm/_npx/*/node_modules",
    ):
        yield from sorted(glob.glob(f"{pattern}/{PACKAGE}"), reverse=True)


def _program_of(pid: int) -> str | None:
    """The script that node runs: the first word behind it that is no option."""
    words = Procfs().argv(pid) or ()
    return next((word for word in words[1:] if not word.startswith("-")), None)


def _package_at(path: str) -> Installed | None:
    try:
        _, content = read_regular(os.path.join(path, "package.json"), _LIMIT)
        package = orjson.loads(content or b"null")
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(package, dict) or package.get("name") != PACKAGE:
        return None
    # No version is known to be the first with telemetry: the file that does it is asked for.
    has_telemetry = os.path.exists(os.path.join(path, "lib", "managers", "telemetry.js"))
    return Installed(str(package.get("version")), path, has_telemetry)


def server(place: Place) -> Finding:
    """Whether one runs now, and whether it sends something itself."""
    assert place.course is not None
    pid = server_of(place.course)
    runs = "no LearnPack server runs" if pid is None else f"a LearnPack server runs (process {pid})"
    login = "a student is logged in" if is_logged_in(place.course) else "nobody is logged in"
    urls = [what for what in ("streaming", "batch") if getattr(place.course, what)]
    named = f"learn.json names a URL for {' and '.join(urls)}" if urls else "learn.json names no telemetry URL"
    sends = "LearnPack sends its own telemetry there, too" if urls and is_logged_in(place.course) else ""
    return ok("; ".join(filter(None, (runs, login, named, sends))))


def capture(place: Place) -> Finding:
    """Whether what LearnPack's tests print can be read: their files in the directory for temporary ones."""
    from tempfile import gettempdir  # as LearnPack's own: $TMPDIR, /tmp

    directory = gettempdir()
    if not os.access(directory, os.R_OK | os.X_OK):
        return warning(f"{one_line(directory)} can't be read, so what LearnPack's tests print is not recorded")
    for pid in filter(None, (holder(place.directory), server_of(place.course) if place.course else None)):
        if _has_another(directory, pid):
            words = f"process {pid} has a {one_line(directory)} of its own (PrivateTmp=)"
            return warning(f"{words}: what LearnPack's tests print is not recorded")
    if os.path.isdir("/proc/self/fd") and (hidden := _hidden()):
        return warning(f"{hidden} of this user's processes may not be looked at (/proc/PID/fd): a sandbox, or hidepid")
    return ok("what LearnPack's tests print can be read")


def _has_another(directory: str, pid: int) -> bool:
    try:
        return not os.path.samestat(os.stat(directory), os.stat(f"/proc/{pid}/root{directory}"))
    except OSError:  # gone, another user's, or no /proc
        return False


def _hidden() -> int:
    """How many of this user's processes don't let us look, if none but ourselves does."""
    seen = hidden = 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == os.geteuid() and os.readlink(f"/proc/{name}/exe"):
                os.listdir(f"/proc/{name}/fd")
                seen += 1
        except PermissionError:
            hidden += 1
        except OSError:  # gone; a kernel thread of root's
            continue
    return 0 if seen else hidden


def git(place: Place) -> Finding:
    """Whether telemetry.json would go into the course's repository: it holds the student's work."""
    assert place.course is not None
    if repository_above(place.root) is None:
        return ok("the course is in no git repository")
    path = f"{place.course.base}/{DOCUMENT}"
    try:
        found = tracking_of(place.root, path)
    except NoAnswerError as error:
        return note(f"git does not tell whether {path} is tracked: {one_line(str(error))}")
    # Some shells' echo takes a backslash for something.
    echo = ("printf", "%s\\n") if "\\" in found.pattern else ("echo",)
    ignore = f"{command(*echo, found.pattern)} >> {command(found.exclude_file)}"
    if found.is_tracked:
        mend = command("git", "-C", place.root, "rm", "--cached", "--quiet", path)
        return warning(
            f"{path} is tracked by git: each run changes it, and a push would publish it",
            mend if found.is_ignored else f"{mend} && {ignore}",
        )
    if not found.is_ignored:
        return warning(f"{path} is not ignored by git: `git add .` would add it", ignore)
    return ok(f"{path} is ignored by git")
