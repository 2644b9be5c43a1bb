"""How LearnPack reads a course: where its configuration lies, which directories are steps, what a step is.

Written from what CLI 2.1.34 does; `bc.json` is what its ancestors of 2021 took besides.  The base directory is
`.breathecode` where that exists.  The steps are the directories of `exercises`, else of `<base>/exercises`, else of the
root; where there are none, the root itself is the only step, "default-index".
Standard library only: the server runs without the project's packages.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

ENTRIES = {
    "html": "index.html",
    "vanillajs": "index.js",
    "react": "app.jsx",
    "node": "app.js",
    "python3": "app.py",
    "java": "app.java",
}
#: Endings of files that the UI shows.
CODE = frozenset("py java ruby html css htm php js jsx ts sh bash json yml yaml csv xml txt text markdown".split())

Row = dict[str, Any]


def read_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def is_test(name: str) -> bool:
    return name.lower().startswith(("test.", "tests."))


def is_hidden(name: str, path: str) -> bool:
    lower = name.lower()
    marks = ("test.", "tests.", ".hide.", "learn.json", "bc.json", "readme.")
    return (
        any(mark in lower for mark in marks)
        or lower.startswith((".", "_"))
        or lower in ("package.json", "package-lock.json")
        or lower.rpartition(".")[2] not in CODE
        or os.path.isdir(path)
    )


def detect(names: list[str], entries: dict[str, str]) -> tuple[str | None, str | None]:
    """The language and the entry's name, from the names of the files alone."""

    def with_entry(language: str) -> tuple[str, str | None]:
        return language, entries[language] if entries[language] in names else None

    for part, language in ((".py", "python3"), (".java", "java"), (".jsx", "react")):
        if any(part in name for name in names):
            return with_entry(language)
    page = any("index.html" in name for name in names)
    script = next((name for name in names if "index.js" in name), None)
    if page and script:
        return "vanillajs", script
    if page:
        return with_entry("html")
    return with_entry("node") if any(".js" in name for name in names) else (None, None)


class Layout:
    """The course in `root`.  `steps` are the rows of config.json; `read_steps` reads them anew."""

    def __init__(self, root: str) -> None:
        self.root = root
        found = next((name for name in ("learn.json", ".learn/learn.json", "bc.json") if self.exists(name)), None)
        if found is None:
            raise FileNotFoundError("learn.json file not found on current folder, is this a learnpack package?")
        self.config_path = found
        self.settings: Row = json.loads(read_text(self.at(found)))
        self.base = ".breathecode" if self.exists(".breathecode") else ".learn"
        self.exercises = next((name for name in ("exercises", f"{self.base}/exercises") if self.exists(name)), ".")
        self.entries: dict[str, str] = {**ENTRIES, **self.settings.get("entries", {})}
        self.steps = self.read_steps()

    def at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def exists(self, path: str) -> bool:
        return os.path.exists(self.at(path))

    @property
    def is_incremental(self) -> bool:
        return self.settings.get("grading") == "incremental"

    @property
    def at_root(self) -> bool:
        return self.exercises == "."

    def disabled(self, action: str) -> bool:
        off = action in self.settings.get("disabledActions", [])
        return off or (action == "test" and bool(self.settings.get("disableGrading")))

    def read_steps(self) -> list[Row]:
        names = sorted(name for name in os.listdir(self.at(self.exercises)) if not name.startswith((".", "_")))
        paths = [name if self.at_root else f"{self.exercises}/{name}" for name in names]
        directories = [path for path in paths if os.path.isdir(self.at(path)) and not os.path.islink(self.at(path))]
        if not directories:
            return [self._read_step("./", "default-index", 0)]
        return [self._read_step(path, os.path.basename(path), number) for number, path in enumerate(directories)]

    def _read_step(self, path: str, slug: str, position: int) -> Row:
        names = sorted(os.listdir(self.at(path)))
        language, entry = detect(names, self.entries)
        return {
            "position": position,
            "path": path,
            "slug": slug,
            "translations": {"us": "README.md"},
            "language": language,
            "entry": entry and f"{path}/{entry}",
            "title": slug,
            "graded": any(map(is_test, names)),
            "files": self.rows(path, names),
            "done": False,
        }

    def rows(self, path: str, names: list[str]) -> list[Row]:
        paths = {name: f"{path}/{name}" for name in names}
        return [{"path": paths[name], "name": name, "hidden": is_hidden(name, self.at(paths[name]))} for name in names]

    def step(self, slug: str) -> Row:
        return next(step for step in self.steps if step["slug"] == slug)

    def open(self, step: Row) -> None:
        """What an opening does to the row: files of the root join it where the code lies there, the entry is found."""
        if self.is_incremental:
            tests = [row for row in step["files"] if "test." in row["name"]]
            step["files"] = tests + self.rows(".", sorted(os.listdir(self.root)))
        wanted = set(self.entries.values())
        language, entry = detect([row["name"] for row in step["files"] if row["name"] in wanted], self.entries)
        step["language"] = language or step["language"]
        step["entry"] = entry

    def entry_path(self, step: Row) -> str | None:
        """The entry's path, relative to the root; None where the step has none (now)."""
        name = os.path.basename(step["entry"] or "")
        path = next((row["path"] for row in step["files"] if row["name"] == name), None)
        return None if path is None else os.path.normpath(path)

    def test_path(self, step: Row) -> str | None:
        return next((row["path"] for row in step["files"] if re.search(r"tests?\.", row["name"])), None)
