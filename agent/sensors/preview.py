"""What LearnPack built for its preview window: HTML and React builds have no process, and this is their trace.

Promised: no content makes this fail; nothing but regular files is opened; a bundle of several MB is read in pieces.
What follows from it is concluded in `agent.core.builds`.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import replace

from ..core.commands import entry_of
from ..core.course import Course, Step
from ..core.observations import FileText, Preview, QueueRead
from .picture import CONTENT_LIMIT, PREVIEWS, read_regular

#: So many of the queue's newest entries may be news; a preview is only looked at while it is fresh.
_NEWEST = 3

#: What a build writes, and what of it webpack makes.
BUILT = (".html", ".css", ".js", ".map")
PAGE, BUNDLE = "index.html", "index.js"
_SCRIPTS = (".js", ".map")

#: What webpack 4 and 5 put in the place of a module that they could not find or build.
_THROWS = re.compile(rb"webpackMissingModule|throw new Error\(\"Module (?:build|parse) failed")


def with_preview(course: Course, seen: QueueRead, current: str | None) -> QueueRead:
    """The same with what was built, where the queue just got an `open_window`: HTML and React builds have no process.

    `current` is the step that LearnPack has open where the queue names none (it begins anew at each start).
    """
    newest = len(seen.entries) - _NEWEST
    ended = [n for n, entry in enumerate(seen.entries) if entry.is_preview and n >= newest]
    if not ended:
        return seen
    opened = [entry.slug for entry in seen.entries[: ended[-1]] if entry.name == "start_exercise"]
    slug = opened[-1] if opened else current
    step = course.step_named(slug or "")
    # Only webpack builds while another step is open, and leaves its bundle for ever.
    name = PAGE if step is not None and step.language == "html" else BUNDLE
    return replace(seen, preview=built(course, slug, name))


def built(course: Course, current: str | None, name: str = BUNDLE) -> Preview:
    """What lies in the preview after a file of this name was written, while this step was open.

    The step need not be the open one: a build may be asked for in another tab, and webpack takes its time.
    """
    if name.endswith(_SCRIPTS):
        made_of, failed = _scan_bundle(course)
    else:
        made_of, failed = _copied_from(course, current, name), False
    step = made_of or course.step_named(current or "")
    return Preview(step.slug if step is not None else None, failed, _source_of(course, step), made_of is not None)


def _copied_from(course: Course, current: str | None, name: str) -> Step | None:
    """The step whose file of this name has the text that lies in the preview: the open one, if it is that.

    prettier writes the same text to both (plugin html 1.1.7)."""
    copy = _content(course, f"{course.base}/{PREVIEWS}/{name}")
    steps = sorted(course.steps, key=lambda step: step.slug != current)
    return next((step for step in steps if copy and copy == _file_of(course, step, name)), None)


def _file_of(course: Course, step: Step, name: str) -> bytes | None:
    path = next((file.path for file in step.files if file.name == name), None)
    return None if path is None else _content(course, path)


def _content(course: Course, path: str) -> bytes | None:
    try:
        return read_regular(os.path.join(course.root, path), CONTENT_LIMIT)[1]
    except OSError:
        return None


def _source_of(course: Course, step: Step | None) -> FileText | None:
    """The step's entry file as it is now; None where there is none that can be read."""
    entry = entry_of(course, step) if step is not None else None
    content = _content(course, entry) if entry is not None else None
    # An empty one is being saved at this moment, as a rule.
    return FileText(entry, content.decode("utf-8", "replace")) if entry is not None and content else None


def _scan_bundle(course: Course) -> tuple[Step | None, bool | None]:
    """Which step webpack's bundle was made of, and whether it throws instead of a module.

    In development mode webpack names each module by its path, and writes the bundle also when modules are missing or
    could not be built (plugins react 1.1.15, dom 1.1.7: LearnPack's exit code is 1 then, and it opens the window all
    the same).  The file is written whenever it would differ, so it is always that of the last build.
    """
    step, failed = _scan(course, BUNDLE)
    if failed is None:  # an opening deletes the previews of the step's visible files, but not the map beside this one
        step, _ = _scan(course, f"{BUNDLE}.map")
    return step, failed


def _scan(course: Course, name: str) -> tuple[Step | None, bool | None]:
    place = re.compile(rb"\./" + re.escape(os.fsencode(course.exercises)) + rb"/([^/\"\s*]{1,255})/")
    step, failed, rest = None, False, b""
    try:
        with open(os.path.join(course.root, course.base, PREVIEWS, name), "rb", opener=_open_regular) as bundle:
            while chunk := bundle.read(1 << 16):
                data = rest + chunk
                failed = failed or _THROWS.search(data) is not None
                if step is None and (found := place.search(data)) is not None:
                    step = course.step_of(f"{course.exercises}/{os.fsdecode(found[1])}")
                rest = data[-512:]
    except OSError:
        return None, None
    return step, failed


def _open_regular(path: str, flags: int) -> int:
    """Not blocking and not through a link; a device or a pipe of that name is no bundle."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(0, "no regular file", path)
    return descriptor
