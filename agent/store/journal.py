"""The journal: every event, durable before anybody hears of it.

SQLite (WAL, synchronous=FULL) in `journal.sqlite3` of the state directory; directory 0700, files 0600.  Promised:

- `append` returns when the events are on the disk.  It is atomic: when it raises, none of its events is journaled,
  and the same events may be offered again.  Numbers begin at 1 and have no holes.
- Other processes read while the agent writes; reading changes nothing but what SQLite's WAL needs.
- A damaged journal is moved aside, never deleted; a journal of a newer agent is refused.  One of an older agent is
  brought up to date in place, after a copy was made (`journal.sqlite3.schema-1`), for whoever goes back.

A record's texts (source, output) lie in a column of their own, the last one: SQLite keeps its bulk on pages of their
own, which are not read when it is not asked for.  The table for what LearnPack recorded itself is here too, and
`agent.store.adoption` fills it.  One Journal object belongs to one thread; a second thread opens its own.

Known to be weak: damage is noticed when it is met, not searched for at the start (230 MB took 0.15 s to check); only
the facts and the newest record are read then.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ..core.codec import cleaned, event_from, from_plain, to_plain
from ..core.document import size_beside_texts
from ..core.events import Compile, Event, Gap, Run, SessionEnd, SessionStart, Test
from ..core.learnpack_forms import OUTPUTS, encoded_size

NAME = "journal.sqlite3"

#: The number of the tables below, and of what is in them.  A journal with a higher one belongs to a newer agent.
#: 2: an event may carry more than one of 1 does (visits, sizes, results), what is missing there has a default; and what
#: LearnPack recorded waits to be concluded.
SCHEMA = 2

_TABLES = """
CREATE TABLE records(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL,
    at INTEGER NOT NULL,
    step_slug TEXT,
    started_at INTEGER,
    ended_at INTEGER,
    outputs_size INTEGER NOT NULL,
    body BLOB NOT NULL,
    texts BLOB
);
CREATE INDEX records_of_step ON records(step_slug);
CREATE TABLE facts(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE adopted(
    key INTEGER PRIMARY KEY,
    step_slug TEXT NOT NULL,
    kind TEXT NOT NULL,
    identity TEXT NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    outputs_size INTEGER NOT NULL,
    body BLOB NOT NULL,
    waits INTEGER NOT NULL DEFAULT 0,
    UNIQUE(step_slug, kind, identity)
);
CREATE INDEX adopted_waiting ON adopted(waits) WHERE waits;
"""

#: What makes the tables of each older schema those of the next.
_MIGRATIONS = {
    1: """
ALTER TABLE adopted ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
CREATE INDEX adopted_waiting ON adopted(waits) WHERE waits;
UPDATE facts SET value = CAST(json_remove(CAST(value AS TEXT), '$.queue_length', '$.queue_last') AS BLOB)
 WHERE key = 'state' AND json_valid(CAST(value AS TEXT));
""",
}

_DROPPED_TO = "texts_dropped_to"
#: So many records keep their texts however small the journal is to be: some sink should get them first.
_NEWEST = 16

_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PAGE = 32

#: How long another process's lock is waited for (s).  The writer is the agent's only loop: it tries again later.
_WRITER_WAIT_S, _READER_WAIT_S = 0.5, 5.0


class JournalError(Exception):
    """The journal can't be used.  One line that says why."""


class JournalFull(JournalError):
    """The disk took nothing now: it is full, over a quota or failing.  Nothing was written; try the same again."""


class JournalTooNew(JournalError):
    """Only a newer agent can use it.  Trying again mends nothing."""


class JournalGone(JournalError):
    """The file was deleted or moved away while it was open.  Open it anew and offer the same again."""


class JournalCorrupt(JournalError):
    """The file is damaged or no journal.  `open_or_replace` moves it aside."""


@dataclass(frozen=True, slots=True)
class Record:
    """A journaled event.  `id` is the same in every life of the agent and nowhere else in the world."""

    number: int
    id: str
    event: Event


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors by whose fault they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise JournalFull(f"{path}: {error}") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise JournalCorrupt(f"{path}: {error}") from error
        raise JournalError(f"{path}: {error}") from error


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def new_id() -> str:
    """16 random characters a-z0-9.  `secrets` would do the same and import 1.5 MB of hashing for it."""
    letters: list[str] = []
    while len(letters) < 16:
        letters += [_ID_LETTERS[byte % 36] for byte in os.urandom(32) if byte < 252]  # 252 = 7 * 36: no letter favoured
    return "".join(letters[:16])


def dumped(plain: Any) -> bytes:
    """JSON in UTF-8, what is not valid Unicode made so."""
    try:
        return orjson.dumps(plain)
    except TypeError:  # a lone surrogate, from a file name that is not UTF-8
        return orjson.dumps(cleaned(plain))


class Journal:
    """An open journal.  Use `Journal.open`; every method may raise JournalError and its kinds."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.id = ""
        self._inode = _inode(path)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, create: bool, read_only: bool = False) -> Journal:
        """The journal in this directory.

        `create` makes directory and file when they are missing.  `read_only` never makes a journal; it raises
        JournalError when there is none.
        """
        path = Path(directory) / NAME
        if create and not read_only:
            _make_files(path)
        elif not path.exists():
            raise JournalError(f"{path}: there is no journal yet")
        if (strange := maybe_strange(path)) is not None:
            raise JournalCorrupt(f"{strange}: it is no regular file")
        with _translated(path):
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=_READER_WAIT_S if read_only else _WRITER_WAIT_S,
                isolation_level=None,
                cached_statements=32,
            )
        journal = cls(path, connection)
        try:
            with _translated(path):
                journal._prepare(read_only)
        except BaseException:
            connection.close()
            raise
        return journal

    def _prepare(self, read_only: bool) -> None:
        execute = self.connection.execute
        execute("PRAGMA cache_size=-512")  # KiB; the default keeps 2 MB
        version = execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise JournalTooNew(
                f"{self.path}: written by a newer learnpack-agent (journal {version}, this one knows {SCHEMA})"
            )
        if version == 0 and read_only:
            raise JournalError(f"{self.path}: there is no journal yet")
        if not read_only:
            if execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise JournalError(f"{self.path}: this file system does not take a write-ahead log")
            execute("PRAGMA synchronous=FULL")
            execute("PRAGMA fullfsync=ON")  # on macOS fsync alone leaves it in the disk's cache; elsewhere: nothing
        if 0 < version < SCHEMA and not read_only:
            self._copy_aside(f"{NAME}.schema-{version}")
        if version < SCHEMA and not read_only:
            with self.transaction():
                steps = [_TABLES] if version == 0 else [_MIGRATIONS[old] for old in range(version, SCHEMA)]
                # Not executescript: it would commit after each statement.
                for statement in ";".join(steps).split(";")[:-1]:
                    execute(statement)
                if version == 0:
                    execute("INSERT INTO facts VALUES('journal_id', ?)", (orjson.dumps(new_id()),))
                execute(f"PRAGMA user_version={SCHEMA}")
        self.id = str(self.fact("journal_id") or "")
        if not self.id:
            raise JournalCorrupt(f"{self.path}: it has no identity")
        if not read_only:  # what whoever writes needs first
            for (key,) in execute("SELECT key FROM facts WHERE key<>'state'").fetchall():
                self.fact(key)
            self.state()
            self.last_at()

    def _copy_aside(self, name: str) -> None:
        """The journal as it is, whole and durable, beside it; what had this name is replaced.  Raises JournalFull, and
        then there is no copy."""
        target = self.path.with_name(name)
        made = self.path.with_name(f"{name}.tmp")
        try:
            made.unlink(missing_ok=True)
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self.connection.execute("VACUUM INTO ?", (str(made),))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(made, target)
        except OSError as error:
            made.unlink(missing_ok=True)
            raise JournalFull(f"{target}: {error.strerror}") from error
        except sqlite3.Error:
            made.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing.  Not `durable`: it survives the end of the process, not that of the machine."""
        if _inode(self.path) != self._inode:
            # SQLite would go on writing to a file without a name.
            raise JournalGone(f"{self.path}: deleted or moved away")
        execute = self.connection.execute
        with _translated(self.path):
            if not durable:
                execute("PRAGMA synchronous=NORMAL")  # 0.03 ms instead of a sync; costs no I/O itself
            try:
                execute("BEGIN IMMEDIATE")
                try:
                    yield
                    execute("COMMIT")
                except BaseException:
                    # SQLite may have rolled back by itself (a full disk does that).
                    if self.connection.in_transaction:
                        execute("ROLLBACK")
                    raise
            finally:
                if not durable:
                    execute("PRAGMA synchronous=FULL")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see one state of the journal, whatever another process writes."""
        with _translated(self.path):
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def append(self, events: Sequence[Event], state: bytes | None) -> list[Record]:
        """Journals the events, in this order, and replaces the inference's state; durable when it returns.

        `state` None leaves the state as it is.  Raises JournalFull when the disk takes nothing: then neither events
        nor state were written and the caller offers the same again later.  A lock that another process holds for
        more than 0.5 s is a plain JournalError, with the same meaning.  Undecodable characters become U+FFFD.
        """
        with self.transaction():
            records = [self._inserted(event) for event in events]
            if state is not None:
                self._put("state", state)
        return records

    def _inserted(self, event: Event) -> Record:
        plain = to_plain(event)
        run = event.run if isinstance(event, (Compile, Test)) else None
        texts = {}
        size = 0
        if run is not None:
            for name in OUTPUTS:
                text = plain["run"][name]
                if text is not None:
                    texts[name] = text
                    size += encoded_size(text)
                    plain["run"][name] = None
            size += size_beside_texts(run)
        body = dumped(plain)
        started_at, ended_at = (None, None) if run is None else (run.started_at, run.ended_at)
        slug = None if isinstance(event, (SessionStart, SessionEnd, Gap)) else cleaned(event.step.slug)
        number = self.connection.execute(
            "INSERT INTO records(event, at, step_slug, started_at, ended_at, outputs_size, body, texts)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (event.name, event.at, slug, started_at, ended_at, size, body, dumped(texts) if texts else None),
        ).lastrowid
        assert number is not None
        return Record(number, f"{self.id}-{number}", event)

    @property
    def size(self) -> int:
        """Bytes in use in the file: what was deleted is used again before the file grows."""
        with _translated(self.path):
            pages, free, page = (
                self.connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int(pages - free) * int(page)

    @property
    def dropped_to(self) -> int:
        """Records up to this number have no texts any more, see `drop_texts`."""
        return int(self.fact(_DROPPED_TO) or 0)

    def drop_texts(self, at_least: int) -> tuple[int, int]:
        """Drops the texts (programs, outputs) of the oldest runs, of at least so many bytes if there are so many; those
        of the newest records stay, whatever is asked for.

        Returns of how many runs, and the last one's number.  The runs themselves stay.
        """
        query = "SELECT number, length(texts) FROM records WHERE texts IS NOT NULL AND number<=? ORDER BY number"
        count = last = freed = 0
        newest = self.last_number - _NEWEST
        with self.transaction():
            for number, size in self.connection.execute(query, (newest,)):
                count, last, freed = count + 1, number, freed + size
                if freed >= at_least:
                    break
            self.connection.execute("UPDATE records SET texts=NULL WHERE texts IS NOT NULL AND number<=?", (last,))
            if count:
                self._put(_DROPPED_TO, dumped(last))
        return count, last

    def save_state(self, state: bytes) -> None:
        """Replaces the inference's state.  It survives the death of the process; `append` also syncs it."""
        with self.transaction(durable=False):
            self._put("state", state)

    def state(self) -> bytes | None:
        """What `append` or `save_state` was given last."""
        with _translated(self.path):
            row = self.connection.execute("SELECT value FROM facts WHERE key='state'").fetchone()
        return None if row is None else row[0]

    def fact(self, key: str) -> Any:
        """What `put_fact` was given last for this key, or None."""
        with _translated(self.path):
            row = self.connection.execute("SELECT value FROM facts WHERE key=?", (key,)).fetchone()
        try:
            return None if row is None else orjson.loads(row[0])
        except ValueError as error:
            raise JournalCorrupt(f"{self.path}: fact {key}: {error}") from error

    def put_fact(self, key: str, value: Any, *, durable: bool = False) -> None:
        """Remembers a JSON-able value under a key; None forgets it.  Not in use for keys: "state", "journal_id"."""
        with self.transaction(durable=durable):
            if value is None:
                self.connection.execute("DELETE FROM facts WHERE key=?", (key,))
            else:
                self._put(key, dumped(value))

    def _put(self, key: str, value: bytes) -> None:
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES(?, ?)", (key, value))

    @property
    def last_number(self) -> int:
        """The number of the newest record, 0 before the first."""
        with _translated(self.path):
            return int(self.connection.execute("SELECT coalesce(max(number), 0) FROM records").fetchone()[0])

    @property
    def gaps(self) -> int:
        """How many gaps are recorded.  Of the records only those of no step are looked at, of which there are few."""
        query = "SELECT count(*) FROM records WHERE step_slug IS NULL AND event=?"
        with _translated(self.path):
            return int(self.connection.execute(query, (Gap.name,)).fetchone()[0])

    def last_at(self) -> int | None:
        """The time (ms) of the newest record, None before the first."""
        with _translated(self.path):
            row = self.connection.execute("SELECT at FROM records ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else row[0]

    def records(self, after: int = 0, step_slug: str | None = None, *, with_texts: bool = True) -> Iterator[Record]:
        """The records with a higher number, oldest first; those of one step when `step_slug` is given.

        Without their texts (they are None then) runs cost a fraction.

        Reads a page of 32 at a time and holds no lock in between, so the reader may take its time.
        """
        of_step = "" if step_slug is None else " AND step_slug=?"
        texts = "texts" if with_texts else "NULL"
        query = f"SELECT number, body, {texts} FROM records WHERE number>?{of_step} ORDER BY number LIMIT {_PAGE}"
        while True:
            arguments = (after,) if step_slug is None else (after, step_slug)
            with _translated(self.path):
                rows = self.connection.execute(query, arguments).fetchall()
            yield from (self._record(*row) for row in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def has_any(self, after: int, names: Collection[str]) -> bool:
        """Whether a record behind this number has an event of one of these names."""
        query = f"SELECT 1 FROM records WHERE number>? AND event IN ({','.join('?' * len(names))}) LIMIT 1"
        with _translated(self.path):
            return self.connection.execute(query, (after, *names)).fetchone() is not None

    def first_at(self, step_slug: str, name: str) -> int | None:
        """The time (ms) of the first event of this name in a step."""
        query = "SELECT at FROM records WHERE step_slug=? AND event=? ORDER BY number LIMIT 1"
        with _translated(self.path):
            row = self.connection.execute(query, (step_slug, name)).fetchone()
        return None if row is None else int(row[0])

    def waiting(self, after: int, names: Collection[str]) -> tuple[int, int | None]:
        """How many records behind this number have an event of one of these names, and the time (ms) of the first."""
        query = f"SELECT count(*), min(at) FROM records WHERE number>? AND event IN ({','.join('?' * len(names))})"
        with _translated(self.path):
            count, at = self.connection.execute(query, (after, *names)).fetchone()
        return count, at

    def record(self, number: int) -> Record | None:
        """One record, None where there is no such number."""
        row = self._row("number, body, texts", number)
        return None if row is None else self._record(*row)

    def run(self, number: int, *, with_texts: bool) -> Run:
        """The run of a compile or test; without its texts (they are None then) it costs a fraction.

        Raises JournalCorrupt when that record is of another kind.
        """
        row = self._row("body, texts" if with_texts else "body, NULL", number)
        if row is None:
            raise JournalCorrupt(f"{self.path}: record {number} is missing")
        with self._readable(number):
            run = from_plain(Run, self._plain(*row).get("run"))
            assert isinstance(run, Run)
            return run

    def _row(self, columns: str, number: int) -> Any:
        with _translated(self.path):
            return self.connection.execute(f"SELECT {columns} FROM records WHERE number=?", (number,)).fetchone()

    def _record(self, number: int, body: bytes, texts: bytes | None) -> Record:
        with self._readable(number):
            return Record(number, f"{self.id}-{number}", event_from(self._plain(body, texts)))

    @staticmethod
    def _plain(body: bytes, texts: bytes | None) -> Any:
        plain = orjson.loads(body)
        if texts is not None:
            plain["run"].update(orjson.loads(texts))
        return plain

    @contextmanager
    def _readable(self, number: int) -> Iterator[None]:
        try:
            yield
        except ValueError as error:  # orjson.JSONDecodeError and CodecError
            raise JournalCorrupt(f"{self.path}: record {number}: {error}") from error


def maybe_strange(path: Path) -> str | None:
    """The first of the files of this database that is no regular one: SQLite would wait for the other end of a pipe."""
    names = (f"{path}{suffix}" for suffix in ("", "-journal", "-wal", "-shm"))
    return next((name for name in names if os.path.lexists(name) and not os.path.isfile(name)), None)


def _make_files(path: Path) -> None:
    """The directory 0700 and the file 0600, whatever the umask; SQLite gives its other files the file's mode."""
    try:
        try:
            os.makedirs(path.parent.parent, exist_ok=True)
            os.mkdir(path.parent, 0o700)
        except FileExistsError:
            pass
        if os.stat(path.parent).st_uid == os.geteuid():
            os.chmod(path.parent, 0o700)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Never opened and closed here: that would drop the locks of this process's other connections
            # (sqlite.org/howtocorrupt.html, 2.2).
            if os.lstat(path).st_uid == os.geteuid():
                os.chmod(path, 0o600)
            return
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error


def open_or_replace(directory: str | os.PathLike[str], stamp: str) -> tuple[Journal, Path | None]:
    """The journal in this directory, made when missing; a damaged one is moved aside and a new one begun.

    The second value is where the damaged one went, None where there was none.  The new journal has another id, and
    the document that the old one wrote looks foreign to it: adopting that brings the runs back.
    """
    try:
        return Journal.open(directory, create=True), None
    except JournalCorrupt:
        aside = set_aside(directory, stamp)
        return Journal.open(directory, create=True), aside


def set_aside(directory: str | os.PathLike[str], stamp: str) -> Path:
    """Renames the journal's files to `journal.sqlite3.damaged-<stamp>`; no Journal may be open.  Deletes nothing."""
    path = Path(directory) / NAME
    target = path.with_name(f"{NAME}.damaged-{stamp}")
    count = 1
    while target.exists():
        count += 1
        target = path.with_name(f"{NAME}.damaged-{stamp}-{count}")
    try:
        for suffix in ("-wal", "-shm", ""):
            if os.path.lexists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", f"{target}{suffix}")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    return target
