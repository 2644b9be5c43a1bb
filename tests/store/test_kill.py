"""SIGKILL at any moment: what was acknowledged is there, once, and the document is JSON or absent."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import time
from pathlib import Path

from agent.core.events import Output
from agent.store.document_file import TEMPORARY, DocumentFile
from agent.store.journal import Journal
from agent.store.lock import Lock
from tests.making import COURSE, a_test, ms

KILLS = 30
TEXT = "x" * 3000


def write_until_killed(root: Path, state: Path, acknowledge: int) -> None:
    """An agent reduced to its writing: one lock, one event after the other, and the document now and then."""
    Lock.acquire(state.parent)
    with Journal.open(state, create=True) as journal:
        document = DocumentFile(root, journal, limit=50_000)
        while True:
            number = journal.last_number + 1
            event = a_test("01-hello", number, number, stdout=TEXT, output=Output.FULL)
            written = journal.append([event], b"%d" % number)
            os.write(acknowledge, struct.pack("<q", written[-1].number))
            if number % 3 == 0:
                document.write(COURSE, ms(number))


def killed_before_the_rename(root: Path, state: Path) -> None:
    """A writer that is killed when the new document is whole, and about to take the place of the old one."""
    reading, writing = os.pipe()

    def stop(*_: object, **__: object) -> None:
        os.write(writing, b".")
        signal.pause()

    child = os.fork()
    if child == 0:
        try:
            os.rename = stop
            write_until_killed(root, state, os.open(os.devnull, os.O_WRONLY))
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"."
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def killed_after(root: Path, state: Path, acknowledgements: int, delay: float) -> int:
    """Starts the writer, kills it `delay` seconds after so many acknowledgements; the last number that it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            write_until_killed(root, state, writing)
        finally:
            os._exit(1)
    os.close(writing)
    last = 0
    try:
        for _ in range(acknowledgements):
            (last,) = struct.unpack("<q", os.read(reading, 8))
        # Not a wait for something, but the choice of a moment.
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        while rest := os.read(reading, 8):
            (last,) = struct.unpack("<q", rest)
    finally:
        os.close(reading)
    return last


def test_after_a_kill_at_any_moment_everything_acknowledged_is_there_once(tmp_path: Path) -> None:
    root, state = tmp_path / "course", tmp_path / "state"
    root.mkdir()
    document = root / ".learn" / "telemetry.json"
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for number in range(KILLS):
        if number == KILLS // 2:
            # Chance might never meet the moment at which a whole new document lies beside the old one.
            killed_before_the_rename(root, state)
            assert document.with_name(TEMPORARY).exists()
            acknowledged = None
        else:
            acknowledged = killed_after(root, state, moments.randint(1, 8), moments.random() * 0.006)
        with Journal.open(state, create=False, read_only=True) as journal:
            records = list(journal.records())
            assert [record.number for record in records] == list(range(1, len(records) + 1))
            assert acknowledged is None or len(records) - acknowledged in (0, 1)
            assert all(record.event.at == ms(record.number) for record in records)
            assert journal.state() == b"%d" % len(records)
        if document.exists():
            tests = json.loads(document.read_bytes())["steps"][1]["tests"]
            numbers = [int(one["event_id"].rpartition("-")[2]) for one in tests]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) <= len(records)
    print(f"{len(records)} records")


def test_a_journal_that_is_killed_while_it_is_made_can_be_made_again(tmp_path: Path) -> None:
    for number in range(20):
        state = tmp_path / f"state-{number}"
        child = os.fork()
        if child == 0:
            try:
                Journal.open(state, create=True)
            finally:
                os._exit(0)
        time.sleep(number * 0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Journal.open(state, create=True) as journal:
            assert journal.append([a_test("01-hello", 1, 2)], None)[0].id == f"{journal.id}-1"
