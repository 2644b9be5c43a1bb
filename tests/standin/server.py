"""The life of the stand-in's server: its start, its loop, its end, and LearnPack's own files in the course.

The main thread is the event loop of Node: what is put into `loop` runs there, one after the other.  Every file is
rewritten in place, as the real server does.  What a student can ask it for is in actions.py.
Standard library only.

Environment: STANDIN_TELEMETRY=1 makes it write a telemetry.json of its own; STANDIN_WRITES names a file that is told
of every write of it; STANDIN_LOADED_SECONDS is when after its start the queue says `configuration_loaded` (a second;
"never"); the student's HOME and TMPDIR are where temporary files go.

Known to be weak: where the steps lie in `.learn/exercises`, the first change does not make the index anew (there the
real one forgets the root's files until the next opening).
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .layout import Layout, read_text
from .programs import Programs
from .session import Session
from .shelljs import ShellJs, write_in_place
from .telemetry import OwnTelemetry
from .telemetry_file import TelemetryFile, now_ms

Truth = dict[str, Any]


class Server:
    def __init__(self, answer: Callable[[Truth], None]) -> None:
        self.answer = answer
        self.loop: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        bin_directory = os.path.dirname(os.path.abspath(sys.argv[0]))
        self.modules = os.path.join(os.path.dirname(bin_directory), "node_modules")
        self.shell = ShellJs(bin_directory, self.modules, os.getcwd())
        self.programs = Programs(bin_directory, self.modules)
        self.port = int(sys.argv[3]) if len(sys.argv) > 3 else 3000
        self.entries: list[dict[str, Any]] = []
        self.current: str | None = None
        self.telemetry: OwnTelemetry | None = None
        self.writes_telemetry = os.environ.pop("STANDIN_TELEMETRY", "0") == "1"

    # ------------------------------------------------------------------------------------------ start and stop

    def start(self) -> None:
        self.shell.run("echo $CODESPACE_NAME", mode=0o600)
        self.layout = Layout(os.getcwd())
        self.session = Session(self.at_base("."))
        self.session.start()
        self.telemetry_file = TelemetryFile(self.at_base("telemetry.json"), self.loop.put)
        os.makedirs(self.at_base("dist"), exist_ok=True)
        if os.path.exists(self.at_base("config.json")):
            try:
                self.current = json.loads(read_text(self.at_base("config.json"))).get("currentExercise")
            except ValueError:
                self.current = None
        self.write_config()
        again = os.path.exists(self.at_base("vscode_queue.json"))
        self.tell_editor("initializing")
        if again:
            self.tell_editor("reset")
        self.write_config()
        if self.writes_telemetry:
            slug = self.layout.settings.get("slug", "a-course")
            agent = self.config["editor"]["agent"]
            self.telemetry = OwnTelemetry(self.telemetry_file, slug, self.layout.steps, agent, now_ms())
        if (seconds := os.environ.pop("STANDIN_LOADED_SECONDS", "1")) != "never":
            threading.Timer(float(seconds), lambda: self.loop.put(self.loaded)).start()
        if not self.layout.at_root:  # there the queue's own change is the first one
            threading.Thread(target=self.wait_for_first_change, daemon=True).start()

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.loop.put(self.end))
        signal.signal(signal.SIGHUP, lambda *_: self.loop.put(self.end))
        # The real watcher's own handler leaves at once: nothing is written.
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
        self.start()
        self.telemetry_file.settled(lambda: self.answer({"ready": True, "pid": os.getpid(), "at": now_ms()}))
        while True:
            self.loop.get()()

    def loaded(self) -> None:
        self.tell_editor("configuration_loaded")
        if self.layout.at_root:
            self.write_config()  # the watcher of the steps sees our own files there

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
                for step in self.layout.steps
                for entry in os.scandir(self.layout.at(step["path"]))
                if entry.is_file()
            ]

        try:
            before = picture()
            while picture() == before:
                time.sleep(0.1)
        except OSError:
            return
        self.loop.put(self.build_index)

    def build_index(self) -> None:
        if self.layout.exercises == "exercises":
            done = {step["slug"] for step in self.layout.steps if step["done"]}
            self.layout.steps = self.layout.read_steps()
            for step in self.layout.steps:
                step["done"] = step["slug"] in done
        self.write_config()

    # ------------------------------------------------------------------------------------------ LearnPack's own files

    def at_base(self, name: str) -> str:
        return self.layout.at(os.path.join(self.layout.base, name))

    @property
    def config(self) -> dict[str, Any]:
        url = f"http://localhost:{self.port}"
        exercises = "./" if self.layout.at_root else f"./{self.layout.exercises}"
        return {
            "port": self.port,
            "dirPath": f"./{self.layout.base}",
            "configPath": self.layout.config_path,
            "outputPath": f"{self.layout.base}/dist",
            "publicPath": "/preview",
            "publicUrl": url,
            "language": "auto",
            "grading": "isolated",
            "exercisesPath": exercises,
            "disableGrading": False,
            "disabledActions": [],
            **self.layout.settings,
            "editor": {"mode": "standalone", "agent": "localhost", "version": "5.0"},
            "entries": self.layout.entries,
        }

    def write_config(self) -> None:
        content = {
            "config": self.config,
            "address": "http://localhost",
            "currentExercise": self.current,
            "exercises": self.layout.steps,
            "session": 4_711,
        }
        write_in_place(self.at_base("config.json"), json.dumps(content, indent=4, ensure_ascii=False))

    def tell_editor(self, name: str, data: Any = None) -> None:
        # `time` is no clock in the real file either.
        entry = {"name": name, "time": round(random.uniform(1e6, 2e6), 3)}
        self.entries.append(entry if data is None else {**entry, "data": data})
        write_in_place(self.at_base("vscode_queue.json"), json.dumps(self.entries, ensure_ascii=False))

    def open_preview(self) -> None:
        self.tell_editor("open_window", f"http://localhost:{self.port}/preview")
