"""One record as scripts and tests see it: a line of `export --format jsonl`.

This is the public surface: names stay, and nothing is encoded (no base64).  Which records are exported, and writing
the JSON, is the caller's.  Times are integer milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .events import Compile, Event, Gap, Output, SessionEnd, SessionStart, Test
from .learnpack_forms import OUTPUTS, decoded


def public(number: int, record_id: str, event: Event, learnpack: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record as a dict, keys in reading order.

    Every line has number, id, event, at, step_slug, step_position (both None where no step is concerned) and
    evidence, a list of {observation, at, words}.  A compile or test adds started_at, ended_at, exit_code, signal,
    source_code, stdout, stderr, output, command (the argv as a list) and origin, a test also whole; a gap adds
    started_at and reason.

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
    if isinstance(event, (Compile, Test)):
        run = event.run
        line |= {
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
        }
        if isinstance(event, Test):
            line["whole"] = run.whole
        if learnpack is not None:
            _fill_from(learnpack, line)
    elif isinstance(event, Gap):
        line |= {"started_at": event.started_at, "reason": event.reason}
    line["evidence"] = [{"observation": one.observation, "at": one.at, "words": one.words} for one in event.evidence]
    return line


def _fill_from(learnpack: Mapping[str, Any], line: dict[str, Any]) -> None:
    for key in OUTPUTS:
        text = learnpack.get(key)
        if line[key] is None and isinstance(text, str) and text:
            line[key] = decoded(text)
            if key != "source_code" and line["output"] == Output.NONE.value:
                line["output"] = Output.PARTIAL.value
