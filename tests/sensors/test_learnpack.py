"""LearnPack's own files become observations, whatever is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import events
from agent.core.course import Course
from agent.core.observations import ConfigRead, Observation, QueueEntry, QueueRead, ReportRead
from agent.sensors.learnpack import config_trouble, is_logged_in, parse_learnpack_file

QUEUE = ".learn/vscode_queue.json"
CONFIG = ".learn/config.json"
REPORT = ".learn/reports/01-a.json"


@pytest.fixture
def course(tmp_path: Path) -> Course:
    (tmp_path / ".learn/reports").mkdir(parents=True)
    return Course(root=str(tmp_path), slug="c")


def read(course: Course, path: str, content: bytes | object) -> Observation | None:
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    return parse_learnpack_file(course, path, written, 7)


COUNTS = {"numPassedTests": 3, "numFailedTests": 1, "numFailedTestSuites": 0}


@pytest.mark.parametrize(
    ("path", "content", "seen"),
    [
        (QUEUE, [], QueueRead(7, ())),
        (
            QUEUE,
            [
                {"name": "initializing", "time": 123.4},
                {"name": "start_exercise", "time": 5, "data": "00-hello"},
                {"name": "open_files", "data": ["a.py", "b.py"]},
                {"name": "reset_exercise", "data": {"exerciseSlug": "x"}},
            ],
            QueueRead(
                7,
                (
                    QueueEntry("initializing", None, "123.4"),
                    QueueEntry("start_exercise", "00-hello", "5"),
                    QueueEntry("open_files"),
                    QueueEntry("reset_exercise"),
                ),
            ),
        ),
        (QUEUE, [None, 3, "text", [], {"name": 3}, {}, {"name": "real"}], QueueRead(7, (QueueEntry("real"),))),
        (QUEUE, {"name": "no list"}, None),
        (QUEUE, "text", None),
        (QUEUE, None, None),
        (CONFIG, {"currentExercise": "01-a", "config": {}}, ConfigRead(7, "01-a")),
        (CONFIG, {"currentExercise": None}, ConfigRead(7, None)),
        (CONFIG, {"currentExercise": ""}, ConfigRead(7, None)),
        (CONFIG, {"currentExercise": {"slug": "x"}}, ConfigRead(7, None)),
        (CONFIG, {}, ConfigRead(7, None)),
        (CONFIG, [], None),
        (REPORT, {**COUNTS, "success": False, "failed": []}, ReportRead(7, "01-a", 3, 1, 0)),
        (
            REPORT,
            # What LearnPack's reporter writes of three suites: `failed` has all tests, also those that passed.
            {
                **COUNTS,
                "testResults": [{"message": "one\n"}, {"message": None, "errorType": "x"}, {"message": "two"}],
                "failed": [
                    {"title": "is there", "status": "passed"},
                    {"title": "says hello", "status": "failed"},
                    {"title": "later", "status": "todo"},
                    {"title": "not now", "status": "pending"},
                ],
            },
            ReportRead(
                7,
                "01-a",
                3,
                1,
                0,
                "one\n\ntwo",
                (
                    events.TestResult("is there", "passed"),
                    events.TestResult("says hello", "failed"),
                    events.TestResult("later", "skipped"),
                    events.TestResult("not now", "skipped"),
                ),
            ),
        ),
        (
            REPORT,
            {
                **COUNTS,
                "testResults": [None, 3, {}, {"message": 3}, {"message": ["x"]}, []],
                "failed": [None, 3, {}, {"title": "x"}, {"title": 3, "status": "passed"}, {"title": "x", "status": []}],
            },
            ReportRead(7, "01-a", 3, 1, 0),
        ),
        (REPORT, {**COUNTS, "testResults": {"message": "x"}, "failed": {"title": "x"}}, ReportRead(7, "01-a", 3, 1, 0)),
        (REPORT, {**COUNTS, "numFailedTests": "1"}, None),
        (REPORT, {**COUNTS, "numFailedTests": True}, None),
        (REPORT, {**COUNTS, "numFailedTests": 1.0}, None),
        (REPORT, {**COUNTS, "numFailedTests": -1}, None),
        (REPORT, {"numPassedTests": 3}, None),
        (REPORT, [], None),
        (".learn/telemetry.json", {"steps": []}, None),
        (".learn/learn.json", {}, None),
        (".learn/other.json", [], None),
    ],
)
def test_what_each_file_says(course: Course, path: str, content: object, seen: Observation | None) -> None:
    assert read(course, path, content) == seen


@pytest.mark.parametrize("path", [QUEUE, CONFIG, REPORT])
@pytest.mark.parametrize(
    "content", [b"", b"[", b"{", b'[{"name": "initi', b"\xff\xfe", b"nul", b"[" * 100_000, b'"\xff']
)
def test_what_does_not_parse_says_nothing_yet(course: Course, path: str, content: bytes) -> None:
    assert read(course, path, content) is None


def test_of_a_long_report_the_head_and_the_tail_are_told(course: Course) -> None:
    suites = [{"message": f"{number:08}" * 1_000} for number in range(100)]
    tests = [{"title": f"{number:08}" * 200, "status": "failed"} for number in range(800)]
    seen = read(course, REPORT, {**COUNTS, "testResults": suites, "failed": tests * 2})
    assert isinstance(seen, ReportRead)
    assert seen.message.startswith("00000000") and seen.message.endswith("00000099")
    assert "bytes left out" in seen.message and len(seen.message) < 257 * 1024
    assert len(seen.results) == 1_000
    assert {len(result.name) for result in seen.results} == {1_000}


def test_the_slug_of_a_report_is_valid_text(course: Course) -> None:
    path = f".learn/reports/{os.fsdecode(b'01-' + bytes([255]))}.json"
    seen = read(course, path, COUNTS)
    assert isinstance(seen, ReportRead) and seen.slug == "01-\ufffd"


def test_only_the_courses_own_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".learn").mkdir()
    (tmp_path / ".breathecode").mkdir()
    course = Course(root=str(tmp_path), slug="c", base=".breathecode")
    assert read(course, QUEUE, []) is None
    assert read(course, ".breathecode/vscode_queue.json", []) == QueueRead(7, ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["name", "data", "currentExercise"]) | st.text(), inner)
    ),
    max_leaves=20,
)


# No database of examples: the tests may run where the repository can't be written.
@settings(database=None, deadline=None)
@given(JSON, st.sampled_from([QUEUE, CONFIG, REPORT]))
def test_no_json_makes_it_fail(data: object, path: str) -> None:
    course = Course(root="/nowhere", slug="c")
    seen = parse_learnpack_file(course, path, json.dumps(data).encode("utf-8", "replace"), 1)
    assert seen is None or seen.at == 1


REPORT_PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["passed", "failed", "todo"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["title", "status", "message"]), inner),
    max_leaves=20,
)


@settings(database=None, deadline=None)
@given(REPORT_PARTS, REPORT_PARTS)
def test_no_report_makes_it_fail(suites: object, tests: object) -> None:
    content = json.dumps({**COUNTS, "testResults": suites, "failed": tests}).encode("utf-8", "replace")
    seen = parse_learnpack_file(Course(root="/nowhere", slug="c"), REPORT, content, 1)
    assert seen is None or (isinstance(seen, ReportRead) and seen.failed == 1)


@settings(database=None, deadline=None)
@given(st.binary(), st.sampled_from([QUEUE, CONFIG, REPORT]))
def test_no_bytes_make_it_fail(content: bytes, path: str) -> None:
    seen = parse_learnpack_file(Course(root="/nowhere", slug="c"), path, content, 1)
    assert seen is None or seen.at == 1


def test_half_an_emoji_in_a_report_costs_that_letter_and_not_the_report(course: Course) -> None:
    content = json.dumps({**COUNTS, "testResults": [{"message": "expected \ud83d"}]}).encode()
    assert rb"\ud83d" in content
    seen = read(course, REPORT, content)
    assert isinstance(seen, ReportRead) and (seen.passed, seen.failed) == (3, 1)
    assert seen.message == "expected \ufffd"


def test_a_login_with_half_an_emoji_in_the_name_is_a_login(course: Course, tmp_path: Path) -> None:
    (tmp_path / ".learn/.session").mkdir()
    item = {"key": "bc-payload", "value": {"token": "secret", "first_name": "Ada \ud83d"}}
    (tmp_path / ".learn/.session/5e1f").write_text(json.dumps(item))
    assert is_logged_in(course)


@pytest.mark.parametrize(
    ("content", "is_trouble"),
    [
        (b"", True),
        (b'{"config": {', True),
        (b"{}", False),
        (rb'{"title": "\ud83d"}', False),
        (b'{"title": "caf\xe9"}', False),
        (b"[" + b" " * (8 << 20) + b"]", False),
    ],
    ids=["empty", "torn", "empty object", "half an emoji", "not UTF-8", "larger than is read"],
)
def test_a_configuration_on_which_learnpack_cant_start_is_told(
    course: Course, content: bytes, is_trouble: bool
) -> None:
    assert config_trouble(course) is None
    (Path(course.root) / CONFIG).write_bytes(content)
    assert (config_trouble(course) is not None) is is_trouble
