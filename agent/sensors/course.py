"""Reads a course from the disk, by LearnPack's rules.

Promised: the same steps at the same positions as LearnPack CLI 2.1.34 has (`managers/config/index.ts`,
`exercise.ts`), and one clear line (`CourseError`) where there is no course to read.  Names that are not UTF-8 are
kept in paths as `os.fsdecode` gives them.  Nothing is written; a directory that is a symbolic link is no step.

Where it is wider than LearnPack: `exercisesPath` of learn.json is honoured where neither `exercises` nor LearnPack's
own directory has any (LearnPack overwrites that setting and takes the root); `node_modules` and virtual environments
at the root are no steps; bc.json of the older BreatheCode is read last; a byte order mark is forgiven.

Known to be weak: a grading that was only given to LearnPack on its command line is not known here.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from ..core.course import ENTRIES, Course, Step, one_line, printable, step_from
from ..core.json_as_node import read_as_node
from .picture import BASES, ENVIRONMENT_MARK, SKIPPED_DIRECTORIES, is_transient, read_regular

#: Where the course's configuration may be; the first one counts.
CONFIG_FILES = ("learn.json", ".learn/learn.json", "bc.json")

CONFIG_LIMIT = 1 << 20


class CourseError(Exception):
    """There is no course to read here.  The message is one line; `permission` says that the right to read it lacks."""

    def __init__(self, message: str, *, permission: bool = False) -> None:
        super().__init__(message)
        self.permission = permission


def find_course(directory: str) -> str:
    """The directory of the course that this directory lies in, absolute; the nearest one where courses nest.

    Symbolic links in the given path are kept where that path leads to the course, so that `read_course` can tell
    them as aliases.  Raises CourseError.
    """
    start = os.path.abspath(directory)
    try:
        is_directory = stat.S_ISDIR(os.stat(start).st_mode)
    except PermissionError:
        raise CourseError(f"{one_line(start)}: no permission to reach it", permission=True) from None
    except (OSError, ValueError):  # ValueError: a NUL in the name
        raise CourseError(f"{one_line(start)}: no such directory") from None
    if not is_directory:
        raise CourseError(f"{one_line(start)}: not a directory")
    denied: str | None = None
    for top in (start, os.path.realpath(start)):
        for path in _upward(top):
            if os.path.basename(path) in BASES:
                continue  # .learn/learn.json configures the directory above
            for name in CONFIG_FILES:
                try:
                    os.stat(os.path.join(path, name))
                    return path
                except PermissionError:
                    denied = denied or os.path.join(path, name)
                except OSError:
                    continue
    if denied is not None:
        raise CourseError(f"{one_line(denied)}: no permission to read it", permission=True)
    raise CourseError(f"{one_line(start)}: no learn.json here or in a directory above")


def _upward(path: str) -> Iterator[str]:
    while True:
        yield path
        above = os.path.dirname(path)
        if above == path:
            return
        path = above


def read_course(directory: str) -> Course:
    """The course in this directory, as it is on the disk now.  Looks nowhere above.  Raises CourseError."""
    given = os.path.abspath(directory)
    try:
        return _read(true_path(given), given)
    except OSError as error:  # a failing disk or network in the middle of it
        raise CourseError(f"{one_line(given)}: cannot be read: {error.strerror}") from None


def true_path(path: str) -> str:
    """The real path as the file system writes it.

    On macOS a course in `my-course` can be named `My-Course` (or in another Unicode form), which `realpath` leaves; but
    processes and FSEvents tell of it by its own name.
    """
    real = os.path.realpath(path)
    if (get_path := getattr(fcntl, "F_GETPATH", None)) is None:
        return real
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.fsdecode(fcntl.fcntl(descriptor, get_path, bytes(1024)).partition(b"\0")[0]) or real
        finally:
            os.close(descriptor)
    except OSError:  # it is not there, or may not be read
        return real


def _read(root: str, given: str) -> Course:
    config = _read_config(root)
    base = base_of(root)
    exercises = _exercises_of(root, base, config)
    slug = config.get("slug")
    grading = config.get("grading")
    names = _names(root, ".")
    settings = _pytest_settings(root, names)
    telemetry = config.get("telemetry")
    urls = telemetry if isinstance(telemetry, dict) else {}
    return Course(
        root=root,
        slug=slug if isinstance(slug, str) and slug else printable(os.path.basename(root)) or "course",
        steps=_steps(root, exercises, _entries(config)),
        grading=grading if isinstance(grading, str) and grading else "isolated",
        aliases=() if given == root else (given,),
        pytest_files=_patterns(settings.get("python_files")) or _PYTEST_DEFAULT,
        pytest_options=_arguments(settings.get("addopts")),
        jest_configured=_is_jest_configured(root, names),
        exercises=exercises,
        base=base,
        streaming=_url(urls.get("streaming")),
        batch=_url(urls.get("batch")),
    )


def base_of(root: str) -> str:
    """LearnPack's own directory in the course, which need not exist yet."""
    return next((name for name in BASES if os.path.exists(os.path.join(root, name))), BASES[-1])


# --- learn.json ---


def _read_config(root: str) -> Mapping[str, Any]:
    path = next((path for name in CONFIG_FILES if os.path.lexists(path := os.path.join(root, name))), None)
    if path is None:
        _check_root(root)
        raise CourseError(f"{one_line(root)}: no learn.json in this directory: not a LearnPack course")
    shown = one_line(path)
    try:
        _, content = read_regular(path, CONFIG_LIMIT, follow=True)
    except FileNotFoundError:
        raise CourseError(f"{shown}: not a regular file") from None
    except PermissionError:
        raise CourseError(f"{shown}: no permission to read it", permission=True) from None
    except OSError as error:
        raise CourseError(f"{shown}: cannot be read: {error.strerror}") from None
    if content is None:
        raise CourseError(f"{shown}: larger than 1 MiB: not a course's configuration")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise CourseError(f"{shown}: empty")
    try:
        config = read_as_node(content, orjson.loads)
    except orjson.JSONDecodeError as error:
        raise CourseError(f"{shown}: not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(config, dict):
        raise CourseError(f"{shown}: not a JSON object")
    return config


def _check_root(root: str) -> None:
    """Raises CourseError with the true reason where the directory itself can't be read."""
    try:
        os.stat(os.path.join(root, "."))
        os.scandir(root).close()
    except PermissionError:
        raise CourseError(f"{one_line(root)}: no permission to read this directory", permission=True) from None
    except FileNotFoundError:
        raise CourseError(f"{one_line(root)}: no such directory") from None
    except OSError as error:
        raise CourseError(f"{one_line(root)}: cannot be read: {error.strerror}") from None


def _url(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _entries(config: Mapping[str, Any]) -> Mapping[str, str]:
    own = config.get("entries")
    if not isinstance(own, dict):
        return ENTRIES
    return {**ENTRIES, **{language: name for language, name in own.items() if isinstance(name, str)}}


# --- steps ---


def _exercises_of(root: str, base: str, config: Mapping[str, Any]) -> str:
    """The directory that holds the steps, relative to the root, "." for the root itself."""
    own = config.get("exercisesPath")
    for path in ("exercises", f"{base}/exercises", own if isinstance(own, str) else ""):
        absolute = os.path.join(root, path)
        if path and "\0" not in path and os.path.isdir(absolute):
            real = os.path.relpath(os.path.realpath(absolute), root)
            if real != ".." and not real.startswith("../"):
                return real
            if path != own:
                return path  # LearnPack would follow this link out of the course; it is no part of it for us
    return "."


def _steps(root: str, exercises: str, entries: Mapping[str, str]) -> tuple[Step, ...]:
    if exercises != "." and os.path.realpath(os.path.join(root, exercises)) != os.path.join(root, exercises):
        return ()  # it leaves the course
    directories = sorted(_step_directories(root, exercises), key=os.fsencode)
    if exercises == "." and not any(_has_readme(root, name) for name in directories):
        # A project with a single README: `data` or `src` beside it are no steps.  (LearnPack takes every directory;
        # but the course must not lose its only step because the student made one.)
        directories = []
    if not directories:
        return (step_from(exercises, _names(root, exercises), 0, entries),)
    return tuple(
        step_from(path, _names(root, path), position, entries)
        for position, path in enumerate(name if exercises == "." else f"{exercises}/{name}" for name in directories)
    )


def _has_readme(root: str, directory: str) -> bool:
    return any("readme" in name.lower() for name in _names(root, directory))


def _step_directories(root: str, exercises: str) -> Iterator[str]:
    at_root = exercises == "."
    for entry in _scan(root, exercises):
        if entry.name.startswith((".", "_")) or not entry.is_dir(follow_symlinks=False):
            continue
        if at_root and (
            entry.name in SKIPPED_DIRECTORIES or os.path.lexists(os.path.join(entry.path, ENVIRONMENT_MARK))
        ):
            continue
        yield entry.name


def _names(root: str, path: str) -> list[str]:
    """The names of the files in a directory, in byte order; without what tools leave there for a moment."""
    try:
        names = [e.name for e in _scan(root, path) if not e.is_dir(follow_symlinks=False) and not is_transient(e.name)]
    except CourseError:
        if path == ".":
            raise
        return []  # a step that can't be read keeps its position
    return sorted(names, key=os.fsencode)


def _scan(root: str, path: str) -> Iterator[os.DirEntry[str]]:
    absolute = root if path == "." else os.path.join(root, path)
    try:
        with os.scandir(absolute) as entries:
            yield from entries
    except FileNotFoundError:
        return  # it went away while the course was read; who watches reads again
    except PermissionError:
        raise CourseError(f"{one_line(absolute)}: no permission to read this directory", permission=True) from None
    except OSError as error:
        raise CourseError(f"{one_line(absolute)}: cannot be read: {error.strerror}") from None


# --- the test runners' own configuration ---

#: pytest's default for `python_files`.
_PYTEST_DEFAULT = ("test_*.py", "*_test.py")


#: Reads the settings in a file's text; None where it has none for pytest.
_Reader = Callable[[str], Mapping[str, Any] | None]


def _from_ini(section: str) -> _Reader:
    def read(text: str) -> Mapping[str, Any] | None:
        from configparser import Error, RawConfigParser

        parser = RawConfigParser(strict=False, allow_no_value=True)
        try:
            parser.read_string(text)
        except Error as error:
            raise ValueError(str(error)) from None
        return dict(parser.items(section)) if parser.has_section(section) else None

    return read


def _from_toml(*tables: tuple[str, ...]) -> _Reader:
    def read(text: str) -> Mapping[str, Any] | None:
        import tomllib

        document = tomllib.loads(text)
        for keys in tables:
            table: Any = document
            for key in keys:
                table = table.get(key) if isinstance(table, dict) else None
            if isinstance(table, dict) and table.keys() - {"ini_options"}:
                return table
        return None

    return read


#: Where pytest 9 finds its configuration: the first file that has any counts, and the ones of its own name always do.
_PYTEST_FILES: tuple[tuple[str, bool, _Reader], ...] = (
    ("pytest.toml", True, _from_toml(("pytest",))),
    (".pytest.toml", True, _from_toml(("pytest",))),
    ("pytest.ini", True, _from_ini("pytest")),
    (".pytest.ini", True, _from_ini("pytest")),
    ("pyproject.toml", False, _from_toml(("tool", "pytest"), ("tool", "pytest", "ini_options"))),
    ("tox.ini", False, _from_ini("pytest")),
    ("setup.cfg", False, _from_ini("tool:pytest")),
)


def _pytest_settings(root: str, names: list[str]) -> Mapping[str, Any]:
    """pytest's own configuration here.  One that can't be read says nothing."""
    for name, decides, read in _PYTEST_FILES:
        if name not in names:
            continue
        try:
            found = read(_text(os.path.join(root, name)))
        except (OSError, ValueError, RecursionError):  # pytest itself refuses to run with such a file
            return {}
        if found is not None or decides:
            return found or {}
    return {}


def _patterns(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(item for item in value if isinstance(item, str))
    return tuple(value.split()) if isinstance(value, str) else ()


def _arguments(value: object) -> tuple[str, ...]:
    """pytest's `addopts`: a text as in a shell, or (TOML) a list.  With quotes that don't close pytest does not run."""
    if not isinstance(value, str):
        return _patterns(value)
    import shlex

    try:
        return tuple(shlex.split(value))
    except ValueError:
        return ()


def _is_jest_configured(root: str, names: list[str]) -> bool:
    if any(name.startswith("jest.config.") for name in names):
        return True
    if "package.json" not in names:
        return False
    try:
        package = read_as_node(_text(os.path.join(root, "package.json")).encode(), orjson.loads)
    except (OSError, ValueError):
        return False
    return isinstance(package, dict) and "jest" in package


def _text(path: str) -> str:
    """Raises OSError, also where it is too large to be a configuration."""
    _, content = read_regular(path, CONFIG_LIMIT, follow=True)
    if content is None:
        raise OSError(0, "too large", path)
    return content.decode("utf-8", "replace")
