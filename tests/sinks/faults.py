"""A server that fails as servers fail, and a proxy that wants a password: real sockets in threads of the test.

    with FaultServer() as server:
        server.script(status(503), reset_unread, ok)     # one for each request, in this order; afterwards `behave`
        server.behave = lambda request: too_large(10)    # asked for each request; at first it is always `ok`
        server.url, server.received, server.wait_for(3)  # only what arrived whole is received
        server.refuse(); server.reopen()                 # a closed port, and the same one again

A fault is a function of a `Request`; a new one is written with its `answer`, `send`, `reset`, `close` and `pause`.  The
body is read when somebody asks for `request.body`, and only then the request is `received`.  `received` is in the order
of arrival; `request.status` is that of the answer that went out whole, else None.

`FaultServer(tls=self_signed(directory))` and `own_authority(directory)` speak TLS with certificates made by the
`openssl` command.  `Proxy` forwards and tunnels; what it was asked is `proxy.asked`.
"""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pytest

from tests.until import until


@dataclass(frozen=True)
class Tls:
    """A server's certificate, and the file that makes it trusted."""

    certificate: Path
    key: Path
    ca_file: Path


class Request:
    """One request at a server; see the module."""

    def __init__(self, server: FaultServer, connection: socket.socket, incoming: BinaryIO, head: _Head) -> None:
        self.method, self.path, self.headers = head.method, head.target, head.headers
        self.status: int | None = None
        self.keeps = head.headers.get("connection", "").lower() != "close"
        self._server, self._connection, self._incoming = server, connection, incoming
        self._broken = server.sign_of(connection)
        self._body: bytes | None = None

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def was_read(self) -> bool:
        return self._body is not None

    @property
    def is_delivered(self) -> bool:
        """Whether the client was told, wholly, that it was taken."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def body(self) -> bytes:
        """Reads it.  Raises OSError where the client hung up before its end."""
        if self._body is None:
            body = self._incoming.read(self.length)
            if len(body) < self.length:
                raise ConnectionError("the client hung up")
            self._body = body
            self._server._receive(self)
        return self._body

    def answer(self, status: int = 200, body: bytes = b"ok", headers: Mapping[str, str] | None = None) -> None:
        """A whole answer.  If the request was not read, the connection ends with it."""
        self.keeps = self.keeps and self.was_read
        lines = {"Content-Length": str(len(body)), "Connection": "keep-alive" if self.keeps else "close"}
        lines.update(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.status = status  # before it goes: who has the answer may look at once
        try:
            self.send(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode("latin-1") + body)
        except OSError:
            self.status = None
            raise

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def close(self) -> None:
        """An orderly end of the connection, after this request."""
        self.keeps = False

    def reset(self) -> None:
        """The connection breaks: what was sent may not even arrive."""
        self.keeps = False
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def pause(self, seconds: float) -> bool:
        """Let so much time go by; True where the server broke the connection meanwhile."""
        return self._broken.wait(seconds)


Fault = Callable[[Request], None]


# --- the faults ---


def ok(request: Request) -> None:
    """200, as the 4Geeks receiver answers."""
    _ = request.body
    request.answer()


def status(number: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Fault:
    def answer(request: Request) -> None:
        _ = request.body
        request.answer(number, body, headers)

    return answer


def reset_unread(request: Request) -> None:
    """The connection breaks before the body was read."""
    request.reset()


def reset_read(request: Request) -> None:
    """It breaks after the body was read, before an answer: the client can't know that it arrived."""
    _ = request.body
    request.reset()


def close_read(request: Request) -> None:
    """The same without a sign: the connection just ends."""
    _ = request.body
    request.close()


def reset_answering(request: Request) -> None:
    """It breaks in the middle of the answer's body."""
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    request.reset()


def close_in_head(request: Request) -> None:
    """It ends in the middle of the answer's head."""
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    request.close()


def drip(
    every: float = 0.05, data: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"." * 100_000
) -> Fault:
    """A byte now, a byte then."""

    def answer(request: Request) -> None:
        _ = request.body
        request.close()
        for byte in data:
            request.send(bytes([byte]))
            if request.pause(every):
                return

    return answer


def silence(request: Request) -> None:
    """It takes everything and says nothing until the server is closed."""
    _ = request.body
    request.close()
    request.pause(600)


def deafness(request: Request) -> None:
    """It neither reads nor answers until the server is closed."""
    request.close()
    request.pause(600)


def endless(request: Request) -> None:
    """An answer without an end."""
    _ = request.body
    request.close()
    request.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        request.send(b"x" * 65_536)


def endless_head(request: Request) -> None:
    """Headers without an end."""
    _ = request.body
    request.close()
    request.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.send(b"X-More: " + b"x" * 8_000 + b"\r\n")


def wrong_length(length: int, body: bytes = b"ok") -> Fault:
    """A Content-Length that is not the body's; then the connection ends."""

    def answer(request: Request) -> None:
        _ = request.body
        request.close()
        request.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)

    return answer


def gzip_bomb(megabytes: int = 64) -> Fault:
    return status(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(megabytes << 20)))


def page(request: Request) -> None:
    """200 from somebody who is not the server: a captive portal."""
    _ = request.body
    request.answer(
        200, b"\n<!-- hello -->\n<!DOCTYPE html><html><body>Welcome!</body></html>", {"Content-Type": "text/html"}
    )


def redirect(url: str, number: int = 307) -> Fault:
    return status(number, {"Location": url})


def garbage(request: Request) -> None:
    _ = request.body
    request.close()
    request.send(bytes(range(256)) * 8)


def too_large(limit: int, reads: bool = False) -> Fault:
    """413 above so many bytes, else `ok`.  `reads`: whether it reads what it does not take."""

    def answer(request: Request) -> None:
        if request.length <= limit:
            ok(request)
            return
        if reads:
            _ = request.body
        request.answer(413, b"{}")

    return answer


# --- the servers ---


@dataclass(frozen=True)
class _Head:
    method: str
    target: str
    headers: dict[str, str]


def _read_head(incoming: BinaryIO) -> _Head | None:
    """The next request's; headers by their names in lower case.  None where there is none."""
    first = incoming.readline().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = {}
    while (line := incoming.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return _Head(first[0], first[1], headers)


class _Listener:
    """Accepts connections, each of which is served in a thread of its own."""

    def __init__(self, tls: Tls | None, host: str = "127.0.0.1") -> None:
        #: How many connections were accepted.
        self.accepted = 0
        self._host = host
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls.certificate, tls.key)
        #: Those that there are now, each with the sign that it was broken.
        self._connections: dict[socket.socket, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._listening: socket.socket | None = None
        self.port = 0
        self.reopen()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._context is None else 'https'}://{host}:{self.port}"

    @property
    def open_connections(self) -> int:
        with self._changed:
            return len(self._connections)

    def reopen(self) -> None:
        """Listen, at the same port as before."""
        listening = socket.create_server((self._host, self.port), family=_family(self._host), backlog=64)
        self.port = int(listening.getsockname()[1])
        self._listening = listening
        thread = threading.Thread(target=self._accept, args=(listening,), name="accept", daemon=True)
        self._threads.append(thread)
        thread.start()

    def refuse(self) -> None:
        """Nobody listens any more; the connections that there are, break."""
        listening, self._listening = self._listening, None
        if listening is not None:
            # `accept` wakes up for a connection only, on every system.
            with suppress(OSError):
                socket.create_connection((self._host, self.port), 10).close()
            until(lambda: listening.fileno() == -1)
        self.cut()

    def cut(self) -> None:
        """Every connection breaks."""
        with self._changed:
            for connection, sign in self._connections.items():
                sign.set()
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        until(lambda: self.open_connections == 0)

    def sign_of(self, connection: socket.socket) -> threading.Event:
        """It is set when the connection is broken from here."""
        with self._changed:
            return self._connections[connection]

    def close(self) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _accept(self, listening: socket.socket) -> None:
        with listening:
            while True:
                connection, _ = listening.accept()
                if self._listening is not listening:
                    connection.close()
                    return
                with self._changed:
                    self.accepted += 1
                    self._connections[connection] = threading.Event()
                thread = threading.Thread(target=self._run, args=(connection,), name="serve", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self, plain: socket.socket) -> None:
        connection = plain
        with suppress(OSError):  # a client that hangs up, or does not trust us
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                connection = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                with self._changed:
                    self._connections[connection] = self._connections.pop(plain)
                connection.do_handshake()
            self._serve(connection)
        with self._changed:
            self._connections.pop(connection, None)
        connection.close()
        plain.close()

    def _serve(self, connection: socket.socket) -> None:
        raise NotImplementedError


class FaultServer(_Listener):
    """See the module."""

    def __init__(self, tls: Tls | None = None, host: str = "127.0.0.1") -> None:
        self.received: list[Request] = []
        self.behave: Callable[[Request], Fault] = lambda _: ok
        self._script: deque[Fault] = deque()
        super().__init__(tls, host)

    def script(self, *faults: Fault) -> None:
        """What the next requests meet, behind what was scripted before."""
        with self._changed:
            self._script.extend(faults)

    @property
    def is_script_over(self) -> bool:
        with self._changed:
            return not self._script

    @property
    def delivered(self) -> list[Request]:
        """What the client was told was taken."""
        with self._changed:
            return [request for request in self.received if request.is_delivered]

    def wait_for(self, count: int, timeout: float = 60.0) -> list[Request]:
        """So many requests that arrived whole.  Raises AssertionError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.received) >= count, timeout):
                raise AssertionError(f"{len(self.received)} requests came, not {count}")
            return list(self.received)

    def _receive(self, request: Request) -> None:
        with self._changed:
            self.received.append(request)
            self._changed.notify_all()

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as incoming:
            while (head := _read_head(incoming)) is not None:
                request = Request(self, connection, incoming, head)
                with self._changed:
                    scripted = self._script.popleft() if self._script else None
                fault = scripted if scripted is not None else self.behave(request)
                fault(request)
                if not request.keeps:
                    return


class Proxy(_Listener):
    """A forward proxy.  `password`: "name:password" that it wants, None for everybody.  `names`: where it finds hosts
    that nobody else knows.  `refusal`: the status that it answers everything with."""

    def __init__(
        self,
        password: str | None = None,
        names: Mapping[str, tuple[str, int]] | None = None,
        tls: Tls | None = None,
        refusal: int | None = None,
    ) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._password = password
        self._names = dict(names or {})
        self._refusal = refusal
        super().__init__(tls)

    @property
    def url_with_password(self) -> str:
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{self._password}@{rest}"

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as incoming:
            head = _read_head(incoming)
            if head is None:
                return
            self.asked.append((head.method, head.target, head.headers))
            wanted = None if self._password is None else "Basic " + b64encode(self._password.encode()).decode()
            refusal = self._refusal
            if wanted is not None and head.headers.get("proxy-authorization") != wanted:
                refusal = 407
            if refusal is not None:
                incoming.read(int(head.headers.get("content-length", "0")))
                connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno" % refusal)
                return
            if head.method == "CONNECT":
                with self._upstream(head.target) as upstream:
                    connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                    back = threading.Thread(target=_copy, args=(upstream, connection), daemon=True)
                    back.start()
                    _copy(connection, upstream)
                    back.join(30)
                return
            _, _, rest = head.target.partition("://")
            host, _, path = rest.partition("/")
            body = incoming.read(int(head.headers.get("content-length", "0")))
            headers = {name: value for name, value in head.headers.items() if name != "proxy-authorization"}
            headers["connection"] = "close"
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            with self._upstream(host) as upstream:
                upstream.sendall(f"{head.method} /{path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
                _copy(upstream, connection)

    def _upstream(self, authority: str) -> socket.socket:
        host, _, port = authority.partition(":")
        return socket.create_connection(self._names.get(host, (host, int(port or 80))), 30)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for one, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            one.shutdown(how)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# --- certificates ---

_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"


def self_signed(directory: Path, names: str = _NAMES) -> Tls:
    """A certificate that nobody vouches for but itself."""
    key, certificate = directory / "self.key", directory / "self.pem"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=self-signed"),
        *("-addext", names, "-keyout", str(key), "-out", str(certificate)),
    )
    return Tls(certificate, key, certificate)


def own_authority(directory: Path) -> Tls:
    """A certificate of a school's own authority."""
    authority = directory / "ca.pem"
    key, request, certificate = directory / "server.key", directory / "server.csr", directory / "server.pem"
    extensions = directory / "extensions"
    extensions.write_text(
        f"{_NAMES}\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=A school"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", str(directory / "ca.key"), "-out", str(authority)),
    )
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", str(key), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(authority), "-CAkey", str(directory / "ca.key")),
        *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate)),
    )
    return Tls(certificate, key, authority)


def _openssl(*arguments: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make certificates with")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
