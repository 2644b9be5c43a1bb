"""Recordings of work with the real LearnPack, one for each engine, and the events that must come out of them.

`tests/corpus/NAME.jsonl` is what `run --record` wrote while LearnPack 2.1.34 ran a course (all of them written for this
project) and its web UI and a terminal were played; only the places of directories were renamed.  `NAME.events` is what
happened, checked against LearnPack's own telemetry and the player's log; times are ms since the first event.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.events import Compile, Event, Gap, SessionEnd, SessionStart, Test
from agent.core.export import public
from agent.trace import replay

CORPUS = Path(__file__).parents[1] / "corpus"
NAMES = sorted(path.stem for path in CORPUS.glob("*.jsonl"))


def line(event: Event, begin: int) -> str:
    """`compile 03-double 1 @5230-5490 learnpack`; what is special about a run follows."""
    if isinstance(event, Gap):
        return f"gap @{event.started_at - begin}-{event.at - begin} {event.reason}"
    if isinstance(event, (SessionStart, SessionEnd)):
        return f"{event.name} @{event.at - begin}"
    if not isinstance(event, (Compile, Test)):
        return f"{event.name} {event.step.slug} @{event.at - begin}"
    run = event.run
    ended = "?" if run.ended_at is None else run.ended_at - begin
    result = f"signal-{run.signal}" if run.signal is not None else "?" if run.exit_code is None else run.exit_code
    printed = f" {run.output} {run.stdout_size}+{run.stderr_size}" if run.output != "none" else ""
    failed = [one.name for one in run.results if one.status == "failed"]
    special = (f" failed: {', '.join(failed)}" if failed else "") + (" tests modified" if run.tests_modified else "")
    return f"{event.name} {event.step.slug} {result} @{run.started_at - begin}-{ended} {run.origin}{printed}{special}"


def lines(name: str) -> list[str]:
    events = list(replay(str(CORPUS / f"{name}.jsonl")))
    return [line(event, events[0].at) for event in events]


def test_there_is_a_recording_for_each_engine() -> None:
    engines = {"python", "node", "html", "vanillajs", "react", "java", "incremental", "single-readme", "root", "bc"}
    assert engines <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_replays_to_what_happened(name: str) -> None:
    assert lines(name) == (CORPUS / f"{name}.events").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_it_replays_to_the_same_bytes_each_time(name: str) -> None:
    once, again = ([public(0, "", event) for event in replay(str(CORPUS / f"{name}.jsonl"))] for _ in range(2))
    assert once == again


@pytest.mark.parametrize("name", NAMES)
def test_it_names_no_place_of_the_machine_on_which_it_was_made(name: str) -> None:
    text = (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8")
    assert not [place for place in ("/opt/", "/work/", "/root/", "/tmp/pytest") if place in text]
