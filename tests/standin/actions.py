"""What can be asked of the stand-in's server: each `do_…` is one action of the UI, and answers with the truth of it.

A test blocks the loop, a build does not.  An action may carry another one in "then": it is done in the same turn of the
loop, before anything that waits there.  Standard library only.

Known to be weak: JavaScript is not parsed before a build of Node's engine (say `"parses": false` for a program that
Node could not parse, as the real plugin then starts nothing).
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from typing import Any

from . import programs, websites
from .layout import Row, read_text
from .server import Server, Truth
from .shelljs import write_in_place
from .telemetry_file import now_ms
from .texts import CONFTEST

Action = dict[str, Any]
#: How long webpack works; the real one 0.5-2 s, on a busy machine more.
WEBPACK_SECONDS = 0.5


class LearnPackServer(Server):
    def handle(self, action: Action) -> None:
        """Runs in the loop.  An action answers when it is over; a build does so from its own thread."""
        action = {"began": now_ms(), **action}
        try:
            truth = getattr(self, "do_" + action["do"])(action)
        except Exception as error:  # an action that fails says so, as the real UI would
            truth = {"error": f"{type(error).__name__}: {error}"}
        if truth is not None:
            self.finish(action, truth)

    def finish(self, action: Action, truth: Truth) -> None:
        """Answers when the telemetry that belongs to it is written."""
        truth = {"id": action["id"], "t0": action["began"], "t1": now_ms(), **truth}

        def answer() -> None:
            self.answer({**truth, "touched": self.telemetry_file.touched})

        if "then" in action:
            self.handle(action["then"])
        self.telemetry_file.settled(answer)

    def do_open(self, action: Action) -> Truth:
        step = self.layout.step(action["slug"])
        other = step["slug"] != self.current
        if other:
            self.current = step["slug"]
            self.write_config()
            for row in step["files"]:
                if not row["hidden"] and os.path.exists(self.at_base(f"dist/{row['name']}")):
                    os.unlink(self.at_base(f"dist/{row['name']}"))
        if self.telemetry:
            self.telemetry.opened(step["position"], now_ms())
        if other:
            self.tell_editor("start_exercise", step["slug"])
            self.layout.open(step)
        at = now_ms()
        read_text(self.layout.at(f"{step['path']}/README.md"))
        if action.get("fetch", True):
            self.fetch_files(step)
        return {"kind": "open_step", "slug": step["slug"], "at": at, "new": other}

    def fetch_files(self, step: Row) -> None:
        """The standalone UI reads each visible file; the first time ever that makes the copies for a reset."""
        visible = [row for row in step["files"] if not row["hidden"]]
        for row in visible:
            read_text(self.layout.at(row["path"]))
        copies = self.at_base(f"resets/{step['slug']}")
        if visible and not os.path.isdir(copies):
            os.makedirs(copies)
            for row in step["files"]:
                path = self.layout.at(row["path"])
                if os.path.isfile(path) and row["path"].startswith(step["path"]):
                    shutil.copyfile(path, os.path.join(copies, row["name"]))

    def do_burst(self, action: Action) -> Truth:
        opens = []
        for slug in action["slugs"]:
            opens.append(self.do_open({"slug": slug}))
            time.sleep(0.005)
        return {"kind": "burst", "opens": opens}

    def do_save(self, action: Action) -> Truth:
        write_in_place(self.layout.at(action["path"]), action["text"])
        return {"kind": "save", "at": now_ms()}

    def do_reset(self, action: Action) -> Truth:
        step = self.layout.step(action["slug"])
        copies = self.at_base(f"resets/{step['slug']}")
        for name in sorted(os.listdir(copies)):
            write_in_place(self.layout.at(f"{step['path']}/{name}"), read_text(os.path.join(copies, name)))
        self.tell_editor("reset_exercise", step["slug"])
        return {"kind": "reset_step", "slug": step["slug"], "at": now_ms()}

    def do_ask_ai(self, action: Action) -> Truth:
        """A conversation with the tutor leaves no trace but LearnPack's own telemetry."""
        step = self.layout.step(action["slug"])
        ended = now_ms()
        interaction = {
            "student_message": action["question"],
            "source_code": action.get("source", ""),
            "ai_response": action["answer"],
            "starting_at": ended - 800,
            "ending_at": ended,
        }
        if self.telemetry:
            self.telemetry.asked(step["position"], interaction, ended)
        times = {"started_at": ended - 800, "ended_at": ended}
        return {"kind": "ai_interaction", "slug": step["slug"], "at": ended, **times, "token": self.token}

    def do_open_files(self, action: Action) -> Truth:
        """What the VS Code mode asks for; the page comes last."""
        files = sorted(action["files"], key=lambda name: name.endswith(".html"))
        self.tell_editor("open_files", files)
        return {"kind": "open_files"}

    def do_open_window(self, action: Action) -> Truth:
        """The UI asks for a window: an object in the queue, and no build."""
        self.tell_editor("open_window", {"exerciseSlug": action["slug"], "url": action["url"]})
        return {"kind": "open_window"}

    def do_log_in(self, action: Action) -> Truth:
        self.session.log_in(action["payload"])
        if self.telemetry and "user_id" in action["payload"]:
            self.telemetry.logged_in(action["payload"]["user_id"])
        return {"kind": "log_in", "at": now_ms()}

    def do_log_out(self, action: Action) -> Truth:
        self.session.log_out()
        return {"kind": "log_out", "at": now_ms()}

    def do_keep_tutor_token(self, action: Action) -> Truth:
        """The token of the AI tutor, which is no login."""
        self.session.keep({"rigobot": {"key": action["token"]}})
        return {"kind": "keep_tutor_token", "at": now_ms()}

    @property
    def token(self) -> str | None:
        token: str | None = self.session.payload().get("token")
        return token

    def do_get_telemetry(self, action: Action) -> Truth:
        """For the UI of version 5, which keeps the document itself."""
        content = self.telemetry_file.read()
        return {"kind": "telemetry", "document": None if content is None else json.loads(content)}

    def do_post_telemetry(self, action: Action) -> Truth:
        self.telemetry_file.save(action["document"])
        return {"kind": "telemetry"}

    def do_spoil(self, action: Action) -> Truth:
        """Decides what becomes of the next write of telemetry.json."""
        self.telemetry_file.fate = action["fate"]
        return {"kind": "spoil"}

    # ------------------------------------------------------------------------------------------ builds

    def do_build(self, action: Action) -> Truth | None:
        step = self.layout.step(action["slug"])
        entry, language = self.layout.entry_path(step), step["language"]
        nothing = {"kind": "nothing", "slug": step["slug"]}
        if entry is None or not action.get("parses", True):
            return nothing
        if language == "html":
            dist = self.at_base("dist")
            began = now_ms()
            site = websites.build_html(self.layout.root, dist, step["files"], entry, self.open_preview)
            return self.registered(step, site, began)
        if language in websites.LANGUAGES:
            webpack = websites.Webpack(self.layout.root, self.at_base("dist"), language, entry, step["files"])
            threading.Thread(target=self.bundle, args=(action, step, webpack), daemon=True).start()
            return None
        if language in programs.LANGUAGES:
            threading.Thread(target=self.build, args=(action, step, language, entry), daemon=True).start()
            return None
        return nothing

    def bundle(self, action: Action, step: Row, webpack: websites.Webpack) -> None:
        seconds = action.get("seconds", WEBPACK_SECONDS)
        time.sleep(seconds / 4)
        webpack.read()
        time.sleep(seconds * 3 / 4)
        self.loop.put(lambda: self.bundled(action, step, webpack))

    def bundled(self, action: Action, step: Row, webpack: websites.Webpack) -> None:
        try:
            site = webpack.emit(self.open_preview)
        except websites.Failed:
            self.finish(action, {"kind": "nothing", "slug": step["slug"]})
            return
        self.finish(action, self.registered(step, site, webpack.started_at))

    def registered(self, step: Row, site: websites.Site, began: int) -> Truth:
        """The truth of a build without a process, after LearnPack's telemetry got what the engine tells of it."""
        ended = now_ms()
        if self.telemetry and site.attempt is not None:
            self.telemetry.ran("compilations", step["position"], site.attempt, ended)
        truth = {"slug": step["slug"], "started_at": began, "ended_at": ended, "sources": site.sources}
        if not site.left_trace:
            return {"kind": "nothing", **truth}
        told = site.attempt or {}
        truth |= {name: told.get(name) for name in ("stdout", "stderr")}
        # The engine's own end is before the window opens; the ISO text of the HTML engine is the same moment.
        end = told.get("ended_at")
        truth["told_end"] = end if isinstance(end, int) else ended
        return {"kind": "compile", **truth, "exit_code": site.exit_code, "signal": None}

    def build(self, action: Action, step: Row, language: str, entry: str) -> None:
        try:
            limits = {name: action[name] for name in ("limit", "from_output") if name in action}
            built = self.programs.build(language, self.layout.at(entry), action.get("answers"), **limits)
        except OSError as error:
            complaint = f"{type(error).__name__}: {error}"
            self.loop.put(lambda: self.finish(action, {"error": complaint}))
            return
        self.loop.put(lambda: self.built(action, step, built))

    def built(self, action: Action, step: Row, built: programs.Built) -> None:
        ended = now_ms()
        result = built.result
        attempt = {
            "stderr": result["stderr"],
            "stdout": result["stdout"],
            "exitCode": result["exit_code"],
            "memoryUsage": result["memoryUsage"],
            "cpuUsage": result["cpuUsage"],
            **({} if built.error_type is None else {"errorType": built.error_type}),
            "starting_at": built.started_at,
            "source_code": built.source,
            "ended_at": ended,
        }
        if self.telemetry:
            self.telemetry.ran("compilations", step["position"], attempt, ended)
        truth = {"kind": "compile", "slug": step["slug"], "started_at": built.started_at, "ended_at": ended}
        truth |= {name: result[name] for name in ("exit_code", "signal", "stdout", "stderr")}
        self.finish(action, {**truth, "source": built.source, "program": result["pid"], "launcher": built.launcher})

    # ------------------------------------------------------------------------------------------ tests

    def do_test(self, action: Action) -> Truth:
        """Blocks the loop until the tests are over: an open that is asked for meanwhile is delayed."""
        step = self.layout.step(action["slug"])
        tests = self.layout.test_path(step)
        if self.layout.disabled("test") or step["language"] is None or tests is None:
            return {"kind": "nothing", "slug": step["slug"]}
        os.makedirs(self.at_base("reports"), exist_ok=True)
        starting = now_ms()
        entry = self.layout.entry_path(step)
        source = read_text(self.layout.at(entry)) if entry else ""
        if step["language"] == "python3":
            write_in_place(self.layout.at("conftest.py"), CONFTEST)
            if entry:
                write_in_place(self.at_base("dist/cached_app.py"), source)
            answers = json.dumps(action.get("answers", []))
            command = f"pytest ./{tests} --testdox --capture=sys --color=yes --stdin='{answers}'"
            result = self.shell.run(command)
        else:
            result = self.shell.run(self.jest_command(step, tests), 0o644 if step["language"] == "node" else 0o600)
        ended = now_ms()
        if self.telemetry:
            told = self.told_of_test(step["language"], result)
            attempt = {"starting_at": starting, "source_code": source, "ended_at": ended, **told}
            self.telemetry.ran("tests", step["position"], attempt, ended)
        step["done"] = step["done"] or result["exit_code"] == 0
        self.write_config()
        truth = {"kind": "test", "slug": step["slug"], "started_at": starting, "ended_at": ended, "source": source}
        return {**truth, "signal": None, **result}

    def told_of_test(self, language: str, result: dict[str, Any]) -> dict[str, Any]:
        """What the engine makes of the result: of a failing one it keeps the wrong half."""
        code, stdout, stderr = result["exit_code"], result["stdout"], result["stderr"]
        if language == "python3":
            stderr = stdout if code else stderr
        elif language in websites.LANGUAGES:
            stdout = stdout or "✅ All tests passed successfully!"
        else:
            stdout = stdout or "✅ All tests have passed"
        return {"exitCode": code, "stdout": stdout, "stderr": stderr}

    def jest_command(self, step: Row, tests: str) -> str:
        reporter = os.path.join(self.modules, "standin-report.js")
        config: dict[str, Any] = {
            "verbose": True,
            "moduleDirectories": ["node_modules", os.environ.get("STANDIN_NODE_MODULES", "node_modules")],
            "transform": {},
            "testRegex": tests,
            "reporters": [[reporter, {"reportPath": self.at_base(f"reports/{step['slug']}.json")}]],
        }
        return f"jest --config='{json.dumps(config, separators=(',', ':'), ensure_ascii=False)}' --colors"
