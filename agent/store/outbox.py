"""How far each sink has come: cursors, parked records and what was dropped, in `delivery.sqlite3` beside the journal.

The queue is the journal itself, so nothing is kept twice: a sink's `cursor` is the number of the last record that it
acknowledged, and everything behind it waits.  A cursor belongs to one journal; when another journal is begun, the sink
begins with it.  A record that a server will never take is parked: its number, the answer and the time are kept, and it
can be sent again.

SQLite (WAL, synchronous=NORMAL): a cursor survives the death of the process at any moment; after a power failure it may
be an older one, and the same records are sent once more with the same ids.  Every thread opens its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from .journal import maybe_strange

NAME = "delivery.sqlite3"

#: The number of the tables below, of which 0.3 did not write any: 0 are the same.
SCHEMA = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS sinks(
    name TEXT PRIMARY KEY,
    journal TEXT NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,
    notes BLOB NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked(
    sink TEXT NOT NULL,
    journal TEXT NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    words TEXT NOT NULL,
    again INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(sink, journal, number)
) WITHOUT ROWID;
"""


#: Two threads of one sink may overlap when its configuration changes.
_MOVE = """
INSERT INTO sinks(name, journal, cursor) VALUES(?, ?, ?) ON CONFLICT(name) DO UPDATE SET
cursor=CASE journal WHEN excluded.journal THEN max(cursor, excluded.cursor) ELSE excluded.cursor END,
journal=excluded.journal
"""


class OutboxError(Exception):
    """It can't be read or written now.  One line that says why."""


class OutboxCorrupt(OutboxError):
    """The file is damaged or no outbox.  `set_aside` moves it away."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that a sink's server rejected: when (ms), what it said, and whether it is to be sent again."""

    number: int
    at: int
    words: str
    again: bool = False


class Outbox:
    """One connection to the file, for one journal.  Every method may raise OutboxError."""

    def __init__(self, directory: str | os.PathLike[str], journal: str, *, read_only: bool = False) -> None:
        """`read_only`: nothing is made; where there is no file yet, everything is as at the beginning."""
        self.path = Path(directory) / NAME
        self._journal = journal
        self._connection: sqlite3.Connection | None = None
        if read_only and not self.path.exists():
            return
        with self._translated(), self._closed_if_unusable():
            if not read_only:
                # Only where it is missing: closing it would drop the locks of this process's other connections
                # (sqlite.org/howtocorrupt.html, 2.2).
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            if (strange := maybe_strange(self.path)) is not None:
                raise OutboxError(f"{strange}: it is no regular file")
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                isolation_level=None,
                timeout=5.0,
            )
            self._connection.execute("PRAGMA cache_size=-128")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                words = f"written by a newer learnpack-agent (queues {version}, this one knows {SCHEMA})"
                raise OutboxError(f"{self.path}: {words}")
            if read_only:
                query = "SELECT count(*) FROM sqlite_master WHERE name IN ('sinks', 'parked')"
                if self._connection.execute(query).fetchone()[0] < 2:  # it is being made, or the disk was full
                    self.close()
            else:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.executescript(_TABLES)
                if version < SCHEMA:
                    self._connection.execute(f"PRAGMA user_version={SCHEMA}")

    @contextmanager
    def _closed_if_unusable(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the cursor ---

    def cursor(self, sink: str) -> int:
        """The number of the last record that the sink acknowledged, 0 before the first."""
        rows = self._all("SELECT cursor FROM sinks WHERE name=? AND journal=?", sink, self._journal)
        return int(rows[0][0]) if rows else 0

    def acknowledge(self, sink: str, number: int, parked: Parked | None = None) -> None:
        """The sink is done with all records up to this one, of which `parked` was not taken."""
        if parked is None:
            assert self._connection is not None, "it is open for reading"
            with self._translated():
                self._connection.execute(_MOVE, (sink, self._journal, number))
            return
        with self._transaction() as execute:
            execute(_MOVE, (sink, self._journal, number))
            self._insert(execute, sink, parked)

    # --- what was rejected ---

    def park(self, sink: str, parked: Parked) -> None:
        with self._transaction() as execute:
            self._insert(execute, sink, parked)

    def _insert(self, execute: Any, sink: str, parked: Parked) -> None:
        values = (sink, self._journal, parked.number, parked.at, parked.words, parked.again)
        execute("INSERT OR REPLACE INTO parked VALUES(?, ?, ?, ?, ?, ?)", values)

    def parked(self, sink: str) -> list[Parked]:
        query = "SELECT number, at, words, again FROM parked WHERE sink=? AND journal=? ORDER BY number"
        rows = self._all(query, sink, self._journal)
        return [Parked(number, at, words, bool(again)) for number, at, words, again in rows]

    def unpark(self, sink: str, number: int) -> None:
        """It was taken after all."""
        with self._transaction() as execute:
            execute("DELETE FROM parked WHERE sink=? AND journal=? AND number=?", (sink, self._journal, number))

    def send_again(self, sink: str) -> int:
        """All that is parked is to be tried again; returns how many that are."""
        with self._transaction() as execute:
            found = execute("UPDATE parked SET again=1 WHERE sink=? AND journal=?", (sink, self._journal))
            return int(found.rowcount)

    # --- what is known of a sink ---

    def notes(self, sink: str) -> dict[str, Any]:
        """What was last noted: how the sink fares, what it sent.  {} before the first."""
        rows = self._all("SELECT notes FROM sinks WHERE name=?", sink)
        with suppress(ValueError):
            notes = orjson.loads(rows[0][0]) if rows else {}
            return notes if isinstance(notes, dict) else {}
        return {}

    def note(self, sink: str, **changes: Any) -> None:
        """Remember these; None forgets one.  Only the sink's own thread does."""
        notes = {key: value for key, value in (self.notes(sink) | changes).items() if value is not None}
        with self._transaction() as execute:
            execute(
                "INSERT INTO sinks(name, journal, notes) VALUES(?, ?, ?)"
                " ON CONFLICT(name) DO UPDATE SET notes=excluded.notes",
                (sink, self._journal, orjson.dumps(notes)),
            )

    def known(self) -> list[str]:
        """The names of all sinks that ever got something: one that is configured no more keeps its place."""
        return [name for (name,) in self._all("SELECT name FROM sinks ORDER BY name")]

    # --- SQLite ---

    def _all(self, query: str, *arguments: object) -> list[Any]:
        if self._connection is None:
            return []
        with self._translated():
            return self._connection.execute(query, arguments).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        assert self._connection is not None, "it is open for reading"
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            is_corrupt = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            raise (OutboxCorrupt if is_corrupt else OutboxError)(f"{self.path}: {error}") from error


def set_aside(directory: str | os.PathLike[str], stamp: str) -> Path | None:
    """Renames a damaged outbox to `delivery.sqlite3.damaged-<stamp>`; the next one begins with nothing acknowledged.

    Returns None where it is not damaged (any more): another thread was faster.  Raises OSError.
    """
    path = Path(directory) / NAME
    with _ASIDE:
        try:
            with Outbox(directory, "") as outbox:
                if outbox._all("PRAGMA quick_check") == [("ok",)]:
                    return None
        except OutboxCorrupt:
            pass
        except OutboxError:
            return None
        target = path.with_name(f"{NAME}.damaged-{stamp}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{target}{suffix}")
        return target


_ASIDE = threading.Lock()
