"""The agent's log records, against a real collector and the official definitions (`otlp_receiver` in this folder)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, SEVERITY_NUMBER_WARN

from agent import __version__
from agent.core.bodies import Body, Sendable, Whose
from agent.core.delivery import Outcome
from agent.core.events import Event
from agent.core.export import public
from agent.sinks.http import Destination, Server
from agent.sinks.otlp import Otlp
from tests import making
from tests.sinks.otlp_receiver import Official, Rotel, records_of, running_official, running_rotel
from tests.sinks.test_ralph import EVENTS, ODD

WHOSE = Whose("lp00lp00lp00lp00", 7, "demo")


@pytest.fixture
def official() -> Iterator[Official]:
    with running_official() as running:
        yield running


@pytest.fixture
def rotel(tmp_path: Path, official: Official) -> Iterator[Rotel]:
    with running_rotel(tmp_path, official) as running:
        yield running


def sink_to(url: str) -> Otlp:
    return Otlp(Server(Destination(url, private=True, proxy="")))


def body_of(events: Sequence[Event]) -> Body:
    lines = [public(number, f"id-{number}", event) for number, event in enumerate(events)]
    return sink_to("http://127.0.0.1/").body([Sendable(one["number"], one["id"], one) for one in lines], WHOSE)


def by_the_definitions(body: Body) -> ExportLogsServiceRequest:
    """Raises json_format.ParseError for a name or a type that the definitions don't have."""
    assert isinstance(body.content, bytes)
    return json_format.Parse(body.content, ExportLogsServiceRequest())


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return named(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def named(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    found = {one.key: plain(one.value) for one in attributes}
    assert len(found) == len(attributes), "a key that is there twice"
    return found


def send(url: str, body: Body) -> Outcome:
    sink = sink_to(url)
    try:
        return sink.send(body, 60).outcome
    finally:
        sink.close()


def test_a_collector_understands_what_the_official_definitions_say(rotel: Rotel) -> None:
    body = body_of(EVENTS)

    assert send(rotel.url, body) is Outcome.DELIVERED
    assert rotel.understood(len(EVENTS)) == records_of(by_the_definitions(body))


def test_it_understands_what_happened_when_and_to_whom(rotel: Rotel) -> None:
    run = making.a_compile("01-hello", 2, 3.25, 1, stdout=ODD, source_code="", results=())
    send(rotel.url, body_of([run]))

    [(resource, scope, record)] = rotel.understood(1)

    assert named(resource.attributes) == {
        "service.name": "learnpack-agent",
        "service.version": __version__,
        "learnpack.course": "demo",
        "learnpack.telemetry_id": "lp00lp00lp00lp00",
        "learnpack.user_id": 7,
    }
    assert (scope.name, scope.version) == ("learnpack-agent", __version__)
    assert record.event_name == "learnpack.compile"
    assert plain(record.body) == "compile 01-hello exit code 1"
    assert record.time_unix_nano == making.ms(3.25) * 1_000_000
    assert record.severity_number == SEVERITY_NUMBER_INFO
    attributes = named(record.attributes)
    evidence = attributes.pop("learnpack.evidence")
    assert evidence == [{"observation": 1, "at": making.ms(3.25), "words": "because"}]
    assert attributes == {
        "log.record.uid": "id-0",
        "learnpack.step_slug": "01-hello",
        "learnpack.step_position": 1,
        "learnpack.started_at": making.ms(2),
        "learnpack.ended_at": making.ms(3.25),
        "learnpack.exit_code": 1,
        "learnpack.source_code": "",
        "learnpack.stdout": ODD,
        "learnpack.output": "none",
        "learnpack.command": ["python", "app.py"],
        "learnpack.origin": "learnpack",
        "learnpack.results": [],
    }


def test_a_gap_is_a_warning(rotel: Rotel) -> None:
    send(rotel.url, body_of([making.gap(1, 2)]))

    [(_, _, record)] = rotel.understood(1)
    assert (record.event_name, record.severity_number) == ("learnpack.gap", SEVERITY_NUMBER_WARN)


def test_it_takes_500_at_once_in_their_order(rotel: Rotel) -> None:
    events = [making.a_compile("01-hello", at, at + 1, **making.FULL) for at in range(500)]

    assert send(rotel.url, body_of(events)) is Outcome.DELIVERED
    ids = [named(record.attributes)["log.record.uid"] for _, _, record in rotel.understood(500)]
    assert ids == [f"id-{number}" for number in range(500)]


def test_what_comes_twice_has_the_same_id(rotel: Rotel) -> None:
    body = body_of([making.session_start(0)])
    send(rotel.url, body)
    send(rotel.url, body)

    first, second = (named(record.attributes)["log.record.uid"] for _, _, record in rotel.understood(2))
    assert first == second


@pytest.mark.parametrize("content", [b'{"resourceLogs": [', b'{"resourceLogs": 3}', b"\xff"])
def test_what_a_collector_cannot_read_it_refuses(rotel: Rotel, content: bytes) -> None:
    assert send(rotel.url, Body(content)) is Outcome.REJECTED


def test_what_is_too_long_for_a_collector_it_refuses(rotel: Rotel, official: Official) -> None:
    """Rotel takes 20 MB."""
    body = body_of([making.a_compile("01-hello", 0, 1, stdout="a" * (21 << 20))])

    assert send(rotel.url, body) is Outcome.REJECTED
    assert official.requests == []


def test_a_collector_that_is_gone_gets_it_when_it_is_back(rotel: Rotel, official: Official) -> None:
    body = body_of(EVENTS)
    rotel.end()
    assert send(rotel.url, body) is Outcome.RETRY
    assert official.requests == []
    rotel.start()

    assert send(rotel.url, body) is Outcome.DELIVERED
    assert rotel.understood(len(EVENTS)) == records_of(by_the_definitions(body))


def test_a_receiver_by_the_official_definitions_takes_it(official: Official) -> None:
    body = body_of(EVENTS)

    assert send(official.url, body) is Outcome.DELIVERED
    assert official.requests == [by_the_definitions(body)]


def test_a_name_that_the_definitions_do_not_have_is_refused(official: Official) -> None:
    content = orjson.dumps({"resourceLogs": [{"resource": {}, "logs": []}]})

    assert send(official.url, Body(content)) is Outcome.REJECTED
    assert official.requests == []


def test_a_partial_success_is_no_delivery(official: Official) -> None:
    official.refused = 1

    assert send(official.url, body_of(EVENTS)) is Outcome.REJECTED
