"""The fold of the records into LearnPack's document, `.learn/telemetry.json`, in pieces.

The document is never held whole: `head` is everything but the steps, `step_head` is a step without its lists,
`attempt` is one element of `compilations` or `tests`.  `agent.store.fold` reads the records and joins the pieces;
LearnPack's own part of each piece comes from what was adopted, in the one form of `learnpack_forms`.

What is decided here, because the receiver's metrics depend on it:

- Every key that the receiver requires is there, but for `user_id`: it is written when LearnPack's document or the
  session told it.  The receiver ends in an error without it and with a null one alike, and LearnPack itself leaves
  it out until somebody logs in.
- `opened_at` and `completed_at` are numbers or absent, never null.  Whoever ran something in a step or completed it
  had opened it, so the opening is the earliest of all that is known; hence completed is never before opened, and no
  run either (the receiver would count a negative time).
- `exit_code` is always there and null where it is not known: the receiver counts that as not passed.
- A run whose end was not seen ends where it began, so that the receiver has a number, and says `"end": "unknown"`.
  One during which the clock was set back ends where it began, too.
- A text that was not captured is "" and the attempt says `"output": "none"`; one that was left out to keep the
  document small is "" and the attempt says `"omitted": true`; the results of single tests are left out with the texts.
  The command is not in the document.
- `sessions` of a step is the active time (ms) of each visit that is over, in their order, as v5 has it; the visit that
  goes on is shown by `status` only, and is here as soon as the student or the server leaves.
- AI interactions are what was adopted of LearnPack's: our own events of them were concluded from just these.
- What LearnPack wrote is kept: its value wins, except for texts, where ours are what the program really printed ("All
  tests passed" of a failed jest run, a copy of stdout in the place of stderr).  Where they differ, LearnPack's text is
  kept beside ours (`learnpack_stdout`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .codec import valid_text
from .course import Course, Step
from .events import Output, Run
from .learnpack_forms import (
    LISTS,
    OUTPUTS,
    Span,
    encoded,
    encoded_size,
    milliseconds,
    same_keys,
    session_pairs,
    united_durations,
)

#: The events that are a student's act; the latest is `last_interaction_at`.
ACTS = ("open_step", "compile", "test", "reset_step", "ai_interaction")


@dataclass(frozen=True, slots=True)
class Session:
    """One session as our records tell it; `ended_at` is None while it lasts or where its end was not seen."""

    started_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """What the head needs to know.

    `document_id` stands in for a telemetry_id until LearnPack's is known, `at` for the times of a document without
    any event.  `learnpack` are LearnPack's top-level keys, `learnpack_sessions` its workout sessions in its order.
    """

    document_id: str
    at: int
    first_event_at: int | None = None
    last_act_at: int | None = None
    sessions: Sequence[Session] = ()
    user_id: int | str | None = None
    learnpack: Mapping[str, Any] | None = None
    learnpack_sessions: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What our records know of one step: when it was first opened, completed and run, and for how long (ms) there was
    work in each visit that is over, oldest first."""

    slug: str
    position: int | None = None
    opened_at: int | None = None
    completed_at: int | None = None
    first_run_at: int | None = None
    visits: Sequence[int] = ()


def head(course: Course, facts: DocumentFacts) -> dict[str, Any]:
    """The document without `steps`."""
    theirs = facts.learnpack or {}
    document: dict[str, Any] = {
        "telemetry_id": facts.document_id,
        "slug": valid_text(course.slug),
        **{key: value for key, value in theirs.items() if key not in ("steps", "workout_session")},
    }
    if facts.user_id is not None:
        document["user_id"] = facts.user_id
    started = milliseconds(theirs.get("tutorial_started_at")) or facts.first_event_at or facts.at
    known = (started, milliseconds(theirs.get("last_interaction_at")), facts.last_act_at)
    document["tutorial_started_at"] = started
    document["last_interaction_at"] = max(at for at in known if at)
    document["workout_session"] = workout_sessions(facts.sessions, facts.learnpack_sessions)
    return document


def workout_sessions(ours: Sequence[Session], theirs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Both lists as one, by their start, a session that both have once: LearnPack's keys, and the later end."""
    spans = [Span(key, session.started_at, session.ended_at) for key, session in enumerate(ours)]
    their_spans = []
    for key, session in enumerate(theirs):
        at = milliseconds(session.get("started_at"))
        if at is not None:
            their_spans.append(Span(key, at, milliseconds(session.get("ended_at"))))
    same = session_pairs(spans, their_spans)
    merged = [dict(session) for session in theirs]
    for key, span in enumerate(spans):
        one = {"started_at": span.started_at}
        if span.ended_at is not None:
            one["ended_at"] = span.ended_at
        if key in same:
            # The start stays LearnPack's: it knows its sessions by it.
            pair = merged[same[key]]
            merged[same[key]] = same_keys(one, pair) | {"started_at": pair["started_at"]}
        else:
            merged.append(one)
    return sorted(merged, key=lambda session: milliseconds(session.get("started_at")) or 0)


def step_head(step: Step | None, facts: StepFacts, learnpack: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A step without its lists.

    `step` is the step of the present course; None for one that only the records or LearnPack's document know.
    """
    theirs = learnpack or {}
    document = {key: value for key, value in theirs.items() if key not in LISTS}
    document["slug"] = valid_text(facts.slug)
    if step is not None:
        document["position"] = step.position
        document["files"] = [
            {"path": valid_text(file.path), "name": valid_text(file.name), "hidden": file.hidden} for file in step.files
        ]
        document["is_testeable"] = step.is_testable
    else:
        if facts.position is not None:
            document.setdefault("position", facts.position)
        document.setdefault("files", [])
        document.setdefault("is_testeable", False)
    completed = milliseconds(theirs.get("completed_at")) or facts.completed_at
    opened = (milliseconds(theirs.get("opened_at")), facts.opened_at, facts.first_run_at, completed)
    document.pop("opened_at", None)
    document.pop("completed_at", None)
    if any(opened):
        document["opened_at"] = min(at for at in opened if at)
    if completed:
        document["completed_at"] = completed
    # v5 sets both at once; where only its mark is known, that is not taken back.
    document["is_completed"] = bool(completed) or theirs.get("is_completed") is True
    document["sessions"] = united_durations(facts.visits, theirs.get("sessions"))
    return document


def attempt(run: Run, event_id: str, learnpack: Mapping[str, Any] | None = None, *, omitted: bool) -> dict[str, Any]:
    """One element of `compilations` or `tests`.

    `learnpack` is LearnPack's record of the same run; its keys stay.  `omitted` says that the run has texts which are
    left out of this document; `run` need not hold them then.
    """
    document: dict[str, Any] = {
        "event_id": event_id,
        "started_at": run.started_at,
        "ended_at": run.started_at if run.ended_at is None else max(run.started_at, run.ended_at),
        "exit_code": run.exit_code,
        "signal": run.signal,
        "origin": run.origin.value,
        "output": run.output.value,
    }
    theirs = learnpack or {}
    if run.ended_at is None and not theirs.get("ended_at"):
        document["end"] = "unknown"
    if run.whole:
        document["whole"] = True
    if run.tests_modified is not None:
        document["tests_modified"] = run.tests_modified
    if not omitted:
        document |= _beside_texts(run)
    document |= {key: value for key, value in theirs.items() if value is not None and key != "event_id"}
    for name in OUTPUTS:
        text = None if omitted else getattr(run, name)
        if name == "stderr" and not omitted:
            text = text or run.message or text  # where LearnPack has it, and whoever reads its documents
        learnpacks = document.get(name)
        is_whole = name == "source_code" or run.output is Output.FULL
        if text is not None and (is_whole or not learnpacks):
            document[name] = encoded(valid_text(text))
            if learnpacks and learnpacks != document[name]:
                document[f"learnpack_{name}"] = learnpacks
        elif not document.get(name):
            document[name] = ""
        elif name != "source_code" and document["output"] == Output.NONE.value:
            # LearnPack's texts are not always what the program printed: "All tests passed" of a failed jest run.
            document["output"] = Output.PARTIAL.value
    if omitted and not all(document[name] for name in OUTPUTS):
        document["omitted"] = True
    return document


def size_beside_texts(run: Run) -> int:
    """About how many bytes of an attempt go with its texts: they are left out with them."""
    results = sum(len(result.name.encode("utf-8", "replace")) + 40 for result in run.results)
    results += encoded_size(run.message) if run.message else 0
    return results + sum(30 for size in (run.stdout_size, run.stderr_size) if size is not None)


def _beside_texts(run: Run) -> dict[str, Any]:
    """The single tests, and how much was printed where not all of it is there."""
    found: dict[str, Any] = {}
    for name, text, size in (("stdout", run.stdout, run.stdout_size), ("stderr", run.stderr, run.stderr_size)):
        if size is not None and run.output is not Output.FULL and size != len((text or "").encode("utf-8", "replace")):
            found[f"{name}_size"] = size
    if run.results:
        found["results"] = [{"name": valid_text(one.name), "status": one.status} for one in run.results]
    return found
