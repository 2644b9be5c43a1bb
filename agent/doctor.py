"""`doctor`: what is well on this machine and in this course, what is not, and the command that mends it.

A table of checks (`agent.checks`), each with one finding.  They run side by side in threads of their own and are waited
for 8 s together: one that hangs, in a dead network file system or at a program that does not answer, is itself a
finding, and the others are told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from . import __version__
from .checks import learnpack, machine, places, service
from .checks.finding import Finding, Level, Place, fault, warning
from .core.course import one_line
from .destinations import planned

Check = Callable[[Place], Finding]
Result = TypeVar("Result")

#: Add a check: a function in `agent/checks`, a line here.
OF_THE_MACHINE: tuple[tuple[str, Check], ...] = (
    ("configuration", service.configuration),
    ("kernel", machine.kernel),
    ("capability", machine.capability),
    ("processes", machine.processes),
    ("watches", machine.watches),
    ("clock", machine.clock),
    ("state directory", places.state_rights),
    ("state file system", places.state_file_system),
    ("space", places.space),
    ("learnpack", learnpack.learnpack),
    ("capture", learnpack.capture),
)
OF_A_COURSE: tuple[tuple[str, Check], ...] = (
    ("agent", service.agent),
    ("journal", service.journal),
    ("course", places.course_rights),
    ("course file system", places.course_file_system),
    ("links", places.links),
    ("server", learnpack.server),
    ("git", learnpack.git),
)

#: All checks together are waited for so long.  Whoever looks has little patience, and git may take 5 s.
PATIENCE_S = 8.0


@dataclass(frozen=True, slots=True)
class Examined:
    """A check and what it found."""

    check: str
    finding: Finding


def checks_for(place: Place) -> list[tuple[str, Check]]:
    """The machine's, and with a course its own and one for each of its sinks."""
    if place.course is None:
        return list(OF_THE_MACHINE)
    sinks = [(f"sink {one.name}", partial(service.sink, one)) for one in planned(place.config, place.course)]
    return [*OF_THE_MACHINE, *OF_A_COURSE, *sinks]


def examine(
    place: Place, checks: Sequence[tuple[str, Check]] | None = None, patience_s: float = PATIENCE_S
) -> list[Examined]:
    """What the checks find, in their order."""
    started = [(name, Task(partial(check, place))) for name, check in (checks_for(place) if checks is None else checks)]
    until = time.monotonic() + patience_s
    return [Examined(name, _finding(task, until, patience_s)) for name, task in started]


def _finding(task: Task[Finding], until: float, patience_s: float) -> Finding:
    try:
        return task.result(until)
    except TimeoutError:
        return fault(f"no answer within {patience_s:g} s: a file system or a program hangs")
    except Exception as error:  # a check that fails must not hide what the others found
        return warning(f"it could not be looked at: {one_line(str(error)) or type(error).__name__}")


class Task(Generic[Result]):
    """A call in a thread of its own, begun at once.  One that hangs is left behind: it ends with the process."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call = call
        self._results: list[Result] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="check", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._results.append(self._call())
        except Exception as error:  # raised where the result is wanted
            self._error = error

    def result(self, until: float) -> Result:
        """What it returned.  Raises what it raised, and TimeoutError after `until` (monotonic, s)."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._error is not None:
            raise self._error
        if not self._results:
            raise TimeoutError
        return self._results[0]


# --- what is shown ---

_WORDS = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "warning", Level.FAULT: "fault"}


def has_fault(examined: Sequence[Examined]) -> bool:
    return any(one.finding.level is Level.FAULT for one in examined)


def plain(examined: Sequence[Examined], place: Place) -> dict[str, Any]:
    """For scripts; `level` is ok, note, warning or fault, `mend` a command or None."""
    return {
        "version": __version__,
        "course": place.course.root if place.course else None,
        "findings": [
            {
                "check": one.check,
                "level": _WORDS[one.finding.level],
                "words": one.finding.words,
                "mend": one.finding.mend or None,
            }
            for one in examined
        ],
        "faults": sum(one.finding.level is Level.FAULT for one in examined),
    }


def lines(examined: Sequence[Examined]) -> Iterator[str]:
    """For people."""
    width = max((len(one.check) for one in examined), default=0)
    for one in examined:
        yield one_line(f"{_WORDS[one.finding.level]:<8} {one.check:<{width}}  {one.finding.words}")
        if one.finding.mend:
            yield one_line(f"{'':<8} {'':<{width}}  mend it: {one.finding.mend}")
