"""`.learn/telemetry.json` in a real directory: whole or untouched, and nothing that LearnPack wrote is ever reduced."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.course import Course
from agent.core.events import Event, OpenStep, Output, SessionEnd
from agent.core.events import TestResult as Result
from agent.store import document_file
from agent.store.document_file import DocumentError, DocumentFile, Written
from agent.store.fold import chunks, plan
from agent.store.journal import Journal, JournalCorrupt, open_or_replace
from tests.making import (
    COURSE,
    FULL,
    STEPS,
    a_compile,
    a_test,
    asked,
    assert_receivable,
    attempt,
    b64,
    completed,
    gap,
    learnpack_document,
    learnpack_step,
    ms,
    opened,
    reset,
    session_end,
    session_start,
    step,
    visit,
)
from tests.standin.toolbox import REPOSITORY
from tests.store.test_journal import files_no_larger_than

NOW = ms(1000)


class Place:
    """A course's directory, a journal beside it, and the document between the two."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "course"
        self.root.mkdir()
        self.state = directory / "state"
        self.journal = Journal.open(self.state, create=True)
        self.file = DocumentFile(self.root, self.journal)
        self.path = self.root / ".learn" / "telemetry.json"

    def record(self, *events: Event) -> list[str]:
        return [record.id for record in self.journal.append(events, None)]

    def write(self, course: Course = COURSE) -> Written:
        return self.file.write(course, NOW)

    def written(self, course: Course = COURSE) -> dict[str, Any]:
        self.write(course)
        document: dict[str, Any] = json.loads(self.path.read_bytes())
        assert_receivable(document)
        return document

    def learnpack_writes(self, document: object) -> None:
        """In place, as LearnPack does."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        # Long ago, so that the clock's tick can't hide the next change.
        os.utime(self.path, ns=(0, self.path.stat().st_mtime_ns - 10**9))

    @property
    def is_foreign(self) -> bool:
        """Whether the next look reads what lies there: it was neither written here nor adopted."""
        if not self.path.exists():
            return False
        found = self.path.stat()
        identity = [found.st_ino, found.st_size, found.st_mtime_ns]
        return identity not in (self.journal.fact("document") or {}).values()

    @property
    def in_learn(self) -> set[str]:
        return {path.name for path in (self.root / ".learn").iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.journal.close()


def by_slug(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["slug"]: one for one in document["steps"]}


# The fold


def test_a_whole_history_becomes_the_document(place: Place) -> None:
    ids = place.record(
        session_start(0),
        opened("00-welcome", 1),
        opened("01-hello", 5),
        completed("00-welcome", 5),
        a_compile("01-hello", 6, 7, 1, **FULL),
        a_test("01-hello", 8, 9, 0),
        completed("01-hello", 9),
        reset("01-hello", 20),
        session_end(30),
        gap(30, 40),
    )
    document = place.written()
    assert list(document) == [
        "telemetry_id",
        "slug",
        "tutorial_started_at",
        "last_interaction_at",
        "workout_session",
        "steps",
    ]
    assert document["telemetry_id"] == place.journal.id
    assert (document["tutorial_started_at"], document["last_interaction_at"]) == (ms(0), ms(20))
    assert document["workout_session"] == [{"started_at": ms(0), "ended_at": ms(30)}]
    assert [one["slug"] for one in document["steps"]] == ["00-welcome", "01-hello", "02-loop"]
    welcome, hello, loop = document["steps"]
    assert (welcome["opened_at"], welcome["completed_at"]) == (ms(1), ms(5))
    assert (hello["opened_at"], hello["completed_at"]) == (ms(5), ms(9))
    assert "opened_at" not in loop
    assert [one["event_id"] for one in hello["compilations"] + hello["tests"]] == [ids[4], ids[5]]
    assert hello["compilations"][0]["stdout"] == b64("ñandú\n")
    assert "command" not in hello["compilations"][0]


def test_an_empty_journal_gives_a_document_too(place: Place) -> None:
    document = place.written()
    assert (document["tutorial_started_at"], document["workout_session"]) == (NOW, [])
    assert len(document["steps"]) == 3


def test_a_session_that_was_never_closed_stays_open_and_the_next_is_another(place: Place) -> None:
    place.record(session_end(-1), session_start(0), session_start(100), session_end(200))
    assert place.written()["workout_session"] == [
        {"started_at": ms(0)},
        {"started_at": ms(100), "ended_at": ms(200)},
    ]


def test_a_step_that_was_deleted_or_renamed_stays_behind_the_courses_own(place: Place) -> None:
    place.record(opened("01-hello", 1), a_test("01-hello", 2, 3))
    place.learnpack_writes(learnpack_document(learnpack_step("05-lost", opened_at=ms(1))))
    document = place.written(Course("/course", "demo", (step("00-welcome", 0), step("01-hallo", 1))))
    assert [(one["slug"], one["position"]) for one in document["steps"]] == [
        ("00-welcome", 0),
        ("01-hallo", 1),
        ("01-hello", 1),
        ("02-loop", 2),
        ("05-lost", 5),
    ]
    assert len(by_slug(document)["01-hello"]["tests"]) == 1


def test_two_steps_of_one_slug_are_both_there_and_what_was_recorded_is_there_once(place: Place) -> None:
    place.record(opened("01-hello", 1), a_test("01-hello", 2, 3))
    twins = Course("/course", "demo", (step("01-hello", 0), step("01-hello", 1)))
    first, second = place.written(twins)["steps"]
    assert (first["position"], len(first["tests"])) == (0, 1)
    assert (second["position"], second["tests"]) == (1, [])


def test_the_visits_of_a_step_are_its_sessions(place: Place) -> None:
    place.record(
        session_start(0),
        opened("01-hello", 1),
        opened("02-loop", 61, visit("01-hello", 1, 61, 40_000)),
        opened("01-hello", 70, visit("02-loop", 61, 70, 9_000)),
        completed("01-hello", 80),
    )
    steps = by_slug(place.written())
    assert (steps["01-hello"]["sessions"], steps["02-loop"]["sessions"]) == ([40_000], [9_000])
    assert (steps["01-hello"]["is_completed"], steps["02-loop"]["is_completed"]) == (True, False)
    place.record(session_end(100, visit("01-hello", 70, 100, 25_000)))
    document = place.written()
    assert by_slug(document)["01-hello"]["sessions"] == [40_000, 25_000]
    assert document["workout_session"] == [{"started_at": ms(0), "ended_at": ms(100)}]
    assert by_slug(document)["00-welcome"]["sessions"] == []


def test_the_visits_of_both_are_united_and_never_reduced_in_many_turns(place: Place) -> None:
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", sessions=[50_000, 10_000])))
    place.record(opened("01-hello", 1), session_end(61, visit("01-hello", 1, 61, 40_000)))
    document = place.written()
    assert by_slug(document)["01-hello"]["sessions"] == [50_000, 10_000]
    # LearnPack goes on with what it read, and counts the time in which nothing was done, too
    by_slug(document)["01-hello"]["sessions"].append(90_000)
    place.learnpack_writes(document)
    place.record(session_end(200, visit("01-hello", 70, 200, 30_000)))
    assert by_slug(place.written())["01-hello"]["sessions"] == [50_000, 30_000, 90_000]
    # and a LearnPack that knows less takes nothing away
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", sessions=[1])))
    assert by_slug(place.written())["01-hello"]["sessions"] == [50_000, 30_000, 90_000]


def test_the_records_of_an_agent_that_knew_no_visits_have_none(place: Place) -> None:
    place.record(session_start(0), opened("01-hello", 1), session_end(9))
    place.journal.connection.execute(
        "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), ',\"left\":null', '') AS BLOB)"
    )
    assert b"left" not in b"".join(body for (body,) in place.journal.connection.execute("SELECT body FROM records"))
    assert by_slug(place.written())["01-hello"]["sessions"] == []


@pytest.mark.parametrize("left", ["5", "{}", '{"slug":1}', '"x"'])
def test_a_visit_that_cannot_be_read_is_damage_and_is_called_so(place: Place, left: str) -> None:
    place.record(opened("01-hello", 1))
    place.journal.connection.execute(
        "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), '\"left\":null', ?) AS BLOB)", (f'"left":{left}',)
    )
    with pytest.raises(JournalCorrupt, match="record 1"):
        place.write()


def test_a_question_to_the_tutor_is_in_the_document_once_as_learnpack_wrote_it(place: Place) -> None:
    theirs = {"student_message": "why?", "ai_response": "so", "started_at": ms(1), "ended_at": ms(2)}
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", ai_interactions=[theirs])))
    place.record(opened("01-hello", 0), asked("01-hello", 1, 2))
    document = place.written()
    assert by_slug(document)["01-hello"]["ai_interactions"] == [theirs]
    assert document["last_interaction_at"] == ms(2)


visits = st.one_of(
    st.none(),
    st.builds(visit, st.sampled_from(["00-welcome", "09-gone"]), st.just(0), st.just(9), st.integers(0, 9000)),
)
events = st.lists(
    st.one_of(
        st.builds(session_start, st.integers(0, 99)),
        st.builds(session_end, st.integers(0, 99), visits),
        st.builds(opened, st.sampled_from(["00-welcome", "01-hello", "09-gone"]), st.integers(0, 99), visits),
        st.builds(asked, st.just("01-hello"), st.integers(0, 50), st.one_of(st.none(), st.integers(50, 99))),
        st.builds(completed, st.sampled_from(["00-welcome", "01-hello"]), st.integers(0, 99)),
        st.builds(
            a_test, st.just("01-hello"), st.integers(0, 50), st.one_of(st.none(), st.integers(50, 99)), st.none()
        ),
        st.builds(a_compile, st.just("00-welcome"), st.integers(0, 50), st.integers(50, 99), st.integers(0, 2)),
        st.builds(gap, st.integers(0, 50), st.integers(50, 99)),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("shared"))
    yield place
    place.journal.close()


@given(happened=events)
@settings(max_examples=60, deadline=None, database=None)
def test_whatever_happened_the_receiver_can_take_it(shared: Place, happened: list[Event]) -> None:
    shared.journal.connection.execute("DELETE FROM records")
    shared.journal.connection.execute("PRAGMA synchronous=OFF")
    shared.journal.append(happened, None)
    document = json.loads(b"".join(chunks(shared.journal, plan(shared.journal, COURSE, NOW))))
    assert_receivable(document)
    runs = sum(len(one["compilations"]) + len(one["tests"]) for one in document["steps"])
    assert runs == sum(event.name in ("compile", "test") for event in happened)
    left = [event.left.active_ms for event in happened if isinstance(event, OpenStep | SessionEnd) and event.left]
    assert sorted(ms for one in document["steps"] for ms in one["sessions"]) == sorted(left)


# The size


def test_the_oldest_texts_are_left_out_first_and_attempts_never(place: Place) -> None:
    text = "x" * 30_000
    place.record(*(a_test("01-hello", 10 * n, 10 * n + 1, stdout=text, output=Output.FULL) for n in range(20)))
    place.file = DocumentFile(place.root, place.journal, limit=200_000)
    written = place.write()
    tests = by_slug(json.loads(place.path.read_bytes()))["01-hello"]["tests"]
    assert [one["started_at"] for one in tests] == [ms(10 * n) for n in range(20)]
    kept = [bool(one["stdout"]) for one in tests]
    assert kept == sorted(kept)
    assert [one.get("omitted", False) for one in tests] == [not one for one in kept]
    assert kept.count(True) == 4
    assert written.omitted == 16
    assert written.size == place.path.stat().st_size <= 200_000


def test_the_results_of_single_tests_are_left_out_with_the_texts(place: Place) -> None:
    results = tuple(Result(f"exercises/01-hello/test.py::test_{n}_{'x' * 60}", "failed") for n in range(100))
    place.record(*(a_test("01-hello", 10 * n, 10 * n + 1, 1, results=results) for n in range(20)))
    place.file = DocumentFile(place.root, place.journal, limit=60_000)
    written = place.write()
    tests = by_slug(json.loads(place.path.read_bytes()))["01-hello"]["tests"]
    kept = ["results" in one for one in tests]
    assert kept == sorted(kept)
    assert [one.get("omitted", False) for one in tests] == [not one for one in kept]
    assert 0 < kept.count(True) == 20 - written.omitted < 20
    assert written.size <= 60_000


def test_what_learnpack_captured_is_not_left_out(place: Place) -> None:
    large = attempt(1, 2, stdout=b64("y" * 50_000))
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", tests=[large])))
    place.record(a_test("02-loop", 10, 11, stdout="x" * 30_000, output=Output.FULL))
    place.file = DocumentFile(place.root, place.journal, limit=60_000)
    steps = by_slug(place.written())
    assert steps["01-hello"]["tests"][0]["stdout"] == large["stdout"]
    assert steps["02-loop"]["tests"][0]["omitted"] is True


MEASURE = """
import sys
from agent.core.events import Output
from agent.store.document_file import DocumentFile
from agent.store.journal import Journal
from tests.making import COURSE, a_test

def memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

root, state, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Journal.open(state, create=False) as journal:
    before = memory()
    written = DocumentFile(root, journal, limit=limit).write(COURSE, 0)
    print(written.size, memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("limit", [8 << 20, 1 << 30])
def test_thousands_of_runs_are_folded_without_being_held(place: Place, limit: int) -> None:
    runs = 4000
    place.journal.connection.execute("PRAGMA synchronous=OFF")
    for first in range(0, runs, 500):
        place.record(
            *(a_test("01-hello", n, n + 1, stdout="x" * 14_000, output=Output.FULL) for n in range(first, first + 500))
        )
    command = [sys.executable, "-c", MEASURE, str(place.root), str(place.state), str(limit)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=50)
    size, growth = map(float, done.stdout.split())
    assert size > (runs * 14_000 if limit > 1 << 29 else 7 << 20)
    assert growth < 10  # MB; 20,000 runs in one step: 4 MB
    assert len(by_slug(json.loads(place.path.read_bytes()))["01-hello"]["tests"]) == runs


# The union with what LearnPack wrote


def test_the_same_run_is_one_attempt_with_the_keys_of_both(place: Place) -> None:
    theirs = attempt(2, 3, 1, errorType="run-time", stdout=b64("printed"))
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", compilations=[theirs], opened_at=ms(0))))
    event_id = place.record(a_compile("01-hello", 2.004, 2.998, 1))[0]
    (merged,) = by_slug(place.written())["01-hello"]["compilations"]
    assert {key: merged[key] for key in theirs} == theirs
    assert (merged["event_id"], merged["exit_code"], merged["started_at"]) == (event_id, 1, ms(2))


def test_other_runs_of_both_stand_side_by_side_in_their_order(place: Place) -> None:
    theirs = [attempt(20, 21), attempt(1, 2)]
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", tests=theirs)))
    place.record(a_test("01-hello", 10, 11), a_test("01-hello", 30, 31))
    tests = by_slug(place.written())["01-hello"]["tests"]
    assert [one["started_at"] for one in tests] == [ms(1), ms(10), ms(20), ms(30)]
    assert ["event_id" in one for one in tests] == [False, True, False, True]


def test_nothing_of_learnpacks_is_lost(place: Place) -> None:
    interaction = {"student_message": "why?", "ai_response": "so", "starting_at": ms(5), "ending_at": ms(6)}
    quiz = {"status": "ERROR", "percentage": 50, "quiz_hash": "q", "selections": ["a"], "started_at": ms(7)}
    theirs = learnpack_step(
        "01-hello",
        opened_at=ms(3),
        completed_at=ms(8),
        ai_interactions=[interaction],
        quiz_submissions=[quiz],
        sessions=[5],
    )
    place.learnpack_writes(
        learnpack_document(theirs, user_id="7", cohort_id=3, last_interaction_at=ms(8), version="5.1")
    )
    place.record(session_start(-0.5), opened("01-hello", 4), completed("01-hello", 9), session_end(60))
    document = place.written()
    hello = by_slug(document)["01-hello"]
    assert (hello["opened_at"], hello["completed_at"]) == (ms(3), ms(8))
    assert [one["student_message"] for one in hello["ai_interactions"]] == ["why?"]
    assert hello["quiz_submissions"] == [quiz]
    assert hello["sessions"] == [5]
    assert document["workout_session"] == [{"started_at": ms(0), "ended_at": ms(60)}]
    kept = {key: document[key] for key in ("telemetry_id", "user_id", "cohort_id", "version", "last_interaction_at")}
    assert kept == {
        "telemetry_id": "lp00lp00lp00lp00",
        "user_id": "7",
        "cohort_id": 3,
        "version": "5.1",
        "last_interaction_at": ms(8),
    }


def test_learnpack_and_the_agent_may_take_turns_forever(place: Place) -> None:
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", tests=[attempt(2, 3, 1)], opened_at=ms(1))))
    place.record(session_start(0), opened("01-hello", 1), a_test("01-hello", 2, 3, 1), a_test("02-loop", 5, 6, 0))
    first = place.written()
    for turn in range(3):
        # LearnPack's next start: it reads the whole document, adds to it and writes it in place.
        document = json.loads(place.path.read_bytes())
        place.learnpack_writes(document)
        assert place.is_foreign
        assert place.file.adopt(COURSE).new == 0
        assert not place.is_foreign
        assert place.written() == first, turn
    document = json.loads(place.path.read_bytes())
    document["steps"][1]["tests"].append(attempt(50, 51))
    place.learnpack_writes(document)
    assert place.file.adopt(COURSE).new == 1
    assert [one["started_at"] for one in by_slug(place.written())["01-hello"]["tests"]] == [ms(2), ms(50)]


def test_a_lost_journal_gets_everything_back_from_the_document(place: Place) -> None:
    place.record(session_start(0), opened("01-hello", 1), a_test("01-hello", 2, 3, 1, **FULL), completed("01-hello", 4))
    before = place.written()
    place.journal.close()
    (place.state / "journal.sqlite3").write_bytes(b"broken" * 1000)
    place.journal, aside = open_or_replace(place.state, "now")
    assert aside is not None
    place.file = DocumentFile(place.root, place.journal)
    assert place.is_foreign
    assert place.written() == before


# Whose document it is


def test_our_own_document_is_not_foreign(place: Place) -> None:
    assert not place.is_foreign  # there is no `.learn` yet
    place.write()
    assert not place.is_foreign
    again = DocumentFile(place.root, place.journal)
    assert again.adopt(COURSE).new == 0


def test_a_document_is_somebody_elses_since_a_moment_only_when_they_wrote_it_after_that(place: Place) -> None:
    assert not place.file.foreign_since(0)
    place.learnpack_writes(learnpack_document())
    at = place.path.stat().st_mtime_ns // 1_000_000
    assert place.file.foreign_since(at)
    assert not place.file.foreign_since(at + 1)
    place.file.adopt(COURSE)
    assert place.file.foreign_since(at)  # read, but still LearnPack's
    place.write()
    assert not place.file.foreign_since(0)


def test_a_document_that_came_with_git_or_was_deleted_is_noticed(place: Place) -> None:
    place.record(a_test("01-hello", 2, 3))
    place.write()
    text = place.path.read_bytes()
    place.path.unlink()
    assert not place.is_foreign
    place.path.write_bytes(text)  # the same text, in another file
    assert place.is_foreign


def test_adopting_changes_nothing_in_the_course(place: Place) -> None:
    place.learnpack_writes(learnpack_document(learnpack_step("01-hello", tests=[attempt(2, 3)])))
    before = (place.path.read_bytes(), place.path.stat())
    adopted = place.file.adopt(COURSE)
    assert (adopted.new, adopted.problem) == (1, None)
    assert adopted.seconds > 0
    assert (place.path.read_bytes(), place.path.stat()[:7]) == (before[0], before[1][:7])
    assert place.in_learn == {"telemetry.json"}


def test_a_document_that_changed_just_now_is_looked_at_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_file, "_TICK_MS", 60_000)
    place.learnpack_writes(learnpack_document())
    os.utime(place.path)
    place.file.adopt(COURSE)
    # Another write in the same tick of the clock would look the same.
    assert place.is_foreign


@pytest.mark.parametrize(
    "text",
    [
        b'{"slug": "demo", "steps": [',
        b"not json",
        b'{"slug": "demo", "steps": [}}',
        b'{"slug": "demo", "odd": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"slug": "demo", "odd": ["\\ud800", ' + b"[" * 3000 + b"]" * 3000 + b"]}",
    ],
    ids=["torn", "text", "crossed", "deep", "deep with a surrogate"],
)
def test_a_torn_document_is_copied_aside_before_it_is_replaced(place: Place, text: bytes) -> None:
    place.learnpack_writes(text)
    assert place.file.adopt(COURSE).problem is not None
    assert place.is_foreign
    assert place.path.read_bytes() == text
    written = place.write()
    assert written.aside == place.state / f"telemetry-{NOW}.json"
    assert written.problem is not None
    assert written.aside.read_bytes() == text
    assert stat.S_IMODE(written.aside.stat().st_mode) == 0o600
    assert_receivable(json.loads(place.path.read_bytes()))
    place.learnpack_writes(text)
    assert place.write().aside == place.state / f"telemetry-{NOW}-2.json"


def test_an_empty_document_is_just_replaced(place: Place) -> None:
    place.learnpack_writes(b"")
    written = place.write()
    assert (written.aside, written.problem) == (None, "it is empty")
    assert_receivable(json.loads(place.path.read_bytes()))


def test_the_document_of_another_course_is_copied_aside(place: Place) -> None:
    other = learnpack_document(slug="other")
    other["steps"] = [learnpack_step("03-else", tests=[attempt(1, 2)])]
    place.learnpack_writes(other)
    written = place.write()
    assert written.aside is not None
    assert json.loads(written.aside.read_bytes()) == other
    assert written.problem == "it belongs to the course 'other'"
    assert [one["slug"] for one in json.loads(place.path.read_bytes())["steps"]] == [one.slug for one in STEPS]


def test_a_document_that_arrives_while_ours_is_made_is_taken_over_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.record(a_test("01-hello", 2, 3))
    late = learnpack_document(learnpack_step("01-hello", tests=[attempt(50, 51)]))

    def plan_and_write(*arguments: Any) -> Any:
        monkeypatch.undo()
        place.learnpack_writes(late)
        return plan(*arguments)

    monkeypatch.setattr("agent.store.document_file.plan", plan_and_write)
    assert len(by_slug(place.written())["01-hello"]["tests"]) == 2


def test_somebody_who_never_stops_writing_is_not_overwritten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))

    def plan_and_write(*arguments: Any) -> Any:
        place.learnpack_writes(learnpack_document(version=str(next(numbers))))
        return plan(*arguments)

    monkeypatch.setattr("agent.store.document_file.plan", plan_and_write)
    with pytest.raises(DocumentError, match="somebody else keeps writing it"):
        place.write()
    assert json.loads(place.path.read_bytes())["version"] == "2"
    assert place.in_learn == {"telemetry.json"}


# The disk


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_document_is_private_and_replaced_whole(place: Place, umask: int) -> None:
    before = os.umask(umask)
    try:
        place.write()
        with place.path.open() as reader:
            place.record(a_test("01-hello", 2, 3))
            place.write()
            assert by_slug(json.load(reader))["01-hello"]["tests"] == []
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o600
    assert place.in_learn == {"telemetry.json"}


def test_a_temporary_file_that_a_killed_agent_left_is_no_obstacle(place: Place) -> None:
    (place.root / ".learn").mkdir()
    (place.root / ".learn" / ".telemetry.json.tmp").write_text("half")
    place.write()
    assert place.in_learn == {"telemetry.json"}


def test_a_link_in_the_place_of_the_temporary_file_is_not_written_through(place: Place, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (place.root / ".learn").mkdir()
    (place.root / ".learn" / ".telemetry.json.tmp").symlink_to(precious)
    place.write()
    assert precious.read_text() == "mine"


def test_a_link_in_the_place_of_learn_is_refused(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (place.root / ".learn").symlink_to(elsewhere)
    for action in (place.write, lambda: place.file.adopt(COURSE)):
        with pytest.raises(DocumentError, match="symbolic link"):
            action()
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_the_place_of_the_course_is_refused(place: Place, tmp_path: Path) -> None:
    """A student can move the course away and put a link to somebody else's directory in its place."""
    elsewhere = tmp_path / "elsewhere"
    place.root.rename(elsewhere)
    place.root.symlink_to(elsewhere)
    for action in (place.write, lambda: place.file.adopt(COURSE)):
        with pytest.raises(DocumentError, match="symbolic link"):
            action()
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_the_place_of_the_document_is_refused(place: Place, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("{}")
    (place.root / ".learn").mkdir()
    place.path.symlink_to(precious)
    for action in (place.write, lambda: place.file.adopt(COURSE)):
        with pytest.raises(DocumentError, match="symbolic link"):
            action()
    assert (precious.read_text(), place.path.is_symlink()) == ("{}", True)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_something_that_is_no_file_is_refused_without_waiting(place: Place, make: Any) -> None:
    (place.root / ".learn").mkdir()
    make(place.path)
    with pytest.raises(DocumentError, match="not a regular file"):
        place.write()


def test_a_file_in_the_place_of_learn_is_refused(place: Place) -> None:
    (place.root / ".learn").write_text("")
    with pytest.raises(DocumentError):
        place.write()


def test_a_course_that_is_gone_is_one_clear_error(place: Place) -> None:
    place.root.rmdir()
    with pytest.raises(DocumentError, match="No such file or directory"):
        place.write()
    assert not place.root.exists()


def test_on_a_disk_that_takes_no_more_the_old_document_stays(place: Place) -> None:
    place.record(opened("01-hello", 1))
    place.write()
    before = place.path.read_bytes()
    place.record(*(a_test("01-hello", n, n + 1, **{**FULL, "stdout": "x" * 10_000}) for n in range(40)))
    with files_no_larger_than(300_000), pytest.raises(DocumentError, match="File too large"):
        place.write()
    assert place.path.read_bytes() == before
    assert place.in_learn == {"telemetry.json"}
    assert not place.is_foreign
    place.write()
    assert len(by_slug(json.loads(place.path.read_bytes()))["01-hello"]["tests"]) == 40


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_on_a_full_disk_the_old_document_stays_and_no_rubbish(place: Place) -> None:
    learn = place.root / ".learn"
    learn.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", learn], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        place.write()
        before = place.path.read_bytes()
        place.record(*(a_test("01-hello", n, n + 1, **{**FULL, "stdout": "x" * 10_000}) for n in range(20)))
        with pytest.raises(DocumentError, match="No space left"):
            place.write()
        assert place.path.read_bytes() == before
        assert place.in_learn == {"telemetry.json"}
        subprocess.run(["mount", "-o", "remount,ro", learn], check=True)
        with pytest.raises(DocumentError, match="Read-only"):
            place.write()
        assert place.path.read_bytes() == before
    finally:
        subprocess.run(["umount", learn], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_course_that_must_not_be_written_stays_as_it_is(place: Place) -> None:
    place.write()
    before = place.path.read_bytes()
    place.record(a_test("01-hello", 2, 3))
    place.path.parent.chmod(0o500)
    try:
        with pytest.raises(DocumentError, match="Permission denied"):
            place.write()
    finally:
        place.path.parent.chmod(0o700)
    assert place.path.read_bytes() == before


def test_a_write_that_fails_again_and_again_leaves_one_copy_aside(place: Place) -> None:
    place.learnpack_writes(b"torn")
    (place.path.parent / ".telemetry.json.tmp").mkdir()
    for _ in range(3):
        with pytest.raises(DocumentError):
            place.write()
    assert [path.name for path in place.state.glob("telemetry-*")] == [f"telemetry-{NOW}.json"]
    assert place.path.read_bytes() == b"torn"


def test_the_cost_is_told(place: Place) -> None:
    written = place.write()
    assert 0 < written.seconds < 50
    assert written.size == place.path.stat().st_size
