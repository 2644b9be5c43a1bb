"""What mending a document is made of: reading odd times and texts, and saying in a line what was changed.

`agent.core.repair` puts it together; this file knows one attempt, one time, one text.  Nothing here invents: what is
no time is left out, a text is written in another form only where both forms can be told apart for good.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from .learnpack_forms import OUTPUTS, decoded, encoded, milliseconds, read_attempt

#: A time in milliseconds lies between September 2001 and November 2286; a thousandth of that is one in seconds.
FIRST_MS, LAST_MS = 10**12, 10**13

_ATTEMPT_TIMES = ("started_at", "starting_at", "ended_at", "ending_at")
_EXIT_CODES = ("exit_code", "exitCode")

#: A text of this many characters of a document is shown in a line.
_SHOWN = 60


def shown(value: object) -> str:
    """A value for a line on a terminal: short, quoted where it is a text, without control characters."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: _SHOWN + 1])
    text = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    return f'"{text}"' if isinstance(value, str) else text


class Changes:
    """The lines that say what was changed; equal changes of the elements of one list become one line."""

    def __init__(self) -> None:
        self._order: dict[tuple[str, str, str], list[int]] = {}

    def add(self, place: str, words: str) -> None:
        """`place` is "" for the document itself."""
        self._order[place, "", words] = []

    def add_element(self, place: str, name: str, index: int, words: str) -> None:
        self._order.setdefault((place, name, words), []).append(index)

    def __bool__(self) -> bool:
        return bool(self._order)

    def lines(self) -> tuple[str, ...]:
        lines = []
        for (place, name, words), indexes in self._order.items():
            which = f"{name}[{indexes[0]}]" if len(indexes) == 1 else f"{len(indexes)} {name}" if indexes else ""
            lines.append(": ".join(filter(None, (place, which, words))))
        return tuple(lines)


def time_of(value: object) -> int | None:
    """A time in milliseconds: a number of milliseconds or (where only that is plausible) of seconds, as a number or
    as text, or an ISO text; None for everything else."""
    number: float | None = milliseconds(value) if isinstance(value, str) else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    if number is None:
        return None
    if FIRST_MS <= number < LAST_MS:
        return int(number)
    if FIRST_MS <= number * 1000 < LAST_MS:
        return round(number * 1000)
    return None


def time_words(name: str, value: Any, at: int | None) -> str | None:
    """How a time was changed, None where it was not."""
    if type(value) is int and value == at:
        return None
    if at is None:
        return f"{name}: {shown(value)} is no time: left out"
    if isinstance(value, str):
        return f"{name}: {'text' if value.isdigit() else 'ISO time'} → milliseconds"
    # A float of milliseconds lost its fraction only.
    return f"{name}: {'fraction' if at == value // 1 else 'seconds'} → milliseconds"


def mended_times(keys: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """Brings the times of these names into milliseconds, in place; what is none goes.  Returns what was changed."""
    words = []
    for name in names:
        if name in keys:
            at = time_of(keys[name])
            told = time_words(name, keys[name], at)
            if told is not None:
                words.append(told)
            if at is None:
                del keys[name]
            else:
                keys[name] = at
    return words


def mended_attempt(raw: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], list[str]]:
    """One element of a step's list in the one form (see `read_attempt`), and what was changed, in words.

    LearnPack's other names (`exitCode`, `starting_at`) stay beside the one form's, as in the agent's own document.
    """
    prepared = dict(raw)
    words = mended_times(prepared, _ATTEMPT_TIMES)
    if kind in ("compile", "test"):
        words += _mended_exit_codes(prepared)
    texts = {name: prepared.pop(name) for name in OUTPUTS if isinstance(prepared.get(name), str)}
    attempt = read_attempt(prepared, kind)
    words += _renamed(prepared, attempt)
    for name, text in texts.items():
        attempt[name], told = _in_base64(text, ours="event_id" in raw)
        if told is not None:
            words.append(f"{name}: {told}")
    if attempt.get("ended_at", LAST_MS) < attempt.get("started_at", 0):
        attempt["ended_at"] = attempt["started_at"]
        words.append("ended_at: before started_at → the same")
    return attempt, words


def _mended_exit_codes(prepared: dict[str, Any]) -> list[str]:
    """`"0"` and `0.0` are the number 0; what is no number at all says nothing."""
    words = []
    for name in _EXIT_CODES:
        code = prepared.get(name)
        if code is None or type(code) is int:
            continue
        is_number = isinstance(code, float) and code.is_integer() and abs(code) < 1 << 32
        is_text = isinstance(code, str) and re.fullmatch(r"-?[0-9]{1,9}", code) is not None
        number = int(code) if is_number or is_text else None
        words.append(f"{name}: {shown(code)} → {'null' if number is None else number}")
        prepared[name] = number
    return words


def _renamed(prepared: Mapping[str, Any], attempt: Mapping[str, Any]) -> list[str]:
    """What `read_attempt` did."""
    words = []
    for new, old in (("started_at", "starting_at"), ("ended_at", "ending_at")):
        if new in attempt and new not in prepared:
            other = "ended_at" if new == "started_at" else "started_at"
            words.append(f"{old} → {new}" if old in prepared else f"{new}: missing → that of {other}")
    if "exit_code" in attempt and attempt["exit_code"] != prepared.get("exit_code", ...):
        words.append("exitCode → exit_code" if type(prepared.get("exitCode")) is int else "exit_code: missing → null")
    return words


def _in_base64(text: str, *, ours: bool) -> tuple[str, str | None]:
    """The text as base64 of UTF-8, and what was changed.

    A percent-encoded text whose plain form looks percent-encoded itself stays as it is: read once more, it would
    become another one.
    """
    try:
        data = b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or a text that is not ASCII
        in_base64 = encoded(text)
        if not ours and decoded(in_base64) != text:  # it looks percent-encoded: only so is it read as it is
            in_base64 = encoded(text.replace("%", "%25"))
        return in_base64, "plain text → base64"
    if ours or b"%" not in data:
        return text, None
    plain = decoded(text)
    in_base64 = encoded(plain)
    if in_base64 == text or plain == text or decoded(in_base64) != plain:
        return text, None
    return in_base64, "percent-encoded → UTF-8"
