"""The forms in which LearnPack writes an attempt, a step and a document: read all of them, write one.

LearnPack's CLI, its plugins and its current UI ("v5") disagree about field names and about base64
(`starting_at`/`started_at`, `exitCode`/`exit_code`, base64 of the bytes or of the percent-encoded text).  What this
file returns always has `started_at`, `ended_at` and `exit_code`, numbers in milliseconds, and base64 of UTF-8 bytes;
LearnPack's other keys stay beside them as they were.

Known to be weak: the two base64 rules can't always be told apart.  A text without a space or a line end whose every
`%` begins a valid escape is taken for a percent-encoded one, so a program that printed exactly `a%20b` reads `a b`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

#: The texts of an attempt that are base64 in the document.
OUTPUTS = ("source_code", "stdout", "stderr")

#: The lists of a step, and the kind under which one element is stored.
LISTS: Mapping[str, str] = {
    "compilations": "compile",
    "tests": "test",
    "ai_interactions": "ai_interaction",
    "quiz_submissions": "quiz_submission",
}

#: Personal data that v5 writes and that nobody who reads the document needs.
PRIVATE = frozenset({"fullname", "email", "token"})

#: What a run's end may differ between LearnPack's record and ours.  Measured: at most 3 ms for builds and tests that
#: the launcher brackets; an HTML or React build is only known from the files that it leaves behind.
SAME_END_MS = 2500

#: How far apart two records of one run may lie without overlapping: an HTML build lasts 0 ms for LearnPack.
SAME_START_SLACK_MS = 500

#: How far apart LearnPack's and our start of one session may lie: LearnPack notes it 0.8 to 1.5 s after its process
#: began, later on a loaded machine.
SAME_SESSION_MS = 15_000

#: JavaScript's toISOString, and what else the ISO forms of a moment allow.
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,3})\d*)?(?:Z|([+-])(\d\d):?(\d\d))?", re.IGNORECASE
)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def encoded(text: str) -> str:
    """Base64 of the text's UTF-8 bytes.  The text must be valid Unicode."""
    return b64encode(text.encode()).decode("ascii")


def encoded_size(text: str) -> int:
    """The number of characters that `encoded` returns, without making them."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size + 2) // 3 * 4


def decoded(text: str, *, ours: bool = False) -> str:
    """The text behind a base64 field, by whichever rule it was encoded; `ours` says that it is base64 of UTF-8.

    What is no base64, or no UTF-8 inside, is returned as it is: better shown than lost.
    """
    try:
        data = b64decode(text, validate=True)
        plain = data.decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are both ValueErrors; so is a non-ASCII text
        return text
    if ours or b"%" not in data or b" " in data or b"\n" in data or not data.isascii():
        return plain
    if data.count(b"%") != len(_ESCAPE.findall(data)):
        return plain
    try:
        return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), data).decode()
    except UnicodeDecodeError:  # encodeURIComponent never makes this: it was a plain text after all
        return plain


def milliseconds(value: object) -> int | None:
    """A time as LearnPack writes it (a number, a number as text, or the ISO text of its HTML plugin); else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return int(value) if abs(value) < 1e15 else None
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]{1,15}", value):
            return int(value)
        match = _ISO.fullmatch(value)
        return _since_epoch(match) if match is not None else None
    return None


def _since_epoch(match: re.Match[str]) -> int | None:
    """Milliseconds of an _ISO match, None if there is no such moment; without a zone it is UTC.  (`datetime` reads
    clocks, so the core has none.)"""
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        return None
    # Years that begin in March put the leap day last: the days before a month are then one formula.
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469
    offset = 0 if match[8] is None else (60 * int(match[9]) + int(match[10])) * (1 if match[8] == "+" else -1)
    seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second
    return seconds * 1000 + int((match[7] or "0").ljust(3, "0"))


def _first_time(raw: Mapping[str, Any], *names: str) -> int | None:
    return next((at for at in (milliseconds(raw.get(name)) for name in names) if at is not None), None)


def read_attempt(raw: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """One element of a step's list, in the one form.  `kind` is a value of LISTS.

    `started_at` and `ended_at` are there when any of LearnPack's names for them held a time.  A compile or test also
    gets an `exit_code` (None where LearnPack had none).  Texts are base64 of UTF-8 again; other keys are kept.
    """
    attempt = dict(raw)
    started = _first_time(raw, "started_at", "starting_at")
    ended = _first_time(raw, "ended_at", "ending_at")
    for name, at in (("started_at", started), ("ended_at", ended)):
        attempt.pop(name, None)
        if at is not None:
            attempt[name] = at
    if kind in ("compile", "test"):
        codes = (raw.get("exit_code"), raw.get("exitCode"))
        attempt["exit_code"] = next((code for code in codes if type(code) is int), None)
        # The receiver's metrics sort by the start and take the latest end.
        if started is None and ended is not None:
            attempt["started_at"] = ended
        elif ended is None and started is not None:
            attempt["ended_at"] = started
    ours = "event_id" in raw
    # An AI interaction's messages are plain text in LearnPack's CLI; only its source is treated like a run's.
    for name in OUTPUTS:
        if isinstance(raw.get(name), str):
            attempt[name] = _in_one_form(raw[name], ours=ours)
    return attempt


def _in_one_form(text: str, *, ours: bool) -> str:
    """Base64 of UTF-8 bytes, whatever it was; base64 of other bytes stays as it is."""
    plain = decoded(text, ours=ours)
    return text if plain == text and _is_base64(text) else encoded(plain)


def _is_base64(text: str) -> bool:
    try:
        b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def outputs_size(attempt: Mapping[str, Any]) -> int:
    """How many characters of base64 an attempt holds."""
    return sum(len(attempt[name]) for name in OUTPUTS if isinstance(attempt.get(name), str))


def same_attempt(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """One attempt that was read twice: nothing that either holds is lost, the first reading wins.

    It wins because texts that were written back by the agent are decoded once already; a copy whose outputs the
    agent had left out never hides the full one.
    """
    if old.get("omitted") and not new.get("omitted"):
        old, new = new, old
    merged = {**new, **_present(old)}
    if not old.get("omitted"):
        merged.pop("omitted", None)
    return merged


#: How a key is united when LearnPack's keys are read again; every other key: the newest value that is not empty.
_EARLIEST = frozenset({"opened_at", "completed_at", "tutorial_started_at", "started_at"})
_LATEST = frozenset({"last_interaction_at", "ended_at"})


def same_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of one step, session or document that were read twice; a list never gets shorter."""
    merged = {**old, **_present(new)}
    for key in old.keys() & new.keys():
        before, after = old[key], new[key]
        if key in _EARLIEST | _LATEST:
            times = [at for at in (milliseconds(before), milliseconds(after)) if at]
            if times:
                merged[key] = min(times) if key in _EARLIEST else max(times)
        elif key == "sessions" and isinstance(before, list):
            merged[key] = united_durations(before, after)
        elif isinstance(before, list) and (not isinstance(after, list) or len(after) < len(before)):
            merged[key] = before
    return merged


def united_durations(ours: Sequence[Any], theirs: object) -> list[Any]:
    """Two lists of the durations (ms) of the same visits as one: as long as the longer one, the larger value at each
    place.  What is no number gives way to one that is."""
    others = theirs if isinstance(theirs, list) else []
    return [max(pair, key=_duration) for pair in zip_longest(ours, others)]


def _duration(value: Any) -> float:
    return value if type(value) in (int, float) else -1


def _present(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None and value != ""}


@dataclass(frozen=True, slots=True)
class Span:
    """When something was; `key` is whatever the caller knows it by, `ended_at` None where the end is not known."""

    key: int
    started_at: int
    ended_at: int | None


def pairs(
    ours: Sequence[Span], theirs: Sequence[Span], may_be: Callable[[Span, Span], bool] = lambda one, other: True
) -> dict[int, int]:
    """Which of our runs is which of LearnPack's, one to one: our key → their key.

    Both are of one step and one kind; LearnPack's always have an end.  Two records are of the same run when their ends
    lie within SAME_END_MS and they overlap (or, where our end is not known, when their starts lie within SAME_END_MS),
    and `may_be` (one of ours, one of theirs) agrees; the nearest are taken first.
    """
    # Grouped by time, so that one run is compared with its neighbours only.
    by_end, by_start = defaultdict(list), defaultdict(list)
    for span in theirs:
        by_start[span.started_at // SAME_END_MS].append(span)
        if span.ended_at is not None:
            by_end[span.ended_at // SAME_END_MS].append(span)
    candidates = []
    for one in ours:
        near, at = (by_start, one.started_at) if one.ended_at is None else (by_end, one.ended_at)
        for group in (at // SAME_END_MS - 1, at // SAME_END_MS, at // SAME_END_MS + 1):
            for other in near.get(group, ()):
                distance = _distance(one, other)
                if distance <= SAME_END_MS and may_be(one, other):
                    candidates.append((distance, one.key, other.key))
    return _one_to_one(candidates)


def _distance(one: Span, other: Span) -> int:
    """How far two records are from being of the same run; more than SAME_END_MS when they don't overlap."""
    if one.ended_at is None or other.ended_at is None:
        return abs(one.started_at - other.started_at)
    if max(one.started_at, other.started_at) > min(one.ended_at, other.ended_at) + SAME_START_SLACK_MS:
        return SAME_END_MS + 1
    return abs(one.ended_at - other.ended_at)


def _one_to_one(candidates: list[tuple[int, int, int]]) -> dict[int, int]:
    chosen: dict[int, int] = {}
    taken = set()
    for _, one, other in sorted(candidates):
        if one not in chosen and other not in taken:
            chosen[one] = other
            taken.add(other)
    return chosen


def session_pairs(ours: Sequence[Span], theirs: Sequence[Span]) -> dict[int, int]:
    """Which of our sessions is which of LearnPack's: their starts lie within SAME_SESSION_MS, or one holds the other's
    start; one to one, the nearest first.

    LearnPack never closes a session in which nothing was done, so one of its sessions can seem to hold several of
    ours; only the nearest is taken for the same.
    """

    def holds(one: Span, at: int) -> bool:
        return one.started_at <= at and (one.ended_at is None or at <= one.ended_at)

    return _one_to_one(
        [
            (abs(one.started_at - other.started_at), one.key, other.key)
            for one in ours
            for other in theirs
            if abs(one.started_at - other.started_at) <= SAME_SESSION_MS
            or holds(one, other.started_at)
            or holds(other, one.started_at)
        ]
    )
