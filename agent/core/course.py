"""An immutable picture of a course: its steps, and which step a path belongs to.

Reading the disk lives in `agent.sensors.course`; this file only knows LearnPack's rules.  They are those of
LearnPack CLI 2.1.34 (`managers/config/exercise.ts`): directories sorted by name, hidden and `_` ones skipped,
position = index, testable = a file that starts with `test.` or `tests.` in any case.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: LearnPack's default entry file of each language (`managers/config/defaults.ts`).
ENTRIES: Mapping[str, str] = {
    "python3": "app.py",
    "node": "app.js",
    "react": "app.jsx",
    "html": "index.html",
    "vanillajs": "index.js",
    "java": "app.java",
}

#: The endings that LearnPack shows to the student (`managers/config/allowed_files.ts`).
VISIBLE_ENDINGS = frozenset(
    "py java ruby html css htm php js jsx ts sh bash json yml yaml csv xml txt text markdown readme".split()
)

#: Endings of program text: what a student edits and runs.  Wider than LearnPack's own list on purpose:
#: a course may teach a language that LearnPack has no engine for.
SOURCE_ENDINGS = frozenset(
    "py pyw js mjs cjs jsx ts tsx mts cts html htm css scss vue svelte java kt kts rb php c h cc cpp cxx hpp cs go rs"
    " sh bash zsh pl lua r jl swift dart scala sql ex exs hs clj ml".split()
)

SINGLE_STEP_SLUG = "default-index"

_TEST_FILE = re.compile(r"tests?\.", re.IGNORECASE)


def is_test_file(name: str) -> bool:
    """Whether LearnPack takes a file of this name for the step's tests."""
    return _TEST_FILE.match(name) is not None


def is_source_file(name: str) -> bool:
    """Whether a student would write this file: program text, no test, no hidden file, no solution."""
    lower = name.lower()
    return (
        not lower.startswith((".", "_"))
        and ".hide." not in lower
        and not is_test_file(name)
        and lower.rpartition(".")[2] in SOURCE_ENDINGS
        and "." in lower
    )


def is_hidden_file(name: str) -> bool:
    """LearnPack's `shouldBeVisible`, turned round."""
    lower = name.lower()
    return (
        "test." in lower
        or "tests." in lower
        or ".hide." in lower
        or lower.startswith((".", "_"))
        or "learn.json" in lower
        or "bc.json" in lower
        or lower in ("package.json", "package-lock.json")
        or "readme." in lower
        or lower.rpartition(".")[2] not in VISIBLE_ENDINGS
        or "." not in lower
    )


def printable(text: str) -> str:
    """Text that came from bytes of the file system, as valid Unicode: what can't be decoded becomes U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def one_line(text: str) -> str:
    """A text for a terminal or a log: a line break, a control character, half of a letter in it is an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True)
class StepFile:
    """One file of a step; `path` is relative to the course's root."""

    path: str
    name: str
    hidden: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One exercise.  Paths are relative to the course's root; `path` of a single-README course is "."."""

    slug: str
    position: int
    path: str
    files: tuple[StepFile, ...] = ()
    language: str | None = None
    entry: str | None = None
    tests: tuple[str, ...] = ()

    @property
    def is_testable(self) -> bool:
        return bool(self.tests)


@dataclass(frozen=True, slots=True)
class Course:
    """The course at one moment.

    `root` is the absolute real path; `aliases` are other absolute paths of the same directory (symbolic links).
    `at_root` says that code lies in the root and belongs to whichever step is current (incremental grading).
    `pytest_files` are the file patterns that a bare `pytest` collects, `pytest_options` the arguments that its
    configuration puts before those on the command line (`addopts`); `jest_configured` says that the course
    has a jest configuration of its own, so that jest's default patterns say nothing.  `exercises` is the
    directory that holds the steps, `base` LearnPack's own (".learn" or ".breathecode"), both relative to the root.
    `streaming` and `batch` are the URLs that learn.json's `telemetry` names, unchecked.
    """

    root: str
    slug: str
    steps: tuple[Step, ...] = ()
    grading: str = "isolated"
    aliases: tuple[str, ...] = ()
    pytest_files: tuple[str, ...] = ("test_*.py", "*_test.py")
    jest_configured: bool = False
    exercises: str = "exercises"
    base: str = ".learn"
    pytest_options: tuple[str, ...] = ()
    streaming: str | None = None
    batch: str | None = None
    _by_path: Mapping[str, Step] = field(default_factory=dict, repr=False, compare=False)
    _by_slug: Mapping[str, Step] = field(default_factory=dict, repr=False, compare=False)
    _names: frozenset[str] = field(default_factory=frozenset, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_path", {step.path: step for step in self.steps})
        object.__setattr__(self, "_names", frozenset(posixpath.basename(step.path) for step in self.steps))
        # The first of two steps with one slug wins, as in LearnPack's own `find`.
        object.__setattr__(self, "_by_slug", {step.slug: step for step in reversed(self.steps)})

    @property
    def at_root(self) -> bool:
        return self.grading == "incremental"

    def relative(self, path: str) -> str | None:
        """An absolute path inside the course, relative to its root ("." for the root); else None."""
        for root in (self.root, *self.aliases):
            if path == root:
                return "."
            prefix = root if root.endswith("/") else root + "/"
            if path.startswith(prefix):
                return path[len(prefix) :]
        return None

    def resolve(self, operand: str, cwd: str | None) -> str | None:
        """A command's path operand as a path relative to the root, or None when it lies outside the course."""
        if not operand or (cwd is None and not operand.startswith("/")):
            return None
        return self.relative(posixpath.normpath(posixpath.join(cwd or "/", operand)))

    def step_named(self, slug: str) -> Step | None:
        return self._by_slug.get(slug)

    def slug_at(self, index: int) -> str:
        """The slug of a step that has none in a document: LearnPack itself knows its steps by their index."""
        return self.steps[index].slug if index < len(self.steps) else f"step-{index}"

    def has_directory_named(self, name: str) -> bool:
        """Whether a step's directory has this name."""
        return name in self._names

    def step_of(self, path: str) -> Step | None:
        """The step whose directory holds this path (relative to the root), or None."""
        while path:
            step = self._by_path.get(path)
            if step is not None:
                return step
            path = posixpath.dirname(path)
        return self._by_path.get(".")

    def test_files(self) -> Iterator[tuple[Step, str]]:
        for step in self.steps:
            for path in step.tests:
                yield step, path


def detect_language(names: list[str], entries: Mapping[str, str]) -> tuple[str | None, str | None]:
    """LearnPack's `detect`: the language of a step and the name of its entry file, from its file names.

    LearnPack compares whole names with its table of entries; only an `index.js` is taken as it is.
    """

    def holding(part: str) -> list[str]:
        return [name for name in names if part in name]

    def entry(language: str, among: list[str]) -> tuple[str, str | None]:
        wanted = entries.get(language)
        return language, next((name for name in among if name == wanted), None)

    for part, language in ((".py", "python3"), (".java", "java"), (".jsx", "react")):
        if found := holding(part):
            return entry(language, found)
    html, index_js = holding("index.html"), holding("index.js")
    if html and index_js:
        return "vanillajs", index_js[0]
    if html:
        return entry("html", html)
    if scripts := holding(".js"):
        return entry("node", scripts)
    return None, None


def step_from(path: str, names: list[str], position: int, entries: Mapping[str, str]) -> Step:
    """The step in the directory `path` (relative to the root, "." for a single README) with these file names."""

    def at(name: str) -> str:
        return name if path == "." else f"{path}/{name}"

    language, entry = detect_language(names, entries)
    return Step(
        slug=SINGLE_STEP_SLUG if path == "." else printable(posixpath.basename(path)),
        position=position,
        path=path,
        files=tuple(StepFile(at(name), name, is_hidden_file(name)) for name in names),
        language=language,
        entry=at(entry) if entry else None,
        tests=tuple(at(name) for name in names if is_test_file(name)),
    )
