"""The process tree as the core sees it: which processes belong together, and which of them is the run.

Rules, all from measured process chains (LearnPack 2.1.34, pyenv, npx, npm, node --test, jest and pytest workers):

- A process is judged by the last program with a purpose that it executed (a pyenv shim is one process with seven
  programs, and a student's program may replace itself by another).
- What the LearnPack server starts is bracketed by the *launcher*, the server's direct child: its start and exit
  agree with LearnPack's own times within milliseconds.  The exit code is the program's.
- Elsewhere the outermost process with a purpose is the run; what it starts belongs to it (test workers, a
  program under test).  Shells, `time`, `timeout`, `npx`, `uv run` have no purpose, so the program inside counts.

The tree forgets a process some time after its exit; nothing in it is bounded by the length of a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .commands import (
    NotARun,
    Purpose,
    becomes,
    is_build_launcher,
    is_server,
    parameter_file,
    purpose_of,
    rewrites_files,
)
from .course import Course, is_test_file
from .events import Captured, Evidence, Origin
from .observations import FileText, ProcessExecuted, ProcessExited
from .runners import Kind

Key = tuple[int, int]

#: How long an exited process is remembered as a parent, and a program waited for after its launcher's exit.
FORGET_AFTER_MS = 10_000
LAUNCHER_GRACE_MS = 1_000


@dataclass(slots=True)
class Process:
    """One process, alive or lately gone.  Times in ms; `exited_at` None while it lives."""

    key: Key
    parent: Process | None
    argv: tuple[str, ...]
    cwd: str | None
    started_at: int
    on_terminal: bool
    stdin: str | None = None
    texts: tuple[FileText, ...] = ()
    copy_of: tuple[str, ...] = ()
    is_server: bool = False
    rewrites_files: bool = False
    purpose: Purpose | NotARun = field(default_factory=lambda: NotARun("not looked at"))
    evidence: list[Evidence] = field(default_factory=list)
    exited_at: int | None = None
    exit_seen: bool = False
    exit_code: int | None = None
    signal: int | None = None
    stdout: Captured | None = None
    stderr: Captured | None = None
    failed_tests: tuple[str, ...] | None = None

    @property
    def alive(self) -> bool:
        return self.exited_at is None

    def ancestors(self) -> Iterator[Process]:
        process = self.parent
        while process is not None:
            yield process
            process = process.parent

    def launcher(self) -> Process | None:
        """The server's direct child that this process is or descends from."""
        process: Process | None = self
        while process is not None:
            if process.parent is not None and process.parent.is_server:
                return process
            process = process.parent
        return None

    def inside_another_run(self) -> bool:
        return any(isinstance(process.purpose, Purpose) for process in self.ancestors())


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that is over.  `ended_at` is None where its end was not seen.

    `stdout` and `stderr` are what LearnPack's launcher got of it, `failed_tests` what the program's own cache says.
    """

    purpose: Purpose
    argv: tuple[str, ...]
    started_at: int
    ended_at: int | None
    exit_code: int | None
    signal: int | None
    origin: Origin
    texts: tuple[FileText, ...]
    evidence: tuple[Evidence, ...]
    stdout: Captured | None = None
    stderr: Captured | None = None
    failed_tests: tuple[str, ...] | None = None

    @property
    def is_unseen(self) -> bool:
        """Whether only compile-run's box was seen: neither the step nor the end of the program is known."""
        return self.purpose.alternatives and not self.purpose.targets and is_build_launcher(self.argv)

    def shifted(self, by_ms: int) -> FinishedRun:
        """The same run after the clock was set."""
        ended_at = self.ended_at + by_ms if self.ended_at is not None else None
        return replace(self, started_at=self.started_at + by_ms, ended_at=ended_at)

    @property
    def failed(self) -> bool:
        return self.signal is not None or (self.exit_code is not None and self.exit_code != 0)


class ProcessTree:
    """All processes that were reported, by (pid, born)."""

    def __init__(self) -> None:
        self._processes: dict[Key, Process] = {}
        self._by_pid: dict[int, Process] = {}
        self._waiting: list[tuple[int, Process, Process]] = []  # deadline, launcher, program

    def __iter__(self) -> Iterator[Process]:
        return iter(self._processes.values())

    def servers(self) -> list[Process]:
        return [process for process in self if process.is_server and process.alive]

    def someone_rewrites_files(self, at: int, within_ms: int) -> bool:
        """Whether a formatter or a checkout runs now, or ended less than `within_ms` ago."""
        return any(
            process.rewrites_files and (process.exited_at is None or process.exited_at > at - within_ms)
            for process in self
        )

    def executed(self, course: Course, seen: ProcessExecuted, number: int) -> Process:
        """Note a program's start; returns its process with the purpose judged anew."""
        self._forget(seen.at)
        key = (seen.pid, seen.born)
        process = self._processes.get(key)
        if process is None:
            process = Process(
                key,
                self._by_pid.get(seen.parent),
                seen.argv,
                seen.cwd,
                seen.started_at if seen.found else seen.at,
                seen.on_terminal,
            )
            self._processes[key] = self._by_pid[seen.pid] = process
        elif seen.found and process.argv == seen.argv:
            return process
        process.is_server = process.is_server or is_server(course, seen.argv, seen.cwd)
        purpose = purpose_of(
            course, seen.argv, seen.cwd, seen.stdin, seen.copy_of, {text.path: text.text for text in seen.texts}
        )
        if isinstance(purpose, Purpose) or not isinstance(process.purpose, Purpose):
            # A student's program may replace itself by another one (os.exec): it is still that run.
            process.purpose, process.argv, process.cwd, process.stdin = purpose, seen.argv, seen.cwd, seen.stdin
            process.texts, process.copy_of = seen.texts, seen.copy_of
            process.rewrites_files = rewrites_files(seen.argv)
        process.evidence.append(Evidence(number, seen.at, _started_words(process, seen)))
        del process.evidence[:-8]
        return process

    def exited(self, seen: ProcessExited, number: int) -> tuple[Process | None, list[FinishedRun]]:
        """Note an exit; returns the process, if it was known, and the runs that are over with it."""
        process = self._processes.get((seen.pid, seen.born))
        if process is None or not process.alive:
            return None, []
        process.exited_at, process.exit_seen = seen.at, True
        process.exit_code, process.signal = seen.exit_code, seen.signal
        process.stdout, process.stderr, process.failed_tests = seen.stdout, seen.stderr, seen.failed_tests
        process.evidence.append(Evidence(number, seen.at, _exit_words(process, seen)))
        return process, self._conclude(process)

    def listed(self, alive: frozenset[Key], at: int, number: int) -> tuple[list[Process], list[FinishedRun]]:
        """What is not alive any more is over, its end unseen; returns these processes and their runs."""
        gone = [process for process in self if process.alive and process.key not in alive]
        runs: list[FinishedRun] = []
        for process in gone:
            process.exited_at = at
            process.evidence.append(Evidence(number, at, f"process {process.key[0]} is gone; its end was not seen"))
        for process in gone:
            runs.extend(self._conclude(process))
        return gone, runs

    def next_deadline(self) -> int | None:
        return min((deadline for deadline, _, _ in self._waiting), default=None)

    def handle_deadline(self, now: int) -> list[FinishedRun]:
        due = [entry for entry in self._waiting if entry[0] <= now]
        self._waiting = [entry for entry in self._waiting if entry[0] > now]
        return [_finished(program, launcher) for _, launcher, program in due]

    def shift(self, by_ms: int) -> None:
        """The clock was set: everything remembered moves with it."""
        self._waiting = [(deadline + by_ms, launcher, program) for deadline, launcher, program in self._waiting]
        for process in self:
            process.started_at += by_ms
            if process.exited_at is not None:
                process.exited_at += by_ms

    def _conclude(self, process: Process) -> list[FinishedRun]:
        for entry in self._waiting:
            if entry[2] is process:
                self._waiting.remove(entry)
                return [_finished(process, entry[1])]
        launcher = process.launcher()
        if launcher is None:
            if isinstance(process.purpose, Purpose) and not process.inside_another_run():
                return [_finished(process, None)]
            return []
        if process is not launcher:
            return []
        program = self._program_of(launcher)
        if program is None:
            return [_unseen_build(launcher)] if self._is_unseen_build(launcher) else []
        if program.alive and launcher.exited_at is not None:
            self._waiting.append((launcher.exited_at + LAUNCHER_GRACE_MS, launcher, program))
            return []
        return [_finished(program, launcher)]

    def _program_of(self, launcher: Process) -> Process | None:
        """The run inside a launcher: the outermost process with a purpose, the last one if there are several."""
        programs = [
            process
            for process in self
            if isinstance(process.purpose, Purpose)
            and process.launcher() is launcher
            and not process.inside_another_run()
        ]
        return programs[-1] if programs else None

    def _is_unseen_build(self, launcher: Process) -> bool:
        """Whether LearnPack built something, but its program was too short for the sensor that is in use."""
        return is_build_launcher(launcher.argv) and launcher.exit_seen

    def _forget(self, now: int) -> None:
        """Drop what exited a while ago and has no living descendants.  (Only when something starts: no timer.)"""
        old = [p for p in self if p.exited_at is not None and p.exited_at < now - FORGET_AFTER_MS]
        if not old:
            return
        needed = {ancestor.key for process in self if process.alive for ancestor in process.ancestors()}
        needed |= {process.key for _, launcher, program in self._waiting for process in (launcher, program)}
        for process in old:
            if process.key not in needed:
                del self._processes[process.key]
                if self._by_pid.get(process.key[0]) is process:
                    del self._by_pid[process.key[0]]

    # what survives a restart of the agent

    def in_flight(self) -> list[ProcessExecuted]:
        """The living processes that matter, parents first, as observations from which the tree can be built again."""
        wanted: dict[Key, Process] = {}
        for process in self:
            if process.alive and (process.is_server or isinstance(process.purpose, Purpose)):
                for one in (*reversed(list(process.ancestors())), process):
                    wanted[one.key] = one
        return [
            ProcessExecuted(
                at=process.started_at,
                pid=process.key[0],
                born=process.key[1],
                parent=process.parent.key[0] if process.parent is not None else 0,
                argv=process.argv,
                cwd=process.cwd,
                started_at=process.started_at,
                on_terminal=process.on_terminal,
                stdin=process.stdin,
                texts=process.texts,
                copy_of=process.copy_of,
                found=True,
            )
            for process in wanted.values()
        ]


def _finished(program: Process, launcher: Process | None) -> FinishedRun:
    assert isinstance(program.purpose, Purpose)
    bracket = launcher or program
    origin = Origin.LEARNPACK if launcher else Origin.TERMINAL if program.on_terminal else Origin.OTHER
    evidence = [*program.evidence]
    if launcher is not None and launcher is not program:
        evidence = [*launcher.evidence[:1], *program.evidence, *launcher.evidence[1:]]
    return FinishedRun(
        purpose=_purpose_in(program, launcher),
        argv=program.argv,
        started_at=bracket.started_at,
        ended_at=bracket.exited_at if bracket.exit_seen else None,
        exit_code=program.exit_code,
        signal=program.signal,
        origin=origin,
        texts=program.texts,
        evidence=tuple(evidence),
        stdout=bracket.stdout,
        stderr=bracket.stderr,
        failed_tests=program.failed_tests,
    )


def _purpose_in(program: Process, launcher: Process | None) -> Purpose:
    """What LearnPack starts by way of shelljs is a test, whatever runs it (`java Test.java`): its exit code decides.
    A compiler that did its work decides nothing."""
    purpose = program.purpose
    assert isinstance(purpose, Purpose)
    if launcher is None or parameter_file(launcher.argv) is None or purpose.kind is Kind.TEST:
        return purpose
    if purpose.kind is Kind.COMPILER and program.exit_code == 0:
        return purpose
    whole = any(is_test_file(target.rpartition("/")[2]) for target in purpose.targets)
    return replace(purpose, kind=Kind.TEST, whole=whole)


def _unseen_build(launcher: Process) -> FinishedRun:
    """A build of which only compile-run's box was seen: it happened, to the current step, with an unknown end."""
    return FinishedRun(
        purpose=Purpose(Kind.COMPILE, "compile-run", (), alternatives=True),
        argv=launcher.argv,
        started_at=launcher.started_at,
        ended_at=launcher.exited_at,
        exit_code=None,
        signal=None,
        origin=Origin.LEARNPACK,
        texts=(),
        evidence=tuple(launcher.evidence),
    )


def is_silent(run: FinishedRun) -> bool:
    """Whether a run is no event after all: its program was not found, nothing was tested, a compiler did its work."""
    if run.purpose.kind is Kind.COMPILER:
        return not run.failed
    if run.purpose.provisional and run.exit_code in (126, 127):
        return True
    return run.origin is not Origin.LEARNPACK and run.exit_code in run.purpose.silent_codes


#: How a program of this kind is called in words.
_NOUNS = {Kind.COMPILE: "program", Kind.TEST: "test", Kind.COMPILER: "compiler"}
_SIGNALS = {
    1: "its terminal was closed",
    2: "Ctrl-C",
    3: "Ctrl-\\",
    6: "it gave up by itself",
    9: "killed",
    11: "it crashed",
    15: "told to end",
}


def _started_words(process: Process, seen: ProcessExecuted) -> str:
    """What a program's start says, for a teacher: "LearnPack started a test: pytest ./exercises/01/test.py"."""
    purpose, number = process.purpose, f"(process {seen.pid})"
    if process.is_server:
        return f"LearnPack {'was running when the agent looked' if seen.found else 'was started'} {number}"
    launcher = process.launcher()
    if launcher is process and not isinstance(purpose, Purpose):
        return f"LearnPack started {'a build' if is_build_launcher(seen.argv) else 'a command'} {number}"
    command = _command_words(seen.argv, seen.cwd)
    if process.evidence and not seen.found:
        return f"it went on as {command} {number}"
    what = f"a {_NOUNS[purpose.kind]}" if isinstance(purpose, Purpose) else "a command"
    place = _place_of(purpose, command) if isinstance(purpose, Purpose) else ""
    if seen.found:
        return f"{what}{place} was running when the agent looked: {command} {number}"
    if launcher is None and not process.on_terminal:
        return f"{what}{place} was started, but not from a terminal: {command} {number}"
    who = "LearnPack started" if launcher is not None else "in a terminal the student started"
    return f"{who} {what}{place}: {command} {number}"


def _exit_words(process: Process, seen: ProcessExited) -> str:
    """What a program's end says, for a teacher."""
    purpose, number = process.purpose, f"(process {process.key[0]})"
    if isinstance(purpose, Purpose):
        who = f"the {_NOUNS[purpose.kind]}"
    elif process.is_server:
        who = "LearnPack"
    elif process.launcher() is process:
        # How it ended says nothing: LearnPack ends the box of a build with a signal, always.
        return f"LearnPack's {'build' if is_build_launcher(process.argv) else 'command'} was over {number}"
    else:
        who = "the command"
    if seen.signal is not None:
        why = _SIGNALS.get(seen.signal)
        return f"{who} was stopped by signal {seen.signal}{f', {why}' if why else ''} {number}"
    if seen.exit_code is None:
        return f"{who} was over; its exit code could not be seen {number}"
    if seen.exit_code == 0:
        return f"{who} ended well, exit code 0 {number}"
    is_test = isinstance(purpose, Purpose) and purpose.kind is Kind.TEST
    return f"{who} ended {'without success' if is_test else 'with an error'}, exit code {seen.exit_code} {number}"


def _command_words(argv: tuple[str, ...], cwd: str | None) -> str:
    """A command as it could have been typed: without what a version manager puts before it, no long paths, no long
    words, at most six of them."""
    while (command := becomes(argv)) is not None:
        argv = tuple(command)
    shown = [argv[0].rpartition("/")[2].lstrip("-"), *argv[1:6]] if argv else ["?"]
    for index, word in enumerate(shown[1:], start=1):
        if cwd is not None and word.startswith(cwd.rstrip("/") + "/"):
            word = word[len(cwd.rstrip("/")) + 1 :]
        elif word.startswith("/"):
            word = word.rpartition("/")[2] or word
        shown[index] = word if len(word) <= 60 else word[:57] + "..."
    return " ".join(shown) + (" ..." if len(argv) > 6 else "")


def _place_of(purpose: Purpose, command: str) -> str:
    """ " in exercises/01-hello", where the command itself does not say it."""
    places = {target.rpartition("/")[0] for target in purpose.targets}
    place = places.pop() if len(places) == 1 else ""
    return f" in {place}" if place and place not in command else ""
