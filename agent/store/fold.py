"""The document as a stream of bytes: the records and what LearnPack recorded, joined by `core.document`.

Nothing is held but one attempt and the times of one step's runs: 20,000 runs of 14 KB are folded in a few MB.  The
whole is bounded: when it would be larger than the limit, the texts (source, output) of our oldest runs are left out;
attempts never, and never a text that LearnPack wrote.  So a document can be larger than the limit when LearnPack's
own part alone is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from ..core.course import Course, Step
from ..core.document import ACTS, DocumentFacts, Session, StepFacts, attempt, head, step_head
from ..core.events import Gap, SessionEnd, SessionStart
from ..core.learnpack_forms import LISTS
from .adoption import keys_of, row, rows, same_runs
from .journal import Journal, JournalCorrupt, dumped

#: Bytes of the document, unless told otherwise.
LIMIT = 8 << 20

#: What an attempt takes without its texts, at most: 180 bytes as a rule, 278 with the longest id and numbers.
_BARE_ATTEMPT = 280


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes into a document: its head, its steps, and from which record on texts are kept."""

    head: bytes
    steps: tuple[tuple[str, bytes], ...]
    texts_from: int
    omitted: int


def plan(journal: Journal, course: Course, at: int, limit: int = LIMIT) -> Plan:
    """Everything but the lists.  `at` is now, in milliseconds; it only shows where nothing has happened yet."""
    sessions, visits = _sessions_and_visits(journal)
    top = dumped(head(course, _document_facts(journal, at, sessions)))
    steps = tuple((slug, dumped(document)) for slug, document in _steps(journal, course, visits))
    spent = len(top) + sum(len(document) + 80 for _, document in steps)
    texts_from, omitted = _texts_from(journal, limit - spent)
    return Plan(top, steps, texts_from, omitted)


#: What becomes of an element of a step's list: given the step's index, the list's name and the element.
Change = Callable[[int, str, dict[str, Any]], dict[str, Any] | None]


def chunks(journal: Journal, plan: Plan, change: Change | None = None) -> Iterator[bytes]:
    """The document, in pieces of one attempt or less.  The journal must not change between `plan` and the end.

    `change` makes of each element what stands in the document; None: it does not.
    """
    yield plan.head[:-1] + b',"steps":['
    for index, (slug, document) in enumerate(plan.steps):
        yield (b"," if index else b"") + document[:-1]
        for name, kind in LISTS.items():
            if kind in ("compile", "test"):
                elements = _runs(journal, slug, kind, plan.texts_from)
            else:
                elements = (body for _, body in rows(journal, kind, slug))
            changed = elements if change is None else map(partial(change, index, name), elements)
            yield from _list(name, changed, always=kind != "quiz_submission")
        yield b"}"
    yield b"]}"


def _list(name: str, elements: Iterator[dict[str, Any] | None], *, always: bool) -> Iterator[bytes]:
    opening = b',"%s":[' % name.encode()
    separator = opening
    for element in elements:
        if element is None:
            continue
        yield separator + dumped(element)
        separator = b","
    if separator is not opening:
        yield b"]"
    elif always:
        yield opening + b"]"


def _runs(journal: Journal, slug: str, kind: str, texts_from: int) -> Iterator[dict[str, Any]]:
    """The attempts of one step, ours and LearnPack's, the same run once, by their start."""
    same = same_runs(journal, kind, slug)
    query = "SELECT started_at, number, outputs_size > 0 FROM records WHERE step_slug=? AND event=?"
    order: list[tuple[int, int, int]] = [
        # (start, record's number or 0, adopted key or 0); a left-out text makes the number negative
        (start, -number if has_texts and number < texts_from else number, same.get(number, 0))
        for start, number, has_texts in journal.connection.execute(query, (slug, kind))
    ]
    taken = set(same.values())
    adopted = "SELECT coalesce(started_at, 0), 0, key FROM adopted WHERE step_slug=? AND kind=?"
    order += [found for found in journal.connection.execute(adopted, (slug, kind)) if found[2] not in taken]
    order.sort()
    for _, number, key in order:
        theirs = row(journal, key) if key else None
        if not number:
            assert theirs is not None
            yield theirs
            continue
        run = journal.run(abs(number), with_texts=number > 0)
        yield attempt(run, f"{journal.id}-{abs(number)}", theirs, omitted=number < 0)


def _texts_from(journal: Journal, room: int) -> tuple[int, int]:
    """The number of the first record whose texts have room, and how many records before it have texts, or had."""
    execute = journal.connection.execute
    count = execute("SELECT count(*) FROM records WHERE started_at IS NOT NULL").fetchone()[0]
    query = "SELECT coalesce(sum(length(body)), 0) FROM adopted WHERE kind NOT IN ('step', 'session', 'document')"
    room -= count * _BARE_ATTEMPT + execute(query).fetchone()[0]
    without = journal.dropped_to
    newest = "SELECT number, outputs_size FROM records WHERE outputs_size > 0 AND number > ? ORDER BY number DESC"
    for number, size in execute(newest, (without,)):
        room -= size
        if room < 0:
            without = number
            break
    query = "SELECT count(*) FROM records WHERE outputs_size > 0 AND number <= ?"
    return (without + 1, execute(query, (without,)).fetchone()[0]) if without else (0, 0)


def _document_facts(journal: Journal, at: int, sessions: Sequence[Session]) -> DocumentFacts:
    execute = journal.connection.execute
    first = execute("SELECT at FROM records WHERE event != 'gap' ORDER BY number LIMIT 1").fetchone()
    acts = f"SELECT max(at) FROM records WHERE event IN ({','.join('?' * len(ACTS))})"
    theirs = [body for _, body in rows(journal, "session")]
    return DocumentFacts(
        document_id=journal.id,
        at=at,
        first_event_at=None if first is None else first[0],
        last_act_at=execute(acts, ACTS).fetchone()[0],
        sessions=sessions,
        user_id=journal.fact("user_id"),
        learnpack=keys_of(journal, "document"),
        learnpack_sessions=theirs,
    )


def _sessions_and_visits(journal: Journal) -> tuple[list[Session], Mapping[str, list[int]]]:
    """Our sessions, and for each step the active time (ms) of its visits; one walk, because it reads every record.

    A start without an end, followed by another start, is a session whose end was not seen.
    """
    query = (
        "SELECT number, event, at, CASE event WHEN 'session_start' THEN NULL ELSE body END FROM records"
        " WHERE event IN ('session_start', 'session_end', 'open_step') ORDER BY number"
    )
    sessions: list[Session] = []
    visits: dict[str, list[int]] = defaultdict(list)
    for number, event, at, body in journal.connection.execute(query):
        if event == "session_start":
            sessions.append(Session(at, None))
            continue
        if event == "session_end" and sessions and sessions[-1].ended_at is None:
            sessions[-1] = Session(sessions[-1].started_at, max(at, sessions[-1].started_at))
        try:
            # Not by way of the codec: 5,200 of these among 25,000 records are 50 ms, and would be 80.
            if (left := orjson.loads(body).get("left")) is not None:
                visits[left["slug"]].append(left["active_ms"])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise JournalCorrupt(f"{journal.path}: record {number}: {error!r}") from error
    return sessions, visits


def _steps(journal: Journal, course: Course, visits: Mapping[str, list[int]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step's slug and head: the course's steps in order, then those that the course does not have any more.

    LearnPack finds a step by its index in this list, so the course's own come first, each at its position.
    """
    execute = journal.connection.execute
    known: dict[str, Step] = {}
    for step in course.steps:
        if step.slug in known:
            # Two steps with one slug: everything recorded belongs to the first, as in LearnPack.
            yield "", step_head(step, StepFacts(step.slug))
            continue
        known[step.slug] = step
        yield step.slug, _step(journal, step.slug, step, visits)
    slugs = "SELECT step_slug FROM records WHERE step_slug IS NOT NULL UNION SELECT step_slug FROM adopted"
    others = dict.fromkeys(slug for slug in (*(slug for (slug,) in execute(slugs)), *visits) if slug not in known)
    documents = [(slug, _step(journal, slug, None, visits)) for slug in others if slug]
    yield from sorted(documents, key=lambda found: (str(found[1].get("position", "")).zfill(9), found[0]))


def _step(journal: Journal, slug: str, step: Step | None, visits: Mapping[str, list[int]]) -> dict[str, Any]:
    execute = journal.connection.execute
    runs = (
        "SELECT min(started_at) FROM (SELECT started_at FROM records WHERE step_slug=?1 UNION ALL"
        " SELECT started_at FROM adopted WHERE step_slug=?1 AND kind IN ('compile', 'test'))"
    )
    position = None
    if step is None:
        last = execute("SELECT max(number) FROM records WHERE step_slug=?", (slug,)).fetchone()[0]
        record = None if last is None else journal.record(last)
        if record is not None and not isinstance(record.event, (SessionStart, SessionEnd, Gap)):
            position = record.event.step.position
    facts = StepFacts(
        slug=slug,
        position=position,
        opened_at=journal.first_at(slug, "open_step"),
        completed_at=journal.first_at(slug, "complete_step"),
        first_run_at=execute(runs, (slug,)).fetchone()[0],
        visits=visits.get(slug, ()),
    )
    return step_head(step, facts, keys_of(journal, "step", slug))
