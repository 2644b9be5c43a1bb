"""Files of JSON lines that others take: whole or not at all, in a directory where anything may lie."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from agent.core.bodies import Body, Sendable, Whose
from agent.core.delivery import Outcome
from agent.sinks.jsonl import Files
from tests.store.test_journal import files_no_larger_than

ADA = Whose("tele", 7, "my course/../x")


def sendable(number: int, text: str = "", journal: str = "journal") -> Sendable:
    return Sendable(number, f"{journal}-{number}", {"number": number, "event": "compile", "text": text})


def files(directory: Path, mode: int = 0o600) -> Files:
    return Files(str(directory), mode)


def body(*numbers: int, text: str = "", whose: Whose = ADA, journal: str = "journal") -> Body:
    return Files("/nowhere", 0o600).body([sendable(number, text, journal) for number in numbers], whose)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def rows(directory: Path) -> list[int]:
    return [
        json.loads(line)["number"]
        for path in sorted(directory.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


@pytest.fixture
def share(tmp_path: Path) -> Path:
    share = tmp_path / "share"
    share.mkdir()
    return share


def test_a_file_holds_a_line_for_each_record_with_its_course_and_student(share: Path) -> None:
    offered = body(3, 5)
    sent = files(share).send(offered, 5)
    assert (sent.outcome, sent.words, offered.count) == (Outcome.DELIVERED, "written", 2)
    (path,) = share.iterdir()
    assert path.name == "my_course____x.tele.journal-3.00000003-00000005.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"course": "my course/../x", "telemetry_id": "tele", "user_id": 7, "number": n, "event": "compile", "text": ""}
        for n in (3, 5)
    ]
    assert path.read_bytes() == offered.content


def test_the_same_records_again_are_the_same_file(share: Path) -> None:
    sink = files(share)
    for _ in range(3):
        assert sink.send(body(1, 2), 5).outcome is Outcome.DELIVERED
    assert len(names(share)) == 1
    sink.send(body(1, 2, 3), 5)
    assert len(names(share)) == 2


@pytest.mark.parametrize("other", [{"journal": "another"}, {"whose": Whose("other", 7, "my course/../x")}])
def test_another_students_or_journals_records_never_replace_them(share: Path, other: dict[str, str]) -> None:
    """A telemetry.json that came with the course names the same telemetry_id on every machine."""
    sink = files(share)
    sink.send(body(1, 2), 5)
    sink.send(body(1, 2, **other), 5)  # type: ignore[arg-type]
    assert rows(share) == [1, 2, 1, 2]


def test_a_reader_never_sees_a_part(share: Path) -> None:
    sink, stop, seen = files(share), threading.Event(), set()
    faults: list[str] = []

    def take() -> None:
        while not stop.is_set():
            for path in share.glob("*.jsonl"):
                lines = path.read_bytes()
                seen.add(path.name)
                if not lines.endswith(b"\n") or lines.count(b"\n") != 200:
                    faults.append(path.name)
                path.unlink()

    reader = threading.Thread(target=take)
    reader.start()
    for start in range(1, 6_000, 200):
        assert sink.send(body(*range(start, start + 200), text="x" * 500), 5).outcome is Outcome.DELIVERED
    stop.set()
    reader.join()
    assert not faults
    assert len(seen) > 1


def test_a_directory_that_is_not_there_is_waited_for_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "mount" / "share"
    sent = files(missing).send(body(1), 5)
    assert sent.outcome is Outcome.WAIT
    assert sent.words == f"{missing}: No such file or directory"
    assert names(tmp_path) == []
    missing.mkdir(parents=True)
    assert files(missing).send(body(1), 5).outcome is Outcome.DELIVERED


def test_a_file_in_the_directorys_place_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files(tmp_path / "file").send(body(1), 5).outcome is Outcome.WAIT


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_waited_for(share: Path) -> None:
    share.chmod(0o500)
    assert files(share).send(body(1), 5).outcome is Outcome.WAIT


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EROFS, Outcome.WAIT),
        (errno.EACCES, Outcome.WAIT),
        (errno.ENOSPC, Outcome.RETRY),
        (errno.EDQUOT, Outcome.RETRY),
        (errno.ESTALE, Outcome.RETRY),
        (errno.EIO, Outcome.RETRY),
    ],
)
def test_what_a_share_says_is_tried_again_or_waits_for_somebody(
    share: Path, monkeypatch: pytest.MonkeyPatch, number: int, outcome: Outcome
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    sent = files(share).send(body(1), 5)
    assert (sent.outcome, sent.words) == (outcome, f"{share}: {os.strerror(number)}")
    assert list(share.glob("*.jsonl")) == []


def test_a_full_disk_leaves_nothing_and_is_tried_again(share: Path) -> None:
    with files_no_larger_than(10_000):
        assert files(share).send(body(1, text="x" * 50_000), 5).outcome is Outcome.RETRY
    assert names(share) == []
    assert files(share).send(body(1, text="x" * 50_000), 5).outcome is Outcome.DELIVERED


def part_of(offered: Body) -> str:
    return f".{offered.name.rsplit('.', 2)[0]}.part"


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "file", "dangling"])
@pytest.mark.timeout(20)
def test_what_somebody_laid_at_the_temporary_name_is_not_written_to(share: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    offered = body(1, 2)
    trap = share / part_of(offered)
    match kind:
        case "symlink":
            trap.symlink_to(victim)
        case "dangling":
            trap.symlink_to(tmp_path / "made")
        case "hardlink":
            os.link(victim, trap)
        case "fifo":
            os.mkfifo(trap)
        case _:
            trap.write_text("of a killed agent")
            trap.chmod(0o666)
    assert files(share).send(offered, 5).outcome is Outcome.DELIVERED
    assert victim.read_text() == "precious"
    assert not (tmp_path / "made").exists()
    (path,) = share.iterdir()
    assert path.name == offered.name and path.is_file() and not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_directory_at_the_temporary_name_is_said_and_nothing_is_lost(share: Path) -> None:
    offered = body(1)
    (share / part_of(offered)).mkdir()
    assert files(share).send(offered, 5).outcome is not Outcome.DELIVERED
    assert list(share.glob("*.jsonl")) == []


def test_what_a_killed_agent_left_is_cleared_by_the_next_try_also_with_more_records(share: Path) -> None:
    (share / part_of(body(1, 2))).write_text("half a li")
    files(share).send(body(1, 2, 3, 4), 5)
    assert names(share) == [body(1, 2, 3, 4).name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_is_the_configurations_whatever_the_umask(share: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        files(share, mode).send(body(1), 5)
    finally:
        os.umask(before)
    (path,) = share.iterdir()
    assert path.stat().st_mode & 0o777 == mode


def test_a_name_stays_short_and_in_its_directory(share: Path) -> None:
    odd = Whose("../" + "t" * 300, "../../x", "/" + "ü" * 300 + "\0\n")
    offered = body(1, 2, whose=odd, journal="j" * 300)
    assert len(part_of(offered)) <= 255 and "/" not in offered.name and "\0" not in offered.name
    assert files(share).send(offered, 5).outcome is Outcome.DELIVERED
    assert names(share) == [offered.name]
