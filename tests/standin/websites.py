"""Builds without a process: HTML (prettier), React and plain JavaScript pages (webpack), all inside the server.

HTML: each page and style sheet of the step is rewritten and copied to `dist`, one after the other, in one turn of the
loop.  React and "vanillajs": the loop goes on while webpack works; then webpack writes what is another than on the
disk, and says of missing modules in the bundle, not by failing.  A build that ends well opens the preview's window.
A syntax error ends a React build without any trace, a plain page's only in the bundle.
Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .formatting import Broken, check_jsx, check_script, format_css, format_html, format_jsx
from .layout import read_text
from .shelljs import write_in_place
from .telemetry_file import now_ms
from .texts import BUNDLE, PREVIEW_PAGE

LANGUAGES = ("html", "react", "vanillajs")


@dataclass(frozen=True)
class Site:
    """The end of a build.  `attempt` is what the engine tells of it, None where it tells nothing.

    `left_trace`: something on the disk says that there was a build.  `sources` are the entry's text as it was built
    and as it was left.
    """

    attempt: dict[str, Any] | None
    exit_code: int
    left_trace: bool
    sources: tuple[str, ...]


class Failed(Exception):
    """The engine failed before it had anything to tell."""


def build_html(root: str, dist: str, rows: list[dict[str, Any]], entry: str, open_window: Callable[[], None]) -> Site:
    """`root` and `dist` are absolute; `rows` are the step's files, `entry` one of their paths."""
    before = read_text(os.path.join(root, entry))
    errors, written = [], False
    for row in rows:
        if ".html" not in row["path"] and ".css" not in row["path"]:
            continue
        path = os.path.join(root, row["path"])
        try:
            text = (format_css if row["name"].endswith(".css") else format_html)(read_text(path))
        except Broken as error:
            errors.append(str(error))
            continue
        write_in_place(path, text)
        write_in_place(os.path.join(dist, row["name"]), text)
        written = True
    sources = (before, read_text(os.path.join(root, entry)))
    if errors:
        return Site(None, 1, written, sources)
    open_window()
    at = now_ms()
    attempt = {"starting_at": at, "source_code": "", "stdout": "Successfully built your HTML", "exitCode": 0}
    return Site({**attempt, "ended_at": iso(at)}, 0, True, sources)


def iso(at: int) -> str:
    """What JavaScript makes of a Date in JSON."""
    import datetime

    moment = datetime.datetime.fromtimestamp(at / 1000, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


class Webpack:
    """One build of one entry.  `read` is its beginning, `emit` its end; between them time passes."""

    def __init__(self, root: str, dist: str, language: str, entry: str, rows: list[dict[str, Any]]) -> None:
        self.root, self.dist, self.language, self.entry, self.rows = root, dist, language, entry, rows
        self.started_at = now_ms()
        self.errors: list[str] = []
        self.source = ""

    def read(self) -> None:
        self.source = read_text(os.path.join(self.root, self.entry))

    def emit(self, open_window: Callable[[], None]) -> Site:
        """Raises Failed where the engine dies of it, with nothing written."""
        changed = self._write_bundle() if self.language == "vanillajs" else self._write_app()
        ended = now_ms()
        attempt: dict[str, Any] = {"starting_at": self.started_at, "source_code": ""}
        attempt |= {"exitCode": int(bool(self.errors)), "ended_at": ended}
        verdict = f"compiled with {len(self.errors)} error" if self.errors else "compiled successfully"
        attempt["stdout"] = "\n".join(["asset index.js [emitted] (name: main)", *self.errors, verdict])
        if self.errors:
            attempt["stderr"] = attempt["stdout"]
        sources = (self.source, read_text(os.path.join(self.root, self.entry)))
        if self.language == "vanillajs":
            try:
                self._copy_pages()
            except Broken:
                return Site(None, 1, changed, sources)
        open_window()
        return Site(attempt, attempt["exitCode"], True, sources)

    def _write_app(self) -> bool:
        """React: the entry is formatted in place, also while the student writes on; then the bundle is written."""
        path = os.path.join(self.root, self.entry)
        now = read_text(path)
        try:
            check_jsx(self.source)
            formatted = format_jsx(now)
        except Broken as error:
            raise Failed("Cannot read properties of undefined (reading 'toString')") from error
        if formatted != now:
            write_in_place(path, formatted)
        return self._write_bundle() | self._write_if_changed("index.html", PREVIEW_PAGE)

    def _write_bundle(self) -> bool:
        body = self._missing()
        if self.language == "vanillajs":
            try:
                check_script(self.source)
            except Broken as error:
                self.errors.append(str(error))
                body = f'throw new Error("Module build failed (from babel-loader):\\n{error}");\n'
        name = f"./{self.entry}"
        changed = self._write_if_changed("index.js", BUNDLE.format(name=name, line="*" * (len(name) + 4), body=body))
        origin = {"version": 3, "file": "index.js", "sources": [f"webpack:///{name}"], "sourcesContent": [self.source]}
        changed |= self._write_if_changed("index.js.map", json.dumps(origin))
        for row in self.rows:
            if self.language == "vanillajs" and row["name"] == "styles.css":
                changed |= self._write_if_changed("styles.css", read_text(os.path.join(self.root, row["path"])))
        return changed

    def _missing(self) -> str:
        """The bundle's body: the source, and an error thrown for each module that is not there."""
        import re

        lines = []
        for module in re.findall(r"""from\s+['"](\.[^'"]+)['"]""", self.source):
            base = os.path.join(self.root, os.path.dirname(self.entry), module)
            if not any(os.path.exists(base + ending) for ending in ("", ".js", ".jsx", ".css")):
                self.errors.append(f"Module not found: Error: Can't resolve '{module}'")
                lines.append(f"Object(function webpackMissingModule() {{ throw new Error('{module}'); }}());\n")
        return "".join(lines) + self.source

    def _write_if_changed(self, name: str, text: str) -> bool:
        path = os.path.join(self.dist, name)
        if os.path.exists(path) and read_text(path) == text:
            return False
        write_in_place(path, text)
        return True

    def _copy_pages(self) -> None:
        for row in self.rows:
            if not row["hidden"] and row["name"].endswith(".html"):
                path = os.path.join(self.root, row["path"])
                write_in_place(path, format_html(read_text(path)))
                shutil.copy(path, os.path.join(self.dist, row["name"]))
