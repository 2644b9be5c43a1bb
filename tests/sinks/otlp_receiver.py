"""Real receivers of OTLP/HTTP logs for the tests.

`Rotel` is a collector: the program of that name (PyPI's `rotel`, by Streamfold; its wheel carries the binary), which
has a parser and types of its own, in Rust.  What it understood it sends on in the binary form, to `Official`, an HTTP
server in the test's process that reads both forms by the official definitions (`opentelemetry-proto`) and keeps the
requests.

Promised: loopback only, ports that the kernel chose, processes ended by their pid.  `LEARNPACK_TEST_ROTEL` names the
venv that has rotel (.ci/run makes one); without that variable the tests that need it are skipped, with a wrong one they
fail.

`Official` is stricter than the specification in one point: a field that the definitions don't have is a 400, so that a
wrong name is seen.  Known to be weak: Rotel never answers with a partial success, so `Official` does that.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tests.until import until

VARIABLE = "LEARNPACK_TEST_ROTEL"

#: A log record with what stands above it.
Understood = tuple[Resource, InstrumentationScope, LogRecord]


def records_of(request: ExportLogsServiceRequest) -> list[Understood]:
    return [
        (above.resource, scope.scope, record)
        for above in request.resource_logs
        for scope in above.scope_logs
        for record in scope.log_records
    ]


class Official:
    """`requests` are those that it could read, in the order in which they came.  Of each it refuses `refused` records:
    more than none is a partial success."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="OTLP receiver")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1/logs"

    def records(self) -> list[Understood]:
        return [one for request in self.requests for one in records_of(request)]

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, content: bytes, is_json: bool) -> dict[str, object]:
        """The answer's JSON.  Raises ValueError, json_format.ParseError or DecodeError: it can't be read."""
        request = ExportLogsServiceRequest()
        if is_json:
            json_format.Parse(content, request)
        else:
            request.ParseFromString(content)
        self.requests.append(request)
        if not self.refused:
            return {}
        # A 64-bit number is a text in the JSON form.
        return {"partialSuccess": {"rejectedLogRecords": str(self.refused), "errorMessage": "as the test wants"}}


def _handler(official: Official) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            kind = self.headers.get_content_type()
            if self.path != "/v1/logs" or kind not in ("application/json", "application/x-protobuf"):
                self._answer(404 if self.path != "/v1/logs" else 415, b"")
                return
            is_json = kind == "application/json"
            try:
                if self.headers.get("Content-Encoding") == "gzip":
                    content = gzip.decompress(content)
                answer = official.take(content, is_json)
            except (json_format.ParseError, DecodeError, ValueError, OSError) as error:
                # A google.rpc.Status, in JSON at any rate: nobody here reads it.
                self._answer(400, json.dumps({"code": 3, "message": str(error)}).encode())
            else:
                self._answer(200, json.dumps(answer).encode() if is_json else b"", kind)

        def _answer(self, status: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            pass

    return Handler


class Rotel:
    """A collector that sends on to `official`; it may be started again after its end, at the same address."""

    def __init__(self, program: Path, directory: Path, official: Official) -> None:
        self._program = program
        self._directory = directory
        self._official = official
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/logs"

    def start(self) -> None:
        """Returns when it listens.  It listens for gRPC too, whether one wants it or not: at 127.0.0.2, so that the
        port of HTTP can be told from it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._program, "start"),
                    *("--pid-file", self._directory / "pid", "--log-file", self._directory / "log"),
                    *("--otlp-grpc-endpoint", "127.0.0.2:0", "--otlp-http-endpoint", f"127.0.0.1:{self.port}"),
                    *("--exporter", "otlp", "--otlp-exporter-protocol", "http"),
                    *("--otlp-exporter-endpoint", self._official.url.removesuffix("/v1/logs")),
                    *("--batch-timeout", "20ms"),
                ],
                cwd=self._directory,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._is_listening)

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def understood(self, count: int) -> list[Understood]:
        """What it has sent on, as soon as these are `count` records or more."""
        until(lambda: len(self._official.records()) >= count)
        return self._official.records()

    def _is_listening(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Rotel did not start: {self._log.read_text()}"
        for one in psutil.Process(self._process.pid).net_connections():
            if one.status == psutil.CONN_LISTEN and one.laddr.ip == "127.0.0.1":
                self.port = one.laddr.port
                return True
        return False

    @property
    def _log(self) -> Path:
        return self._directory / "rotel.log"


@contextmanager
def running_official() -> Iterator[Official]:
    official = Official()
    official.start()
    try:
        yield official
    finally:
        official.end()


@contextmanager
def running_rotel(directory: Path, official: Official) -> Iterator[Rotel]:
    """A Rotel that answers, ended at the end.  Skips the test where there is none."""
    venv = os.environ.get(VARIABLE)
    if not venv:
        pytest.skip(f"no OpenTelemetry collector: {VARIABLE} does not name a venv that has rotel")
    programs = list(Path(venv).glob("lib/python3*/site-packages/rotel/rotel-agent"))
    assert programs, f"{VARIABLE}={venv} has no rotel"
    rotel = Rotel(programs[0], directory, official)
    try:
        rotel.start()
        yield rotel
    finally:
        rotel.end()
