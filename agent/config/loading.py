"""All sources in their order → one `Config` for one course.

Later wins.  What one person answers for is one group; within it, a section for the course wins over the other keys,
whichever file of the group they are in:

    the defaults
    the admin's: /etc/learnpack-agent/config.toml, then config.d/*.toml by name; then their sections for this course
    the user's: ~/.config/learnpack-agent/config.toml; then its sections for this course
    the one named by `--config` or $LEARNPACK_AGENT_CONFIG; then its sections for this course
    the environment: $LEARNPACK_AGENT_<KEY>
    the arguments

So a file in config.d can't undo by accident what the admin said about one course, and a student's section does not win
over the file that a unit names.  Of `[send]` each key is replaced by itself, a `[[sink]]` by one of the same name, a
`[credentials."HOST"]` by one for the same host.

Nothing is kept between two calls: whoever wants to know what holds now, asks again.  What a course's learn.json names
is no part of this: see `agent.destinations`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from . import places
from .checking import COURSES, Part, Path, Problem, checked_file, checked_values, keys_of
from .faults import ConfigError, Fault
from .settings import Config

PREFIX = "LEARNPACK_AGENT_"
COMMAND_LINE = "the command line"
#: A configuration has some KB.
LARGEST_FILE = 1 << 20


class Source(NamedTuple):
    """A file, with its text and what TOML makes of it; or a variable, or the command line."""

    name: str
    text: str | None = None
    table: Mapping[str, Any] | None = None


class Layer(NamedTuple):
    """What a source says at this place in it: () for all courses, `("course", PATTERN)` for some."""

    source: Source
    at: Path
    part: Part


class Loaded(NamedTuple):
    """`layers`: what was put on top of one another, first the lowest.  `sources`: the files that were read.

    With faults, `config` is without what is faulty.
    """

    config: Config
    layers: tuple[Layer, ...]
    faults: tuple[Fault, ...]
    sources: tuple[Source, ...]


def load_config(
    *,
    file: str | None,
    environment: Mapping[str, str],
    arguments: Mapping[str, object | None],
    course: str | None = None,
) -> Config:
    """The configuration from all sources.  `arguments` holds only what was given (None: not given).

    `course` is the real path of the course that it is for; None: for no course in particular.  Raises ConfigError with
    all faults; a file named explicitly must exist, the others may.
    """
    loaded = load(file=file, environment=environment, arguments=arguments, course=course)
    if loaded.faults:
        raise ConfigError(loaded.faults)
    return loaded.config


def load(
    *,
    file: str | None,
    environment: Mapping[str, str],
    arguments: Mapping[str, object | None],
    course: str | None = None,
) -> Loaded:
    """As `load_config`, with everything that is needed to explain it."""
    faults: list[Fault] = []
    sources: list[Source] = []
    layers: list[Layer] = []
    default = places.default_state_dir(environment)
    if environment.get("STATE_DIRECTORY"):
        layers.append(Layer(Source("$STATE_DIRECTORY"), (), Part({"state_dir": default})))
    for group in _groups(file, environment, faults):
        for_all: list[Layer] = []
        for_course: list[Layer] = []
        for source in group:
            part = _checked(source, faults)
            for_all.append(Layer(source, (), part))
            for pattern, section in part.courses.items():
                if course is not None and fnmatchcase(course, pattern):
                    for_course.append(Layer(source, (COURSES, pattern), section))
        sources += [layer.source for layer in for_all]
        layers += for_all + for_course
    layers += _from_environment(environment, faults)
    layers += _from_arguments(arguments, faults)
    config = Config()
    for layer in layers:
        config = _with(config, layer.part)
    state_dir = os.path.abspath(config.state_dir or default)
    # A file that is read twice (an admin's, named again in a unit) is at fault once.
    return Loaded(replace(config, state_dir=state_dir), tuple(layers), tuple(dict.fromkeys(faults)), tuple(sources))


def _with(config: Config, part: Part) -> Config:
    sinks = {sink.name: sink for sink in (*config.sinks, *part.sinks)}
    return replace(
        config,
        **part.top,
        send=replace(config.send, **part.send),
        sinks=tuple(sinks.values()),
        credentials={**config.credentials, **part.credentials},
    )


# --- files ---


def _groups(file: str | None, environment: Mapping[str, str], faults: list[Fault]) -> Iterator[Iterator[Source]]:
    """The files that are there, each group in its order."""
    admins = [os.path.join(places.SYSTEM_DIRECTORY, "config.toml"), *_fragments(faults)]
    yield _read(admins, faults)
    yield _read([places.user_file(environment)], faults, may_be_hidden=True)
    named = file if file is not None else environment.get(f"{PREFIX}CONFIG") or None
    if named is not None:
        yield _read([named], faults, is_named=True)


def _fragments(faults: list[Fault]) -> list[str]:
    """The files of config.d by name; not hidden ones, and not what editors and dpkg leave beside a file."""
    directory = os.path.join(places.SYSTEM_DIRECTORY, "config.d")
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:  # an admin's rules are not left out without a word
        faults.append(Fault(directory, None, str(error.strerror)))
        return []
    paths = [os.path.join(directory, name) for name in names if name.endswith(".toml") and not name.startswith(".")]
    return [path for path in paths if not _is_something_else(path)]


def _is_something_else(path: str) -> bool:
    """Whether it is there and no file: a directory, or a link to /dev/null, which switches a fragment off."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _read(
    paths: list[str], faults: list[Fault], *, is_named: bool = False, may_be_hidden: bool = False
) -> Iterator[Source]:
    for path in paths:
        try:
            content = _content(path, any_kind=is_named)
        except OSError as error:
            is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            is_hidden = may_be_hidden and not os.path.exists(path)
            # A fragment that is listed is there: a link that leads nowhere was meant to say something.
            if is_named or not (is_hidden or (is_missing and not os.path.islink(path))):
                faults.append(Fault(path, None, error.strerror or str(error)))
            continue
        found = _parsed(path, content)
        if isinstance(found, Fault):
            faults.append(found)
        else:
            yield found


def _content(path: str, *, any_kind: bool) -> bytes:
    """Raises OSError.  A pipe is only waited for when it was named: a user's file may be anything."""
    with open(path, "rb", opener=None if any_kind else _without_waiting) as stream:
        if not any_kind and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        content = stream.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(0, f"it is larger than {LARGEST_FILE >> 20} MB")
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _parsed(path: str, content: bytes) -> Source | Fault:
    import tomllib  # 4 ms, and there may be no file at all

    if content.startswith(b"\xef\xbb\xbf"):
        return Fault(
            path, 1, "it begins with a byte order mark, which TOML does not have: save it as UTF-8 without one"
        )
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        return Fault(path, content.count(b"\n", 0, error.start) + 1, "it is not UTF-8")
    try:
        return Source(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return _syntax_fault(path, text, str(error))
    except ValueError:  # Python reads no whole number of more than 4300 digits
        return Fault(path, None, "it holds a number that is too long")
    except RecursionError:
        return Fault(path, None, "it is nested too deeply")


def _syntax_fault(path: str, text: str, words: str) -> Fault:
    if match := re.search(r" \(at line (\d+), column (\d+)\)\Z", words):
        return Fault(path, int(match[1]), f"{words[: match.start()]} (column {match[2]})")
    from .positions import Positions

    # "at end of document": what never ends is said where it begins.
    return Fault(path, Positions(text).unfinished(), f"what begins here never ends: {words}")


def _checked(source: Source, faults: list[Fault]) -> Part:
    problems: list[Problem] = []
    part = checked_file(source.table or {}, problems)
    if problems:
        from .positions import Positions

        positions = Positions(source.text or "")
        found = [Fault(source.name, positions.line(path), words) for path, words in problems]
        faults += sorted(found, key=lambda fault: fault.line or 0)
    return part


# --- the environment and the arguments ---


def _from_environment(environment: Mapping[str, str], faults: list[Fault]) -> Iterator[Layer]:
    """A layer for each variable that says something; an empty one says nothing."""
    keys = {f"{PREFIX}{key.upper()}": (key, kind) for key, kind in keys_of(Config).items() if kind is not tuple}
    for name in sorted(name for name in environment if name.startswith(PREFIX) and name != f"{PREFIX}CONFIG"):
        if name not in keys:
            import difflib

            meant = difflib.get_close_matches(name.upper(), (*keys, f"{PREFIX}CONFIG"), n=1)
            hint = f" (did you mean ${meant[0]}?)" if meant else ""
            faults.append(Fault(f"${name}", None, f"there is no such variable{hint}"))
        elif environment[name]:
            key, kind = keys[name]
            problems: list[Problem] = []
            part = checked_values({key: _value(environment[name], kind)}, problems)
            faults += [Fault(f"${name}", None, words) for _, words in problems]
            yield Layer(Source(f"${name}"), (), part)


def _value(text: str, kind: type) -> object:
    """The text as what it is to be; as it is where it can't be read as that, which is then a fault."""
    if kind is bool:
        return {"true": True, "false": False}.get(text, text)
    if kind is int and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return text


def _from_arguments(arguments: Mapping[str, object | None], faults: list[Fault]) -> Iterator[Layer]:
    given = {key: value for key, value in arguments.items() if value is not None}
    if given.get("state_dir") == "":
        del given["state_dir"]  # a shell's empty variable
        faults.append(Fault(COMMAND_LINE, None, "state_dir is empty"))
    problems: list[Problem] = []
    part = checked_values(given, problems)
    faults += [Fault(COMMAND_LINE, None, words) for _, words in problems]
    if given:
        yield Layer(Source(COMMAND_LINE), (), part)
