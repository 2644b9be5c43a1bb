"""The real agent and real servers: what a course's learn.json and the configuration make it send, and when."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config import course_key
from agent.core.events import Event as AgentEvent
from agent.store.journal import Journal
from agent.store.outbox import NAME as OUTBOX
from agent.store.outbox import Outbox
from tests.conftest import Stage
from tests.making import FULL, a_compile, a_test, assert_receivable, b64, opened, session_start
from tests.sinks.faults import FaultServer, Request, silence, status
from tests.standin.agent import Agent, Event, count
from tests.standin.courses import PYTHON, make_course
from tests.until import until

#: Loopback is a private address, which a course's URL may not reach unless the admin says so.
HERE = 'proxy = "none"\nstart_spread_seconds = 0\nprivate_addresses = true\n'
UNDECODABLE = (
    "import sys, time\nsys.stdout.buffer.write(b'caf\\xe9 \\xff\\xfe\\n')\nsys.stdout.flush()\ntime.sleep(0.3)\n"
)

Body = dict[str, Any]
Server = Callable[[], FaultServer]


@pytest.fixture
def servers() -> Iterator[Server]:
    made: list[FaultServer] = []

    def make() -> FaultServer:
        made.append(FaultServer())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def server(servers: Server) -> FaultServer:
    return servers()


class Scene:
    """A course and its agent.  `urls` are learn.json's, `config` is the agent's configuration."""

    def __init__(self, stage: Stage, directory: Path, urls: dict[str, str], config: str) -> None:
        self.course = make_course(directory / "course", PYTHON, {"telemetry": urls} if urls else {}, lasting=True)
        (directory / "config.toml").write_text(config)
        self.agent: Agent = stage.agent(self.course, arguments=("--config", str(directory / "config.toml")))
        self.directory = self.agent.state / course_key(str(self.course))

    def fill(self, *events: AgentEvent) -> None:
        """What an earlier life of the agent journaled."""
        with Journal.open(self.directory, create=True) as journal:
            journal.append(list(events), None)

    def name_urls(self, **urls: str) -> None:
        """The teacher changes learn.json; returns when the agent knows."""
        path = self.course / "learn.json"
        known = len(self.agent.observed("course_read"))
        path.write_text(json.dumps({**json.loads(path.read_text()), "telemetry": urls}))
        until(lambda: len(self.agent.observed("course_read")) > known, every=0.02)

    def cursor(self, name: str) -> int:
        with self.agent.journal() as journal, Outbox(self.directory, journal.id, read_only=True) as outbox:
            return outbox.cursor(name)

    def has_sent_all(self, *names: str) -> bool:
        with self.agent.journal() as journal, Outbox(self.directory, journal.id, read_only=True) as outbox:
            return all(outbox.cursor(name) == journal.last_number for name in names)


def bodies(requests: Sequence[Request]) -> list[Body]:
    return [json.loads(request.body) for request in requests]


def text(encoded: str) -> str:
    return base64.b64decode(encoded, validate=True).decode()


# --- LearnPack's two ways ---


def test_streaming_and_batch_are_as_learnpack_s_to_all_that_are_named_at_once(
    stage: Stage, tmp_path: Path, servers: Server
) -> None:
    streams, documents, labs = servers(), servers(), servers()
    config = f"""
[send]
{HERE}
[[sink]]
name = "lab"
kind = "learnpack-streaming"
url = "{labs.url}/lab"
headers = {{ X-Room = "7" }}
[[sink]]
name = "lab-documents"
kind = "learnpack-batch"
url = "{documents.url}/lab"
delay_seconds = 0
[credentials."127.0.0.1:{labs.port}"]
token = "a-lab-s-token"
"""
    urls = {"streaming": f"{streams.url}/events?asset_id=145", "batch": f"{documents.url}/me/telemetry?asset_id=145"}
    scene = Scene(stage, tmp_path, urls, config)
    agent = scene.agent.start()
    learnpack = stage.learnpack(scene.course).start()
    learnpack.open("00-welcome")
    until(lambda: any("opened_at" in body["steps"][0] for body in bodies(documents.received)), every=0.02)
    learnpack.open("01-hello")
    learnpack.save("01-hello", UNDECODABLE)
    learnpack.build("01-hello")
    learnpack.save("01-hello", "print('hello')\n")
    learnpack.test("01-hello")
    events = agent.wait_for(lambda events: count(events, "test") > 0 and count(events, "compile") > 0)
    until(lambda: scene.has_sent_all("course-streaming", "course-batch", "lab", "lab-documents"), every=0.05)
    learnpack.stop()
    agent.wait_for(lambda events: count(events, "session_end") > 0)
    assert agent.stop() == 0, agent.log
    events = agent.events()

    told = [event for event in events if event["event"] in ("open_step", "compile", "test")]
    assert {event["event"] for event in told} == {"open_step", "compile", "test"}
    with agent.journal() as journal:
        telemetry_id = journal.id
    for received, path in ((streams.received, "/events?asset_id=145"), (labs.received, "/lab")):
        assert {(request.method, request.path) for request in received} == {("POST", path)}
        assert [body["event"] for body in bodies(received)] == [event["event"] for event in told]
        for request, event in zip(received, told, strict=True):
            assert_streamed(request, event, telemetry_id)
    assert bodies(streams.received) == bodies(labs.received)
    (undecodable,) = (body["data"] for body in bodies(streams.received) if body["event"] == "compile")
    assert text(undecodable["source_code"]) == UNDECODABLE
    assert {request.headers.get("authorization") for request in labs.received} == {"Token a-lab-s-token"}
    assert {request.headers.get("x-room") for request in labs.received} == {"7"}
    for request in streams.received + documents.received:
        assert "authorization" not in request.headers and "x-room" not in request.headers

    by_path = {
        path: [request for request in documents.received if request.path == path]
        for path in ("/me/telemetry?asset_id=145", "/lab")
    }
    for requests in by_path.values():
        assert len({request.headers["idempotency-key"] for request in requests}) == len(requests)
        for request in requests:
            assert request.headers["content-type"] == "application/json"
            assert_document(json.loads(request.body), telemetry_id)
        last = json.loads(requests[-1].body)
        assert [session.keys() for session in last["workout_session"]] == [{"started_at", "ended_at"}]
        ids = [one["event_id"] for step in last["steps"] for kind in ("compilations", "tests") for one in step[kind]]
        assert sorted(ids) == sorted(event["id"] for event in told if event["event"] in ("compile", "test"))
    opens = [sum("opened_at" in step for step in body["steps"]) for body in bodies(by_path["/lab"])]
    assert opens == sorted(opens) and set(opens) >= {1, 2}, "one for each step that was opened"


def assert_streamed(request: Request, event: Event, telemetry_id: str) -> None:
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == f'"{event["id"]}"'
    body = json.loads(request.body)
    assert list(body) == ["slug", "telemetry_id", "step_position", "event", "data"], "no user_id before a login"
    assert (body["slug"], body["step_position"]) == (event["step_slug"], event["step_position"])
    assert body["telemetry_id"] == telemetry_id
    data = body["data"]
    if event["event"] == "open_step":
        assert data == {}
        return
    assert data["event_id"] == event["id"]
    assert [data[key] for key in ("started_at", "ended_at", "exit_code")] == [
        event["started_at"],
        event["ended_at"],
        event["exit_code"],
    ]
    # What is printed names this machine's directories, which are taken out.
    assert text(data["source_code"]) == (event["source_code"] or "")
    assert ("\ufffd" in text(data["stdout"])) == ("\ufffd" in (event["stdout"] or ""))
    assert isinstance(text(data["stderr"]), str)


def assert_document(document: Body, telemetry_id: str) -> None:
    assert "event" not in document
    keys = {"telemetry_id", "slug", "tutorial_started_at", "last_interaction_at", "workout_session", "steps"}
    assert set(document) == keys, "no user_id before a login, and nothing of the student"
    assert (document["telemetry_id"], document["slug"]) == (telemetry_id, "a-course-of-our-own")
    assert [step["slug"] for step in document["steps"]] == list(PYTHON)
    assert [step["position"] for step in document["steps"]] == list(range(len(PYTHON)))
    needed = {"slug", "position", "files", "is_testeable", "compilations", "tests", "ai_interactions"}
    assert all(needed <= set(step) for step in document["steps"])
    assert_receivable(document)


def test_a_logged_in_student_s_number_goes_with_each_event(stage: Stage, tmp_path: Path, server: FaultServer) -> None:
    scene = Scene(stage, tmp_path, {"streaming": server.url}, f"[send]\n{HERE}")
    agent = scene.agent.start()
    learnpack = stage.learnpack(scene.course, own_telemetry=True).start()
    learnpack.log_in(token="a-token", user_id=4711, email="ada@example.org", expires_at=None)
    learnpack.open("01-hello")
    learnpack.build("01-hello")

    def is_known() -> bool:
        query = "SELECT count(*) FROM adopted WHERE kind = 'document' AND CAST(body AS TEXT) LIKE '%4711%'"
        with agent.journal() as journal:
            return bool(journal.connection.execute(query).fetchone()[0])

    agent.wait_for(lambda events: count(events, "compile") > 0)
    until(is_known, every=0.02)
    learnpack.open("02-sum")
    until(lambda: any(body["slug"] == "02-sum" for body in bodies(server.received)), every=0.02)
    last = bodies(server.received)[-1]
    document = json.loads((scene.course / ".learn/telemetry.json").read_text())
    assert list(last) == ["slug", "telemetry_id", "user_id", "step_position", "event", "data"]
    assert (last["user_id"], last["telemetry_id"]) == (4711, document["telemetry_id"])
    assert b"a-token" not in b"".join(request.body for request in server.received)
    assert all("authorization" not in request.headers for request in server.received)


# --- what is not sent ---


def connections_of(pid: int) -> list[str]:
    """Its sockets that may lead to another machine."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            where = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if where.startswith("socket:["):
            inodes.add(where[8:-1])
    rows = [
        row for name in ("tcp", "tcp6", "udp", "udp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    return [row for row in rows if len(row.split()) > 9 and row.split()[9] in inodes]


def test_without_a_url_nothing_of_delivery_is_there(stage: Stage, tmp_path: Path) -> None:
    scene = Scene(stage, tmp_path, {}, "")
    scene.fill(session_start(0), opened("01-hello", 1))
    agent = scene.agent.start()
    (scene.course / "exercises/01-hello/app.py").write_text("print('work')\n")
    agent.wait_for(lambda events: count(events, "open_step") > 0 and len(events) > 2)
    agent.await_document()
    assert agent.process is not None
    assert connections_of(agent.process.pid) == []
    assert "_ssl" not in Path(f"/proc/{agent.process.pid}/maps").read_text(), "nothing of it is even loaded"
    assert agent.stop() == 0
    assert not (scene.directory / OUTBOX).exists()


def test_a_course_s_url_of_a_host_that_the_admin_does_not_allow_is_not_used(
    stage: Stage, tmp_path: Path, servers: Server
) -> None:
    courses, labs = servers(), servers()
    config = f'[send]\n{HERE}course_hosts = ["*.4geeks.example"]\n'
    config += f'[[sink]]\nname = "lab"\nkind = "learnpack-streaming"\nurl = "{labs.url}"\n'
    scene = Scene(stage, tmp_path, {"streaming": courses.url, "batch": courses.url}, config)
    scene.fill(session_start(0), opened("01-hello", 1))
    agent = scene.agent.start()
    labs.wait_for(1)
    assert agent.stop() == 0
    for name in ("course-streaming", "course-batch"):
        assert f"{name} is not used: the configuration does not let a course name 127.0.0.1" in agent.log
    assert courses.accepted == 0


def test_a_course_s_url_reaches_no_private_address_unless_the_admin_allows_it(
    stage: Stage, tmp_path: Path, server: FaultServer
) -> None:
    scene = Scene(stage, tmp_path, {"streaming": server.url}, HERE_BUT_PRIVATE)
    scene.fill(opened("01-hello", 1))
    agent = scene.agent.start()
    until(lambda: "private address" in agent.log, every=0.02)
    assert agent.stop() == 0
    assert server.accepted == 0
    assert scene.cursor("course-streaming") == 0, "it waits for the admin"


HERE_BUT_PRIVATE = "[send]\n" + HERE.replace("private_addresses = true\n", "")


@pytest.mark.parametrize("switched_off", ["source_code", "output"])
def test_a_field_that_is_switched_off_leaves_in_no_sink(
    stage: Stage, tmp_path: Path, servers: Server, switched_off: str
) -> None:
    kinds = ("learnpack-streaming", "learnpack-batch", "otlp", "xapi")
    made = {kind: servers() for kind in kinds}
    config = f"[send]\n{HERE}{switched_off} = false\n" + "".join(
        f'[[sink]]\nname = "{kind}"\nkind = "{kind}"\ndelay_seconds = 0\nurl = "{made[kind].url}"\n' for kind in kinds
    )
    files = tmp_path / "files"
    files.mkdir()
    config += f'[[sink]]\nname = "files"\nkind = "jsonl"\ndelay_seconds = 0\ndirectory = "{files}"\n'
    scene = Scene(stage, tmp_path, {}, config)
    more = {**FULL, "source_code": "print('PROGRAM')\n", "stdout": "PRINTED\n", "stderr": "PRINTED too\n"}
    scene.fill(session_start(0), opened("01-hello", 1), a_compile("01-hello", 2, 3, **more))
    scene.fill(a_test("01-hello", 4, 5, 1, **more))
    scene.agent.start()
    until(lambda: scene.has_sent_all(*kinds, "files"), every=0.05)
    assert scene.agent.stop() == 0
    sent = {kind: b"\n".join(request.body for request in one.received) for kind, one in made.items()}
    sent["files"] = b"\n".join(path.read_bytes() for path in files.glob("*.jsonl"))
    program, printed = "print('PROGRAM')\n", "PRINTED\n"
    for kind, content in sent.items():
        shown = content.decode()
        has_program = "PROGRAM" in shown or b64(program) in shown
        has_output = "PRINTED" in shown or b64(printed) in shown
        assert (has_program, has_output) == (switched_off != "source_code", switched_off != "output"), kind


# --- URLs that come and go ---


def test_urls_of_learn_json_come_and_go_while_the_agent_runs(stage: Stage, tmp_path: Path, servers: Server) -> None:
    one, other = servers(), servers()
    scene = Scene(stage, tmp_path, {}, f"[send]\n{HERE}")
    scene.fill(opened("00-welcome", 1))
    agent = scene.agent.start()

    def work_in(slug: str) -> None:
        (scene.course / f"exercises/{slug}/app.py").write_text("print('work')\n")
        agent.wait_for(lambda events: count(events, "open_step", slug) > 0)

    scene.name_urls(streaming=one.url)
    one.wait_for(1)
    work_in("01-hello")
    until(lambda: len(one.received) == 2)
    scene.name_urls()
    work_in("02-sum")
    scene.name_urls(streaming=other.url)
    until(lambda: bool(other.received))
    work_in("07-free")
    until(lambda: scene.has_sent_all("course-streaming"), every=0.02)
    assert [body["slug"] for body in bodies(one.received)] == ["00-welcome", "01-hello"]
    assert [body["slug"] for body in bodies(other.received)] == ["02-sum", "07-free"], "it went on where it was"


# --- the end ---


def test_at_the_end_everything_that_waits_for_a_later_moment_is_sent(
    stage: Stage, tmp_path: Path, server: FaultServer
) -> None:
    config = f"[send]\n{HERE}final_milliseconds = 20000\n" + "".join(
        f'[[sink]]\nname = "{kind}"\nkind = "{kind}"\ndelay_seconds = 3600\nurl = "{server.url}/{kind}"\n'
        for kind in ("learnpack-streaming", "learnpack-batch", "otlp", "xapi")
    )
    scene = Scene(stage, tmp_path, {}, config)
    agent = scene.agent.start()
    (scene.course / "exercises/01-hello/app.py").write_text("print('work')\n")
    agent.wait_for(lambda events: count(events, "open_step") > 0)
    assert server.accepted == 0
    assert agent.stop() == 0, agent.log
    events = agent.events()
    last = json.loads([request for request in server.delivered if request.path == "/learnpack-batch"][-1].body)
    assert last["steps"][1]["opened_at"] == next(event["at"] for event in events if event["event"] == "open_step")
    statements = [
        one for request in server.delivered if request.path == "/xapi/statements" for one in bodies([request])
    ]
    assert sum(map(len, statements)) == len([event for event in events if event["event"] != "gap"])
    assert scene.has_sent_all("learnpack-streaming", "learnpack-batch", "otlp", "xapi")


def test_beside_a_server_that_never_answers_the_end_keeps_its_bound_and_the_next_start_sends_the_rest(
    stage: Stage, tmp_path: Path, servers: Server
) -> None:
    dead, failing = servers(), servers()
    dead.behave = lambda _: silence
    failing.behave = lambda _: status(503)
    urls = {"streaming": f"{dead.url}/s", "batch": f"{failing.url}/b"}
    scene = Scene(stage, tmp_path, urls, f"[send]\n{HERE}final_milliseconds = 4000\n")
    scene.fill(session_start(0), *(opened(slug, number) for number, slug in enumerate(PYTHON, start=1)))
    agent = scene.agent.start()
    dead.wait_for(1)
    began = time.monotonic()
    assert agent.stop() == 0, agent.log
    took = time.monotonic() - began
    assert took < 4.0 + 2.5, f"{took} s: 4 s for the last try, and what the end takes on a busy machine"
    assert failing.received, "the document was tried at the end"
    for one in (dead, failing):
        one.cut()
        one.behave = lambda _: status(200)
    agent.start()
    until(lambda: scene.has_sent_all("course-streaming", "course-batch"), every=0.05)
    slugs = [body["slug"] for body in bodies(dead.delivered)]
    assert slugs == list(PYTHON), "each once, in order"
    assert [sum("opened_at" in step for step in body["steps"]) for body in bodies(failing.delivered)] == [len(PYTHON)]
