"""The courier and its threads, against real servers that fail: tests/sinks/faults.py."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from agent.config import Config, Credential, Send, SinkConfig
from agent.core.course import Course
from agent.core.delivery import ALL_REJECTED
from agent.core.events import Event
from agent.courier import Courier
from agent.destinations import KINDS, Kind
from agent.sending import sinks_of
from agent.store.journal import NAME, Journal
from agent.store.outbox import NAME as OUTBOX
from agent.store.outbox import Outbox
from tests.making import COURSE, a_compile, a_test, opened, session_end, session_start
from tests.sinks.faults import FaultServer, Request, deafness, ok, silence, status
from tests.standin.session import Session
from tests.store.test_journal import files_no_larger_than
from tests.until import until

#: Far more than any bound that is asked for here, for a machine that is busy elsewhere.
GENEROUS_S = 20.0
SEND = Send(proxy="none", private_addresses=True, start_spread_seconds=0)


class Lab:
    """One course's journal, and couriers for it, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = Journal.open(directory, create=True)
        self.courier: Courier | None = None

    def append(self, *events: Event) -> None:
        self.journal.append(list(events), None)
        if self.courier is not None:
            self.courier.wake()

    def config(self, *sinks: SinkConfig, **send: Any) -> Config:
        return Config(send=replace(SEND, **send), sinks=sinks)

    def start(self, *sinks: SinkConfig, course: Course = COURSE, **send: Any) -> Courier:
        self.courier = Courier(self.config(*sinks, **send), str(self.directory), course)
        return self.courier

    def abandon(self) -> None:
        """As a process that ends without a last try."""
        if self.courier is not None:
            self.courier.begin_finish(send=False)
            self.courier = None
            until(lambda: not sink_threads())

    def asked(self, *sinks: SinkConfig, course: Course = COURSE) -> dict[str, dict[str, Any]]:
        """What `queue` would say, by the sink's name."""
        rows = sinks_of(self.config(*sinks), course, self.journal, str(self.directory))
        return {row["name"]: row for row in rows}

    def begin_another_journal(self) -> None:
        self.journal.close()
        for path in self.directory.glob(f"{NAME}*"):
            path.unlink()
        self.journal = Journal.open(self.directory, create=True)

    def cursor(self, name: str) -> int:
        with Outbox(self.directory, self.journal.id, read_only=True) as outbox:
            return outbox.cursor(name)

    def parked(self, name: str) -> list[int]:
        with Outbox(self.directory, self.journal.id, read_only=True) as outbox:
            return [one.number for one in outbox.parked(name)]


@pytest.fixture
def servers() -> Iterator[Callable[[], FaultServer]]:
    made: list[FaultServer] = []

    def make() -> FaultServer:
        made.append(FaultServer())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def server(servers: Callable[[], FaultServer]) -> FaultServer:
    return servers()


@pytest.fixture
def lab(state_dir: Path, servers: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """After the test the servers are closed first, so that no thread waits for one."""
    monkeypatch.setattr(random, "random", lambda: 0.01)  # the shortest pauses of the table
    lab = Lab(state_dir)
    yield lab
    if lab.courier is not None:
        lab.courier.begin_finish(send=False)
    lab.journal.close()


def streaming(server: FaultServer, name: str = "a", **more: Any) -> SinkConfig:
    return SinkConfig(name, "learnpack-streaming", server.url, **more)


def xapi(server: FaultServer, name: str = "x") -> SinkConfig:
    return SinkConfig(name, "xapi", server.url, delay_seconds=0)


def batch(server: FaultServer, name: str = "b") -> SinkConfig:
    return SinkConfig(name, "learnpack-batch", server.url, delay_seconds=0)


def sink_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sink ")]


def sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return count


def number_of(request: Request) -> int:
    """Of the event, by its header."""
    return int(request.headers["idempotency-key"].strip('"').rpartition("-")[2])


def numbers(server: FaultServer) -> list[int]:
    return [number_of(request) for request in server.delivered]


def runs(count: int, first: int = 1) -> list[Event]:
    return [a_test("01-hello", number, number + 0.5) for number in range(first, first + count)]


# --- order, ids, retries ---


def test_every_event_goes_once_in_order_and_what_comes_later_goes_too(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(30))
    lab.start(streaming(server))
    server.wait_for(30)
    lab.append(*runs(10, first=50))
    server.wait_for(40)
    assert numbers(server) == list(range(1, 41))


def test_whatever_the_server_does_the_same_bytes_come_again_until_they_are_taken(lab: Lab, server: FaultServer) -> None:
    from tests.sinks import faults

    bad = [
        status(500),
        status(503, {"Retry-After": "0"}),
        status(429),
        status(408),
        faults.reset_unread,
        faults.reset_read,
        faults.close_read,
        faults.reset_answering,
        faults.close_in_head,
        faults.page,
        faults.garbage,
        faults.wrong_length(50),
    ]
    lab.append(*runs(len(bad)))
    server.script(*(one for fault in bad for one in (fault, ok)))
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == len(bad))
    bodies: dict[int, set[bytes]] = {}
    for request in server.received:
        bodies.setdefault(number_of(request), set()).add(request.body)
    assert list(bodies) == list(range(1, len(bad) + 1)), "in order, by the first time"
    assert {len(one) for one in bodies.values()} == {1}
    assert numbers(server) == sorted(numbers(server))
    assert lab.parked("a") == []


def test_a_courier_that_ends_at_any_moment_is_gone_on_with_by_the_next(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(40))
    for life in range(5):
        lab.start(streaming(server))
        server.wait_for(5 * life + 3)
        lab.abandon()
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 40)
    assert list(dict.fromkeys(numbers(server))) == list(range(1, 41))
    assert numbers(server) == sorted(numbers(server))


def test_at_the_start_what_waits_is_spread_and_somebody_who_wants_it_now_gets_it(
    lab: Lab, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    lab.append(*runs(3))
    courier = lab.start(streaming(server), start_spread_seconds=3600)
    lab.append(*runs(1, first=9))
    (line,) = courier._lines.values()
    assert line._due - time.monotonic() > 1700
    assert server.accepted == 0
    courier.wake(now=True)
    server.wait_for(4)


# --- what is rejected ---


def test_a_bad_record_among_many_is_found_and_parked_and_can_be_sent_again(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(60))

    def judged(request: Request) -> Any:
        is_bad = any(one["timestamp"] == bad_at for one in json.loads(request.body))
        return status(400) if is_bad else ok

    bad_at = "2023-11-14T22:13:50.500Z"  # of number 30
    server.behave = judged
    courier = lab.start(xapi(server))
    until(lambda: lab.cursor("x") == 60)
    assert lab.parked("x") == [30]
    row = lab.asked(xapi(server))["x"]
    assert (row["waiting"], row["why"]) == (0, None)
    assert row["parked"][0]["words"] == "400: it does not take this"
    sent = [one["id"] for request in server.delivered for one in json.loads(request.body)]
    assert len(sent) == len(set(sent)) == 59
    server.behave = lambda _: ok
    with Outbox(lab.directory, lab.journal.id) as outbox:
        outbox.send_again("x")
    courier.wake(now=True)
    until(lambda: lab.parked("x") == [])
    sent = [one["id"] for request in server.delivered for one in json.loads(request.body)]
    assert len(sent) == len(set(sent)) == 60


def test_a_server_that_rejects_everything_parks_nine_and_gets_them_all_when_it_takes_something_again(
    lab: Lab, server: FaultServer
) -> None:
    lab.append(*runs(40))
    server.behave = lambda _: status(404)
    courier = lab.start(streaming(server))
    until(lambda: lab.asked(streaming(server))["a"]["waits_for_somebody"])
    assert lab.parked("a") == list(range(1, ALL_REJECTED))
    row = lab.asked(streaming(server))["a"]
    assert row["why"] == "it rejects everything (404: it does not take this)"
    for _ in range(3):  # somebody asks, and it is as it was
        count = len(server.received)
        courier.wake(now=True)
        server.wait_for(count + 1)
    assert len(lab.parked("a")) == ALL_REJECTED - 1
    server.behave = lambda _: ok
    courier.wake(now=True)
    until(lambda: lab.cursor("a") == 40 and not lab.parked("a"))
    assert sorted(set(numbers(server))) == list(range(1, 41))
    assert lab.asked(streaming(server))["a"]["why"] is None


def test_neither_a_restart_nor_an_outage_makes_it_park_more_or_forget_them(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(40))
    server.behave = lambda _: status(404)
    for _ in range(4):
        count = len(server.received)
        lab.start(streaming(server))
        server.wait_for(count + 1)
        until(lambda: lab.asked(streaming(server))["a"]["waits_for_somebody"])
        lab.abandon()
    assert lab.parked("a") == list(range(1, ALL_REJECTED))
    server.behave = lambda _: ok
    server.script(status(503))
    courier = lab.start(streaming(server))
    server.wait_for(len(server.received) + 1)
    courier.wake(now=True)
    until(lambda: lab.cursor("a") == 40 and not lab.parked("a"))
    assert sorted(set(numbers(server))) == list(range(1, 41))


def test_many_events_that_are_too_large_for_a_server_don_t_hold_up_the_others(lab: Lab, server: FaultServer) -> None:
    large = [a_test("01-hello", number, number, stdout="x" * 20_000) for number in range(1, 3 * ALL_REJECTED)]
    lab.append(*large, *runs(2, first=100))
    server.behave = lambda request: status(413) if request.length > 10_000 else ok
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == len(large) + 2)
    assert numbers(server) == [len(large) + 1, len(large) + 2]
    assert len(lab.parked("a")) == len(large)


def test_many_parked_records_that_are_sent_again_in_vain_don_t_hold_up_new_ones(lab: Lab, server: FaultServer) -> None:
    count = 3 * ALL_REJECTED
    lab.append(*runs(count))
    # Every fifth is taken: it is not everything that is rejected.
    server.behave = lambda request: ok if number_of(request) % 5 == 0 else status(400)
    courier = lab.start(streaming(server))
    until(lambda: lab.cursor("a") == count)
    server.behave = lambda request: ok if number_of(request) > count else status(400)
    with Outbox(lab.directory, lab.journal.id) as outbox:
        assert outbox.send_again("a") == count * 4 // 5
    lab.append(*runs(1, first=100))
    courier.wake(now=True)
    until(lambda: lab.cursor("a") == count + 1)
    assert len(lab.parked("a")) == count * 4 // 5


# --- credentials ---


def test_401_is_said_once_however_many_events_come_and_nothing_is_lost(
    lab: Lab, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "learnpack-agent")
    server.behave = lambda _: status(401)
    courier = lab.start(streaming(server))
    lab.append(*runs(1))
    until(lambda: lab.asked(streaming(server))["a"]["waits_for_somebody"])
    for number in range(2, 30):
        lab.append(*runs(1, first=number))
    courier.wake(now=True)  # somebody asks, in vain
    server.wait_for(2)
    until(lambda: len(sink_threads()) == 1)
    assert len(server.received) == 2, "events don't ask again, a person does"
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    (warning,) = warnings
    host = server.url.partition("//")[2]
    assert warning.getMessage() == f"a ({host}) takes nothing now, everything waits: 401: it wants credentials"
    server.behave = lambda _: ok
    courier.wake(now=True)
    until(lambda: lab.cursor("a") == 29)
    assert numbers(server) == list(range(1, 30))
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == [
        f"a ({host}) takes records again"
    ]


def test_what_an_earlier_life_said_of_a_server_is_withdrawn_when_it_takes_something(
    lab: Lab, server: FaultServer
) -> None:
    lab.append(*runs(1))
    server.behave = lambda _: status(401)
    lab.start(streaming(server))
    until(lambda: lab.asked(streaming(server))["a"]["why"] == "401: it wants credentials")
    lab.abandon()
    server.behave = lambda _: ok
    lab.start(streaming(server))
    until(lambda: lab.asked(streaming(server))["a"]["why"] is None)
    assert lab.cursor("a") == 1


# --- one beside the other, and at rest ---


@pytest.mark.parametrize("dead", [silence, deafness], ids=["silent", "deaf"])
def test_a_dead_server_delays_no_other(lab: Lab, servers: Callable[[], FaultServer], dead: Any, tmp_path: Path) -> None:
    one, other = servers(), servers()
    one.behave = lambda _: dead
    sinks = [streaming(one, "dead"), xapi(one, "dead-x"), batch(one, "dead-b"), streaming(other, "alive")]
    files = SinkConfig("files", "jsonl", directory=str(tmp_path / "files"), delay_seconds=0)
    (tmp_path / "files").mkdir()
    lab.append(session_start(0), *runs(20))
    lab.start(*sinks, files)
    until(lambda: one.accepted >= 3)
    began = time.monotonic()
    for number in range(30, 40):
        lab.append(*runs(1, first=number))
    other.wait_for(30)
    until(lambda: lab.cursor("files") == 31)
    assert time.monotonic() - began < GENEROUS_S
    assert [lab.cursor(name) for name in ("dead", "dead-x", "dead-b")] == [0, 0, 0]
    assert not one.delivered


def test_with_an_empty_queue_there_is_no_thread_and_no_connection(
    lab: Lab, server: FaultServer, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    files = SinkConfig("files", "jsonl", directory=str(tmp_path / "files"), delay_seconds=0)
    sinks = [streaming(server), xapi(server), batch(server), files, SinkConfig("o", "otlp", server.url, "", 0)]
    lab.start(*sinks)
    for first in (1, 100):
        lab.append(session_start(first), *runs(20, first=first + 1))
        until(lambda: all(lab.cursor(one.name) == lab.journal.last_number for one in sinks))
        until(lambda: not sink_threads() and server.open_connections == 0)
        until(lambda: sockets() == 1)  # the server's own, which listens
        opened_now = {os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
        assert not any(path.endswith(OUTBOX) for path in opened_now)


# --- sinks that come and go ---


def test_a_sink_that_is_taken_out_keeps_its_place_and_goes_on_when_it_is_back(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(10))
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 10)
    lab.abandon()
    lab.start()
    lab.append(*runs(10, first=20))
    lab.abandon()
    row = lab.asked()["a"]
    assert (row["waiting"], row["refused"]) == (10, "it is not configured any more")
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 20)
    assert numbers(server) == list(range(1, 21))


def test_with_another_journal_every_sink_begins_anew(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(10))
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 10)
    until(lambda: not sink_threads())
    lab.begin_another_journal()
    lab.append(*runs(3))
    server.wait_for(13)
    keys = [request.headers["idempotency-key"].strip('"') for request in server.received]
    assert keys[10:] == [f"{lab.journal.id}-{number}" for number in (1, 2, 3)]
    assert len(set(keys)) == 13


def test_learn_json_s_urls_come_and_go_while_it_runs(lab: Lab, servers: Callable[[], FaultServer]) -> None:
    one, other = servers(), servers()
    courier = lab.start()
    lab.append(*runs(2))
    courier.set_course(replace(COURSE, streaming=one.url))
    one.wait_for(2)
    until(lambda: lab.cursor("course-streaming") == 2)
    courier.set_course(COURSE)
    lab.append(*runs(2, first=10))
    courier.set_course(replace(COURSE, streaming=other.url))
    other.wait_for(2)
    assert (numbers(one), numbers(other)) == ([1, 2], [3, 4])


# --- another configuration ---


def test_sinks_that_are_configured_from_now_on_get_what_waits_and_others_no_more(
    lab: Lab, servers: Callable[[], FaultServer]
) -> None:
    first, second = servers(), servers()
    lab.append(*runs(2))
    courier = lab.start(streaming(first))
    first.wait_for(2)
    until(lambda: lab.cursor("a") == 2)
    courier.set_config(lab.config(streaming(second, "b")))
    second.wait_for(2)
    lab.append(*runs(1, first=10))
    second.wait_for(3)
    assert (numbers(first), numbers(second)) == ([1, 2], [1, 2, 3])


def test_a_configuration_with_the_same_sinks_disturbs_none(lab: Lab, server: FaultServer) -> None:
    courier = lab.start(streaming(server))
    before = dict(courier._lines)
    courier.set_config(replace(lab.config(streaming(server)), idle_minutes=9, document_max_mb=3))
    assert courier._lines == before
    for other in (
        lab.config(streaming(server), output=False),
        replace(lab.config(streaming(server)), credentials={"a.example": Credential(token="t")}),
    ):
        courier.set_config(other)
        assert courier._lines["a"] is not before["a"]
        before = dict(courier._lines)


def test_what_is_on_its_way_is_broken_off_and_sent_as_it_is_wanted_now(lab: Lab, server: FaultServer) -> None:
    server.script(silence)
    courier = lab.start(streaming(server))
    lab.append(*runs(1))
    server.wait_for(1)
    began = time.monotonic()
    courier.set_config(lab.config(streaming(server), source_code=False))
    until(lambda: lab.cursor("a") == 1)
    assert time.monotonic() - began < GENEROUS_S
    assert [number_of(request) for request in server.received] == [1, 1]
    until(lambda: not sink_threads())


def test_a_host_that_is_not_allowed_any_more_gets_nothing_and_that_is_said_again(
    lab: Lab, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    course = replace(COURSE, streaming=server.url)
    courier = lab.start(course=course)
    assert list(courier._lines) == ["course-streaming"]
    for times in (1, 2):
        courier.set_config(lab.config(course_hosts=()))
        assert courier._lines == {}
        assert caplog.text.count("course-streaming is not used") == times
        courier.set_config(lab.config())


def test_a_host_that_a_course_may_not_name_gets_nothing(
    lab: Lab, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    lab.append(*runs(2))
    course = replace(COURSE, streaming=server.url, batch=server.url)
    lab.start(streaming(server), course=course, course_hosts=("*.example.org",))
    until(lambda: lab.cursor("a") == 2)
    until(lambda: not sink_threads())
    assert numbers(server) == [1, 2], "what the admin named himself"
    assert "does not let a course name 127.0.0.1" in caplog.text


# --- LearnPack beside us ---


def logged_in_course(root: Path, server: FaultServer, **payload: str) -> Course:
    (root / ".learn").mkdir(parents=True)
    Session(str(root / ".learn")).log_in({"token": "t", **payload})
    return replace(COURSE, root=str(root), batch=server.url)


def test_after_learnpack_s_own_batch_ours_is_sent_once_more(
    lab: Lab, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = replace(KINDS["learnpack-batch"], delay_ms=0)
    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "learnpack-batch", at_once)
    course = logged_in_course(tmp_path / "course", server)
    lab.append(session_start(1))
    courier = lab.start(course=course)
    until(lambda: lab.cursor("course-batch") == 1 and not sink_threads())
    count = len(server.received)
    courier.wake()
    until(lambda: not sink_threads())
    assert len(server.received) == count, "nothing is new"
    server.script(status(503), status(503))  # it is not forgotten by a failure
    courier.overtaken()
    until(lambda: len(server.delivered) == count + 1 and not sink_threads())
    courier.wake()
    until(lambda: not sink_threads())
    assert len(server.delivered) == count + 1, "once, not for ever"


def test_who_logs_in_after_a_401_need_not_wait_for_the_next_hour(lab: Lab, server: FaultServer, tmp_path: Path) -> None:
    root = tmp_path / "course"
    (root / ".learn").mkdir(parents=True)
    course = replace(COURSE, root=str(root), streaming=server.url)
    server.behave = lambda request: ok if request.headers.get("authorization") == "Token t" else status(401)
    host = server.url.removeprefix("http://").split("/")[0]
    config = replace(lab.config(), credentials={host: Credential(learnpack_session=True)})
    lab.append(opened("01-hello", 1))
    lab.courier = Courier(config, str(lab.directory), course)
    until(lambda: lab.asked(course=course)["course-streaming"]["waits_for_somebody"])
    lab.append(opened("02-sum", 2))
    Session(str(root / ".learn")).log_in({"token": "t"})
    lab.append(opened("03-reading", 3))
    until(lambda: lab.cursor("course-streaming") == 3)
    assert [number_of(request) for request in server.delivered] == [1, 2, 3]


def test_a_document_is_made_no_more_often_than_it_costs(
    lab: Lab, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.courier.DOCUMENT_DUTY", 1e9)
    lab.append(session_start(1))
    courier = lab.start(batch(server))
    until(lambda: lab.cursor("b") == 1)
    lab.append(opened("01-hello", 2))
    until(lambda: lab.asked(batch(server))["b"]["waiting"] == 1)
    courier.wake(now=True)
    until(lambda: lab.cursor("b") == 2)
    assert len(server.delivered) == 2


def test_where_nobody_is_logged_in_learnpack_sends_nothing_and_ours_is_not_repeated(
    lab: Lab, server: FaultServer
) -> None:
    lab.append(session_start(1))
    courier = lab.start(course=replace(COURSE, batch=server.url))
    courier.wake(now=True)
    until(lambda: lab.cursor("course-batch") == 1 and not sink_threads())
    courier.overtaken()
    assert not sink_threads()
    assert len(server.received) == 1


def test_the_name_of_a_student_who_logs_in_later_is_taken_out_from_then_on(
    lab: Lab, server: FaultServer, tmp_path: Path
) -> None:
    course = replace(COURSE, root=str(tmp_path / "course"))
    lab.append(a_test("01-hello", 1, 2, stdout="by Grizelda"))
    lab.start(streaming(server), course=course)
    until(lambda: lab.cursor("a") == 1)
    logged_in_course(tmp_path / "course", server, first_name="Grizelda")
    lab.append(a_test("01-hello", 3, 4, stdout="by Grizelda"))
    server.wait_for(2)
    from base64 import b64decode

    said = [b64decode(json.loads(request.body)["data"]["stdout"]) for request in server.received]
    assert said == [b"by Grizelda", b"by [name]"]


def test_a_document_that_holds_less_than_the_last_waits_and_says_so(
    lab: Lab, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    lab.append(session_start(0), *runs(3))
    courier = lab.start(batch(server))
    until(lambda: lab.cursor("b") == 4 and not sink_threads())
    lab.begin_another_journal()
    lab.append(session_start(0), *runs(1))
    until(lambda: lab.asked(batch(server))["b"]["why"])
    row = lab.asked(batch(server))["b"]
    assert row["why"] == "the document holds less than what was sent last (01-hello: tests 3 → 1): not sent"
    assert row["waits_for_somebody"] and row["waiting"] == 2
    assert row["why"] in caplog.text
    assert len(server.received) == 1
    lab.append(*runs(2, first=9))
    courier.wake(now=True)
    until(lambda: lab.cursor("b") == 4)
    assert len(server.received) == 2


# --- the end ---


@pytest.mark.parametrize("bound_ms", [0, 300])
def test_the_end_takes_no_longer_than_it_may_beside_a_server_that_never_answers(
    lab: Lab, servers: Callable[[], FaultServer], bound_ms: int
) -> None:
    dead = servers()
    dead.behave = lambda _: silence
    lab.append(session_start(0), *runs(5))
    courier = lab.start(streaming(dead), xapi(dead), batch(dead), final_milliseconds=bound_ms)
    until(lambda: dead.accepted >= 3)
    began = time.monotonic()
    courier.begin_finish(send=True)
    courier.finish()
    took = time.monotonic() - began
    assert took < bound_ms / 1000 + 1.0
    assert [lab.cursor(name) for name in ("a", "x", "b")] == [0, 0, 0]


def test_the_end_sends_what_waits_for_a_later_moment(lab: Lab, server: FaultServer) -> None:
    slow = [replace(streaming(server), delay_seconds=3600), replace(batch(server), delay_seconds=3600)]
    courier = lab.start(*slow, final_milliseconds=int(GENEROUS_S * 1000))
    lab.append(session_start(1), opened("01-hello", 2), a_compile("01-hello", 3, 4))
    assert server.accepted == 0
    began = time.monotonic()
    courier.begin_finish(send=True)
    courier.finish()
    assert time.monotonic() - began < GENEROUS_S, "it does not wait longer than for the answers"
    assert (lab.cursor("a"), lab.cursor("b")) == (3, 3)
    assert len(server.delivered) == 3


def test_the_end_tries_a_server_once_more_that_failed_and_what_it_does_not_take_goes_at_the_next_start(
    lab: Lab, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.99)
    server.behave = lambda _: status(503, {"Retry-After": "3600"})
    lab.append(*runs(3))
    courier = lab.start(streaming(server), final_milliseconds=int(GENEROUS_S * 1000))
    until(lambda: lab.asked(streaming(server))["a"]["why"])
    lab.append(session_end(50))
    courier.begin_finish(send=True)
    courier.finish()
    assert len(server.received) == 2
    assert not sink_threads()
    server.behave = lambda _: ok
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 4)
    assert numbers(server) == [1, 2, 3]


def test_what_is_journaled_while_a_turn_comes_to_its_end_is_tried_at_the_end(lab: Lab, server: FaultServer) -> None:
    """The end comes in the moment between a turn's last look at the journal and its end."""
    for number in range(1, 9):
        courier = lab.start(streaming(server), final_milliseconds=int(GENEROUS_S * 1000))
        lab.append(*runs(1, first=2 * number))
        server.wait_for(2 * number - 1)
        lab.append(*runs(1, first=2 * number + 1))
        courier.begin_finish(send=True)
        courier.finish()
        assert lab.cursor("a") == 2 * number
        lab.courier = None


def test_in_a_pause_nothing_is_sent_at_the_end(lab: Lab, server: FaultServer) -> None:
    courier = lab.start(replace(streaming(server), delay_seconds=3600))
    lab.append(*runs(3))
    courier.begin_finish(send=False)
    courier.finish()
    until(lambda: not sink_threads())
    assert server.accepted == 0


# --- a disk that is full ---


def test_a_full_disk_under_the_cursors_loses_nothing_and_does_not_make_it_send_the_same_for_ever(
    lab: Lab, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    lab.append(*runs(20))
    with Outbox(lab.directory, lab.journal.id) as outbox:
        log = lab.directory / f"{OUTBOX}-wal"
        for number in range(20):
            outbox.note("another", text=f"{number}" * 2000)
        assert log.stat().st_size > 50_000, "more than SQLite's other file beside it"
        with files_no_larger_than(log.stat().st_size):
            courier = lab.start(streaming(server))
            (line,) = courier._lines.values()
            until(lambda: line._circuit is not None and line._circuit.failures >= 4)
            assert set(numbers(server)) == {1}, "the first that waits, again and again"
            assert len(server.received) <= line._circuit.failures + 1 if line._circuit else False
            (warning,) = caplog.records
            assert OUTBOX in warning.getMessage()
    courier.wake(now=True)
    until(lambda: lab.cursor("a") == 20)
    assert list(dict.fromkeys(numbers(server))) == list(range(1, 21))
    assert lab.asked(streaming(server))["a"]["why"] is None


def test_while_the_disk_has_no_room_for_cursors_at_all_everything_waits(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(5))
    with files_no_larger_than(1):
        courier = lab.start(streaming(server))
        (line,) = courier._lines.values()
        until(lambda: line._circuit is not None and line._circuit.failures >= 2)
        assert lab.asked(streaming(server))["a"]["waiting"] == 5
    courier.wake(now=True)
    until(lambda: lab.cursor("a") == 5)
    assert numbers(server) == [1, 2, 3, 4, 5]


def test_a_state_directory_that_is_deleted_under_it_is_waited_for(lab: Lab, server: FaultServer) -> None:
    lab.append(*runs(1))
    courier = lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 1 and not sink_threads())
    lab.journal.close()
    shutil.rmtree(lab.directory)
    courier.wake()
    (line,) = courier._lines.values()
    until(lambda: line._circuit is not None and line._circuit.why is not None)
    lab.journal = Journal.open(lab.directory, create=True)
    lab.append(*runs(2))
    server.wait_for(3)


def test_a_damaged_list_of_what_was_sent_is_moved_aside_and_everything_is_sent_again(
    lab: Lab, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    lab.append(*runs(3))
    lab.start(streaming(server))
    until(lambda: lab.cursor("a") == 3)
    lab.abandon()
    for path in lab.directory.glob(f"{OUTBOX}-*"):
        path.unlink()
    (lab.directory / OUTBOX).write_bytes(b"no database at all" * 1000)
    lab.append(*runs(1, first=4))
    lab.start(streaming(server))
    until(lambda: numbers(server) == [1, 2, 3, 1, 2, 3, 4])
    assert len(list(lab.directory.glob(f"{OUTBOX}.damaged-*"))) == 1
    assert "everything is sent again" in caplog.text
