"""The parts of the benchmark `delivery` that run in processes of their own: couriers, and the server that they talk to.

`python -m tests.bench.deliverywork WORK [JSON]` prints one JSON object.  Without JSON: `collect`, the server, which
answers the lines `port` and `report` on its standard input.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.config import Config, Send, SinkConfig
from agent.core.bodies import Body
from agent.core.events import Compile, Event, Evidence, OpenStep, StepName
from agent.courier import Courier
from agent.destinations import Planned, opened, privacy_of
from agent.feeds import feed_of
from agent.sensors.course import read_course
from agent.store.journal import Journal
from agent.store.outbox import Outbox

from .courses import slug
from .kernel import memory
from .storework import EXERCISES, T0, a_run

_SIZE = struct.Struct("<I")
#: Of an event in OTLP.
_ID = re.compile(rb'"log.record.uid","value":\{"stringValue":"([^"]+)"')
_PATIENCE_S = 300.0


def _event(number: int) -> Event:
    """Every fifth opens a step; the others are runs whose program and output have half a kilobyte each."""
    step = number * 7919 % EXERCISES
    at = T0 + number * 60_000
    if number % 5 == 0:
        evidence = (Evidence(number, at, f"LearnPack opened {slug(step)}"),)
        return OpenStep(at, StepName(slug(step), step), evidence)
    event = a_run(number)
    assert isinstance(event, Compile)
    source, printed = event.run.source_code or "", event.run.stdout or ""
    return replace(event, run=replace(event.run, source_code=source[:512], stdout=printed[:512]))


def fill(directory: str, count: int) -> dict[str, Any]:
    with Journal.open(directory, create=True) as journal:
        for first in range(0, count, 500):
            journal.append([_event(number) for number in range(first, min(first + 500, count))], None)
        journal.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {}


def _config(kind: str, target: str, name: str, spread_s: int = 0) -> Config:
    url, directory = ("", target) if kind == "jsonl" else (target, "")
    sink = SinkConfig(name, kind, url, directory, delay_seconds=0)
    return Config(send=Send(proxy="none", start_spread_seconds=spread_s), sinks=(sink,))


def bodies(course: str, directory: str, kind: str, path: str) -> dict[str, Any]:
    """Writes what would be sent, body by body, into a file."""
    picture = read_course(course)
    config = _config(kind, "/" if kind == "jsonl" else "http://127.0.0.1:1/in", "preview")
    one = Planned("preview", config.sinks[0])
    privacy = privacy_of(config, picture)
    count = size = 0
    with (
        Journal.open(directory, create=False, read_only=True) as journal,
        Outbox(directory, journal.id, read_only=True) as outbox,
        open(path, "wb") as stream,
    ):
        feed = feed_of(one, journal, outbox, lambda: privacy, picture, config.document_max_mb << 20)
        sink = opened(one, config, picture)
        while feed.is_pending(final=True):
            body = feed.next_body(sink)
            assert isinstance(body, Body)
            content = body.content if isinstance(body.content, bytes) else body.content.read()
            stream.write(_SIZE.pack(len(content)) + content)
            count, size = count + 1, size + len(content)
            feed.skip()
    return {"count": count, "bytes": size}


def drain(course: str, directory: str, kind: str, target: str) -> dict[str, Any]:
    """Seconds until everything is acknowledged, from the courier's start on, and the memory of this process."""
    picture = read_course(course)
    name = f"{kind}-{os.getpid()}"  # a sink that never got anything
    with Journal.open(directory, create=False, read_only=True) as journal:
        last, journal_id = journal.last_number, journal.id
    began, used = time.monotonic(), time.process_time()
    courier = Courier(_config(kind, target, name), directory, picture)
    courier.wake(now=True)
    with Outbox(directory, journal_id) as outbox:
        while outbox.cursor(name) < last:
            if time.monotonic() - began > _PATIENCE_S:
                raise TimeoutError(f"{name}: {outbox.cursor(name)} of {last}: {outbox.notes(name)}")
            time.sleep(0.01)
    took, cpu = time.monotonic() - began, time.process_time() - used
    courier.begin_finish(send=False)
    found = memory(os.getpid())
    return {"took": took, "cpu": cpu, "rss": found.rss, "peak": found.peak}


def room(course: str, directory: str, count: int, queued: int, url: str, spread_s: int) -> dict[str, Any]:
    """So many couriers in this process, begun together; returns when everything of each is acknowledged."""
    picture = read_course(course)
    config = _config("otlp", url, "room", spread_s)
    journals = {}
    for number in range(count):
        where = os.path.join(directory, str(number))
        with Journal.open(where, create=True) as journal:
            journal.append([_event(each) for each in range(queued)], None)
            journals[where] = journal.id
    opened(Planned("room", config.sinks[0]), config, picture).close()  # imports
    privacy_of(config, picture)
    print("ready", flush=True)
    sys.stdin.readline()
    couriers = [Courier(config, where, picture) for where in journals]
    for where, journal_id in journals.items():
        while _cursor(where, journal_id) < queued:
            time.sleep(0.02)
    for courier in couriers:
        courier.begin_finish(send=False)
    return {}


def _cursor(where: str, journal_id: str) -> int:
    with Outbox(where, journal_id, read_only=True) as outbox:
        return outbox.cursor("room")


# --- the server ---


class _Collector:
    """As little of a server as can be: it reads a request, notes when it came and the events' ids, and answers 200."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.times: list[float] = []
        self.connections: list[float] = []
        self.ids: Counter[bytes] = Counter()

    def accept(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            self.connections.append(time.monotonic())
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb", 65_536) as stream:
            while stream.readline():
                length = 0
                while (line := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = stream.read(length)
                self.times.append(time.monotonic())
                self.ids.update(_ID.findall(body))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


def collect() -> None:
    collector = _Collector()
    threading.Thread(target=collector.accept, daemon=True).start()
    for line in sys.stdin:
        if line == "port\n":
            print(collector.listening.getsockname()[1], flush=True)
        else:
            told = {"requests": len(collector.times), "times": collector.times, "connections": collector.connections}
            print(json.dumps({**told, "events": collector.ids.total(), "different": len(collector.ids)}), flush=True)


_WORKS: Mapping[str, Callable[..., dict[str, Any]]] = {"fill": fill, "bodies": bodies, "drain": drain, "room": room}

if __name__ == "__main__":
    if sys.argv[1] == "collect":
        collect()
    else:
        print(json.dumps(_WORKS[sys.argv[1]](*json.loads(sys.argv[2]))), flush=True)
