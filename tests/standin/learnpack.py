"""Starts the stand-in's server, asks it for actions, and keeps the truth that it answers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, cast

from .score import Truth
from .toolbox import Toolbox, find_jest

PATIENCE_SECONDS = 60.0

Answer = dict[str, Any]
_GONE: Answer = {"error": "the server is gone"}


class Pending:
    """An action whose answer is still to come."""

    def __init__(self) -> None:
        self._come = threading.Event()
        self._answer: Answer = {}

    def settle(self, answer: Answer) -> None:
        self._answer = answer
        self._come.set()

    def result(self, allow_error: bool = False) -> Answer:
        assert self._come.wait(PATIENCE_SECONDS), "the stand-in did not answer"
        assert allow_error or "error" not in self._answer, self._answer
        return self._answer


def truth_of(answer: Answer) -> Truth | None:
    """What the agent should see of an action, None where it is nothing."""
    kind = answer.get("kind")
    span = answer["t0"], answer["t1"]
    if kind in ("compile", "test"):
        inside = "sources" in answer  # built inside the server: no process tells when it began
        return Truth(
            kind,
            answer["slug"],
            answer["started_at"],
            answer["ended_at"],
            answer["exit_code"],
            answer["signal"],
            source=tuple(answer["sources"]) if inside else answer["source"],
            stdout=answer["stdout"],
            stderr=answer["stderr"],
            origin="learnpack",
            span=span,
            start_known=not inside,
            may_end_at=answer.get("told_end"),
        )
    if kind == "reset_step" or (kind == "open_step" and answer["new"]):
        return Truth(kind, answer["slug"], answer["at"], answer["at"], span=span)
    return None


class LearnPack:
    """One server in one course.  `truth` grows with every action that the agent should see.

    `pace_seconds` is the pause before each action that is waited for: nobody clicks at the speed of a program.
    """

    def __init__(
        self, course: Path, toolbox: Toolbox, *, own_telemetry: bool = False, pyenv: bool = False, **environment: str
    ) -> None:
        self.pace_seconds = 0.0
        self.course = course
        self.toolbox = toolbox
        self.truth: list[Truth] = []
        self.answers: list[Answer] = []
        self.touched = 0
        jest = find_jest()
        self.environment = toolbox.environment(
            pyenv,
            STANDIN_TELEMETRY="1" if own_telemetry else "0",
            STANDIN_NODE_MODULES=str(jest or "node_modules"),
            **environment,
        )
        self.environment["STANDIN_PATH"] = self.environment["PATH"]
        self.environment["PATH"] = f"{toolbox.learnpack_bin}{os.pathsep}{self.environment['PATH']}"
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self._pending: dict[int, Pending] = {}
        self._is_gone = False
        self._changes = threading.Lock()  # of these two
        self._next = 0
        self._control: socket.socket | None = None

    # ------------------------------------------------------------------------------------------ life

    def start(self) -> LearnPack:
        """Starts the server on its own and returns when it is ready."""
        command = [str(self.toolbox.learnpack_bin / "learnpack"), "start", "-p", "3000"]
        self.process = subprocess.Popen(
            command,
            cwd=self.course,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self.process.pid
        ready = Pending()
        self._pending[-1] = ready
        self._hear(self.process.stdout)
        self._out = cast("Any", self.process.stdin)
        ready.result()
        return self

    def start_in_terminal(self, run_line: Any) -> LearnPack:
        """Starts the server in a student's terminal: `run_line` types a line that ends in `&`."""
        where = os.path.join(tempfile.mkdtemp(prefix="standin-"), "control")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
        listener.listen(1)
        listener.settimeout(PATIENCE_SECONDS)
        names = ("STANDIN_TELEMETRY", "STANDIN_NODE_MODULES", "STANDIN_PATH", "PATH")
        settings = " ".join(f"{name}='{self.environment[name]}'" for name in names)
        run_line(f"{settings} STANDIN_CONTROL='{where}' learnpack start -p 3000 &")
        control, _ = listener.accept()
        listener.close()
        os.unlink(where)
        os.rmdir(os.path.dirname(where))
        ready = Pending()
        self._pending[-1] = ready
        self._control = control
        self._hear(control.makefile("rb"))
        self._out = control.makefile("wb")
        self.pid = int(ready.result()["pid"])
        return self

    def _hear(self, answers: Any) -> None:
        self._is_gone = False
        self._listener = threading.Thread(target=self._listen, args=(answers,), daemon=True)
        self._listener.start()

    def _listen(self, answers: Any) -> None:
        with contextlib.suppress(ConnectionError):
            for line in answers:
                answer = json.loads(line)
                self.touched = max(self.touched, answer.get("touched", 0))
                self._pending.pop(answer.get("id", -1)).settle(answer)
            answers.close()
        with self._changes:
            self._is_gone = True
            for pending in self._pending.values():
                pending.settle(_GONE)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Ends the server with a signal and returns its return code (0 where a terminal is its parent)."""
        if self.process is None:
            os.kill(self.pid, sig)
            return 0
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(PATIENCE_SECONDS)
        self._listener.join(PATIENCE_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):  # what was still to be sent to a server that was killed
                    stream.close()
        return code

    def end(self) -> None:
        """For the end of a test: nothing of ours stays behind."""
        if self._control is not None:
            # The server ends itself when its control channel is closed.
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)
            self._listener.join(PATIENCE_SECONDS)
            self._out.close()
            self._control.close()
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.stop(signal.SIGKILL)

    # ------------------------------------------------------------------------------------------ actions

    def send(self, do: str, **action: Any) -> Pending:
        pending, content = self._prepared(do, action)
        self._write(content)
        return pending

    def send_both(self, first: Answer, second: Answer) -> tuple[Pending, Pending]:
        """Two actions, the second in the same turn of the server's loop in which the first is over."""
        (one, content), (two, then) = self._prepared(first.pop("do"), first), self._prepared(second.pop("do"), second)
        self._write({**content, "then": then})
        return one, two

    def _prepared(self, do: str, action: Answer) -> tuple[Pending, Answer]:
        self._next += 1
        pending = Pending()
        with self._changes:
            self._pending[self._next] = pending
            if self._is_gone:  # its children may hold the pipe, which takes this then
                pending.settle(_GONE)
        return pending, {"id": self._next, "do": do, **action}

    def _write(self, content: Answer) -> None:
        self._out.write(json.dumps(content).encode() + b"\n")
        self._out.flush()

    def note(self, answer: Answer) -> Answer:
        """Keeps the truth of an answer; for actions that were sent without waiting."""
        self.answers.append(answer)
        for one in answer.get("opens", [answer]):
            if (truth := truth_of({**answer, **one})) is not None:
                self.truth.append(truth)
        return answer

    def do(self, do: str, **action: Any) -> Answer:
        time.sleep(self.pace_seconds)
        return self.note(self.send(do, **action).result())

    def open(self, slug: str) -> Answer:
        return self.do("open", slug=slug)

    def burst(self, *slugs: str) -> Answer:
        return self.do("burst", slugs=slugs)

    def save(self, slug: str, text: str, name: str = "app.py", base: str = "exercises") -> Answer:
        return self.do("save", path=f"{base}/{slug}/{name}" if slug else name, text=text)

    def build(self, slug: str, **more: Any) -> Answer:
        return self.do("build", slug=slug, **more)

    def test(self, slug: str, **more: Any) -> Answer:
        return self.do("test", slug=slug, **more)

    def reset(self, slug: str) -> Answer:
        return self.do("reset", slug=slug)

    def open_window(self, slug: str) -> Answer:
        """The UI's own wish for a window: not a build."""
        return self.do("open_window", slug=slug, url="https://example.org/")

    def ask_tutor(self, slug: str, question: str, answer: str, source: str = "") -> Answer:
        return self.do("ask_ai", slug=slug, question=question, answer=answer, source=source)

    def log_in(self, **payload: Any) -> Answer:
        return self.do("log_in", payload=payload)

    def log_out(self) -> Answer:
        return self.do("log_out")

    def spoil(self, fate: str) -> Answer:
        """What becomes of the next write of telemetry.json: one of telemetry_file.FATES."""
        return self.do("spoil", fate=fate)

    def die_of(self, do: str, **action: Any) -> int:
        """Asks for something that the server dies of, and returns its return code."""
        assert self.process is not None
        self.send(do, **action)
        code = self.process.wait(PATIENCE_SECONDS)
        self.stop()
        return code

    def clean(self) -> None:
        """`learnpack clean`, a program of its own."""
        command = [str(self.toolbox.learnpack_bin / "learnpack"), "clean"]
        subprocess.run(command, cwd=self.course, env=self.environment, check=True, timeout=PATIENCE_SECONDS)
