"""Which courses there are below some directories, and what has to change; with directories as students make them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from agent import discovery
from agent.discovery import DEPTH, Difference, Found, Skipped, difference, find_courses, is_below, was_deleted
from agent.hosting.manager import Instance
from agent.sensors.picture import SKIPPED_DIRECTORIES


def make(root: Path, *courses: str) -> None:
    for course in courses:
        (root / course).mkdir(parents=True, exist_ok=True)
        (root / course / "learn.json").write_text("{}")


def found(*roots: Path) -> list[str]:
    """The courses below these directories, relative to the first; nothing may be left out."""
    return [os.path.relpath(one.path, roots[0]) for one in courses(roots)]


def courses(roots: Iterable[Path]) -> list[Found]:
    everything = list(find_courses(map(str, roots)))
    assert all(isinstance(one, Found) for one in everything), everything
    return [one for one in everything if isinstance(one, Found)]


# --- finding ---


def test_every_course_of_every_home_is_found_once_in_the_order_of_paths(tmp_path: Path) -> None:
    make(tmp_path, "bob/z", "ada/python/2-loops", "ada/a b", "ada/ünï", "eve")
    assert found(tmp_path) == ["ada/a b", "ada/python/2-loops", "ada/ünï", "bob/z", "eve"]
    assert found(tmp_path, tmp_path / "ada", tmp_path) == found(tmp_path)


@pytest.mark.parametrize("mark", ["learn.json", "bc.json", ".learn/learn.json"])
def test_a_course_is_what_learnpack_takes_for_one(tmp_path: Path, mark: str) -> None:
    (tmp_path / "ada" / "c" / ".learn").mkdir(parents=True)
    assert found(tmp_path) == []
    (tmp_path / "ada" / "c" / mark).write_text("{}")
    assert found(tmp_path) == ["ada/c"]


def test_a_directory_that_is_named_may_be_a_course_itself_or_lead_to_one(tmp_path: Path) -> None:
    make(tmp_path, "ada/c")
    assert [one.path for one in courses([tmp_path / "ada" / "c"])] == [str(tmp_path / "ada" / "c")]
    (tmp_path / "homes").symlink_to("ada")
    assert [one.path for one in courses([tmp_path / "homes"])] == [str(tmp_path / "ada" / "c")]


def test_no_link_is_followed_and_nothing_but_a_file_makes_a_course(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/c")
    home = tmp_path / "homes" / "eve"
    home.mkdir(parents=True)
    (home / "link").symlink_to(tmp_path / "elsewhere")
    (home / "loop").symlink_to(home)
    for name, kind in (("a", "link"), ("b", "directory"), ("c", "pipe")):
        (home / name).mkdir()
        mark = home / name / "learn.json"
        if kind == "link":
            mark.symlink_to(tmp_path / "elsewhere" / "c" / "learn.json")
        elif kind == "directory":
            mark.mkdir()
        else:
            os.mkfifo(mark)
    assert found(tmp_path / "homes") == []


@pytest.mark.parametrize("name", [".hidden", *sorted(SKIPPED_DIRECTORIES)])
def test_what_is_hidden_or_generated_is_not_looked_at(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"ada/{name}/c", f"{name}/c")
    assert found(tmp_path) == []


def test_a_virtual_environment_is_not_looked_at(tmp_path: Path) -> None:
    make(tmp_path, "ada/venv/lib/c")
    assert found(tmp_path) == ["ada/venv/lib/c"]
    (tmp_path / "ada" / "venv" / "pyvenv.cfg").symlink_to("nowhere")
    assert found(tmp_path) == []


def test_nothing_in_a_course_is_a_course(tmp_path: Path) -> None:
    make(tmp_path, "ada/c", "ada/c/exercises/01-a", "ada/c/copy")
    assert found(tmp_path) == ["ada/c"]


def test_what_lies_too_deep_is_not_found(tmp_path: Path) -> None:
    deepest = "/".join("abcdef"[:DEPTH])
    make(tmp_path, deepest)
    assert found(tmp_path) == [deepest]
    make(tmp_path, f"x/{deepest}")
    assert found(tmp_path) == [deepest]


@pytest.mark.parametrize("shape", ["wide", "deep"])
def test_one_home_of_endless_directories_is_said_and_does_no_harm_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setattr(discovery, "DIRECTORIES", 20)
    make(tmp_path, "ada/c", "zoe/c")
    for number in range(30):
        (tmp_path / "eve" / (f"{number}" if shape == "wide" else f"{number // 6}/{number % 6}")).mkdir(parents=True)
    for number in range(18):
        (tmp_path / "bob" / f"{number}").mkdir(parents=True)
    make(tmp_path, "bob/z")
    *others, last = find_courses([str(tmp_path)])
    paths = [(type(one), one.path) for one in (*others, last)]
    assert paths == [
        (Found, f"{tmp_path}/ada/c"),
        (Found, f"{tmp_path}/bob/z"),
        (Skipped, f"{tmp_path}/eve"),
        (Found, f"{tmp_path}/zoe/c"),
    ]
    assert [one.why for one in others if isinstance(one, Skipped)] == [
        "20 directories or more: the rest was not looked at"
    ]


def test_of_a_directory_with_very_many_in_it_no_more_are_read_than_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        (tmp_path / "eve" / f"{number}").mkdir(parents=True)
    looked: list[str] = []
    may_hold = discovery._may_hold

    def counted(entry: os.DirEntry[str]) -> bool:
        looked.append(entry.path)
        return may_hold(entry)

    monkeypatch.setattr(discovery, "_may_hold", counted)
    monkeypatch.setattr(discovery, "DIRECTORIES", 20)
    assert [type(one) for one in find_courses([str(tmp_path)])] == [Skipped]
    assert len(looked) <= 1 + 20


def test_a_root_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    make(tmp_path, "ada/c")
    (tmp_path / "file").write_text("")
    assert list(find_courses([f"{tmp_path}/nowhere", f"{tmp_path}/file", str(tmp_path)])) == [
        Skipped(f"{tmp_path}/nowhere", "no such directory"),
        Skipped(f"{tmp_path}/file", "no such directory"),
        Found(f"{tmp_path}/ada/c", os.geteuid()),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_the_owner_is_the_directorys_not_that_of_what_lies_in_it(tmp_path: Path) -> None:
    make(tmp_path, "ada/c", "bob/c")
    os.chown(tmp_path / "ada/c", 1500, -1)
    os.chown(tmp_path / "bob/c/learn.json", 1500, -1)
    assert [one.uid for one in courses([tmp_path])] == [1500, 0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_can_not_be_read_is_nobodys_course_for_us(tmp_path: Path) -> None:
    make(tmp_path, "ada/c", "bob/deeper/c", "eve/c")
    (tmp_path / "ada").chmod(0)
    (tmp_path / "bob/deeper").chmod(0o100)
    try:
        assert found(tmp_path) == ["eve/c"]
        tmp_path.chmod(0o100)
        (only,) = find_courses([str(tmp_path)])
        assert only == Skipped(str(tmp_path), "Permission denied")
    finally:
        for path in (tmp_path, tmp_path / "ada", tmp_path / "bob/deeper"):
            path.chmod(0o700)


def test_names_that_are_not_utf_8_are_names(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"ada/n\xff\n"))
    assert found(tmp_path) == [os.fsdecode(b"ada/n\xff\n")]


# --- the difference ---

ADA, BOB, ROOT = 1000, 1001, 0


def a_course(path: str, uid: int = ADA) -> Found:
    return Found(path, uid)


def an_agent(course: str, uid: int = ADA, **more: Any) -> Instance:
    return Instance(course, f"unit of {course}", uid, "running", **more)


def changed(
    there: Iterable[Found | Skipped], agents: Iterable[Instance], *, per_user: int = 9, users: set[int] | None = None
) -> Difference:
    return difference(there, list(agents), ["/home", "/srv/x"], per_user=per_user, users=users)


def told(change: Difference) -> list[str]:
    lines = [f"new {one.path} {one.uid}" for one in change.new]
    lines += [f"gone {one.course}" for one in change.gone]
    lines += [f"moved {one.path} {one.uid}" for one in change.moved]
    return [*lines, *(f"skipped {one.path}: {one.why}" for one in change.skipped)]


A, B, C = "/home/a/c", "/home/b/c", "/home/b/d"


@pytest.mark.parametrize(
    ("there", "agents", "lines"),
    [
        ([], [], []),
        ([a_course(A)], [an_agent(A)], []),
        ([a_course(A)], [], [f"new {A} 1000"]),
        ([], [an_agent(A)], [f"gone {A}"]),
        ([], [an_agent("/home")], ["gone /home"]),
        ([], [an_agent("/srv/x/y")], ["gone /srv/x/y"]),
        # outside of where is looked nothing is known
        ([], [an_agent("/opt/c"), an_agent("/home2/c"), an_agent("/srv/c"), an_agent("/srv/xy/c")], []),
        # another user's now
        ([a_course(A, BOB)], [an_agent(A)], [f"moved {A} 1001"]),
        ([a_course(A, BOB)], [an_agent(A, is_chosen=True)], []),
        ([a_course(A, ROOT)], [an_agent(A)], []),
        ([], [an_agent(A, is_chosen=True)], [f"gone {A}"]),
        # root's is nobody's
        ([a_course(A, ROOT)], [], [f"skipped {A}: it is root's, and no student's: `install --user NAME` names one"]),
        ([a_course(A, ROOT)], [an_agent(A, BOB, is_chosen=True)], []),
        # what could not be looked at is said
        ([Skipped("/home/e", "too much")], [], ["skipped /home/e: too much"]),
    ],
)
def test_what_is_there_and_what_is_installed_make_the_difference(
    there: list[Found | Skipped], agents: list[Instance], lines: list[str]
) -> None:
    assert told(changed(there, agents)) == lines


def test_a_user_has_so_many_agents_and_the_rest_is_said() -> None:
    there = [a_course(f"/home/a/{number}") for number in range(4)]
    change = changed([*there, a_course(B, BOB)], [an_agent("/home/a/3"), an_agent("/home/a/gone")], per_user=2)
    assert told(change) == [
        "new /home/a/0 1000",
        f"new {B} 1001",
        "gone /home/a/gone",
        *(f"skipped /home/a/{number}: its user has 2 agents already (discover_per_user)" for number in (1, 2)),
    ]


def test_what_has_an_agent_keeps_it_however_many_there_may_be() -> None:
    there = [a_course(f"/home/a/{number}") for number in range(4)]
    assert told(changed(there, [an_agent(one.path) for one in there], per_user=2)) == []


def test_a_student_has_agents_for_the_own_courses_only() -> None:
    change = changed([a_course(A), a_course(B, BOB), a_course(C, ROOT)], [], users={ADA})
    assert told(change) == [
        f"new {A} 1000",
        f"skipped {B}: it is another user's",
        f"skipped {C}: it is another user's",
    ]
    assert told(changed([a_course(A, ROOT)], [], users={ROOT})) == [f"new {A} 0"]


def test_below_is_a_matter_of_directories_and_not_of_letters(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    assert is_below(f"{tmp_path}/real/c", [f"{tmp_path}/link"])
    assert is_below("/home", ["/home/"])
    assert is_below("/x", ["/"])
    assert not is_below("/homes/c", ["/home"])
    assert not is_below("/home", [])


def test_a_course_was_deleted_where_its_home_is_there_without_it(tmp_path: Path) -> None:
    roots = [str(tmp_path)]
    deep = "ada/" + "/".join("abcdefgh")
    make(tmp_path, deep)
    (tmp_path / "bob").mkdir()
    assert not was_deleted(f"{tmp_path}/{deep}", roots), "it was not found, but it is there"
    assert was_deleted(f"{tmp_path}/ada/gone", roots)
    assert was_deleted(f"{tmp_path}/gone", roots)
    assert not was_deleted(f"{tmp_path}/bob/gone", roots), "an empty home is one that may not be mounted"
    assert not was_deleted(f"{tmp_path}/eve/gone", roots), "and so is one that is missing"
    (tmp_path / "empty").mkdir()
    assert not was_deleted(f"{tmp_path}/empty/gone", [f"{tmp_path}/empty"]), "nor is the root"
