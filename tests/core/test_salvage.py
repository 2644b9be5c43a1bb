"""What is left of a torn document: all of it that is complete, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.learnpack_forms import LISTS
from agent.core.salvage import salvage
from tests.making import attempt, b64, learnpack_document, learnpack_step, ms

Path = tuple[str, ...]

AI = {"student_message": 'why "so"?\n\\ud800 ñ 🐍', "ai_response": "{[,]}", "starting_at": ms(5), "ending_at": ms(6)}
#: Small, so that every byte can be tried; with everything that a document has.
DOCUMENT = learnpack_document(
    learnpack_step("00-welcome", opened_at=ms(1), completed_at=ms(2)),
    learnpack_step(
        "01-hello",
        compilations=[attempt(2, 3), attempt(4, 5, None, memoryUsage=1.5e3)],
        tests=[attempt(6, 7, 1, source_code=b64("print('ñ')")), attempt(8, 9)],
        ai_interactions=[AI],
        quiz_submissions=[{"status": "ERROR", "selections": ["a", None, True]}],
    ),
    learnpack_step("02-loop", tests=[attempt(12, 13)], opened_at=ms(11)),
    user_id=7,
    last_interaction_at=ms(13),
    workout_session=[{"started_at": ms(0), "ended_at": ms(9)}, {"started_at": ms(10)}],
)


class Writer:
    """Writes a document and notes where each value ends that is kept or lost as a whole.

    A number or a word that touches the end of the file may go on behind it, so its end is one byte later.
    """

    def __init__(self, document: Any, space: str = "") -> None:
        self.data = b""
        self.ends: dict[Path, int] = {}
        self.space = space.encode()
        self.line = b"\n" if space else b""
        self._object(document, self._of_the_document)

    def _put(self, text: bytes) -> None:
        self.data += text

    def _value(self, path: Path, value: Any) -> None:
        self._put(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        self.ends[path] = len(self.data) + (not isinstance(value, (str, list, dict)))

    def _object(self, value: Any, write: Callable[[str, Any], None]) -> None:
        self._put(b"{")
        for index, key in enumerate(value):
            self._put((b"," if index else b"") + self.line + b'"%s"' % key.encode() + self.space + b":" + self.space)
            write(key, value[key])
        self._put(self.line + b"}")

    def _list(self, value: Any, write: Callable[[int, Any], None]) -> None:
        self._put(b"[")
        for index, each in enumerate(value):
            self._put((b"," if index else b"") + self.line)
            write(index, each)
        self._put(self.space + b"]")

    def _of_the_document(self, key: str, value: Any) -> None:
        if key == "steps":
            self._list(value, lambda _, step: self._object(step, lambda name, one: self._of_a_step(step, name, one)))
        elif key == "workout_session":
            self._list(
                value,
                lambda index, session: self._object(
                    session, lambda name, one: self._value(("session", str(index), name), one)
                ),
            )
        else:
            self._value((key,), value)

    def _of_a_step(self, step: Any, name: str, value: Any) -> None:
        path = ("step", step["slug"], name)
        if name in LISTS:
            self._list(value, lambda _, each: self._value((*path, json.dumps(each)), each))
        else:
            self._value(path, value)


def compact(document: Any) -> bytes:
    """As JSON.stringify writes it."""
    return Writer(document).data


def got(data: bytes) -> Any:
    """What is salvaged, parsed by a parser that forgives nothing; None where nothing was."""
    text = salvage(data).text
    return json.loads(text.decode()) if text else None


def values(document: Any) -> dict[Path, Any]:
    """Everything that is kept or lost as a whole, by where it is; elements of lists by what they say."""
    found: dict[Path, Any] = {}
    for key, value in (document or {}).items():
        if key == "steps":
            for step in value:
                for name, inner in step.items():
                    if name in LISTS:
                        found.update({("step", step.get("slug", "?"), name, json.dumps(each)): each for each in inner})
                    else:
                        found["step", step.get("slug", "?"), name] = inner
        elif key == "workout_session":
            for index, session in enumerate(value):
                found.update({("session", str(index), name): inner for name, inner in session.items()})
        else:
            found[key,] = value
    return found


# A cut


@pytest.mark.parametrize(("space", "stride"), [("", 1), ("  ", 3)], ids=["compact", "spaced"])
def test_cut_at_any_byte_everything_complete_is_there_and_nothing_else(space: str, stride: int) -> None:
    written = Writer(DOCUMENT, space)
    data, everything = written.data, values(DOCUMENT)
    assert json.loads(data) == DOCUMENT
    assert written.ends.keys() == everything.keys()
    for cut in range(0, len(data), stride):
        found = values(got(data[:cut]))
        assert all(found[path] == everything[path] for path in found), cut
        assert [path for path, end in written.ends.items() if end <= cut and path not in found] == [], cut
    assert salvage(data) == salvage(data + b" \n")
    assert got(data) == DOCUMENT


def test_a_step_without_anything_is_not_there() -> None:
    data = compact(DOCUMENT)
    at = data.index(b'{"slug":"02-loop"')
    assert [step["slug"] for step in got(data[: at + 5])["steps"]] == ["00-welcome", "01-hello"]
    assert salvage(data[: at + 5]).losses == ("it ends in the middle of steps[2]",)


def test_what_is_lost_is_told_where() -> None:
    data = compact(DOCUMENT)
    at = data.index(b'"exitCode":1')
    assert salvage(data[:at]).losses == ('it ends in the middle of steps[1] "01-hello": tests[0]',)
    assert salvage(data[: data.index(b'"last_inter') + 3]).losses == (
        "it ends in the middle of what follows workout_session",
    )
    assert salvage(data[: data.index(b'"ended_at":%d' % ms(9), at)]).losses == (
        'it ends in the middle of steps[1] "01-hello": tests[1]',
    )
    session = data.index(b'"workout_session"')
    assert salvage(data[: session + 40]).losses == ("it ends in the middle of workout_session[0]",)


@given(st.integers(0, 2**31), st.integers(1, 64))
@settings(max_examples=40, deadline=None, database=None)
def test_a_cut_of_any_document_loses_only_what_is_behind_it(seed: int, parts: int) -> None:
    steps = [
        learnpack_step(f"{n:02d}-x", tests=[attempt(n * 10 + k, n * 10 + k + 1) for k in range((seed >> n) & 3)])
        for n in range(3, 7)
    ]
    data = compact(learnpack_document(*steps))
    cut = len(data) * parts // 64
    found, everything = values(got(data[:cut])), values(json.loads(data))
    assert all(found[path] == everything[path] for path in found)


# Two writings that overlap

#: LearnPack's next writing: a run more, in a step in the middle.
LATER = json.loads(json.dumps(DOCUMENT))
LATER["steps"][1]["tests"].append(attempt(20, 21, 3, stdout=b64("another text that was printed")))
LATER["last_interaction_at"] = ms(21)
#: And one in which something is gone: the student logged out.
SHORTER = {key: value for key, value in DOCUMENT.items() if key != "user_id"}

PAIRS = [(DOCUMENT, LATER), (LATER, DOCUMENT), (DOCUMENT, SHORTER)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_whole_document_over_a_longer_one_is_that_document(first: Any, second: Any) -> None:
    under, over = compact(first), compact(second)
    data = over + under[len(over) :]
    assert got(data) == second
    longer = len(under) > len(over)
    words = (f"{len(under) - len(over)} bytes of another writing follow its end",) if longer else ()
    assert salvage(data).losses == words


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_killed_in_the_middle_of_the_second_writing_only_the_seam_is_lost(first: Any, second: Any) -> None:
    """Both were truncated before either was written: the second's beginning lies over the first."""
    under, over = compact(first), compact(second)
    before, after = values(first), values(second)
    ends = Writer(second).ends
    for killed in range(len(over)):
        data = over[:killed] + under[killed:]
        found = values(got(data))
        made_of_both = [path for path in found if found[path] not in (before.get(path, ...), after.get(path, ...))]
        # Whatever is neither in the one nor in the other lies on the seam: it can't be told from a true value.
        places = {path[:2] for path in made_of_both}
        assert len(places) <= 1, (killed, made_of_both)
        if len(under) != len(over):
            # A damage that is seen costs nothing before it; one that is not seen costs nothing at all.
            missing = [path for path, end in ends.items() if end <= killed and path not in found]
            assert [path for path in missing if path[:2] not in places] == [], killed


def test_half_a_writing_behind_the_hole_of_a_truncation_gives_the_steps_that_are_whole() -> None:
    """The first writer had written a half, the second truncated, the first went on."""
    data = compact(DOCUMENT)
    at = data.index(b'"02-loop"') - 40
    found = got(bytes(at) + data[at:])
    assert found["steps"] == [DOCUMENT["steps"][2]]
    assert found["last_interaction_at"] == ms(13)
    assert "telemetry_id" not in found


# Blocks that never reached the disk


@pytest.mark.parametrize("block", [16, 64, 256])
def test_a_block_of_nul_bytes_costs_what_it_covers_and_the_rest_of_its_step(block: int) -> None:
    data = compact(DOCUMENT)
    everything = values(DOCUMENT)
    ends = Writer(DOCUMENT).ends
    starts = [data.index(f'{{"slug":"{step["slug"]}"'.encode()) for step in DOCUMENT["steps"]]
    for at in range(0, len(data), 7):
        hole = data[:at] + bytes(min(block, len(data) - at)) + data[at + block :]
        found = values(got(hole))
        assert all(found[path] == everything[path] for path in found), at
        assert [path for path, end in ends.items() if end <= at and path not in found] == [], at
        for step, start in zip(DOCUMENT["steps"], starts, strict=True):
            if start >= at + block:
                kept = {path: value for path, value in everything.items() if path[:2] == ("step", step["slug"])}
                assert all(path in found for path in kept), (at, step["slug"])


def test_a_step_in_two_parts_is_one_again() -> None:
    """The machine died while a shorter document was written over a longer one: some bytes stand there twice."""
    data = compact(DOCUMENT)
    middle = data.index(b'{"slug":"02-loop"')
    again = data.index(b'{"slug":"01-hello"')
    found = got(data[:middle] + b"\x00" + data[again:])
    assert found == DOCUMENT


@pytest.mark.parametrize("nul", [1, 4096])
def test_nul_bytes_behind_a_document_are_no_part_of_it(nul: int) -> None:
    assert got(compact(DOCUMENT) + bytes(nul)) == DOCUMENT
    assert salvage(compact(DOCUMENT) + bytes(nul)).losses == (f"{nul} NUL bytes at its end",)


# What editors and other programs leave


def test_a_byte_order_mark_is_left_out() -> None:
    assert got(b"\xef\xbb\xbf" + compact(DOCUMENT)) == DOCUMENT


def test_lone_surrogates_and_bytes_that_are_no_text_are_made_printable() -> None:
    data = rb'{"slug":"a\ud800b","x":"\\ud800","y":"\ud83d\udc0d","z":"\udc0d' + b"\xed\xa0\x80" + b'"}'
    assert got(data) == {"slug": "a\ufffdb", "x": "\\ud800", "y": "🐍", "z": "\ufffd\ufffd\ufffd\ufffd"}
    assert salvage(data).losses == ("2 lone surrogates, now U+FFFD", "bytes that are no UTF-8, now U+FFFD")


def test_a_comma_too_many_is_forgiven() -> None:
    assert got(b'{"a":1,,"steps":[{"slug":"x","tests":[{"b":2},],},],}') == {
        "a": 1,
        "steps": [{"slug": "x", "tests": [{"b": 2}]}],
    }


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"01", b"1e999", b"'x'", b"9" * 500, b"[" * 300 + b"]" * 300, b'{"a":[nul]}']
)
def test_a_value_that_is_none_of_json_is_left_out_alone(value: bytes) -> None:
    data = b'{"a":1,"odd":%s,"steps":[{"slug":"x","odd":%s,"tests":[{"b":2},%s,{"c":3}]}]}' % (value, value, value)
    assert got(data) == {"a": 1, "steps": [{"slug": "x", "tests": [{"b": 2}, {"c": 3}]}]}
    assert len(salvage(data).losses) == 3


def test_a_key_that_comes_twice_is_a_seam() -> None:
    data = b'{"a":1,"steps":[{"slug":"x","position":0,"tests":[{"b":2}],"slug":"y"},{"slug":"z","position":2}],"a":2}'
    found = got(data)
    assert found["steps"] == [
        {"slug": "x", "position": 0, "tests": [{"b": 2}]},
        {"slug": "z", "position": 2},
    ]
    assert found["a"] == 1


def test_what_begins_with_a_slug_and_is_no_step_is_none() -> None:
    data = b'{"a":\x01,"profile":{"cohorts":[{"slug":"x"}],"name":"y"},"steps":[{"slug":"s","position":0}],"b":3}'
    assert got(data) == {"steps": [{"slug": "s", "position": 0}], "b": 3}


@pytest.mark.parametrize(
    "data", [b"", b" \n", b"\0" * 4096, b"\xef\xbb\xbf", b"[]", b"null", b'"text"', b"\x01", b"{", b"7"]
)
def test_where_nothing_is_nothing_is_found(data: bytes) -> None:
    found = salvage(data)
    assert found.text == b""
    assert len(found.losses) >= 1


# Anything


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None, database=None)
def test_any_bytes_give_json_or_nothing(data: bytes) -> None:
    got(data)


@given(st.data())
@settings(max_examples=150, deadline=None, database=None)
def test_whatever_is_done_to_a_document_it_gives_json_or_nothing(data: st.DataObject) -> None:
    text = bytearray(compact(LATER))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 200)))
        text[start:end] = data.draw(st.one_of(st.binary(max_size=5), st.just(bytes(text[: end - start]))))
    got(bytes(text))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=20,
    )
)
@settings(max_examples=100, deadline=None, database=None)
def test_json_that_is_whole_comes_back_as_it_is(value: Any) -> None:
    document = {
        "slug": "demo",
        "value": value,
        "steps": [{"slug": "x", "odd": value, "tests": [{"odd": value}]}],
    }
    for indent in (None, 2):
        found = salvage(json.dumps(document, indent=indent).encode())
        assert json.loads(found.text) == document
        assert found.losses == ()


@pytest.mark.parametrize(
    "piece",
    [
        b'{"slug":"a","position":0,"tests":[',
        b'x{"slug":"a","position":0,"tests":[%d,',
        b'{"slug":1}',
        b'{"slug" :',
        b'{"slug":[',
        b"[",
        b'{"a":',
        b'"',
        b"\\",
        b'"a",',
        b"\x01",
        b"9",
        b",",
        b'{"steps":[',
        b"{ ",
        b'{"slug":"a","position":0,"x":"',
    ],
)
@pytest.mark.parametrize("before", [b"", b'{"steps":['])
@pytest.mark.timeout(30)
def test_much_rubbish_takes_no_longer_than_its_size(piece: bytes, before: bytes) -> None:
    """A fifth of a megabyte takes up to half a second; what is quadratic here takes many minutes."""
    count = (1 << 18) // len(piece)
    salvage(before + b"".join(piece.replace(b"%d", b"%d" % n) for n in range(count)))
