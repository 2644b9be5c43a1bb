"""When the document is read, written, or left alone: the agent's side of living with LearnPack's own telemetry.

LearnPack with telemetry of its own keeps the whole document in memory and writes it over again at each event, so while
its server lives the agent only reads what it wrote; when the server is gone, the agent writes the union.  Both cost
as much as the document is long, so writing takes at most 2 % of the time, and reading 10 % (what was not read when
LearnPack dies in the middle of writing is lost).

A document that is no JSON for a fifth of a second is nobody's work at hand: LearnPack died in the middle of writing it,
and its next start would die of it.  It is mended at once, whoever lives: LearnPack writes over it as it always does.
Only a LearnPack that tests can leave it empty for longer (2.1 s measured): its server is blocked between truncating and
writing.

How it is read and written: `store/document_file.py`; what becomes of what LearnPack recorded: `store/recorded.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .core.course import Course
from .core.observations import Observation
from .sensors.clock import now_ms
from .sensors.learnpack import is_logged_in
from .store.adoption import concluded
from .store.document_file import DocumentError, DocumentFile
from .store.journal import Journal, JournalError
from .store.recorded import recorded

log = logging.getLogger("learnpack-agent")

#: The document follows an event after this time, and what LearnPack wrote is read after this.
WRITE_DELAY_MS = 300
READ_DELAY_MS = 5
WRITE_DUTY, READ_DUTY = 50, 10
#: LearnPack truncates the file and writes it within some ms (an empty one was seen at 65 of 32,750 reads).
TORN_MS = 200
#: A LearnPack server with telemetry of its own writes the file 0.8-1.5 s after its start (measured); until this
#: age a server is taken for one that will.
SERVER_SILENCE_MS = 10_000
RETRY_MS = 20_000
RETRY_LONGEST_MS = 1_200_000


@dataclass(slots=True)
class Trouble:
    """What is wrong now, for `status`; a repeating failure is logged once per change."""

    text: str | None = None

    def set(self, text: str | None) -> bool:
        """Returns whether this is news."""
        news, self.text = text != self.text, text
        if news and text is not None:
            log.warning("%s", text)
        return news


class DocumentKeeper:
    """Belongs to the loop: `deadline` says when `handle` has something to do, the other methods what happened."""

    def __init__(
        self,
        file: DocumentFile,
        learnpack_since: Callable[[], int | None],
        learnpack_is_testing: Callable[[], bool],
        conclude: Callable[[list[Observation]], bool],
        put_status: Callable[..., None],
    ) -> None:
        """`learnpack_since`: since when a LearnPack server lives; `conclude` feeds observations to the inference and
        returns whether what followed is durable; `put_status` gets `document`, why the document can't be written, and
        of one that was written its `document_size` in bytes and `document_omitted`, the runs without their texts."""
        self.file = file
        self.is_gone = False
        self._learnpack_since = learnpack_since
        self._learnpack_is_testing = learnpack_is_testing
        self._conclude = conclude
        self._put_status = put_status
        self._write_due: int | None = None
        self._read_due: int | None = None
        self._torn_due: int | None = None
        self._recorded_due: int | None = 0  # what waits since the agent's last life
        self._told: set[int] = set()  # rows whose events wait to be durable
        self._not_before = {"write": 0, "read": 0}
        self._retry_ms = RETRY_MS
        self._trouble = Trouble()
        self._learnpack_writes: bool | None = False  # None: it could not be looked at
        self._learnpack_ran = False

    def use(self, journal: Journal) -> None:
        """From now on this is the journal."""
        self.file.use(journal)
        self._told.clear()
        self._recorded_due = 0
        self._look()

    # --- what happened ---

    def changed(self, now: int, *, at_once: bool = False) -> None:
        """The journal has more than the document."""
        self._look()
        due = now if at_once else now + WRITE_DELAY_MS
        if self._write_due is None or at_once:
            self._write_due = due

    def learnpack_ran(self) -> None:
        """A run of LearnPack's was seen to end: one with telemetry of its own writes it 4 ms later."""
        self._learnpack_ran = True

    def noticed(self, now: int) -> None:
        """The file on the disk was written, by whomever."""
        self._look()
        self._torn_due = None
        if self._read_due is None:
            self._read_due = now + READ_DELAY_MS

    def shift(self, by_ms: int) -> None:
        """The clock was set."""
        for name in ("_write_due", "_read_due", "_torn_due", "_recorded_due"):
            due = getattr(self, name)
            setattr(self, name, None if due is None else due + by_ms)
        self._not_before = {what: due + by_ms for what, due in self._not_before.items()}

    # --- the loop asks ---

    def deadline(self) -> int | None:
        """Asked after every observation: it looks at nothing."""
        torn_due = None if self.is_gone else self._torn_due
        times = (self._writing_due(), self._reading_due(), torn_due, self._recorded_due)
        return min((time for time in times if time is not None), default=None)

    def handle(self, now: int, course: Course) -> None:
        """Do what is due."""
        if (due := self._reading_due()) is not None and due <= now:
            self._read(now, course)
        self._conclude_what_is_due(now, course)
        if self._torn_due is not None and self._torn_due <= now and not self.is_gone:
            self._torn_due = None
            if self._learnpack_is_testing():
                self._torn_due = now + TORN_MS
            else:
                self._mend(now, course)
        if (due := self._writing_due()) is not None and due <= now:
            self._write_unless_held(now, course)

    def finish(self, now: int, course: Course) -> None:
        """The last words of this life of the agent."""
        if self._read_due is not None and not self.is_gone:
            self._read(now, course)
        self._conclude_what_is_due(now, course)
        if self._write_due is not None:
            self._write_unless_held(now, course)
        self._conclude_what_is_due(now_ms(), course)  # what the writing found

    def _reading_due(self) -> int | None:
        if self._read_due is None or self.is_gone:
            return None
        return max(self._read_due, self._not_before["read"])

    def _writing_due(self) -> int | None:
        if self._write_due is None:
            return None
        held_until = self._held_until()
        if held_until is None:
            return None  # the end of the server's session makes it due again
        return max(self._write_due, self._not_before["write"], held_until)

    def _held_until(self) -> int | None:
        """When the document may be written: 0 for now, None while a LearnPack server writes it itself, or while the
        course is gone (a clone of it in progress would find a directory that it did not make)."""
        if self.is_gone:
            return None
        since = self._learnpack_since()
        if since is None:
            return 0
        if self._learnpack_writes is not False:
            return None
        return 0 if self._learnpack_ran else since + SERVER_SILENCE_MS

    def _look(self) -> None:
        """Does the server that lives write the document itself?  Once it did, it is its own until it ends."""
        since = self._learnpack_since()
        if since is None:
            self._learnpack_writes = self._learnpack_ran = False
        elif not self._learnpack_writes:
            try:
                self._learnpack_writes = self.file.foreign_since(since)
            except JournalError:  # not sure whose it is: not touched, and the journal says what is wrong with it
                self._learnpack_writes = None

    # --- reading ---

    def _read(self, now: int, course: Course) -> None:
        self._read_due = None
        try:
            adopted = self.file.adopt(course, learnpack_since=self._learnpack_since())
        except (DocumentError, JournalError) as error:
            log.debug("telemetry.json is not read: %s", error)
            self._read_due = self._not_before["read"] = now + RETRY_MS
            return
        self._not_before["read"] = now_ms() + int(adopted.seconds * 1000 * READ_DUTY)
        self._torn_due = now_ms() + TORN_MS if adopted.torn else None
        if adopted.note is not None:
            log.warning("telemetry.json: %s", adopted.note)
        if adopted.problem is not None:
            log.debug("telemetry.json can't be read now: %s", adopted.problem)  # half written: it is closed again
        if adopted.new:
            self._recorded_due = now

    def _conclude_what_is_due(self, now: int, course: Course) -> None:
        if self._recorded_due is None or self._recorded_due > now:
            return
        self._recorded_due = None
        try:
            found = recorded(self.file.journal, now, is_logged_in=is_logged_in(course), told=self._told)
            self._recorded_due = found.next_at
            self._told.update(found.rows)
            if not self._told:
                return
            if self._conclude(list(found.observations)):
                concluded(self.file.journal, self._told)
                self._told.clear()
                return
        except JournalError as error:
            log.debug("what LearnPack recorded is not concluded: %s", error)
        self._recorded_due = now + RETRY_MS

    # --- writing ---

    # Both look again before they write: a polled file system tells of LearnPack's writing only after 2 s.

    def _mend(self, now: int, course: Course) -> None:
        self._read(now, course)
        if self._torn_due is not None:
            self._torn_due = None
            self._write(course)

    def _write_unless_held(self, now: int, course: Course) -> None:
        self._look()
        if (held_until := self._held_until()) is not None and held_until <= now:
            self._write(course)

    def _write(self, course: Course) -> None:
        self._write_due = None
        try:
            written = self.file.write(course, now_ms())
        except (DocumentError, JournalError) as error:
            if self._trouble.set(f"telemetry.json is not written: {error}"):
                self._put_status(document=str(error))
            self._write_due = self._not_before["write"] = now_ms() + self._retry_ms
            self._retry_ms = min(2 * self._retry_ms, RETRY_LONGEST_MS)
            return
        self._retry_ms = RETRY_MS
        if written.problem is not None:
            kept = f", a copy is in {written.aside}" if written.aside else ""
            log.warning("telemetry.json could not be read (%s)%s", written.problem, kept)
        if written.note is not None:
            log.warning("telemetry.json: %s", written.note)
        if written.adopted:
            self._recorded_due = now_ms()
        self._trouble.set(None)
        self._put_status(document=None, document_size=written.size, document_omitted=written.omitted)
        self._not_before["write"] = now_ms() + int(written.seconds * 1000 * WRITE_DUTY)
