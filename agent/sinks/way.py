"""The way to a server: its name, its address, the proxy before it, TLS around it; and how long each of them may take.

Promised: every wait has an end, the look-up of a name too; a private address is refused at the address itself, however
it was spelled; whoever must change something is told so (`NoAnswerError` with WAIT), in words without a URL, a path or
a password.

Known to be weak: behind a proxy the proxy resolves the name, so there a private address is refused only where the
name leads to one on this machine too.  A proxy that is reached by TLS itself, for an https URL, needs urllib3.
"""

from __future__ import annotations

import io
import ipaddress
import os
import socket
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit
from weakref import WeakValueDictionary

import certifi

from ..core.delivery import Outcome, outcome_of

CONNECT_S, READ_S = 10.0, 30.0
#: Behind a proxy the look-up here only serves the refusal of private addresses.
PROXIED_LOOKUP_S = 3.0
#: So long may the head of an answer be.
HEAD_BYTES = 64 << 10

#: Like `socket.getaddrinfo(host, port, family, kind)`.
Resolve = Callable[[str, int, int, int], list[Any]]


class NoAnswerError(Exception):
    """There is no answer of this server's; its text is why.  `status` is a proxy's."""

    def __init__(self, words: str, outcome: Outcome = Outcome.RETRY, status: int | None = None) -> None:
        super().__init__(words)
        self.outcome = outcome
        self.status = status


class Deadline:
    """The moment at which one post is over."""

    def __init__(self, within_s: float) -> None:
        self._end = monotonic() + within_s

    def is_over(self) -> bool:
        return monotonic() >= self._end

    def rest(self, at_most: float) -> float:
        """Seconds that one wait may take.  Raises TimeoutError where none are left."""
        rest = self._end - monotonic()
        if rest <= 0:
            raise TimeoutError
        return min(rest, at_most)


class Incoming(io.RawIOBase):
    """What comes from a socket, until a moment and up to a length; at either it looks like the end.

    `is_at_end`: somebody has tried to read beyond it.
    """

    def __init__(self, connection: socket.socket, until: Deadline, at_most: int) -> None:
        super().__init__()
        self._socket, self._until, self._left = connection, until, at_most
        self.is_at_end = False

    def allow(self, more: int) -> None:
        self._left += more

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What HTTPResponse asks of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = 0
        if self._left > 0:
            self._socket.settimeout(self._until.rest(READ_S))
            count = self._socket.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        self.is_at_end = count == 0
        return count


# --- names and addresses ---

_IS_PRIVATE = "it leads to a private address, which a course's URL may not reach"
_IPV6_UNICAST, _NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
#: They answer to machines of one cloud only, at addresses that look public (Azure's wire server, Oracle's metadata;
#: Python knows that 192.0.0.0/24 is not global since 3.11.10).
_OF_CLOUDS = tuple(ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24"))


def is_public(address: str) -> bool:
    """Whether everybody could reach it; an address within an address (IPv4 in IPv6) is what counts."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if inside is None and found in _NAT64:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is None:
            return found.is_global and found in _IPV6_UNICAST
        found = inside
    return found.is_global and not found.is_multicast and not any(found in network for network in _OF_CLOUDS)


def is_loopback(connection: socket.socket) -> bool:
    """Whether what is sent there stays on this machine."""
    found = ipaddress.ip_address(str(connection.getpeername()[0]).partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def as_ascii(host: str) -> str:
    """The name as it is looked up and compared with certificates.  Raises NoAnswerError."""
    if host.isascii():  # the codec costs a megabyte
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise NoAnswerError("the URL's host can't be understood", Outcome.WAIT) from None


def addresses(resolve: Resolve, host: str, port: int, within_s: float) -> list[Any]:
    """What getaddrinfo finds, in this time: it has no time-out of its own.  Raises socket.gaierror."""
    found: list[Any] = []

    def look() -> None:
        # UnicodeError: a label of more than 63 characters, or none between two dots.
        with suppress(OSError, UnicodeError):
            found.append(resolve(host, port, 0, socket.SOCK_STREAM))

    thread = threading.Thread(target=look, name="look-up", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be had now
        look()
    else:
        thread.join(within_s)
    if not found:
        raise socket.gaierror(socket.EAI_AGAIN, "its name can't be resolved")
    return cast("list[Any]", found[0])


def reached(resolve: Resolve, host: str, port: int, private: bool, until: Deadline) -> socket.socket:
    """A connection to an address that may be reached.  Raises OSError, NoAnswerError."""
    failure: OSError | NoAnswerError = socket.gaierror(socket.EAI_NONAME, "its name has no address")
    for family, kind, protocol, _, address in addresses(resolve, host, port, until.rest(CONNECT_S)):
        if not private and not is_public(str(address[0])):
            failure = NoAnswerError(_IS_PRIVATE)
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(until.rest(CONNECT_S))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def refuse_private(resolve: Resolve, host: str, port: int, until: Deadline) -> None:
    """The proxy would reach it for us; a name that is not known here is the proxy's own affair."""
    with suppress(socket.gaierror):
        found = addresses(resolve, host, port, until.rest(PROXIED_LOOKUP_S))
        if not all(is_public(str(address[0])) for *_, address in found):
            raise NoAnswerError(_IS_PRIVATE)


# --- TLS ---

#: Certificates take 2 MB: destinations share them while one of them is connected.
_TRUSTS: WeakValueDictionary[object, ssl.SSLContext] = WeakValueDictionary()


def trust(ca_file: str | None) -> ssl.SSLContext:
    """Raises NoAnswerError where the file can't be read."""
    try:
        found = os.stat(ca_file) if ca_file else None
        key = (ca_file, found and (found.st_mtime_ns, found.st_size, found.st_ino))
        context = _TRUSTS.get(key)
        if context is None:
            context = ssl.create_default_context()
            context.load_verify_locations(certifi.where())
            context.set_alpn_protocols(["http/1.1"])
            if ca_file:
                context.load_verify_locations(ca_file)
            _TRUSTS[key] = context
    except (OSError, ValueError) as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        raise NoAnswerError(
            f"the certificates of ca_file can't be read: {why or 'no such file'}", Outcome.WAIT
        ) from None
    return context


def secured(connection: socket.socket, context: ssl.SSLContext, host: str, until: Deadline) -> socket.socket:
    """The connection within TLS, with the server's certificate verified; it is closed otherwise.  Raises OSError."""
    try:
        connection.settimeout(until.rest(READ_S))
        if isinstance(connection, ssl.SSLSocket):  # TLS within TLS: a rare kind of proxy
            from urllib3.util.ssltransport import SSLTransport

            return cast("socket.socket", SSLTransport(connection, context, server_hostname=host.rstrip(".")))
        return context.wrap_socket(connection, server_hostname=host.rstrip("."))
    except BaseException:
        connection.close()
        raise


# --- proxies ---


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """`authorization` is a whole header line, or nothing."""

    host: str
    port: int
    is_secure: bool
    authorization: bytes


def proxy_for(configured: str | None, scheme: str, host: str, port: int) -> Proxy | None:
    """`configured`: None for the environment's, "" for none.  Raises NoAnswerError where it can't be understood."""
    url = _environment_proxy(scheme, host, port) if configured is None else configured
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        found = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise NoAnswerError("the proxy's address can't be understood", Outcome.WAIT) from None
    if parts.scheme not in ("http", "https"):
        raise NoAnswerError("only proxies of http:// and https:// can be used", Outcome.WAIT)
    if not parts.hostname:
        raise NoAnswerError("the proxy's address can't be understood", Outcome.WAIT)
    authorization = b""
    if parts.username is not None:
        secret = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        authorization = b"Proxy-Authorization: Basic " + b64encode(secret) + b"\r\n"
    return Proxy(as_ascii(parts.hostname), found, parts.scheme == "https", authorization)


def _environment_proxy(scheme: str, host: str, port: int) -> str | None:
    """http_proxy, https_proxy, all_proxy and no_proxy (names, suffixes, addresses, networks); macOS' settings."""
    if sys.platform != "darwin" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # 2 MB, where there are proxies

    proxies = getproxies()
    if proxy_bypass(host if ":" in host else f"{host}:{port}"):
        return None
    with suppress(ValueError):  # a name
        address = ipaddress.ip_address(host)
        for network in proxies.get("no", "").split(","):
            with suppress(ValueError):
                if "/" in network and address in ipaddress.ip_network(network.strip(), strict=False):
                    return None
    return proxies.get(scheme) or proxies.get("all")


def reached_proxy(resolve: Resolve, proxy: Proxy, ca_file: str | None, until: Deadline) -> socket.socket:
    """A connection to it; it is the admin's own, so it may have any address.  Raises NoAnswerError."""
    try:
        connection = reached(resolve, proxy.host, proxy.port, True, until)
        if proxy.is_secure:
            connection = secured(connection, trust(ca_file), proxy.host, until)
    except OSError as error:
        if until.is_over():
            raise
        raise NoAnswerError(f"the proxy can't be reached: {words_of(error)}") from None
    return connection


def tunnel(connection: socket.socket, authority: str, proxy: Proxy, agent: str, until: Deadline) -> None:
    """Ask the proxy for a way to it.  Raises NoAnswerError where it has none, OSError where it takes too long."""
    request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\n".encode("latin-1")
    try:
        connection.settimeout(until.rest(READ_S))
        connection.sendall(request + proxy.authorization + b"\r\n")
        incoming = Incoming(connection, until, HEAD_BYTES)
        with HTTPResponse(cast("socket.socket", incoming), method="CONNECT") as response:
            response.begin()
            status = response.status
    except (OSError, HTTPException, ValueError) as error:
        if until.is_over():
            raise
        raise NoAnswerError(f"the proxy gave no answer: {words_of(error)}") from None
    if 200 <= status < 300:
        return
    # Whatever it says, it says it of the way there and not of what is sent.
    outcome, words = outcome_of(status)
    if outcome is not Outcome.WAIT or status < 400:
        outcome, words = Outcome.RETRY, f"{status}: the proxy does not reach it"
    elif status != 407:
        words = f"{status}: the proxy does not allow it"
    raise NoAnswerError(words, outcome, status)


def words_of(error: BaseException) -> str:
    """Why there is no answer, without anything that was sent."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"no TLS connection: {error.reason or 'it was broken off'}"
        case socket.gaierror():
            return "its name can't be resolved"
        case TimeoutError():
            return "it did not answer in time"
        case RemoteDisconnected():
            return "it closed the connection without an answer"
        case IncompleteRead():
            return "the answer broke off"
        case HTTPException() | ValueError():
            return "what it answered is no HTTP"
        case EOFError():
            return str(error)
        case OSError() if error.strerror:
            return error.strerror
    return f"no answer ({type(error).__name__})"
