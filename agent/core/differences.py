"""What one document has more than another, in lines: how the union with the agent's journal is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .learnpack_forms import LISTS
from .mending import shown

_Keys = Mapping[str, Any]

#: The same words about so many steps are one line.
_MANY = 3


def differences(before: _Keys, after: _Keys) -> tuple[str, ...]:
    """One line for each key of the document and of a step that is another one, and for each list that grew or changed.

    Both are documents as `core.one_form` returns them: steps and sessions, where there are any, are lists of objects.
    """
    lines = list(_of_keys(before, after, {"steps", "workout_session"}))
    lines += _of_list("workout_session", before.get("workout_session", ()), after.get("workout_session", ()))
    old: dict[str, list[_Keys]] = defaultdict(list)
    for step in reversed(before.get("steps", ())):
        old[step["slug"]].append(step)
    words: dict[str, list[str]] = {}
    for index, step in enumerate(after.get("steps", ())):
        was = old[step["slug"]].pop() if old[step["slug"]] else None
        for told in _of_step(was, step):
            words.setdefault(told, []).append(f"steps[{index}] {shown(step['slug'])}")
    for told, places in words.items():
        lines += [f"{len(places)} steps: {told}"] if len(places) >= _MANY else [f"{place}: {told}" for place in places]
    lines += [f"steps: {shown(slug)} is gone" for slug, steps in old.items() if steps]
    return tuple(lines)


def _of_step(before: _Keys | None, after: _Keys) -> Iterator[str]:
    if before is None:
        counts = [f"{len(after[name])} {name}" for name in LISTS if after.get(name)]
        yield f"added with {', '.join(counts)}" if counts else "added"
        return
    yield from _of_keys(before, after, set(LISTS))
    for name in LISTS:
        if name in after and name not in before and not after[name]:
            yield f"{name}: absent → []"
        yield from _of_list(name, before.get(name, ()), after.get(name, ()))


def _of_keys(before: _Keys, after: _Keys, but: set[str]) -> Iterator[str]:
    for key in dict.fromkeys((*before, *after)):
        if key in but or (key in before and key in after and before[key] == after[key]):
            continue
        old, new = (shown(keys[key]) if key in keys else "absent" for keys in (before, after))
        yield f"{key}: {old} → {new}"


def _of_list(name: str, before: Sequence[_Keys], after: Sequence[_Keys]) -> Iterator[str]:
    """Elements are known by their start: how many are new, and how many say something else than before."""
    old: dict[object, list[_Keys]] = defaultdict(list)
    for one in before:
        old[one.get("started_at")].append(one)
    changed = 0
    for one in after:
        same = old[one.get("started_at")]
        if same:
            changed += one not in same
            same.pop()
    gone = sum(map(len, old.values()))
    words = [(len(after) - len(before) + gone, "more"), (changed, "with more or other keys"), (gone, "fewer")]
    if any(count for count, _ in words):
        yield f"{name}: " + ", ".join(f"{count} {what}" for count, what in words if count)
