"""Everything that is in a document, in the one form that the agent writes; nothing is added.

LearnPack's old names, times in seconds or as ISO text, texts in another encoding, a list that is null, a step without
its slug or twice: read as they were meant.  What is no value of its kind is left out and shown in a line, and so is
personal data (`PRIVATE`).  One attempt, one time, one text: `agent.core.mending`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .course import Course
from .learnpack_forms import LISTS, PRIVATE, same_keys
from .mending import Changes, mended_attempt, mended_times, shown

Keys = dict[str, Any]


def in_form(document: Mapping[str, Any], course: Course) -> tuple[Keys, tuple[str, ...]]:
    """The document with every value in the form that the agent writes and each step once, and the changes, a line each.

    Nothing is added and nothing put in order.
    """
    changes = Changes()
    mended = {key: value for key, value in document.items() if key not in PRIVATE}
    for key in sorted(document.keys() & PRIVATE):
        changes.add("", f"{key}: left out (personal data, which the agent never writes)")
    for key in ("telemetry_id", "slug"):
        if key in mended and (not isinstance(mended[key], str) or not mended[key]):
            changes.add("", f"{key}: {shown(mended.pop(key))} is no text: left out")
    for words in mended_times(mended, ("tutorial_started_at", "last_interaction_at")):
        changes.add("", words)
    for key, read in (("steps", _steps_in_form), ("workout_session", _sessions_in_form)):
        if isinstance(mended.get(key), list):
            mended[key] = read(mended[key], course, changes)
        elif key in mended:
            changes.add("", f"{key}: {shown(mended.pop(key))} is no list: left out")
    return mended, changes.lines()


def place_of(index: int, step: Mapping[str, Any]) -> str:
    return f"steps[{index}] {shown(step['slug'])}"


def _steps_in_form(raw: Sequence[object], course: Course, changes: Changes) -> list[Keys]:
    first: dict[str, str] = {}
    kept: list[Keys] = []
    again: dict[str, list[Keys]] = {}
    room = _steps_of_slug(course)
    for index, one in enumerate(raw):
        step = _step_in_form(index, one, course, changes)
        if step is None:
            continue
        slug = step["slug"]
        if room.setdefault(slug, 1) > 0:
            room[slug] -= 1
            first.setdefault(slug, place_of(index, step))
            kept.append(step)
        else:
            changes.add(place_of(index, step), f"there a second time: put together with {first[slug]}")
            again.setdefault(slug, []).append(step)
    for index, step in enumerate(kept):
        kept[index] = _same_step(step, again.pop(step["slug"], ()))
    return kept


def _steps_of_slug(course: Course) -> dict[str, int]:
    """How often the course has a step of each slug: once, but for names that can't be told apart as text."""
    count: dict[str, int] = {}
    for step in course.steps:
        count[step.slug] = count.get(step.slug, 0) + 1
    return count


def _step_in_form(index: int, raw: object, course: Course, changes: Changes) -> Keys | None:
    """A step whose lists and times are in the one form; None for what is no step."""
    place = f"steps[{index}]"
    if not isinstance(raw, dict):
        changes.add(place, f"{shown(raw)} is no step: left out")
        return None
    step = dict(raw)
    slug = step.get("slug")
    if not isinstance(slug, str) or not slug:
        own = course.slug_at(index)
        changes.add(place, f"slug: {shown(slug) if 'slug' in step else 'missing'} → {shown(own)}")
        step["slug"] = own
    place = place_of(index, step)
    for name, kind in LISTS.items():
        if name in step:
            step[name] = _list_in_form(step[name], name, kind, place, changes)
    for words in mended_times(step, ("opened_at", "completed_at")):
        changes.add(place, words)
    return step


def _list_in_form(raw: object, name: str, kind: str, place: str, changes: Changes) -> list[Keys]:
    if isinstance(raw, dict):
        changes.add(place, f"{name}: one element → a list of it")
        raw = [raw]
    elif not isinstance(raw, list):
        changes.add(place, f"{name}: {shown(raw)} → []")
        raw = []
    elements = []
    for index, one in enumerate(raw):
        if isinstance(one, dict):
            element, told = mended_attempt(one, kind)
            elements.append(element)
        else:
            told = [f"{shown(one)} is no element: left out"]
        for words in told:
            changes.add_element(place, name, index, words)
    return elements


def _same_step(step: Keys, others: Sequence[Mapping[str, Any]]) -> Keys:
    """One step that was found several times; of equal runs only one is kept."""
    if not others:
        return step
    united = step
    for other in others:
        united = same_keys(united, {key: value for key, value in other.items() if key not in LISTS})
    for name in LISTS:
        elements = list(step.get(name, ()))
        known = {repr(one) for one in elements}
        for one in (one for other in others for one in other.get(name, ())):
            if repr(one) not in known:
                known.add(repr(one))
                elements.append(one)
        if any(name in one for one in (step, *others)):
            united[name] = elements
    return united


def _sessions_in_form(raw: Sequence[object], course: Course, changes: Changes) -> list[Keys]:
    sessions = []
    for index, one in enumerate(raw):
        place = f"workout_session[{index}]"
        if not isinstance(one, dict):
            changes.add(place, f"{shown(one)} is no session: left out")
            continue
        session = dict(one)
        for words in mended_times(session, ("started_at", "ended_at")):
            changes.add(place, words)
        if "started_at" not in session:
            if "ended_at" not in session:
                changes.add(place, "a session without any time: left out")
                continue
            changes.add(place, "started_at: missing → that of ended_at")
            session["started_at"] = session["ended_at"]
        if session.get("ended_at", session["started_at"]) < session["started_at"]:
            changes.add(place, "ended_at: before started_at → the same")
            session["ended_at"] = session["started_at"]
        sessions.append(session)
    return sessions
