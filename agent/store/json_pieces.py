"""A JSON document taken apart without holding it: LearnPack's telemetry.json can be hundreds of megabytes.

`take_apart` returns the document without the elements of some lists, and where in the file each of those elements
lies.  The rest is left to a real JSON parser: the small remainder and each element are parsed by the caller, so
everything that is used was checked.  The file is read, not mapped: LearnPack truncates it in place, and touching a
truncated map kills the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

_TOKEN = re.compile(
    rb'[ \t\r\n]*+(?:([{}\[\],:])|("[^"\\]*+(?:\\.[^"\\]*+)*+")|([^ \t\r\n{}\[\],:"]++))',
    re.DOTALL,
)
_FIRST_READ = 1 << 16

#: A single text or number of more than this is no document of LearnPack's.
_LONGEST_TOKEN = 1 << 26


class Unreadable(ValueError):
    """The text is no JSON document of the expected form: torn, empty or something else.  One line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One element of a list of a step: the step's index, the list's key, and the bytes from `start` to `end`."""

    step: int
    key: str
    start: int
    end: int


class _Tokens:
    """JSON's tokens one after the other; `read(n)` gives the next n bytes or fewer, b"" at the end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._place = 0
        self._base = 0  # the offset in the file of the buffer's first byte
        self._over = False
        self.end = 0  # the offset behind the last token

    def next(self) -> bytes:
        while True:
            match = _TOKEN.match(self._buffer, self._place)
            # A number that touches the end of the buffer may go on behind it.
            if match is not None and (self._over or match[3] is None or match.end() < len(self._buffer)):
                self._place = match.end()
                self.end = self._base + self._place
                return match[match.lastindex or 0]
            if self._over:
                raise Unreadable("it ends in the middle" if self.end or self._buffer else "it is empty")
            self._fill()

    def _fill(self) -> None:
        # As much again as is left: a long text is searched a few times, not once per read.
        rest = self._buffer[self._place :]
        if len(rest) > _LONGEST_TOKEN:
            raise Unreadable("it holds a value of more than 64 MiB")
        more = self._read(max(_FIRST_READ, len(rest)))
        self._over = not more
        self._base += self._place
        self._place = 0
        self._buffer = rest + more

    def at_end(self) -> bool:
        while not self._over:
            self._fill()
        return not self._buffer[self._place :].strip()


def take_apart(read: Callable[[int], bytes], lists: Collection[str]) -> tuple[bytes, list[Piece]]:
    """The document with `steps[*].<key>` emptied for every key in `lists`, and where the elements of those lie.

    `read(n)` reads on in the file, as `io.RawIOBase.read` does.  Raises Unreadable; OSError comes through.
    """
    tokens = _Tokens(read)
    rest: list[bytes] = []
    pieces: list[Piece] = []
    wanted = {b'"%s"' % key.encode(): key for key in lists}

    def copy(token: bytes) -> None:
        """One whole value, which begins with this token, into the rest."""
        rest.append(token)
        depth = int(token in (b"{", b"["))
        while depth:
            token = tokens.next()
            rest.append(token)
            depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))

    def skip(token: bytes) -> None:
        depth = int(token in (b"{", b"["))
        while depth:
            token = tokens.next()
            depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))

    def each(close: bytes, one: Callable[[bytes], None]) -> None:
        """Calls `one` with the first token of each item up to the closing token; the items take their own tokens."""
        token = tokens.next()
        while token != close:
            one(token)
            token = tokens.next()
            if token == b",":
                rest.append(token)
                token = tokens.next()
            elif token != close:
                raise Unreadable("a comma is missing")
        rest.append(close)

    def member(special: Callable[[bytes, bytes], bool]) -> Callable[[bytes], None]:
        """An item of an object: its key, and its value unless `special` takes that."""

        def one(key: bytes) -> None:
            rest.append(key)
            rest.append(tokens.next())
            token = tokens.next()
            if not special(key, token):
                copy(token)

        return one

    def list_of_step(key: bytes, token: bytes) -> bool:
        if token != b"[" or key not in wanted:
            return False
        rest.append(token)
        before = len(rest)

        def element(token: bytes) -> None:
            start = tokens.end - len(token)
            skip(token)
            pieces.append(Piece(count, wanted[key], start, tokens.end))

        each(b"]", element)
        rest[before:] = [b"]"]
        return True

    count = -1

    def step(token: bytes) -> None:
        nonlocal count
        count += 1
        if token != b"{":
            copy(token)
            return
        rest.append(token)
        each(b"}", member(list_of_step))

    def steps(key: bytes, token: bytes) -> bool:
        if token != b"[" or key != b'"steps"':
            return False
        rest.append(token)
        each(b"]", step)
        return True

    token = tokens.next()
    if token != b"{":
        raise Unreadable("it is no object")
    rest.append(token)
    each(b"}", member(steps))
    if not tokens.at_end():
        raise Unreadable("something follows its end")
    return b"".join(rest), pieces
