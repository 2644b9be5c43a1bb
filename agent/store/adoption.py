"""What LearnPack recorded itself, taken over into the journal's table `adopted` so that nothing of it is ever lost.

Reading the same document twice changes nothing: an attempt is known by its step, kind, start and end.  An attempt
that carries the `event_id` of one of our own records is ours coming back and is not taken.  Everything else is:
attempts, AI interactions, quiz submissions, sessions, and the keys of the document and of each step, in the one form
of `core.learnpack_forms`; only personal data (`fullname`) is left out.

A run or an AI interaction that is new here waits to be concluded (`waiting`): it may be one that the agent saw itself,
or one that only LearnPack tells of.  What LearnPack had recorded before this journal was begun does not wait: it stays
in the document, and whose work it was isn't known.

Rows: kind "compile", "test", "ai_interaction", "quiz_submission" (one element of a step's list), "step" (a step's
other keys), "session" and "document" (step_slug "").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ..core.codec import cleaned, valid_text
from ..core.course import Course
from ..core.events import Origin
from ..core.json_as_node import read_as_node
from ..core.learnpack_forms import (
    LISTS,
    PRIVATE,
    Span,
    encoded,
    milliseconds,
    outputs_size,
    pairs,
    read_attempt,
    same_attempt,
    same_keys,
)
from .journal import Journal, JournalCorrupt, dumped
from .json_pieces import Unreadable, take_apart

#: The fact that says since when (ms) this journal is kept.
SINCE = "since"

#: How far LearnPack's times are from its launcher's: 20 ms (measured), more on a loaded machine.
CLOSE_MS = 250

#: The kinds of which each element is an event.
CONCLUDED = frozenset(("compile", "test", "ai_interaction"))


#: Step, kind and identity of an element; two that are equal are told apart by their order.
Place = tuple[str, str, str]

#: What the last reading of a file met: a hash of an element's step, list and bytes, and which one of its equals it is →
#: its place, None for none of LearnPack's.  205 bytes for an element: 4 MB for 20,000 runs.
Remembered = dict[int, Place | None]


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a reading brought: how many attempts were new, how many elements the document had in all.

    `other_id` is the document's telemetry_id where it is another one than was known.
    """

    new: int
    read: int
    other_id: str | None = None


class OtherCourse(Unreadable):
    """The document is of another course."""


class OtherStudent(Unreadable):
    """The document is of another student: it has another telemetry_id and another user_id than are known."""

    def __init__(self, message: str, telemetry_id: str) -> None:
        super().__init__(message)
        self.telemetry_id = telemetry_id


def parsed(text: bytes) -> Any:
    """JSON as LearnPack writes it, with valid Unicode throughout, that can be written again.  Raises Unreadable."""
    try:
        plain = read_as_node(text, orjson.loads)
    except orjson.JSONDecodeError as error:
        raise Unreadable(str(error)) from None
    try:
        # More is read than can be written: 1024 levels and 254.  Asked here, so that everything behind may take what
        # it gets for granted (1.7 of the 210 us that an element of 4 KB costs).
        orjson.dumps(_wrapped(plain))
    except orjson.JSONEncodeError as error:
        raise Unreadable(f"it can't be kept: {error}") from None
    return plain


def _wrapped(plain: Any) -> Any:
    """As deep as the document holds it: in a list, in a step, in the list of steps, in the document."""
    return [[[[plain]]]]


def adopt(
    journal: Journal,
    course: Course,
    read: Callable[[int, int], bytes],
    *,
    live: bool = False,
    remembered: Remembered | None = None,
) -> Adoption:
    """Takes over the document whose bytes `read(offset, size)` gives, as os.pread does; all of it or nothing.

    `remembered` is what the last reading into this journal met, and then this one's: so LearnPack's document, which
    grows by one run at a time, costs its new elements only (measured: a fifth).
    `live`: a LearnPack server that lives wrote it, and goes on with its telemetry_id; else the first one stays.
    Raises Unreadable (OtherCourse, OtherStudent where the document is another one's), OSError, JournalError.
    """
    place = 0

    def read_on(size: int) -> bytes:
        nonlocal place
        data = read(place, size)
        place += len(data)
        return data

    rest, pieces = take_apart(read_on, LISTS)
    document = parsed(rest)
    steps = document.pop("steps", None)
    steps = steps if isinstance(steps, list) else []
    slugs = [_slug_of(step, index, course) for index, step in enumerate(steps)]
    check_course(document, slugs, course)
    if any(piece.step >= len(slugs) for piece in pieces):
        raise Unreadable("it has several lists of steps")
    new = 0
    known: Remembered = {} if remembered is None else remembered
    since = journal.fact(SINCE) or 0
    with journal.transaction():
        other_id = _other_id(journal, document, live=live)
        _adopt_head(journal, document)
        for slug, step in zip(slugs, steps, strict=True):
            if isinstance(step, dict):
                own = {key: value for key, value in step.items() if key not in LISTS and value is not None}
                _unite(journal, slug, "step", "", own, same_keys)
        seen: Counter[Place] = Counter()
        equals: Counter[int] = Counter()
        met: Remembered = {}
        for piece in pieces:
            text = read(piece.start, piece.end - piece.start)
            stamp = hash((slugs[piece.step], piece.key, text))
            key = hash((stamp, equals[stamp]))
            equals[stamp] += 1
            met[key] = place_of = known.get(key)
            if key in known:
                if place_of is not None:
                    seen[place_of] += 1
                continue
            element = parsed(text)
            if isinstance(element, dict) and not _is_ours(journal, element):
                met[key], is_new = _adopt_element(journal, slugs[piece.step], LISTS[piece.key], element, seen, since)
                new += is_new
    if remembered is not None:
        remembered.clear()
        remembered.update(met)
    return Adoption(new, len(pieces), other_id)


def _slug_of(step: Any, index: int, course: Course) -> str:
    slug = step.get("slug") if isinstance(step, dict) else None
    if isinstance(slug, str) and slug:
        return slug
    return course.slug_at(index)


def check_course(document: Mapping[str, Any], slugs: list[str], course: Course) -> None:
    """Raises OtherCourse when the document has another slug and most of its steps are not of this course.

    The slug alone does not decide: a course's slug changes when its teacher renames it.
    """
    slug = document.get("slug")
    if not isinstance(slug, str) or not slug or slug == course.slug:
        return
    common = sum(course.step_named(step) is not None for step in slugs)
    if common * 2 < len(slugs) or not slugs:
        raise OtherCourse(f"it belongs to the course {cleaned(slug)!r}")


def _other_id(journal: Journal, document: dict[str, Any], *, live: bool) -> str | None:
    """The document's telemetry_id where another one is known.  Unless it is `live`, the document then gets that one,
    what is known of the head stays, and who its student is isn't taken over.

    Raises OtherStudent.  The same id with another user_id is one document: LearnPack writes whoever is logged in.
    """
    known = keys_of(journal, "document")
    written = (journal.fact("document") or {}).get("written")
    first = known.get("telemetry_id") or (journal.id if written else None)
    other = document.get("telemetry_id")
    if first is None or first == other:
        return None
    theirs, ours = document.get("user_id"), journal.fact("user_id") or known.get("user_id")
    if theirs and ours and str(theirs) != str(ours):
        raise OtherStudent(f"it belongs to another student (user_id {cleaned(str(theirs))!r})", str(other))
    if not isinstance(other, str) or not other:
        return None
    if not live:
        document.pop("user_id", None)
        document.update({key: value for key, value in known.items() if not key.endswith("_at")}, telemetry_id=first)
    return other


def _is_ours(journal: Journal, element: Mapping[str, Any]) -> bool:
    prefix, _, number = str(element.get("event_id", "")).rpartition("-")
    return prefix == journal.id and number.isdecimal() and len(number) < 19 and int(number) <= journal.last_number


def _adopt_head(journal: Journal, document: dict[str, Any]) -> None:
    sessions = document.pop("workout_session", None)
    for session in sessions if isinstance(sessions, list) else []:
        started_at = milliseconds(session.get("started_at")) if isinstance(session, dict) else None
        if started_at is not None:
            session = {**session, "started_at": started_at, "ended_at": milliseconds(session.get("ended_at"))}
            own = {key: value for key, value in session.items() if value is not None}
            _unite(journal, "", "session", str(started_at), own, same_keys)
    own = {key: value for key, value in document.items() if key not in PRIVATE and value is not None}
    _unite(journal, "", "document", "", own, same_keys)


def _adopt_element(
    journal: Journal,
    slug: str,
    kind: str,
    element: Mapping[str, Any],
    seen: Counter[Place],
    since: int,
) -> tuple[Place, bool]:
    """Where the element belongs, and whether it is new."""
    attempt = read_attempt(element, kind)
    started, ended = attempt.get("started_at"), attempt.get("ended_at")
    identity = f"{started}-{ended}"
    if started is None and ended is None:
        # Known by what it says; two that say the same are two.
        import zlib

        identity = f"{zlib.crc32(dumped(attempt)):08x}"
    place = (slug, kind, identity)
    seen[place] += 1
    if seen[place] > 1:
        identity += f"#{seen[place]}"
    is_new = _unite(journal, slug, kind, identity, attempt, same_attempt)
    if is_new and kind in CONCLUDED and "event_id" not in attempt and (ended or started or 0) >= since:
        waits = "UPDATE adopted SET waits=1 WHERE step_slug=? AND kind=? AND identity=?"
        journal.connection.execute(waits, (slug, kind, identity))
    return place, is_new


def waiting(journal: Journal) -> list[tuple[int, str, str]]:
    """What LearnPack recorded and nobody has concluded yet: the row's key, its step's slug and its kind, by time."""
    query = "SELECT key, step_slug, kind FROM adopted WHERE waits ORDER BY coalesce(started_at, ended_at), key"
    return list(journal.connection.execute(query))


def concluded(journal: Journal, keys: Collection[int]) -> None:
    """These rows need not be looked at again."""
    with journal.transaction(durable=False):
        journal.connection.executemany("UPDATE adopted SET waits=0 WHERE key=?", [(key,) for key in keys])


def _unite(
    journal: Journal,
    slug: str,
    kind: str,
    identity: str,
    new: dict[str, Any],
    same: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]],
) -> bool:
    """Stores a row, or unites it with the one that is there.  Returns whether it was not there."""
    execute = journal.connection.execute
    place = (slug, kind, identity)
    row = execute("SELECT key, body FROM adopted WHERE step_slug=? AND kind=? AND identity=?", place).fetchone()
    body = new if row is None else same(_loaded(journal, row[1]), new)
    text = dumped(body)
    values = (milliseconds(body.get("started_at")), milliseconds(body.get("ended_at")), outputs_size(body), text)
    if row is None:
        execute(
            "INSERT INTO adopted(step_slug, kind, identity, started_at, ended_at, outputs_size, body)"
            " VALUES(?, ?, ?, ?, ?, ?, ?)",
            place + values,
        )
    elif row[1] != text:
        execute("UPDATE adopted SET started_at=?, ended_at=?, outputs_size=?, body=? WHERE key=?", (*values, row[0]))
    return row is None


def _loaded(journal: Journal, body: bytes) -> dict[str, Any]:
    try:
        keys = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise JournalCorrupt(f"{journal.path}: an adopted row: {error}") from error
    return keys if isinstance(keys, dict) else {}


def keys_of(journal: Journal, kind: str, slug: str = "") -> dict[str, Any]:
    """LearnPack's keys of the document (kind "document") or of a step ("step"), {} where it recorded none."""
    return next((body for _, body in rows(journal, kind, slug)), {})


def rows(journal: Journal, kind: str, slug: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
    """The adopted elements of one kind and step: key and content, oldest first."""
    query = "SELECT key FROM adopted WHERE step_slug=? AND kind=? ORDER BY started_at, key"
    for (key,) in journal.connection.execute(query, (slug, kind)).fetchall():
        yield key, row(journal, key)


def row(journal: Journal, key: int) -> dict[str, Any]:
    """One adopted element."""
    found = journal.connection.execute("SELECT body FROM adopted WHERE key=?", (key,)).fetchone()
    return _loaded(journal, found[0])


def spans(journal: Journal, kind: str, slug: str) -> list[Span]:
    """When LearnPack's attempts of one step and kind were; those without any time are left out."""
    query = "SELECT key, started_at, ended_at FROM adopted WHERE step_slug=? AND kind=? AND started_at IS NOT NULL"
    return [Span(*found) for found in journal.connection.execute(query, (slug, kind))]


def same_runs(journal: Journal, kind: str, slug: str) -> dict[int, int]:
    """Which of our runs LearnPack recorded too: the record's number → the adopted row's key."""
    query = (
        "SELECT number, started_at, ended_at, json_extract(body, '$.run.origin') FROM records"
        " WHERE step_slug=? AND event=?"
    )
    ours: dict[str, list[Span]] = {}
    for *span, origin in journal.connection.execute(query, (slug, kind)):
        ours.setdefault(origin, []).append(Span(*span))
    if not ours:
        return {}
    theirs = spans(journal, kind, slug)

    def is_one_program(one: Span, other: Span) -> bool:
        return _is_one_program(journal, one.key, other.key)

    # One of two builds in a row may have been seen only, and the other recorded only.
    seen = pairs(ours.get(Origin.LEARNPACK, []), theirs, lambda *both: _is_close(*both) or is_one_program(*both))
    # Of a server that could not be seen as one, the agent knows only that the run was on no terminal.
    left = [span for span in theirs if span.key not in seen.values()]
    return seen | pairs(ours.get(Origin.OTHER, []), left, lambda *both: _is_close(*both) and is_one_program(*both))


def _is_one_program(journal: Journal, number: int, key: int) -> bool:
    """Whether our record's program may be the one of LearnPack's."""
    ours, theirs = journal.run(number, with_texts=True).source_code or "", row(journal, key).get("source_code")
    return not ours or not theirs or encoded(valid_text(ours)) == theirs


def _is_close(one: Span, other: Span) -> bool:
    """Whether two records have the same start and end, as a launcher's and LearnPack's have."""
    ends = (one.ended_at, other.ended_at)
    return abs(one.started_at - other.started_at) <= CLOSE_MS and (
        ends[0] is None or ends[1] is None or abs(ends[0] - ends[1]) <= CLOSE_MS
    )
