"""What the 4Geeks receiver would do with a document, case by case from the telemetry contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.receiver import REQUIRED, Rehearsal, RehearsedStep, reduced, rehearse, summary
from tests.making import T0, attempt, ms


def a_run(start: float = 1, end: float = 2, exit_code: int | None = 0) -> dict[str, Any]:
    return {"started_at": ms(start), "ended_at": ms(end), "exit_code": exit_code}


def a_step(slug: str = "01-hello", **more: Any) -> dict[str, Any]:
    return {"slug": slug, "compilations": [], "tests": [], **more}


def document(*steps: Any, **more: Any) -> dict[str, Any]:
    return {
        "slug": "demo",
        "user_id": 42,
        "tutorial_started_at": ms(0),
        "last_interaction_at": ms(3600),
        "workout_session": [{"started_at": ms(0)}],
        "steps": list(steps),
        **more,
    }


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in document(a_step()).items() if name != key}


OPENED: dict[str, Any] = {"opened_at": ms(0)}
DONE: dict[str, Any] = {"opened_at": ms(0), "completed_at": ms(60)}


# --- what it ends in an error on ---


@pytest.mark.parametrize("key", REQUIRED)
def test_without_a_key_that_it_needs_it_looks_at_nothing(key: str) -> None:
    assert set(REQUIRED) == {"user_id", "tutorial_started_at", "last_interaction_at", "workout_session", "steps"}
    assert rehearse(without(key)).errors == (f"{key} is missing",)


CRASHES: dict[str, tuple[Any, str]] = {
    "a list": ([], "it is no object"),
    "no user": (document(user_id=None), "user_id is missing"),
    "no session": (document(workout_session=None), "workout_session is missing"),
    "null steps": (document(steps=None), "steps is missing"),
    "steps as an object": (document(steps={"a": 1}), "steps is no list"),
    "sessions as a number": (document(workout_session=3), "workout_session is no list"),
    "a user's name": (document(user_id="ana"), "user_id is no number"),
    "an event's key": (document(event="test"), "event"),
    "a step that is none": (document("x"), "steps[0] is no object"),
    "no slug": (document(a_step(), {"compilations": []}), "steps[1]: it has no slug"),
    "null tests": (document(a_step(tests=None)), "tests is no list of objects"),
    "null compilations": (document(a_step(compilations=None)), "compilations is no list of objects"),
    "a run that is none": (document(a_step(tests=[1])), "tests is no list of objects"),
    "no exit code in a completed step": (document(a_step(**DONE, tests=[{"started_at": 1}])), "no exit_code"),
    "no exit code in an opened step": (document(a_step(**OPENED, tests=[a_run(), {}])), "no exit_code"),
    "LearnPack's own name of it": (document(a_step(**OPENED, tests=[attempt(1, 2)])), "no exit_code"),
    "texts and numbers": (
        document(a_step(**DONE, compilations=[a_run(), a_run() | {"started_at": "2023-11-14T22:13:20Z"}])),
        "compilations have times as numbers and as texts",
    ),
    "texts and nothing": (
        document(
            a_step(**DONE, tests=[a_run() | {"started_at": None}, a_run() | {"started_at": "2023-11-14T22:13:20Z"}])
        ),
        "tests have times as numbers and as texts",
    ),
    "objects for times": (
        document(a_step(**DONE, tests=[a_run() | {"started_at": {"a": 1}}, a_run()])),
        "tests have times as numbers and as texts",
    ),
    "microseconds": (document(last_interaction_at=T0 * 1000), "last_interaction_at is a time that no calendar has"),
    "microseconds of an opening": (document(a_step(opened_at=T0 * 1000)), "opened_at is a time that no calendar has"),
    "microseconds of a completion": (
        document(a_step(opened_at=T0, completed_at=T0 * 1000)),
        "completed_at is a time that no calendar has",
    ),
    "microseconds of an end": (
        document(a_step(**OPENED, compilations=[a_run() | {"ended_at": T0 * 1000}])),
        "a run ends at a time that no calendar has",
    ),
    "infinity as a text": (document(tutorial_started_at="1e30"), "tutorial_started_at is a time that no calendar has"),
    "U+0000 in a text": (document(a_step(ai_interactions=[{"ai_response": "a\0b"}])), "U+0000"),
    "U+0000 in a key": (document(a_step() | {"a\0": 1}), "U+0000"),
    "a slug that fits nowhere": (document(slug="x" * 201), "slug is longer than 200 characters"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_what_it_ends_in_an_error_on_is_an_error_and_approves_nothing(name: str) -> None:
    value, words = CRASHES[name]

    found = rehearse(value)

    assert [error for error in found.errors if words in error]
    assert len(found.errors) == 1
    assert not found.approves
    assert (found.steps, found.completion_rate) == ((), 0.0)


def test_an_error_says_where_it_is() -> None:
    found = rehearse(document(a_step("00-a"), a_step("01-b", tests=None), {}))

    assert found.errors == ("steps[1] 01-b: tests is no list of objects", "steps[2]: it has no slug")


#: These look like the crashes and are none.
SURVIVED: dict[str, dict[str, Any]] = {
    "no exit code in a step that was never opened": document(a_step(tests=[{}])),
    "no exit code after the first success": document(a_step(**DONE, tests=[a_run(1, 2), {"started_at": ms(3)}])),
    "no exit code of a build": document(a_step(**OPENED, compilations=[{"started_at": 1}])),
    "a null exit code": document(a_step(**OPENED, tests=[a_run(exit_code=None)])),
    "lists that are not there": document({"slug": "01-hello", **DONE}),
    "texts and numbers that nobody sorts": document(
        a_step(**OPENED, tests=[a_run(), a_run() | {"started_at": "2023-11-14T22:13:20Z"}])
    ),
    "one text": document(a_step(**DONE, tests=[a_run() | {"started_at": "2023-11-14T22:13:20Z"}])),
    "a user as a text": document(user_id="42"),
    "a null slug of a step": document({"slug": None}),
    "no steps": document(),
    "a completion that no calendar has and nobody reads": document(a_step(completed_at=T0 * 1000)),
    "null times": document(last_interaction_at=None, tutorial_started_at=None),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_what_it_survives_is_no_error(name: str) -> None:
    assert rehearse(SURVIVED[name]).errors == ()


# --- what it counts wrongly, and says nothing ---

DOUBTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "seconds": (
        document(a_step(opened_at=T0 // 1000)),
        "steps[0] 01-hello: opened_at: 1700000000 looks like seconds",
        "skipped",
    ),
    "seconds of the course": (
        document(a_step(), last_interaction_at=T0 // 1000),
        "last_interaction_at: 1700000000 looks like seconds",
        "unread",
    ),
    "completed before it was opened": (
        document(a_step(opened_at=ms(60), completed_at=ms(0))),
        "completed before it was opened",
        "completed",
    ),
    "never opened": (document(a_step(completed_at=ms(60))), "completed without opened_at", "unread"),
    "a null opening": (document(a_step(opened_at=None, completed_at=ms(60))), "opened_at is no time", "unread"),
    "runs in a step that was never opened": (document(a_step(tests=[a_run()])), "has runs and no opened_at", "unread"),
    "a null completion": (document(a_step(opened_at=ms(0), completed_at=None)), "completed_at is no time", "skipped"),
    "a time that is none": (
        document(a_step(), last_interaction_at="yesterday"),
        "last_interaction_at is no time",
        "unread",
    ),
    "no slug": (document(a_step(), slug=None), "slug is missing", "unread"),
    "v5 without a package": (document(a_step(), package_id=None), "package_id is no number", "unread"),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_what_it_counts_wrongly_is_a_doubt(name: str) -> None:
    value, words, status = DOUBTS[name]

    found = rehearse(value)

    assert found.errors == ()
    assert [doubt for doubt in found.doubts if words in doubt]
    assert len(found.doubts) == 1
    assert [step.status for step in found.steps] == [status]


def test_a_good_document_raises_no_doubt() -> None:
    value = document(a_step(**DONE, tests=[a_run(exit_code=1), a_run(3, 4)]), a_step("02-loop"), package_id=7)

    assert rehearse(value).doubts == ()


# --- how it counts, by hand ---


def test_a_completed_step_counts_its_time_and_the_failures_before_the_first_success() -> None:
    step = a_step(
        opened_at=ms(10),
        completed_at=ms(4000),
        # In the order of their times, not of the list; LearnPack's old name of the start, too.
        compilations=[
            a_run(30, 31, 0),
            {"starting_at": ms(20), "exit_code": 1},
            a_run(40, 41, 1),
            {"started_at": ms(1)},
        ],
        tests=[a_run(50, 51, 2), a_run(60, 61, None), a_run(70, 71, 0), a_run(80, 81, 1)],
    )

    assert rehearse(document(step)).steps == (RehearsedStep("01-hello", "completed", 3990.0, 1, 2),)


def test_in_a_completed_step_that_never_succeeded_all_failures_count() -> None:
    step = a_step(**DONE, compilations=[a_run(1, 2, 1)] * 3, tests=[a_run(1, 2, 1)] * 2)

    assert rehearse(document(step)).steps == (RehearsedStep("01-hello", "completed", 60.0, 3, 2),)


def test_an_attempted_step_counts_until_its_last_run_and_all_its_failures() -> None:
    step = a_step(
        opened_at=ms(0), compilations=[a_run(1, 100, 1), a_run(2, 50, 0)], tests=[a_run(3, 70, 1), a_run(4, 60, 1)]
    )

    assert rehearse(document(step)).steps == (RehearsedStep("01-hello", "attempted", 100.0, 1, 2),)


@pytest.mark.parametrize(("end", "seconds"), [(1799, 1799.0), (1800, 1800.0), (1801, 1800.0)])
def test_what_was_not_completed_counts_half_an_hour_at_most(end: float, seconds: float) -> None:
    attempted = rehearse(document(a_step(**OPENED, tests=[a_run(1, end)]))).steps[0]
    skipped = rehearse(document(a_step(**OPENED), last_interaction_at=ms(end))).steps[0]

    assert (attempted.status, attempted.seconds) == ("attempted", seconds)
    assert (skipped.status, skipped.seconds) == ("skipped", seconds)


def test_runs_without_an_end_count_until_the_last_interaction() -> None:
    step = rehearse(document(a_step(**OPENED, tests=[{"exit_code": 1}]), last_interaction_at=ms(90))).steps[0]

    assert (step.status, step.seconds) == ("attempted", 90.0)


def test_nothing_is_counted_until_an_interaction_that_is_not_known() -> None:
    found = rehearse(document(a_step(**OPENED), last_interaction_at=None))

    assert found.steps == (RehearsedStep("01-hello", "skipped", 0.0),)


@pytest.mark.parametrize(
    "opened_at", [T0, float(T0), str(T0), f" {T0} ", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000+05:00"]
)
def test_a_time_may_be_a_number_or_a_text_whose_zone_it_leaves_out_of_account(opened_at: object) -> None:
    step = rehearse(document(a_step(opened_at=opened_at, completed_at=ms(60)))).steps[0]

    assert (step.status, step.seconds) == ("completed", 60.0)


def test_the_scores_of_a_document_that_was_computed_by_hand() -> None:
    found = rehearse(
        document(
            a_step("00", **DONE, compilations=[a_run(exit_code=1)] * 4 + [a_run(9, 10)]),  # 4 struggles
            a_step("01", **OPENED, tests=[a_run(1, 900, 1)] * 8),  # 900 s, 8 struggles
            a_step("02", **OPENED),  # skipped, 1800 s
            a_step("03"),
            workout_session=[{}, {}],
        )
    )

    # Engagement: .3·3600/36000 + .2·2/5 + .3·1/4 + .2·13/100 = .03 + .08 + .075 + .026
    # Frustration: .3·3/4 + .2·2700/18000 + .2·(4/4)/10 + .2·(8/4)/10 + .1·1/4 = .225 + .03 + .02 + .04 + .025
    assert (found.completion_rate, found.engagement, found.frustration) == (25.0, 21.1, 34.0)
    assert [step.status for step in found.steps] == ["completed", "attempted", "skipped", "unread"]


def test_each_part_of_a_score_is_capped() -> None:
    found = rehearse(
        document(
            *(
                a_step(str(number), **OPENED, compilations=[a_run(1, 9000, 1)] * 20, tests=[a_run(1, 2, 1)] * 20)
                for number in range(20)
            ),
            last_interaction_at=ms(10**6),
            workout_session=[{}] * 9,
        )
    )

    assert (found.completion_rate, found.engagement) == (0.0, 70.0)  # all but completion
    assert found.frustration == 90.0  # all but skipped


def test_without_steps_there_is_nothing_to_be_frustrated_about() -> None:
    found = rehearse(document(workout_session=[]))

    assert (found.completion_rate, found.engagement, found.frustration) == (0.0, 3.0, 0.0)


# --- approved or not ---


@pytest.mark.parametrize(
    ("steps", "rate", "approves"),
    [
        ([], 0.0, False),
        ([a_step(**DONE)], 100.0, True),
        ([a_step(**DONE), a_step(**OPENED, tests=[a_run()])], 50.0, False),
        ([a_step(**DONE)] * 999 + [a_step()], 99.9, False),
        # It rounds to a hundredth before it compares: one of 20,001 is none.
        ([a_step(**DONE)] * 9_999 + [a_step()], 99.99, False),
        ([a_step(**DONE)] * 20_000 + [a_step()], 100.0, True),
        # Nobody ran anything, and nobody has to.
        ([a_step(opened_at=ms(0), completed_at=ms(0))], 100.0, True),
        ([a_step(completed_at=ms(60))], 0.0, False),
        ([a_step(**DONE, is_completed=False)], 100.0, True),
        ([a_step(**OPENED, is_completed=True)], 0.0, False),
    ],
)
def test_a_task_is_approved_when_all_steps_are_completed(steps: list[Any], rate: float, approves: bool) -> None:
    found = rehearse(document(*steps))

    assert (found.completion_rate, found.approves) == (rate, approves)


@pytest.mark.parametrize(("rate", "approves"), [(99.99, False), (99.998, False), (99.999, True), (100.0, True)])
def test_the_rate_from_which_a_task_is_approved(rate: float, approves: bool) -> None:
    assert Rehearsal((), (), (), rate).approves is approves
    assert not Rehearsal(("user_id is missing",), (), (), rate).approves


# --- less than before ---

FULL = document(
    a_step(**DONE, compilations=[a_run()], tests=[a_run(), a_run()], ai_interactions=[{}], sessions=[5, 6]),
    a_step("02-loop", quiz_submissions=[{}]),
    workout_session=[{}, {}],
)


def test_a_summary_counts_what_a_document_holds() -> None:
    assert summary(FULL) == {
        "": {"workout_session": 2},
        "01-hello": {
            "compilations": 1,
            "tests": 2,
            "ai_interactions": 1,
            "sessions": 2,
            "opened_at": 1,
            "completed_at": 1,
        },
        "02-loop": {"quiz_submissions": 1},
    }


@pytest.mark.parametrize(
    ("step", "key", "value", "words"),
    [
        (0, "tests", [a_run()], "01-hello: tests 2 → 1"),
        (0, "tests", None, "01-hello: tests 2 → 0"),
        (0, "compilations", [], "01-hello: compilations 1 → 0"),
        (0, "ai_interactions", [], "01-hello: ai_interactions 1 → 0"),
        (0, "sessions", [5], "01-hello: sessions 2 → 1"),
        (0, "completed_at", None, "01-hello: completed_at 1 → 0"),
        (0, "opened_at", "never", "01-hello: opened_at 1 → 0"),
        (1, "quiz_submissions", [], "02-loop: quiz_submissions 1 → 0"),
    ],
)
def test_what_a_receiver_would_lose_is_told(step: int, key: str, value: Any, words: str) -> None:
    less = json.loads(json.dumps(FULL))
    less["steps"][step][key] = value

    assert reduced(summary(FULL), summary(less)) == [words]
    assert reduced(summary(less), summary(FULL)) == []


def test_a_step_that_is_no_more_in_the_course_is_a_loss_too() -> None:
    less = FULL | {"steps": FULL["steps"][:1]}

    assert reduced(summary(FULL), summary(less)) == ["02-loop: quiz_submissions 1 → 0"]


def test_a_session_less_is_a_loss_too() -> None:
    assert reduced(summary(FULL), summary(FULL | {"workout_session": [{}]})) == ["the document: workout_session 2 → 1"]


def test_two_steps_of_one_name_are_counted_together() -> None:
    twice, once = document(a_step(tests=[a_run()]), a_step()), document(a_step(), a_step())

    assert reduced(summary(twice), summary(once)) == ["01-hello: tests 1 → 0"]


def test_the_first_document_reduces_nothing_and_a_summary_survives_json() -> None:
    assert reduced({}, summary(FULL)) == []
    assert reduced(json.loads(json.dumps(summary(FULL))), summary(FULL)) == []


# --- whatever it is ---

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "1e999", "nan", "١٢", "2023-11-14T22:13:20Z", str(T0), "9" * 400, "2023-99-99T99:99:99Z"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TIME = st.integers(ms(0), ms(9)) | JSON


def objects(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Such an object, or with a key missing, or something else."""
    return st.fixed_dictionaries({}, optional=keys) | JSON


RUN = objects(
    started_at=TIME, starting_at=TIME, ended_at=TIME, ending_at=TIME, exit_code=st.sampled_from([0, 1]) | JSON
)
RUNS = st.lists(RUN, max_size=4) | JSON
STEP = objects(slug=st.just("x") | JSON, opened_at=TIME, completed_at=TIME, compilations=RUNS, tests=RUNS)
DOCUMENT = objects(
    user_id=st.just(1) | JSON,
    slug=st.just("demo") | JSON,
    package_id=JSON,
    tutorial_started_at=TIME,
    last_interaction_at=TIME,
    workout_session=st.lists(JSON, max_size=3) | JSON,
    steps=st.lists(STEP, max_size=4) | JSON,
)


@given(DOCUMENT)
def test_whatever_a_file_holds_it_is_judged_and_nothing_fails(value: Any) -> None:
    found = rehearse(value)

    assert all(isinstance(words, str) and words for words in (*found.errors, *found.doubts))
    assert 0 <= found.completion_rate <= 100
    assert not (found.errors and (found.steps or found.approves))
    if isinstance(value, dict):
        counted = summary(value)
        assert reduced(counted, counted) == []
        assert json.loads(json.dumps(counted)) == counted
