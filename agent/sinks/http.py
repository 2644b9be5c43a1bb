"""One server, as a sink talks to it: POST a body, get an `Answer`, whatever the server does.

Promised: the token goes to this URL's host and nowhere else (redirects are not followed, no .netrc is read), and not
without TLS unless the admin says so; TLS is always verified, by the system's certificates, those of `certifi` and the
admin's own CA; a course's URL reaches no private address (checked at the address that is connected to, so a name that
changes its mind doesn't help); an answer takes `within_s` at most, from the look-up of the name to the last byte, and
less than a megabyte of memory, however slow, endless or compressed it is.  No word of an Answer holds the URL's path,
its query, the token or a proxy's password.

The socket is ours (`agent.sinks.way`), what comes back is read by the standard library's HTTPResponse.  So a post of
2 KB takes 0.2 ms where `requests` takes 1.2, and 10 MB less of memory; every wait is given what is left of its time.

Known to be weak: secrets in other headers than Authorization go without TLS too, if the admin's URL is http.  A large
body that a server has refused half-way is sent on until the server hangs up or stops reading.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO, cast
from urllib.parse import quote, urlsplit

from .. import __version__
from ..core.delivery import Outcome, outcome_of
from ..core.urls import problem_of
from .way import (
    HEAD_BYTES,
    READ_S,
    Deadline,
    Incoming,
    NoAnswerError,
    Resolve,
    as_ascii,
    is_loopback,
    proxy_for,
    reached,
    reached_proxy,
    refuse_private,
    secured,
    trust,
    tunnel,
    words_of,
)

#: All of an answer, from the name's look-up to the last byte that is read.
LONGEST_S = 60.0
#: So much of an answer is looked at.
ANSWER_BYTES = 64 << 10
#: So much is read for it: an answer in chunks of one byte is six times as long.
_READ_BYTES = 8 * ANSWER_BYTES
#: A body goes in blocks of this size, so that a file is never held whole.
_BLOCK = 64 << 10


@dataclass(frozen=True, slots=True, repr=False)
class Destination:
    """`url`: http or https, see `problem_of`.  `authorization` is the value of that header, None for no credentials.
    `private`: whether addresses that are not public may be reached.  `ca_file`: certificates that are trusted besides
    the usual ones.  `proxy`: None for the environment's, "" for none.  `plain_credentials`: whether `authorization` may
    leave this machine without TLS."""

    url: str
    authorization: str | None = None
    private: bool = False
    ca_file: str | None = None
    proxy: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    plain_credentials: bool = False

    @property
    def host(self) -> str:
        """The host's name as the admin sees it: all that is ever said of a URL."""
        with suppress(ValueError):
            return urlsplit(self.url).hostname or "?"
        return "?"

    def __repr__(self) -> str:
        return f"Destination({self.host})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.  `status` is None where nothing did; `body` is its beginning, without compression; `asked_ms` is
    the server's Retry-After."""

    status: int | None
    words: str
    outcome: Outcome
    body: bytes = b""
    asked_ms: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class _Connection:
    """`request` is the first line, `lines` are the headers of each post by their names in lower case.  `withholds`: no
    credentials may be sent over it."""

    socket: socket.socket
    request: bytes
    lines: dict[str, bytes]
    withholds: bool


class Server:
    """The connection to one destination; it is kept open between two `post`s and belongs to one thread."""

    def __init__(self, destination: Destination, resolve: Resolve = socket.getaddrinfo) -> None:
        """Nothing is connected, read or looked up before the first `post`."""
        self.destination = destination
        self._resolve = resolve
        self._connection: _Connection | None = None

    def post(self, body: bytes | BinaryIO, headers: Mapping[str, str], within_s: float = LONGEST_S) -> Answer:
        """Send it and read the answer.  Raises nothing.

        A file is sent from its beginning to its end, which must not change meanwhile.  `headers` are added to the
        destination's and replace those of the same name; what belongs to the connection (Host, Content-Length, …) is
        ours alone.
        """
        until = Deadline(within_s)
        try:
            return self._post(body, headers, until)
        except NoAnswerError as error:
            self.close()
            return Answer(error.status, str(error), error.outcome)
        except (HTTPException, OSError, EOFError, ValueError) as error:
            self.close()
            words = f"no whole answer within {within_s:g} s" if until.is_over() else words_of(error)
            return Answer(None, words, Outcome.RETRY)

    def close(self) -> None:
        """Let go of the connection; the next `post` makes another."""
        if self._connection is not None:
            self._connection.socket.close()
            self._connection = None

    def _post(self, body: bytes | BinaryIO, headers: Mapping[str, str], until: Deadline) -> Answer:
        if self._connection is not None and not _is_silent(self._connection.socket):
            self.close()
        if self._connection is None:
            self._connection = self._connect(until)
        connection = self._connection
        lines = {**connection.lines, **_lines(headers, connection.withholds)}
        length = len(body) if isinstance(body, bytes) else body.seek(0, os.SEEK_END)
        head = b"%s%sContent-Length: %d\r\n\r\n" % (connection.request, b"".join(lines.values()), length)
        broken: OSError | None = None
        try:
            _send(connection.socket, head, body, length, until)
        except OSError as error:  # it may have answered before it had read everything (413), and hung up
            broken = error
        try:
            response, answer, is_whole = _read_answer(connection.socket, until)
        except (HTTPException, OSError, EOFError):
            if broken is not None:
                raise broken from None
            raise
        if broken is not None or not is_whole:
            self.close()
        return _judged(response, answer, connection.withholds)

    def _connect(self, until: Deadline) -> _Connection:
        """Raises NoAnswerError where somebody must change something, OSError and the like where it fails."""
        destination, resolve = self.destination, self._resolve
        problem = problem_of(destination.url)
        if problem is not None:
            raise NoAnswerError(problem, Outcome.WAIT)
        parts = urlsplit(destination.url)
        host = as_ascii(parts.hostname or "")
        is_secure = parts.scheme == "https"
        port = parts.port or (443 if is_secure else 80)
        name = f"[{host}]" if ":" in host else host
        context = trust(destination.ca_file) if is_secure else None
        proxy = proxy_for(destination.proxy, parts.scheme, host, port)
        if proxy is None:
            connection = reached(resolve, host, port, destination.private, until)
        else:
            if not destination.private:
                refuse_private(resolve, host, port, until)
            connection = reached_proxy(resolve, proxy, destination.ca_file, until)
        try:
            stays_here = proxy is None and is_loopback(connection)
            if context is not None:
                if proxy is not None:
                    tunnel(connection, f"{name}:{port}", proxy, _HEADERS["User-Agent"], until)
                connection = secured(connection, context, host, until)
            withholds = not (is_secure or stays_here or destination.plain_credentials)
            authority = name if parts.port is None else f"{name}:{port}"
            lines = {"host": f"Host: {authority}\r\n".encode("latin-1"), **_lines(_HEADERS)}
            lines |= _lines(destination.headers, withholds)
            if destination.authorization is not None:
                lines |= _lines({"Authorization": destination.authorization}, withholds)
            target = _written(parts.path or "/") + (f"?{_written(parts.query)}" if parts.query else "")
            if proxy is not None and not is_secure:
                target = f"http://{authority}{target}"
                lines["proxy-authorization"] = proxy.authorization
        except BaseException:
            connection.close()
            raise
        return _Connection(connection, f"POST {target} HTTP/1.1\r\n".encode("latin-1"), lines, withholds)


def _is_silent(connection: socket.socket) -> bool:
    """Whether it can be used again: whatever came unasked, the end too, is a farewell."""
    try:
        connection.settimeout(0)
        connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        pass
    return False


# --- there ---

_HEADERS = {
    "User-Agent": f"learnpack-agent/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}
#: These say how a message is framed or who may pass: a header of a configuration has no say in it.
_OURS = {"host", "content-length", "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade"}
_OURS |= {"proxy-authorization", "proxy-connection", "keep-alive"}
_NAME, _VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _lines(headers: Mapping[str, str], withholds: bool = False) -> dict[str, bytes]:
    """Headers as lines, by their names in lower case.  Raises NoAnswerError."""
    lines = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise NoAnswerError("a header or the credentials hold a character that can't be sent", Outcome.WAIT)
        if lower not in _OURS and not (withholds and lower == "authorization"):
            lines[lower] = f"{name}: {value}\r\n".encode("latin-1")
    return lines


def _written(part: str) -> str:
    """A part of a URL as it goes over the line."""
    return quote(part, safe="!$%&'()*+,/:;=?@[]~")


def _blocks(body: bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(body, bytes):
        for start in range(0, len(body), _BLOCK):
            yield body[start : start + _BLOCK]
        return
    body.seek(0)
    while block := body.read(_BLOCK):
        yield block


def _send(connection: socket.socket, head: bytes, body: bytes | BinaryIO, length: int, until: Deadline) -> None:
    """Raises OSError; EOFError where the body's length is not what it was."""
    pending = head  # goes with the first block: one packet for a small body
    sent = 0
    for block in _blocks(body):
        sent += len(block)
        if sent > length:
            break
        connection.settimeout(until.rest(READ_S))
        connection.sendall(pending + block)
        pending = b""
    if sent != length:
        raise EOFError("what is sent changed meanwhile")
    if pending:
        connection.settimeout(until.rest(READ_S))
        connection.sendall(pending)


# --- and back ---

#: A web page's beginning.  The receiver of 4Geeks calls its `ok` text/html, so that is no sign.
_PAGE = re.compile(
    rb"(?is)(?:\xef\xbb\xbf)?\s*(?:<(?:!--(?:(?!-->).)*--|\?[^>]*)>\s*)*<(?:!doctype|html|head|body|meta|script)\b"
)


def _read_answer(connection: socket.socket, until: Deadline) -> tuple[HTTPResponse, bytes, bool]:
    """The answer, its first bytes, and whether the connection can be used again.

    Raises OSError, HTTPException, and EOFError where it breaks off, which is no answer.
    """
    incoming = Incoming(connection, until, HEAD_BYTES)
    with HTTPResponse(cast("socket.socket", incoming), method="POST") as response:
        response.begin()
        if incoming.is_at_end:  # a head that breaks off is a whole one to HTTPResponse
            raise EOFError("the answer broke off")
        incoming.allow(_READ_BYTES)
        data = bytearray()
        while len(data) < ANSWER_BYTES and (piece := response.read1(ANSWER_BYTES - len(data))):
            data += piece
        if response.length and len(data) < ANSWER_BYTES:
            raise EOFError("the answer broke off")
        is_whole = (response.length == 0 or response.isclosed()) and not incoming.is_at_end
        return response, bytes(data), is_whole and not response.will_close and response.status >= 200


def _judged(response: HTTPResponse, body: bytes, withholds: bool) -> Answer:
    status = response.status
    if response.headers.get("Content-Encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate"):
        with suppress(zlib.error):
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, ANSWER_BYTES)
    outcome, words = outcome_of(status)
    if outcome is Outcome.DELIVERED and _PAGE.match(body[:4096]):
        # A captive portal, a proxy's or a hosting company's own page: nobody has taken anything.
        outcome, words = Outcome.RETRY, f"{status} with a web page: another server answered"
    elif status in (401, 403) and withholds:
        words = f"{status}: it wants credentials, and none are sent without TLS"
    asked = response.headers.get("Retry-After", ""), response.headers.get("Date", "")
    return Answer(status, words, outcome, body, _asked_ms(*asked))


def _asked_ms(retry_after: str, date: str) -> int | None:
    """Retry-After, in seconds or as a moment of the server's own clock."""
    value = retry_after.strip()
    if value.isascii() and value.isdecimal():
        return int(value[:9]) * 1000
    with suppress(ValueError, TypeError, IndexError, OverflowError):
        moment = parsedate_to_datetime(value)
        now = datetime.now(UTC)
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            now = parsedate_to_datetime(date)
        return max(0, int((moment - now).total_seconds() * 1000))
    return None
