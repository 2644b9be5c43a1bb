"""What is left of a `telemetry.json` that is no JSON any more, as JSON again.

How such files come about: LearnPack truncates and rewrites the file in place at each event, several writings at a
time.  So a kill or a full disk leaves the beginning of a document, or nothing; two writings that overlap leave a
whole document with the end of a longer one behind it; a machine that lost its power leaves NUL bytes in the place of
blocks; an editor leaves a byte order mark or a comma too many.

Promised: no exception, whatever the bytes are; a value is taken whole or not at all, so nothing is invented; every
value that is complete before the damage is there.  A document, its steps and its sessions keep their complete keys;
an element of a step's list (one run) is one value: half a run is left out.  Behind a damage it goes on at the next
step, which can be found because `{"slug":` can't stand inside a text.  Everything is linear in the size.

Known to be weak: a damage that looks like JSON can't be seen.  Where two writings of different length overlapped and
the machine died in the middle of the second, a text or a number that lies on the seam is made of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .json_as_node import valid_unicode
from .learnpack_forms import LISTS

#: Values nested deeper can't be written again (orjson: 254 levels, of which the document takes a few itself).
_DEPTH = 200

#: A number of more digits is none of LearnPack's.
_LONGEST_NUMBER = 400

#: So many losses are told one by one.
_TOLD = 20

_INFINITE = float("inf")

_SPACE = re.compile(rb"[ \t\r\n]*+")
# Ranges, not what is excluded: 106 MB/s in the place of 32.
_STRING = re.compile(rb'"(?:[ !#-\[\]-\xff]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"')
_WORD = re.compile(rb'[^ \t\r\n{}\[\],:"\x00-\x1f]++')
_BEHIND_A_WORD = frozenset((b",", b"}", b"]", b" ", b"\n", b"\r", b"\t"))
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_STEP = re.compile(rb'\{[ \t\r\n]*+"slug"[ \t\r\n]*+:')
#: What a cut leaves of a text or a bare word, up to the end.
_CUT = re.compile(rb'(?:"(?:[ !#-\[\]-\xff]++|\\.)*+(?:\\u?[0-9A-Fa-f]*)?|[^ \t\r\n{}\[\],:"\x00-\x1f]*+)\Z')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LIST_KEYS = frozenset(b'"%s"' % key.encode() for key in LISTS)
_SLUG, _STEPS, _SESSIONS = b'"slug"', b'"steps"', b'"workout_session"'


def _keys(words: str) -> frozenset[bytes]:
    return frozenset(b'"%s"' % word.encode() for word in words.split())


_OF_A_DOCUMENT = _keys("steps workout_session telemetry_id tutorial_started_at last_interaction_at")
_OF_A_STEP = _keys("position files is_testeable opened_at completed_at") | _LIST_KEYS
_OF_A_RUN = _keys("source_code stdout stderr exitCode exit_code student_message ai_response starting_at ending_at")
_OF_A_SESSION = _keys("started_at ended_at")

#: Keys that never stand at a level: where one does, a brace was lost in a damage before it.  (An attempt of v5 may have
#: more keys than are known, `files` or `tests` among them.)
_NOT_IN_THE_DOCUMENT = _OF_A_STEP | _OF_A_RUN | _OF_A_SESSION
_NOT_IN_A_STEP = _OF_A_DOCUMENT | _OF_A_RUN | _OF_A_SESSION
_NOT_IN_A_SESSION = _OF_A_DOCUMENT | _OF_A_STEP | _OF_A_RUN
_NOT_IN_A_RUN = _OF_A_DOCUMENT | _OF_A_STEP - _keys("position files tests")


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A JSON document in UTF-8 (b"" where nothing of one is left), and what was lost or replaced, a line each."""

    text: bytes
    losses: tuple[str, ...]


def salvage(data: bytes) -> Salvaged:
    """Everything of a document that is complete in these bytes."""
    losses = []
    if data.startswith(_BYTE_ORDER_MARK):
        data = data[len(_BYTE_ORDER_MARK) :]
        losses.append("a byte order mark stood before it")
    kept = data.rstrip(b"\0")
    if len(kept) < len(data):
        losses.append(f"{len(data) - len(kept)} NUL bytes at its end")
    if not kept.strip():
        return Salvaged(b"", (*losses, "it is empty"))
    found = _Reader(kept)
    losses += found.read()
    text = found.text()
    if not text:
        return Salvaged(b"", (*losses, "there is nothing of a document in it"))
    text, replaced = valid_unicode(text)
    return Salvaged(text, (*losses, *replaced))


class _Torn(Exception):
    """Nothing that could stand here stands here; `at` is the offset."""

    def __init__(self, at: int) -> None:
        self.at = at


@dataclass(slots=True)
class _Part:
    """A step or a session: its complete members and elements, as they stand in the file."""

    members: dict[bytes, bytes | memoryview] = field(default_factory=dict)
    lists: dict[bytes, list[memoryview]] = field(default_factory=dict)

    def __contains__(self, key: bytes) -> bool:
        return key in self.members or key in self.lists

    @property
    def is_step(self) -> bool:
        return _SLUG in self.members and any(key in self for key in _OF_A_STEP)

    def pieces(self) -> Iterator[bytes | memoryview]:
        yield b"{"
        comma = b""
        for key, value in self.members.items():
            yield comma + key + b":"
            yield value
            comma = b","
        for key, elements in self.lists.items():
            yield comma + key + b":["
            for index, element in enumerate(elements):
                if index:
                    yield b","
                yield element
            yield b"]"
            comma = b","
        yield b"}"


class _Reader:
    """Reads on from `at`; what is complete is in `head`, `steps` and `sessions` as soon as it is."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.view = memoryview(data)
        self.at = 0
        self.where = "its beginning"
        self.head = _Part()
        self.steps: list[_Part | memoryview] | None = None
        self.sessions: list[_Part | memoryview] | None = None
        #: What was found behind a damage: whole steps only, and it is not known at which index they stood.
        self.found: list[_Part] | None = None
        self.gap: tuple[int, str] | None = None
        self.losses: list[str] = []
        self.lost = 0

    def read(self) -> list[str]:
        """Reads everything there is; returns what was lost, a line each."""
        begin = self._document
        searched = 0
        while True:
            try:
                begin()
            except _Torn as torn:
                self.gap = self.gap or (torn.at, self.where)
                match = _STEP.search(self.data, max(torn.at, searched))
                if match is None:
                    break
                searched = match.end()
                self.at = match.start()
                self.found = self.found or []
                begin = self._steps_behind_a_damage
            else:
                break
        self._tell_the_end()
        self._unite_found()
        return self.losses

    def text(self) -> bytes:
        for key, parts in ((_STEPS, self.steps), (_SESSIONS, self.sessions)):
            if parts is not None:
                self.head.members[key] = b"".join(_listed(parts))
        return b"".join(self.head.pieces()) if self.head.members else b""

    def _lose(self, words: str) -> None:
        self.lost += 1
        if self.lost <= _TOLD:
            self.losses.append(words)

    def _tell_the_end(self) -> None:
        if self.lost > _TOLD:
            self.losses.append(f"and {self.lost - _TOLD} more of this kind")
        if self.gap is not None:
            at, where = self.gap
            if _CUT.match(self.data, at):
                self.losses.append(f"it ends in the middle of {where}")
            else:
                self.losses.append(f"the last {len(self.data) - at} bytes, from {where} on, can't be read")
        elif self.data[self.at :].strip(b" \t\r\n\0"):
            self.losses.append(f"{len(self.data) - self.at} bytes of another writing follow its end")

    def _close_gap(self, at: int) -> None:
        if self.gap is not None:
            self._lose(f"bytes {self.gap[0]} to {at}, in {self.gap[1]}, can't be read")
            self.gap = None

    def _unite_found(self) -> None:
        """A step that was found behind a damage may be one of which a part stood before it: that takes what is new."""
        if self.found is None:
            return
        self.steps = self.steps or []
        known = {bytes(part.members[_SLUG]): part for part in self.steps if isinstance(part, _Part) and _SLUG in part}
        seen: dict[tuple[bytes, bytes], set[bytes]] = {}
        for part in self.found:
            slug = bytes(part.members[_SLUG])
            if slug not in known:
                known[slug] = part
                self.steps.append(part)
                continue
            first = known[slug]
            first.members = part.members | first.members
            for key, elements in part.lists.items():
                own = first.lists.setdefault(key, [])
                if (slug, key) not in seen:
                    seen[slug, key] = {bytes(element) for element in own}
                there = seen[slug, key]
                for element in elements:
                    if bytes(element) not in there:
                        there.add(bytes(element))
                        own.append(element)

    # --- the levels of a document ---

    def _document(self) -> None:
        self._expect(b"{")
        self._members_of_the_document()

    def _members_of_the_document(self) -> None:
        for key in self._members(self.head, _NOT_IN_THE_DOCUMENT):
            if key == _STEPS and self._peek() == b"[":
                self.head.members[key] = b""  # text() fills it; here it says that the key was there
                self.steps = []
                self._elements("steps", self.steps, self._step)
            elif key == _SESSIONS and self._peek() == b"[":
                self.head.members[key] = b""
                self.sessions = []
                self._elements("workout_session", self.sessions, self._session)
            else:
                self._keep(self.head, key)

    def _steps_behind_a_damage(self) -> None:
        assert self.found is not None
        for _ in self._items(b"]"):
            self._found_step(self.found)
        self.where = "what follows steps"
        self._members_of_the_document()

    def _found_step(self, found: list[_Part]) -> None:
        """An object that begins with a slug.  Raises _Torn when it is no step: then this is no list of steps."""
        start = self.at
        part = _Part()
        self.where = "a step"
        try:
            self._expect(b"{")
            self._step(part)
            if not part.is_step:
                raise _Torn(self.at)
        finally:
            if part.is_step:
                self._close_gap(start)
                found.append(part)

    def _elements(self, name: str, parts: list[_Part | memoryview], read: Callable[[_Part], None]) -> None:
        """A list whose objects keep what is complete of them."""
        self._expect(b"[")
        for _ in self._items(b"]"):
            self.where = f"{name}[{len(parts)}]"
            if self._peek() != b"{":
                self._keep_element(parts)
                continue
            part = _Part()
            try:
                self._expect(b"{")
                read(part)
            except _Torn:
                if part.members or part.lists:
                    parts.append(part)
                raise
            parts.append(part)
        self.where = f"what follows {name}"

    def _step(self, part: _Part) -> None:
        where = self.where
        for key in self._members(part, _NOT_IN_A_STEP):
            if key == _SLUG:
                self._keep(part, key)
                where = f"{where} {bytes(part.members.get(key, b''))[:60].decode('utf-8', 'replace')}"
                self.where = where
            elif key in _LIST_KEYS and self._peek() not in (b"[", b"{", b"n"):
                raise _Torn(self.at)
            elif key in _LIST_KEYS and self._peek() == b"[":
                elements: list[memoryview] = []
                part.lists[key] = elements
                self._expect(b"[")
                for _ in self._items(b"]"):
                    self.where = f"{where}: {key[1:-1].decode()}[{len(elements)}]"
                    self._run(elements)
                self.where = where
            else:
                self._keep(part, key)

    def _run(self, elements: list[memoryview]) -> None:
        """An element of a step's list: an object, whole or not at all."""
        start = self._start()
        part = _Part()
        if self._peek() == b"{":
            self.at += 1
            lost = self.lost
            for key in self._members(part, _NOT_IN_A_RUN, forgiving=False):
                self._keep(part, key)
            if self.lost == lost:
                elements.append(self.view[start : self.at])
        else:
            self._value()
            self._lose(f"{self.where} is no object")

    def _session(self, part: _Part) -> None:
        for key in self._members(part, _NOT_IN_A_SESSION):
            self._keep(part, key)

    # --- values ---

    def _keep(self, part: _Part, key: bytes) -> None:
        start = self._start()
        if self._value():
            part.members[key] = self.view[start : self.at]
        else:
            self._lose(f"{key[:60].decode('utf-8', 'replace')} in {self.where} is no value of JSON")

    def _keep_element(self, elements: list[_Part | memoryview]) -> None:
        start = self._start()
        if self._value():
            elements.append(self.view[start : self.at])
        else:
            self._lose(f"{self.where} is no value of JSON")

    def _value(self) -> bool:
        """Passes one whole value; False where it is one that can't be kept (too deep, NaN)."""
        closing = bytearray()
        fits = True
        while True:
            mark = self._peek()
            if mark in (b"{", b"["):
                self.at += 1
                closing += b"}" if mark == b"{" else b"]"
                fits = fits and len(closing) <= _DEPTH
                if self._peek() != closing[-1:]:
                    if mark == b"{":
                        self._key()
                    continue
                self.at += 1
                del closing[-1:]
            elif mark == b'"':
                self._text()
            else:
                fits = self._word() and fits
            while closing:
                mark = self._peek()
                self.at += 1
                if mark == b",":
                    if closing[-1:] == b"}":
                        self._key()
                    break
                if mark != closing[-1:]:
                    raise _Torn(self.at - 1)
                del closing[-1:]
            else:
                return fits

    def _members(self, part: _Part, foreign: frozenset[bytes], *, forgiving: bool = True) -> Iterator[bytes]:
        """The keys up to the closing brace; whoever asks takes the value before the next one."""
        for _ in self._items(b"}", forgiving=forgiving):
            start = self.at
            key = self._key()
            if key in part or key in foreign:
                raise _Torn(start)  # JSON.stringify writes no key twice: this is a seam, too
            yield key

    def _items(self, closing: bytes, *, forgiving: bool = True) -> Iterator[None]:
        """Yields before each item up to the closing mark.  A comma too many may be forgiven: editors leave them."""
        if self._peek() == closing:
            self.at += 1
            return
        while True:
            while forgiving and self._peek() == b",":
                self.at += 1
            if forgiving and self._peek() == closing:
                break
            yield
            if self._peek() == closing:
                break
            self._expect(b",")
        self.at += 1

    def _key(self) -> bytes:
        key = self._text()
        self._expect(b":")
        return key

    def _text(self) -> bytes:
        match = _STRING.match(self.data, self._start())
        if match is None:
            raise _Torn(self.at)
        self.at = match.end()
        return match[0]

    def _word(self) -> bool:
        """A number, true, false or null.  One that touches the end, or a damage, may have gone on behind it."""
        match = _WORD.match(self.data, self._start())
        if match is None or self.data[match.end() : match.end() + 1] not in _BEHIND_A_WORD:
            raise _Torn(self.at)
        self.at = match.end()
        word = match[0]
        if word in (b"true", b"false", b"null"):
            return True
        return len(word) <= _LONGEST_NUMBER and _NUMBER.fullmatch(word) is not None and abs(float(word)) != _INFINITE

    def _expect(self, mark: bytes) -> None:
        if self._peek() != mark:
            raise _Torn(self.at)
        self.at += 1

    def _peek(self) -> bytes:
        at = self._start()
        return self.data[at : at + 1]

    def _start(self) -> int:
        """Where the next thing begins."""
        if self.at < len(self.data) and self.data[self.at] > 32:
            return self.at  # what JSON.stringify writes has no space
        match = _SPACE.match(self.data, self.at)
        assert match is not None
        self.at = match.end()
        return self.at


def _listed(parts: list[_Part | memoryview]) -> Iterator[bytes | memoryview]:
    yield b"["
    for index, part in enumerate(parts):
        if index:
            yield b","
        if isinstance(part, _Part):
            yield from part.pieces()
        else:
            yield part
    yield b"]"
