"""`telemetry.json` of a course that has a journal: never replaced before what was there is taken over.

A document that this file did not write is foreign: LearnPack's own, or one that came with git.  `adopt` takes it
over into the journal; `write` does so too before it replaces one.  How a file is replaced lives in `on_disk`, what is
taken over in `adoption`.

A foreign document that can't be read is copied into the state directory before it is replaced, and what is complete
in it is taken over all the same (`core.salvage`; in memory, so only up to SALVAGE_LIMIT).

Two documents.  One with another telemetry_id than the one that is known: the runs of both are kept, the first id
stays; but a LearnPack server that lives now goes on with the id that it writes, so then that one counts.  One that
also names another student (another user_id): whose work it tells of is certain, and it is not this journal's
student's.  Nothing of it is taken over, because a completion of somebody else's would be this student's approved task;
it is copied aside.  While a server writes it, and ever after as long as it lies there, it is left alone instead: then
another student works here, and LearnPack goes on with that document.

Known to be weak: LearnPack must not be writing while `write` runs (the caller knows whether its server is alive).
A document of another student who was never logged in can't be told from one of this student's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..core.codec import cleaned
from ..core.course import Course
from .adoption import Adoption, OtherCourse, OtherStudent, Remembered, adopt
from .fold import LIMIT, chunks, plan
from .journal import Journal
from .json_pieces import Unreadable
from .on_disk import (
    NAME,
    TEMPORARY,
    DocumentError,
    Identity,
    content_of,
    copied_aside,
    directory_of,
    identity_in,
    identity_of,
    opened,
    path_in,
    replaced,
)

__all__ = ["NAME", "TEMPORARY", "Adopted", "DocumentError", "DocumentFile", "Written"]

#: A file this young may be written again within the same tick of the file system's clock (4 ms on older kernels).
_TICK_MS = 50

#: A torn document of more bytes is only copied aside: salvaging takes about three times its size of memory.
SALVAGE_LIMIT = 64 << 20

#: The facts of the journal: the telemetry_ids that were told of, and that of another student's whom LearnPack serves.
_OTHER_IDS, _LEFT_ALONE = "other_telemetry_ids", "left_alone"


class _Changed(Unreadable):
    """It was written while it was read: what was read may be of two documents."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What `adopt` did.

    `seconds` is what it cost; `problem` says in words why not all was taken, else None; `torn`: because it is no whole
    document, so that LearnPack can't start on it either; `note` is what an admin should know once.
    """

    seconds: float
    new: int = 0
    problem: str | None = None
    note: str | None = None
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What `write` did.

    `seconds` is what it cost: the next one is due no sooner than 50 times that.  `size` is in bytes, `omitted` counts
    the runs whose texts were left out.  `adopted` counts attempts that were found in a foreign document, `aside` is
    where an unreadable one was copied to and `problem` why; `note` is what an admin should know once.
    """

    seconds: float
    size: int
    omitted: int
    adopted: int = 0
    aside: Path | None = None
    problem: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was taken over of a foreign document, and why not all of it."""

    new: int = 0
    problem: str | None = None
    note: str | None = None
    torn: bool = False


class DocumentFile:
    """The document of one course, folded from one journal."""

    def __init__(
        self, root: str | os.PathLike[str], journal: Journal, *, base: str = ".learn", limit: int = LIMIT
    ) -> None:
        """`root` is the course's directory, `base` LearnPack's own in it; `limit` the document's size in bytes above
        which texts are left out."""
        self.root = os.fspath(root)
        self.base = base
        self.journal = journal
        self._remembered: Remembered = {}
        self.limit = limit

    def use(self, journal: Journal) -> None:
        """From now on this is the journal: a new one knows nothing of what was taken over."""
        self.journal = journal
        self._remembered = {}

    @property
    def path(self) -> str:
        return path_in(self.root, self.base)

    def foreign_since(self, since: int) -> bool:
        """Whether somebody else wrote the document at or after `since` (ms): LearnPack, if its server began then.

        A document that can't be looked at is nobody's: `write` will say what is wrong with it.
        """
        try:
            with directory_of(self.root, self.base, create=False) as directory:
                identity = None if directory is None else identity_in(directory)
                if identity is None or identity[2] // 1_000_000 < since:
                    return False
                return list(identity) != (self.journal.fact("document") or {}).get("written")
        except DocumentError:
            return False

    def adopt(self, course: Course, *, learnpack_since: int | None = None) -> Adopted:
        """Takes over a foreign document; without one it does nothing.  Changes nothing in the course.

        `learnpack_since`: since when (ms) a LearnPack server lives, None while none does; what was written since then
        is taken for that server's.  A document that can't be read is no error here, because LearnPack may just be
        writing it: what is complete is taken, `problem` says what is wrong, and the next call reads it again.  Raises
        DocumentError, JournalError.
        """
        began = time.perf_counter()
        with directory_of(self.root, self.base, create=False) as directory:
            identity = None if directory is None else identity_in(directory)
            if directory is None or identity is None or list(identity) in self._known():
                return Adopted(time.perf_counter() - began)
            live = learnpack_since is not None and identity[2] // 1_000_000 >= learnpack_since
            try:
                reading = self._adopt(directory, course, live=live)
            except OtherStudent as error:
                if live:
                    self.journal.put_fact(_LEFT_ALONE, error.telemetry_id)
                reading = _Reading(problem=str(error))
            except (OtherCourse, _Changed) as error:
                reading = _Reading(problem=str(error))
            except Unreadable as error:
                reading = _Reading(problem=str(error), torn=True)
        return Adopted(time.perf_counter() - began, reading.new, reading.problem, reading.note, reading.torn)

    def write(self, course: Course, at: int) -> Written:
        """Replaces the document by the present one.  `at` is now, in milliseconds; it also names a copy set aside.

        A foreign document is adopted first, an unreadable one copied into the journal's directory.  Raises
        DocumentError, JournalError; then the old document is untouched.
        """
        began = time.perf_counter()
        adopted, aside, problem, note = 0, None, None, None
        with directory_of(self.root, self.base, create=True) as directory:
            assert directory is not None
            for _ in range(3):
                before = identity_in(directory)
                if before is not None and list(before) not in self._known():
                    try:
                        reading = self._adopt_or_give_up(directory, course)
                    except _Changed:
                        continue  # nothing is torn: it is read again
                    adopted += reading.new
                    note = reading.note or note
                    if reading.problem is not None:
                        problem = reading.problem
                        aside = copied_aside(directory, self.journal.path.parent, at) or aside
                        # So that a write that fails afterwards, again and again, leaves one copy.
                        self._note("aside", before)
                written = self._write(directory, course, at, before)
                if written is not None:
                    size, omitted = written
                    return Written(time.perf_counter() - began, size, omitted, adopted, aside, problem, note)
        raise DocumentError(f"{self.path}: somebody else keeps writing it")

    def _write(self, directory: int, course: Course, at: int, before: Identity | None) -> tuple[int, int] | None:
        """Size and number of runs without texts; None when the old document changed while the new one was made."""
        omitted = 0

        def document() -> Generator[bytes, None, None]:
            nonlocal omitted
            with self.journal.snapshot():
                wanted = plan(self.journal, course, at, self.limit)
                omitted = wanted.omitted
                yield from chunks(self.journal, wanted)

        # Closed by hand: a snapshot that is still open when the disk took nothing would hold the journal.
        with closing(document()) as streamed:
            # Noted before the rename.  After a crash in between, the old document looks foreign, and adopting what
            # we wrote ourselves brings nothing new; the other way round LearnPack's could be taken for ours.
            size = replaced(directory, streamed, before, lambda identity: self._note("written", identity))
        return None if size is None else (size, omitted)

    def _adopt_or_give_up(self, directory: int, course: Course) -> _Reading:
        """What `write` does with a foreign document.  Raises DocumentError where it must not be replaced, _Changed."""
        try:
            return self._adopt(directory, course, live=False)
        except OtherStudent as error:
            if self.journal.fact(_LEFT_ALONE) == error.telemetry_id:
                raise DocumentError(f"{self.path}: left alone, LearnPack writes it for another student") from None
            return _Reading(problem=str(error))
        except _Changed:
            raise
        except Unreadable as error:
            return _Reading(problem=str(error))

    def _adopt(self, directory: int, course: Course, *, live: bool) -> _Reading:
        """Takes over what can be read.  Raises Unreadable where nothing of it may be taken."""
        descriptor = opened(directory)
        try:
            identity = identity_of(os.fstat(descriptor))
            young = time.time_ns() - identity[2] < _TICK_MS * 1_000_000

            def read(offset: int, size: int) -> bytes:
                data = os.pread(descriptor, size, offset)
                if identity_of(os.fstat(descriptor)) != identity:
                    raise _Changed("it was written while it was read")
                return data

            problem = None
            try:
                adoption = adopt(self.journal, course, read, live=live, remembered=self._remembered)
            except (OtherCourse, OtherStudent, _Changed):
                raise
            except Unreadable as error:
                from ..core.salvage import salvage  # 16 ms, for the day on which it is needed

                salvaged = salvage(content_of(descriptor, SALVAGE_LIMIT) or b"")
                if not salvaged.text or identity_of(os.fstat(descriptor)) != identity:
                    raise
                adoption = _adopt_text(self.journal, course, salvaged.text, live=live)
                lost = "; ".join(salvaged.losses)
                problem = f"{error}; {adoption.read} runs and answers of it were taken over; {lost}"
            if not young and problem is None and identity_of(os.fstat(descriptor)) == identity:
                self._note("adopted", identity)
        finally:
            os.close(descriptor)
        return _Reading(adoption.new, problem, self._told_once(adoption.other_id, live=live), problem is not None)

    def _told_once(self, other_id: str | None, *, live: bool) -> str | None:
        """A sentence about a document with another telemetry_id, when its id is new."""
        told = self.journal.fact(_OTHER_IDS) or []
        if other_id is None or other_id in told:
            return None
        self.journal.put_fact(_OTHER_IDS, [*told[-15:], other_id])
        stays = "LearnPack goes on with that one" if live else "the first one stays"
        which = f"a document with another telemetry_id ({cleaned(other_id)!r}) was there"
        return f"{which}: the runs of both are kept, {stays}"

    def _known(self) -> list[list[int]]:
        """The identities of what was written here and of what was adopted last."""
        noted = self.journal.fact("document") or {}
        return [identity for identity in noted.values() if identity]

    def _note(self, what: str, identity: Identity) -> None:
        noted = self.journal.fact("document") or {}
        noted[what] = list(identity)
        self.journal.put_fact("document", noted)


def _adopt_text(journal: Journal, course: Course, text: bytes, *, live: bool) -> Adoption:
    return adopt(journal, course, lambda offset, size: text[offset : offset + size], live=live)
