"""The pieces of LearnPack's document, as the telemetry contract wants them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from agent.core.document import ACTS, DocumentFacts, Session, StepFacts, attempt, head, step_head, workout_sessions
from agent.core.events import EVENT_TYPES, Origin, Output
from agent.core.events import TestResult as Result
from agent.core.learnpack_forms import read_attempt
from tests.making import COURSE, FULL, STEPS, assert_receivable, b64, learnpack_step, ms, run, step
from tests.making import attempt as learnpack_attempt

ID = "0123456789abcdef"


def facts(**more: Any) -> DocumentFacts:
    return DocumentFacts(document_id=ID, at=ms(99), **more)


def test_a_document_of_a_course_in_which_nothing_happened_is_receivable() -> None:
    document = head(COURSE, facts())
    assert document == {
        "telemetry_id": ID,
        "slug": "demo",
        "tutorial_started_at": ms(99),
        "last_interaction_at": ms(99),
        "workout_session": [],
    }
    steps = [step_head(one, StepFacts(one.slug)) for one in STEPS]
    lists: dict[str, Any] = {"compilations": [], "tests": [], "ai_interactions": []}
    assert_receivable({**document, "steps": [one | lists for one in steps]})


@pytest.mark.parametrize(
    ("known", "started", "last"),
    [
        (facts(first_event_at=ms(1)), ms(1), ms(1)),
        (facts(first_event_at=ms(1), last_act_at=ms(5)), ms(1), ms(5)),
        (facts(first_event_at=ms(1), learnpack={"tutorial_started_at": ms(0)}), ms(0), ms(0)),
        (facts(first_event_at=ms(1), last_act_at=ms(5), learnpack={"last_interaction_at": ms(9)}), ms(1), ms(9)),
        (facts(first_event_at=ms(1), last_act_at=ms(9), learnpack={"last_interaction_at": ms(5)}), ms(1), ms(9)),
        (facts(first_event_at=ms(1), learnpack={"last_interaction_at": "2023-11-14T22:13:25Z"}), ms(1), ms(5)),
    ],
)
def test_the_times_of_the_document_are_the_earliest_and_the_latest_known(
    known: DocumentFacts, started: int, last: int
) -> None:
    document = head(COURSE, known)
    assert (document["tutorial_started_at"], document["last_interaction_at"]) == (started, last)


def test_what_learnpack_wrote_at_the_top_stays() -> None:
    theirs = {"telemetry_id": "lp00", "slug": "old-slug", "agent": "vscode", "version": "5.0.1", "cohort_id": None}
    document = head(COURSE, facts(learnpack={**theirs, "user_id": "7", "steps": "?", "workout_session": "?"}))
    assert {key: document[key] for key in theirs} == theirs
    assert document["user_id"] == "7"
    assert document["workout_session"] == []
    assert "steps" not in document


def test_a_user_id_is_there_when_it_is_known_and_absent_otherwise() -> None:
    assert "user_id" not in head(COURSE, facts())
    assert head(COURSE, facts(user_id=7))["user_id"] == 7
    assert head(COURSE, facts(user_id=7, learnpack={"user_id": 8}))["user_id"] == 7


def test_only_a_students_acts_are_interactions() -> None:
    assert set(EVENT_TYPES) - set(ACTS) == {"session_start", "session_end", "complete_step", "gap"}
    assert set(ACTS) <= set(EVENT_TYPES)


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        ([Session(1, 5)], [], [{"started_at": 1, "ended_at": 5}]),
        ([Session(1, None)], [], [{"started_at": 1}]),
        ([], [{"started_at": 1}], [{"started_at": 1}]),
        ([Session(1, 9)], [{"started_at": 3, "ended_at": 7}], [{"started_at": 3, "ended_at": 9}]),
        ([Session(1, 5)], [{"started_at": 3, "ended_at": 7}], [{"started_at": 3, "ended_at": 7}]),
        ([Session(1, 5)], [{"started_at": 3, "x": 1}], [{"started_at": 3, "x": 1, "ended_at": 5}]),
        ([Session(90_000, 95_000)], [{"started_at": 3}], [{"started_at": 3, "ended_at": 95_000}]),
        (
            [Session(90_000, 95_000)],
            [{"started_at": 3, "ended_at": 9}],
            [{"started_at": 3, "ended_at": 9}, {"started_at": 90_000, "ended_at": 95_000}],
        ),
    ],
)
def test_a_session_that_both_saw_is_one_and_ends_at_the_later_end(
    ours: list[Session], theirs: list[dict[str, Any]], merged: list[dict[str, Any]]
) -> None:
    assert workout_sessions(ours, theirs) == merged


def test_a_step_that_was_never_opened_has_no_times_at_all() -> None:
    assert step_head(STEPS[1], StepFacts("01-hello")) == {
        "slug": "01-hello",
        "position": 1,
        "files": [{"path": "exercises/01-hello/app.py", "name": "app.py", "hidden": False}],
        "is_testeable": True,
        "is_completed": False,
        "sessions": [],
    }
    assert step_head(STEPS[0], StepFacts("00-welcome"))["is_testeable"] is False


@pytest.mark.parametrize(
    ("ours", "theirs", "opened", "completed"),
    [
        ({"opened_at": 5}, {}, 5, None),
        ({"opened_at": 5, "completed_at": 9}, {}, 5, 9),
        ({"opened_at": 5}, {"opened_at": 3}, 3, None),
        ({"opened_at": 5}, {"opened_at": 8}, 5, None),
        ({"opened_at": 5, "completed_at": 9}, {"completed_at": 7}, 5, 7),
        ({"opened_at": 5, "completed_at": 3}, {}, 3, 3),  # the clock was set back
        ({"opened_at": 5}, {"completed_at": 4}, 4, 4),
        ({"completed_at": 9}, {}, 9, 9),
        ({"completed_at": 9, "first_run_at": 6}, {}, 6, 9),
        ({"first_run_at": 6}, {}, 6, None),  # LearnPack's position 0: run but never opened
        ({"first_run_at": 6}, {"opened_at": 8}, 6, None),
        ({"first_run_at": 6, "opened_at": 7}, {}, 6, None),
        ({}, {"opened_at": None, "completed_at": None}, None, None),
        ({}, {"opened_at": 0}, None, None),
    ],
)
def test_a_step_is_opened_at_the_earliest_and_never_completed_before(
    ours: dict[str, Any], theirs: dict[str, Any], opened: int | None, completed: int | None
) -> None:
    document = step_head(STEPS[1], StepFacts("01-hello", **ours), theirs)
    assert (document.get("opened_at"), document.get("completed_at")) == (opened, completed)
    assert None not in document.values()


def test_a_step_of_the_course_is_as_the_course_is_now_and_keeps_learnpacks_other_keys() -> None:
    theirs = learnpack_step("01-hello", position=9, is_testeable=False, sessions=[1, 2], is_completed=True)
    document = step_head(STEPS[1], StepFacts("01-hello"), theirs)
    assert (document["position"], document["is_testeable"]) == (1, True)
    assert document["files"][0]["path"] == "exercises/01-hello/app.py"
    assert (document["sessions"], document["is_completed"]) == ([1, 2], True)
    assert not {"compilations", "tests", "ai_interactions"} & document.keys()


def test_a_step_that_the_course_lost_stays_as_it_was_known() -> None:
    assert step_head(None, StepFacts("07-gone", position=7)) == {
        "slug": "07-gone",
        "position": 7,
        "files": [],
        "is_testeable": False,
        "is_completed": False,
        "sessions": [],
    }
    theirs = {"slug": "07-gone", "position": 3, "files": [{"name": "a"}], "is_testeable": True}
    document = step_head(None, StepFacts("07-gone", position=7), theirs)
    assert document == {**theirs, "is_completed": False, "sessions": []}


@pytest.mark.parametrize(
    ("ours", "theirs", "is_completed"),
    [
        ({}, {}, False),
        ({"opened_at": 5}, {"is_completed": False}, False),
        ({"completed_at": 5}, {"is_completed": False}, True),
        ({}, {"completed_at": 5}, True),
        ({}, {"is_completed": True}, True),  # never seen without a time; what LearnPack wrote is not taken back
        ({}, {"is_completed": "yes"}, False),
    ],
)
def test_a_step_is_completed_when_it_has_a_time_of_completion(
    ours: dict[str, Any], theirs: dict[str, Any], is_completed: bool
) -> None:
    assert step_head(STEPS[1], StepFacts("01-hello", **ours), theirs)["is_completed"] is is_completed


@pytest.mark.parametrize(
    ("ours", "theirs", "united"),
    [
        ([], None, []),
        ([10, 20], None, [10, 20]),
        ([10, 20], "?", [10, 20]),
        ([], [30], [30]),
        ([10, 20], [30], [30, 20]),
        ([10, 50], [30, 40, 60], [30, 50, 60]),
        ([10], [10.5, None], [10.5, None]),
        ([10, 20, 30], [None, True, "x"], [10, 20, 30]),
    ],
)
def test_the_visits_of_a_step_are_united_with_learnpacks_and_never_reduced(
    ours: list[int], theirs: Any, united: list[Any]
) -> None:
    learnpack = {} if theirs is None else {"sessions": theirs}
    assert step_head(STEPS[1], StepFacts("01-hello", visits=ours), learnpack)["sessions"] == united
    # and again, when LearnPack hands back what we wrote
    assert step_head(STEPS[1], StepFacts("01-hello", visits=ours), {"sessions": united})["sessions"] == united


def test_a_run_is_written_in_the_one_form() -> None:
    document = attempt(run(1, 2, 1, origin=Origin.TERMINAL, **FULL), f"{ID}-5", omitted=False)
    assert document == {
        "event_id": f"{ID}-5",
        "started_at": ms(1),
        "ended_at": ms(2),
        "exit_code": 1,
        "signal": None,
        "origin": "terminal",
        "output": "full",
        "source_code": "cHJpbnQoJ8OxYW5kw7onKQo=",
        "stdout": b64("ñandú\n"),
        "stderr": "",
    }


def test_a_test_tells_its_single_results_and_whether_the_tests_are_the_courses_own() -> None:
    results = (Result("test.py::test_a", "passed"), Result("test.py::test_caf\udce9", "failed"))
    document = attempt(run(1, 2, 1, results=results, tests_modified=False), "x-1", omitted=False)
    assert document["results"] == [
        {"name": "test.py::test_a", "status": "passed"},
        {"name": "test.py::test_caf\ufffd", "status": "failed"},
    ]
    assert document["tests_modified"] is False
    bare = attempt(run(1, 2, 1), "x-1", omitted=False)
    assert not {"results", "tests_modified"} & bare.keys()
    omitted = attempt(run(1, 2, 1, results=results, tests_modified=True), "x-1", omitted=True)
    assert "results" not in omitted
    assert (omitted["omitted"], omitted["tests_modified"]) == (True, True)


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        ({"stdout": "ab", "stdout_size": 2, "output": Output.FULL}, {}),
        ({"stdout": "\ufffd", "stdout_size": 1, "output": Output.FULL}, {}),  # undecodable, but all of it
        ({"stdout": "ñ", "stdout_size": 2, "stderr": "e", "stderr_size": 1, "output": Output.PARTIAL}, {}),
        (
            {"stdout": "a...z", "stdout_size": 9000, "stderr": "e", "stderr_size": 1, "output": Output.PARTIAL},
            {"stdout_size": 9000},
        ),
        ({"stdout_size": 9000, "stderr_size": 0}, {"stdout_size": 9000}),
    ],
)
def test_how_much_was_printed_is_told_where_not_all_of_it_is_there(
    texts: dict[str, Any], sizes: dict[str, int]
) -> None:
    document = attempt(run(1, 2, 0, **texts), "x-1", omitted=False)
    assert {key: document[key] for key in document if key.endswith("_size")} == sizes


def test_a_run_without_captured_output_has_empty_texts_and_says_so() -> None:
    assert attempt(run(1, 2, 0, whole=True), "x-1", omitted=True)["whole"] is True, "`repair` goes by it"
    assert "whole" not in attempt(run(1, 2, 0), "x-1", omitted=False)
    document = attempt(run(1, 2, None, signal=9), "x-1", omitted=False)
    assert (document["source_code"], document["stdout"], document["stderr"]) == ("", "", "")
    assert document["output"] == "none"
    assert (document["exit_code"], document["signal"]) == (None, 9)
    assert "omitted" not in document


def test_a_run_whose_end_was_not_seen_ends_where_it_began_and_says_so() -> None:
    document = attempt(run(1, None), "x-1", omitted=False)
    assert (document["ended_at"], document["end"]) == (ms(1), "unknown")
    known = attempt(run(1, None), "x-1", read_attempt(learnpack_attempt(1, 3), "test"), omitted=False)
    assert known["ended_at"] == ms(3)
    assert "end" not in known


def test_a_run_never_ends_before_it_began() -> None:
    document = attempt(run(5, 3), "x-1", omitted=False)
    assert (document["started_at"], document["ended_at"]) == (ms(5), ms(5))
    assert "end" not in document


def test_texts_that_are_left_out_are_marked() -> None:
    document = attempt(run(1, 2, output=Output.FULL), "x-1", omitted=True)
    assert (document["omitted"], document["stdout"], document["output"]) == (True, "", "full")


def test_what_learnpack_recorded_of_the_same_run_stays_beside_ours() -> None:
    theirs = read_attempt(learnpack_attempt(1, 2, 3, stdout=b64("theirs"), errorType="run-time", memoryUsage=5), "test")
    document = attempt(run(1.004, 1.998, 3), f"{ID}-5", theirs, omitted=False)
    assert {key: document[key] for key in theirs} == theirs
    assert document["event_id"] == f"{ID}-5"
    assert document["origin"] == "learnpack"
    assert document["output"] == "partial"


def test_our_exit_code_fills_in_for_learnpacks_unknown_one() -> None:
    theirs = read_attempt(learnpack_attempt(1, 2, None), "compile")
    document = attempt(run(1, 2, None, signal=15), "x-1", theirs, omitted=False)
    assert (document["exit_code"], document["signal"]) == (None, 15)
    assert attempt(run(1, 2, 4), "x-1", theirs, omitted=False)["exit_code"] == 4


def test_our_texts_win_where_we_have_them() -> None:
    theirs = read_attempt(learnpack_attempt(1, 2, 1, stdout=b64("All tests passed"), stderr=b64("list")), "test")
    document = attempt(run(1, 2, 1, **FULL), "x-1", theirs, omitted=False)
    assert (document["stdout"], document["output"]) == (b64("ñandú\n"), "full")
    assert document["stderr"] == ""  # we know that there was none


def test_learnpacks_texts_show_where_ours_are_left_out() -> None:
    theirs = read_attempt(learnpack_attempt(1, 2, 1, stderr=b64("e")), "test")
    document = attempt(run(1, 2, 1, output=Output.FULL), "x-1", theirs, omitted=True)
    assert document["stdout"] == b64("out")
    assert "omitted" not in document


def test_undecodable_text_becomes_valid() -> None:
    document = attempt(run(1, 2, stdout="caf\udce9", output=Output.FULL), "x-1", omitted=False)
    assert base64.b64decode(document["stdout"]).decode() == "caf\ufffd"
    odd = step("01-caf\udce9", 1)
    assert step_head(odd, StepFacts(odd.slug))["files"][0]["path"] == "exercises/01-caf\ufffd/app.py"
