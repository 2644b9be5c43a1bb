"""What the union has more than the document, told in lines."""

from __future__ import annotations

from typing import Any

from agent.core.differences import differences
from tests.making import attempt, learnpack_document, learnpack_step, ms


def started(start: float, **more: Any) -> dict[str, Any]:
    return {"started_at": ms(start), **attempt(start, start + 1), **more}


def test_equal_documents_have_none() -> None:
    document = learnpack_document(learnpack_step("01-hello", tests=[started(1), started(1), {"exit_code": 1}]))
    assert differences(document, document) == ()


def test_each_key_and_each_list_that_is_another_one_is_a_line() -> None:
    before = learnpack_document(learnpack_step("01-hello", tests=[started(1), started(2)], opened_at=ms(1)))
    hello = learnpack_step("01-hello", tests=[started(1, event_id="x"), started(2), started(3)], completed_at=ms(4))
    after = learnpack_document(hello, learnpack_step("07-new", tests=[started(1)]), user_id=7)
    assert differences(before, after) == (
        "user_id: absent → 7",
        f'steps[1] "01-hello": opened_at: {ms(1)} → absent',
        f'steps[1] "01-hello": completed_at: absent → {ms(4)}',
        'steps[1] "01-hello": tests: 1 more, 1 with more or other keys',
        'steps[3] "07-new": added with 1 tests',
    )


def test_the_same_words_about_many_steps_are_one_line() -> None:
    before = learnpack_document()
    after = {**before, "steps": [{**step, "sessions": []} for step in before["steps"]]}
    assert differences(before, after) == ("3 steps: sessions: absent → []",)


def test_what_is_gone_is_told_too() -> None:
    before = learnpack_document(learnpack_step("07-gone"), learnpack_step("01-hello", tests=[started(1), started(2)]))
    before["workout_session"].append({"started_at": ms(50)})
    assert differences(before, learnpack_document(learnpack_step("01-hello", tests=[started(2)]))) == (
        "workout_session: 1 fewer",
        'steps[1] "01-hello": tests: 1 fewer',
        'steps: "07-gone" is gone',
    )


def test_a_document_without_anything_has_everything_to_gain() -> None:
    lines = differences({}, learnpack_document())
    assert 'slug: absent → "demo"' in lines
    assert "workout_session: 1 more" in lines
    assert "3 steps: added" in lines
