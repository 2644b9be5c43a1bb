"""The program `learnpack`: `start` is the server, `clean` ends at once, as in the real one.

One JSON line per action comes in, one JSON line per action with the truth goes out; over stdin and stdout, or over the
Unix socket that STANDIN_CONTROL names.  STANDIN_PATH is the PATH of the children (ours starts with the fake `node`).
Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading

from .actions import LearnPackServer
from .layout import Layout
from .server import Truth


def clean() -> None:
    """`learnpack clean`: everything of LearnPack's goes but telemetry.json."""
    base = Layout(os.getcwd()).base
    for name in ("dist", "_app", "reports", ".session", "resets"):
        shutil.rmtree(os.path.join(base, name), ignore_errors=True)
    for name in ("app.tar.gz", "config.json", "vscode_queue.json"):
        if os.path.exists(os.path.join(base, name)):
            os.unlink(os.path.join(base, name))


def serve() -> None:
    where = os.environ.pop("STANDIN_CONTROL", None)
    if where:
        control = socket.socket(socket.AF_UNIX)
        control.connect(where)
        actions = control.makefile("r", encoding="utf-8")
        answers = control.makefile("w", encoding="utf-8")
    else:
        # Our children must not get the control channel as their stdin and stdout.
        actions = os.fdopen(os.dup(0), "r", encoding="utf-8")
        answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
    os.environ["PATH"] = os.environ.pop("STANDIN_PATH", os.environ["PATH"])
    lock = threading.Lock()

    def answer(truth: Truth) -> None:
        with lock:
            answers.write(json.dumps(truth) + "\n")
            answers.flush()

    server = LearnPackServer(answer)

    def listen() -> None:
        for line in actions:
            action = json.loads(line)
            server.loop.put(lambda action=action: server.handle(action))  # type: ignore[misc]
        os._exit(0)  # whoever started us is gone

    threading.Thread(target=listen, daemon=True).start()
    server.run()


def main() -> None:
    if sys.argv[1:2] == ["clean"]:
        clean()
    else:
        serve()
