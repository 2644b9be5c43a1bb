"""One record as scripts and tests see it: a line of `export --format jsonl`.

This is the public surface: names stay, and nothing is encoded (no base64).  Which records are exported, and writing
the JSON, is the caller's.  Times are integer milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from .events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Event,
    Gap,
    OpenStep,
    Output,
    ResetStep,
    Run,
    SessionEnd,
    SessionStart,
    Test,
    Visit,
)
from .learnpack_forms import OUTPUTS, decoded


def public(number: int, record_id: str, event: Event, learnpack: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record as a dict, keys in reading order.

    Every line has number, id, event, at, step_slug, step_position (both None where no step is concerned) and
    evidence, a list of {observation, at, words}.  Between them, by event:

    - compile, test: started_at, ended_at, exit_code, signal, source_code, stdout, stderr, output, command (the argv as
      a list), origin, stdout_size and stderr_size (bytes that were printed, None where not known), results (a list of
      {name, status}, empty where single tests are not known), message (what the runner's report says of them, or None),
      tests_modified; a test also whole
    - open_step, session_end: left, the visit that ends there: {step_slug, started_at, ended_at, active_ms} or None
    - complete_step: tests_modified (None where not known)
    - ai_interaction: started_at, ended_at, student_message, ai_response, source_code
    - gap: started_at, reason

    `learnpack` is the attempt that LearnPack itself recorded of the same run, in the form of
    `learnpack_forms.read_attempt`: its texts stand in where ours were not captured, and output is then "partial",
    because LearnPack's are not always what the program printed.
    """
    step = None if isinstance(event, (SessionStart, SessionEnd, Gap)) else event.step
    line: dict[str, Any] = {
        "number": number,
        "id": record_id,
        "event": event.name,
        "at": event.at,
        "step_slug": None if step is None else step.slug,
        "step_position": None if step is None else step.position,
    }
    line |= _details(event)
    if learnpack is not None and isinstance(event, (Compile, Test)):
        _fill_from(learnpack, line)
    line["evidence"] = [{"observation": one.observation, "at": one.at, "words": one.words} for one in event.evidence]
    return line


def _details(event: Event) -> dict[str, Any]:
    """What only this kind of event has."""
    match event:
        case Compile():
            return _run(event.run)
        case Test():
            return {**_run(event.run), "whole": event.run.whole}
        case OpenStep() | SessionEnd():
            return {"left": _visit(event.left)}
        case CompleteStep():
            return {"tests_modified": event.tests_modified}
        case AiInteraction():
            said = event.interaction
            return {
                "started_at": said.started_at,
                "ended_at": said.ended_at,
                "student_message": said.student_message,
                "ai_response": said.ai_response,
                "source_code": said.source_code,
            }
        case Gap():
            return {"started_at": event.started_at, "reason": event.reason}
        case SessionStart() | ResetStep():
            return {}
        case _:
            assert_never(event)


def _run(run: Run) -> dict[str, Any]:
    return {
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "source_code": run.source_code,
        "stdout": run.stdout,
        "stderr": run.stderr,
        "output": run.output.value,
        "command": list(run.command),
        "origin": run.origin.value,
        "stdout_size": run.stdout_size,
        "stderr_size": run.stderr_size,
        "results": [{"name": one.name, "status": one.status} for one in run.results],
        "message": run.message,
        "tests_modified": run.tests_modified,
    }


def _visit(visit: Visit | None) -> dict[str, Any] | None:
    if visit is None:
        return None
    return {
        "step_slug": visit.slug,
        "started_at": visit.started_at,
        "ended_at": visit.ended_at,
        "active_ms": visit.active_ms,
    }


def _fill_from(learnpack: Mapping[str, Any], line: dict[str, Any]) -> None:
    for key in OUTPUTS:
        text = learnpack.get(key)
        if line[key] is None and isinstance(text, str) and text:
            line[key] = decoded(text)
            if key != "source_code" and line["output"] == Output.NONE.value:
                line["output"] = Output.PARTIAL.value
