"""What pytest leaves behind tells which tests failed, where that is sure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.course import ENTRIES, Course, step_from
from agent.core.pytest_results import PytestRun, failed_in_output, pytest_run, surely_failed

TEST = "exercises/01-a/test.py"
COURSE = Course(root="/c", slug="c", steps=(step_from("exercises/01-a", ["app.py", "test.py"], 0, ENTRIES),))


@pytest.mark.parametrize(
    ("line", "cwd", "run"),
    [
        (
            "pytest ./exercises/01-a/test.py --testdox --capture=sys --color=yes --stdin=[]",
            "/c",
            PytestRun((TEST,), True),
        ),
        ("python -m pytest test.py", "/c/exercises/01-a", PytestRun((TEST,), True)),
        ("/v/bin/python /v/bin/pytest -q exercises/01-a/test.py", "/c", PytestRun((TEST,), True)),
        ("env pytest exercises/01-a/test.py", "/c", PytestRun((TEST,), True)),
        ("coverage run -m pytest exercises/01-a/test.py", "/c", PytestRun((TEST,), True)),
        ("pytest -k it exercises/01-a/test.py", "/c", PytestRun((TEST,), False)),
        ("pytest -x exercises/01-a/test.py", "/c", PytestRun((TEST,), False)),
        ("pytest -vx exercises/01-a/test.py", "/c", PytestRun((TEST,), False)),
        ("pytest --maxfail=1 exercises/01-a/test.py", "/c", PytestRun((TEST,), False)),
        ("pytest --maxfail 1 exercises/01-a/test.py", "/c", PytestRun((TEST,), False)),
        ("pytest exercises/01-a/test.py::test_it", "/c", PytestRun((TEST,), False)),
        ("pytest --collect-only exercises/01-a/test.py", "/c", None),
        ("pytest --version", "/c", None),
        ("pytest test.py", "/elsewhere", None),
        ("python exercises/01-a/app.py", "/c", None),
        ("bash pyenv-which pytest", "/c", None),
        ("cat pytest", "/c/exercises/01-a", None),
        ("", "/c", None),
    ],
)
def test_which_command_runs_pytest_and_whether_it_runs_all(line: str, cwd: str, run: PytestRun | None) -> None:
    assert pytest_run(COURSE, line.split(), cwd) == run


def test_a_configuration_that_stops_at_the_first_failure_is_known() -> None:
    course = replace(COURSE, pytest_options=("-q", "-x"))
    assert pytest_run(course, ["pytest", TEST], "/c") == PytestRun((TEST,), False)


TEXT = """
import unittest
def test_it(app): ...
    # @mark
async def test_later(): ...
class TestAll(unittest.TestCase):
    def test_inside(self): ...
"""


def failed(before: str, after: str, collected: str = "", *, all_run: bool = True, text: str = TEXT) -> tuple[str, ...]:
    def ids(names: str) -> list[str]:
        return ["test.py" if name == "." else f"test.py::{name}" for name in names.split()]

    found = surely_failed(
        {"test.py": TEST},
        ids(before),
        [*ids(after), "other.py::test_it"],
        ids(collected),
        {TEST: text},
        all_run=all_run,
    )
    assert all(test.startswith(TEST + "::") for test in found)
    return tuple(test.removeprefix(TEST + "::") for test in found)


@pytest.mark.parametrize(
    ("before", "after", "collected", "sure"),
    [
        ("", "test_it", "test_it", "test_it"),
        ("test_it", "test_it", "test_it", "test_it"),
        ("test_later TestAll::test_inside", "test_later TestAll::test_inside", "", "test_later TestAll::test_inside"),
        # renamed, or its class was
        ("test_old", "test_old test_it", "test_old test_it", "test_it"),
        ("TestOld::test_inside", "TestOld::test_inside", "", ""),
        ("test_in", "test_in", "", ""),  # no name is a part of another
        # one parameter only, and so it must have run; several, and any may be of another time
        ('test_it[["5"]]', 'test_it[["5"]]', 'test_it[["5"]]', 'test_it[["5"]]'),
        ("test_it[a]", "test_it[a]", "test_it[a] test_it[b]", ""),
        ("test_it[a]", "test_it[a] test_it[b]", "test_it[a] test_it[b]", "test_it[b]"),
        ('test_it[["a::b"]]', 'test_it[["a::b"]]', 'test_it[["a::b"]]', 'test_it[["a::b"]]'),
        # the file could not be imported before, or now: no test of it
        (".", "test_it", "test_it", "test_it"),
        ("", ".", "", ""),
    ],
)
def test_only_what_surely_failed_in_this_run_is_told(before: str, after: str, collected: str, sure: str) -> None:
    assert failed(before, after, collected) == tuple(sure.split())


@pytest.mark.parametrize(
    ("before", "after", "sure"),
    [
        ("", "test_it", "test_it"),
        ("test_it", "test_it", ""),  # it may not have been selected
        # a file that can be imported again: all its tests are listed, whether they ran or not
        (".", "test_it test_later", ""),
        ("TestAll", "TestAll::test_inside test_it", "test_it"),
    ],
)
def test_a_run_that_left_tests_out_tells_of_new_failures_only(before: str, after: str, sure: str) -> None:
    assert failed(before, after, all_run=False) == tuple(sure.split())


def test_without_the_test_files_text_an_old_failure_is_not_sure() -> None:
    assert failed("test_it", "test_it", text="") == ()


COLOURED = (
    "\x1b[1mcollected 3 items\x1b[0m\n\n"
    "=========================== short test summary info ============================\n"
    "FAILED a/test.py::test_printed_by_the_student - no\n"
    "\x1b[36m\x1b[1m=========================== short test summary info ============================\x1b[0m\n"
    "\x1b[31mFAILED\x1b[0m exercises/01-a/test.py::\x1b[1mtest_it\x1b[0m - assert False == True\n"
    '\x1b[31mFAILED\x1b[0m exercises/01-a/test.py::\x1b[1mtest_ten[["a - b"]-cached_app]\x1b[0m - Error: [x] - [y]\n'
    "\x1b[31mERROR\x1b[0m exercises/01-a/test.py::\x1b[1mTestAll::test_inside\x1b[0m - fixture 'x' not found\n"
    "\x1b[31mERROR\x1b[0m exercises/01-a/test.py::\x1b[1mtest_it\x1b[0m - at teardown\n"
    "\x1b[31mERROR\x1b[0m exercises/01-a/other.py\n"
    "\x1b[31m============================== \x1b[31m\x1b[1m2 failed\x1b[0m in 0.16s\x1b[0m ====\x1b[0m\n"
)

PLAIN = """
=========================== short test summary info ============================
FAILED a/test.py::test_it - assert [1] == [2]
FAILED a/test.py::test_ten[["5 - 6"]] - assert [1] == [2]
FAILED a/test.py::test_bare
FAILED a/test.py::test_bare[x y]
PASSED a/test.py::test_well
ERROR a/test.py - SyntaxError: a::b
========================= 4 failed, 1 error in 0.05s =========================
"""


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        (
            COLOURED,
            (f"{TEST}::test_it", f'{TEST}::test_ten[["a - b"]-cached_app]', f"{TEST}::TestAll::test_inside"),
        ),
        (
            PLAIN,
            (
                "a/test.py::test_it",
                'a/test.py::test_ten[["5 - 6"]]',
                "a/test.py::test_bare",
                "a/test.py::test_bare[x y]",
            ),
        ),
        ("=== 3 passed in 0.02s ===\n", None),
        ("FAILED a/test.py::test_it - printed by a program\n", None),
        ("=== short test summary info ===\nERROR a/test.py\n!!! Interrupted: 1 error during collection !!!\n", ()),
        ("", None),
    ],
)
def test_the_summary_of_what_pytest_prints_names_the_tests_that_failed(
    text: str, tests: tuple[str, ...] | None
) -> None:
    assert failed_in_output(text) == tests
