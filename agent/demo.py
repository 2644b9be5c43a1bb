"""`learnpack-agent demo`: a small course, a scripted student, the real agent.

Everything is real but the web UI: the course lies in a temporary directory, the agent is a process of its own,
the student's programs and tests are processes.  LearnPack's part is played on disk, as the real one leaves it
(`.learn/config.json`, `.learn/vscode_queue.json`).  Each act says what must be concluded from it; anything else,
more or less is a failure, and the exit code says so.

It ends in under 20 s whatever the agent does: start and acts share LIMIT_S, and an agent that does not end is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .config import course_key
from .core.events import Compile, Event, Gap, SessionEnd, SessionStart, Test
from .sensors.course import read_course
from .status import progress_lines, status_of
from .store.journal import Journal, JournalError, Record
from .views import event_words

#: What an act must lead to: event, step, exit code.
Expected = tuple[str, str | None, int | None]

#: For one conclusion; for the agent's start and all acts; for the agent's end.
WAIT_S = 4.0
LIMIT_S = 14.0
END_S = 3.0
#: So long nothing else may come where nothing more is expected.
QUIET_S = 0.3

_FILES = {
    "learn.json": '{"slug": "demo-course", "title": "Demo"}\n',
    "exercises/00-welcome/README.md": "# Welcome\n",
    "exercises/01-greeting/README.md": "# Print a greeting\n",
    "exercises/01-greeting/app.py": "import time\n\ntime.sleep(0.3)\nprint(greting)\n",
    "exercises/01-greeting/test.py": (
        "import pathlib, subprocess, sys, unittest\n\n\n"
        "class Greeting(unittest.TestCase):\n"
        "    def test_prints_hello(self):\n"
        "        app = pathlib.Path(__file__).with_name('app.py')\n"
        "        out = subprocess.run([sys.executable, str(app)], capture_output=True, text=True).stdout\n"
        "        self.assertEqual(out, 'hello\\n')\n"
    ),
    "exercises/02-sum/README.md": "# Add two numbers\n",
    "exercises/02-sum/app.py": "import time\n\ntime.sleep(0.3)\nprint(1 + 2)\n",
}
_FIXED = "import time\n\ntime.sleep(0.3)\nprint('hello')\n"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that LearnPack or the student does, and what the agent must conclude from it."""

    words: str
    do: Callable[[], object]
    expected: tuple[Expected, ...] = ()


class _Stage:
    """The course on disk, LearnPack's part of it, and the student's hands."""

    def __init__(self, directory: str, end: float) -> None:
        self.course = os.path.join(directory, "course")
        self._end = end
        self._queue: list[dict[str, object]] = []
        for path, text in _FILES.items():
            self.save(path, text)
        os.mkdir(os.path.join(self.course, ".learn"))

    def save(self, path: str, text: str) -> None:
        """In place, as LearnPack's editor and VS Code do."""
        full = os.path.join(self.course, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as stream:
            stream.write(text)

    def learnpack(self, name: str, slug: str | None = None) -> None:
        """LearnPack's footprint of one action: config.json first, then the queue (truncated, then written)."""
        self.save(".learn/config.json", json.dumps({"currentExercise": slug}))
        self._queue.append({"name": name, "time": len(self._queue)} | ({"data": slug} if slug else {}))
        self.save(".learn/vscode_queue.json", json.dumps(self._queue))

    def python(self, *arguments: str) -> None:
        """A command of the student's terminal, to its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # the missing conclusion says it
            subprocess.run(
                [sys.executable, *arguments],
                cwd=self.course,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=max(0.1, self._end - time.monotonic()),
            )


def _acts(stage: _Stage) -> list[Act]:
    greeting = "exercises/01-greeting/app.py"
    test = "exercises/01-greeting/test.py"
    return [
        Act("LearnPack starts", lambda: stage.learnpack("initializing"), (("session_start", None, None),)),
        Act(
            "the student opens 00-welcome",
            lambda: stage.learnpack("start_exercise", "00-welcome"),
            (("open_step", "00-welcome", None),),
        ),
        Act(
            "the student has read it and opens 01-greeting",
            lambda: stage.learnpack("start_exercise", "01-greeting"),
            (("complete_step", "00-welcome", None), ("open_step", "01-greeting", None)),
        ),
        Act(f"$ python {greeting}", lambda: stage.python(greeting), (("compile", "01-greeting", 1),)),
        Act("the student finds the typing error and saves", lambda: stage.save(greeting, _FIXED)),
        Act(f"$ python {greeting}", lambda: stage.python(greeting), (("compile", "01-greeting", 0),)),
        Act("the editor compiles the file to check it: no run", lambda: stage.python("-m", "py_compile", greeting)),
        Act(
            f"$ python -m unittest {test}",
            lambda: stage.python("-m", "unittest", test),
            (("test", "01-greeting", 0), ("complete_step", "01-greeting", None)),
        ),
        Act(
            "$ python exercises/02-sum/app.py   (in a terminal; LearnPack knows nothing of it)",
            lambda: stage.python("exercises/02-sum/app.py"),
            (("open_step", "02-sum", None), ("compile", "02-sum", 0)),
        ),
        Act("LearnPack ends", lambda: stage.learnpack("connection_ended"), (("session_end", None, None),)),
    ]


def demo() -> int:
    """Play the demo on stdout; 0 if the agent concluded exactly what was done, else 1."""
    with _ended_by(signal.SIGTERM, signal.SIGHUP):
        directory = os.path.realpath(tempfile.mkdtemp(prefix="learnpack-agent-demo-"))
        try:
            return _play(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """The first of these signals is a SystemExit, so that agent and directory go with us.  Those that follow (`timeout`
    sends two) don't disturb that; one that was ignored before (`nohup`) stays ignored."""
    before = {number: signal.getsignal(number) for number in signals}
    handled = [number for number in signals if before[number] is not signal.SIG_IGN]

    def end(number: int, _: object) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def _play(directory: str) -> int:
    end = time.monotonic() + LIMIT_S
    stage = _Stage(directory, end)
    state = os.path.join(directory, "state")
    key = os.path.join(state, course_key(stage.course))
    log = os.path.join(directory, "log")
    with open(log, "wb") as stderr:
        agent = subprocess.Popen(
            [sys.executable, "-P", "-m", __package__, "run", stage.course, "--state-dir", state, "--log-level", "info"],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(os.environ, directory),
        )
    try:
        if not _until(lambda: _is_ready(key) or agent.poll() is not None, end) or agent.poll() is not None:
            print(f"the agent did not start:\n{_text(log)}")
            return 1
        print(f"a course in {stage.course}, and the agent (process {agent.pid}) watching it\n")
        with Journal.open(key, create=False, read_only=True) as journal:
            wrong = _perform(_acts(stage), journal, end)
            print("\nwhat the agent knows of the student now:")
            status = status_of(read_course(stage.course), journal, key)
            print("\n".join(progress_lines(status["steps"], status["current_step"])))
            print(f"processes were seen by {status['agent'].get('processes', {}).get('level', 'nothing')}")
    finally:
        _end(agent)
    if wrong:
        print("\nthe agent was wrong:\n  " + "\n  ".join(wrong))
        return 1
    print("\nevery action was concluded once, and nothing was invented")
    return 0


def _environment(ours: Mapping[str, str], directory: str) -> dict[str, str]:
    """What the agent is started with: nothing of the user's own agent, its settings or its service manager.

    The package is found where this one was, whatever directory the user is in (-P and PYTHONPATH).
    """
    foreign = ("JOURNAL_STREAM", "NOTIFY_SOCKET", "STATE_DIRECTORY")
    environment = {
        name: value for name, value in ours.items() if name not in foreign and not name.startswith("LEARNPACK_AGENT_")
    }
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = [here, *filter(None, [ours.get("PYTHONPATH")])]
    return environment | {"XDG_CONFIG_HOME": os.path.join(directory, "config"), "PYTHONPATH": os.pathsep.join(path)}


def _is_ready(key: str) -> bool:
    """Whether the agent has said so, in its journal."""
    try:
        with Journal.open(key, create=False, read_only=True) as journal:
            return "ready_at" in (journal.fact("status") or {})
    except JournalError:  # not there yet
        return False


def _end(agent: subprocess.Popen[bytes]) -> None:
    """The agent ends, of itself or not."""
    agent.terminate()
    try:
        agent.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        print("the agent did not end and is killed")
    finally:
        if agent.poll() is None:
            agent.kill()
            agent.wait()


def _perform(acts: list[Act], journal: Journal, end: float) -> list[str]:
    """Play each act and compare, until `end` (time.monotonic); returns what was wrong, in words."""
    wrong: list[str] = []
    last = 0
    for act in acts:
        if time.monotonic() > end:
            wrong.append(f"{act.words}: not played, the time was over")
            continue
        print(f"* {act.words}")
        before = time.time()
        act.do()
        found = _records(journal, last, len(act.expected), end)
        for record in found:
            last = record.number
            late = max(0, int((time.time() - before) * 1000))
            print(f"    -> {event_words(record.event):<64} within {late} ms")
        told = [_told(record.event) for record in found]
        if told != list(act.expected):
            wrong.append(f"{act.words}: expected {list(act.expected)}, concluded {told}")
    if more := [_told(record.event) for record in _records(journal, last, 0, end)]:
        wrong.append(f"after all that: expected nothing, concluded {more}")
    return wrong


def _records(journal: Journal, after: int, count: int, end: float) -> list[Record]:
    """The records after this number, as soon as there are `count`; where none is expected, those that come anyway."""
    found: list[Record] = []

    def enough() -> bool:
        found.extend(journal.records(after=found[-1].number if found else after))
        return len(found) >= count > 0

    _until(enough, min(end, time.monotonic() + (WAIT_S if count else QUIET_S)))
    return found


def _told(event: Event) -> Expected:
    match event:
        case Compile() | Test():
            return event.name, event.step.slug, event.run.exit_code
        case SessionStart() | SessionEnd() | Gap():
            return event.name, None, None
        case _:
            return event.name, event.step.slug, None


def _until(condition: Callable[[], bool], end: float) -> bool:
    """Whether the condition was met before `end` (time.monotonic)."""
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()
