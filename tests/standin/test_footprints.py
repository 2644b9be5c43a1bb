"""The stand-in leaves what the real LearnPack leaves: the orders below are those of its inotify log."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Stage
from tests.standin.courses import JAVA, JAVA_SETTINGS, PYTHON, ROOTED, SINGLE, WEB, make_course
from tests.standin.formatting import Broken, check_jsx, check_script, format_css, format_html, format_jsx
from tests.standin.learnpack import LearnPack
from tests.standin.toolbox import needs_java
from tests.until import until

APP = 'import React from "react";\nReactDOM.render(<h1>well</h1>, document.body);\n'


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", WEB)


@pytest.fixture
def learnpack(stage: Stage, course: Path) -> Iterator[LearnPack]:
    yield stage.learnpack(course, own_telemetry=True, STANDIN_LOADED_SECONDS="never").start()


def queue(course: Path) -> list[tuple[str, Any]]:
    entries = json.loads((course / ".learn/vscode_queue.json").read_text())
    return [(entry["name"], entry.get("data")) for entry in entries]


def windows(course: Path) -> list[Any]:
    return [data for name, data in queue(course) if name == "open_window"]


def attempts(course: Path, slug: str) -> list[dict[str, Any]]:
    document = json.loads((course / ".learn/telemetry.json").read_text())
    found: list[dict[str, Any]] = next(step["compilations"] for step in document["steps"] if step["slug"] == slug)
    return found


def written(course: Path, *paths: str) -> list[str]:
    """The files in the order in which they were last written."""
    return sorted(paths, key=lambda path: (course / path).stat().st_mtime_ns)


def picture(course: Path) -> dict[str, int]:
    files = [path for name in (".learn/dist", "exercises") for path in (course / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(course)): path.stat().st_mtime_ns for path in files}


def changed(course: Path, before: dict[str, int]) -> set[str]:
    return {path for path, at in picture(course).items() if before.get(path) != at}


# ---------------------------------------------------------------------------------------------- HTML


def test_a_page_is_rewritten_and_copied_file_by_file_and_the_window_opens_last(
    learnpack: LearnPack, course: Path
) -> None:
    learnpack.open("01-page")
    inode = (course / "exercises/01-page/index.html").stat().st_ino
    built = learnpack.build("01-page")
    in_order = [
        f"{place}/{name}"
        for name in ("index.html", "solution.hide.html", "styles.css")
        for place in ("exercises/01-page", ".learn/dist")
    ]
    in_order += [".learn/vscode_queue.json", ".learn/telemetry.json"]
    assert written(course, *in_order) == in_order
    assert (course / "exercises/01-page/index.html").stat().st_ino == inode, "in place"
    assert windows(course) == ["http://localhost:3000/preview"]
    (attempt,) = attempts(course, "01-page")
    assert attempt.keys() == {"starting_at", "source_code", "stdout", "exitCode", "ended_at"}
    assert (attempt["source_code"], attempt["exitCode"]) == ("", 0)
    assert attempt["ended_at"].endswith("Z") and built["exit_code"] == 0
    before = picture(course)
    learnpack.build("01-page")
    assert len(changed(course, before)) == 6, "always, also when nothing changed"


def test_a_broken_page_leaves_only_the_copies_of_the_others(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-page")
    learnpack.save("01-page", "<body><div></body>\n", name="index.html")
    before = picture(course)
    built = learnpack.build("01-page")
    names = ("solution.hide.html", "styles.css")
    assert changed(course, before) == {
        f"{place}/{name}" for place in (".learn/dist", "exercises/01-page") for name in names
    }
    assert windows(course) == [] and attempts(course, "01-page") == [] and built["exit_code"] == 1
    learnpack.open("02-lone")
    learnpack.save("02-lone", "<p>x</div>\n", name="index.html")
    before = picture(course)
    assert learnpack.build("02-lone")["kind"] == "nothing"
    assert changed(course, before) == set()


def test_the_uis_own_window_is_an_object_in_the_queue(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-page")
    before = picture(course)
    learnpack.open_window("01-page")
    assert windows(course) == [{"exerciseSlug": "01-page", "url": "https://example.org/"}]
    assert changed(course, before) == set() and attempts(course, "01-page") == []


def test_opening_a_step_deletes_the_preview_of_its_visible_files(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-page")
    learnpack.build("01-page")
    learnpack.open("02-lone")
    left = {path.name for path in (course / ".learn/dist").iterdir()}
    assert left == {"solution.hide.html", "styles.css"}


# ---------------------------------------------------------------------------------------------- React


def test_an_app_is_formatted_then_bundled_and_a_third_build_writes_nothing(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("03-app")
    first = learnpack.build("03-app")
    in_order = [
        "exercises/03-app/app.jsx",
        ".learn/dist/index.js",
        ".learn/dist/index.js.map",
        ".learn/dist/index.html",
    ]
    assert written(course, *in_order) == in_order
    assert "!*** ./exercises/03-app/app.jsx ***!" in (course / ".learn/dist/index.js").read_text()
    assert first["sources"][0] == WEB["03-app"]["app.jsx"] and first["sources"][1] != first["sources"][0]
    before = picture(course)
    learnpack.build("03-app")
    assert changed(course, before) == {".learn/dist/index.js", ".learn/dist/index.js.map"}, "of the formatted source"
    before = picture(course)
    learnpack.build("03-app")
    assert changed(course, before) == set(), "webpack compares what it writes with what is there"
    assert len(windows(course)) == len(attempts(course, "03-app")) == 3


def test_a_missing_module_opens_the_window_all_the_same(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("03-app")
    learnpack.save("03-app", 'import x from "./missing";\n' + APP, name="app.jsx")
    assert learnpack.build("03-app")["exit_code"] == 1
    assert "webpackMissingModule" in (course / ".learn/dist/index.js").read_text()
    (attempt,) = attempts(course, "03-app")
    assert attempt["exitCode"] == 1 and attempt["stderr"] == attempt["stdout"] and len(windows(course)) == 1


def test_a_syntax_error_in_an_app_leaves_nothing(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("03-app")
    learnpack.save("03-app", "const x = <h1>no</h2>;\n", name="app.jsx")
    before = picture(course)
    assert learnpack.build("03-app")["kind"] == "nothing"
    assert changed(course, before) == set() and windows(course) == [] and attempts(course, "03-app") == []


def test_a_step_can_be_opened_while_webpack_works(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("03-app")
    building = learnpack.send("build", slug="03-app", seconds=0.4)
    opened = learnpack.open("04-other")
    built = building.result()
    assert built["started_at"] <= opened["at"] < built["ended_at"]
    assert [name for name, _ in queue(course)][-2:] == ["start_exercise", "open_window"]
    assert len(attempts(course, "03-app")) == 1 and attempts(course, "04-other") == []


# ---------------------------------------------------------------------------------------------- plain pages


def test_a_plain_page_is_bundled_first_and_formatted_last(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("05-plain")
    learnpack.build("05-plain")
    in_order = [".learn/dist/index.js", "exercises/05-plain/index.html", ".learn/dist/index.html"]
    assert written(course, *in_order) == in_order and len(windows(course)) == 1
    learnpack.save("05-plain", "let x = ;\n", name="index.js")
    assert learnpack.build("05-plain")["exit_code"] == 1
    assert "Module build failed" in (course / ".learn/dist/index.js").read_text() and len(windows(course)) == 2
    learnpack.save("05-plain", "<p>x</div>\n", name="index.html")
    before = picture(course)
    assert learnpack.build("05-plain")["kind"] == "nothing", "the page is broken, and the bundle as before"
    assert changed(course, before) == set() and len(windows(course)) == 2


@needs_java
def test_java_is_compiled_in_one_box_and_run_in_another(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", JAVA, JAVA_SETTINGS)
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-hello")
    assert learnpack.build("01-hello")["exit_code"] == 0
    copies = list((learnpack.toolbox.home / ".compile-run2/tmp/java").glob("source-*/App.java"))
    assert any(copy.with_suffix(".class").exists() for copy in copies)
    learnpack.save("01-hello", "public class App { int }\n", name="App.java")
    assert learnpack.build("01-hello")["exit_code"] == 1
    assert [one.get("errorType") for one in attempts(course, "01-hello")] == [None, "compile-time"]


# ---------------------------------------------------------------------------------------------- formatters


@pytest.mark.parametrize(
    "act, text",
    [
        (format_html, "<p>x</div>"),
        (format_html, "<body><div></body>"),
        (format_css, "h1{color:red"),
        (format_jsx, "f(<h1>x</h2>)"),
        (check_jsx, "f(1"),
        (check_script, "let x = ;"),
    ],
)
def test_what_is_broken_for_prettier_is_broken_here(act: Any, text: str) -> None:
    with pytest.raises(Broken):
        act(text)


@pytest.mark.parametrize(
    "act, text",
    [
        (format_html, "<!DOCTYPE html><html><body><p>one<p>two<ul><li>x</ul><br><img src='a'></body></html>"),
        (format_css, "h1{color:red} p { margin: 0; }"),
        (format_jsx, "f(<div><img src='x' /><b>{x}</b></div>)  "),
    ],
)
def test_what_is_formatted_stays_as_it_is(act: Any, text: str) -> None:
    once = act(text)
    assert once.endswith("\n") and act(once) == once


# ---------------------------------------------------------------------------------------------- layouts and login


def test_the_only_step_of_a_single_readme_has_learnpacks_odd_paths(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", {}, root_files=SINGLE)
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("default-index")
    config = json.loads((course / ".learn/config.json").read_text())
    (step,) = config["exercises"]
    assert (step["slug"], step["path"], step["graded"]) == ("default-index", "./", True)
    assert ".//app.py" in [row["path"] for row in step["files"]]
    assert learnpack.build("default-index")["exit_code"] == 0
    assert learnpack.test("default-index")["exit_code"] == 1


def test_steps_in_the_root_need_no_directory_of_steps(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", ROOTED, exercises=".")
    learnpack = stage.learnpack(course).start()
    assert learnpack.open("02-two")["new"]
    config = json.loads((course / ".learn/config.json").read_text())
    assert [step["path"] for step in config["exercises"]] == list(ROOTED)


def test_a_disabled_test_does_nothing(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON, {"disabledActions": ["test"]})
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-hello")
    assert learnpack.test("01-hello")["kind"] == "nothing"
    assert not (course / "conftest.py").exists() and not (course / ".learn/reports").exists()


def test_a_login_is_one_file_named_by_md5_and_a_logout_deletes_it(learnpack: LearnPack, course: Path) -> None:
    assert list((course / ".learn/.session").iterdir()) == []
    learnpack.log_in(token="t", user_id=7, email="a@example.org")
    (path,) = (course / ".learn/.session").iterdir()
    assert path.name == hashlib.md5(b"bc-payload").hexdigest()
    kept = {"token": "t", "user_id": 7, "email": "a@example.org"}
    assert json.loads(path.read_text()) == {"key": "bc-payload", "value": kept}
    assert json.loads((course / ".learn/telemetry.json").read_text())["user_id"] == 7
    learnpack.do("keep_tutor_token", token="r")
    assert json.loads(path.read_text())["value"] == {**kept, "rigobot": {"key": "r"}}
    learnpack.log_out()
    assert list((course / ".learn/.session").iterdir()) == []


# ---------------------------------------------------------------------------------------------- telemetry.json


def telemetry_size(course: Path) -> int:
    return (course / ".learn/telemetry.json").stat().st_size


def test_a_test_right_after_a_build_leaves_the_file_empty_until_it_is_over(stage: Stage, tmp_path: Path) -> None:
    """Measured: truncated at the build's end, nothing in it for 2.1 s, then both."""
    course = make_course(tmp_path / "course", PYTHON)
    test_file = course / "exercises/01-hello/test.py"
    test_file.write_text("import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n")
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-hello")
    build, test = learnpack.send_both({"do": "build", "slug": "01-hello"}, {"do": "test", "slug": "01-hello"})
    until(lambda: not telemetry_size(course))
    time.sleep(0.05)
    assert telemetry_size(course) == 0, "not only for a moment"
    (course / "go").touch()
    build.result()
    test.result()
    assert len(attempts(course, "01-hello")) == 1


@pytest.mark.parametrize("fate, left", [("truncated", 0), ("half", 1)])
def test_a_server_can_die_in_the_middle_of_a_write_and_then_does_not_start(
    stage: Stage, learnpack: LearnPack, course: Path, fate: str, left: int
) -> None:
    learnpack.spoil(fate)
    assert learnpack.die_of("open", slug="01-page") == -signal.SIGKILL
    assert (telemetry_size(course) > 0) == bool(left)
    again = stage.learnpack(course, own_telemetry=True)
    with pytest.raises(AssertionError):
        again.start()
    assert again.stop(signal.SIGKILL) == 1


def test_an_older_text_that_lands_last_stands_before_the_tail_of_the_newer(learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-page")
    learnpack.spoil("older_last")
    learnpack.build("01-page")
    learnpack.build("01-page")
    with pytest.raises(ValueError, match="Extra data"):
        json.loads((course / ".learn/telemetry.json").read_text())
    learnpack.build("01-page")
    assert len(attempts(course, "01-page")) == 3, "the next write is whole again: the document is in memory"


def test_learnpacks_clean_is_a_program_of_its_own(stage: Stage, learnpack: LearnPack, course: Path) -> None:
    learnpack.open("01-page")
    learnpack.build("01-page")
    learnpack.stop()
    learnpack.clean()
    assert sorted(path.name for path in (course / ".learn").iterdir()) == ["telemetry.json"]


def test_a_box_ends_when_its_server_is_killed(stage: Stage, tmp_path: Path) -> None:
    course = make_course(tmp_path / "course", PYTHON)
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    learnpack.save("01-hello", "import time\nopen('started', 'w').close()\ntime.sleep(0.3)\n")
    learnpack.send("build", slug="01-hello")
    until((course / "started").exists)
    learnpack.stop(signal.SIGKILL)
    box = [b"compile-run/dist/lib/box", os.fsencode(stage.toolbox.root)]
    until(lambda: not any(all(word in line for word in box) for line in commands()), every=0.02)


def commands() -> list[bytes]:
    """The command line of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found
