"""Which tests failed, from what pytest leaves behind: its cache, and the summary at the end of what it prints.

`.pytest_cache/v/cache` in pytest's rootdir has two files.  `nodeids`: the ids of all tests that were ever collected
there, written anew at the end of each session, whatever its result (`NFPlugin.pytest_sessionfinish`, the same in 6.2.5,
7.0, 7.4, 8.0, 8.4, 9.2), but not with `--collect-only`, `--cache-show` or `-p no:cacheprovider`.  `lastfailed`: the ids
of the tests that failed when they last ran.  A test that passes or is skipped leaves it; one that did not run stays:
it was renamed, got another parameter, was not selected.  So an id there may be stale, and here is decided which isn't.

Known to be weak: options that come from the environment (`PYTEST_ADDOPTS=-x`) are not known; a test's name in a
nested function counts as its definition.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .commands import Purpose, purpose_of
from .course import Course
from .runners import PYTEST, parse, words

_STOPS_EARLY = words("-x --exitfirst --maxfail")

_HEADER = re.compile(r"^(?:\x1b\[[\d;]*m)*=+ short test summary info =+", re.MULTILINE)
_LINE = re.compile(r"^(?:\x1b\[[\d;]*m)*(?:FAILED|ERROR)(?:\x1b\[0m)* (.+)$", re.MULTILINE)
_BOLD_NAME = re.compile(r"(.*?::)\x1b\[1m(.*?)\x1b\[0m")


@dataclass(frozen=True, slots=True)
class PytestRun:
    """A command that runs pytest.  `targets` are its test files, relative to the course's root; `all_run` says that
    the command leaves none of their tests out."""

    targets: tuple[str, ...]
    all_run: bool


def pytest_run(course: Course, argv: Sequence[str], cwd: str | None) -> PytestRun | None:
    """What a command tests with pytest; None for any other command."""
    at = next((index for index, word in enumerate(argv[:16]) if word.endswith(("pytest", "py.test"))), None)
    if at is None:
        return None
    purpose = purpose_of(course, argv, cwd)
    if not isinstance(purpose, Purpose) or purpose.tool != PYTEST.name or not purpose.exit_tells:
        return None
    stops_early = parse((*course.pytest_options, *argv[at + 1 :]), PYTEST.options).has(_STOPS_EARLY)
    return PytestRun(purpose.targets, purpose.whole and not stops_early)


def surely_failed(
    paths: Mapping[str, str],
    before: Collection[str],
    after: Collection[str],
    collected: Collection[str],
    texts: Mapping[str, str],
    *,
    all_run: bool,
) -> tuple[str, ...]:
    """Of the ids in `lastfailed` after a session that ended with exit code 1, those that failed in it for sure.

    `paths`: the test files of this run, from their names in ids to their paths relative to the course's root; the ids
    that are returned begin with the latter.  `before` and `after` are `lastfailed`, `collected` is `nodeids`.  `texts`
    are the test files, by the latter names, as they were at the start of the run.

    An id that is new failed now.  One that was there before failed again if its test must have run, and then it would
    have left the list had it passed: nothing was left out, its name is still defined, and it has no parameter, or no
    other was ever seen (LearnPack's conftest.py makes a parameter of the student's answers, another id for each).
    """
    sure = []
    for test in after:
        path, _, name = test.partition("::")
        if path not in paths or not name:
            continue
        bare, bracket, _ = name.partition("[")
        if test in before:
            is_only_one = not bracket or sum(one.startswith(f"{path}::{bare}[") for one in collected) == 1
            ran = all_run and is_only_one and _is_defined(bare, texts.get(paths[path], ""))
        else:
            # When a file that could not be imported can be again, pytest lists all its tests until they have run.
            ran = all_run or not any(parent in before for parent in _parents(path, bare))
        if ran:
            sure.append(f"{paths[path]}::{name}")
    return tuple(sure)


def _parents(path: str, name: str) -> Iterator[str]:
    yield path
    for class_name in name.split("::")[:-1]:
        path = f"{path}::{class_name}"
        yield path


def _is_defined(name: str, text: str) -> bool:
    *classes, function = name.split("::")
    return re.search(rf"^\s*(?:async\s+)?def\s+{re.escape(function)}\b", text, re.MULTILINE) is not None and all(
        re.search(rf"^\s*class\s+{re.escape(one)}\b", text, re.MULTILINE) for one in classes
    )


def failed_in_output(text: str) -> tuple[str, ...] | None:
    """The ids of the tests that failed, from the short summary at the end of what pytest printed; None where there is
    none.  The paths in them are relative to pytest's working directory: the course's root where LearnPack ran it.

    With colours (LearnPack asks for them) pytest 7.3 and later prints the name in bold; else it ends before the first
    " - " that is in no parameter.
    """
    headers = list(_HEADER.finditer(text))
    if not headers:
        return None
    ids: dict[str, None] = {}
    for line in _LINE.finditer(text, headers[-1].end()):  # a test may print the like; the last one is pytest's own
        found = _BOLD_NAME.match(line[1])
        test = found[1] + found[2] if found is not None else _plain_name(line[1])
        if "::" in test:  # else the file itself: it could not be imported
            ids[test] = None
    return tuple(ids)


def _plain_name(line: str) -> str:
    end, bracket = line.find(" - "), line.find("[")
    if bracket != -1 and (end == -1 or bracket < end):
        end = line.find("] - ")
        return line[: end + 1] if end != -1 else line
    return line[:end] if end != -1 else line
