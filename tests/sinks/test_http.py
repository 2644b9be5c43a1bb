"""What a server, a proxy or a course's URL may do, and what becomes of it: against real sockets."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from agent.core.delivery import Outcome
from agent.core.urls import problem_of
from agent.sinks.addresses import is_public
from agent.sinks.http import ANSWER_BYTES, Answer, Destination, Server
from tests.sinks import faults
from tests.sinks.faults import Fault, FaultServer, Proxy, Request, Tls, ok, status
from tests.until import until

REPOSITORY = Path(__file__).parent.parent.parent
TOKEN, PATH, PASSWORD = "t0p-s3cret", "/secret-path?key=hidden", "pr0xy-pass"
DELIVERED, RETRY, WAIT, REJECTED = Outcome.DELIVERED, Outcome.RETRY, Outcome.WAIT, Outcome.REJECTED
#: Far more than any of the bounds that are asked for here, for a machine that is busy elsewhere.
GENEROUS_S = 20.0


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return faults.own_authority(tmp_path_factory.mktemp("school"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return faults.self_signed(tmp_path_factory.mktemp("stranger"))


Make = Callable[..., Server]


@pytest.fixture
def client() -> Iterator[Make]:
    """Makes Servers for a URL (without a path), by default with a token and for any address; closes them."""
    made = []

    def make(url: str, resolve: Any = socket.getaddrinfo, **more: Any) -> Server:
        destination = Destination(url + PATH, authorization=f"Token {TOKEN}", private=True, proxy="")
        made.append(Server(replace(destination, **more), resolve))
        return made[-1]

    yield make
    for one in made:
        one.close()


def post(client: Server, body: bytes | BinaryIO = b"{}", within_s: float = 60.0) -> Answer:
    """Posts, and looks that no secret is told."""
    answer = client.post(body, {}, within_s)
    told = repr((replace(answer, body=b""), client, client.destination)) + str(client.destination)
    for secret in (TOKEN, "secret-path", "hidden", PASSWORD, "Traceback"):
        assert secret not in told
    return answer


def without_names(*_: Any) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def leads_to(*addresses: str) -> Callable[..., list[Any]]:
    """A resolver that finds these for every name."""

    def resolve(_host: str, port: int, *_: Any) -> list[Any]:
        return [found for address in addresses for found in socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)]

    return resolve


# --- a server as it should be ---


def test_a_post_arrives_as_it_was_given(server: FaultServer, client: Make) -> None:
    one = client(server.url, headers={"X-Lab": "7"})
    answer = one.post(b'{"a": 1}', {"X-Event-Id": "e1"})
    assert answer == Answer(200, "200: taken", DELIVERED, b"ok")
    (request,) = server.received
    assert (request.method, request.path, request.body) == ("POST", PATH, b'{"a": 1}')
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["authorization"] == f"Token {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("learnpack-agent/")
    assert (request.headers["x-lab"], request.headers["x-event-id"]) == ("7", "e1")
    assert request.is_delivered


def test_a_post_s_header_replaces_the_destination_s_of_the_same_name(server: FaultServer, client: Make) -> None:
    one = client(server.url, headers={"content-type": "text/plain", "X-A": "1"})
    one.post(b"", {"Content-Type": "text/csv", "x-a": "2", "Host": "elsewhere", "Transfer-Encoding": "chunked"})
    (request,) = server.received
    assert (request.headers["content-type"], request.headers["x-a"]) == ("text/csv", "2")
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["content-length"] == "0"
    assert "transfer-encoding" not in request.headers


def test_one_connection_serves_many_posts_until_it_is_closed(server: FaultServer, client: Make) -> None:
    one = client(server.url)
    for _ in range(5):
        assert post(one).outcome is DELIVERED
    assert server.accepted == 1
    one.close()
    until(lambda: server.open_connections == 0)
    assert post(one).outcome is DELIVERED
    assert server.accepted == 2


def test_a_connection_that_the_server_let_go_meanwhile_is_made_anew(server: FaultServer, client: Make) -> None:
    one = client(server.url)
    post(one)
    server.cut()
    assert post(one).outcome is DELIVERED


def test_a_closed_port_is_tried_again_and_taken_when_it_is_open(server: FaultServer, client: Make) -> None:
    one = client(server.url)
    server.refuse()
    assert post(one) == Answer(None, "Connection refused", RETRY)
    server.reopen()
    assert post(one).outcome is DELIVERED


def test_a_url_in_another_script_goes_over_the_line_in_ascii(server: FaultServer, client: Make) -> None:
    one = client("http://niño.example", resolve=leads_to("127.0.0.1"))
    one.destination = replace(one.destination, url=f"http://niño.example:{server.port}/año?q=ñ%20#fragment")
    assert post(one).outcome is DELIVERED
    assert server.received[0].path == "/a%C3%B1o?q=%C3%B1%20"
    assert server.received[0].headers["host"] == f"xn--nio-8ma.example:{server.port}"


# --- servers as they are ---


def chunked(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n")


def broken_chunks(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok")
    request.close()


def early_hints(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n")
    request.pause(0.1)  # the rest comes when the next post is already on its way
    request.answer()


def long_with_a_late_end(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (ANSWER_BYTES + 2) + b"x" * ANSWER_BYTES)
    request.pause(0.1)
    request.send(b"xx")


def endless_trailer(request: Request) -> None:
    _ = request.body
    request.close()
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
    while True:
        request.send(b"X-More: x\r\n" * 1000)


def endless_patience(request: Request) -> None:
    _ = request.body
    request.close()
    while True:
        request.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def two_answers(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 2)


def too_short_a_length(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok")


def no_length(request: Request) -> None:
    _ = request.body
    request.send(b"HTTP/1.0 200 OK\r\n\r\nok")
    request.close()


BEHAVIOURS: dict[str, tuple[Fault, Outcome, int | None, str]] = {
    "ok": (ok, DELIVERED, 200, "taken"),
    "204": (status(204, body=b""), DELIVERED, 204, "taken"),
    "chunks": (chunked, DELIVERED, 200, "taken"),
    "no length": (no_length, DELIVERED, 200, "taken"),
    "too short a length": (too_short_a_length, DELIVERED, 200, "taken"),
    "two answers": (two_answers, DELIVERED, 200, "taken"),
    "endless body": (faults.endless, DELIVERED, 200, "taken"),
    "endless trailer": (endless_trailer, RETRY, None, ""),
    "late end": (long_with_a_late_end, DELIVERED, 200, "taken"),
    "gzip bomb": (faults.gzip_bomb(), DELIVERED, 200, "taken"),
    "no gzip": (status(200, {"Content-Encoding": "gzip"}, b"ok"), DELIVERED, 200, "taken"),
    "500": (status(500), RETRY, 500, "it failed"),
    "408": (status(408), RETRY, 408, "waited too long"),
    "599": (status(599), RETRY, 599, "it failed"),
    "999": (status(999), RETRY, 999, "no answer of HTTP's"),
    "early hints": (early_hints, RETRY, 103, "no answer of HTTP's"),
    "page": (faults.page, RETRY, 200, "web page"),
    "garbage": (faults.garbage, RETRY, None, "no HTTP"),
    "endless patience": (endless_patience, RETRY, None, ""),
    "endless head": (faults.endless_head, RETRY, None, ""),
    "too great a length": (faults.wrong_length(100), RETRY, None, "broke off"),
    "broken chunks": (broken_chunks, RETRY, None, "broke off"),
    "reset unread": (faults.reset_unread, RETRY, None, ""),
    "reset read": (faults.reset_read, RETRY, None, "Connection reset"),
    "closed": (faults.close_read, RETRY, None, "without an answer"),
    "reset in the answer": (faults.reset_answering, RETRY, None, ""),
    "closed in the head": (faults.close_in_head, RETRY, None, "broke off"),
    "400": (status(400), REJECTED, 400, "does not take this"),
    "413": (status(413), REJECTED, 413, "does not take this"),
    "401": (status(401), WAIT, 401, "wants credentials"),
    "403": (status(403), WAIT, 403, "does not allow it"),
    "302": (faults.redirect("http://127.0.0.1:1/", 302), WAIT, 302, "points to another address"),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_whatever_a_server_does_has_an_outcome_and_does_not_touch_the_next_post(
    name: str, server: FaultServer, client: Make
) -> None:
    fault, outcome, number, words = BEHAVIOURS[name]
    server.script(ok, fault, status(422))
    one = client(server.url)
    post(one)
    answer = post(one)
    assert (answer.outcome, answer.status) == (outcome, number)
    assert words in answer.words
    assert len(answer.body) <= ANSWER_BYTES
    assert post(one).status == 422


def test_an_answer_s_beginning_is_kept_without_compression(server: FaultServer, client: Make) -> None:
    server.script(status(400, {"Content-Encoding": "gzip"}, gzip.compress(b'{"detail": "no"}')), faults.endless)
    one = client(server.url)
    assert post(one).body == b'{"detail": "no"}'
    assert post(one).body == b"x" * ANSWER_BYTES


@pytest.mark.parametrize(
    "page",
    [
        b"<html>",
        b"\xef\xbb\xbf<!doctype html>",
        b"<?xml version='1.0'?>\n<!-- - -- -->\r\n <HTML lang=es>",
        b"<script>",
    ],
)
def test_a_web_page_delivers_nothing(page: bytes, server: FaultServer, client: Make) -> None:
    server.script(status(200, body=page))
    assert post(client(server.url)).outcome is RETRY


@pytest.mark.parametrize("text", [b"ok", b"", b'{"html": "<html>"}', b"<ok/>", b"<!--" * 1000, b"<!---->" * 9000])
def test_another_text_with_200_is_delivered(text: bytes, server: FaultServer, client: Make) -> None:
    server.script(status(200, {"Content-Type": "text/html"}, text))
    assert post(client(server.url)).outcome is DELIVERED


@pytest.mark.parametrize(
    ("headers", "asked_ms"),
    [
        ({"Retry-After": "7"}, 7_000),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "9" * 4000}, 999_999_999_000),
        ({"Retry-After": "Mon, 23 Nov 2026 10:00:30 GMT", "Date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 30_000),
        ({"Retry-After": "Mon, 23 Nov 2026 09:00:30 GMT", "Date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "\xb2"}, None),
        ({"Retry-After": "Mon, 99 Nov 99999 10:00:30 GMT", "Date": "\xff"}, None),
        ({}, None),
    ],
)
def test_a_server_s_wish_to_be_left_alone_is_understood(
    headers: dict[str, str], asked_ms: int | None, server: FaultServer, client: Make
) -> None:
    server.script(status(429, headers))
    answer = post(client(server.url))
    assert (answer.outcome, answer.asked_ms) == (RETRY, asked_ms)


# --- time ---


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        (faults.silence, 2),
        (faults.drip(), 2),
        (faults.drip(data=b"HTTP/1.1 200 OK\r\n" + b"X" * 99), 2),
        (faults.deafness, 64 << 20),
    ],
    ids=["silent", "dripping", "dripping head", "deaf"],
)
def test_a_slow_server_takes_no_more_time_than_it_is_given(
    fault: Fault, size: int, server: FaultServer, client: Make
) -> None:
    server.script(fault)
    start = time.monotonic()
    answer = post(client(server.url), bytes(size), within_s=0.4)
    assert time.monotonic() - start < GENEROUS_S
    assert answer == Answer(None, "no whole answer within 0.4 s", RETRY)


@pytest.mark.parametrize("through", ["directly", "http proxy", "https proxy"])
def test_a_port_where_nobody_speaks_takes_no_more_time_than_it_is_given(through: str, client: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        if through == "directly":
            one = client(f"https://{address}")
        else:
            one = client("https://127.0.0.1:9", proxy=f"{through.split()[0]}://{address}")
        start = time.monotonic()
        answer = post(one, within_s=0.4)
        assert time.monotonic() - start < GENEROUS_S
    assert answer == Answer(None, "no whole answer within 0.4 s", RETRY)


def test_a_name_that_is_looked_up_for_ever_takes_no_more_time_than_it_is_given(client: Make) -> None:
    found = threading.Event()

    def resolve(*_: Any) -> list[Any]:
        found.wait(60)
        return []

    start = time.monotonic()
    answer = post(client("http://slow.example", resolve), within_s=0.4)
    found.set()
    assert time.monotonic() - start < GENEROUS_S
    assert answer == Answer(None, "no whole answer within 0.4 s", RETRY)


def test_no_thread_stays_behind_a_post(server: FaultServer, client: Make) -> None:
    one = client(server.url.replace("127.0.0.1", "localhost"))
    post(one)
    assert [thread.name for thread in threading.enumerate() if thread.name == "look-up"] == []


# --- large bodies ---


def test_a_file_is_sent_whole_and_from_its_beginning_each_time(
    server: FaultServer, client: Make, tmp_path: Path
) -> None:
    content = os.urandom(300_001)
    (tmp_path / "body").write_bytes(content)
    with (tmp_path / "body").open("rb") as file:
        file.seek(1234)
        one = client(server.url)
        assert [post(one, file).outcome for _ in range(2)] == [DELIVERED] * 2
    assert [request.body == content for request in server.received] == [True, True]
    assert server.received[0].headers["content-length"] == "300001"
    assert post(one, io.BytesIO(b"")).outcome is DELIVERED
    assert server.received[2].body == b""


@pytest.mark.parametrize("reads", [True, False])
def test_a_body_that_is_too_large_is_rejected_though_the_server_hung_up_on_it(
    reads: bool, server: FaultServer, client: Make
) -> None:
    server.behave = lambda _: faults.too_large(1_000_000, reads)
    one = client(server.url)
    answer = post(one, io.BytesIO(bytes(8 << 20)))
    assert (answer.outcome, answer.status) == (REJECTED, 413)
    assert post(one, bytes(1_000_000)).outcome is DELIVERED


GREEDY = """
import sys
sys.path.insert(0, sys.argv[1])
def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
from agent.sinks.http import Destination, Server
before = peak()
server = Server(Destination(sys.argv[2], authorization="Token x", private=True, proxy=""))
for _ in range(500):
    assert server.post(bytes(2000), {}).status == 200
with open(sys.argv[3], "rb") as file:
    assert server.post(file, {}).status == 200
for _ in range(4):
    server.post(b"{}", {})
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_neither_many_posts_nor_fifty_megabytes_nor_hostile_answers_take_more_than_a_few_megabytes(
    server: FaultServer, tmp_path: Path
) -> None:
    body = bytes(50 << 20)
    (tmp_path / "body").write_bytes(body)
    server.script(*[ok] * 501, faults.endless, faults.endless_head, faults.gzip_bomb(), faults.endless)
    arguments = [sys.executable, "-c", GREEDY, str(REPOSITORY), server.url, str(tmp_path / "body")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.stderr == ""
    assert hashlib.sha256(server.received[500].body).digest() == hashlib.sha256(body).digest()
    assert server.is_script_over
    print(done.stdout)
    assert int(done.stdout) < 5_000  # KB


# --- credentials ---


def test_a_redirect_takes_nothing_to_another_host(server: FaultServer, client: Make) -> None:
    with FaultServer() as other:
        for number in (301, 302, 303, 307, 308):
            server.script(faults.redirect(other.url, number))
            assert post(client(server.url)).outcome is WAIT
        assert other.accepted == 0


def test_no_netrc_is_read(server: FaultServer, client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login netrc password netrc\ndefault login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    post(client(server.url, authorization=None))
    assert "authorization" not in server.received[0].headers


def test_a_url_with_a_password_is_neither_used_nor_shown(server: FaultServer, client: Make) -> None:
    one = client(f"http://teacher:{PASSWORD}@127.0.0.1:{server.port}")
    assert post(one) == Answer(None, "the URL holds a user name or a password", WAIT)
    assert server.accepted == 0


@pytest.mark.parametrize(
    "value", [f"Token {TOKEN}\n", f"Token {TOKEN}\r\nX-A: 1", "Token \u20ac" + TOKEN, TOKEN + "\0"]
)
def test_credentials_that_no_header_can_hold_wait_for_somebody(value: str, server: FaultServer, client: Make) -> None:
    answer = post(client(server.url, authorization=value))
    assert (answer.outcome, answer.status) == (WAIT, None)
    assert server.received == []


@pytest.mark.parametrize("headers", [{"X-A\r\nX-B": "1"}, {"X-A": "1\n2"}, {"": "1"}, {"X A": "1"}])
def test_a_header_can_t_smuggle_another_one_in(headers: dict[str, str], server: FaultServer, client: Make) -> None:
    assert client(server.url).post(b"", headers).outcome is WAIT
    assert server.received == []


@pytest.mark.parametrize("allowed", [False, True])
def test_credentials_leave_the_machine_without_tls_only_if_the_admin_says_so(
    allowed: bool, server: FaultServer, client: Make
) -> None:
    """Through a proxy even what seems to be this machine is another one."""
    server.script(status(401), status(403))
    with Proxy(names={"lab.example": ("127.0.0.1", server.port)}) as proxy:
        for url in ("http://lab.example", server.url):
            one = client(url, proxy=proxy.url, plain_credentials=allowed, headers={"authorization": TOKEN})
            answer = post(one)
            assert answer.outcome is WAIT
            assert ("none are sent without TLS" in answer.words) is not allowed
    assert ["authorization" in request.headers for request in server.received] == [allowed, allowed]


def test_credentials_reach_another_address_than_loopback_only_with_tls(client: Make) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing, chooses the interface
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = str(asking.getsockname()[0])
    with FaultServer(host=address) as server:
        server.script(status(401), ok)
        assert "none are sent without TLS" in post(client(server.url)).words
        assert post(client(server.url, plain_credentials=True)).outcome is DELIVERED
        assert ["authorization" in request.headers for request in server.received] == [False, True]


# --- addresses ---

REFUSED = "it leads to a private address, which a course's URL may not reach"
PRIVATE = """127.0.0.1 127.1 127.0.0.2 0x7f000001 2130706433 0177.0.0.1 0x7f.1 0 0.0.0.0 localhost [::1] [::]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] [fe80::1] [fec0::1] [fc00::1]
    [fd00:ec2::254] 169.254.169.254 2852039166 10.0.0.1 10.255.255.255 172.16.0.1 192.168.1.1 100.64.0.1 100.100.100.200
    192.0.0.192 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16 １２７.0.0.1 127。0。0。1
    LOCALHOST""".split()


@pytest.mark.parametrize("host", PRIVATE)
def test_a_course_s_url_reaches_no_private_address_however_it_is_spelled(
    host: str, server: FaultServer, client: Make
) -> None:
    for scheme in ("http", "https"):
        answer = post(client(f"{scheme}://{host}:{server.port}", private=False))
        assert answer.status is None
        # What is no address to this machine's resolver (0x7f.1 is one for some), leads nowhere either.
        assert answer.words in (REFUSED, "its name can't be resolved", "the URL's host can't be understood")
    assert server.accepted == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f000001", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"])
def test_a_private_address_is_said_to_be_one(host: str, client: Make) -> None:
    answer = post(client(f"http://{host}:9", private=False))
    assert answer == Answer(None, REFUSED, RETRY)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "169.254.169.254"])
def test_a_name_that_leads_to_a_private_address_is_refused(address: str, server: FaultServer, client: Make) -> None:
    one = client(f"http://school.example:{server.port}", leads_to(address), private=False)
    assert "private address" in post(one).words
    assert server.accepted == 0


def test_a_name_is_looked_up_once_for_the_check_and_the_connection(server: FaultServer, client: Make) -> None:
    """Else it could lead to a public address for the check, and to a private one for the connection."""
    asked = []

    def resolve(host: str, port: int, *_: Any) -> list[Any]:
        asked.append(host)
        return leads_to("127.0.0.1")(host, port)

    assert post(client(f"http://twice.example:{server.port}", resolve)).outcome is DELIVERED
    assert asked == ["twice.example"]


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example", "a..b"])
def test_a_host_that_can_t_be_resolved_is_tried_again(host: str, client: Make) -> None:
    assert post(client(f"http://{host}")) == Answer(None, "its name can't be resolved", RETRY)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://receiver.example/v1/telemetry?asset_id=145", None),
        ("http://127.0.0.1:8000", None),
        ("HTTPS://[2001:db8::1]:8443/a", None),
        ("http://niño.example/año", None),
        ("http://under_score.example:/", None),
        ("", "http"),
        ("receiver.example/v1", "http"),
        ("file:///etc/passwd", "http"),
        ("unix:///run/docker.sock", "http"),
        ("http+unix://%2Frun%2Fdocker.sock/", "http"),
        ("ftp://receiver.example", "http"),
        ("javascript:alert(1)", "http"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://:80/", "no host"),
        ("https:receiver.example", "no host"),
        ("http://user@receiver.example/", "user name or a password"),
        ("http://user:secret@receiver.example/", "user name or a password"),
        ("http://good.example\\@evil.example/", "user name or a password"),
        ("http://@receiver.example/", "user name or a password"),
        ("http://evil.example\\.good.example/", "host can't"),
        ("http://%31%32%37.0.0.1/", "host can't"),
        ("http://[::1", "host can't"),
        ("http://[fe80::1%25eth0]/", "host can't"),
        ("http://[v1.x]/", "host can't"),
        ("http://a,b/", "host can't"),
        ("http://receiver.example:http/", "port"),
        ("http://receiver.example:0/", "port"),
        ("http://receiver.example:65536/", "port"),
        ("http://receiver.example:-1/", "port"),
        ("http://receiver.example:80:80/", ""),
        (" http://receiver.example/", "space"),
        ("http://receiver.example/a b", "space"),
        ("http://receiver.example/a\r\nX-Injected: 1", "space"),
        ("http://rece\tiver.example/", "space"),
        ("http://receiver.example/\0", "space"),
        ("http://receiver.example/\u2028", "space"),
    ],
)
def test_a_url_says_itself_whether_it_can_be_a_destination(url: str, words: str | None, client: Make) -> None:
    problem = problem_of(url)
    if words is None:
        assert problem is None
        return
    assert problem is not None
    assert words in problem
    assert "\n" not in problem
    assert "secret" not in problem
    assert Server(Destination(url)).post(b"", {}) == Answer(None, problem, WAIT)


def test_asking_about_a_url_loads_nothing_heavy() -> None:
    code = "import sys, agent.core.urls; print(*{'requests', 'ssl', 'http.client', 'socket'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


# --- TLS ---


def test_a_school_s_own_authority_is_trusted_if_the_admin_names_it(school: Tls, client: Make) -> None:
    with FaultServer(school) as server:
        for host in ("127.0.0.1", "localhost"):
            one = client(f"https://{host}:{server.port}", ca_file=str(school.ca_file))
            for _ in range(3):
                assert post(one, bytes(200_000)).outcome is DELIVERED
        assert server.accepted == 2
        assert len(server.received) == 6
        assert server.received[0].headers["authorization"] == f"Token {TOKEN}"


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_the_same_behaviours_have_the_same_outcomes_within_tls(name: str, school: Tls, client: Make) -> None:
    fault, outcome, number, _ = BEHAVIOURS[name]
    with FaultServer(school) as server:
        server.script(ok, fault, status(422))
        one = client(server.url, ca_file=str(school.ca_file))
        post(one)
        answer = post(one)
        assert (answer.outcome, answer.status) == (outcome, number)
        assert post(one).status == 422


@pytest.mark.parametrize("who", ["self-signed", "own authority", "another name"])
def test_nothing_is_sent_to_a_server_whose_certificate_is_not_trusted(
    who: str, school: Tls, stranger: Tls, client: Make, tmp_path: Path
) -> None:
    ca_file = None
    match who:
        case "self-signed":
            tls = stranger
        case "own authority":
            tls = school
        case _:
            tls = faults.self_signed(tmp_path, "subjectAltName=DNS:other.example")
            ca_file = str(tls.ca_file)
    with FaultServer(tls) as server:
        answer = post(client(server.url, ca_file=ca_file))
        assert (answer.outcome, answer.status) == (RETRY, None)
        assert answer.words.startswith("its certificate is not trusted: ")
        until(lambda: server.open_connections == 0)
        assert server.received == []


def test_a_file_of_certificates_that_can_t_be_read_waits_for_somebody(client: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no certificate\n")
    for name, words in (("missing", "No such file or directory"), ("empty", "it holds no certificate"), (".", "")):
        answer = post(client("https://127.0.0.1:9", ca_file=str(tmp_path / name)))
        assert (answer.outcome, answer.status) == (WAIT, None)
        assert "ca_file can't be read" in answer.words
        assert words in answer.words


def test_a_file_of_certificates_that_was_replaced_is_read_again(
    school: Tls, stranger: Tls, client: Make, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(stranger.ca_file.read_bytes())
    with FaultServer(school) as server:
        one = client(server.url, ca_file=str(file))
        assert post(one).outcome is RETRY
        file.write_bytes(school.ca_file.read_bytes() + b"\n")
        assert post(one).outcome is DELIVERED


def test_a_server_without_tls_behind_an_https_url_gets_nothing(server: FaultServer, client: Make) -> None:
    answer = post(client(server.url.replace("http:", "https:")))
    assert (answer.outcome, answer.status) == (RETRY, None)
    assert server.received == []


# --- proxies ---


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_that_wants_a_password_waits_for_it_and_tells_nobody(secure: bool, school: Tls, client: Make) -> None:
    with FaultServer(school if secure else None) as server, Proxy(password=f"pupil:{PASSWORD}") as proxy:
        answer = post(client(server.url, proxy=proxy.url, ca_file=str(school.ca_file)))
        assert (answer.outcome, answer.status, answer.words) == (WAIT, 407, "407: the proxy wants credentials")
        assert server.accepted == 0
        one = client(server.url, proxy=proxy.url_with_password, ca_file=str(school.ca_file))
        assert post(one).outcome is DELIVERED
        (request,) = server.received
        assert [name for name in request.headers if "proxy" in name] == []
        assert ("authorization" in request.headers) is secure
        assert TOKEN not in repr(proxy.asked)
        assert ("secret-path" in repr(proxy.asked)) is not secure


def test_a_proxy_s_password_may_hold_any_character(server: FaultServer, client: Make) -> None:
    with Proxy(password="o'b@ña:/%") as proxy:
        url = proxy.url.replace("http://", "http://o'b%40%C3%B1a:%2F%25@")
        assert post(client(server.url, proxy=url)).outcome is DELIVERED


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_may_be_reached_by_tls(secure: bool, school: Tls, stranger: Tls, client: Make) -> None:
    ca_file = str(school.ca_file)
    with FaultServer(school if secure else None) as server:
        with Proxy(tls=school) as proxy:
            one = client(server.url, proxy=proxy.url, ca_file=ca_file)
            for _ in range(2):
                assert post(one, bytes(100_000)).outcome is DELIVERED
            # What is forwarded without a tunnel is a connection for each post, at this proxy.
            assert proxy.accepted == (1 if secure else 2)
        with Proxy(tls=stranger) as proxy:
            answer = post(client(server.url, proxy=proxy.url, ca_file=ca_file))
            assert answer.outcome is RETRY
            assert answer.words.startswith("the proxy can't be reached: its certificate is not trusted")
        assert len(server.received) == 2


@pytest.mark.parametrize(
    ("number", "outcome", "words"),
    [
        (401, WAIT, "does not allow it"),
        (403, WAIT, "does not allow it"),
        (302, RETRY, "does not reach it"),
        (404, RETRY, "does not reach it"),
        (413, RETRY, "does not reach it"),
        (502, RETRY, "does not reach it"),
    ],
)
def test_what_a_proxy_says_of_the_way_is_not_said_of_the_records(
    number: int, outcome: Outcome, words: str, client: Make
) -> None:
    with Proxy(refusal=number) as proxy:
        answer = post(client("https://lab.example", proxy=proxy.url))
    assert (answer.outcome, answer.status) == (outcome, number)
    assert words in answer.words


def test_a_proxy_that_is_not_there_is_tried_again(client: Make) -> None:
    with Proxy() as proxy:
        url = proxy.url
    answer = post(client("https://lab.example", proxy=url))
    assert answer == Answer(None, "the proxy can't be reached: Connection refused", RETRY)
    answer = post(client("https://lab.example", without_names, proxy="http://proxy.example"))
    assert answer == Answer(None, "the proxy can't be reached: its name can't be resolved", RETRY)


@pytest.mark.parametrize("url", ["socks5://u:pr0xy-pass@h:1", "http://u:pr0xy-pass@h:x", "http://", "u:pr0xy-pass@h:x"])
def test_a_proxy_that_can_t_be_understood_waits_for_somebody(url: str, client: Make) -> None:
    answer = post(client("https://lab.example", proxy=url))
    assert (answer.outcome, answer.status) == (WAIT, None)
    assert "prox" in answer.words


def test_a_proxy_does_not_open_the_way_to_private_addresses(server: FaultServer, client: Make) -> None:
    names = {"lab.example": ("127.0.0.1", server.port)}
    with Proxy(names=names) as proxy:
        for host in ("127.0.0.1", "localhost", "0x7f000001", "[::1]", "169.254.169.254"):
            for scheme in ("http", "https"):
                one = client(f"{scheme}://{host}:{server.port}", proxy=proxy.url, private=False)
                assert "private address" in post(one).words
        one = client("http://lab.example", leads_to("8.8.8.8", "10.0.0.1"), proxy=proxy.url, private=False)
        assert "private address" in post(one).words
        assert proxy.accepted == 0
        # What nobody knows here, the proxy decides.
        for resolve in (only_proxies, leads_nowhere_but_to_proxies):
            one = client("http://lab.example", resolve, proxy=proxy.url, private=False)
            assert post(one).outcome is DELIVERED
    assert len(server.received) == 2


def only_proxies(host: str, port: int, *_: Any) -> list[Any]:
    """A machine that resolves addresses only."""
    if host != "127.0.0.1":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return cast("list[Any]", socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))


def leads_nowhere_but_to_proxies(host: str, port: int, *_: Any) -> list[Any]:
    return only_proxies(host, port) if host == "127.0.0.1" else []


@pytest.mark.parametrize(
    ("variable", "no_proxy", "is_used"),
    [
        ("http_proxy", "", True),
        ("HTTP_PROXY", "", True),
        ("ALL_PROXY", "", True),
        ("https_proxy", "", False),
        ("http_proxy", "other.example,10.0.0.0/8", True),
        ("http_proxy", "*", False),
        ("http_proxy", "127.0.0.1", False),
        ("http_proxy", "a.example, 127.0.0.0/8", False),
        ("http_proxy", "nonsense/99,127.0.0.1", False),
    ],
)
def test_the_environment_s_proxies_are_used_as_other_programs_use_them(
    variable: str, no_proxy: str, is_used: bool, server: FaultServer, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv(variable, proxy.url.removeprefix("http://") if variable == "http_proxy" else proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert post(client(server.url, proxy=None)).outcome is DELIVERED
        assert (proxy.accepted == 1) is is_used
        assert post(client(server.url, proxy="")).outcome is DELIVERED
        assert (proxy.accepted == 1) is is_used


def test_names_are_taken_out_of_the_environment_s_proxies_by_their_ends(
    server: FaultServer, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", ".school.example")
        resolve = leads_to("127.0.0.1")
        one = client(f"http://lab.school.example:{server.port}", resolve, proxy=None)
        assert post(one).outcome is DELIVERED
        assert proxy.accepted == 0
