"""The agent's statements, against a real Learning Record Store (`ralph` in this folder)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import orjson
import pytest

from agent.core import xapi
from agent.core.bodies import Body, Sendable, Whose
from agent.core.delivery import Outcome
from agent.core.events import EVENT_TYPES, Event
from agent.core.export import public
from agent.sinks.http import Destination, Server
from agent.sinks.xapi import Xapi
from tests import making
from tests.sinks.ralph import Answer, Ralph, running_ralph

#: Texts that a terminal, an editor or a broken program may leave.
ODD = "\x1b[31mñandú\x1b[0m\x00\r\n\t\"\\ \u2028 \U0001f9ea \ufffd \x7f </script> '"

EVENTS: Sequence[Event] = (
    making.session_start(0),
    making.opened("01-hello", 1, making.visit("00-welcome", 0, 1, 500)),
    making.a_compile("01-hello", 2, 3.25, 1, **making.FULL),
    making.a_compile("01-hello", 3, 4, None, signal=9, stdout=ODD, stderr=ODD, source_code=ODD),
    making.a_compile("01-hello", 4, None, None),
    making.a_test("01-hello", 5, 6, 0, message="1 passed"),
    making.a_test("01-hello", 6, 7, 1, tests_modified=True),
    making.a_test("01-hello", 7, None, None),
    making.asked("01-hello", 8, 9, ODD, ODD),
    making.asked("01-hello", 9, None, "", ""),
    making.completed("01-hello", 10, tests_modified=False),
    making.reset("01-hello", 11),
    making.gap(11, 12),
    making.opened("02-loop", 12, making.visit("01-hello", 1, 12, 9000)),
    making.session_end(13, making.visit("02-loop", 12, 13, 1000)),
)


@pytest.fixture(scope="module")
def ralph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ralph]:
    with running_ralph(tmp_path_factory.mktemp("ralph")) as running:
        yield running


@pytest.fixture
def registration() -> str:
    """The tests share a store; each has a registration of its own."""
    return str(uuid4())


def statements(events: Sequence[Event], registration: str) -> list[dict[str, Any]]:
    place = xapi.Place("lp00lp00lp00lp00", "demo", registration)
    made = (xapi.statement(line, place, _ids(registration)) for line in lines(events))
    return [one for one in made if one is not None]


def lines(events: Sequence[Event], prefix: str = "id") -> list[dict[str, Any]]:
    return [public(number, f"{prefix}-{number}", event) for number, event in enumerate(events)]


def _ids(registration: str) -> Callable[[str], str]:
    return lambda record_id: str(uuid5(NAMESPACE_URL, f"{registration}/{record_id}"))


def many(count: int) -> list[Event]:
    return [making.a_compile("01-hello", at, at + 1, **making.FULL) for at in range(count)]


def test_the_events_here_are_of_every_kind_that_there_is() -> None:
    assert {type(one) for one in EVENTS} == set(EVENT_TYPES.values())


def test_it_takes_and_keeps_the_statements_of_every_kind_of_event(ralph: Ralph, registration: str) -> None:
    sent = statements(EVENTS, registration)
    assert len(sent) == len(EVENTS) - 1  # a gap is none

    assert ralph.post(sent) == Answer(200, [one["id"] for one in sent])
    assert ralph.statements(registration) == sent


def test_what_is_against_xapi_is_complained_of(ralph: Ralph, registration: str) -> None:
    broken = statements(EVENTS[3:4], registration)
    broken[0]["result"]["duration"] = "1 second"
    [complaint] = ralph.complaints(broken)
    assert "duration" in complaint


def test_statements_that_come_again_are_kept_once(ralph: Ralph, registration: str) -> None:
    sent = statements(EVENTS, registration)
    ralph.post(sent)

    assert ralph.post(sent) == Answer(204, None)
    assert ralph.statements(registration) == sent


def test_a_batch_of_old_and_new_ones_adds_the_new_ones(ralph: Ralph, registration: str) -> None:
    sent = statements(EVENTS, registration)
    ralph.post(sent[:5])

    assert ralph.post(sent) == Answer(200, [one["id"] for one in sent[5:]])
    assert ralph.statements(registration) == sent


def test_after_an_answer_that_was_lost_they_are_kept_once(ralph: Ralph, registration: str) -> None:
    sent = statements(EVENTS, registration)
    headers = {"Content-Type": "application/json", "Authorization": ralph.authorization}
    connection = HTTPConnection("127.0.0.1", ralph.port, timeout=60)
    connection.request("POST", "/xAPI/statements", json.dumps(sent), headers)
    connection.close()

    assert ralph.post(sent).status in (200, 204)
    assert ralph.statements(registration) == sent


def test_it_takes_a_batch_of_500(ralph: Ralph, registration: str) -> None:
    sent = statements(many(500), registration)

    assert ralph.post(sent).status == 200
    assert ralph.statements(registration) == sent


def test_it_takes_a_statement_of_four_megabytes(ralph: Ralph, registration: str) -> None:
    event = making.a_compile("01-hello", 0, 1, stdout="ñandú\n" * 600_000)
    sent = statements([event], registration)

    assert ralph.post(sent).status == 200
    assert ralph.statements(registration) == sent


def test_another_content_for_a_known_id_is_refused_with_all_that_came_with_it(ralph: Ralph, registration: str) -> None:
    first, second = statements(EVENTS[:2], registration)
    ralph.post([first])
    other = copy.deepcopy(first)
    other["verb"] = second["verb"]

    assert ralph.post([second, other]).status == 409
    assert ralph.statements(registration) == [first]


def test_a_broken_statement_is_refused_with_all_that_came_with_it(ralph: Ralph, registration: str) -> None:
    first, second = statements(EVENTS[:2], registration)
    del second["verb"]

    assert ralph.post([first, second]).status == 422
    assert ralph.statements(registration) == []


@pytest.mark.parametrize("login", [None, ("agent", "wrong"), ("nobody", Ralph.password)])
def test_without_its_password_it_takes_nothing(ralph: Ralph, registration: str, login: tuple[str, str] | None) -> None:
    assert ralph.post(statements(EVENTS, registration), login=login).status == 401
    assert ralph.statements(registration) == []


def test_it_takes_the_header_of_xapi_2(ralph: Ralph, registration: str) -> None:
    assert ralph.post(statements(EVENTS, registration), version="2.0.0").status == 200


class TestOurSink:
    """What `agent.sinks.xapi` sends, and what it makes of Ralph's answers."""

    @pytest.fixture
    def whose(self) -> Whose:
        """A student of its own for each test: ids and the registration follow from the student and the course."""
        return Whose(uuid4().hex[:16], None, "demo")

    @pytest.fixture
    def sink(self, ralph: Ralph) -> Iterator[Xapi]:
        made = sink_to(ralph, ralph.authorization)
        yield made
        made.close()

    def test_what_it_sends_is_kept_once_however_often_it_is_sent(self, ralph: Ralph, sink: Xapi, whose: Whose) -> None:
        body = sink.body(sendables(EVENTS), whose)

        for _ in range(3):
            assert sink.send(body, 60).outcome is Outcome.DELIVERED
        assert stored(ralph, body) == sent_in(body)

    def test_it_sends_as_xapi_2_too(self, ralph: Ralph, whose: Whose) -> None:
        sink = sink_to(ralph, ralph.authorization, "2.0.0")
        try:
            body = sink.body(sendables(EVENTS), whose)
            assert body.headers["X-Experience-API-Version"] == "2.0.0"
            assert sink.send(body, 60).outcome is Outcome.DELIVERED
            assert stored(ralph, body) == sent_in(body)
        finally:
            sink.close()

    def test_nothing_that_it_sends_is_against_xapi(self, ralph: Ralph, sink: Xapi, whose: Whose) -> None:
        assert ralph.complaints(sent_in(sink.body(sendables(EVENTS), whose))) == []

    def test_it_sends_500_at_once(self, ralph: Ralph, sink: Xapi, whose: Whose) -> None:
        body = sink.body(sendables(many(500)), whose)

        assert sink.send(body, 60).outcome is Outcome.DELIVERED
        assert stored(ralph, body) == sent_in(body)

    def test_after_a_restart_of_the_store_it_sends_on(self, ralph: Ralph, sink: Xapi, whose: Whose) -> None:
        records = sendables(EVENTS)
        old, new = sink.body(records[:4], whose), sink.body(records, whose)
        sink.send(old, 60)
        ralph.end()
        assert sink.send(new, 60).outcome is Outcome.RETRY
        ralph.start()

        assert sink.send(new, 60).outcome is Outcome.DELIVERED
        assert stored(ralph, new) == sent_in(new)

    def test_with_a_wrong_password_it_waits(self, ralph: Ralph, whose: Whose) -> None:
        sink = sink_to(ralph, "Basic bm9ib2R5Om5vdGhpbmc=")
        try:
            body = sink.body(sendables(EVENTS), whose)
            assert sink.send(body, 60).outcome is Outcome.WAIT
            assert stored(ralph, body) == []
        finally:
            sink.close()

    def test_a_statement_that_the_store_has_with_other_fields_is_delivered(
        self, ralph: Ralph, sink: Xapi, whose: Whose
    ) -> None:
        [one] = sendables(EVENTS[2:3])
        assert one.content["source_code"]
        without = Sendable(one.number, one.id, {**one.content, "source_code": None})
        first = sink.body([one], whose)
        sink.send(first, 60)

        assert sink.send(sink.body([without], whose), 60).outcome is Outcome.DELIVERED
        assert stored(ralph, first) == sent_in(first)


def sink_to(ralph: Ralph, authorization: str, version: str = "1.0.3") -> Xapi:
    return Xapi(Server(Destination(ralph.url, authorization, private=True, proxy="")), version)


def sendables(events: Sequence[Event]) -> list[Sendable]:
    """With ids that no other call makes.  Gaps are not for this sink."""
    found = lines(events, str(uuid4()))
    return [Sendable(line["number"], line["id"], line) for line in found if line["event"] in xapi.VERBS]


def sent_in(body: Body) -> list[dict[str, Any]]:
    assert isinstance(body.content, bytes)
    found: list[dict[str, Any]] = orjson.loads(body.content)
    return found


def stored(ralph: Ralph, body: Body) -> list[dict[str, Any]]:
    registration = sent_in(body)[0]["context"]["registration"]
    return ralph.statements(registration)
