"""One server, as a sink talks to it: POST a body, get an `Answer`, whatever the server does.

Promised: the token goes to this URL's host and nowhere else (redirects are not followed, no .netrc is read), and not
without TLS unless the admin says so; TLS is always verified, by the system's certificates, those of `certifi` and the
admin's own CA; a course's URL reaches no private address; an answer takes `within_s` at most, from the look-up of the
name to the last byte, and 64 KB of memory, however slow, endless or compressed it is.  No word of an Answer holds the
URL's path, its query, the token or a proxy's password.

HTTP, TLS and proxies are urllib3's (what `requests` stands on: a post of 2 KB takes half the time without it).  Ours
are the sockets (`addresses`), the trust, the time (`_Guard`), and what is made of what comes back.

Known to be weak: behind a proxy the proxy resolves the name, so there a private address is refused only where the name
leads to one on this machine too.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from time import monotonic
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

import certifi
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy
from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProxyError

from .. import __version__
from ..core.delivery import Outcome, outcome_of
from ..core.urls import problem_of
from .addresses import PrivateAddressError, Resolve, connected, is_loopback, refuse_private

CONNECT_S, READ_S = 10.0, 30.0
#: Behind a proxy the look-up here only serves the refusal of private addresses.
_PROXIED_LOOKUP_S = 3.0
#: All of an answer, from the name's look-up to the last byte that is read.
LONGEST_S = 60.0
#: So much of an answer is looked at.
ANSWER_BYTES = 64 << 10


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

    @property
    def is_page(self) -> bool:
        """Whether a web page came back: a captive portal, a proxy's or a hosting company's own."""
        return _PAGE.match(self.body[:4096]) is not None


class NoWayError(Exception):
    """Nothing can be sent there before somebody changes something; its text is what."""


@dataclass(frozen=True, slots=True, repr=False)
class _Way:
    """How the server is reached: by `urlopen` of `pools`, at `url`, with `headers` at each post.  `withholds`: no
    credentials may go that way.  `asks_first`: host and port that are looked up because a proxy would not care."""

    pools: PoolManager
    urlopen: Callable[..., BaseHTTPResponse]
    url: str
    headers: Mapping[str, str]
    withholds: bool
    asks_first: tuple[str, int] | None


class Server:
    """The connection to one destination; it is kept open between two `post`s and belongs to one thread."""

    def __init__(self, destination: Destination, resolve: Resolve = socket.getaddrinfo) -> None:
        """Nothing is connected, read or looked up before the first `post`."""
        self.destination = destination
        self._resolve = resolve
        self._way: _Way | None = None
        self._until = 0.0  # the end of the `post` that goes on (monotonic, s)
        self._guard = _Guard()

    def post(self, body: bytes | BinaryIO, headers: Mapping[str, str], within_s: float = LONGEST_S) -> Answer:
        """Send it and read the answer.  Raises nothing.

        A file is sent from its beginning to its end, which must not change meanwhile.  `headers` are added to the
        destination's and replace those of the same name; what belongs to the connection (Host, Content-Length, …) is
        ours alone.
        """
        return self._ask("POST", body, headers, within_s)

    def reach(self, within_s: float) -> Answer:
        """Whether anything answers there at all: asks for the URL's OPTIONS, which changes nothing.  Raises nothing."""
        return self._ask("OPTIONS", b"", {}, within_s)

    def _ask(self, method: str, body: bytes | BinaryIO, headers: Mapping[str, str], within_s: float) -> Answer:
        self._until = until = monotonic() + within_s
        self._guard.begin(until)
        try:
            return self._exchange(method, body, headers, within_s, until)
        except NoWayError as error:
            self.close()
            return Answer(None, str(error), Outcome.WAIT)
        except PrivateAddressError as error:
            self.close()
            return Answer(None, str(error), Outcome.RETRY)
        except (HTTPError, HTTPException, OSError, EOFError) as error:
            self.close()
            if monotonic() >= until:
                return Answer(None, f"no whole answer within {within_s:g} s", Outcome.RETRY)
            return _no_answer(error)
        finally:
            self._guard.end()

    def abort(self) -> None:
        """End a `post` that goes on in another thread: there is no answer."""
        self._guard.cut()

    def close(self) -> None:
        """Let go of the connection; the next `post` makes another."""
        self._guard.close()
        if self._way is not None:
            self._way.pools.clear()
            self._way = None

    def _exchange(
        self, method: str, body: bytes | BinaryIO, headers: Mapping[str, str], within_s: float, until: float
    ) -> Answer:
        if self._way is None:
            self._way = self._found()
        way = self._way
        if way.asks_first is not None:
            refuse_private(self._resolve, *way.asks_first, min(within_s, _PROXIED_LOOKUP_S))
        sent = {**way.headers, **_own(headers)}
        if not isinstance(body, bytes):
            sent["Content-Length"] = str(body.seek(0, os.SEEK_END))
            body.seek(0)
        response = way.urlopen(
            method,
            way.url,
            body=body,
            headers=sent,
            timeout=Timeout(connect=min(CONNECT_S, within_s), read=min(READ_S, within_s)),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            answer = response.read(ANSWER_BYTES, decode_content=False)
            if monotonic() >= until:  # what comes after a socket was shut down is still read (Linux)
                raise TimeoutError
            if response.length_remaining and len(answer) < ANSWER_BYTES:
                raise EOFError
            return _judged(response, answer, way.withholds)
        finally:
            if not response.closed:
                response.close()
            response.release_conn()
            if response.status < 200:  # another answer comes, which is not the next post's
                self.close()

    def _found(self) -> _Way:
        """Raises NoWayError."""
        destination = self.destination
        if (problem := problem_of(destination.url)) is not None:
            raise NoWayError(problem)
        parts = urlsplit(destination.url)
        host = _as_ascii(parts.hostname or "")
        authority = (f"[{host}]" if ":" in host else host) + ("" if parts.port is None else f":{parts.port}")
        url = f"{parts.scheme}://{authority}{_written(parts.path or '/')}"
        if parts.query:
            url += f"?{_written(parts.query)}"
        proxy = _proxy(destination.proxy, url)
        context = _trust(destination.ca_file)
        pools: PoolManager
        if proxy is None:
            pools = PoolManager(1, ssl_context=context)
        else:
            pools = ProxyManager(
                proxy, 1, proxy_headers=_proxy_headers(proxy), ssl_context=context, proxy_ssl_context=context
            )
        pools.pool_classes_by_scheme = _pools(self._connect, private=destination.private or proxy is not None)
        urlopen: Callable[..., BaseHTTPResponse] = pools.urlopen
        if proxy is None:  # the pool itself: of each post 0.1 ms less
            pool = pools.connection_from_url(url)
            urlopen, url = pool.urlopen, url.removeprefix(f"{parts.scheme}://{authority}")
        is_secure = parts.scheme == "https"
        withholds = not (is_secure or (proxy is None and is_loopback(host)) or destination.plain_credentials)
        headers = {**_HEADERS, **_own(destination.headers)}
        if destination.authorization is not None:
            headers |= _own({"Authorization": destination.authorization})
        if withholds:
            headers.pop("Authorization", None)
        asks_first = (host, parts.port or (443 if is_secure else 80)) if proxy and not destination.private else None
        return _Way(pools, urlopen, url, headers, withholds, asks_first)

    def _connect(self, host: str, port: int, timeout: float, private: bool) -> socket.socket:
        left = max(0.0, self._until - monotonic())
        connection = connected(self._resolve, host, port, private=private, within_s=timeout, all_s=left)
        self._guard.watch(connection)
        return connection


class _Guard:
    """Ends what a connection waits for when the time is over, be it TLS, a head or a body that drips.

    urllib3's time-outs are those of a single wait.  A thread of its own, which lives as long as the connection, shuts
    the socket down; it is not woken at each post.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._end: float | None = None
        self._wakes_at = 0.0
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def begin(self, until: float) -> None:
        """The time is over at `until` (monotonic, s)."""
        self._end = until
        if self._thread is not None and until < self._wakes_at:
            with self._changed:
                self._changed.notify()

    def end(self) -> None:
        self._end = None

    def watch(self, connection: socket.socket) -> None:
        with self._changed:
            self._drop()
            # A descriptor of its own: TLS takes the socket's away.
            self._socket = connection.dup()
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="deadline", daemon=True)
                with suppress(RuntimeError):  # no thread can be had now: urllib3's time-outs are what is left
                    thread.start()
                    self._thread = thread

    def close(self) -> None:
        with self._changed:
            self._drop()
            self._thread = None
            self._changed.notify()

    def cut(self) -> None:
        with self._changed:
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _work(self) -> None:
        me = threading.current_thread()
        with self._changed:
            while self._thread is me:
                end = self._end
                left = LONGEST_S if end is None else end - monotonic()
                if left > 0:
                    self._wakes_at = monotonic() + left
                    self._changed.wait(left)
                else:
                    self._end = None
                    self._shut_down()


# --- the way there ---

_HEADERS = {
    "User-Agent": f"learnpack-agent/{__version__}",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}
#: These say how a message is framed or who may pass: a header of a configuration has no say in it.
_OURS = {"host", "content-length", "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade"}
_OURS |= {"proxy-authorization", "proxy-connection", "keep-alive"}


_NAME, _VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that may be chosen, each in one spelling.  Raises NoWayError."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise NoWayError("a header or the credentials hold a character that can't be sent")
    return {name.title(): value for name, value in headers.items() if name.lower() not in _OURS}


def _written(part: str) -> str:
    """A part of a URL as it goes over the line."""
    return quote(part, safe="!$%&'()*+,/:;=?@[]~")


def _as_ascii(host: str) -> str:
    """The name as it is looked up and compared with certificates.  Raises NoWayError."""
    if host.isascii():  # the codec costs a megabyte
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise NoWayError("the URL's host can't be understood") from None


def _proxy(configured: str | None, url: str) -> str | None:
    """`configured`: None for the environment's, "" for none.  Raises NoWayError where it can't be understood."""
    found = select_proxy(url, get_environ_proxies(url)) if configured is None else configured
    if not found:
        return None
    found = found if "://" in found else f"http://{found}"
    try:
        parts = urlsplit(found)
        is_right = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right:
        raise NoWayError("the proxy's address can't be understood")
    if parts.scheme not in ("http", "https"):
        raise NoWayError("only proxies of http:// and https:// can be used")
    return found


def _proxy_headers(proxy: str) -> dict[str, str]:
    user, password = get_auth_from_url(proxy)
    if not user and not password:
        return {}
    return {"Proxy-Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


#: Certificates take 2 MB: destinations share them while one of them is connected.
_TRUSTS: WeakValueDictionary[object, ssl.SSLContext] = WeakValueDictionary()


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """Raises NoWayError where the file can't be read."""
    try:
        found = os.stat(ca_file) if ca_file else None
        key = (ca_file, found and (found.st_mtime_ns, found.st_size, found.st_ino))
        context = _TRUSTS.get(key)
        if context is None:
            context = ssl.create_default_context()
            context.load_verify_locations(certifi.where())
            if ca_file:
                context.load_verify_locations(ca_file)
            _TRUSTS[key] = context
    except (OSError, ValueError) as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        raise NoWayError(f"the certificates of ca_file can't be read: {why or 'no such file'}") from None
    return context


def _pools(connect: Callable[[str, int, float, bool], socket.socket], *, private: bool) -> dict[str, Any]:
    """urllib3's pools with our sockets."""

    class Plain(HTTPConnection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            return _connected(self, connect, private)

    class Secure(HTTPSConnection):
        response_class = _Response

        def _new_conn(self) -> socket.socket:
            return _connected(self, connect, private)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _connected(
    connection: HTTPConnection, connect: Callable[[str, int, float, bool], socket.socket], private: bool
) -> socket.socket:
    timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else CONNECT_S
    return connect(connection._dns_host, int(connection.port or 0), timeout, private)


# --- what comes back ---


#: A head, or a trailer, has no more lines; http.client reads on for ever.
_MOST_LINES, _LONGEST_LINE = 250, 65_536


class _Response(HTTPResponse):
    """http.client takes a head that breaks off for a whole one, and knows no end of a head or a trailer."""

    def begin(self) -> None:
        head = _Head(self.fp)
        self.fp = head  # type: ignore[assignment]
        super().begin()
        if self.fp is not None:
            self.fp = head.fp
        if not head.is_whole:
            raise EOFError

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MOST_LINES):
            if self.fp.readline(_LONGEST_LINE) in (b"\r\n", b"\n", b""):
                return
        raise HTTPException("an endless trailer")


class _Head:
    """The lines of a head; `is_whole`: the last one that was read had its end."""

    def __init__(self, fp: Any) -> None:
        self.fp = fp
        self.is_whole = False
        self._lines = 0

    def readline(self, at_most: int = -1) -> bytes:
        self._lines += 1
        if self._lines > _MOST_LINES:  # "100 Continue", again and again
            raise HTTPException("an endless head")
        line: bytes = self.fp.readline(at_most)
        self.is_whole = line.endswith(b"\n")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fp, name)


#: A web page's beginning.  The receiver of 4Geeks calls its `ok` text/html, so that is no sign.
_PAGE = re.compile(
    rb"(?is)(?:\xef\xbb\xbf)?\s*(?:<(?:!--(?:(?!-->).)*--|\?[^>]*)>\s*)*<(?:!doctype|html|head|body|meta|script)\b"
)
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


def _judged(response: BaseHTTPResponse, body: bytes, withholds: bool) -> Answer:
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


def _no_answer(error: BaseException) -> Answer:
    """Why there is none, without the URL, which urllib3 puts into its texts."""
    causes = [error]
    while len(causes) < 12:
        last = causes[-1]
        wrapped = [one for one in last.args if isinstance(one, BaseException)]
        cause = next(iter(wrapped), None) or last.__cause__ or last.__context__
        if cause is None:
            break
        causes.append(cause)
    if any(isinstance(cause, ProxyError) for cause in causes):
        for cause in causes:
            if refused := _TUNNEL.search(str(cause)):
                return _refused_by_proxy(int(refused[1]))
        return Answer(None, f"the proxy can't be reached: {_words_of(causes)}", Outcome.RETRY)
    return Answer(None, _words_of(causes), Outcome.RETRY)


def _refused_by_proxy(status: int) -> Answer:
    """Whatever it says, it says it of the way there and not of what is sent."""
    outcome, words = outcome_of(status)
    if outcome is not Outcome.WAIT or status < 400:
        outcome, words = Outcome.RETRY, f"{status}: the proxy does not reach it"
    elif status != 407:
        words = f"{status}: the proxy does not allow it"
    return Answer(status, words, outcome)


def _words_of(causes: Sequence[BaseException]) -> str:
    for cause in reversed(causes):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted: {cause.verify_message}"
            case ssl.SSLError():
                return f"no TLS connection: {cause.reason or 'it was broken off'}"
            case socket.gaierror():
                return "its name can't be resolved"
            case TimeoutError():
                return "it did not answer in time"
            case RemoteDisconnected():
                return "it closed the connection without an answer"
            case IncompleteRead() | EOFError():
                return "the answer broke off"
            case HTTPException():
                return "what it answered is no HTTP"
            case OSError() if cause.strerror and not isinstance(cause, HTTPError):
                return cause.strerror
            case _:
                continue
    return f"no answer ({type(causes[0]).__name__})"
