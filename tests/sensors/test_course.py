"""Reading a course from the disk: LearnPack's rules, odd names, and one clear line where there is none."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from agent.core.course import Course
from agent.sensors.clock import ms_of_monotonic_ns, now_ms
from agent.sensors.course import CourseError, find_course, read_course
from agent.sensors.picture import Scope, is_transient
from tests.sensors import namespaces


def write(root: Path, *paths: str, text: str = "") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "my-course"
    write(root, "learn.json", text='{"slug": "a-course"}')
    return root


def course_of(root: Path) -> Course:
    return read_course(str(root))


def slugs(root: Path) -> list[str]:
    return [step.slug for step in course_of(root).steps]


# --- steps ---


def test_steps_are_the_directories_of_exercises_in_byte_order(root: Path) -> None:
    write(
        root,
        "exercises/10-b/app.py",
        "exercises/01.1-x/app.py",
        "exercises/01-a/app.py",
        "exercises/Z/a",
        "exercises/é/a",
    )
    assert slugs(root) == ["01-a", "01.1-x", "10-b", "Z", "é"]
    assert [step.position for step in course_of(root).steps] == [0, 1, 2, 3, 4]
    assert course_of(root).steps[0].path == "exercises/01-a"


def test_hidden_ones_underscored_ones_files_and_links_are_no_steps(root: Path) -> None:
    write(root, "exercises/.git/x", "exercises/_old/x", "exercises/README.md", "exercises/01-a/x", "elsewhere/x")
    (root / "exercises/02-link").symlink_to(root / "elsewhere")
    assert slugs(root) == ["01-a"]


def test_a_step_has_its_language_its_entry_and_its_tests(root: Path) -> None:
    write(
        root, "exercises/01-a/app.py", "exercises/01-a/Tests.py", "exercises/01-a/README.md", "exercises/01-a/sub/x.py"
    )
    (step,) = course_of(root).steps
    assert (step.language, step.entry, step.tests) == ("python3", "exercises/01-a/app.py", ("exercises/01-a/Tests.py",))
    assert [file.name for file in step.files] == ["README.md", "Tests.py", "app.py"]
    assert [file.hidden for file in step.files] == [True, True, False]


def test_entries_of_the_configuration_replace_the_defaults(root: Path) -> None:
    write(root, "learn.json", text='{"entries": {"python3": "main.py", "node": 3}}')
    write(root, "exercises/01-a/app.py", "exercises/01-a/main.py", "exercises/02-b/app.js")
    assert [step.entry for step in course_of(root).steps] == ["exercises/01-a/main.py", "exercises/02-b/app.js"]


def test_what_an_editor_leaves_for_a_moment_is_no_file_of_a_step(root: Path) -> None:
    write(root, *(f"exercises/01-a/{name}" for name in ("app.py", ".app.py.swp", "4913", "app.py~", ".gitkeep")))
    assert [file.name for file in course_of(root).steps[0].files] == [".gitkeep", "app.py"]


@pytest.mark.parametrize(
    ("paths", "config", "exercises", "steps"),
    [
        (["exercises/a/x", ".learn/exercises/b/x", "c/x"], "{}", "exercises", ["a"]),
        ([".learn/exercises/b/x", "c/x"], "{}", ".learn/exercises", ["b"]),
        ([".breathecode/exercises/b/x", ".learn/exercises/c/x"], "{}", ".breathecode/exercises", ["b"]),
        (["content/units/d/x", "c/x"], '{"exercisesPath": "./content/units"}', "content/units", ["d"]),
        (["exercises/a/x", "content/d/x"], '{"exercisesPath": "content"}', "exercises", ["a"]),
        (["c/README.md", "d/README.es.md"], '{"exercisesPath": "absent"}', ".", ["c", "d"]),
        (["c/README.md"], '{"exercisesPath": "../.."}', ".", ["c"]),
        (["c/README.md"], '{"exercisesPath": "/etc"}', ".", ["c"]),
        (["c/README.md"], '{"exercisesPath": "a\\u0000b"}', ".", ["c"]),
        (["c/README.md"], '{"exercisesPath": 3}', ".", ["c"]),
        (["c/README.md", "node_modules/x", ".learn/x", "_d/x", "venv/pyvenv.cfg"], "{}", ".", ["c"]),
        (["README.md", "app.py", "data/x.csv", "src/util.py"], "{}", ".", ["default-index"]),
        (["README.md"], "{}", ".", ["default-index"]),
    ],
)
def test_where_the_steps_are(root: Path, paths: list[str], config: str, exercises: str, steps: list[str]) -> None:
    write(root, *paths)
    write(root, "learn.json", text=config)
    assert course_of(root).exercises == exercises
    assert slugs(root) == steps


def test_an_empty_exercises_directory_is_a_single_step(root: Path) -> None:
    # LearnPack: the slug is the name of the directory, and "default-index" only at the root.
    (root / "exercises").mkdir()
    assert slugs(root) == ["exercises"]


def test_a_single_readme_is_one_step_at_the_root(root: Path) -> None:
    write(root, "README.md", "app.py")
    (step,) = course_of(root).steps
    assert (step.path, step.entry, step.language) == (".", "app.py", "python3")


def test_exercises_behind_a_link_are_found_inside_the_course_and_not_outside(root: Path, tmp_path: Path) -> None:
    write(root, "content/01-a/app.py")
    (root / "exercises").symlink_to("content")
    assert [step.path for step in course_of(root).steps] == ["content/01-a"]
    write(tmp_path, "outside/01-b/app.py")
    (root / "exercises").unlink()
    (root / "exercises").symlink_to(tmp_path / "outside")
    assert course_of(root).steps == ()


def test_odd_names_work(root: Path) -> None:
    exercises = os.fsencode(root / "exercises")
    for name in (b"01 with space", b"02-new\nline", b"03-\xff\xfe", "04-ñandú".encode()):
        os.makedirs(exercises + b"/" + name)
        with open(exercises + b"/" + name + b"/app.py", "wb"):
            pass
    course = course_of(root)
    assert [step.slug for step in course.steps] == ["01 with space", "02-new\nline", "03-\ufffd\ufffd", "04-ñandú"]
    assert course.steps[2].path == "exercises/" + os.fsdecode(b"03-\xff\xfe")
    assert course.steps[2].entry == course.steps[2].path + "/app.py"
    assert os.path.exists(os.path.join(course.root, course.steps[2].entry or ""))


# --- the configuration ---


def test_the_slug_and_the_grading_come_from_the_configuration(root: Path) -> None:
    write(root, "learn.json", text='{"slug": "x", "grading": "incremental"}')
    course = course_of(root)
    assert (course.slug, course.grading, course.at_root, course.base) == ("x", "incremental", True, ".learn")


@pytest.mark.parametrize(
    "config", ["{}", '{"slug": ""}', '{"slug": 7, "grading": null}', '{"slug": null, "entries": []}']
)
def test_without_a_slug_the_directory_names_the_course(root: Path, config: str) -> None:
    write(root, "learn.json", text=config)
    assert (course_of(root).slug, course_of(root).grading) == ("my-course", "isolated")


def test_the_configuration_may_lie_in_learnpacks_directory(tmp_path: Path) -> None:
    write(tmp_path / "c", ".learn/learn.json", text='{"slug": "inner"}')
    assert course_of(tmp_path / "c").slug == "inner"
    write(tmp_path / "c", "learn.json", text='{"slug": "outer"}')
    assert course_of(tmp_path / "c").slug == "outer"
    write(tmp_path / "d", "bc.json", text='{"slug": "old"}')
    assert course_of(tmp_path / "d").slug == "old"


def test_a_byte_order_mark_half_an_emoji_and_bytes_that_are_not_utf8_are_forgiven(root: Path) -> None:
    (root / "learn.json").write_bytes(b'\xef\xbb\xbf{"slug": "a\xff\\ud83d"}')
    assert course_of(root).slug == "a\ufffd\ufffd"


def test_a_link_to_the_course_is_an_alias(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    course = read_course(str(tmp_path / "link"))
    assert course.root == str(root)
    assert course.aliases == (str(tmp_path / "link"),)
    assert course_of(root).aliases == ()


def test_a_course_has_the_name_that_the_file_system_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # macOS: both names lead to the directory, and F_GETPATH tells its own.
    own = root.with_name("Own-Name")
    own.symlink_to(root)
    directories = {root.stat().st_ino: str(own)}

    def get_path(descriptor: int, command: int, room: bytes) -> bytes:
        assert command == 50
        return directories[os.fstat(descriptor).st_ino].encode().ljust(len(room), b"\0")

    monkeypatch.setattr(fcntl, "F_GETPATH", 50, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", get_path)
    course = course_of(root)
    assert course.root == str(own)
    assert course.aliases == (str(root),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b'{\n  "slug": "x",\n}', "not valid JSON: line 2, column 14"),
        (b'{"slug": ', "not valid JSON: line 1, column 10"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" * 5_000, "not valid JSON"),
        (b"\x00\x01\xff", "not valid JSON"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "larger than 1 MiB"),
    ],
)
def test_a_configuration_that_is_none_is_one_clear_line(root: Path, content: bytes, words: str) -> None:
    (root / "learn.json").write_bytes(content)
    with pytest.raises(CourseError) as caught:
        course_of(root)
    message = str(caught.value)
    assert words in message and "learn.json" in message
    assert "\n" not in message and len(message) < 400
    assert not caught.value.permission


def test_no_configuration_no_directory_and_no_file_are_one_clear_line(tmp_path: Path) -> None:
    for directory, words in ((tmp_path, "no learn.json"), (tmp_path / "absent", "no such directory")):
        for read in (read_course, find_course):
            with pytest.raises(CourseError, match=words):
                read(str(directory))
    (tmp_path / "learn.json").mkdir()
    with pytest.raises(CourseError, match="not a regular file"):
        read_course(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="not a directory"):
        find_course(str(tmp_path / "file"))
    with pytest.raises(CourseError, match="no such directory"):
        find_course("a\0b")


def test_a_pipe_in_the_place_of_the_configuration_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "learn.json")
    with pytest.raises(CourseError, match="not a regular file"):
        read_course(str(tmp_path))


def test_a_path_with_a_line_break_is_still_one_line(tmp_path: Path) -> None:
    odd = tmp_path / "two\nlines"
    odd.mkdir()
    with pytest.raises(CourseError) as caught:
        read_course(str(odd))
    assert "\n" not in str(caught.value)


def test_a_missing_permission_is_told_apart(tmp_path: Path) -> None:
    namespaces.run_scene_without_privileges(namespaces.unreadable_course, tmp_path)


# --- finding it ---


def test_the_course_is_found_from_any_directory_inside(root: Path) -> None:
    write(root, "exercises/01-a/deep/er/x", ".learn/resets/x")
    for inside in (root, root / "exercises/01-a/deep/er", root / ".learn/resets", root / ".learn"):
        assert find_course(str(inside)) == str(root)


def test_the_configuration_in_learnpacks_directory_does_not_make_that_directory_the_course(tmp_path: Path) -> None:
    write(tmp_path / "c", ".learn/learn.json", ".learn/exercises/01-a/x", text="{}")
    assert find_course(str(tmp_path / "c/.learn/exercises/01-a")) == str(tmp_path / "c")


def test_of_nested_courses_the_nearest_counts(root: Path) -> None:
    write(root, "inner/learn.json", "inner/exercises/x", text="{}")
    assert find_course(str(root / "inner/exercises")) == str(root / "inner")


def test_the_course_is_found_through_links_from_either_side(root: Path, tmp_path: Path) -> None:
    write(root, "exercises/01-a/x")
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "step").symlink_to(root / "exercises/01-a")
    assert find_course(str(tmp_path / "link/exercises/01-a")) == str(tmp_path / "link")
    assert find_course(str(tmp_path / "step")) == str(root)


def test_a_relative_directory_is_taken_from_where_we_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert find_course(".") == str(root)


# --- test runners ---


@pytest.mark.parametrize(
    ("files", "patterns"),
    [
        ({}, ("test_*.py", "*_test.py")),
        ({"pytest.ini": "[pytest]\npython_files = test.py tests.py\n"}, ("test.py", "tests.py")),
        ({"pytest.ini": "[pytest]\npython_files =\n  a.py\n  b.py\n"}, ("a.py", "b.py")),
        ({"pytest.ini": "", "tox.ini": "[pytest]\npython_files = x.py\n"}, ("test_*.py", "*_test.py")),
        ({"tox.ini": "[tox]\n", "setup.cfg": "[tool:pytest]\npython_files = s.py\n"}, ("s.py",)),
        (
            {"tox.ini": "[pytest]\npython_files = t.py\n", "setup.cfg": "[tool:pytest]\npython_files = s.py\n"},
            ("t.py",),
        ),
        ({"pyproject.toml": '[tool.pytest.ini_options]\npython_files = "p.py q.py"\n'}, ("p.py", "q.py")),
        ({"pyproject.toml": '[tool.pytest.ini_options]\npython_files = ["p.py"]\n'}, ("p.py",)),
        ({"pyproject.toml": '[tool.pytest]\npython_files = ["n.py"]\n'}, ("n.py",)),
        ({"pyproject.toml": "[tool.black]\n", "tox.ini": "[pytest]\npython_files = t.py\n"}, ("t.py",)),
        ({"pytest.toml": '[pytest]\npython_files = ["m.py"]\n'}, ("m.py",)),
        ({"pyproject.toml": "broken ["}, ("test_*.py", "*_test.py")),
        ({"pytest.ini": "no section\n"}, ("test_*.py", "*_test.py")),
        ({"pytest.ini": "[pytest]\npython_files = %(x)s.py\n"}, ("%(x)s.py",)),
    ],
)
def test_what_a_bare_pytest_collects(root: Path, files: dict[str, str], patterns: tuple[str, ...]) -> None:
    for name, text in files.items():
        write(root, name, text=text)
    assert course_of(root).pytest_files == patterns


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("pytest.ini", "[pytest]\naddopts = -ra -k 'one or two'\n", ("-ra", "-k", "one or two")),
        ("pytest.ini", "[pytest]\nADDOPTS\n", ()),
        ("pytest.ini", "[pytest]\naddopts = 'not closed\n", ()),
        ("setup.cfg", "[tool:pytest]\naddopts =\n    -q\n    --lf\n", ("-q", "--lf")),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = "-q --lf"\n', ("-q", "--lf")),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["-k", "a b"]\n', ("-k", "a b")),
        ("pyproject.toml", '[tool.pytest]\naddopts = ["--lf", 1]\n', ("--lf",)),
        ("pytest.toml", "[pytest]\naddopts = 1\n", ()),
        ("learn.json", "{}", ()),
    ],
)
def test_the_options_that_pytest_s_configuration_puts_before_all_others(
    root: Path, name: str, text: str, options: tuple[str, ...]
) -> None:
    write(root, name, text=text)
    assert course_of(root).pytest_options == options


@pytest.mark.parametrize(
    ("name", "text", "configured"),
    [
        ("jest.config.js", "", True),
        ("jest.config.mjs", "", True),
        ("package.json", '{"jest": {}}', True),
        ("package.json", '{"devDependencies": {"jest": "29"}}', False),
        ("package.json", "broken", False),
        ("package.json", "[]", False),
        ("my.jest.config.js", "", False),
    ],
)
def test_whether_the_course_configures_jest(root: Path, name: str, text: str, configured: bool) -> None:
    write(root, name, text=text)
    assert course_of(root).jest_configured is configured


# --- what is watched ---


@pytest.mark.parametrize(
    ("scope", "path", "watched"),
    [
        (Scope("exercises", ".learn"), ".", True),
        (Scope("exercises", ".learn"), "exercises/01-a/deep/dir", True),
        (Scope("exercises", ".learn"), "src", False),
        (Scope("exercises", ".learn"), "exercises-old", False),
        (Scope("exercises", ".learn"), "exercises/01-a/node_modules/x", False),
        (Scope("exercises", ".learn"), "exercises/01-a/.cache", False),
        (Scope("exercises", ".learn"), "exercises/01-a/__pycache__", False),
        (Scope("exercises", ".learn"), ".learn/_app", False),
        (Scope("exercises", ".learn"), ".learn/dist", True),
        (Scope("exercises", ".learn"), ".learn/dist/deep", False),
        (Scope("exercises", ".learn"), ".learn/resets", True),
        (Scope("exercises", ".learn"), ".learn/resets/01-a", False),
        (Scope(".learn/exercises", ".learn"), ".learn/exercises/01-a", True),
        (Scope(".learn/exercises", ".learn"), "exercises", False),
        (Scope("content/units", ".learn"), "content", True),
        (Scope("content/units", ".learn"), "content/other", False),
        (Scope(".", ".learn"), "01-a/deep", True),
        (Scope(".", ".learn"), "_old", False),
        (Scope(".", ".learn"), ".git", False),
        (Scope(".", ".learn"), "node_modules", False),
    ],
)
def test_which_directories_are_watched(scope: Scope, path: str, watched: bool) -> None:
    assert scope.has_directory(path) is watched


@pytest.mark.parametrize(
    "name",
    "app.py app.js data.csv sedan.py 4914 tmp.py swp backup.txt test.py a.b.py app.tmp.py".split(),
)
def test_what_a_student_may_write_is_not_transient(name: str) -> None:
    assert not is_transient(name)


# --- the clock ---


def test_a_kernel_stamp_becomes_the_wall_clocks_time() -> None:
    earlier, before, later = time.time() * 1000 - 1, now_ms(), time.time() * 1000 + 1
    assert earlier <= before <= later
    stamp = time.monotonic_ns()

    def placed(ns: int) -> int:
        return max(ms_of_monotonic_ns(ns) for _ in range(100))  # it reads two clocks: a pause in between makes it less

    assert before <= placed(stamp) + 1 <= now_ms() + 2
    assert abs(placed(stamp) - placed(stamp - 5_000_000_000) - 5_000) <= 1
