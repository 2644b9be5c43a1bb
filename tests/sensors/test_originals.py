"""Whether a test is the one that came with the course: real git repositories, real files, the real file sensor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.core.course import Course, Step
from agent.core.observations import ComparedTest, CourseRead, ResetCopyAppeared
from agent.core.observations import TestsCompared as Compared
from agent.sensors.course import read_course
from agent.sensors.files import git as git_module
from agent.sensors.files import originals
from agent.sensors.files.git import NoAnswerError, Versions, course_versions
from agent.sensors.files.originals import RESETS, Originals, as_it_came, digest_of
from tests.sensors.watching import MODIFIED, STEPS, Watcher, is_comparing, make_course, make_step, replace_file
from tests.until import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

TEST = "exercises/01-add/test.py"
HELLO = "exercises/00-hello/test.py"
CHANGED = "def test_it(): assert True\n"
NEWER = "def test_it(): assert 1 + 1 == 2\n"

AUTHOR, STUDENT = "author@example.com", "student@example.com"


# --- the stage ---


@pytest.fixture(autouse=True)
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The student's own ~/.gitconfig; nothing of this machine's."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "gitconfig"
    config.write_text(f"[user]\n\tname = Ada\n\temail = {STUDENT}\n[init]\n\tdefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return config


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """git is waited for, however slow this machine is; and a file is looked at a second time when a test says so."""
    monkeypatch.setattr(git_module, "_PATIENCE_S", 30.0)
    monkeypatch.setattr(originals, "AGAIN_S", 1000.0)


def git(directory: Path, *arguments: str, by: str = STUDENT, check: bool = True) -> str:
    identity = ["-c", f"user.email={by}"]
    command = ["git", "-C", str(directory), *identity, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


def commit(directory: Path, *, by: str = STUDENT, message: str = "work") -> None:
    git(directory, "add", "-A", "-f", by=by)
    git(directory, "commit", "-q", "--allow-empty", "-m", message, by=by)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """The course where its author keeps it."""
    root = make_course(tmp_path / "upstream")
    (root / ".gitignore").write_text("/.learn\n")
    git(root, "init", "-q", by=AUTHOR)
    git(root, "add", "-A", by=AUTHOR)
    git(root, "commit", "-q", "-m", "the course", by=AUTHOR)
    return root


@pytest.fixture
def cloned(upstream: Path, tmp_path: Path) -> Path:
    return clone(upstream, tmp_path / "course")


def clone(source: Path, target: Path, *options: str) -> Path:
    git(source, "clone", "-q", *options, f"file://{source}", str(target))
    (target / ".learn" / "resets").mkdir(parents=True)
    return target


def make_copy(root: Path, slug: str, text: str | None = None) -> None:
    """What LearnPack's UI makes when it shows a file of a step for the first time."""
    copies = root / ".learn" / "resets" / slug
    copies.mkdir()
    for file in sorted((root / "exercises" / slug).iterdir()):
        (copies / file.name).write_bytes(file.read_bytes())
    if text is not None:
        (copies / "test.py").write_text(text)


def answers(watcher: Watcher) -> dict[str, ComparedTest]:
    """The last answer about each file."""
    return {file.path: file for seen in watcher.all(Compared) for file in seen.files}


def wait_for(watcher: Watcher, differs: bool | None, path: str = TEST) -> ComparedTest:
    until(lambda: path in answers(watcher) and answers(watcher)[path].differs is differs)
    return answers(watcher)[path]


def at_the_start(root: Path) -> dict[str, ComparedTest]:
    """What a new life of the agent says first."""
    with Watcher(root) as watcher:
        return {file.path: file for file in watcher.wait_for(Compared).files}


def asked(root: Path, *paths: str) -> Versions:
    return course_versions(str(root), list(paths or (TEST,)), hash)


def is_planned(watcher: Watcher, path: str = TEST) -> bool:
    """Whether a file is to be looked at again."""
    return path in watcher.sensor._originals._due


def hasten(watcher: Watcher) -> None:
    """What is to be looked at again is looked at now.  Nothing is looked at that the agent did not plan to."""
    comparing = watcher.sensor._originals
    with comparing._condition:
        comparing._due.update(dict.fromkeys(comparing._due, 0.0))
        comparing._condition.notify()


# --- when ---


def test_at_the_start_all_tests_are_told_at_once_and_then_nothing_more(cloned: Path) -> None:
    with Watcher(cloned) as watcher:
        seen = watcher.wait_for(Compared)
        assert [file.path for file in seen.files] == [f"exercises/{slug}/test.py" for slug in STEPS]
        assert {file.differs for file in seen.files} == {False}
        replace_file(cloned / TEST, (cloned / TEST).read_text())
        os.utime(cloned / HELLO)
        settle(watcher)
        assert len(watcher.all(Compared)) == 1


def settle(watcher: Watcher) -> None:
    """Returns when everything that happened before was compared, a second time too where that was planned."""

    def is_over() -> bool:
        hasten(watcher)
        return not is_comparing()

    watcher.fence()
    until(is_over)


def test_the_start_does_not_wait_for_git(cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = tmp_path / "asked", tmp_path / "go-on"
    stand_in(tmp_path, monkeypatch, f"touch {asked}; until [ -e {go_on} ]; do sleep 0.02; done; exit 1")
    with Watcher(cloned) as watcher:
        until(asked.exists)
        (cloned / "exercises/01-add/app.py").write_text("print(1)\n")
        watcher.wait_for_change("exercises/01-add/app.py", MODIFIED)
        assert not watcher.all(Compared)
        go_on.touch()
        assert wait_for(watcher, None) == ComparedTest(TEST, digest_of(b"def test_it(): pass\n"), None, "")


def test_a_changed_test_is_told_and_so_is_its_return(cloned: Path) -> None:
    before = (cloned / TEST).read_text()
    with Watcher(cloned) as watcher:
        same = wait_for(watcher, False)
        (cloned / TEST).write_text(CHANGED)
        changed = wait_for(watcher, True)
        assert changed.digest == digest_of(CHANGED.encode()) != same.digest
        replace_file(cloned / TEST, before)
        assert wait_for(watcher, False) == same
        assert [len(seen.files) for seen in watcher.all(Compared)] == [3, 1, 1]


def test_a_step_that_comes_later_is_compared_when_the_course_is_read_again(cloned: Path) -> None:
    with Watcher(cloned) as watcher:
        wait_for(watcher, False)
        make_step(cloned, "03-more")
        new = wait_for(watcher, None, "exercises/03-more/test.py")
        assert new.compared_with == ""  # nobody knows that step: it may be the author's


def test_a_course_that_is_back_is_compared_again_and_only_news_are_told(cloned: Path) -> None:
    with Watcher(cloned) as watcher:
        wait_for(watcher, False)
        away = cloned.with_name("away")
        cloned.rename(away)
        watcher.wait_for_gone()
        (away / TEST).write_text(CHANGED)
        away.rename(cloned)
        wait_for(watcher, True)
        assert [file.path for file in watcher.all(Compared)[-1].files] == [TEST]


def test_after_the_stop_nothing_is_told(cloned: Path) -> None:
    began, go_on = threading.Event(), threading.Event()
    told: list[object] = []

    def slow(root: str, paths: list[str], fingerprint: Callable[[bytes], int]) -> Versions:
        began.set()
        assert go_on.wait(50)
        return course_versions(root, paths, fingerprint)

    comparing = Originals(told.append, versions=slow)
    comparing.compare(read_course(str(cloned)))
    assert began.wait(50)
    comparing.stop()
    go_on.set()
    until(lambda: not is_comparing())
    assert told == []


def test_an_error_in_the_comparing_is_not_its_end(cloned: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def broken(root: str, paths: list[str], fingerprint: Callable[[bytes], int]) -> Versions:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("boom")
        return course_versions(root, paths, fingerprint)

    told: list[object] = []
    comparing = Originals(told.append, versions=broken)
    course = read_course(str(cloned))
    comparing.compare(course)
    until(lambda: "boom" in caplog.text)
    comparing.compare(course)
    until(lambda: bool(told))
    comparing.stop()


def test_a_thread_that_can_not_be_had_now_is_had_for_the_next_save(
    plain: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    told: list[object] = []
    comparing = Originals(told.append)
    course = read_course(str(plain))
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", Refused)
        comparing.compare(course)  # the sensor must not take it for a failure of its own
    assert "can't start new thread" in caplog.text
    assert told == []
    comparing.file_changed(course, "exercises/01-add/app.py")
    until(lambda: bool(told))
    comparing.stop()


# --- LearnPack's copies ---


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A course without git."""
    return make_course(tmp_path / "course")


def test_without_git_and_copies_only_the_digest_is_told_the_same_in_every_life(plain: Path) -> None:
    assert at_the_start(plain)[TEST] == ComparedTest(TEST, "14-ecc0de5f", None, "")


def test_the_copy_that_learnpack_makes_is_the_courses_own(plain: Path) -> None:
    with Watcher(plain) as watcher:
        wait_for(watcher, None)
        make_copy(plain, "01-add")
        watcher.wait_for(ResetCopyAppeared)
        assert wait_for(watcher, False).compared_with == RESETS
        (plain / TEST).write_text(CHANGED)
        assert wait_for(watcher, True).compared_with == RESETS
        assert answers(watcher)[HELLO].differs is None
    assert at_the_start(plain)[TEST].differs is True


def test_a_copy_that_is_made_slowly_is_awaited(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "_COPY_S", 0.0)
    looks: list[str] = []
    read = originals._read

    def counted(course: Course, step: Step, path: str) -> originals._Test | None:
        looks.append(path)
        return read(course, step, path)

    monkeypatch.setattr(originals, "_read", counted)
    with Watcher(plain) as watcher:
        wait_for(watcher, None)
        settle(watcher)
        looks.clear()
        (plain / ".learn/resets/01-add").mkdir()
        until(lambda: looks == [TEST] and is_planned(watcher))  # the first look found no test in it
        (plain / ".learn/resets/01-add/test.py").write_bytes((plain / TEST).read_bytes())
        hasten(watcher)
        assert wait_for(watcher, False).compared_with == RESETS


def test_a_copy_that_is_half_written_when_it_is_looked_at_is_looked_at_again(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "_COPY_S", 0.0)
    with Watcher(plain) as watcher:
        wait_for(watcher, None)
        making = plain / ".learn/making"
        making.mkdir()
        (making / "test.py").write_text("def test")
        making.rename(plain / ".learn/resets/01-add")
        wait_for(watcher, True)
        assert is_planned(watcher)
        (plain / ".learn/resets/01-add/test.py").write_bytes((plain / TEST).read_bytes())
        hasten(watcher)
        wait_for(watcher, False)


def test_a_copy_of_a_test_that_was_seen_changed_does_not_make_it_the_courses_own(cloned: Path) -> None:
    with Watcher(cloned) as watcher:
        wait_for(watcher, False)
        (cloned / TEST).write_text(CHANGED)
        wait_for(watcher, True)
        make_copy(cloned, "01-add")
        watcher.wait_for(ResetCopyAppeared)
        settle(watcher)
        assert answers(watcher)[TEST].differs is True


def test_the_copies_of_an_incremental_course_hold_the_test_only(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course", steps=())
    (root / "learn.json").write_text('{"slug": "small", "grading": "incremental"}')
    (root / ".learn/exercises/01-a").mkdir(parents=True)
    test = root / ".learn/exercises/01-a/test.py"
    test.write_text(NEWER)
    (root / ".learn/resets/01-a").mkdir()
    (root / ".learn/resets/01-a/test.py").write_text(NEWER)
    path = ".learn/exercises/01-a/test.py"
    with Watcher(root) as watcher:
        assert wait_for(watcher, False, path).compared_with == RESETS
        test.write_text(CHANGED)
        wait_for(watcher, True, path)


def test_the_copies_of_a_single_step_lie_under_learnpacks_name_for_it(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course", steps=())
    (root / "README.md").write_text("# one\n")
    (root / "test.py").write_text(NEWER)
    (root / ".learn/resets/default-index").mkdir()
    (root / ".learn/resets/default-index/test.py").write_text(NEWER)
    assert at_the_start(root)["test.py"].differs is False


def test_what_learnpack_rewrites_is_no_change(tmp_path: Path) -> None:
    root = make_course(tmp_path / "course")
    test = root / "exercises/01-add/tests.js"
    text = 'const rewire = require("rewire");\nconst app = rewire("./app.js");\ntest("app.js", () => {});\n'
    test.write_text(text)
    make_copy(root, "01-add")
    path = "exercises/01-add/tests.js"
    with Watcher(root) as watcher:
        told = wait_for(watcher, False, path)
        test.write_text(text.replace("app.js", "temporal.js"))
        settle(watcher)
        assert answers(watcher)[path] == told
        test.write_text(text.replace("app.js", "temporal.js").replace("{}", "{1}"))
        wait_for(watcher, True, path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"a\r\nb\r\n", b"a\nb\n", True),
        (b"a\n", b"a", False),
        (b"a ", b"a", False),
        (b"a\rb", b"a\nb", False),
        (b'rewire("app.js")', b'rewire("temporal.js")', True),
        (b'require("app.js")', b'require("temporal.js")', False),
        (b'rewire("app.js") // \xff', b'rewire("temporal.js") // \xef\xbf\xbd', True),
        (b"\xff", b"\xef\xbf\xbd", False),
    ],
)
def test_what_is_left_out_when_tests_are_compared(one: bytes, other: bytes, same: bool) -> None:
    assert (as_it_came(one) == as_it_came(other)) is same
    assert (digest_of(one) == digest_of(other)) is same


def test_a_test_that_became_a_link_is_followed_as_test_runners_do(plain: Path) -> None:
    make_copy(plain, "01-add")
    easy = plain.with_name("easy.py")
    easy.write_text(CHANGED)
    with Watcher(plain) as watcher:
        wait_for(watcher, False)
        (plain / TEST).unlink()
        (plain / TEST).symlink_to(easy)
        assert wait_for(watcher, True).digest == digest_of(CHANGED.encode())


def test_a_test_that_is_too_large_or_may_not_be_read_is_left_out(plain: Path) -> None:
    (plain / HELLO).write_bytes(bytes(2 << 20))
    (plain / TEST).unlink()
    (plain / TEST).symlink_to("/nowhere/at/all.py")
    assert list(at_the_start(plain)) == ["exercises/02-loop/test.py"]


# --- git: whose commit is it ---


def test_a_clone_is_compared_with_the_commit_that_was_cloned(cloned: Path) -> None:
    told = at_the_start(cloned)[TEST]
    assert told.differs is False
    assert told.compared_with == f"git's commit {git(cloned, 'rev-parse', 'HEAD')[:10]}"


def test_a_commit_by_the_student_does_not_make_a_changed_test_the_courses_own(cloned: Path) -> None:
    with Watcher(cloned) as watcher:
        wait_for(watcher, False)
        (cloned / TEST).write_text(CHANGED)
        wait_for(watcher, True)
        commit(cloned)
        (cloned / "exercises/01-add/app.py").write_text("print(1)\n")
        settle(watcher)
        assert answers(watcher)[TEST].differs is True
    assert at_the_start(cloned)[TEST].differs is True


def test_commits_that_no_remote_has_are_the_students_whoever_signed_them(cloned: Path) -> None:
    (cloned / TEST).write_text(CHANGED)
    commit(cloned, by="another@address.example")
    assert at_the_start(cloned)[TEST].differs is True


def test_tests_that_git_pull_brings_are_the_courses_own(cloned: Path, upstream: Path) -> None:
    (cloned / "exercises/02-loop/app.py").write_text("print('mine')\n")
    commit(cloned)
    make_copy(cloned, "01-add")  # of the old test
    with Watcher(cloned) as watcher:
        assert wait_for(watcher, False).compared_with == RESETS
        (upstream / TEST).write_text(NEWER)
        (upstream / HELLO).write_text(NEWER)
        commit(upstream, by=AUTHOR)
        git(cloned, "pull", "-q", "--no-rebase", "--no-edit")
        for path in (TEST, HELLO):
            until(lambda path=path: answers(watcher)[path].digest == digest_of(NEWER.encode()))  # type: ignore[misc]
            hasten(watcher)  # the first look may have come before HEAD
            assert wait_for(watcher, False, path).compared_with.startswith("git's commit")
        (cloned / TEST).write_text(CHANGED)
        wait_for(watcher, True)


def test_a_newer_course_that_is_only_fetched_changes_nothing(cloned: Path, upstream: Path) -> None:
    (upstream / TEST).write_text(NEWER)
    commit(upstream, by=AUTHOR)
    git(cloned, "fetch", "-q")
    assert at_the_start(cloned)[TEST].differs is False


def save_another_file(watcher: Watcher) -> None:
    (watcher.root / "exercises/02-loop/app.py").write_text("print(1)\n")


@pytest.mark.parametrize(
    "then", [pytest.param(save_another_file, id="another save"), pytest.param(hasten, id="the second look")]
)
def test_when_head_follows_the_files_a_changed_test_is_asked_for_again(
    cloned: Path, upstream: Path, then: Callable[[Watcher], None]
) -> None:
    (upstream / TEST).write_text(NEWER)
    commit(upstream, by=AUTHOR)
    git(cloned, "fetch", "-q")
    with Watcher(cloned) as watcher:
        wait_for(watcher, False)
        git(cloned, "checkout", "-q", "origin/main", "--", ".")  # the files of a merge with a conflict
        wait_for(watcher, True)
        assert is_planned(watcher)
        git(cloned, "reset", "-q", "--soft", "origin/main")
        then(watcher)
        wait_for(watcher, False)


def test_while_git_is_at_work_a_changed_test_is_asked_for_again_and_again(
    cloned: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "AGAIN_S", 0.05)
    asks = 0

    def counted(root: str, paths: list[str], fingerprint: Callable[[bytes], int]) -> Versions:
        nonlocal asks
        asks += 1
        return course_versions(root, paths, fingerprint)

    told: list[object] = []
    comparing = Originals(told.append, versions=counted)
    course = read_course(str(cloned))
    lock = cloned / ".git/index.lock"
    lock.touch()
    (cloned / TEST).write_text(CHANGED)
    comparing.compare(course)
    until(lambda: asks > 3)
    os.utime(lock, (1, 1))  # left by a git that died
    until(lambda: not is_comparing())
    assert len(told) == 1
    comparing.stop()


def test_a_fork_to_which_the_student_pushed_is_seen_through(upstream: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork.git"
    git(upstream, "clone", "-q", "--bare", str(upstream), str(fork))
    course = clone(fork, tmp_path / "course")
    (course / TEST).write_text(CHANGED)
    commit(course)
    git(course, "push", "-q")
    assert at_the_start(course)[TEST].differs is True
    make_copy(course, "00-hello", NEWER)
    assert at_the_start(course)[HELLO].differs is False  # the copy is an older one: git knows better


def test_many_commits_by_the_student_are_looked_through(upstream: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork.git"
    git(upstream, "clone", "-q", "--bare", str(upstream), str(fork))
    course = clone(fork, tmp_path / "course")
    (course / TEST).write_text(CHANGED)
    for _ in range(25):
        commit(course)
    git(course, "push", "-q")
    assert at_the_start(course)[TEST].differs is True


def test_in_the_students_own_repository_the_oldest_version_counts(plain: Path) -> None:
    (plain / "notes.txt").write_text("mine\n")
    git(plain, "init", "-q")
    git(plain, "add", "notes.txt")
    git(plain, "commit", "-q", "-m", "first")
    commit(plain, message="the course, from learnpack download")
    assert at_the_start(plain)[TEST].compared_with == "the oldest version in git"
    (plain / TEST).write_text(CHANGED)
    commit(plain)
    told = at_the_start(plain)
    assert (told[TEST].differs, told[HELLO].differs) == (True, False)


def test_where_all_is_by_one_person_what_a_remote_has_is_the_course(upstream: Path, tmp_path: Path) -> None:
    course = clone(upstream, tmp_path / "course")
    git(course, "config", "user.email", AUTHOR)
    (upstream / TEST).write_text(NEWER)
    commit(upstream, by=AUTHOR)
    git(course, "pull", "-q", by=AUTHOR)
    assert at_the_start(course)[TEST].differs is False
    (course / TEST).write_text(CHANGED)
    commit(course, by=AUTHOR)
    assert at_the_start(course)[TEST].differs is True


def test_without_a_name_for_the_student_head_counts_but_not_against_learnpacks_copy(plain: Path, student: Path) -> None:
    git(plain, "init", "-q")
    commit(plain)
    student.write_text("")
    assert at_the_start(plain)[TEST].differs is False
    make_copy(plain, "01-add", NEWER)
    assert at_the_start(plain)[TEST] == ComparedTest(TEST, "14-ecc0de5f", True, RESETS)


def test_a_test_that_somebody_added_to_a_step_is_not_the_courses_own(cloned: Path) -> None:
    (cloned / "exercises/01-add/tests.py").write_text("def test_it(): pass\n")
    told = at_the_start(cloned)
    assert told["exercises/01-add/tests.py"].differs is True
    assert told[TEST].differs is False


def test_a_test_in_a_repository_that_has_only_the_students_files_is_not_known(plain: Path) -> None:
    git(plain, "init", "-q")
    git(plain, "add", "exercises/01-add/app.py")
    git(plain, "commit", "-q", "-m", "mine")
    assert {told.differs for told in at_the_start(plain).values()} == {None}


# --- git: where the course lies, and how it is stored ---


def test_a_course_in_a_part_of_a_larger_repository(tmp_path: Path) -> None:
    make_course(tmp_path / "all/courses/pythön one")
    git(tmp_path / "all", "init", "-q", by=AUTHOR)
    commit(tmp_path / "all", by=AUTHOR)
    root = clone(tmp_path / "all", tmp_path / "cloned", "--no-local") / "courses/pythön one"
    assert {told.differs for told in at_the_start(root).values()} == {False}
    (root / TEST).write_text(CHANGED)
    assert at_the_start(root)[TEST].differs is True


def test_a_course_in_a_repository_that_ignores_it_is_not_known(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    git(home, "init", "-q")
    (home / ".gitignore").write_text("course\n")
    git(home, "add", "-A")
    git(home, "commit", "-q", "-m", "dotfiles")
    root = make_course(home / "course")
    assert {told.differs for told in at_the_start(root).values()} == {None}


def test_a_repository_without_a_commit_is_no_answer(plain: Path) -> None:
    git(plain, "init", "-q")
    assert at_the_start(plain)[TEST].differs is None
    with pytest.raises(NoAnswerError, match="128"):
        asked(plain)


def test_names_with_spaces_and_bytes_that_are_not_utf_8(upstream: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"exercises/03 caf\xe9 missing")
    for name in ("README.md", "test.py"):
        os.makedirs(upstream / odd, exist_ok=True)
        (upstream / odd / name).write_text(NEWER)
    commit(upstream, by=AUTHOR)
    root = clone(upstream, tmp_path / "course")
    assert at_the_start(root)[f"{odd}/test.py"].differs is False


def test_a_name_with_a_line_break_is_not_asked_for(cloned: Path) -> None:
    asked_for = asked(cloned, "exercises/a\nHEAD:./exercises/test.py", TEST)
    assert list(asked_for.found) == [TEST]


def test_line_ends_that_git_turns_are_no_change(upstream: Path, tmp_path: Path, student: Path) -> None:
    student.write_text(student.read_text() + "[core]\n\tautocrlf = true\n")
    root = clone(upstream, tmp_path / "course")
    assert b"\r\n" in (root / TEST).read_bytes()
    assert at_the_start(root)[TEST].differs is False


def test_a_shallow_clone_will_do(upstream: Path, tmp_path: Path) -> None:
    commit(upstream, by=AUTHOR)
    root = clone(upstream, tmp_path / "course", "--depth=1")
    assert at_the_start(root)[TEST].differs is False


def test_another_work_tree_will_do(cloned: Path, tmp_path: Path) -> None:
    git(cloned, "worktree", "add", "-q", str(tmp_path / "tree"))
    (tmp_path / "tree" / TEST).write_text(CHANGED)
    told = at_the_start(tmp_path / "tree")
    assert (told[TEST].differs, told[HELLO].differs) == (True, False)


def test_what_a_partial_clone_does_not_have_is_not_fetched(upstream: Path, tmp_path: Path) -> None:
    git(upstream, "config", "uploadpack.allowFilter", "true")
    (upstream / TEST).write_text(NEWER)
    commit(upstream, by=AUTHOR)
    root = clone(upstream, tmp_path / "course", "--filter=blob:none", "--no-checkout")
    make_course(tmp_path / "made")
    (tmp_path / "made" / TEST).write_text(NEWER)
    for name in ("learn.json", "exercises"):
        (tmp_path / "made" / name).rename(root / name)
    git(root, "cat-file", "-p", f"HEAD:{HELLO}")  # this one is fetched
    before = objects_of(root)
    told = at_the_start(root)
    assert (told[HELLO].differs, told[TEST].differs) == (False, None)
    assert objects_of(root) == before


def test_a_test_that_the_repository_lost_is_not_one_that_somebody_added(plain: Path) -> None:
    git(plain, "init", "-q")
    (plain / TEST).write_text(NEWER)
    commit(plain)
    lost = git(plain, "rev-parse", f"HEAD:{TEST}").strip()
    (plain / ".git/objects" / lost[:2] / lost[2:]).unlink()
    told = at_the_start(plain)
    assert (told[HELLO].differs, told[TEST].differs) == (False, None)


def objects_of(root: Path) -> set[str]:
    return {str(path) for path in (root / ".git/objects").rglob("*")}


def test_a_pointer_of_git_lfs_says_nothing(upstream: Path, tmp_path: Path) -> None:
    (upstream / TEST).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 20\n")
    commit(upstream, by=AUTHOR)
    root = clone(upstream, tmp_path / "course")
    (root / TEST).write_text(CHANGED)
    assert at_the_start(root)[TEST].differs is None


def test_a_linked_test_of_the_courses_own_is_none_that_was_changed(upstream: Path, tmp_path: Path) -> None:
    (upstream / "common").mkdir()
    (upstream / "common/test.py").write_text(NEWER)
    (upstream / TEST).unlink()
    (upstream / TEST).symlink_to("../../common/test.py")
    commit(upstream, by=AUTHOR)
    root = clone(upstream, tmp_path / "course")
    assert at_the_start(root)[TEST].differs is False
    (root / TEST).unlink()
    (root / TEST).symlink_to("/etc/hostname")
    assert at_the_start(root)[TEST].differs is True


# --- git: nothing is started, nothing is written, nothing takes long ---


def everything_in(directory: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in [directory, *directory.rglob("*")]}


def test_nothing_is_started_and_nothing_written_whatever_is_configured(
    cloned: Path, tmp_path: Path, student: Path
) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {ran}\nexit 1\n')
    program.chmod(0o755)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        (hooks / name).symlink_to(program)
    (cloned / ".git/info/attributes").write_text("* filter=mine diff=mine merge=mine\n")
    (cloned / "exercises/02-loop/app.py").write_text("print('mine')\n")
    commit(cloned)
    for where, name in (
        ("local", "core.fsmonitor"),
        ("local", "core.alternateRefsCommand"),
        ("local", "core.sshCommand"),
        ("local", "core.gitProxy"),
        ("local", "filter.mine.clean"),
        ("local", "filter.mine.smudge"),
        ("local", "filter.mine.process"),
        ("local", "diff.mine.textconv"),
        ("local", "diff.mine.command"),
        ("local", "merge.mine.driver"),
        ("global", "diff.external"),
        ("global", "core.pager"),
        ("global", "pager.rev-list"),
        ("global", "pager.config"),
        ("global", "core.editor"),
        ("global", "gpg.program"),
        ("global", "credential.helper"),
        ("global", "interactive.diffFilter"),
    ):
        git(cloned, "config", f"--{where}", name, str(program))
    git(cloned, "config", "core.hooksPath", str(hooks))
    git(cloned, "config", "--global", "log.showSignature", "true")
    git(cloned, "config", "--global", "index.threads", "true")
    ran.unlink(missing_ok=True)
    before = everything_in(cloned / ".git")
    (cloned / TEST).write_text(CHANGED)
    told = at_the_start(cloned)
    assert (told[TEST].differs, told[HELLO].differs) == (True, False)
    assert everything_in(cloned / ".git") == before
    assert not ran.exists()
    git(cloned, "status", check=False)
    assert "program" in ran.read_text() or "fsmonitor" in ran.read_text()  # the trap itself works


def test_no_lock_keeps_git_from_answering(cloned: Path) -> None:
    for name in ("index.lock", "HEAD.lock", "config.lock"):
        (cloned / ".git" / name).touch()
    assert at_the_start(cloned)[TEST].differs is False


def test_where_the_environment_points_git_somewhere_else_it_is_not_followed(
    cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert at_the_start(cloned)[TEST].differs is False
    assert not (tmp_path / "trace").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to somebody else")
def test_a_repository_that_git_refuses_is_refused(
    cloned: Path, student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for path in (cloned, cloned / ".git"):
        os.chown(path, 12345, 12345)
    assert at_the_start(cloned)[TEST].differs is None
    assert "dubious ownership" in caplog.text
    student.write_text(student.read_text() + f"[safe]\n\tdirectory = {cloned}\n")
    assert at_the_start(cloned)[TEST].differs is False


def test_without_git_installed_the_copies_are_left(
    cloned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_copy(cloned, "01-add")
    monkeypatch.setenv("PATH", str(tmp_path))
    told = at_the_start(cloned)
    assert (told[TEST].differs, told[HELLO].differs) == (False, None)


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A `git` that is not git."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000",
        "exec yes",
        "exec head -c 20000000 /dev/zero",
        "exit 1",
        "exit 0",
        "echo commit; echo nonsense",
        "kill -9 $$",
        "echo 'commit 1234'; echo 'x blob -5'; echo 'y blob 99999999999999'",
        "printf 'commit abc\\nno number'",
    ],
)
def test_a_git_that_hangs_or_babbles_is_no_answer(
    script: str, cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(git_module, "_PATIENCE_S", 0.5)
    stand_in(tmp_path, monkeypatch, script)
    assert {told.differs for told in at_the_start(cloned).values()} == {None}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_git_is_not_asked_where_the_copies_say_it_all(plain: Path) -> None:
    for slug in STEPS:
        make_copy(plain, slug)
    questions: list[list[str]] = []

    def counted(root: str, paths: list[str], fingerprint: Callable[[bytes], int]) -> Versions:
        questions.append(paths)
        raise NoAnswerError("it was asked")

    told: list[object] = []
    comparing = Originals(told.append, versions=counted)
    course = read_course(str(plain))
    comparing.compare(course)
    until(lambda: bool(told))
    assert questions == []
    (plain / TEST).write_text(CHANGED)
    comparing.file_changed(course, TEST)
    until(lambda: len(told) == 2)
    assert questions[0] == [TEST]
    comparing.stop()


def test_a_hundred_tests_are_one_observation_and_a_few_processes(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10, 110):
        make_step(upstream, f"{number}-step")
    commit(upstream, by=AUTHOR)
    root = clone(upstream, tmp_path / "course")
    calls: list[str] = []
    monkeypatch.setattr(git_module, "ask", counting(calls))
    with Watcher(root) as watcher:
        assert len(watcher.wait_for(Compared).files) == 103
        assert {file.differs for file in answers(watcher).values()} == {False}
        assert len(watcher.all(Compared)) == 1
    assert len(calls) <= 4, calls


def counting(calls: list[str]) -> Callable[..., object]:
    from agent.sensors.child import ask

    def counted(command: list[str], *arguments: object, **options: object) -> object:
        calls.append(command[5])
        return ask(command, *arguments, **options)  # type: ignore[arg-type]

    return counted


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    until(lambda: not is_comparing())


def test_the_course_is_told_before_its_tests(cloned: Path) -> None:
    path = "exercises/03-more/test.py"

    def has(course: Course) -> bool:
        return path in [test for _, test in course.test_files()]

    with Watcher(cloned) as watcher:
        wait_for(watcher, False)
        make_step(cloned, "03-more")
        wait_for(watcher, None, path)
        seen = list(watcher._seen)
    courses = [number for number, one in enumerate(seen) if isinstance(one, CourseRead) and has(one.course)]
    tests = [number for number, one in enumerate(seen) if isinstance(one, Compared) and one.files[0].path == path]
    assert courses[0] < tests[0]
