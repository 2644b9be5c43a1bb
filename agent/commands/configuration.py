"""`config check`, `config show`, `config default`: what an admin asks about the configuration.

`check` looks at more than `agent.config` does at each start: at what is on the disk beside the files.  A fault is what
would not work; a warning is what works and was hardly meant.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..config import ConfigError, Fault
from ..core.course import one_line
from .common import loaded_of

if TYPE_CHECKING:
    from ..config.checking import Part, Path
    from ..config.loading import Layer, Loaded


def add_config(command: Callable[..., argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """`command(name, function, words)` makes a parser; `common` has the options of all commands."""
    sub = command("config", _check, "check the configuration, show what holds, or print a file to begin with")
    actions = sub.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, function, words in (
        ("check", _check, "find everything that is wrong with it: a line for each fault, and exit code 78"),
        ("show", _show, "what holds now, as TOML; secrets are left out"),
        ("default", _default, "every key with its default and its meaning, commented out: a file to begin with"),
    ):
        action = actions.add_parser(name, parents=[common], help=words, description=words)
        action.set_defaults(function=function)
        if name != "default":
            course = "as it is for this course, with the sections for it (default: for no course in particular)"
            action.add_argument("course", metavar="COURSE_DIR", nargs="?", help=course)
        if name == "show":
            action.add_argument("--origin", action="store_true", help="say where each value is from")


def _default(arguments: argparse.Namespace) -> int:
    from ..config.showing import default_file

    return _print(default_file())


def _show(arguments: argparse.Namespace) -> int:
    from ..config.showing import shown

    loaded = loaded_of(arguments, _root(arguments.course))
    if loaded.faults:
        raise ConfigError(loaded.faults)
    return _print(shown(loaded, origin=arguments.origin))


def _check(arguments: argparse.Namespace) -> int:
    loaded = loaded_of(arguments, _root(arguments.course))
    if faults := [*loaded.faults, *_faults(loaded)]:
        raise ConfigError(faults)
    for warning in _warnings(loaded):
        print(f"warning: {warning}", file=sys.stderr)
    files = ", ".join(source.name for source in loaded.sources)
    print(one_line(f"ok: {files or 'there is no file, everything has its default'}"))
    return 0


def _root(directory: str | None) -> str | None:
    """The course's path; that of the directory where there is no course yet: its section may come first."""
    if directory is None:
        return None
    from ..sensors.course import CourseError, find_course

    try:
        return os.path.realpath(find_course(directory))
    except CourseError:
        return os.path.realpath(directory)


def _print(text: str) -> int:
    """TOML is UTF-8, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
    return 0


# --- what is on the disk beside the files ---


def _faults(loaded: Loaded) -> Iterator[Fault]:
    """Also of sections for other courses."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    for layer in loaded.layers:
        if layer.at:
            continue  # a part of another layer
        sections: dict[Path, Part] = {("course", pattern): part for pattern, part in layer.part.courses.items()}
        for at, part in {(): layer.part, **sections}.items():
            if (path := part.send.get("ca_file")) and (problem := _unreadable(path)):
                yield _fault(layer, (*at, "send", "ca_file"), f"send: ca_file can't be read: {problem}")
        for host, one in layer.part.credentials.items() if directory else ():
            if one.credential and (problem := _unreadable(os.path.join(directory or "", one.credential))):
                words = f'credentials."{host}": credential can\'t be read in $CREDENTIALS_DIRECTORY: {problem}'
                yield _fault(layer, ("credentials", _as_written(layer, host), "credential"), words)


def _unreadable(path: str) -> str | None:
    try:
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as stream:
            stream.read(1)
    except OSError as error:
        return error.strerror
    return None


def _as_written(layer: Layer, host: str) -> str:
    hosts: list[str] = [*(layer.source.table or {}).get("credentials", {})]
    return next(one for one in hosts if one.lower() == host)


def _fault(layer: Layer, path: Path, words: str) -> Fault:
    from ..config.positions import Positions

    return Fault(layer.source.name, Positions(layer.source.text or "").line(path), words)


def _warnings(loaded: Loaded) -> Iterator[Fault]:
    from ..destinations import host_of

    for source in loaded.sources:
        parts = [layer.part for layer in loaded.layers if layer.source is source]
        holds_token = any(one.token for part in parts for one in part.credentials.values())
        if holds_token or any(sink.headers for part in parts for sink in part.sinks):
            mode = stat.S_IMODE(os.stat(source.name).st_mode)
            if mode & stat.S_IROTH:
                what = "a token" if holds_token else "headers, which may be a token"
                yield Fault(
                    source.name, None, f"it holds {what}, and everybody on this machine can read it ({mode:04o})"
                )
    hosts = {host_of(sink.url).lower() for sink in loaded.config.sinks if sink.url}
    for layer in loaded.layers:
        for host, one in layer.part.credentials.items():
            if host not in hosts and not one.learnpack_session and not one.for_courses:
                words = f'credentials."{host}": no sink\'s URL names this host'
                yield _fault(layer, ("credentials", _as_written(layer, host)), words)
