"""Erases what is known of a student in a course, and says what was erased: a receipt.

Erased are the journal with all that hangs on it (events, programs, outputs, the queues of all sinks), older journals
and copies of documents in the state directory, and the course's telemetry.json.  The receipt holds numbers and times
only; it names the sinks that got records already, because those have to be asked themselves.

Who calls this holds the course's lock, and nobody has the journal open.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import orjson

from .core.course import Course
from .sensors.clock import now_ms
from .store.control import NAME as CONTROL
from .store.journal import Journal, JournalError
from .store.lock import NAME as LOCK
from .store.on_disk import NAME as DOCUMENT
from .store.on_disk import TEMPORARY
from .store.outbox import Outbox, OutboxError

log = logging.getLogger("learnpack-agent")

RECEIPTS = "receipts"


def receipt_path(directory: str | os.PathLike[str], asked_at: int) -> Path:
    return Path(directory) / RECEIPTS / f"forgotten-{asked_at}.json"


def forget(course: Course, directory: str | os.PathLike[str], asked_at: int) -> dict[str, Any]:
    """Erases everything and returns the receipt, which is also kept in the state directory.

    What can't be erased (no permission) is named in it under `left`.
    """
    receipt: dict[str, Any] = {"forgotten_at": now_ms(), **_what_there_is(directory), "left": []}
    kept = {LOCK, CONTROL, RECEIPTS}
    paths = [path for path in Path(directory).iterdir() if path.name not in kept]
    paths += [Path(course.root, course.base, name) for name in (DOCUMENT, TEMPORARY)]
    erased = [path for path in paths if _erased(path, receipt["left"])]
    receipt["files"] = len(erased)
    receipt["telemetry_json"] = any(path.name == DOCUMENT for path in erased)
    path = receipt_path(directory, asked_at)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(receipt) + b"\n")
    os.replace(temporary, path)
    log.info("%d events were forgotten: %s", receipt["events"], path)
    return receipt


def erase_state(directory: str) -> bool:
    """Erases a course's whole state directory, for a course that is watched no more.  Returns whether there was one.
    Nothing that a link in it leads to is touched.  Raises OSError."""
    import shutil

    if not os.path.lexists(directory):
        return False
    if os.path.islink(directory):
        os.unlink(directory)
    else:
        shutil.rmtree(directory)
    return True


def _what_there_is(directory: str | os.PathLike[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"events": 0, "first_at": None, "last_at": None, "sinks": []}
    with contextlib.suppress(JournalError, OutboxError), Journal.open(directory, create=False) as journal:
        first = next(journal.records(with_texts=False), None)
        last = journal.last_number
        found |= {"events": last, "first_at": first and first.event.at, "last_at": journal.last_at()}
        with Outbox(directory, journal.id, read_only=True) as outbox:
            for name in outbox.known():
                got = outbox.cursor(name)
                found["sinks"].append({"name": name, "got_up_to": got, "waited": last - got})
    return found


def _erased(path: Path, left: list[str]) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        left.append(f"{path.name}: {error.strerror}")
        return False
    return True
