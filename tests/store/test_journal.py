"""The journal on a real disk: durable, atomic, private, and readable while it is written."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from agent.core.codec import from_plain
from agent.core.events import Event, Output
from agent.core.inference import Snapshot
from agent.store import journal as journal_module
from agent.store.adoption import waiting
from agent.store.journal import (
    NAME,
    Journal,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalGone,
    open_or_replace,
    set_aside,
)
from agent.store.lock import AlreadyRunning, Lock, holder
from tests.making import FULL, a_compile, a_test, gap, opened, session_start
from tests.standin.toolbox import REPOSITORY


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    with Journal.open(directory, create=True) as journal:
        yield journal


EVENTS: list[Event] = [session_start(0), opened("01-hello", 1), a_test("01-hello", 2, 3, 1, **FULL), gap(3, 4)]


def test_events_come_back_in_order_with_numbers_and_ids(journal: Journal) -> None:
    written = journal.append(EVENTS, None)
    assert [record.number for record in written] == [1, 2, 3, 4]
    assert [record.event for record in journal.records()] == EVENTS
    assert list(journal.records()) == written
    assert [record.id for record in written] == [f"{journal.id}-{number}" for number in (1, 2, 3, 4)]
    assert len(journal.id) == 16 and journal.id.isalnum() and journal.id == journal.id.lower()
    assert journal.last_number == 4


def test_they_are_there_in_the_next_life_under_the_same_ids(directory: Path) -> None:
    with Journal.open(directory, create=True) as first:
        written = first.append(EVENTS, b"state")
    with Journal.open(directory, create=True) as second:
        assert list(second.records()) == written
        assert second.state() == b"state"
        assert second.append(EVENTS[:1], None)[0].number == 5


def test_two_journals_have_two_identities(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a", create=True) as one, Journal.open(tmp_path / "b", create=True) as other:
        assert one.id != other.id


def test_records_can_be_asked_for_after_a_number_and_of_one_step(journal: Journal) -> None:
    events = [a_compile(slug, second, second) for second in range(50) for slug in ("01-hello", "02-loop")]
    journal.append(events, None)
    assert [record.number for record in journal.records(after=97)] == [98, 99, 100]
    of_step = list(journal.records(step_slug="02-loop"))
    assert [record.event for record in of_step] == events[1::2]
    assert [record.number for record in journal.records(after=90, step_slug="02-loop")] == [92, 94, 96, 98, 100]
    assert list(journal.records(step_slug="nowhere")) == []


def test_records_may_be_appended_while_they_are_read(journal: Journal) -> None:
    journal.append([opened("01-hello", second) for second in range(100)], None)
    seen = 0
    for record in journal.records():
        seen = record.number
        if record.number == 10:
            journal.append(EVENTS, None)
    assert seen == 104


def test_one_record_or_only_its_run_can_be_read(journal: Journal) -> None:
    record = journal.append([a_test("01-hello", 2, 3, 1, **FULL)], None)[0]
    assert journal.record(1) == record
    assert journal.record(2) is None
    assert journal.run(1, with_texts=True).stdout == "ñandú\n"
    bare = journal.run(1, with_texts=False)
    assert (bare.stdout, bare.source_code, bare.output, bare.exit_code) == (None, None, Output.FULL, 1)
    with pytest.raises(JournalCorrupt):
        journal.run(2, with_texts=True)


def test_state_is_replaced_with_the_events_or_alone_and_none_leaves_it(journal: Journal) -> None:
    assert journal.state() is None
    journal.append(EVENTS[:1], b"one")
    journal.append(EVENTS[:1], None)
    assert journal.state() == b"one"
    journal.save_state(b"\x00two")
    assert journal.state() == b"\x00two"
    journal.append([], b"three")
    assert journal.state() == b"three"


def test_a_saved_state_does_not_weaken_the_next_append(journal: Journal) -> None:
    journal.save_state(b"x")
    assert journal.connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_facts_are_any_json(journal: Journal) -> None:
    assert journal.fact("agent") is None
    for value in ({"pid": 1, "sensors": ["files"]}, [1, "ñ"], 7, "text", False):
        journal.put_fact("agent", value)
        assert journal.fact("agent") == value
    journal.put_fact("agent", None)
    assert journal.fact("agent") is None


def test_undecodable_names_are_journaled_as_printable_text(journal: Journal) -> None:
    odd = b"caf\xe9.py".decode(errors="surrogateescape")
    journal.append([a_compile("01-hello", 1, 2, command=("python", odd), stdout=odd, output=Output.FULL)], None)
    run = journal.run(1, with_texts=True)
    assert (run.command, run.stdout) == (("python", "caf\ufffd.py"), "caf\ufffd.py")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_it_whatever_the_umask(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with Journal.open(directory, create=True) as journal:
            journal.append(EVENTS, b"x")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    finally:
        os.umask(before)
    assert modes == {NAME: 0o600, f"{NAME}-wal": 0o600, f"{NAME}-shm": 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_was_open_to_others_is_closed(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    (directory / NAME).touch(mode=0o644)
    with Journal.open(directory, create=True):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / NAME).stat().st_mode) == 0o600


# Readers


def test_another_process_reads_while_the_agent_writes(journal: Journal, directory: Path) -> None:
    journal.append(EVENTS, None)
    reader = Journal.open(directory, create=False, read_only=True)
    assert len(list(reader.records())) == 4
    with journal.transaction():
        assert len(list(reader.records())) == 4
    journal.append(EVENTS, None)
    with reader.snapshot():
        assert reader.last_number == 8
        journal.append(EVENTS, None)
        assert reader.last_number == 8
    assert reader.last_number == 12
    reader.close()


def test_a_reader_cannot_write(journal: Journal, directory: Path) -> None:
    with Journal.open(directory, create=False, read_only=True) as reader, pytest.raises(JournalError):
        reader.append(EVENTS, None)


def test_reading_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal yet"):
        Journal.open(tmp_path / "state", create=False, read_only=True)
    with pytest.raises(JournalError, match="there is no journal yet"):
        Journal.open(tmp_path / "state", create=False)
    (tmp_path / NAME).touch()
    with pytest.raises(JournalError, match="there is no journal yet"):
        Journal.open(tmp_path, create=False, read_only=True)
    assert {path.name for path in tmp_path.iterdir()} == {NAME}
    assert (tmp_path / NAME).stat().st_size == 0


def test_reading_a_journal_at_rest_leaves_its_content_alone(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        journal.append(EVENTS, None)
    before = (directory / NAME).read_bytes()
    with Journal.open(directory, create=False, read_only=True) as reader:
        assert len(list(reader.records())) == 4
    assert (directory / NAME).read_bytes() == before
    assert {path.name for path in directory.iterdir()} <= {NAME, f"{NAME}-wal", f"{NAME}-shm"}


def test_what_a_killed_agent_left_in_the_log_is_read(directory: Path) -> None:
    script = (
        "import os, sys; from agent.store.journal import Journal; from tests.making import opened;"
        "Journal.open(sys.argv[1], create=True).append([opened('01-hello', 1)], None); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(directory)], check=True, cwd=REPOSITORY, timeout=30)
    assert (directory / f"{NAME}-wal").stat().st_size > 0
    with Journal.open(directory, create=False, read_only=True) as reader:
        assert [record.event.name for record in reader.records()] == ["open_step"]


# What goes wrong


def test_a_journal_of_a_newer_agent_is_refused_in_one_line(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        journal.connection.execute("PRAGMA user_version=99")
    for read_only in (False, True):
        with pytest.raises(JournalError, match=r"written by a newer learnpack-agent \(journal 99, this one knows 2\)"):
            Journal.open(directory, create=not read_only, read_only=read_only)
    with pytest.raises(JournalError, match="newer"):
        open_or_replace(directory, "now")


def test_a_full_journal_says_so_writes_nothing_and_takes_the_same_events_later(journal: Journal) -> None:
    journal.append(EVENTS, b"before")
    pages = journal.connection.execute("PRAGMA page_count").fetchone()[0]
    journal.connection.execute(f"PRAGMA max_page_count={pages + 4}")
    events: list[Event] = [opened("01-hello", 9), a_test("01-hello", 10, 11, stdout="x" * 100_000, output=Output.FULL)]
    for _ in range(2):
        with pytest.raises(JournalFull, match="full"):
            journal.append(events, b"after")
    assert (journal.last_number, journal.state()) == (4, b"before")
    journal.connection.execute("PRAGMA max_page_count=1000000")
    assert [record.number for record in journal.append(events, b"after")] == [5, 6]


def test_a_disk_that_takes_no_more_is_the_same(journal: Journal, directory: Path) -> None:
    with files_no_larger_than(400_000), pytest.raises(JournalFull):
        for _ in range(100):
            journal.append([a_test("01-hello", 10, 11, stdout="x" * 100_000, output=Output.FULL)], b"state")
    written = [record.number for record in journal.records()]
    assert written == list(range(1, len(written) + 1))
    assert journal.append(EVENTS[:1], None)[0].number == len(written) + 1


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that refuses to write, for this process; Python ignores the signal that comes with it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_really_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        acknowledged = 0
        with Journal.open(disk / "state", create=True) as journal, pytest.raises(JournalFull):
            while True:
                acknowledged = journal.append([a_test("01-hello", 1, 2, stdout="x" * 9000)], b"s")[-1].number
        with Journal.open(disk / "state", create=False, read_only=True) as reader:
            assert [record.number for record in reader.records()] == list(range(1, acknowledged + 1))
        assert acknowledged > 10
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_is_no_journal_is_moved_aside_and_reported(directory: Path) -> None:
    directory.mkdir()
    (directory / NAME).write_bytes(b"this was something else" * 100)
    with pytest.raises(JournalCorrupt):
        Journal.open(directory, create=True)
    journal, aside = open_or_replace(directory, "20231114T221320")
    with journal:
        assert aside is not None
        assert aside.name == f"{NAME}.damaged-20231114T221320"
        assert aside.read_bytes().startswith(b"this was something else")
        assert journal.append(EVENTS, None)[0].number == 1


def test_a_whole_journal_is_opened_as_it_is(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        journal.append(EVENTS, None)
    journal, aside = open_or_replace(directory, "now")
    with journal:
        assert (aside, journal.last_number) == (None, 4)


def test_damage_that_is_met_later_is_named_and_the_file_can_be_set_aside(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        journal.append([a_compile("01-hello", second, second, **FULL) for second in range(200)], None)
    size = (directory / NAME).stat().st_size
    with (directory / NAME).open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))
    with pytest.raises(JournalCorrupt), Journal.open(directory, create=True) as journal:
        list(journal.records())
    asides = [set_aside(directory, "now")]
    for _ in range(2):
        with Journal.open(directory, create=True) as journal:
            assert journal.last_number == 0
        asides.append(set_aside(directory, "now"))
    assert [path.name.rpartition("damaged-")[2] for path in asides] == ["now", "now-2", "now-3"]
    assert asides[0].stat().st_size == size


def test_a_record_that_cannot_be_read_is_damage(journal: Journal) -> None:
    journal.append(EVENTS[:1], None)
    for body in (b"{", orjson.dumps({"kind": "dance"})):
        journal.connection.execute("UPDATE records SET body=?", (body,))
        with pytest.raises(JournalCorrupt, match="record 1"):
            list(journal.records())


def test_a_fact_that_is_no_json_is_damage_and_met_when_the_journal_is_opened(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        journal.put_fact("document", {"written": [1]})
        journal.connection.execute("UPDATE facts SET value=x'7b' WHERE key='document'")
        with pytest.raises(JournalCorrupt, match="fact document"):
            journal.fact("document")
    with Journal.open(directory, create=False, read_only=True) as reader:
        assert reader.last_number == 0  # a reader may not need it
    journal, aside = open_or_replace(directory, "now")
    with journal:
        assert aside is not None and journal.fact("document") is None


def test_the_time_of_the_newest_record_is_known_even_where_it_cannot_be_read(journal: Journal) -> None:
    assert journal.last_at() is None
    journal.append(EVENTS, None)
    journal.connection.execute("UPDATE records SET body='{'")
    assert journal.last_at() == EVENTS[-1].at


def test_a_journal_that_was_deleted_under_the_agent_is_noticed(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        journal.append(EVENTS, None)
        for path in directory.iterdir():
            path.unlink()
        with pytest.raises(JournalGone):
            journal.append(EVENTS, None)
    with Journal.open(directory, create=True) as journal:
        assert journal.append(EVENTS, None)[0].number == 1


def test_a_path_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="Not a directory"):
        Journal.open(tmp_path / "file" / "state", create=True)


def test_a_directory_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(JournalError, match="Permission denied"):
            Journal.open(tmp_path / "state", create=True)
    finally:
        tmp_path.chmod(0o700)


def test_an_append_is_synced_before_it_returns(directory: Path, tmp_path: Path) -> None:
    strace = ["strace", "-f", "-e", "trace=fdatasync,fsync,write", "-o", str(tmp_path / "calls")]
    script = (
        "import os, sys; from agent.store.journal import Journal; from tests.making import opened\n"
        "journal = Journal.open(sys.argv[1], create=True)\n"
        "for number in range(5):\n"
        "    os.write(1, b'begin')\n"
        "    journal.append([opened('01-hello', number)], b'state')\n"
        "    os.write(1, b'acknowledged')\n"
        "os._exit(0)"
    )
    try:
        subprocess.run([*strace, "true"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no strace on this machine")
    command = [*strace, sys.executable, "-c", script, str(directory)]
    subprocess.run(command, check=True, cwd=REPOSITORY, timeout=60, stdout=subprocess.DEVNULL)
    appends = (tmp_path / "calls").read_text().split('"begin"')[1:]
    assert len(appends) == 5
    for calls in appends:
        assert "sync(" in calls.split('"acknowledged"')[0]


# The lock


def test_one_agent_runs_per_course(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    lock = Lock.acquire(tmp_path)
    with pytest.raises(AlreadyRunning) as raised:
        Lock.acquire(tmp_path)
    assert raised.value.pid == os.getpid()
    assert str(os.getpid()) in str(raised.value)
    assert holder(tmp_path) == os.getpid()
    lock.release()
    lock.release()
    assert holder(tmp_path) is None
    Lock.acquire(tmp_path).release()


def test_the_lock_of_a_killed_agent_is_free(tmp_path: Path) -> None:
    script = (
        "import sys; from agent.store.lock import Lock; lock = Lock.acquire(sys.argv[1]);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert holder(tmp_path) == process.pid
        with pytest.raises(AlreadyRunning, match=str(process.pid)):
            Lock.acquire(tmp_path)
        process.kill()
        process.wait()
    assert holder(tmp_path) is None
    Lock.acquire(tmp_path).release()


def test_the_lock_is_private_and_says_who_holds_it(tmp_path: Path) -> None:
    lock = Lock.acquire(tmp_path)
    path = tmp_path / "lock"
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_tables_are_small_to_begin_with(directory: Path) -> None:
    with Journal.open(directory, create=True):
        pass
    assert (directory / NAME).stat().st_size < 64 * 1024
    assert sqlite3.connect(directory / NAME).execute("PRAGMA user_version").fetchone()[0] == journal_module.SCHEMA


def test_a_lock_of_another_process_holds_the_writer_up_for_a_moment_only(directory: Path) -> None:
    with Journal.open(directory, create=True) as journal:
        other = sqlite3.connect(journal.path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            assert journal.connection.execute("PRAGMA busy_timeout").fetchone() == (500,)
            with pytest.raises(JournalError, match="locked"):
                journal.append([a_test("01-hello", 2, 3)], None)
            other.execute("ROLLBACK")
            # Nothing was written: the same again.
            assert [record.number for record in journal.append([a_test("01-hello", 2, 3)], None)] == [1]
        finally:
            other.close()


#: As agent 0.1.0 wrote it.
STATE_OF_SCHEMA_1 = (
    b'{"last_seen":9,"session":null,"visits":[[1,"01-hello"]],"opened":["01-hello","02-more"],"completed":["01-hello"],'
    b'"queue_length":1,"queue_last":{"name":"start_exercise","slug":"01-hello","time":null},"config_current":null,'
    b'"gone_since":null,"in_flight":[]}'
)


def test_a_journal_of_an_older_agent_is_brought_up_to_date_and_keeps_its_records(tmp_path: Path) -> None:
    with Journal.open(tmp_path, create=True) as journal:
        (record,) = journal.append([a_test("01-hello", 1, 2)], STATE_OF_SCHEMA_1)
        journal.connection.execute("DROP INDEX adopted_waiting")
        journal.connection.execute("ALTER TABLE adopted DROP COLUMN waits")
        body = "SELECT body FROM records"
        old = orjson.loads(journal.connection.execute(body).fetchone()[0])
        for later in ("stdout_size", "stderr_size", "results", "tests_modified"):
            del old["run"][later]
        journal.connection.execute("UPDATE records SET body=?", (orjson.dumps(old),))
        journal.connection.execute("PRAGMA user_version=1")
    with Journal.open(tmp_path, create=False, read_only=True) as journal:
        assert list(journal.records()) == [record]
    with Journal.open(tmp_path, create=True) as journal:
        assert list(journal.records()) == [record]
        assert waiting(journal) == []
        state = from_plain(Snapshot, orjson.loads(journal.state() or b""))
        assert (state.opened, state.completed) == ({"01-hello", "02-more"}, {"01-hello"})
    copy = tmp_path / f"{NAME}.schema-1"
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as before:
        assert before.execute("PRAGMA user_version").fetchone() == (1,)
        assert before.execute("SELECT value FROM facts WHERE key='state'").fetchone() == (STATE_OF_SCHEMA_1,)
        assert before.execute("SELECT count(*) FROM records").fetchone() == (1,)
    before.close()


def test_a_journal_of_an_older_agent_that_can_not_be_copied_stays_as_it_is(tmp_path: Path) -> None:
    with Journal.open(tmp_path, create=True) as journal:
        journal.append(EVENTS, STATE_OF_SCHEMA_1)
        journal.connection.execute("DROP INDEX adopted_waiting")
        journal.connection.execute("ALTER TABLE adopted DROP COLUMN waits")
        journal.connection.execute("PRAGMA user_version=1")
    (tmp_path / f"{NAME}.schema-1" / "in the way").mkdir(parents=True)
    with pytest.raises(JournalFull, match=r"journal\.sqlite3\.schema-1"):
        Journal.open(tmp_path, create=True)
    with Journal.open(tmp_path, create=False, read_only=True) as journal:
        assert journal.connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert journal.last_number == 4
    assert sorted(path.name for path in tmp_path.iterdir() if "tmp" in path.name) == []


def test_a_journal_of_an_older_agent_with_a_state_that_is_no_json_is_brought_up_to_date(tmp_path: Path) -> None:
    with Journal.open(tmp_path, create=True) as journal:
        journal.append(EVENTS, b"{")
        journal.connection.execute("DROP INDEX adopted_waiting")
        journal.connection.execute("ALTER TABLE adopted DROP COLUMN waits")
        journal.connection.execute("PRAGMA user_version=1")
    with Journal.open(tmp_path, create=True) as journal:
        assert (journal.last_number, journal.state()) == (4, b"{")
