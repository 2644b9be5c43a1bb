"""A damaged or old document becomes one that everybody can read, and each change is a line."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.course import Course
from agent.core.learnpack_forms import LISTS, decoded
from agent.core.mending import shown, time_of
from agent.core.repair import Repaired, repair
from tests.making import COURSE, attempt, b64, learnpack_document, learnpack_step, ms, step

ID = "newnewnewnewnewn"
WRITTEN = ms(5000)


def repaired(document: Any, course: Course = COURSE) -> Repaired:
    """The result, after everything that holds for every result was checked."""
    before = copy.deepcopy(document)
    found = repair(document, course, telemetry_id=ID, at=WRITTEN)
    assert document == before, "what is given is not changed"
    # As texts, because 3.0 == 3 and True == 1.
    same = json.dumps(found.document, sort_keys=True) == json.dumps(before, sort_keys=True)
    assert same == (not found.changes), found.changes
    again = repair(found.document, course, telemetry_id="another", at=WRITTEN + 1)
    assert (again.changes, again.document) == ((), found.document)
    assert_receivable(found.document, course)
    return found


def assert_receivable(document: Any, course: Course) -> None:
    """What the receiver's metrics and LearnPack need (the telemetry contract)."""
    assert isinstance(document["telemetry_id"], str) and document["telemetry_id"]
    assert isinstance(document["slug"], str) and document["slug"]
    assert_time(document["tutorial_started_at"])
    assert_time(document["last_interaction_at"])
    assert document["tutorial_started_at"] <= document["last_interaction_at"]
    starts = []
    for session in document["workout_session"]:
        assert_time(session["started_at"])
        starts.append(session["started_at"])
        if "ended_at" in session:
            assert_time(session["ended_at"])
            assert session["started_at"] <= session["ended_at"]
    assert starts == sorted(starts)
    assert all("ended_at" in session for session in document["workout_session"][:-1])
    steps = document["steps"]
    assert [one["slug"] for one in steps[: len(course.steps)]] == [one.slug for one in course.steps]
    assert [one["position"] for one in steps[: len(course.steps)]] == list(range(len(course.steps)))
    for one in steps:
        assert isinstance(one["slug"], str) and one["slug"]
        assert type(one["position"]) is int and isinstance(one["files"], list) and type(one["is_testeable"]) is bool
        for key in ("opened_at", "completed_at"):
            if key in one:
                assert_time(one[key])
                assert one["opened_at"] <= one[key]
        for name in LISTS:
            assert isinstance(one.get(name, []), list) and (name in one or name == "quiz_submissions")
            for each in one.get(name, ()):
                for key in ("started_at", "ended_at"):
                    if key in each:
                        assert_time(each[key])
                        assert each[key] <= document["last_interaction_at"]
                if "started_at" in each and "ended_at" in each:
                    assert each["started_at"] <= each["ended_at"]
                if name in ("compilations", "tests"):
                    assert each["exit_code"] is None or type(each["exit_code"]) is int
                    if "started_at" in each:
                        assert one["opened_at"] <= each["started_at"]


def assert_time(at: object) -> None:
    assert type(at) is int and 10**12 <= at < 10**13


def ours(start: float, end: float, exit_code: int | None = 0, **more: Any) -> dict[str, Any]:
    """An attempt as the agent writes it."""
    texts = {"source_code": b64("source"), "stdout": "", "stderr": ""}
    times = {"started_at": ms(start), "ended_at": ms(end), "exit_code": exit_code}
    return {"event_id": "ffffffffffffffff-1", **times, "origin": "terminal", "output": "none", **texts, **more}


def whole(**more: Any) -> dict[str, Any]:
    """A document in which nothing is wrong."""
    document = learnpack_document(user_id=7, last_interaction_at=ms(100))
    document["steps"][0]["is_testeable"] = False
    return {**document, **more}


def with_step(index: int, **keys: Any) -> dict[str, Any]:
    document = whole()
    document["steps"][index].update(keys)
    return document


def test_a_document_that_needs_nothing_is_left_alone() -> None:
    document = with_step(1, tests=[ours(2, 3, 1)], opened_at=ms(1), sessions=[5], odd=None)
    document |= {"cohort_id": None, "global_metrics": {"x": 1}}
    assert repaired(document) == Repaired(document, ())


# Names and times of attempts


def test_old_names_become_the_one_form_and_stay_beside_it() -> None:
    found = repaired(with_step(1, compilations=[attempt(2, 3, 1, errorType="run-time")], opened_at=ms(1)))
    (run,) = found.document["steps"][1]["compilations"]
    assert run == {**attempt(2, 3, 1, errorType="run-time"), "started_at": ms(2), "exit_code": 1}
    assert found.changes == (
        'steps[1] "01-hello": compilations[0]: starting_at → started_at',
        'steps[1] "01-hello": compilations[0]: exitCode → exit_code',
    )


def test_equal_changes_of_one_list_are_one_line() -> None:
    runs = [attempt(n, n + 1) for n in range(12)]
    found = repaired(with_step(1, compilations=runs, opened_at=ms(0)))
    assert found.changes == (
        'steps[1] "01-hello": 12 compilations: starting_at → started_at',
        'steps[1] "01-hello": 12 compilations: exitCode → exit_code',
    )


#: The same text as the telemetry contract shows it.
PERCENT = "cHJpbnQoJyVDMyVCMWFuZCVDMyVCQScpJTBB"
ISO = "2023-11-14T22:13:25.000Z"  # ms(5)

ATTEMPTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"ended_at": ISO}, {"ended_at": ms(5)}, "ended_at: ISO time → milliseconds"),
    ({"ended_at": ms(5) // 1000}, {"ended_at": ms(5)}, "ended_at: seconds → milliseconds"),
    ({"ended_at": ms(5) / 1000 + 0.25}, {"ended_at": ms(5.25)}, "ended_at: seconds → milliseconds"),
    ({"ended_at": ms(5) + 0.5}, {"ended_at": ms(5)}, "ended_at: fraction → milliseconds"),
    ({"ended_at": str(ms(5))}, {"ended_at": ms(5)}, "ended_at: text → milliseconds"),
    ({"ended_at": None}, {"ended_at": ms(2)}, "ended_at: None is no time: left out"),
    ({"ended_at": "soon"}, {"ended_at": ms(2)}, 'ended_at: "soon" is no time: left out'),
    ({"ended_at": ms(1)}, {"ended_at": ms(2)}, "ended_at: before started_at → the same"),
    ({"exit_code": "0"}, {"exit_code": 0}, 'exit_code: "0" → 0'),
    ({"exit_code": 3.0}, {"exit_code": 3}, "exit_code: 3.0 → 3"),
    ({"exit_code": "no"}, {"exit_code": None}, 'exit_code: "no" → null'),
    ({"exit_code": True}, {"exit_code": None}, "exit_code: True → null"),
    ({"stdout": "plain text\n"}, {"stdout": b64("plain text\n")}, "stdout: plain text → base64"),
    ({"source_code": PERCENT}, {"source_code": b64("print('ñandú')\n")}, "source_code: percent-encoded → UTF-8"),
]


@pytest.mark.parametrize(("odd", "mended", "words"), ATTEMPTS, ids=[words for _, _, words in ATTEMPTS])
def test_an_odd_value_of_an_attempt_is_mended_and_told(odd: Any, mended: Any, words: str) -> None:
    good = {"started_at": ms(2), "ended_at": ms(5), "exit_code": 1, "source_code": "", "stdout": "", "stderr": ""}
    found = repaired(with_step(1, tests=[{**good, **odd}], opened_at=ms(1)))
    assert found.document["steps"][1]["tests"] == [{**good, **mended}]
    assert f'steps[1] "01-hello": tests[0]: {words}' in found.changes


@pytest.mark.parametrize(
    "text", [b64("100%25"), b64("a%2525b"), "/w==", b64("50% of it"), "", b64("%zz"), b64("print('ñandú')\n")]
)
def test_a_text_that_can_be_read_two_ways_or_only_one_stays_as_it_is(text: str) -> None:
    run = {"started_at": ms(2), "ended_at": ms(3), "exit_code": 0, "stdout": text}
    found = repaired(with_step(0, compilations=[run], opened_at=ms(1)))
    kept = found.document["steps"][0]["compilations"][0]["stdout"]
    # "100%25" without a space is what encodeURIComponent makes of "100%": read once, never twice.
    assert kept == (b64("100%") if text == b64("100%25") else text)


def test_a_run_without_any_time_is_kept_without_one() -> None:
    found = repaired(with_step(1, tests=[{"exitCode": 0, "stdout": b64("ok")}]))
    assert found.document["steps"][1]["tests"] == [{"exitCode": 0, "exit_code": 0, "stdout": b64("ok")}]
    assert "completed_at" not in found.document["steps"][1]


def test_interactions_and_quizzes_get_times_too_and_keep_their_texts() -> None:
    asked = {"student_message": "why 100%25?", "starting_at": ISO, "ending_at": ms(6) // 1000}
    found = repaired(with_step(1, ai_interactions=[asked], quiz_submissions=[{"status": "ERROR", "ended_at": ISO}]))
    (interaction,) = found.document["steps"][1]["ai_interactions"]
    assert (interaction["student_message"], interaction["started_at"], interaction["ended_at"]) == (
        "why 100%25?",
        ms(5),
        ms(6),
    )
    assert found.document["steps"][1]["quiz_submissions"] == [{"status": "ERROR", "ended_at": ms(5)}]


TIMES = [
    (ms(0), ms(0)),
    (ms(0) // 1000, ms(0)),
    (str(ms(0) // 1000), ms(0)),
    (float(ms(0)), ms(0)),
    ("2023-11-14T22:13:20Z", ms(0)),
    ("2023-11-14 23:13:20.000+01:00", ms(0)),
    (0, None),
    (5, None),
    (-ms(0), None),
    (ms(0) * 1000, None),  # microseconds: not LearnPack's
    (float("inf"), None),
    (True, None),
    (None, None),
    ([ms(0)], None),
    ("", None),
    ("2024-13-45T99:99:99Z", None),
    ("2024-00-10T10:00:00Z", None),
]


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("text", ["a%20b", "100%", "%25", "ñ%20", "a%2520b", "plain"])
def test_a_plain_text_keeps_its_words_however_often_it_is_repaired(text: str, ours: bool) -> None:
    run = {**attempt(2, 3, 0), "stdout": text, **({"event_id": "ffffffffffffffff-1"} if ours else {})}
    once = repaired(with_step(1, tests=[run], opened_at=ms(1)))
    again = repaired(once.document)
    assert again.changes == ()
    (kept,) = again.document["steps"][1]["tests"]
    assert decoded(kept["stdout"], ours=ours) == text


@pytest.mark.parametrize(("value", "at"), TIMES)
def test_a_time_is_read_only_where_it_can_be_one(value: object, at: int | None) -> None:
    assert time_of(value) == at


# The document's own keys


def test_what_the_receiver_requires_is_there_afterwards() -> None:
    found = repaired({})
    document = found.document
    assert (document["telemetry_id"], document["slug"]) == (ID, "demo")
    assert (document["tutorial_started_at"], document["last_interaction_at"]) == (WRITTEN, WRITTEN)
    assert document["workout_session"] == [{"started_at": WRITTEN}]
    assert [one["slug"] for one in document["steps"]] == ["00-welcome", "01-hello", "02-loop"]
    assert [one["is_testeable"] for one in document["steps"]] == [False, True, True]
    assert document["steps"][1]["files"] == [{"path": "exercises/01-hello/app.py", "name": "app.py", "hidden": False}]
    assert found.changes[:3] == (
        f'telemetry_id: missing → "{ID}"',
        'slug: missing → "demo"',
        "steps: missing → the 3 of the course",
    )


def test_a_user_id_is_never_made() -> None:
    for user_id in ({}, {"user_id": None}, {"user_id": ""}):
        document = {key: value for key, value in whole().items() if key != "user_id"} | user_id
        found = repaired(document)
        assert found.document == document
        assert found.notes == ("user_id is missing: LearnPack writes it when the student logs in",)


def test_missing_times_come_from_what_is_recorded() -> None:
    document = with_step(1, tests=[ours(20, 30, 1)], opened_at=ms(10))
    del document["tutorial_started_at"], document["last_interaction_at"]
    document["workout_session"] = [{"started_at": ms(5)}]
    found = repaired(document)
    assert (found.document["tutorial_started_at"], found.document["last_interaction_at"]) == (ms(5), ms(30))


def test_a_last_interaction_is_no_earlier_than_the_last_that_is_recorded() -> None:
    document = {**with_step(1, tests=[ours(20, 30, 1)], opened_at=ms(10)), "last_interaction_at": ms(25)}
    found = repaired(document)
    assert found.document["last_interaction_at"] == ms(30)
    assert found.changes == (f"last_interaction_at: {ms(25)} → {ms(30)} (the last that is recorded)",)


def test_iso_times_of_the_document_become_milliseconds() -> None:
    document = whole(tutorial_started_at="2023-11-14T22:13:20.000Z", last_interaction_at=ms(100) // 1000)
    found = repaired(document)
    assert found.document == whole()
    assert found.changes == (
        "tutorial_started_at: ISO time → milliseconds",
        "last_interaction_at: seconds → milliseconds",
    )


def test_personal_data_goes_and_its_value_is_not_shown() -> None:
    found = repaired(whole(fullname="Ada Lovelace", email="ada@example.org", academy_id=4))
    assert found.document == whole(academy_id=4)
    assert [line.split(":")[0] for line in found.changes] == ["email", "fullname"]
    assert "ada" not in "".join(found.changes).lower()


# Steps


@pytest.mark.parametrize("name", ["compilations", "tests", "ai_interactions", "quiz_submissions"])
@pytest.mark.parametrize("value", [None, 7, "text"])
def test_a_list_that_is_none_is_empty(name: str, value: object) -> None:
    found = repaired(with_step(1, **{name: value}))
    assert found.document == with_step(1, **{name: []})
    assert found.changes == (f'steps[1] "01-hello": {name}: {shown(value)} → []',)


def test_missing_lists_files_and_flags_come_from_the_course() -> None:
    document = whole()
    document["steps"][1] = {"slug": "01-hello"}
    found = repaired(document)
    hello = found.document["steps"][1]
    assert (hello["position"], hello["is_testeable"], hello["tests"], hello["compilations"]) == (1, True, [], [])
    assert hello["files"] == [{"path": "exercises/01-hello/app.py", "name": "app.py", "hidden": False}]
    assert "quiz_submissions" not in hello
    assert len(found.changes) == 6


def test_what_is_no_element_is_left_out_and_shown() -> None:
    found = repaired(with_step(1, tests=[None, "x\x1b[31m", ours(2, 3, 1)], opened_at=ms(1)))
    assert found.document == with_step(1, tests=[ours(2, 3, 1)], opened_at=ms(1))
    assert found.changes == (
        'steps[1] "01-hello": tests[0]: None is no element: left out',
        r'steps[1] "01-hello": tests[1]: "x\x1b[31m" is no element: left out',
    )


def test_a_single_element_in_the_place_of_a_list_is_kept() -> None:
    found = repaired(with_step(1, tests=ours(2, 3, 1), opened_at=ms(1)))
    assert found.document == with_step(1, tests=[ours(2, 3, 1)], opened_at=ms(1))


def test_a_step_without_a_slug_is_the_one_at_its_index() -> None:
    document = with_step(1, slug=None, tests=[ours(2, 3, 1)], opened_at=ms(1))
    del document["steps"][2]["slug"]
    document["steps"].append({"slug": "", "tests": [ours(5, 6)]})
    found = repaired(document)
    assert [one["slug"] for one in found.document["steps"]] == ["00-welcome", "01-hello", "02-loop", "step-3"]
    assert found.document["steps"][3]["opened_at"] == ms(5)
    assert 'steps[1]: slug: None → "01-hello"' in found.changes


def test_steps_lie_where_learnpack_looks_for_them() -> None:
    document = whole()
    welcome, hello, loop = document["steps"]
    gone = learnpack_step("07-gone", tests=[ours(2, 3)], opened_at=ms(1))
    del gone["position"]
    document["steps"] = [gone, {**loop, "position": 0}, {**welcome, "position": "0"}]
    found = repaired(document)
    steps = found.document["steps"]
    assert [one["slug"] for one in steps] == ["00-welcome", "01-hello", "02-loop", "07-gone"]
    assert [one["position"] for one in steps] == [0, 1, 2, 3]
    assert steps[1] == {**hello, "files": steps[1]["files"], "is_completed": False, "sessions": []}
    assert "steps: put into the order of the course" in found.changes
    assert 'steps[1] "01-hello": missing → added, not opened' in found.changes
    assert 'steps[2] "02-loop": position: 0 → 2' in found.changes


def test_a_step_that_stands_there_twice_is_one_with_all_its_runs() -> None:
    document = with_step(1, tests=[ours(2, 3, 1)], opened_at=ms(2))
    again = learnpack_step("01-hello", tests=[ours(2, 3, 1), ours(4, 5, 1)], opened_at=ms(1), sessions=[5])
    document["steps"].append(again)
    found = repaired(document)
    assert len(found.document["steps"]) == 3
    hello = found.document["steps"][1]
    assert (hello["tests"], hello["opened_at"], hello["sessions"]) == ([ours(2, 3, 1), ours(4, 5, 1)], ms(1), [5])
    assert found.changes == ('steps[3] "01-hello": there a second time: put together with steps[1] "01-hello"',)


def test_two_steps_of_the_course_with_one_slug_stay_two() -> None:
    twins = Course("/course", "demo", (step("00-welcome", 0, tests=False), step("01-hello", 1), step("01-hello", 2)))
    document = whole()
    document["steps"][2] = {**document["steps"][1], "position": 2}
    assert repaired(document, twins).changes == ()
    assert len(repaired({}, twins).document["steps"]) == 3


# Openings and completions


@pytest.mark.parametrize("opened", [{}, {"opened_at": None}, {"opened_at": 0}, {"opened_at": ms(50)}])
def test_a_step_was_opened_by_its_first_run_at_the_latest(opened: dict[str, Any]) -> None:
    found = repaired(with_step(1, tests=[ours(9, 10, 1), ours(5, 6, 1)], compilations=[ours(7, 8)], **opened))
    assert found.document["steps"][1]["opened_at"] == ms(5)
    assert found.changes[-1].endswith(f"→ {ms(5)} (its first run)")


def test_a_step_was_opened_by_its_completion_at_the_latest() -> None:
    for opened in ({}, {"opened_at": ms(50)}):
        found = repaired(with_step(1, completed_at=ms(40), **opened))
        assert (found.document["steps"][1]["opened_at"], found.document["steps"][1]["completed_at"]) == (ms(40), ms(40))


@pytest.mark.parametrize("value", [None, 0, "never", {}])
def test_an_opening_that_is_none_is_absent(value: object) -> None:
    found = repaired(with_step(1, opened_at=value))
    assert found.document == whole()
    assert found.changes == (f'steps[1] "01-hello": opened_at: {shown(value)} is no time: left out',)


PROOFS: list[tuple[str, list[dict[str, Any]], int | None]] = [
    ("LearnPack's own pass", [attempt(2, 3, 1), attempt(4, 5), attempt(6, 7)], ms(5)),
    ("a pass of v5", [{"started_at": ms(4), "ended_at": ms(5), "exit_code": 0}], ms(5)),
    ("a failure", [attempt(2, 3, 1)], None),
    ("a jest failure that claims success", [attempt(2, 3, 1, stdout=b64("✅ All tests have passed"))], None),
    ("an unknown exit code", [attempt(2, 3, None, stdout=b64("✅ All tests have passed"))], None),
    ("no exit code at all", [{"started_at": ms(4), "ended_at": ms(5)}], None),
    ("a pass in a terminal, of perhaps one test", [ours(2, 3)], None),
    ("a pass in a terminal of the whole file", [ours(2, 3, whole=True)], ms(3)),
    ("a pass that the agent saw LearnPack run", [ours(2, 3, origin="learnpack", whole=True)], ms(3)),
    ("a pass of a part that the agent saw LearnPack run", [ours(2, 3, origin="learnpack")], None),
    ("a text that looks like a code", [{**attempt(2, 3, None), "exit_code": "0 failed"}], None),
    ("a pass without an end", [{"exit_code": 0}], None),
]


@pytest.mark.parametrize(("tests", "completed"), [row[1:] for row in PROOFS], ids=[row[0] for row in PROOFS])
def test_only_a_pass_of_the_whole_test_completes_a_step(tests: Any, completed: int | None) -> None:
    hello = repaired(with_step(1, tests=tests, opened_at=ms(1))).document["steps"][1]
    assert hello.get("completed_at") == completed


def test_a_build_that_went_well_completes_nothing() -> None:
    found = repaired(with_step(1, compilations=[attempt(2, 3, 0)], opened_at=ms(1)))
    assert "completed_at" not in found.document["steps"][1]


def test_a_completion_of_learnpacks_stays_whatever_it_is() -> None:
    document = with_step(0, opened_at=ms(1), completed_at=ms(2))
    assert repaired(document).changes == ()
    document = with_step(1, opened_at=ms(1), completed_at=ms(9), tests=[ours(2, 3, 0, origin="learnpack")])
    assert repaired(document).changes == ()


def test_a_completion_brings_v5s_mark_with_it() -> None:
    found = repaired(with_step(1, tests=[ours(2, 3, whole=True)], opened_at=ms(1), is_completed=False))
    assert found.document["steps"][1]["is_completed"] is True


def test_a_reading_step_is_completed_by_the_next_opening_of_another() -> None:
    document = with_step(0, opened_at=ms(10))
    document["steps"][1]["opened_at"] = ms(5)
    document["steps"][2]["opened_at"] = ms(30)
    found = repaired(document)
    assert found.document["steps"][0]["completed_at"] == ms(30)
    assert found.changes == (f'steps[0] "00-welcome": completed_at: missing → {ms(30)} (then "02-loop" was opened)',)
    assert "completed_at" not in found.document["steps"][1]


@pytest.mark.parametrize("other", [5, 10])
def test_a_reading_step_that_was_opened_last_is_not_completed(other: int) -> None:
    document = with_step(0, opened_at=ms(10))
    document["steps"][1]["opened_at"] = ms(other)
    assert repaired(document).changes == ()


def test_a_step_that_the_course_does_not_have_is_not_completed_by_leaving_it() -> None:
    document = with_step(1, opened_at=ms(20))
    document["steps"].append(learnpack_step("07-gone", opened_at=ms(1), is_testeable=False))
    assert repaired(document).changes == ()


# Sessions


def test_every_session_but_the_last_has_an_end() -> None:
    sessions = [{"started_at": ms(0)}, {"started_at": ms(50), "ended_at": None}, {"started_at": ms(90)}]
    document = {**with_step(1, tests=[ours(20, 30, 1)], opened_at=ms(10)), "workout_session": sessions}
    found = repaired(document)
    assert found.document["workout_session"] == [
        {"started_at": ms(0), "ended_at": ms(30)},
        {"started_at": ms(50), "ended_at": ms(50)},
        {"started_at": ms(90)},  # LearnPack ends it, and only then begins another
    ]


def test_odd_sessions_are_mended_or_left_out() -> None:
    sessions = [7, {"started_at": ISO}, {}, {"ended_at": ms(3)}, {"started_at": ms(9), "ended_at": ms(8), "x": 1}]
    found = repaired(whole(workout_session=sessions))
    assert found.document["workout_session"] == [
        {"started_at": ms(3), "ended_at": ms(3)},
        {"started_at": ms(5), "ended_at": ms(5)},
        {"started_at": ms(9), "ended_at": ms(9), "x": 1},
    ]
    assert "workout_session: put into the order of their starts" in found.changes


@pytest.mark.parametrize("lost", [None, "text", []])
def test_sessions_that_are_lost_are_the_times_of_the_work(lost: object) -> None:
    hour = 3600
    runs = [ours(20, 30, 1), ours(2 * hour, 2 * hour + 60, 1), ours(2 * hour + 900, 2 * hour + 910, 1)]
    document = {**with_step(1, tests=runs, opened_at=ms(10)), "last_interaction_at": ms(2 * hour + 910)}
    found = repaired({**document, "workout_session": lost})
    assert found.document["workout_session"] == [
        {"started_at": ms(10), "ended_at": ms(30)},
        {"started_at": ms(2 * hour)},
    ]


def test_a_document_in_which_nothing_happened_may_have_no_session() -> None:
    assert repaired(whole(workout_session=[])).changes == ()


# Anything

times: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 200).map(ms),
    st.sampled_from([None, 0, "", ISO, ms(7) // 1000, ms(7) / 1000, str(ms(7)), -1, 10**14, True, [], "x"]),
)
texts = st.sampled_from(["", "dGVzdA==", "plain", PERCENT, b64("100%2525"), "/w==", None, 5])
runs = st.one_of(
    st.sampled_from([None, 5, "x", [], {}]),
    st.fixed_dictionaries(
        {},
        optional={
            "started_at": times,
            "starting_at": times,
            "ended_at": times,
            "ending_at": times,
            "exitCode": st.sampled_from([0, 1, None, "0", 1.0, 1.5, True, "x"]),
            "exit_code": st.sampled_from([0, 1, None, "0", 0.0, [], "x"]),
            "source_code": texts,
            "stdout": texts,
            "event_id": st.just("ffffffffffffffff-1"),
            "origin": st.sampled_from(["learnpack", "terminal"]),
        },
    ),
)
lists = st.one_of(st.sampled_from([None, 5, "x", {}]), st.lists(runs, max_size=4))
steps = st.one_of(
    st.sampled_from([None, 5, "x", [], {}]),
    st.fixed_dictionaries(
        {},
        optional={
            "slug": st.sampled_from(["00-welcome", "01-hello", "02-loop", "09-gone", "", None, 5, "step-1"]),
            "position": st.sampled_from([0, 1, 2, 9, None, "1", 1.0, True]),
            "files": st.sampled_from([[], None, 5]),
            "is_testeable": st.sampled_from([True, False, None, 1]),
            "opened_at": times,
            "completed_at": times,
            "is_completed": st.sampled_from([True, False, None]),
            **dict.fromkeys(LISTS, lists),
        },
    ),
)
sessions = st.one_of(
    st.sampled_from([None, 5, "x", []]),
    st.fixed_dictionaries({}, optional={"started_at": times, "ended_at": times}),
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "telemetry_id": st.sampled_from(["lp00lp00lp00lp00", "", None, 5]),
        "slug": st.sampled_from(["demo", "", None, 5]),
        "user_id": st.sampled_from([7, "7", None]),
        "fullname": st.just("Ada"),
        "tutorial_started_at": times,
        "last_interaction_at": times,
        "steps": st.one_of(st.sampled_from([None, {}, "x"]), st.lists(steps, max_size=5)),
        "workout_session": st.one_of(st.sampled_from([None, {}, "x"]), st.lists(sessions, max_size=4)),
    },
)


@given(documents)
@settings(max_examples=200, deadline=None, database=None)
def test_whatever_a_document_holds_it_is_receivable_afterwards_and_needs_nothing_more(document: Any) -> None:
    found = repaired(document)
    # Nothing of it is gone but what is no element of its list.
    given_steps = document.get("steps")
    for index, one in enumerate(given_steps if isinstance(given_steps, list) else []):
        if not isinstance(one, dict):
            continue
        slug = one.get("slug")
        if not isinstance(slug, str) or not slug:
            slug = COURSE.steps[index].slug if index < 3 else f"step-{index}"
        kept = next(each for each in found.document["steps"] if each["slug"] == slug)
        said = {key for key, value in one.items() if value is not None}
        assert kept.keys() >= said - {"opened_at", "completed_at"}
        for name in ("compilations", "tests"):
            elements = one.get(name)
            attempts = [each for each in elements if isinstance(each, dict)] if isinstance(elements, list) else []
            for each in attempts:
                for code in (each.get("exit_code"), each.get("exitCode")):
                    if type(code) is int and each.get("exit_code", code) in (code, None):
                        assert any(run["exit_code"] == code for run in kept[name])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["steps", "slug", "tests", "workout_session", "started_at", "x"]), inner)
        ),
        max_leaves=30,
    )
)
@settings(max_examples=80, deadline=None, database=None)
def test_any_json_object_can_be_repaired(value: Any) -> None:
    repaired(value if isinstance(value, dict) else {"steps": value, "workout_session": value})


@pytest.mark.timeout(30)  # on a machine that does nothing else: half a second
def test_thousands_of_odd_steps_take_no_longer_than_their_number() -> None:
    odd = [learnpack_step(f"{n % 1500:04d}-x", opened_at=ms(n), tests=[ours(n, n + 1)]) for n in range(3_000)]
    same = [learnpack_step("01-hello", tests=[ours(n, n + 1)]) for n in range(3_000)]
    found = repair(learnpack_document(*(odd + same)), COURSE, telemetry_id=ID, at=WRITTEN)
    assert len(found.document["steps"]) == len(COURSE.steps) + 1_500
    found = repair({"steps": same}, COURSE, telemetry_id=ID, at=WRITTEN)
    assert [len(one["tests"]) for one in found.document["steps"]] == [0, 3_000, 0]


def test_what_is_shown_of_a_value_is_short_and_harmless() -> None:
    assert shown("a\x1b[31m\n") == r'"a\x1b[31m\x0a"'
    assert len(shown("x" * 10_000)) < 80
    assert len(shown(list(range(10_000)))) < 80
