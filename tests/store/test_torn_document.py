"""Documents that are torn, or another one's: what is complete is taken over, and nothing is lost or mixed up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.store import document_file
from agent.store.adoption import waiting
from agent.store.document_file import DocumentError
from tests.making import (
    COURSE,
    a_test,
    assert_receivable,
    attempt,
    b64,
    learnpack_document,
    learnpack_step,
    ms,
    opened,
    session_end,
    session_start,
)
from tests.store.test_document_file import NOW, Place, by_slug


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.journal.close()


TESTS = [attempt(10 * n, 10 * n + 5, n % 2) for n in range(4)]
DOCUMENT = learnpack_document(
    learnpack_step("01-hello", opened_at=ms(1), tests=TESTS),
    learnpack_step("02-loop", opened_at=ms(60), tests=[attempt(61, 62)]),
    last_interaction_at=ms(62),
    user_id=7,
)
TEXT = json.dumps(DOCUMENT, separators=(",", ":")).encode()


def starts(document: dict[str, Any], slug: str) -> list[int]:
    return [one["started_at"] for one in by_slug(document)[slug]["tests"]]


# Torn


def test_what_is_complete_in_a_document_that_ends_in_the_middle_is_in_the_next_one(place: Place) -> None:
    place.record(a_test("01-hello", 50, 51))
    torn = TEXT[: TEXT.index(b'"starting_at":%d' % ms(30))]
    place.learnpack_writes(torn)
    document = place.written()
    assert starts(document, "01-hello") == [ms(0), ms(10), ms(20), ms(50)]
    assert document["telemetry_id"] == "lp00lp00lp00lp00"
    assert by_slug(document)["01-hello"]["opened_at"] == ms(0)
    (aside,) = place.state.glob("telemetry-*")
    assert aside.read_bytes() == torn


def test_it_is_told_what_was_taken_over_and_what_was_lost(place: Place) -> None:
    place.learnpack_writes(TEXT[: TEXT.index(b'"starting_at":%d' % ms(30))])
    written = place.write()
    assert written.adopted == 3
    assert written.problem is not None
    assert "it ends in the middle; 3 runs and answers of it were taken over" in written.problem
    assert 'it ends in the middle of steps[1] "01-hello": tests[3]' in written.problem


def test_a_whole_document_with_the_end_of_a_longer_one_behind_it_is_taken_over_whole(place: Place) -> None:
    place.learnpack_writes(TEXT + TEXT[-300:])
    adopted = place.file.adopt(COURSE)
    assert adopted.new == 5
    assert adopted.problem is not None and "something follows its end" in adopted.problem
    assert place.is_foreign, "it is read again, because LearnPack may just be writing it"
    assert place.file.adopt(COURSE).new == 0
    document = place.written()
    assert (starts(document, "01-hello"), document["user_id"]) == ([ms(0), ms(10), ms(20), ms(30)], 7)


def test_reading_a_document_as_it_grows_again_takes_each_run_once(place: Place) -> None:
    """LearnPack truncates it and writes it anew: every length of it may be seen."""
    taken = 0
    for cut in range(0, len(TEXT), 97):
        place.learnpack_writes(TEXT[:cut])
        taken += place.file.adopt(COURSE).new
    place.learnpack_writes(TEXT)
    taken += place.file.adopt(COURSE).new
    assert taken == 5
    (place.root.parent / "other").mkdir()
    whole = Place(place.root.parent / "other")
    try:
        whole.learnpack_writes(TEXT)
        assert place.written() == whole.written()
    finally:
        whole.journal.close()


def test_a_torn_document_that_is_too_large_is_only_copied_aside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_file, "SALVAGE_LIMIT", len(TEXT) - 200)
    place.learnpack_writes(TEXT[:-100])
    written = place.write()
    assert (written.adopted, written.problem) == (0, "it ends in the middle")
    assert written.aside is not None and written.aside.read_bytes() == TEXT[:-100]


def test_a_document_that_is_written_while_it_is_read_is_not_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of one and the second half of the other would be runs that never were."""
    place.learnpack_writes(TEXT)
    read = os.pread

    def read_and_write(descriptor: int, size: int, offset: int) -> bytes:
        data = read(descriptor, size, offset)
        place.path.write_bytes(TEXT + b" ")
        return data

    monkeypatch.setattr(os, "pread", read_and_write)
    adopted = place.file.adopt(COURSE)
    assert (adopted.new, adopted.problem) == (0, "it was written while it was read")
    monkeypatch.undo()
    assert place.file.adopt(COURSE).new == 5


def test_a_document_that_changes_while_it_is_read_is_read_again_before_it_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.learnpack_writes({**DOCUMENT, "steps": DOCUMENT["steps"][:2]})
    read = os.pread

    def read_and_write_once(descriptor: int, size: int, offset: int) -> bytes:
        monkeypatch.undo()
        data = read(descriptor, size, offset)
        place.path.write_bytes(TEXT)
        return data

    monkeypatch.setattr(os, "pread", read_and_write_once)
    written = place.write()
    assert (written.adopted, written.aside, written.problem) == (5, None, None)


NODE = """
const fs = require('fs');
const [path, short, long] = [process.argv[1], fs.readFileSync(process.argv[2]), fs.readFileSync(process.argv[3])];
let count = 0;
const save = () => fs.writeFile(path, count++ % 2 ? short : long, () => setImmediate(save));
for (let n = 0; n < 4; n++) save();
setTimeout(() => process.stdout.write('ready'), 50);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_whatever_learnpacks_overlapping_writings_leave_when_they_are_killed_can_be_taken_over(
    place: Place, tmp_path: Path
) -> None:
    """As LearnPack writes: `fs.writeFile` of the whole, several at a time, killed at any moment."""
    long = json.loads(TEXT)
    long["steps"][0]["tests"] = [attempt(n, n + 1, 1, stdout=b64("x" * 3_000)) for n in range(100, 300)]
    (tmp_path / "short").write_bytes(TEXT)
    (tmp_path / "long").write_bytes(json.dumps(long, separators=(",", ":")).encode())
    whole = {one["starting_at"]: one for step in (*DOCUMENT["steps"], *long["steps"]) for one in step["tests"]}
    place.path.parent.mkdir()
    for _ in range(12):
        command = ["node", "-e", NODE, str(place.path), str(tmp_path / "short"), str(tmp_path / "long")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.read(5) == b"ready"
            writer.send_signal(signal.SIGKILL)
        document = place.written()
        for step in document["steps"]:
            for run in step["tests"]:
                assert run["stdout"] == whole[run["started_at"]]["stdout"]
                assert run["exit_code"] == whole[run["started_at"]]["exitCode"]
        place.path.unlink()


# Two documents

OTHER = learnpack_document(
    learnpack_step("01-hello", opened_at=ms(1), tests=[attempt(100, 101, 1)]), last_interaction_at=ms(101)
)
OTHER["telemetry_id"] = "another0another0"


def test_the_runs_of_two_documents_are_kept_and_the_first_id_stays(place: Place) -> None:
    place.learnpack_writes(DOCUMENT)
    place.write()
    place.learnpack_writes({**OTHER, "agent": "cloud"})
    adopted = place.file.adopt(COURSE)
    assert adopted.new == 1
    assert adopted.note is not None and "another0another0" in adopted.note
    document = place.written()
    assert (document["telemetry_id"], document["user_id"], document["agent"]) == ("lp00lp00lp00lp00", 7, "vscode")
    assert starts(document, "01-hello") == [ms(0), ms(10), ms(20), ms(30), ms(100)]
    place.learnpack_writes(OTHER)
    assert place.file.adopt(COURSE).note is None, "it is said once"
    place.learnpack_writes({**OTHER, "x": 1})
    assert place.write().note is None


def test_the_agents_own_id_is_the_first_one_where_it_wrote_before(place: Place) -> None:
    place.record(opened("01-hello", 1))
    place.write()
    place.learnpack_writes({**DOCUMENT})
    written = place.write()
    assert written.note is not None
    document = json.loads(place.path.read_bytes())
    assert document["telemetry_id"] == place.journal.id
    assert "user_id" not in document, "whose it is isn't known"
    assert len(starts(document, "01-hello")) == 4


def test_a_server_that_lives_goes_on_with_the_id_that_it_writes(place: Place) -> None:
    place.learnpack_writes(DOCUMENT)
    place.write()
    since = place.path.stat().st_mtime_ns // 1_000_000 - 60_000
    place.learnpack_writes({**OTHER, "user_id": 7})
    adopted = place.file.adopt(COURSE, learnpack_since=since)
    assert adopted.note is not None and "LearnPack goes on with that one" in adopted.note
    document = place.written()
    assert document["telemetry_id"] == "another0another0"
    assert len(starts(document, "01-hello")) == 5


def test_what_was_written_before_the_server_began_is_not_its_own(place: Place) -> None:
    place.learnpack_writes(DOCUMENT)
    place.write()
    place.learnpack_writes(OTHER)
    place.file.adopt(COURSE, learnpack_since=place.path.stat().st_mtime_ns // 1_000_000 + 1)
    assert place.written()["telemetry_id"] == "lp00lp00lp00lp00"


# Another student's


@pytest.mark.parametrize("user_id", [8, "8"])
def test_another_students_document_that_came_with_git_is_copied_aside_and_nothing_of_it_is_taken(
    place: Place, user_id: object
) -> None:
    place.learnpack_writes(DOCUMENT)
    place.write()
    place.record(session_start(0), a_test("01-hello", 50, 51), session_end(60))
    before = len(waiting(place.journal))
    theirs = {**OTHER, "user_id": user_id}
    place.learnpack_writes(theirs)
    assert place.file.adopt(COURSE).problem == "it belongs to another student (user_id '8')"
    assert len(waiting(place.journal)) == before, "nothing of it becomes an event"
    written = place.write()
    assert written.problem == "it belongs to another student (user_id '8')"
    assert written.aside is not None and json.loads(written.aside.read_bytes()) == theirs
    document = json.loads(place.path.read_bytes())
    assert_receivable(document)
    assert (document["telemetry_id"], document["user_id"]) == ("lp00lp00lp00lp00", 7)
    assert ms(100) not in starts(document, "01-hello")


def test_a_torn_document_of_another_student_is_not_taken_either(place: Place) -> None:
    place.learnpack_writes(DOCUMENT)
    place.write()
    theirs = {"user_id": 8, **OTHER}
    place.learnpack_writes(json.dumps(theirs).encode()[:-40])
    assert place.write().problem == "it belongs to another student (user_id '8')"
    assert ms(100) not in starts(json.loads(place.path.read_bytes()), "01-hello")


def test_the_same_document_under_another_login_is_this_one(place: Place) -> None:
    """LearnPack writes whoever is logged in into the document that it has."""
    place.learnpack_writes(DOCUMENT)
    place.write()
    place.learnpack_writes({**DOCUMENT, "user_id": 8})
    assert place.write().problem is None
    assert json.loads(place.path.read_bytes())["user_id"] == 8


@pytest.mark.parametrize("known", [7, "7"])
def test_one_student_with_two_documents_is_one_student(place: Place, known: object) -> None:
    place.learnpack_writes({**DOCUMENT, "user_id": known})
    place.write()
    place.learnpack_writes({**OTHER, "user_id": 7})
    assert place.write().problem is None
    assert len(starts(json.loads(place.path.read_bytes()), "01-hello")) == 5


def test_a_document_that_a_living_server_writes_for_another_student_is_left_alone(place: Place) -> None:
    place.learnpack_writes(DOCUMENT)
    place.write()
    theirs = {**OTHER, "user_id": 8}
    place.learnpack_writes(theirs)
    since = place.path.stat().st_mtime_ns // 1_000_000 - 60_000
    assert place.file.adopt(COURSE, learnpack_since=since).problem is not None
    for _ in range(2):
        with pytest.raises(DocumentError, match="left alone, LearnPack writes it for another student"):
            place.write()
        theirs["steps"][2]["opened_at"] = ms(200)
        place.learnpack_writes(theirs)  # and later, when nobody looks
    assert json.loads(place.path.read_bytes()) == theirs
    assert list(place.state.glob("telemetry-*")) == []
    place.learnpack_writes(DOCUMENT)
    assert place.write().problem is None


def test_the_copy_of_a_large_document_is_whole(place: Place) -> None:
    torn = TEXT[:-1] + b"," + os.urandom(1 << 20).replace(b'"', b"'")
    place.learnpack_writes(torn)
    written = place.file.write(COURSE, NOW)
    assert written.aside is not None and written.aside.read_bytes() == torn
