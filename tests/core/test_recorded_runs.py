"""What LearnPack's own telemetry tells of: runs that nobody saw, and the talk with the AI tutor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import events, observations
from agent.core.events import AiInteraction, Compile, Interaction, OpenStep, Output
from agent.core.inference import Inference
from agent.core.observations import (
    AgentStarted,
    ClockJumped,
    CourseRead,
    InteractionRecorded,
    Observation,
    RunRecorded,
)

from .world import BOX, COURSE, EXEC_CHILD, SERVER, conclude, events_of, executed, exited, queue

SERVED: list[Observation] = [
    AgentStarted(0),
    CourseRead(0, COURSE),
    executed(100, 10, SERVER),
    queue(150, "initializing"),
    queue(200, "initializing", "start_exercise 01-hello"),
]
RUN = RunRecorded(9_000, "01-hello", "compile", 1_000, 1_250, 0, "print(1)", "1\n", None)
NARROW = replace(COURSE, pytest_options=("-k", "easy"))
TEST = RunRecorded(9_000, "01-hello", "test", 2_000, 2_900, 0)


def compared_at(at: int, digest: str, differs: bool | None) -> observations.TestsCompared:
    file = observations.ComparedTest(
        "exercises/01-hello/test.py", digest, differs, "git" if differs is not None else ""
    )
    return observations.TestsCompared(at, (file,))


def test_a_run_that_nobody_saw_is_an_event_with_what_learnpack_kept_of_it() -> None:
    *_, event = events_of([*SERVED, RUN])
    assert isinstance(event, Compile)
    run = event.run
    assert (event.at, run.started_at, run.ended_at, run.exit_code, run.origin) == (1_250, 1_000, 1_250, 0, "learnpack")
    assert (run.source_code, run.stdout, run.stderr, run.output) == ("print(1)", "1\n", None, Output.PARTIAL)
    assert event.evidence[0].words == "LearnPack's own telemetry.json tells of it; it was not seen"


def test_a_passed_test_that_nobody_saw_completes_its_step() -> None:
    assert conclude([*SERVED, TEST])[2:] == ["test 01-hello 0 @2000-2900 learnpack", "complete_step 01-hello @2900"]


@pytest.mark.parametrize("code", [1, None])
def test_one_that_did_not_pass_completes_nothing(code: int | None) -> None:
    assert not any("complete" in event for event in conclude([*SERVED, replace(TEST, exit_code=code)]))


def test_it_opens_a_step_that_nobody_had_opened_but_no_session() -> None:
    other = replace(RUN, slug="04-more")
    assert conclude([AgentStarted(8_000), CourseRead(8_000, COURSE), other]) == [
        "open_step 04-more @1000",
        "compile 04-more 0 @1000-1250 learnpack",
    ]


def test_a_run_of_a_step_that_is_no_more_stays_in_the_document_only() -> None:
    assert conclude([*SERVED, replace(RUN, slug="99-gone")])[2:] == []


def test_a_run_that_is_journaled_already_is_no_second_one_but_completes_what_it_proves() -> None:
    assert conclude([*SERVED, replace(RUN, was_seen=True)])[2:] == []
    assert conclude([*SERVED, replace(TEST, was_seen=True)])[2:] == ["complete_step 01-hello @2900"]


def test_a_run_of_a_step_that_was_renamed_meanwhile_is_of_the_step_that_it_was() -> None:
    renamed = replace(COURSE, steps=(*COURSE.steps[:1], *COURSE.steps[2:]))
    story = [*SERVED, CourseRead(500, renamed), RUN]
    assert conclude(story)[2:] == ["compile 01-hello 0 @1000-1250 learnpack"]


@pytest.mark.parametrize("was_seen", [False, True])
def test_where_pytest_is_configured_to_take_a_part_a_pass_completes_nothing(was_seen: bool) -> None:
    begin = [one if not isinstance(one, CourseRead) else CourseRead(0, NARROW) for one in SERVED]
    lines = conclude([*begin, replace(TEST, was_seen=was_seen)])[2:]
    assert lines == ([] if was_seen else ["test 01-hello 0 @2000-2900 learnpack"])
    javascript = replace(TEST, slug="02-js", was_seen=was_seen)  # jest knows nothing of it
    assert conclude([*begin, javascript])[-1] == "complete_step 02-js @2900"


def test_the_same_run_concluded_after_the_clock_was_set_is_no_second_one() -> None:
    hour = 3_600_000
    story: list[Observation] = [
        *SERVED,
        executed(1_000, 20, BOX, parent=10),
        executed(1_080, 21, "python exercises/01-hello/app.py", parent=20, terminal=False),
        RUN,
        ClockJumped(hour + 1_100, hour),
        exited(hour + 1_240, 21, 0),
        exited(hour + 1_243, 20, signal=15),
    ]
    assert [line for line in conclude(story) if "compile" in line] == ["compile 01-hello 0 @1000-1250 learnpack"]


def test_the_same_run_concluded_later_is_no_second_one() -> None:
    box: list[Observation] = [
        executed(1_000, 20, BOX, parent=10),
        executed(1_080, 21, "python exercises/01-hello/app.py", parent=20, terminal=False),
    ]
    ends: list[Observation] = [exited(1_240, 21, 0), exited(1_243, 20, signal=15)]
    assert conclude([*SERVED, *box, RUN, *ends])[2:] == ["compile 01-hello 0 @1000-1250 learnpack"]
    # Another one is another one.
    again: list[Observation] = [
        executed(20_000, 30, EXEC_CHILD, parent=10, terminal=False),
        executed(20_060, 31, "pytest exercises/01-hello/test.py", parent=30, terminal=False),
        exited(20_500, 31, 1),
        exited(20_503, 30, 1),
    ]
    assert conclude([*SERVED, *box, RUN, *ends, *again])[3:] == ["test 01-hello 1 @20000-20503 learnpack"]


def test_a_question_to_the_tutor_is_an_event() -> None:
    talk = Interaction(3_000, 4_000, "why?", "because", "print(1)")
    *_, event = events_of([*SERVED, InteractionRecorded(9_000, "01-hello", talk)])
    assert isinstance(event, AiInteraction)
    assert (event.at, event.step.slug, event.interaction) == (4_000, "01-hello", talk)
    assert events_of([*SERVED, InteractionRecorded(9_000, "99-gone", talk)])[2:] == []


def compared_test(digest: str, differs: bool | None, compared_with: str = "") -> observations.TestsCompared:
    file = observations.ComparedTest("exercises/01-hello/test.py", digest, differs, compared_with)
    return observations.TestsCompared(300, (file,))


def test_modified_tests_are_told_of_a_test_and_of_the_completion() -> None:
    compared = compared_test("a", True, "git")
    test, completed = events_of([*SERVED, compared, TEST])[2:]
    assert (test.run.tests_modified, completed.tests_modified) == (True, True)  # type: ignore[union-attr]
    test, completed = events_of([*SERVED, compared_test("a", False, "git"), TEST])[2:]
    assert (test.run.tests_modified, completed.tests_modified) == (False, False)  # type: ignore[union-attr]
    test, completed = events_of([*SERVED, TEST])[2:]
    assert (test.run.tests_modified, completed.tests_modified) == (None, None)  # type: ignore[union-attr]


def test_without_the_courses_own_the_first_content_counts_also_after_a_restart() -> None:
    first = compared_test("a", None)
    inference = Inference()
    assert not [event for event in events_of([*SERVED, first], inference=inference) if isinstance(event, events.Test)]
    again = Inference.resumed(inference.snapshot())
    begin: list[Observation] = [AgentStarted(9_000), CourseRead(9_000, COURSE)]
    changed = replace(compared_test("b", None), at=9_100)
    tests = [one for one in events_of([*begin, changed, TEST], inference=again) if isinstance(one, events.Test)]
    assert tests[0].run.tests_modified is True
    same = [
        one for one in events_of([first, replace(TEST, started_at=1)], inference=again) if isinstance(one, events.Test)
    ]
    assert same[0].run.tests_modified is False


def test_an_opening_before_the_current_one_leaves_the_student_where_he_is() -> None:
    inference = Inference()
    concluded = events_of([*SERVED, replace(RUN, slug="04-more", started_at=50, ended_at=60)], inference=inference)
    assert isinstance(concluded[-2], OpenStep) and concluded[-2].at == 50
    assert inference.snapshot().visits[-1][1] == "01-hello"
