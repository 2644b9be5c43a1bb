"""`learnpack-agent repair`: one document on the disk → mended, the original kept, every change told in a line.

The document is read whole (up to LIMIT), what can't be parsed is salvaged (`core.salvage`), then mended
(`core.repair`).  Where the agent has a journal of the course, what the document holds is adopted and the union is
mended and written, so that nothing is concluded from a torn document that the journal knows better.  Nothing is
written when nothing changes.  A dry run does all of it on a copy of the journal and writes nothing.

The caller sees to it that neither an agent nor a LearnPack server of this course lives.

Known to be weak: some four times the document's size of memory is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ..core.course import Course
from ..core.differences import differences
from ..core.json_as_node import read_as_node
from ..core.mending import time_of
from ..core.one_form import in_form
from ..core.repair import Repaired, concluded, repair
from ..core.salvage import salvage
from .adoption import OtherCourse, adopt, check_course
from .fold import chunks, plan
from .journal import NAME as JOURNAL
from .journal import Journal, JournalError, dumped, new_id
from .json_pieces import Unreadable
from .on_disk import (
    DocumentError,
    Identity,
    content_of,
    copied_aside,
    directory_of,
    identity_in,
    opened,
    path_in,
    replaced,
)

#: A document of more bytes is not LearnPack's; 280 MB are 20,000 runs of 14 KB.
LIMIT = 512 << 20

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done, or would be in a dry run: the changes and what can't be mended, a line each.

    `aside` is the copy of the original, None where nothing was written or the original was empty.
    """

    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    aside: Path | None = None


def mend(course: Course, state: Path, *, now: int, limit: int, dry_run: bool) -> Mended:
    """`state` is the agent's directory for this course, which need not exist; `limit` the size (bytes) above which the
    union leaves out the oldest texts of the agent's own runs; `now` in milliseconds.

    Raises DocumentError (also where the disk refuses), OtherCourse.
    """
    with directory_of(course.root, course.base, create=False) as directory:
        before = None if directory is None else identity_in(directory)
        if directory is None or before is None:
            return Mended(notes=("there is no telemetry.json: LearnPack or the agent will begin one",))
        original, losses = _read(course, directory)
        at = time_of(before[2] // 1_000_000) or now
        with _journal(state, copied=dry_run) as (journal, trouble):
            found = None
            if journal is not None:
                found, trouble = _united(journal, course, original, at, limit)
            is_union = found is not None
            if found is None:
                found = repair(original, course, telemetry_id=new_id(), at=at)
            notes = found.notes
            if trouble is not None:
                notes = (*notes, f"it is not united with the agent's journal: {trouble}")
            if not losses and _same(found.document, original):
                return Mended(notes=notes)
            del original
            changes = (*losses, *found.changes) or ("the same, in another form",)
            if dry_run:
                return Mended(changes, notes)
            aside = _kept(directory, state, now)

            def note(made: Identity) -> None:
                if journal is not None and is_union:
                    journal.put_fact("document", {**(journal.fact("document") or {}), "written": list(made)})

            if replaced(directory, _text(found.document), before, note) is None:
                raise DocumentError(f"{path_in(course.root, course.base)}: somebody else is writing it")
    return Mended(changes, notes, aside)


def _read(course: Course, directory: int) -> tuple[Document, list[str]]:
    """The document as it is, and what of it was lost.  Raises DocumentError, OtherCourse."""
    descriptor = opened(directory)
    try:
        data = content_of(descriptor, LIMIT)
        if data is None:
            size = os.fstat(descriptor).st_size >> 20
            raise DocumentError(
                f"{path_in(course.root, course.base)}: {size} MiB, more than a document can have; nothing is changed"
            )
    finally:
        os.close(descriptor)
    losses = [] if _is_utf8(data) else ["bytes that are no UTF-8, now U+FFFD"]
    document = _parsed(data)
    if document is None:
        found = salvage(data)
        losses = [f"torn: {line}" for line in found.losses]
        document = _parsed(found.text) or {}
    steps = document.get("steps")
    slugs = [step.get("slug") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    check_course(document, [slug for slug in slugs if isinstance(slug, str)], course)
    return document, losses


def _is_utf8(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _parsed(data: bytes) -> Document | None:
    """A JSON object that can be written again, else None."""
    try:
        document = read_as_node(data, orjson.loads)
        orjson.dumps(document)  # nothing is nested too deeply
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return document if isinstance(document, dict) else None


def _same(one: Document, other: Document) -> bool:
    """Whether both are the same text: 3.0 is not 3, and 1 is not true."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def _kept(directory: int, state: Path, now: int) -> Path | None:
    """A copy of the original.  Raises DocumentError: without it nothing may be changed."""
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        return copied_aside(directory, state, now)
    except OSError as error:
        raise DocumentError(f"{state}: {error.strerror}: the original can't be kept, nothing is changed") from error


def _text(document: Document) -> Iterator[bytes]:
    """The document in pieces of one step."""
    yield b"{"
    for key, value in document.items():
        if key != "steps":
            yield dumped(key) + b":" + dumped(value) + b","
    yield b'"steps":['
    for index, step in enumerate(document.get("steps", ())):
        yield (b"," if index else b"") + dumped(step)
    yield b"]}"


def _united(
    journal: Journal, course: Course, original: Document, at: int, limit: int
) -> tuple[Repaired | None, str | None]:
    """The union with the journal, as the agent writes it; or why it can't be had.

    What is missing is concluded from the union, not from the document alone, and taken over into the journal too, so
    that the agent's next document has it.
    """
    read, changes = in_form(original, course)
    try:
        united = _folded(journal, course, read, at, limit)
        found = concluded(united, course, telemetry_id=journal.id, at=at)
        last = _folded(journal, course, found.document, at, limit) if found.changes else united
    except OtherCourse:
        raise
    except (JournalError, Unreadable) as error:
        return None, str(error)
    from_journal = [f"{line} (from the agent's journal)" for line in differences(read, united)]
    changes = (*changes, *from_journal, *found.changes, *differences(found.document, last))
    return Repaired(last, changes, found.notes), None


def _folded(journal: Journal, course: Course, document: Document, at: int, limit: int) -> Document:
    """The journal's document after this one was taken over.  Raises Unreadable and its kinds, JournalError."""
    _adopt(journal, course, b"".join(_text(document)))
    with journal.snapshot():
        folded: Document = orjson.loads(b"".join(chunks(journal, plan(journal, course, at, limit))))
    return folded


def _adopt(journal: Journal, course: Course, text: bytes) -> None:
    adopt(journal, course, lambda offset, size: text[offset : offset + size])


@contextmanager
def _journal(state: Path, *, copied: bool) -> Iterator[tuple[Journal | None, str | None]]:
    """The course's journal (a copy of it where nothing may be changed), or None and why it can't be used."""
    with ExitStack() as stack:
        journal, trouble = None, None
        if (state / JOURNAL).exists():
            try:
                journal = stack.enter_context(Journal.open(state, create=False, read_only=copied))
                if copied:
                    import tempfile

                    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="learnpack-agent-"))
                    journal = stack.enter_context(_copy_of(journal, directory))
            except JournalError as error:
                journal, trouble = None, str(error)
        yield journal, trouble


def _copy_of(journal: Journal, directory: str) -> Journal:
    import sqlite3

    try:
        copy = sqlite3.connect(os.path.join(directory, JOURNAL))
        try:
            journal.connection.backup(copy)
        finally:
            copy.close()
    except sqlite3.Error as error:
        raise JournalError(f"{journal.path}: {error}") from error
    return Journal.open(directory, create=False)
