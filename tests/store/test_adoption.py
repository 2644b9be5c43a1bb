"""What LearnPack recorded itself is taken over whole, once, and never reduced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.course import Course
from agent.core.events import Origin
from agent.store import adoption
from agent.store.adoption import Adoption, OtherCourse, Remembered, adopt, keys_of, parsed, rows, same_runs
from agent.store.journal import Journal, JournalFull
from agent.store.json_pieces import Unreadable
from tests.making import COURSE, a_compile, a_test, attempt, b64, learnpack_document, learnpack_step, ms


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state", create=True) as journal:
        yield journal


def taken(journal: Journal, document: Any, course: Course = COURSE) -> Adoption:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return adopt(journal, course, lambda offset, size: data[offset : offset + size])


def kinds(journal: Journal) -> dict[tuple[str, str], int]:
    query = "SELECT step_slug, kind, count(*) FROM adopted GROUP BY step_slug, kind"
    return {(slug, kind): count for slug, kind, count in journal.connection.execute(query)}


AI = {"student_message": "why?", "source_code": b64("x"), "ai_response": "so", "starting_at": ms(5), "ending_at": ms(6)}
QUIZ = {"status": "SUCCESS", "percentage": 100, "quiz_hash": "q", "selections": ["a"]}
DOCUMENT = learnpack_document(
    learnpack_step(
        "01-hello",
        opened_at=ms(1),
        tests=[attempt(2, 3, 1), attempt(4, 5, 0)],
        compilations=[attempt(2, 3)],
        ai_interactions=[AI],
        quiz_submissions=[QUIZ, QUIZ],
        sessions=[1000],
    ),
    last_interaction_at=ms(6),
)


def test_everything_is_taken_over(journal: Journal) -> None:
    assert taken(journal, DOCUMENT) == Adoption(new=6, read=6)
    assert kinds(journal) == {
        ("", "document"): 1,
        ("", "session"): 1,
        ("00-welcome", "step"): 1,
        ("01-hello", "step"): 1,
        ("02-loop", "step"): 1,
        ("01-hello", "test"): 2,
        ("01-hello", "compile"): 1,
        ("01-hello", "ai_interaction"): 1,
        ("01-hello", "quiz_submission"): 2,
    }
    assert keys_of(journal, "document")["telemetry_id"] == "lp00lp00lp00lp00"
    assert "steps" not in keys_of(journal, "document")
    assert keys_of(journal, "step", "01-hello")["sessions"] == [1000]
    assert next(rows(journal, "ai_interaction", "01-hello"))[1] == {**AI, "started_at": ms(5), "ended_at": ms(6)}
    assert [body["exit_code"] for _, body in rows(journal, "test", "01-hello")] == [1, 0]


def test_reading_it_again_brings_nothing_new(journal: Journal) -> None:
    taken(journal, DOCUMENT)
    before = journal.connection.execute("SELECT * FROM adopted").fetchall()
    assert taken(journal, DOCUMENT) == Adoption(new=0, read=6)
    assert journal.connection.execute("SELECT * FROM adopted").fetchall() == before


def test_a_later_document_adds_and_one_that_holds_less_takes_nothing_away(journal: Journal) -> None:
    taken(journal, DOCUMENT)
    later = json.loads(json.dumps(DOCUMENT))
    later["steps"][1]["tests"].append(attempt(7, 8))
    later["workout_session"] = [{"started_at": ms(0), "ended_at": ms(9)}, {"started_at": ms(20)}]
    later["user_id"] = 7
    assert taken(journal, later).new == 1
    assert keys_of(journal, "document")["user_id"] == 7
    assert [body for _, body in rows(journal, "session")] == [
        {"started_at": ms(0), "ended_at": ms(9)},
        {"started_at": ms(20)},
    ]
    everything = journal.connection.execute("SELECT step_slug, kind, identity, body FROM adopted").fetchall()
    assert taken(journal, learnpack_document()) == Adoption(new=0, read=0)
    assert journal.connection.execute("SELECT step_slug, kind, identity, body FROM adopted").fetchall() == everything


def test_our_own_runs_that_learnpack_hands_back_are_not_taken(journal: Journal) -> None:
    record = journal.append([a_test("01-hello", 2, 3)], None)[0]
    ours, unknown = attempt(2, 3, event_id=record.id), attempt(12, 13, event_id=f"{journal.id}-99")
    others = attempt(22, 23, event_id="ffffffffffffffff-1")
    assert taken(journal, learnpack_document(learnpack_step("01-hello", tests=[ours, unknown, others]))).new == 2
    starts = [body["started_at"] for _, body in rows(journal, "test", "01-hello")]
    assert starts == [ms(12), ms(22)]


@pytest.mark.parametrize("event_id", [5, None, "", "-", "x", "é-1", "x-99999999999999999999999"])
def test_an_odd_event_id_is_somebody_elses(journal: Journal, event_id: object) -> None:
    assert (
        taken(journal, learnpack_document(learnpack_step("01-hello", tests=[attempt(2, 3, event_id=event_id)]))).new
        == 1
    )


def test_personal_data_is_left_where_it_is(journal: Journal) -> None:
    taken(journal, learnpack_document(fullname="Ada Lovelace", cohort_id=7))
    keys = keys_of(journal, "document")
    assert "fullname" not in keys
    assert keys["cohort_id"] == 7
    assert b"Lovelace" not in b"".join(body for (body,) in journal.connection.execute("SELECT body FROM adopted"))


def test_attempts_without_times_are_told_apart_by_what_they_say(journal: Journal) -> None:
    other = {**QUIZ, "status": "ERROR"}
    document = learnpack_document(learnpack_step("01-hello", quiz_submissions=[QUIZ, other, QUIZ]))
    assert taken(journal, document).new == 3
    assert taken(journal, document).new == 0


def test_a_step_that_the_course_does_not_have_is_kept(journal: Journal) -> None:
    taken(journal, learnpack_document(learnpack_step("07-gone", tests=[attempt(1, 2)])))
    assert kinds(journal)["07-gone", "test"] == 1


def test_a_step_without_a_slug_is_the_one_at_its_index(journal: Journal) -> None:
    document = learnpack_document()
    document["steps"][1] = {"tests": [attempt(1, 2)]}
    document["steps"].append({"compilations": [attempt(1, 2)]})
    taken(journal, document)
    assert kinds(journal)["01-hello", "test"] == 1
    assert kinds(journal)["step-3", "compile"] == 1


def test_odd_shapes_are_no_reason_to_lose_the_rest(journal: Journal) -> None:
    odd = learnpack_step("01-hello", tests=None, compilations={"a": 1}, ai_interactions=[None, 7, AI])
    document = learnpack_document(odd, workout_session=None)
    document["steps"][0] = None
    assert taken(journal, document).new == 1
    assert taken(journal, {**document, "steps": {}}).new == 0


@pytest.mark.parametrize("data", [b"", b"{", b'{"slug": "demo", "steps": [{"tests": [{]}]}', b"[]", b'{"a": nul}'])
def test_what_cannot_be_read_changes_nothing(journal: Journal, data: bytes) -> None:
    taken(journal, DOCUMENT)
    before = journal.connection.execute("SELECT * FROM adopted").fetchall()
    with pytest.raises(Unreadable):
        taken(journal, data)
    assert journal.connection.execute("SELECT * FROM adopted").fetchall() == before


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


LONE = b'"\\ud800"'
TOO_MUCH = {
    "deeper than can be written": nested(300),
    "as deep as can be read": nested(1000),
    "deeper than can be read": nested(3000),
    "a lone surrogate and deep": b"[" + LONE + b", " + nested(300) + b"]",
    "a lone surrogate and very deep": b"[" + LONE + b", " + nested(3000) + b"]",
    "a lone surrogate and a huge number": b"[" + LONE + b", " + b"9" * 5000 + b"]",
}


@pytest.mark.parametrize("where", ["document", "session", "step", "element", "event_id"])
@pytest.mark.parametrize("value", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_can_be_read_but_not_kept_changes_nothing(journal: Journal, value: bytes, where: str) -> None:
    taken(journal, DOCUMENT)
    before = journal.connection.execute("SELECT * FROM adopted").fetchall()
    step = learnpack_step("01-hello", tests=[attempt(7, 8)])
    document = learnpack_document(step, workout_session=[{"started_at": ms(0)}])
    places: dict[str, tuple[dict[str, Any], str]] = {
        "document": (document, "odd"),
        "session": (document["workout_session"][0], "odd"),
        "step": (step, "odd"),
        "element": (step["tests"][0], "odd"),
        "event_id": (step["tests"][0], "event_id"),
    }
    holder, key = places[where]
    holder[key] = "HERE"
    with pytest.raises(Unreadable):
        taken(journal, json.dumps(document).encode().replace(b'"HERE"', value))
    assert journal.connection.execute("SELECT * FROM adopted").fetchall() == before


def test_two_lists_of_steps_are_no_document(journal: Journal) -> None:
    with pytest.raises(Unreadable, match="several lists of steps"):
        taken(journal, b'{"slug": "demo", "steps": [{"slug": "a"}, {"slug": "b", "tests": [{}]}], "steps": []}')
    assert kinds(journal) == {}


def test_what_is_just_deep_enough_is_kept_and_can_be_read_again(journal: Journal) -> None:
    document = json.dumps(learnpack_document(learnpack_step("01-hello", odd="HERE", tests=[{"odd": "HERE"}])))
    taken(journal, document.encode().replace(b'"HERE"', nested(200)))
    assert json.dumps(keys_of(journal, "step", "01-hello")["odd"]).encode() == nested(200)
    assert json.dumps(next(rows(journal, "test", "01-hello"))[1]["odd"]).encode() == nested(200)


def test_an_attempt_that_cannot_be_parsed_undoes_the_whole_reading(journal: Journal) -> None:
    data = json.dumps(learnpack_document(learnpack_step("01-hello", tests=[attempt(1, 2), {"bad": 1}]))).encode()
    with pytest.raises(Unreadable):
        taken(journal, data.replace(b'{"bad": 1}', b'{"bad" 1}'))
    assert kinds(journal) == {}


def test_a_lone_surrogate_in_a_message_is_made_printable(journal: Journal) -> None:
    interaction = {"student_message": "\ud800 why?", "starting_at": ms(1), "ending_at": ms(2)}
    taken(journal, learnpack_document(learnpack_step("01-hello", ai_interactions=[interaction])))
    assert next(rows(journal, "ai_interaction", "01-hello"))[1]["student_message"] == "\ufffd why?"


def test_what_node_reads_is_taken_over_as_node_reads_it(journal: Journal) -> None:
    step = learnpack_step("01-hello", odd="HERE", tests=[attempt(1, 2, odd="HERE")])
    odd = b'["\\ud83d", "caf\xe9", ' + b"9" * 30 + b"]"
    taken(journal, json.dumps(learnpack_document(step)).encode().replace(b'"HERE"', odd))
    read = ["\ufffd", "caf\ufffd", float("9" * 30)]
    assert keys_of(journal, "step", "01-hello")["odd"] == read
    assert next(rows(journal, "test", "01-hello"))[1]["odd"] == read


class Reading:
    """One document after the other, as `DocumentFile` reads them: what was met before is not parsed again."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal = journal
        self.remembered: Remembered = {}
        self.parsed = 0
        monkeypatch.setattr(adoption, "parsed", self._parsed)

    def _parsed(self, text: bytes) -> Any:
        self.parsed += 1
        return parsed(text)

    def taken(self, document: dict[str, Any]) -> tuple[int, int]:
        """How many attempts were new, and how many elements were parsed."""
        data = json.dumps(document).encode()
        self.parsed = 0
        found = adopt(
            self.journal, COURSE, lambda offset, size: data[offset : offset + size], remembered=self.remembered
        )
        return found.new, self.parsed - 1  # the rest of the document is one


def test_of_the_largest_document_too_only_the_new_elements_are_parsed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(journal, monkeypatch)
    tests = [{"started_at": ms(n), "ended_at": ms(n + 0.5)} for n in range(6_000)]
    assert reading.taken(learnpack_document(learnpack_step("01-hello", tests=tests))) == (6_000, 6_000)
    tests.append(attempt(7_000, 7_001))
    assert reading.taken(learnpack_document(learnpack_step("01-hello", tests=tests))) == (1, 1)
    assert reading.taken(learnpack_document(learnpack_step("01-hello", tests=tests[:10]))) == (0, 0)
    assert len(reading.remembered) == 10, "no more is remembered than lies there"


def test_a_second_one_that_says_the_same_is_a_second_one_also_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(journal, monkeypatch)
    for count in (1, 2, 2, 3):
        reading.taken(learnpack_document(learnpack_step("01-hello", quiz_submissions=[QUIZ] * count)))
        assert kinds(journal)["01-hello", "quiz_submission"] == count


def test_the_document_of_another_course_is_not_taken(journal: Journal) -> None:
    other = learnpack_document(slug="other")
    other["steps"] = [learnpack_step(f"{number:02d}-else") for number in range(3)] + [learnpack_step("00-welcome")]
    with pytest.raises(OtherCourse, match="it belongs to the course 'other'"):
        taken(journal, other)
    assert kinds(journal) == {}


def test_a_course_that_was_renamed_is_still_this_course(journal: Journal) -> None:
    assert taken(journal, {**DOCUMENT, "slug": "old-name"}).new == 6


def test_a_disk_that_is_full_changes_nothing_and_can_be_tried_again(journal: Journal) -> None:
    pages = journal.connection.execute("PRAGMA page_count").fetchone()[0]
    journal.connection.execute(f"PRAGMA max_page_count={pages + 2}")
    large = learnpack_document(learnpack_step("01-hello", tests=[attempt(1, 2, stdout=b64("x" * 50_000))]))
    with pytest.raises(JournalFull):
        taken(journal, large)
    assert kinds(journal) == {}
    journal.connection.execute("PRAGMA max_page_count=100000")
    assert taken(journal, large).new == 1


def test_the_same_run_is_found_among_the_adopted(journal: Journal) -> None:
    taken(journal, DOCUMENT)
    journal.append([a_test("01-hello", 4.004, 4.998, 0), a_test("01-hello", 40, 41, 0), a_test("02-loop", 2, 3)], None)
    second = [key for key, _ in rows(journal, "test", "01-hello")][1]
    assert same_runs(journal, "test", "01-hello") == {1: second}
    assert same_runs(journal, "compile", "01-hello") == {}
    assert same_runs(journal, "test", "02-loop") == {}


def test_a_run_in_a_terminal_is_never_learnpacks(journal: Journal) -> None:
    journal.append(
        [a_test("01-hello", 2, 3.2, origin=Origin.TERMINAL), a_test("01-hello", 2, 3.4, origin=Origin.OTHER)], None
    )
    taken(journal, learnpack_document(learnpack_step("01-hello", tests=[attempt(2.5, 3.5)])))
    assert same_runs(journal, "test", "01-hello") == {}
    journal.append([a_test("01-hello", 2.51, 3.6, origin=Origin.OTHER)], None)
    (number,) = same_runs(journal, "test", "01-hello")
    assert number == 3


def test_of_two_builds_in_a_row_one_was_seen_and_the_other_recorded(journal: Journal) -> None:
    seen = a_compile("01-hello", 2.5, 3, origin=Origin.LEARNPACK, source_code="print(2)")
    again = a_compile("01-hello", 5.1, 5.6, origin=Origin.LEARNPACK, source_code="saved again at once")
    journal.append([seen, again], None)
    first, third = attempt(1.9, 2.2, source_code=b64("print(1)")), attempt(5, 5.5, source_code=b64("print(3)"))
    taken(journal, learnpack_document(learnpack_step("01-hello", compilations=[first, third])))
    assert set(same_runs(journal, "compile", "01-hello")) == {2}


def test_a_run_of_another_program_is_not_learnpacks_however_close(journal: Journal) -> None:
    """What was on no terminal and whose end nobody saw may have been anybody's."""
    for source in ("print(1)", "print(2)"):
        journal.append([a_compile("01-hello", 2.4, None, origin=Origin.OTHER, source_code=source)], None)
    theirs = attempt(2.5, 3.5, source_code=b64("print(2)"))
    taken(journal, learnpack_document(learnpack_step("01-hello", compilations=[theirs])))
    assert set(same_runs(journal, "compile", "01-hello")) == {2}
