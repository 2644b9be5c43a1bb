"""The stand-in for LearnPack's server: runs as `node …/bin/learnpack start -p N` with the course as its directory.

One JSON line per action comes in, one JSON line per action with the truth goes out; over stdin and stdout, or over the
Unix socket that STANDIN_CONTROL names.  The main thread is the event loop of Node: a test blocks it, a build does not.
Every file is rewritten in place, as the real server does.  Standard library only.

Environment: STANDIN_PATH is the PATH of the children (ours starts with the fake `node`); STANDIN_TELEMETRY=1 makes it
write a telemetry.json of its own; the student's HOME and TMPDIR are where temporary files go.

Known to be weak: HTML and React are not here; JavaScript is not parsed before a build (say `"parses": false` for a
program that Node could not parse, as the real plugin then starts nothing).
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .launchers import read_line
from .shelljs import ShellJs, read_text, write_in_place
from .telemetry import OwnTelemetry
from .texts import CONFTEST, PROMPT_HEADER

ENTRIES = {"python3": "app.py", "node": "app.js"}
VISIBLE = (".py", ".js", ".html", ".css", ".txt", ".json")
VERSION_CHECK = 'python -c "import platform; print(platform.python_version())"'


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Server:
    def __init__(self, answer: Callable[[dict[str, Any]], None]) -> None:
        self.course = os.getcwd()
        self.answer = answer
        self.loop: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.bin = os.path.dirname(os.path.abspath(sys.argv[0]))
        self.modules = os.path.join(os.path.dirname(self.bin), "node_modules")
        self.shell = ShellJs(self.bin, self.modules, self.course)
        self.entries: list[dict[str, Any]] = []
        self.current: str | None = None
        self.telemetry: OwnTelemetry | None = None
        self.writes_telemetry = os.environ.pop("STANDIN_TELEMETRY", "0") == "1"

    # ------------------------------------------------------------------------------------------ start and stop

    def start(self) -> None:
        self.shell.run("echo $CODESPACE_NAME", mode=0o600)
        os.makedirs(self.at(".learn/dist"), exist_ok=True)
        self.settings = self.read_settings()
        self.steps = self.read_steps()
        again = os.path.exists(self.at(".learn/config.json"))
        if again:
            try:
                self.current = json.loads(read_text(self.at(".learn/config.json"))).get("currentExercise")
            except ValueError:
                self.current = None
        self.write_config()
        self.tell_editor("initializing")
        if again:  # the real server says it at some starts and not at others
            self.tell_editor("reset")
        self.write_config()
        if self.writes_telemetry:
            slug = self.settings.get("slug", "a-course")
            self.telemetry = OwnTelemetry(self.at(".learn/telemetry.json"), slug, self.steps, now_ms())
        threading.Timer(1.0, lambda: self.loop.put(lambda: self.tell_editor("configuration_loaded"))).start()
        threading.Thread(target=self.wait_for_first_change, daemon=True).start()

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.loop.put(self.end))
        signal.signal(signal.SIGHUP, lambda *_: self.loop.put(self.end))
        # The real watcher's own handler leaves at once: nothing is written.
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
        self.start()
        self.answer({"ready": True, "pid": os.getpid(), "at": now_ms()})
        while True:
            self.loop.get()()

    def end(self) -> None:
        self.current = None
        self.write_config()
        self.tell_editor("connection_ended")
        os._exit(0)

    def wait_for_first_change(self) -> None:
        """The index is built again, once, at the first change under the exercises, whoever made it."""

        def picture() -> list[tuple[str, int]]:
            return [
                (entry.path, entry.stat().st_mtime_ns)
                for step in self.steps
                for entry in os.scandir(self.at(step["path"]))
                if entry.is_file()
            ]

        try:
            before = picture()
            while picture() == before:
                time.sleep(0.1)
        except OSError:
            return
        self.loop.put(self.write_config)

    # ------------------------------------------------------------------------------------------ the course

    def at(self, path: str) -> str:
        return os.path.join(self.course, path)

    def read_settings(self) -> dict[str, Any]:
        for name in ("learn.json", ".learn/learn.json"):
            if os.path.exists(self.at(name)):
                settings: dict[str, Any] = json.loads(read_text(self.at(name)))
                return settings
        return {}

    def read_steps(self) -> list[dict[str, Any]]:
        base = "exercises" if os.path.isdir(self.at("exercises")) else ".learn/exercises"
        names = sorted(name for name in os.listdir(self.at(base)) if not name.startswith((".", "_")))
        directories = [name for name in names if os.path.isdir(self.at(f"{base}/{name}"))]
        return [self.read_step(f"{base}/{name}", position) for position, name in enumerate(directories)]

    def read_step(self, path: str, position: int) -> dict[str, Any]:
        names = sorted(name for name in os.listdir(self.at(path)) if os.path.isfile(self.at(f"{path}/{name}")))
        files = [self.file_row(f"{path}/{name}") for name in names]
        if self.settings.get("grading") == "incremental":
            roots = sorted(name for name in os.listdir(self.course) if name.endswith((".py", ".js")))
            files += [self.file_row(name) for name in roots if name != "conftest.py"]
        seen = [row["name"] for row in files]
        language = next((language for language, entry in ENTRIES.items() if entry in seen), None)
        return {
            "position": position,
            "path": path,
            "slug": os.path.basename(path),
            "translations": {"us": "README.md"},
            "language": language,
            "entry": ENTRIES[language] if language else None,
            "title": os.path.basename(path),
            "graded": any(name.lower().startswith(("test.", "tests.")) for name in names),
            "files": files,
            "done": False,
        }

    def file_row(self, path: str) -> dict[str, Any]:
        name = os.path.basename(path)
        tested = name.lower().startswith(("test.", "tests."))
        hidden = tested or ".hide." in name or name.startswith(("README", ".", "_")) or not name.endswith(VISIBLE)
        return {"path": path, "name": name, "hidden": hidden}

    def step(self, slug: str) -> dict[str, Any]:
        return next(step for step in self.steps if step["slug"] == slug)

    def entry_path(self, step: dict[str, Any]) -> str:
        return str(next(row["path"] for row in step["files"] if row["name"] == step["entry"]))

    # ------------------------------------------------------------------------------------------ files of .learn

    def write_config(self) -> None:
        content = {
            "config": {
                "port": int(sys.argv[3]) if len(sys.argv) > 3 else 3000,
                "editor": {"mode": "standalone", "agent": "localhost", "version": "5.0"},
                "dirPath": "./.learn",
                "configPath": "learn.json",
                "outputPath": ".learn/dist",
                "grading": "isolated",
                "exercisesPath": "./exercises",
                "disabledActions": [],
                "entries": ENTRIES,
                **self.settings,
            },
            "address": "http://localhost",
            "currentExercise": self.current,
            "exercises": self.steps,
            "session": None,
        }
        write_in_place(self.at(".learn/config.json"), json.dumps(content, indent=4, ensure_ascii=False))

    def tell_editor(self, name: str, data: Any = None) -> None:
        # `time` is no clock in the real file either.
        entry = {"name": name, "time": round(random.uniform(1e6, 2e6), 3)}
        self.entries.append(entry if data is None else {**entry, "data": data})
        write_in_place(self.at(".learn/vscode_queue.json"), json.dumps(self.entries, ensure_ascii=False))

    # ------------------------------------------------------------------------------------------ actions

    def handle(self, action: dict[str, Any]) -> None:
        """Runs in the loop.  An action answers when it is over; a build does so from its own thread."""
        began = now_ms()
        try:
            truth = getattr(self, "do_" + action["do"])(action)
        except Exception as error:  # an action that fails says so, as the real UI would
            truth = {"error": f"{type(error).__name__}: {error}"}
        if truth is not None:
            self.finish(action, began, truth)

    def finish(self, action: dict[str, Any], began: int, truth: dict[str, Any]) -> None:
        touched = self.telemetry.touched if self.telemetry else 0
        self.answer({"id": action["id"], "t0": began, "t1": now_ms(), "touched": touched, **truth})

    def do_open(self, action: dict[str, Any]) -> dict[str, Any]:
        step = self.step(action["slug"])
        other = step["slug"] != self.current
        if other:
            self.current = step["slug"]
            self.write_config()
            for row in step["files"]:
                if not row["hidden"] and os.path.exists(self.at(f".learn/dist/{row['name']}")):
                    os.unlink(self.at(f".learn/dist/{row['name']}"))
        if self.telemetry:
            self.telemetry.opened(step["slug"], now_ms())
        if other:
            self.tell_editor("start_exercise", step["slug"])
        at = now_ms()
        for row in step["files"]:
            if row["name"] == "README.md" or not row["hidden"]:
                read_text(self.at(row["path"]))
        copies = self.at(f".learn/resets/{step['slug']}")
        if any(not row["hidden"] for row in step["files"]) and not os.path.isdir(copies):
            os.makedirs(copies)
            for row in step["files"]:
                if row["path"].startswith(step["path"]):
                    shutil.copyfile(self.at(row["path"]), os.path.join(copies, row["name"]))
        return {"kind": "open_step", "slug": step["slug"], "at": at, "new": other}

    def do_burst(self, action: dict[str, Any]) -> dict[str, Any]:
        opens = []
        for slug in action["slugs"]:
            opens.append(self.do_open({"slug": slug}))
            time.sleep(0.005)
        return {"kind": "burst", "opens": opens}

    def do_save(self, action: dict[str, Any]) -> dict[str, Any]:
        write_in_place(self.at(action["path"]), action["text"])
        return {"kind": "save", "at": now_ms()}

    def do_reset(self, action: dict[str, Any]) -> dict[str, Any]:
        step = self.step(action["slug"])
        copies = self.at(f".learn/resets/{step['slug']}")
        for name in sorted(os.listdir(copies)):
            write_in_place(self.at(f"{step['path']}/{name}"), read_text(os.path.join(copies, name)))
        self.tell_editor("reset_exercise", step["slug"])
        return {"kind": "reset_step", "slug": step["slug"], "at": now_ms()}

    def do_ask_ai(self, action: dict[str, Any]) -> dict[str, Any]:
        """A conversation with the tutor leaves no trace but LearnPack's own telemetry."""
        if self.telemetry:
            self.telemetry.asked(action["slug"], action["question"], action["answer"], now_ms())
        return {"kind": "ai_interaction", "slug": action["slug"], "at": now_ms()}

    def do_open_files(self, action: dict[str, Any]) -> dict[str, Any]:
        self.tell_editor("open_files", {"exerciseSlug": action["slug"], "files": action["files"]})
        return {"kind": "open_files"}

    def do_build(self, action: dict[str, Any]) -> dict[str, Any] | None:
        step = self.step(action["slug"])
        if not action.get("parses", True):
            return {"kind": "nothing", "slug": step["slug"]}
        threading.Thread(target=self.build, args=(action, step, now_ms()), daemon=True).start()
        return None

    def build(self, action: dict[str, Any], step: dict[str, Any], began: int) -> None:
        entry = self.at(self.entry_path(step))
        if step["language"] == "python3":
            subprocess.run(["/bin/sh", "-c", VERSION_CHECK], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        starting = now_ms()
        source = read_text(entry)
        program = ["python", entry] if step["language"] == "python3" else ["node", self.copy_for_node(source)]
        answers = action.get("answers")
        order = {"command": program, "input": None if answers is None else "".join(f"{a}\n" for a in answers)}
        ours, theirs = socket.socketpair()
        # Named just "node", as in the real one, our interpreter would look for its library beside the `node` on PATH.
        environment = {**os.environ, "NODE_CHANNEL_FD": str(theirs.fileno()), "PYTHONHOME": sys.base_prefix}
        box = subprocess.Popen(
            ["node", os.path.join(self.modules, "compile-run/dist/lib/box")],
            executable=os.path.join(self.bin, "node"),
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        ours.sendall(json.dumps(order).encode() + b"\n")
        result = read_line(ours)
        box.terminate()
        box.wait()
        ours.close()
        self.loop.put(lambda: self.built(action, step, began, starting, source, result, box.pid))

    def built(
        self,
        action: dict[str, Any],
        step: dict[str, Any],
        began: int,
        starting: int,
        source: str,
        result: dict[str, Any],
        launcher: int,
    ) -> None:
        ended = now_ms()
        failed = result["exit_code"] is None or result["exit_code"] > 0
        attempt = {
            "stderr": result["stderr"],
            "stdout": result["stdout"],
            "exitCode": result["exit_code"],
            "memoryUsage": result["memoryUsage"],
            "cpuUsage": result["cpuUsage"],
            **({"errorType": "run-time"} if failed else {}),
            "starting_at": starting,
            "source_code": source,
            "ended_at": ended,
        }
        if self.telemetry:
            self.telemetry.ran("compilations", step["slug"], attempt, ended)
        truth = {"kind": "compile", "slug": step["slug"], "started_at": starting, "ended_at": ended, "source": source}
        names = ("exit_code", "signal", "stdout", "stderr")
        truth.update({name: result[name] for name in names}, program=result["pid"], launcher=launcher)
        self.finish(action, began, truth)

    def copy_for_node(self, source: str) -> str:
        """A copy with a header, made just before the launcher starts and never deleted."""
        directory = os.path.join(os.environ["HOME"], ".compile-run2/tmp/node")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"source-{random.randbytes(16).hex()}-{now_ms()}.js")
        write_in_place(path, PROMPT_HEADER + " " + source)
        time.sleep(0.005)
        return path

    def do_test(self, action: dict[str, Any]) -> dict[str, Any]:
        """Blocks the loop until the tests are over: an open that is asked for meanwhile is delayed."""
        step = self.step(action["slug"])
        os.makedirs(self.at(".learn/reports"), exist_ok=True)
        starting = now_ms()
        entry = self.entry_path(step) if step["entry"] else None
        source = read_text(self.at(entry)) if entry else ""
        if step["language"] == "node":
            result = self.shell.run(self.jest_command(step))
        else:
            write_in_place(self.at("conftest.py"), CONFTEST)
            if entry:
                write_in_place(self.at(".learn/dist/cached_app.py"), source)
            answers = json.dumps(action.get("answers", []))
            command = f"pytest ./{step['path']}/test.py --testdox --capture=sys --color=yes --stdin='{answers}'"
            result = self.shell.run(command)
        ended = now_ms()
        code, stdout, stderr = result["exit_code"], result["stdout"], result["stderr"]
        if self.telemetry:
            told = (stdout or "✅ All tests have passed", stderr) if step["language"] == "node" else (stdout, stderr)
            if code and step["language"] == "python3":
                told = (stdout, stdout)
            attempt = {"starting_at": starting, "source_code": source, "ended_at": ended, "exitCode": code}
            self.telemetry.ran("tests", step["slug"], {**attempt, "stdout": told[0], "stderr": told[1]}, ended)
        step["done"] = step["done"] or code == 0
        self.write_config()
        truth = {"kind": "test", "slug": step["slug"], "started_at": starting, "ended_at": ended, "source": source}
        return {**truth, "signal": None, **result}

    def jest_command(self, step: dict[str, Any]) -> str:
        reporter = os.path.join(self.modules, "standin-report.js")
        report = self.at(f".learn/reports/{step['slug']}.json")
        config = {
            "verbose": True,
            "moduleDirectories": ["node_modules", os.environ.get("STANDIN_NODE_MODULES", "node_modules")],
            "transform": {},
            "testRegex": f"{step['path']}/tests.js",
            "reporters": [[reporter, {"reportPath": report}]],
        }
        return f"jest --config='{json.dumps(config, separators=(',', ':'), ensure_ascii=False)}' --colors"


def main() -> None:
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

    def answer(truth: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(truth) + "\n")
            answers.flush()

    server = Server(answer)

    def listen() -> None:
        for line in actions:
            action = json.loads(line)
            server.loop.put(lambda action=action: server.handle(action))  # type: ignore[misc]
        os._exit(0)  # whoever started us is gone

    threading.Thread(target=listen, daemon=True).start()
    server.run()
