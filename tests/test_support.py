"""A support bundle: that nobody is found in it, and that there is one whatever is broken."""

from __future__ import annotations

import gzip
import io
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.checks.finding import Place
from agent.config import Config, course_state_dir
from agent.config.loading import Loaded
from agent.core.privacy import Privacy, names_of
from agent.hosting.detached import log_path
from agent.sensors.course import read_course
from agent.store.journal import NAME as JOURNAL
from agent.store.journal import Journal
from agent.store.outbox import Outbox, Parked
from agent.support import bundle as bundles
from agent.support.case import Case
from agent.support.said import log as log_of
from agent.support.scrubbing import Scrub
from tests.making import FULL, a_compile, a_test, asked, gap, ms, opened, session_start
from tests.standin.courses import PYTHON, make_course
from tests.test_cli import called

#: What must not be found, by where it is planted.
MARKERS = {
    "source": "mrkSource1",
    "output": "mrkOutput2",
    "token": "mrkToken3x9y8z7",
    "login": "mrklogin4",
    "full name": "Mrkfirst5",
    "last name": "Mrklast6",
    "session name": "Mrksession7",
    "home": "mrkhome8",
    "host": "mrkhost9",
    "e-mail": "mrkmail10",
    "question": "mrkQuestion11",
    "remote": "mrkremote12",
    "URL path": "mrkpath13",
    "URL query": "mrkquery14",
    "environment": "mrkenv15",
    "course": "mrkcourse16",
    "command": "mrkcommand17",
    "header": "mrkheader18",
    "file": "mrkfile19",
    "evidence": "mrkevidence20",
    "answer": "mrkanswer21",
    "proxy password": "mrkproxy22",
    "systemd credential": "mrkfilecontent23",
    "debug": "mrkdebug24",
    "exception": "mrkexception25",
    "domain": "mrkdomain26",
}


@pytest.fixture
def bundle(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Makes one and reads it: its members by name, and what was said to the caller."""

    def make(*arguments: object, code: int = 0) -> dict[str, bytes]:
        path = tmp_path / "out" / "bundle.tar.gz"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        got, _, err = called(capfd, "support-bundle", *arguments, "--output", path)
        assert got == code, err
        assert "Traceback" not in err
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return read(path)

    return make


def read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        members: dict[str, bytes] = {}
        for member in archive:
            assert member.isfile() and member.name.startswith("learnpack-agent-support/")
            assert (member.uid, member.gid, member.uname, member.gname, member.mode) == (0, 0, "", "", 0o600)
            stream = archive.extractfile(member)
            assert stream is not None
            members[member.name.partition("/")[2]] = stream.read()
    return members


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> tuple[Path, Path]:
    """A course and a configuration full of markers."""
    m = MARKERS
    home = tmp_path / m["home"] / m["login"]
    root = make_course(home / "work" / m["course"], PYTHON).resolve()
    entry = SimpleNamespace(
        pw_name=m["login"], pw_dir=str(home.resolve()), pw_gecos=f"{m['full name']} {m['last name']},,,", pw_uid=1
    )
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    monkeypatch.setattr(socket, "gethostname", lambda: f"{m['host']}.{m['domain']}.example")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", m["login"])
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:{m['environment']}@proxy.example:1/{m['environment']}")
    monkeypatch.setenv("LEARNPACK_AGENT_LOG_LEVEL", "info")
    monkeypatch.setenv(f"SECRET_{m['environment']}", m["environment"])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home))
    (home / "lrs").write_text(m["systemd credential"])

    learn = json.loads((root / "learn.json").read_text())
    url = f"https://127.0.0.1:9/{m['URL path']}?asset={m['URL query']}"
    (root / "learn.json").write_text(json.dumps({**learn, "telemetry": {"batch": url}}))
    session = root / ".learn" / ".session"
    session.mkdir(parents=True)
    payload = {"token": m["token"], "email": f"{m['e-mail']}@mail.example.org", "first_name": m["session name"]}
    (session / "5af0").write_text(json.dumps({"key": "bc-payload", "value": payload}))
    (root / ".learn" / f"{m['file']}.js").write_text(m["source"])
    (root / ".learn" / "telemetry.json").write_text(json.dumps({"fullname": m["full name"]}))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    remote = f"https://{m['login']}:{m['token']}@git.example.org/{m['remote']}.git"
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=root, check=True)
    (root / "exercises" / "01-hello" / "app.py").write_text(f"print('{m['source']}')\n")

    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        [send]
        proxy = "http://{m["login"]}:{m["proxy password"]}@127.0.0.1:9/{m["URL path"]}"
        ca_file = "{home}/ca.pem"
        [[sink]]
        name = "school"
        kind = "otlp"
        url = "https://127.0.0.1:9/{m["URL path"]}?key={m["URL query"]}"
        headers = {{ "X-Class" = "{m["header"]}" }}
        [[sink]]
        name = "files"
        kind = "jsonl"
        directory = "{home}/files"
        [credentials."127.0.0.1:9"]
        token = "{m["token"]}"
        [credentials."lrs.example.org"]
        credential = "lrs"
        [course."{root}"]
        idle_minutes = 7
        """
    )
    directory = course_state_dir(Config(state_dir=str(state_dir)), str(root))
    texts = {**FULL, "source_code": m["source"], "stdout": m["output"], "stderr": m["output"]}
    mine = (
        f"{home}/work: {m['full name']} at {m['host']}, {m['e-mail']}@mail.example.org, http://x.example/{m['remote']}"
    )
    with Journal.open(directory, create=True) as journal:
        journal.append(
            [
                session_start(0),
                opened("01-hello", 1),
                a_compile("01-hello", 2, 3, 1, command=("python", m["command"]), **texts),
                a_test("01-hello", 4, 5, **texts),
                asked("01-hello", 6, 7, m["question"], m["answer"]),
                _marked(gap(8, 9), reason=f"{mine} {root}/exercises was lost"),
            ],
            None,
        )
        said = {"level": "polling", "blind_to": mine}
        journal.put_fact("status", {"pid": os.getpid(), "files": said, "document": mine, "course": str(root)})
        with Outbox(directory, journal.id) as outbox:
            outbox.acknowledge("school", 3, Parked(3, ms(9), f"400: {mine}"))
            outbox.note("school", why=f"it failed: {mine}", receiver=[m["answer"]])
    log = Path(log_path(directory))
    log.write_text(
        f"2026-01-02 03:04:05,678 INFO ready: watching {root} (3 steps) of {mine}\n"
        f"2026-01-02 03:04:05,678 DEBUG Compile(source={m['debug']})\n"
        f"2026-01-02 03:04:05,678 ERROR it failed\\nTraceback (most recent call last):\\n"
        f'  File "{home}/agent/store/journal.py", line 12, in x\\n    {m["exception"]}\\nValueError: {m["exception"]}\n'
        f"ValueError: {m['exception']}\n"
    )
    return root, config


def _marked(event: Any, **more: Any) -> Any:
    from dataclasses import replace

    from agent.core.events import Evidence

    return replace(event, evidence=(Evidence(1, event.at, MARKERS["evidence"]),), **more)


def test_nobody_is_found_in_a_bundle(
    bundle: Callable[..., dict[str, bytes]], planted: tuple[Path, Path], state_dir: Path, tmp_path: Path
) -> None:
    root, config = planted
    members = bundle(root, "--state-dir", state_dir, "--config", config)
    assert set(members) == {"manifest.txt", *(name for name, _ in bundles._MEMBERS)}, members["manifest.txt"].decode()
    for name, content in members.items():
        text = content.decode()
        found = {where: marker for where, marker in MARKERS.items() if marker.lower() in (name + text).lower()}
        assert found == {}, (name, found)
        assert str(tmp_path) not in text or name == "configuration.toml"  # where the file of --config lies
    packed = (tmp_path / "out" / "bundle.tar.gz").read_bytes()
    assert packed[3] == 0  # gzip's own head names no file
    whole = gzip.decompress(packed).lower()
    assert [marker for marker in MARKERS.values() if marker.lower().encode() in whole] == []


def test_what_helps_is_in_a_bundle(
    bundle: Callable[..., dict[str, bytes]], planted: tuple[Path, Path], state_dir: Path
) -> None:
    root, config = planted
    members = bundle(root, "--state-dir", state_dir, "--config", config)
    found = {name: json.loads(content) for name, content in members.items() if name.endswith(".json")}
    manifest = members["manifest.txt"].decode()
    assert all(name in manifest for name in members if name != "manifest.txt") and "Not in it" in manifest
    assert {one["check"] for one in found["doctor.json"]["findings"]} >= {"kernel", "git", "sink school", "sink files"}
    assert found["system.json"]["packages"].keys() >= {"watchdog", "orjson"}
    assert "HTTPS_PROXY" in found["system.json"]["variables"]
    settings = members["configuration.toml"].decode()
    assert "idle_minutes = 7" in settings and "https://127.0.0.1:9" in settings and "# token = [set]" in settings
    status = found["status.json"]
    assert status["events"] == {
        "ai_interaction": 1,
        "compile": 1,
        "gap": 1,
        "open_step": 1,
        "session_start": 1,
        "test": 1,
    }
    assert "[course]/exercises was lost" in status["gaps"][0]["reason"]
    (school,) = (sink for sink in status["sinks"] if sink["name"] == "school")
    assert (school["waiting"], school["parked"][0]["count"]) == (3, 1)
    journal = found["journal.json"]["journal"]
    assert journal["quick_check"] == [["ok"]] and ["compile", 1, ms(3), ms(3)] in journal["records"]
    assert {one["path"] for one in found["files.json"]} >= {"telemetry.json", ".session", ".session/[…]", "[…].js"}
    log = members["log.txt"].decode()
    assert "ready: watching [course] (3 steps)" in log
    assert "it failed (traceback: agent/store/journal.py:12)" in log


@pytest.mark.parametrize("broken", ["no journal", "damaged", "newer", "no course", "no learn.json", "config", "outbox"])
def test_whatever_is_broken_there_is_a_bundle_that_says_so(
    bundle: Callable[..., dict[str, bytes]], tmp_path: Path, state_dir: Path, broken: str
) -> None:
    root = make_course(tmp_path / "course", PYTHON).resolve()
    directory = Path(course_state_dir(Config(state_dir=str(state_dir)), str(root)))
    if broken != "no journal":
        with Journal.open(directory, create=True) as journal:
            journal.append([session_start(0)], None)
            if broken == "newer":
                journal.connection.execute("PRAGMA user_version=99")
    arguments: list[object] = [root, "--state-dir", state_dir]
    words = "no fault"
    match broken:
        case "no journal":
            words = "there is no journal yet"
        case "damaged":
            (directory / JOURNAL).write_bytes(b"no database\n" * 100)
            words = "file is not a database"
        case "newer":
            words = "newer learnpack-agent"
        case "no course":
            arguments[0] = root / "nothing" / "there"
            words = "no such directory"
        case "no learn.json":
            (root / "learn.json").write_text("{")
            words = "learn.json"
        case "config":
            (tmp_path / "config.toml").write_text("state_dir = 5\n[oh")
            arguments += ["--config", tmp_path / "config.toml"]
            words = "# fault: "
        case "outbox":
            (directory / "delivery.sqlite3").write_bytes(b"no database\n" * 100)
            words = "file is not a database"
    members = bundle(*arguments)
    text = b"\n".join(members.values()).decode()
    assert words in text
    assert "doctor.json" in members and "system.json" in members


def test_without_a_course_the_machine_is_told_of(
    bundle: Callable[..., dict[str, bytes]], tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    members = bundle("--state-dir", state_dir)
    assert {"manifest.txt", "doctor.json", "system.json", "configuration.toml"} <= set(members)
    assert "no course was named" in members["manifest.txt"].decode()


def test_a_broken_course_is_not_taken_for_the_one_here(
    bundle: Callable[..., dict[str, bytes]], tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_course(tmp_path / "course", PYTHON))
    members = bundle(tmp_path / "nothing", "--state-dir", state_dir)
    assert "files.json" not in members
    assert {"agent", "git"}.isdisjoint(one["check"] for one in json.loads(members["doctor.json"])["findings"])


def test_a_file_that_is_there_and_a_link_are_left_alone(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, victim = tmp_path / "b.tar.gz", tmp_path / "victim"
    path.write_text("mine")
    assert called(capfd, "support-bundle", "--output", path, "--state-dir", state_dir)[0] == 1
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(victim)
    assert called(capfd, "support-bundle", "--output", path, "--state-dir", state_dir)[0] == 1
    assert not victim.exists()


def test_by_default_it_lies_here_and_is_named_by_the_time(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = called(capfd, "support-bundle", "--state-dir", state_dir)
    (path,) = tmp_path.glob("learnpack-agent-support-2*.tar.gz")
    assert code == 0 and out.startswith(f"{path.name}: look into it")


def test_a_log_at_systemd_is_read_as_lines_and_its_debug_lines_are_not(tmp_path: Path, state_dir: Path) -> None:
    root = make_course(tmp_path / "course", PYTHON).resolve()
    said: list[dict[str, Any]] = [
        {"MESSAGE": "ready: watching", "PRIORITY": "6", "__REALTIME_TIMESTAMP": "1700000000000000"},
        {"MESSAGE": "Compile(source=mine)", "PRIORITY": "7", "__REALTIME_TIMESTAMP": "1700000000000000"},
        {"MESSAGE": [1, 2], "PRIORITY": "3", "__REALTIME_TIMESTAMP": "1700000000000000"},
        {"MESSAGE": "no time"},
    ]
    printed = "".join(json.dumps(one) + "\n" for one in said) + "garbage\n"
    program = tmp_path / "journalctl"
    program.write_text(f"#!{sys.executable}\nimport sys\nassert '--output=json' in sys.argv\nprint({printed!r})\n")
    program.chmod(0o755)

    class Keeper:
        words = "a keeper"

        def instances(self) -> list[Any]:
            return [SimpleNamespace(course=str(root))]

        def log_command(self, course: str | None, *, follow: bool, lines: int) -> list[str]:
            assert (course, follow) == (str(root), False)
            return ["journalctl", f"--lines={lines}"]

    old = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}:{old}"
    try:
        config = Config(state_dir=str(state_dir))
        place = Place(config, read_course(str(root)), managers=(Keeper(),))  # type: ignore[arg-type]
        log = log_of(Case(place, Loaded(config, (), (), ())))
    finally:
        os.environ["PATH"] = old
    assert [line.partition(" 6 ")[2] for line in log.splitlines()] == ["ready: watching"]


def test_a_member_that_takes_too_long_is_left_out(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    never = threading.Event()
    monkeypatch.setattr(bundles, "PATIENCE_S", 0.3)
    hanging = (("status.json", lambda case: never.wait(60)), ("system.json", lambda case: {"well": 1}))
    monkeypatch.setattr(bundles, "_MEMBERS", hanging)
    config = Config(state_dir=str(state_dir))
    stream = io.BytesIO()
    left_out = bundles.write_bundle(stream, Case(Place(config), Loaded(config, (), (), ())))
    never.set()
    assert left_out == ["status.json: it took more than 0.3 s"]
    (tmp_path / "b").write_bytes(stream.getvalue())
    assert set(read(tmp_path / "b")) == {"manifest.txt", "system.json"}


NAMES = names_of("mgarcia", "Maria Garcia Lopez", "lab04.school.example", "/home/mgarcia")


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("/srv/courses/py/exercises/a.py", "[course]/exercises/a.py"),
        ("/srv/courses/python/x", "/srv/courses/python/x"),
        ("/home/mgarcia/x", "~/x"),
        ("mgarcia_work and MGARCIA2", "[user]_work and [user]2"),
        ("see https://u:p@host.example:8443/a/b?c=d#e.", "see https://host.example:8443"),
        ('"http://[::1]:80/x"', '"http://[::1]:80"'),
        ("learnpack-agent@srv-courses-py.service failed", "learnpack-agent@[course].service failed"),
        ("mail ana.x@school.example now", "mail [e-mail] now"),
        ("on lab04", "on [host]"),
    ],
)
def test_a_text_is_scrubbed(text: str, scrubbed: str) -> None:
    assert Scrub(Privacy(names=NAMES), {"/srv/courses/py": "[course]", "/": "[root]"}).text(text) == scrubbed


def test_a_bundle_that_fails_leaves_no_file(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundles, "_packed", fails)
    code, _, err = called(capfd, "support-bundle", "--state-dir", state_dir)
    assert (code, "No space left" in err, list(tmp_path.glob("*.gz"))) == (73, True, [])
