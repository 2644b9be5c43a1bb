"""A real Learning Record Store for the tests: Ralph (`ralph-malph` of PyPI, by France Université Numérique), with its
`fs` backend, which keeps the statements in a file and needs no database.

Promised: its own HTTP server, its own checks and its own comparing of statements, in a process of its own that listens
on loopback only and is ended by its pid.  `LEARNPACK_TEST_RALPH` names the venv that has it (.ci/run makes one);
without that variable the tests that need it are skipped, with a wrong one they fail.

One thing is set that Ralph has no setting for: the `fs` backend of 5.1.0 creates its file at every write, so that an
LRS would store the first POST and answer 500 to each later one.  Here it appends (`FSDataBackend` can; the LRS doesn't
ask it to).

Known to be weak: over HTTP Ralph looks only at a statement's id, its actor, the verb's id and the object's id, and at
no X-Experience-API-Version.  `complaints` asks the models of xAPI that Ralph brings along, which look at everything.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

VARIABLE = "LEARNPACK_TEST_RALPH"

_SERVER = """
import json, os, pathlib, socket, sys
import bcrypt

user, password = sys.argv[2:]
agent = {"account": {"homePage": "https://lab.example", "name": user}}
secret = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
login = {"username": user, "hash": secret, "scopes": ["statements/write", "statements/read"], "agent": agent}
pathlib.Path(os.environ["RALPH_AUTH_FILE"]).write_text(json.dumps([login]))

import uvicorn
from ralph.backends.data.base import BaseOperationType
from ralph.backends.lrs.fs import FSLRSBackend

FSLRSBackend.default_operation_type = BaseOperationType.APPEND
server = uvicorn.Server(uvicorn.Config("ralph.api:app", ws="none", timeout_graceful_shutdown=1))
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""

_COMPLAINTS = """
import json, sys
from pydantic import ValidationError
from ralph.models.xapi.base.statements import BaseXapiStatement

found = []
for statement in json.load(sys.stdin):
    try:
        BaseXapiStatement.model_validate(statement)
    except ValidationError as error:
        found += [f"{statement.get('id')}: {one['loc']}: {one['msg']}" for one in error.errors()]
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is what its JSON says, None where it has none."""

    status: int
    body: Any


class Ralph:
    """An LRS whose statements are kept in `directory`; it may be started again after its end, at the same address."""

    user, password = "agent", "a password of the tests"

    def __init__(self, venv: Path, directory: Path) -> None:
        self._python = venv / "bin" / "python"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """What the admin of an LRS gives to a client: the address before `/statements`."""
        return f"http://127.0.0.1:{self.port}/xAPI"

    @property
    def authorization(self) -> str:
        return _basic(self.user, self.password)

    def start(self) -> None:
        """Returns when it answers."""
        with socket.create_server(("127.0.0.1", self.port)) as listening, self._log.open("ab") as log:
            self.port = listening.getsockname()[1]
            self._process = subprocess.Popen(
                [self._python, "-c", _SERVER, str(listening.fileno()), self.user, self.password],
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
            )
        # The socket listens already: a request waits there until Ralph has been imported, and breaks off if it dies.
        try:
            answer = self.request("GET", "/__heartbeat__")
        except OSError as error:
            raise AssertionError(f"Ralph did not start: {self._log.read_text()}") from error
        assert answer == Answer(200, {"database": "ok"})

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def post(
        self,
        statements: Sequence[Mapping[str, Any]],
        *,
        version: str = "1.0.3",
        login: tuple[str, str] | None = (user, password),
    ) -> Answer:
        headers = {"Content-Type": "application/json", "X-Experience-API-Version": version}
        if login is not None:
            headers["Authorization"] = _basic(*login)
        return self.request("POST", "/xAPI/statements", json.dumps(statements).encode(), headers)

    def statements(self, registration: str | None = None) -> list[dict[str, Any]]:
        """All that it has, or all of a registration, in the order in which it came.  One that was stored twice is there
        twice.  Without what an LRS adds: `stored` and `authority`."""
        query = {} if registration is None else {"registration": registration}
        address = f"/xAPI/statements?{urlencode({'limit': _ALL, **query})}"
        answer = self.request("GET", address, headers={"Authorization": self.authorization})
        assert answer.status == 200, answer
        added = ("stored", "authority")
        return [{key: one[key] for key in one if key not in added} for one in answer.body["statements"]]

    def complaints(self, statements: Sequence[Mapping[str, Any]]) -> list[str]:
        """What Ralph's models of xAPI (1.0.3) find wrong with them."""
        done = subprocess.run(
            [self._python, "-c", _COMPLAINTS],
            input=json.dumps(statements),
            capture_output=True,
            text=True,
            cwd=self._directory,
            env=self._environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found

    def request(
        self, method: str, address: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises OSError where nothing answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{address}", body, dict(headers or {}), method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        try:
            return Answer(status, json.loads(content) if content else None)
        except ValueError:  # "Internal Server Error"
            return Answer(status, content.decode())

    @property
    def _log(self) -> Path:
        return self._directory / "ralph.log"

    def _environment(self) -> dict[str, str]:
        """Nothing of ours: a RALPH_SENTRY_DSN or a proxy would lead it out of this machine."""
        directory = str(self._directory)
        return {
            "PATH": os.defpath,
            "HOME": directory,
            "PYTHONDONTWRITEBYTECODE": "1",
            "RALPH_RUNSERVER_BACKEND": "fs",
            "RALPH_RUNSERVER_MAX_SEARCH_HITS_COUNT": str(_ALL),
            "RALPH_BACKENDS__LRS__FS__DEFAULT_DIRECTORY_PATH": f"{directory}/statements",
            "RALPH_AUTH_FILE": f"{directory}/auth.json",
            "RALPH_HISTORY_FILE": f"{directory}/history.json",
        }


#: More than any test stores.
_ALL = 1_000_000


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def running_ralph(directory: Path) -> Iterator[Ralph]:
    """A Ralph that answers, ended at the end.  Skips the test where there is none."""
    venv = os.environ.get(VARIABLE)
    if not venv:
        pytest.skip(f"no Learning Record Store: {VARIABLE} does not name a venv that has ralph-malph[lrs]")
    ralph = Ralph(Path(venv), directory)
    try:
        ralph.start()
        yield ralph
    finally:
        ralph.end()
