"""What the evidence of a run says: words that a teacher can read, and no path of anybody's home."""

from __future__ import annotations

import pytest

from agent.core import events as told
from agent.core.events import Compile, SessionEnd, SessionStart
from agent.core.observations import AgentStarted, CourseRead, Observation, ProcessExited

from .world import BOX, COURSE, EXEC_CHILD, SERVER, events_of, executed, exited

BEGIN: list[Observation] = [AgentStarted(0), CourseRead(0, COURSE)]
LEARNPACK: list[Observation] = [*BEGIN, executed(5, 10, SERVER, terminal=False)]
HELLO = "/c/exercises/01-hello"
JEST = '--config={"rootDir":"/c","testRegex":"exercises/02-js/tests.js","reporters":[["default",{"x":"y"}]]}'


def words_of(*observations: Observation) -> list[str]:
    """The words of the last run's evidence."""
    (*_, run) = (event for event in events_of(observations, until=100_000) if isinstance(event, Compile | told.Test))
    return [one.words for one in run.evidence]


def test_a_test_in_learnpack() -> None:
    argv = [
        "/usr/bin/python3",
        "/home/ada/.venv/bin/pytest",
        "./exercises/01-hello/test.py",
        "--testdox",
        "-p",
        "no",
        "x",
    ]
    assert words_of(
        *LEARNPACK,
        executed(100, 11, EXEC_CHILD, parent=10, terminal=False),
        executed(120, 12, ["/bin/sh", "-c", "pytest ./exercises/01-hello/test.py"], parent=11, terminal=False),
        executed(130, 13, argv, parent=12, terminal=False),
        exited(400, 13, 1),
        exited(405, 12, 1),
        exited(410, 11, 1),
    ) == [
        "LearnPack started a command (process 11)",
        "LearnPack started a test: python3 pytest ./exercises/01-hello/test.py --testdox -p no ... (process 13)",
        "the test ended without success, exit code 1 (process 13)",
        "LearnPack's command was over (process 11)",
    ]


def test_a_build_in_learnpack_whose_box_is_always_ended_by_a_signal() -> None:
    assert words_of(
        *LEARNPACK,
        executed(100, 11, BOX, parent=10, terminal=False),
        executed(180, 12, ["python", f"{HELLO}/app.py"], parent=11, terminal=False),
        exited(300, 12, 0),
        exited(310, 11, signal=15),
    ) == [
        "LearnPack started a build (process 11)",
        "LearnPack started a program: python exercises/01-hello/app.py (process 12)",
        "the program ended well, exit code 0 (process 12)",
        "LearnPack's build was over (process 11)",
    ]


def test_a_test_that_an_editor_started_in_the_steps_directory() -> None:
    assert words_of(
        *BEGIN,
        executed(100, 11, ["python3", "-m", "pytest", "test.py"], cwd=HELLO, terminal=False),
        exited(300, 11, 0),
    )[0] == (
        "a test in exercises/01-hello was started, but not from a terminal: python3 -m pytest test.py (process 11)"
    )


def test_a_program_in_a_terminal_by_way_of_a_version_manager() -> None:
    assert words_of(
        *BEGIN,
        executed(100, 11, ["bash", "/home/ada/.pyenv/shims/python", "app.py"], cwd=HELLO),
        executed(
            130, 11, ["/usr/bin/env", "bash", "/home/ada/.pyenv/libexec/pyenv", "exec", "python", "app.py"], cwd=HELLO
        ),
        executed(190, 11, ["/home/ada/.pyenv/versions/3.11.7/bin/python3.11", "app.py"], cwd=HELLO),
        exited(300, 11, 1),
    ) == [
        "in a terminal the student started a program in exercises/01-hello: python app.py (process 11)",
        "it went on as python app.py (process 11)",
        "it went on as python3.11 app.py (process 11)",
        "the program ended with an error, exit code 1 (process 11)",
    ]


def test_a_test_that_an_editor_started() -> None:
    assert words_of(
        *BEGIN,
        executed(100, 11, ["node", "/usr/lib/node_modules/jest/bin/jest.js", JEST], terminal=False),
        exited(300, 11, 0),
    ) == [
        "a test was started, but not from a terminal: node jest.js"
        ' --config={"rootDir":"/c","testRegex":"exercises/02-js/tes... (process 11)',
        "the test ended well, exit code 0 (process 11)",
    ]


def test_a_program_that_ran_before_the_agent_and_whose_exit_code_nobody_saw() -> None:
    assert words_of(
        *BEGIN,
        executed(100, 11, ["python", "app.py"], cwd=HELLO, found=True, started_at=50),
        ProcessExited(300, 11, 110, exact=False),
    ) == [
        "a program in exercises/01-hello was running when the agent looked: python app.py (process 11)",
        "the program was over; its exit code could not be seen (process 11)",
    ]


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (2, "the program was stopped by signal 2, Ctrl-C (process 11)"),
        (9, "the program was stopped by signal 9, killed (process 11)"),
        (11, "the program was stopped by signal 11, it crashed (process 11)"),
        (42, "the program was stopped by signal 42 (process 11)"),
    ],
)
def test_a_program_that_was_stopped(signal: int, words: str) -> None:
    assert words_of(*BEGIN, executed(1, 11, f"python {HELLO}/app.py"), exited(2, 11, signal=signal))[-1] == words


def test_learnpack_itself() -> None:
    events = events_of([*LEARNPACK, exited(900, 10, 0)])
    assert [(event.name, [one.words for one in event.evidence]) for event in events] == [
        (SessionStart.name, ["LearnPack was started (process 10)"]),
        (SessionEnd.name, ["LearnPack ended well, exit code 0 (process 10)"]),
    ]
    found = events_of([*BEGIN, executed(50, 10, SERVER, found=True, started_at=5), exited(900, 10, signal=9)])
    assert [one.words for event in found for one in event.evidence] == [
        "LearnPack was running when the agent looked (process 10)",
        "LearnPack was stopped by signal 9, killed (process 10)",
    ]


def test_a_command_of_odd_words_is_told_as_far_as_it_goes() -> None:
    odd = ["/home/ada/bin/python", "/", f"{HELLO}/app.py", "", "y" * 61, "z" * 60]
    (words, *_) = words_of(*BEGIN, executed(1, 11, ["/home/ada/bin/python", f"{HELLO}/app.py", *odd]), exited(2, 11))
    shown = "python exercises/01-hello/app.py python / exercises/01-hello/app.py  ..."
    assert words == f"in a terminal the student started a program: {shown} (process 11)"
