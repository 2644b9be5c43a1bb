"""How far each sink has come: kept over kills, full disks and other journals, and read by anybody meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.store.outbox import NAME, Outbox, OutboxError, Parked
from tests.store.test_journal import files_no_larger_than
from tests.until import until


@pytest.fixture
def directory(state_dir: Path) -> Path:
    state_dir.mkdir()
    return state_dir


def reading(directory: Path, journal: str = "j") -> Outbox:
    return Outbox(directory, journal, read_only=True)


def test_at_the_beginning_there_is_nothing_and_reading_makes_nothing(directory: Path) -> None:
    with reading(directory) as outbox:
        assert (outbox.cursor("a"), outbox.parked("a"), outbox.notes("a"), outbox.known()) == (0, [], {}, [])
    assert os.listdir(directory) == []


def test_a_cursor_goes_forward_only_and_each_sinks_is_its_own(directory: Path) -> None:
    with Outbox(directory, "j") as outbox:
        for number in (3, 7, 5):
            outbox.acknowledge("a", number)
        outbox.acknowledge("b", 1)
        assert (outbox.cursor("a"), outbox.cursor("b"), outbox.cursor("c")) == (7, 1, 0)
        assert outbox.known() == ["a", "b"]
    with reading(directory) as outbox:
        assert (outbox.cursor("a"), outbox.cursor("b")) == (7, 1)


def test_in_another_journal_a_sink_begins_anew(directory: Path) -> None:
    with Outbox(directory, "j") as outbox:
        outbox.acknowledge("a", 7, Parked(7, 1, "no"))
    with Outbox(directory, "k") as outbox:
        assert (outbox.cursor("a"), outbox.parked("a")) == (0, [])
        outbox.acknowledge("a", 2)
        assert outbox.cursor("a") == 2
        outbox.acknowledge("a", 1)
        assert outbox.cursor("a") == 2


def test_what_is_parked_is_kept_with_its_answer_until_it_is_taken(directory: Path) -> None:
    with Outbox(directory, "j") as outbox:
        outbox.acknowledge("a", 4, Parked(4, 100, "422: no"))
        outbox.park("a", Parked(2, 50, "400: no"))
        outbox.park("b", Parked(2, 60, "400: no"))
        assert outbox.cursor("a") == 4
        assert outbox.parked("a") == [Parked(2, 50, "400: no"), Parked(4, 100, "422: no")]
        assert outbox.send_again("a") == 2
        assert [parked.again for parked in outbox.parked("a")] == [True, True]
        assert [parked.again for parked in outbox.parked("b")] == [False]
        outbox.park("a", Parked(2, 200, "still no"))
        outbox.unpark("a", 4)
        outbox.unpark("a", 4)
        assert outbox.parked("a") == [Parked(2, 200, "still no")]
        assert outbox.send_again("c") == 0


def test_notes_are_changed_one_by_one_and_none_forgets(directory: Path) -> None:
    with Outbox(directory, "j") as outbox:
        outbox.note("a", why="dead", failed_at=5)
        outbox.note("a", why=None, sent={"": {"x": 1}})
        assert outbox.notes("a") == {"failed_at": 5, "sent": {"": {"x": 1}}}
        outbox.acknowledge("a", 3)
        assert outbox.notes("a") == {"failed_at": 5, "sent": {"": {"x": 1}}}
        outbox.note("a", sent_at=9)
        assert outbox.cursor("a") == 3


@pytest.mark.parametrize("notes", [b"{", b"[]", b"5", b"\xff"])
def test_notes_that_cannot_be_read_are_none(directory: Path, notes: bytes) -> None:
    with Outbox(directory, "j") as outbox:
        outbox.note("a", why="x")
    connection = sqlite3.connect(directory / NAME)
    with connection:
        connection.execute("UPDATE sinks SET notes=?", (notes,))
    connection.close()
    with Outbox(directory, "j") as outbox:
        assert outbox.notes("a") == {}
        outbox.note("a", why="y")
        assert outbox.notes("a") == {"why": "y"}


def test_the_file_is_the_students_alone(directory: Path) -> None:
    before = os.umask(0)
    try:
        with Outbox(directory, "j") as outbox:
            outbox.acknowledge("a", 1)
            modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    finally:
        os.umask(before)
    assert NAME in modes and set(modes.values()) == {0o600}


@pytest.mark.parametrize("content", [b"\xff" * 8_192, b"no database" * 1_000])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_file_is_an_error_of_one_line(directory: Path, content: bytes, read_only: bool) -> None:
    (directory / NAME).write_bytes(content)
    with pytest.raises(OutboxError) as caught, Outbox(directory, "j", read_only=read_only) as outbox:
        outbox.cursor("a")
    assert NAME in str(caught.value) and "\n" not in str(caught.value)


def test_a_directory_that_is_gone_is_an_error(directory: Path) -> None:
    with pytest.raises(OutboxError):
        Outbox(directory / "none", "j")
    with reading(directory / "none") as outbox:
        assert outbox.cursor("a") == 0


def test_an_empty_file_that_is_just_being_made_is_the_beginning(directory: Path) -> None:
    (directory / NAME).touch()
    with reading(directory) as outbox:
        assert (outbox.cursor("a"), outbox.known()) == (0, [])


def test_what_a_full_disk_does_not_take_is_not_half_there(directory: Path) -> None:
    with Outbox(directory, "j") as outbox:
        outbox.acknowledge("a", 1)
        size = max(path.stat().st_size for path in directory.iterdir())
        with files_no_larger_than(size), pytest.raises(OutboxError):
            outbox.acknowledge("a", 2, Parked(2, 1, "x" * 100_000))
        assert (outbox.cursor("a"), outbox.parked("a")) == (1, [])
        outbox.acknowledge("a", 2)
        assert outbox.cursor("a") == 2


def test_many_threads_each_with_its_own_lose_nothing(directory: Path) -> None:
    failures: list[BaseException] = []

    def work(sink: str) -> None:
        try:
            for number in range(1, 41):
                with Outbox(directory, "j") as outbox:
                    outbox.acknowledge(sink, number, Parked(number, 1, sink) if number % 10 == 0 else None)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(sink,)) for sink in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with reading(directory) as outbox:
        for sink in "abcd":
            assert outbox.cursor(sink) == 40
            assert [parked.number for parked in outbox.parked(sink)] == [10, 20, 30, 40]


KILLED = """
import sys
from agent.store.outbox import Outbox, Parked
with Outbox(sys.argv[1], "j") as outbox:
    number = 0
    while True:
        number += 1
        outbox.acknowledge("a", number, Parked(number, 1, "no"))
        print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9_with_what_was_parked(directory: Path, repository: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(directory)], cwd=repository, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    try:
        said = [worker.stdout.readline() for _ in range(30)]
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    said += [line for line in worker.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
    worker.stdout.close()
    last = int(said[-1])
    with Outbox(directory, "j") as outbox:
        cursor = outbox.cursor("a")
        assert last <= cursor <= last + 1
        assert [parked.number for parked in outbox.parked("a")] == list(range(1, cursor + 1))


def test_a_reader_is_not_held_up_by_a_writer(directory: Path) -> None:
    with Outbox(directory, "j") as outbox:
        outbox.acknowledge("a", 1)
        with outbox._transaction() as execute:
            execute("UPDATE sinks SET cursor=2")
            with reading(directory) as reader:
                assert reader.cursor("a") == 1
        with reading(directory) as reader:
            until(lambda: reader.cursor("a") == 2, timeout=5)


def test_the_queues_of_a_newer_agent_are_refused_in_one_line(tmp_path: Path) -> None:
    with Outbox(tmp_path, "journal") as outbox:
        outbox.acknowledge("school", 3)
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        connection.execute("PRAGMA user_version=9")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(OutboxError, match=r"written by a newer learnpack-agent \(queues 9, this one knows 1\)"):
            Outbox(tmp_path, "journal", read_only=read_only)
