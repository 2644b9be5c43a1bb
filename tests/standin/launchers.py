"""The two programs that LearnPack puts between its server and a run.

`box` (compile-run): runs the student's program with sockets for stdin, stdout and stderr, ends it after a while
with SIGTERM, tells its parent, and waits to be ended by SIGTERM itself.  `exec_child` (shelljs): reads its orders from
a file, runs `/bin/sh -c …`, copies the output into two other files, and exits with the code of the shell.
Both are started as `node …/lib/box` and `node …/src/exec-child.js PARAMS`.  Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

#: After so long a program is ended.  The real limit is three seconds, which on a slow machine ends everything; a build
#: that is about the limit brings one of its own in its order.
LIMIT_SECONDS = 60.0


def read_line(connection: socket.socket) -> Any:
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            raise EOFError
        data += piece
    return json.loads(data)


def copy_until_closed(
    process: subprocess.Popen[bytes], ends: dict[int, Any], limit: float | None, from_output: bool = False
) -> None:
    """Copies what comes from each socket to its sink until all are closed, then reaps the process.

    `from_output`: the limit counts from the program's first output, so that it has come as far as that.
    """
    deadline = None if limit is None or from_output else time.monotonic() + limit
    poller = select.poll()
    for end in ends:
        poller.register(end, select.POLLIN | select.POLLHUP)
    open_ends = set(ends)
    while open_ends:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = poller.poll(wait)
        if not ready and deadline is not None:
            process.send_signal(signal.SIGTERM)
            deadline = None
        for end, _ in ready:
            piece = os.read(end, 65536)
            if piece:
                ends[end](piece)
                if from_output and limit is not None:
                    deadline, from_output = time.monotonic() + limit, False
            else:
                poller.unregister(end)
                open_ends.discard(end)
    process.wait()


def start_with_sockets(
    command: list[str], cwd: str | None = None
) -> tuple[subprocess.Popen[bytes], list[socket.socket]]:
    """Like Node's `spawn`: fd 0, 1 and 2 of the child are sockets."""
    pairs = [socket.socketpair() for _ in range(3)]
    stdin, stdout, stderr = (theirs.fileno() for _, theirs in pairs)
    process = subprocess.Popen(command, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)
    for _, theirs in pairs:
        theirs.close()
    return process, [ours for ours, _ in pairs]


def box() -> None:
    del os.environ["PYTHONHOME"]
    channel = socket.socket(fileno=int(os.environ.pop("NODE_CHANNEL_FD")))
    order = read_line(channel)
    process, (stdin, stdout, stderr) = start_with_sockets(order["command"])
    if order["input"] is not None:
        stdin.sendall(order["input"].encode())
        stdin.close()
    out: list[bytes] = []
    err: list[bytes] = []
    ends = {stdout.fileno(): out.append, stderr.fileno(): err.append}
    copy_until_closed(process, ends, order["limit"] or LIMIT_SECONDS, order["from_output"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    code = process.returncode
    answer = {
        "pid": process.pid,
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "stdout": b"".join(out).decode(errors="replace"),
        "stderr": b"".join(err).decode(errors="replace"),
        "memoryUsage": usage.ru_maxrss,
        "cpuUsage": int(usage.ru_utime * 1_000_000),
    }
    # Where the server is gone there is nobody to tell; where it goes away before it ends us, the channel closes.
    with contextlib.suppress(OSError):
        channel.sendall(json.dumps(answer).encode() + b"\n")
        channel.recv(1)


def exec_child() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        order = json.load(file)
    options = order["execOptions"]
    process, (stdin, stdout, stderr) = start_with_sockets(["/bin/sh", "-c", order["command"]], cwd=options["cwd"])
    with open(order["stdoutFile"], "wb", buffering=0) as out, open(order["stderrFile"], "wb", buffering=0) as err:
        copy_until_closed(process, {stdout.fileno(): out.write, stderr.fileno(): err.write}, None)
    stdin.close()
    code = process.returncode
    sys.exit(code if code >= 0 else 1)
