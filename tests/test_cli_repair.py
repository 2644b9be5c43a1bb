"""`learnpack-agent repair` as a process of its own: beside LearnPack, beside the agent, on damaged and large files."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.config import course_key
from agent.store.adoption import SINCE
from agent.store.journal import Journal
from tests.conftest import Stage
from tests.making import a_compile, a_test, assert_receivable, attempt, b64, ms, opened, session_end, session_start
from tests.standin.courses import PYTHON, make_course
from tests.standin.tab import Tab
from tests.standin.toolbox import REPOSITORY

Document = dict[str, Any]

not_for_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return make_course(tmp_path / "course", PYTHON, lasting=True)


@dataclass
class Done:
    code: int
    out: list[str]
    err: list[str]

    @property
    def aside(self) -> Path:
        """Where the last line says that the original is."""
        found = re.fullmatch(r"mended; the original is in (/.*)", self.out[-1])
        assert found is not None, self.out
        return Path(found[1])


class Repair:
    """Calls the command on one course."""

    def __init__(self, course: Path, state: Path) -> None:
        self.course = course
        self.states = state
        self.path = course / ".learn/telemetry.json"
        self.state = state / course_key(str(course))

    def command(self, *more: object, course: Path | None = None) -> list[str]:
        words = ["repair", course or self.course, "--state-dir", self.states, *more]
        return [sys.executable, "-m", "agent", *map(str, words)]

    def call(self, *more: object, course: Path | None = None, before: str = "") -> Done:
        command = ["sh", "-c", f'{before}exec "$@"', "sh", *self.command(*more, course=course)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=60)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return Done(done.returncode, done.stdout.decode().splitlines(), done.stderr.decode().splitlines())

    def write(self, content: Document | bytes) -> bytes:
        content = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode()
        self.path.write_bytes(content)
        return content

    @property
    def document(self) -> Document:
        found: Document = json.loads(self.path.read_bytes())
        return found

    def step(self, slug: str) -> Document:
        found: Document = next(step for step in self.document["steps"] if step["slug"] == slug)
        return found


@pytest.fixture
def repair(course: Path, tmp_path: Path) -> Repair:
    return Repair(course, tmp_path / "state")


def old_step(slug: str, **more: Any) -> Document:
    position = list(PYTHON).index(slug)
    lists: Document = {"compilations": [], "tests": [], "ai_interactions": []}
    testable = "test.py" in PYTHON[slug]
    return {"slug": slug, "position": position, "files": [], "is_testeable": testable, **lists, **more}


def old_document(**steps: Document) -> Document:
    """As LearnPack's CLI writes it.  Keys are slugs with underscores."""
    given = {slug.replace("_", "-").removeprefix("s"): keys for slug, keys in steps.items()}
    return {
        "telemetry_id": "lp00lp00lp00lp00",
        "slug": "a-course-of-our-own",
        "agent": "vscode",
        "tutorial_started_at": ms(0),
        "steps": [old_step(slug, **given.get(slug, {})) for slug in PYTHON],
        "workout_session": [{"started_at": ms(0)}],
        "last_interaction_at": ms(100),
        "user_id": 7,
    }


OLD = old_document(
    s01_hello={"opened_at": ms(1), "tests": [attempt(2, 3, 1), attempt(4, 5)], "compilations": [attempt(1, 2)]},
    s02_sum={"opened_at": ms(50), "compilations": [attempt(51, 52, None)]},
)


# What it does


def test_an_old_document_is_mended_line_by_line_and_the_original_is_kept(repair: Repair) -> None:
    original = repair.write(OLD)
    done = repair.call()
    assert (done.code, done.err) == (0, [])
    assert done.out[:-1] == [
        'steps[1] "01-hello": compilations[0]: starting_at → started_at',
        'steps[1] "01-hello": compilations[0]: exitCode → exit_code',
        'steps[1] "01-hello": 2 tests: starting_at → started_at',
        'steps[1] "01-hello": 2 tests: exitCode → exit_code',
        'steps[2] "02-sum": compilations[0]: starting_at → started_at',
        'steps[2] "02-sum": compilations[0]: exit_code: missing → null',
        f'steps[1] "01-hello": completed_at: missing → {ms(5)} (tests[1] passed)',
    ]
    assert done.aside.parent == repair.state
    assert done.aside.read_bytes() == original
    for path in (done.aside, repair.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(repair.state.stat().st_mode) == 0o700
    assert_receivable(repair.document)
    assert repair.step("01-hello")["completed_at"] == ms(5)
    assert {path.name for path in repair.path.parent.iterdir()} == {"_app", "telemetry.json"}


def test_a_second_time_there_is_nothing_to_mend_and_nothing_is_touched(repair: Repair) -> None:
    repair.write(OLD)
    repair.call()
    before = (repair.path.read_bytes(), repair.path.stat().st_ino, sorted(repair.state.iterdir()))
    done = repair.call()
    assert (done.code, done.out) == (0, ["nothing to mend"])
    assert (repair.path.read_bytes(), repair.path.stat().st_ino) == before[:2]
    assert [path for path in sorted(repair.state.iterdir()) if path.name != "lock"] == before[2]


def test_a_dry_run_says_the_same_and_changes_nothing(repair: Repair) -> None:
    original = repair.write(OLD)
    dry = repair.call("--dry-run")
    assert dry.code == 0
    assert dry.out[-1] == "dry run: nothing was written"
    assert repair.path.read_bytes() == original
    assert not repair.states.exists()
    assert repair.call().out[:-1] == dry.out[:-1]


def test_without_a_document_there_is_nothing_to_mend(repair: Repair) -> None:
    done = repair.call()
    assert (done.code, done.out[-1], done.err) == (0, "nothing to mend", [])
    assert not repair.path.exists()
    assert not repair.states.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 5000, b"rubbish", b"[]", b'{"steps": 5, "workout_session": {}}', b'{"odd": ' + b"[" * 90_000],
    ids=["empty", "nul", "rubbish", "list", "odd", "deep"],
)
def test_whatever_lay_there_there_is_a_document_afterwards(repair: Repair, content: bytes) -> None:
    repair.write(content)
    done = repair.call()
    assert (done.code, done.err) == (0, [])
    assert_receivable(repair.document)
    assert [step["slug"] for step in repair.document["steps"]] == list(PYTHON)
    assert repair.call().out[-1] == "nothing to mend"


def test_a_torn_document_keeps_all_that_is_complete(repair: Repair) -> None:
    whole = json.dumps(OLD, separators=(",", ":")).encode()
    torn = repair.write(whole[: whole.index(b'"starting_at":%d' % ms(51))])
    done = repair.call()
    assert done.out[0] == 'torn: it ends in the middle of steps[2] "02-sum": compilations[0]'
    assert done.aside.read_bytes() == torn
    assert [run["started_at"] for run in repair.step("01-hello")["tests"]] == [ms(2), ms(4)]
    assert repair.step("02-sum")["compilations"] == []
    assert repair.document["telemetry_id"] == "lp00lp00lp00lp00"
    assert_receivable(repair.document)


def test_a_document_cannot_write_to_the_terminal(repair: Repair) -> None:
    document = {**OLD, "steps": [*OLD["steps"], {"slug": "x\x1b]0;owned\x07\r\n", "tests": None, "fullname": 1}]}
    repair.write({**document, "fullname": "Ada Lovelace"})
    done = repair.call()
    assert done.code == 0
    text = "\n".join(done.out)
    assert "\x1b" not in text and "\x07" not in text
    assert "fullname: left out" in text and "Lovelace" not in text
    assert b"Lovelace" not in repair.path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root repairs another user's course")
def test_root_gives_the_document_back_to_its_owner(repair: Repair) -> None:
    repair.write(OLD)
    os.chown(repair.path, 1500, 1501)
    repair.call()
    assert (repair.path.stat().st_uid, repair.path.stat().st_gid) == (1500, 1501)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root repairs another user's course")
def test_root_is_told_that_a_students_journal_is_not_used(repair: Repair) -> None:
    repair.write(OLD)
    with Journal.open(repair.state, create=True):
        pass
    words = "the journal of the course's owner is not used; name it with --state-dir, or repair as that user"
    assert words not in repair.call("--dry-run").out
    os.chown(repair.course, 1500, 1500)
    assert repair.call("--dry-run").out[0] == words


# Beside LearnPack


def test_learnpack_starts_again_after_an_empty_document_was_mended(stage: Stage, course: Path, repair: Repair) -> None:
    first = stage.learnpack(course, own_telemetry=True).start()
    first.open("01-hello")
    first.spoil("truncated")
    first.die_of("open", slug="02-sum")
    assert repair.path.read_bytes() == b""
    with pytest.raises(AssertionError):
        stage.learnpack(course, own_telemetry=True).start()
    assert repair.call().code == 0
    second = stage.learnpack(course, own_telemetry=True).start()
    second.open("01-hello")
    second.stop()
    assert repair.step("01-hello")["opened_at"]
    assert len(repair.document["workout_session"]) == 2, "LearnPack began a session of its own"


@pytest.mark.parametrize("fate", ["half", "older_last"])
def test_what_learnpack_left_torn_is_mended_and_learnpack_goes_on_with_it(
    stage: Stage, course: Path, repair: Repair, fate: str
) -> None:
    first = stage.learnpack(course, own_telemetry=True).start()
    first.open("01-hello")
    first.build("01-hello")
    first.spoil(fate)
    if fate == "half":
        first.die_of("open", slug="07-free")
    else:
        first.open("02-sum")
        first.open("07-free")
        first.stop()
    with pytest.raises(ValueError):
        json.loads(repair.path.read_bytes())
    done = repair.call()
    assert done.out[0].startswith("torn: ")
    assert_receivable(repair.document)
    before = repair.step("01-hello")
    assert len(before["compilations"]) == 1
    second = stage.learnpack(course, own_telemetry=True).start()
    second.build("01-hello")
    second.stop()
    after = repair.step("01-hello")
    assert after["compilations"][0] == before["compilations"][0]
    assert len(after["compilations"]) == 2
    done = repair.call()
    assert done.out[:2] == [
        'steps[1] "01-hello": compilations[1]: starting_at → started_at',
        'steps[1] "01-hello": compilations[1]: exitCode → exit_code',
    ]


def test_while_learnpack_runs_it_refuses_and_says_what_to_do(stage: Stage, course: Path, repair: Repair) -> None:
    learnpack = stage.learnpack(course, own_telemetry=True).start()
    learnpack.open("01-hello")
    before = repair.path.read_bytes()
    for more in ((), ("--dry-run",)):
        done = repair.call(*more)
        assert (done.code, done.out, len(done.err)) == (75, [], 1)
        assert f"process {learnpack.pid}" in done.err[0]
        assert done.err[0].endswith("stop it, repair, and start it again")
    assert repair.path.read_bytes() == before
    other = make_course(course.parent / "other", PYTHON)
    assert repair.call(course=other).code == 0, "it is another course's server"
    learnpack.stop()
    assert repair.call().code == 0


STEPS = [
    {"slug": slug, "files": [{"path": f"exercises/{slug}/{name}", "name": name, "hidden": False} for name in files]}
    | {"is_testeable": "test.py" in files}
    for slug, files in PYTHON.items()
]


def test_documents_that_a_tab_of_version_5_posts_are_mended_and_the_tab_goes_on_with_them(
    stage: Stage, course: Path, repair: Repair
) -> None:
    first = stage.learnpack(course).start()
    tab = Tab(first, STEPS, user_id="4711", fullname="Ada Lovelace")
    tab.load()
    tab.open("01-hello")
    first.save("01-hello", "print('ñandú')\n")
    tab.build("01-hello")
    submission = tab.submit_quiz("03-reading", "quiz-1", right=True)
    first.stop()
    document = repair.document
    del document["last_interaction_at"]
    repair.write({**document, "tutorial_started_at": document["tutorial_started_at"] // 1000})
    done = repair.call()
    assert {line for line in done.out if "steps" not in line} == {
        "fullname: left out (personal data, which the agent never writes)",
        "tutorial_started_at: seconds → milliseconds",
        f"last_interaction_at: missing → {submission['ended_at']} (the last that is recorded)",
        done.out[-1],
    }
    assert 'steps[1] "01-hello": compilations[0]: source_code: percent-encoded → UTF-8' in done.out
    (run,) = repair.step("01-hello")["compilations"]
    assert run["source_code"] == b64("print('ñandú')\n")
    assert repair.step("03-reading")["quiz_submissions"] == [submission]
    assert_receivable(repair.document)
    assert repair.call().out == ["nothing to mend"]

    second = stage.learnpack(course).start()
    tab = Tab(second, STEPS, user_id="4711", fullname="Ada Lovelace")
    tab.load()
    tab.build("01-hello")
    second.stop()
    done = repair.call()
    assert 'steps[1] "01-hello": compilations[1]: source_code: percent-encoded → UTF-8' in done.out
    assert repair.step("01-hello")["compilations"][0] == run
    assert len(repair.step("01-hello")["compilations"]) == 2
    assert repair.step("03-reading")["quiz_submissions"] == [submission]


# Beside the agent


@pytest.fixture
def recorded(repair: Repair) -> Repair:
    """A course of which the agent recorded something; LearnPack recorded a part of it."""
    with Journal.open(repair.state, create=True) as journal:
        journal.append(
            [
                session_start(0),
                opened("01-hello", 1),
                a_compile("01-hello", 1.002, 2.001, 0),
                a_test("01-hello", 20, 21, 1),
                session_end(100),
            ],
            None,
        )
    return repair


def test_while_an_agent_runs_it_refuses_and_says_what_to_do(stage: Stage, course: Path, tmp_path: Path) -> None:
    agent = stage.agent(course).start()
    assert agent.process is not None
    done = Repair(course, agent.state).call()
    assert (done.code, done.out, len(done.err)) == (75, [], 1)
    assert f"(process {agent.process.pid})" in done.err[0]
    assert done.err[0].endswith("stop it, repair, and start it again")
    assert agent.stop() == 0
    assert Repair(course, agent.state).call().code == 0


def test_an_agent_with_another_state_directory_is_seen_too(stage: Stage, course: Path, repair: Repair) -> None:
    """Root's own state directory knows nothing of the student's agent."""
    agent = stage.agent(course, "elsewhere").start()
    assert agent.process is not None
    repair.write(OLD)
    for more in (("--dry-run",), ()):
        done = repair.call(*more)
        assert (done.code, done.out, len(done.err)) == (75, [], 1)
        assert f"(process {agent.process.pid})" in done.err[0]
    assert not repair.states.exists(), "nothing was kept aside, so nothing was changed"
    agent.kill()
    assert repair.call("--dry-run").code == 0


def test_with_a_journal_what_is_nested_too_deeply_for_it_is_no_obstacle(recorded: Repair) -> None:
    deep = {"slug": "a-course-of-our-own", "user_id": 7, "steps": [], "workout_session": []}
    recorded.write(json.dumps(deep)[:-1].encode() + b', "deep": ' + b"[" * 252 + b"]" * 252 + b"}")
    for more in (("--dry-run",), ()):
        done = recorded.call(*more)
        assert (done.code, done.err) == (0, [])
        assert any("not united with the agent's journal: it can't be kept" in line for line in done.out), done.out


def test_what_is_valid_json_is_not_called_torn(repair: Repair) -> None:
    repair.write(OLD)
    repair.call()
    mended = repair.path.read_bytes()
    with_half_an_emoji = mended.replace(b'"user_id":7', rb'"user_id":7,"title":"\ud83d"')
    assert with_half_an_emoji != mended
    repair.write(with_half_an_emoji)
    assert repair.call().out == ["nothing to mend"]
    assert repair.path.read_bytes() == with_half_an_emoji
    repair.write(mended.replace(b'"user_id":7', b'"user_id":7,"title":"caf\xe9"'))
    assert repair.call("--dry-run").out == ["bytes that are no UTF-8, now U+FFFD", "dry run: nothing was written"]
    repair.call()
    assert repair.document["title"] == "caf\ufffd"


def test_with_a_journal_the_union_is_written(recorded: Repair) -> None:
    recorded.write(OLD)
    done = recorded.call()
    assert 'steps[1] "01-hello": tests: 1 more (from the agent\'s journal)' in done.out
    hello = recorded.step("01-hello")
    assert [run["started_at"] for run in hello["tests"]] == [ms(2), ms(4), ms(20)]
    assert len(hello["compilations"]) == 1, "the same run once"
    assert hello["compilations"][0]["event_id"]
    assert hello["completed_at"] == ms(5)
    assert_receivable(recorded.document)
    assert recorded.call().out == ["nothing to mend"]


def test_an_agent_that_starts_afterwards_finds_nothing_to_do(stage: Stage, course: Path) -> None:
    agent = stage.agent(course)
    repair = Repair(course, agent.state)
    with Journal.open(repair.state, create=True) as journal:
        journal.append([opened("01-hello", 1), a_test("01-hello", 20, 21, 1)], None)
        journal.put_fact(SINCE, ms(1000))
    repair.write(OLD)
    repair.call()
    before = repair.document
    agent.start()
    assert agent.stop() == 0
    after = repair.document
    for document in (before, after):
        del document["workout_session"], document["last_interaction_at"]
    assert after == before


def test_a_dry_run_with_a_journal_says_the_same_and_leaves_the_journal_alone(recorded: Repair) -> None:
    original = recorded.write(OLD)
    before = {path.name: path.read_bytes() for path in recorded.state.iterdir()}
    dry = recorded.call("--dry-run")
    assert dry.out[-1] == "dry run: nothing was written"
    assert recorded.path.read_bytes() == original
    after = {path.name: path.read_bytes() for path in recorded.state.iterdir()}
    assert after["journal.sqlite3"] == before["journal.sqlite3"]
    assert {name for name in after if not name.startswith("journal")} == set()
    assert recorded.call().out[:-1] == dry.out[:-1]


@pytest.mark.parametrize("content", [b"", b'{"telemetry_id":"lp00lp00lp00lp00","steps":[{"slug":"01-hello","tests"'])
def test_nothing_is_made_up_that_the_journal_knows_better(recorded: Repair, content: bytes) -> None:
    recorded.write(content)
    recorded.call()
    document = recorded.document
    assert document["tutorial_started_at"] == ms(0)
    assert document["last_interaction_at"] == ms(21)
    assert document["workout_session"] == [{"started_at": ms(0), "ended_at": ms(100)}]
    assert len(recorded.step("01-hello")["tests"]) == 1
    assert recorded.call().out[-1] == "nothing to mend"


def test_a_damaged_journal_is_no_obstacle(recorded: Repair) -> None:
    (recorded.state / "journal.sqlite3").write_bytes(b"broken" * 1000)
    recorded.write(OLD)
    for more in (("--dry-run",), ()):
        done = recorded.call(*more)
        assert done.code == 0
        assert any("it is not united with the agent's journal" in line for line in done.out)
    assert_receivable(recorded.document)
    assert (recorded.state / "journal.sqlite3").read_bytes() == b"broken" * 1000


def test_another_students_document_is_mended_and_not_united(recorded: Repair) -> None:
    recorded.write(OLD)
    recorded.call()
    recorded.write({**OLD, "telemetry_id": "another0another0", "user_id": 8})
    done = recorded.call()
    assert any("it belongs to another student (user_id '8')" in line for line in done.out)
    assert (recorded.document["telemetry_id"], recorded.document["user_id"]) == ("another0another0", 8)
    assert len(recorded.step("01-hello")["tests"]) == 2


# What it refuses


def test_the_document_of_another_course_is_left_as_it_is(repair: Repair) -> None:
    original = repair.write({**OLD, "slug": "other", "steps": [{"slug": "01-else"}]})
    done = repair.call()
    assert (done.code, done.out, len(done.err)) == (1, [], 1)
    assert "it belongs to the course 'other'" in done.err[0]
    assert repair.path.read_bytes() == original


def test_a_directory_that_is_no_course_is_one_line(repair: Repair, tmp_path: Path) -> None:
    done = repair.call(course=tmp_path)
    assert (done.code, done.out, len(done.err)) == (78, [], 1)


@pytest.mark.parametrize("place", [".learn", ".learn/telemetry.json"])
def test_a_symbolic_link_is_refused_and_never_written_through(repair: Repair, tmp_path: Path, place: str) -> None:
    precious = tmp_path / "precious"
    (precious / "telemetry.json").parent.mkdir()
    (precious / "telemetry.json").write_text("{}")
    link = repair.course / place
    if place == ".learn":
        link.rename(tmp_path / "gone")
        link.symlink_to(precious)
    else:
        link.symlink_to(precious / "telemetry.json")
    done = repair.call()
    assert (done.code, done.out, len(done.err)) == (73, [], 1)
    assert "symbolic link" in done.err[0]
    assert (precious / "telemetry.json").read_text() == "{}"
    assert [path.name for path in precious.iterdir()] == ["telemetry.json"]


@not_for_root
def test_a_document_that_may_not_be_read_is_one_line(repair: Repair) -> None:
    repair.write(OLD)
    repair.path.chmod(0)
    done = repair.call()
    assert (done.code, done.out, len(done.err)) == (77, [], 1)


@not_for_root
def test_a_course_that_may_not_be_written_keeps_its_document(repair: Repair) -> None:
    original = repair.write(OLD)
    repair.path.parent.chmod(0o500)
    try:
        done = repair.call()
    finally:
        repair.path.parent.chmod(0o700)
    assert (done.code, done.out, len(done.err)) == (77, [], 1)
    assert repair.path.read_bytes() == original


def test_where_the_original_can_not_be_kept_nothing_is_changed(repair: Repair) -> None:
    original = repair.write(OLD)
    repair.states.write_text("a file")
    done = repair.call()
    assert (done.code, done.out, len(done.err)) == (73, [], 1)
    assert "the original can't be kept, nothing is changed" in done.err[0]
    assert repair.path.read_bytes() == original


def test_on_a_disk_that_takes_no_more_the_document_stays(repair: Repair) -> None:
    """The copy has room, the mended document has not."""
    tests = [attempt(n, n + 1, 1, stdout=b64("x" * 900)) for n in range(100)]
    original = repair.write(old_document(s01_hello={"opened_at": ms(0), "tests": tests}))
    blocks = len(original) // 512 + 2
    done = repair.call(before=f"ulimit -f {blocks}; ")
    assert (done.code, done.out, len(done.err)) == (73, [], 1)
    assert "File too large" in done.err[0]
    assert repair.path.read_bytes() == original
    assert {path.name for path in repair.path.parent.iterdir()} == {"_app", "telemetry.json"}
    assert repair.call().code == 0
    assert len(repair.step("01-hello")["tests"]) == 100


# Size


def large(megabytes: int) -> bytes:
    """A document of many steps and runs, 14 KB each."""
    runs = [attempt(n, n + 1, n % 3, stdout=b64("x" * 8_000), source_code=b64("y" * 2_000)) for n in range(80 * 50)]
    wanted = megabytes * 78 // 4
    steps = {f"s{slug.replace('-', '_')}": {"tests": runs[:wanted]} for slug in list(PYTHON)[1:5]}
    return json.dumps(old_document(**steps), separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def fifty_megabytes() -> bytes:
    return large(50)


@pytest.mark.parametrize("torn, journal", [(False, True), (True, False)])
def test_fifty_megabytes_are_mended_in_seconds(
    repair: Repair, fifty_megabytes: bytes, torn: bool, journal: bool
) -> None:
    content = fifty_megabytes
    assert 45 << 20 < len(content) < 60 << 20
    if journal:
        with Journal.open(repair.state, create=True) as made:
            made.append([a_test("01-hello", 5000.5, 5001, 1)], None)
    repair.write(content[:-3_000] if torn else content)
    with subprocess.Popen(
        repair.command(), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (0, b"")
    seconds = usage.ru_utime + usage.ru_stime
    megabytes = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    print(f"{len(content) >> 20} MiB, torn {torn}, journal {journal}: {seconds:.1f} s of CPU, {megabytes:.0f} MB")
    assert seconds < 45  # on a machine that does nothing else: 2 to 6
    assert megabytes < 600
    assert sum(len(step["tests"]) for step in repair.document["steps"]) > 3_800
