"""What LearnPack leaves in `.learn/dist` is told with the source that it was made of, whatever lies there."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from agent.core.observations import FileText, Preview, PreviewWritten, QueueEntry, QueueRead
from agent.sensors.course import read_course
from agent.sensors.preview import built, with_preview
from tests.sensors.watching import Watcher, make_course, write_config

URL = "http://localhost:3000/preview"
WINDOW = QueueEntry("open_window", URL, "9")
PAGE = "exercises/03-page/index.html"
REACT = "exercises/04-react/app.jsx"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_course(tmp_path / "course")
    for path, text in ((PAGE, "<p>"), (REACT, "render(1)")):
        (root / path).parent.mkdir()
        (root / path).write_text(text)
    (root / ".learn/dist").mkdir()
    return root


def seen(root: Path, *entries: QueueEntry, current: str | None = None) -> Preview | None:
    return with_preview(read_course(str(root)), QueueRead(1, entries), current).preview


def opened(slug: str) -> QueueEntry:
    return QueueEntry("start_exercise", slug, "8")


def bundle(root: Path, *modules: str, padding: int = 0) -> None:
    """What webpack writes in development mode, in short: each module under its path."""
    text = "".join(
        f'/***/ "{module}":\n/*!*** {module} ***!*/\n{" " * padding}(function() {{ }}),\n' for module in modules
    )
    (root / ".learn/dist/index.js").write_text(f"/******/ (function(modules) {{ {text} }})")


def test_the_window_tells_the_step_and_its_source(root: Path) -> None:
    assert seen(root, opened("03-page"), WINDOW) == Preview("03-page", False, FileText(PAGE, "<p>"))


def test_the_opening_may_stand_in_the_configuration_only(root: Path) -> None:
    # LearnPack's queue begins anew at each start, and the step that was open then is not in it.
    assert seen(root, WINDOW, current="03-page") == Preview("03-page", False, FileText(PAGE, "<p>"))
    assert seen(root, WINDOW) == Preview()


def test_only_a_fresh_window_of_a_plugin_is_looked_at(root: Path) -> None:
    assert seen(root, opened("03-page"), QueueEntry("open_window", None, "9")) is None
    assert seen(root, opened("03-page"), WINDOW, *[opened("01-add")] * 3) is None


def test_a_bundle_names_the_step_that_it_was_made_of(root: Path) -> None:
    bundle(root, "./node_modules/react/index.js", "./exercises/04-react/app.jsx")
    expected = Preview("04-react", False, FileText(REACT, "render(1)"), is_sure=True)
    assert seen(root, opened("04-react"), WINDOW) == expected


@pytest.mark.parametrize(
    "thrown",
    [
        'Object(function webpackMissingModule() { var e = new Error("Cannot find module") })',
        'throw new Error("Module build failed (from ./loader.js)")',
        'throw new Error("Module parse failed: Unexpected token")',
    ],
)
@pytest.mark.parametrize("padding", [0, 65_510, 200_000])
def test_a_bundle_that_throws_instead_of_a_module_failed(root: Path, thrown: str, padding: int) -> None:
    bundle(root, "./exercises/04-react/app.jsx", padding=padding)
    with (root / ".learn/dist/index.js").open("a") as file:
        file.write(thrown)
    preview = seen(root, opened("04-react"), WINDOW)
    assert preview is not None and (preview.slug, preview.failed) == ("04-react", True)


def test_a_bundle_that_cant_be_read_says_nothing(root: Path) -> None:
    expected = Preview("04-react", None, FileText(REACT, "render(1)"))
    assert seen(root, opened("04-react"), WINDOW) == expected
    os.mkfifo(root / ".learn/dist/index.js")
    assert seen(root, opened("04-react"), WINDOW) == expected
    (root / ".learn/dist/index.js").unlink()
    (root / ".learn/dist/index.js").symlink_to("/etc/passwd")
    assert seen(root, opened("04-react"), WINDOW) == expected


def test_a_bundle_that_an_opening_deleted_is_known_by_its_map(root: Path) -> None:
    bundle(root, "./exercises/04-react/app.jsx")
    (root / ".learn/dist/index.js").rename(root / ".learn/dist/index.js.map")
    expected = Preview("04-react", None, FileText(REACT, "render(1)"), is_sure=True)
    assert seen(root, opened("04-react"), opened("01-add"), WINDOW) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_each_write_to_the_preview_is_told_also_of_the_same_text(root: Path) -> None:
    write_config(root, "03-page")
    page = root / ".learn/dist/index.html"
    with Watcher(root) as watcher:
        for _ in range(3):
            watcher.forget()
            page.write_text("<p>")
            assert watcher.wait_for(PreviewWritten).name == "index.html"
        assert watcher.all(PreviewWritten)[-1].built == Preview("03-page", False, FileText(PAGE, "<p>"), is_sure=True)
        watcher.forget()
        page.unlink()
        shutil.rmtree(root / ".learn/dist")
        watcher.fence()
        assert watcher.all(PreviewWritten) == []
        (root / ".learn/dist").mkdir()
        page.write_text("<p>")
        watcher.wait_for(PreviewWritten)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_the_queues_window_comes_with_what_was_built(root: Path) -> None:
    queue = [{"name": "start_exercise", "time": 1, "data": "03-page"}, {"name": "open_window", "time": 2, "data": URL}]
    with Watcher(root) as watcher:
        watcher.forget()
        (root / ".learn/vscode_queue.json").write_text(json.dumps(queue))
        assert watcher.wait_for(QueueRead).preview == Preview("03-page", False, FileText(PAGE, "<p>"))


def test_a_copy_is_of_the_step_whose_file_it_equals(root: Path) -> None:
    other = "exercises/05-page/index.html"
    (root / other).parent.mkdir()
    (root / other).write_text("<h1>")
    (root / ".learn/dist/index.html").write_text("<h1>")
    course = read_course(str(root))
    assert built(course, "03-page", "index.html") == Preview("05-page", False, FileText(other, "<h1>"), True)
    (root / PAGE).write_text("<h1>")
    assert built(course, "03-page", "index.html").slug == "03-page"
    (root / ".learn/dist/index.html").write_text("of nobody")
    assert built(course, "03-page", "index.html").slug == "03-page"
