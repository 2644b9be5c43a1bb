"""What is offered next, and what becomes of it: with a real journal, a real outbox, and a sink that the test is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.config import SinkConfig
from agent.core.bodies import Body, Sendable, Whose
from agent.core.delivery import Outcome, Sent
from agent.core.events import Event
from agent.core.privacy import Privacy
from agent.destinations import Planned
from agent.feeds import BODY_BYTES, PAUSES, Feed, feed_of
from agent.store.adoption import SINCE
from agent.store.document_file import DocumentFile
from agent.store.journal import NAME, Journal
from agent.store.outbox import Outbox, Parked
from tests.making import (
    COURSE,
    FULL,
    a_compile,
    a_test,
    attempt,
    b64,
    completed,
    gap,
    learnpack_document,
    learnpack_step,
    ms,
    opened,
    session_start,
)

TAKEN = Sent(Outcome.DELIVERED, "200: taken", status=200)
BAD = Sent(Outcome.REJECTED, "400: it does not take this", status=400)
TOO_LARGE = Sent(Outcome.REJECTED, "413: it does not take this", status=413)
DOWN = Sent(Outcome.RETRY, "503: it failed", status=503)

BATCH, STREAMING, OTLP, XAPI = (
    Planned(kind, SinkConfig(kind, kind, "http://127.0.0.1:1/"))
    for kind in ("learnpack-batch", "learnpack-streaming", "otlp", "xapi")
)

#: What a server says of a body.
Judge = Callable[[bytes], Sent]


@dataclass
class Recorder:
    """A sink that joins the records' ids by commas, and answers as the test says.  `got`: what was offered."""

    judge: Judge = lambda _: TAKEN
    got: list[bytes] = field(default_factory=list)
    whose: Whose | None = None

    def body(self, sendables: Sequence[Sendable], whose: Whose) -> Body:
        self.whose = whose
        return Body(",".join(one.id for one in sendables).encode(), count=len(sendables))

    def send(self, body: Body, within_s: float) -> Sent:
        content = content_of(body)
        self.got.append(content)
        return self.judge(content)

    def close(self) -> None: ...

    def abort(self) -> None: ...

    @property
    def numbers(self) -> list[list[int]]:
        return [numbers_of(content) for content in self.got]

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(content) for content in self.got]


def content_of(body: Body | Sent) -> bytes:
    assert isinstance(body, Body)
    if isinstance(body.content, bytes):
        return body.content
    with body.content as file:
        return file.read()


def numbers_of(content: bytes) -> list[int]:
    return [int(one.rpartition("-")[2]) for one in content.decode().split(",")]


def taking_all_but(*bad: int) -> Judge:
    return lambda content: BAD if set(bad) & set(numbers_of(content)) else TAKEN


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    with Journal.open(state_dir, create=True) as journal:
        yield journal


@pytest.fixture
def outbox(journal: Journal, state_dir: Path) -> Iterator[Outbox]:
    with Outbox(state_dir, journal.id) as outbox:
        yield outbox


@pytest.fixture
def feed(journal: Journal, outbox: Outbox) -> Callable[..., Feed]:
    def make(one: Planned, limit: int = 8 << 20) -> Feed:
        return feed_of(one, journal, outbox, Privacy, COURSE, limit)

    return make


def offer_all(feed: Feed, sink: Recorder, *, final: bool = False, at_most: int = 1_000) -> Sent | None:
    """Offers until nothing is left or a body is neither taken nor rejected, which is returned."""
    for _ in range(at_most):
        if not feed.is_pending(final=final):
            return None
        body = feed.next_body(sink)
        sent = body if isinstance(body, Sent) else sink.send(body, 60.0)
        if sent.outcome not in (Outcome.DELIVERED, Outcome.REJECTED):
            return sent
        feed.settle(sent)
    raise AssertionError("it does not come to an end")


def runs(count: int, first: int = 1, **more: Any) -> list[Event]:
    return [a_test("01-hello", number, number + 0.5, **more) for number in range(first, first + count)]


def parked(outbox: Outbox, one: Planned) -> list[int]:
    return [each.number for each in outbox.parked(one.name)]


Make = Callable[..., Feed]

# --- records ---


def test_records_go_in_their_order_as_many_together_as_the_kind_takes(
    journal: Journal, outbox: Outbox, feed: Make
) -> None:
    journal.append(runs(250), None)
    sink = Recorder()
    assert offer_all(feed(XAPI), sink) is None
    assert sink.numbers == [list(range(1, 101)), list(range(101, 201)), list(range(201, 251))]
    assert outbox.cursor(XAPI.name) == 250


def test_only_the_events_of_its_kind_go_and_the_cursor_passes_the_others(
    journal: Journal, outbox: Outbox, feed: Make
) -> None:
    journal.append([session_start(1), opened("01-hello", 2), gap(2, 3), completed("01-hello", 4)], None)
    sink = Recorder()
    assert offer_all(feed(STREAMING), sink) is None
    assert sink.numbers == [[2]]
    assert outbox.cursor(STREAMING.name) == 4
    assert not feed(STREAMING).is_pending(final=True)


def test_what_has_much_text_goes_in_smaller_bodies(journal: Journal, feed: Make) -> None:
    text = "x" * (BODY_BYTES // 4)
    journal.append(runs(9, stdout=text), None)
    sink = Recorder()
    assert offer_all(feed(XAPI), sink) is None
    assert sink.numbers == [[1, 2, 3, 4], [5, 6, 7, 8], [9]]


@pytest.mark.parametrize("count", [1, 2, 7, 64, 250])
@pytest.mark.parametrize("where", ["first", "middle", "last", "first and last", "neighbours"])
def test_bad_records_are_found_by_halving_and_parked_and_all_others_taken_once_in_order(
    journal: Journal, outbox: Outbox, feed: Make, count: int, where: str
) -> None:
    middle = (count + 1) // 2
    places = {"first": {1}, "middle": {middle}, "last": {count}, "first and last": {1, count}}
    bad = places.get(where, {middle, min(count, middle + 1)})
    journal.append(runs(count), None)
    sink = Recorder(taking_all_but(*bad))
    assert offer_all(feed(XAPI), sink) is None
    taken = [number for numbers in sink.numbers if not bad & set(numbers) for number in numbers]
    assert taken == [number for number in range(1, count + 1) if number not in bad]
    assert parked(outbox, XAPI) == sorted(bad)
    assert {each.words for each in outbox.parked(XAPI.name)} == {BAD.words}
    assert outbox.cursor(XAPI.name) == count
    # A bad record costs no more than the halvings of its body, and the bodies that are left over by them.
    assert len(sink.got) <= 3 + len(bad) * 2 * 8


def test_while_a_bad_record_is_looked_for_a_kill_changes_nothing(journal: Journal, outbox: Outbox, feed: Make) -> None:
    """A feed that is thrown away after each body stands for a process that died there."""
    journal.append(runs(20), None)
    sink = Recorder(taking_all_but(13))
    lives = 0
    while not parked(outbox, XAPI):
        lives += 1
        # Each life gets a body further than the last one did.
        one = feed(XAPI)
        for _ in range(lives):
            if one.is_pending(final=False):
                body = one.next_body(sink)
                assert isinstance(body, Body)
                one.settle(sink.send(body, 60.0))
    assert offer_all(feed(XAPI), sink) is None
    taken = [number for numbers in sink.numbers if 13 not in numbers for number in numbers]
    assert list(dict.fromkeys(taken)) == [number for number in range(1, 21) if number != 13]
    assert parked(outbox, XAPI) == [13]


def test_what_is_parked_goes_again_when_somebody_says_so_and_only_then(
    journal: Journal, outbox: Outbox, feed: Make
) -> None:
    journal.append(runs(5), None)
    assert offer_all(feed(XAPI), Recorder(taking_all_but(2, 4))) is None
    assert not feed(XAPI).is_pending(final=True)
    assert outbox.send_again(XAPI.name) == 2
    sink = Recorder(taking_all_but(4))
    assert offer_all(feed(XAPI), sink) is None
    assert sink.numbers == [[2], [4]]
    assert parked(outbox, XAPI) == [4]
    assert not feed(XAPI).is_pending(final=True), "it was rejected once more, and waits to be asked for again"


def test_parked_records_go_before_new_ones_and_the_cursor_stays_where_it_is(
    journal: Journal, outbox: Outbox, feed: Make
) -> None:
    journal.append(runs(3), None)
    assert offer_all(feed(XAPI), Recorder(taking_all_but(1))) is None
    journal.append(runs(2, first=10), None)
    outbox.send_again(XAPI.name)
    one, sink = feed(XAPI), Recorder()
    body = one.next_body(sink)
    assert isinstance(body, Body) and one.is_again
    one.settle(sink.send(body, 60.0))
    assert outbox.cursor(XAPI.name) == 3
    assert offer_all(one, sink) is None
    assert sink.numbers == [[1], [4, 5]]
    assert outbox.cursor(XAPI.name) == 5


def test_a_body_is_the_same_at_every_try(journal: Journal, feed: Make) -> None:
    from agent.core.bodies import Body
    from agent.sinks.http import Destination, Server
    from agent.sinks.learnpack import Streaming
    from agent.sinks.otlp import Otlp
    from agent.sinks.xapi import Xapi

    journal.append([opened("01-hello", 1), *runs(3, **FULL)], None)
    server = Server(Destination("http://127.0.0.1:1/"))
    for one, sink in ((STREAMING, Streaming(server)), (OTLP, Otlp(server)), (XAPI, Xapi(server, "1.0.3"))):
        first, second = (feed(one).next_body(sink) for _ in range(2))
        assert isinstance(first, Body)
        assert first == second


def test_what_came_during_a_turn_goes_in_it(journal: Journal, outbox: Outbox, feed: Make) -> None:
    journal.append(runs(2), None)
    one, sink = feed(XAPI), Recorder()
    assert offer_all(one, sink) is None
    journal.append(runs(2, first=5), None)
    assert offer_all(one, sink) is None
    assert sink.numbers == [[1, 2], [3, 4]]


def test_what_is_journaled_in_the_moment_of_the_last_look_is_not_passed_over(
    journal: Journal, outbox: Outbox, feed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([gap(0, 1)], None)
    one, sink, passed = feed(XAPI), Recorder(), outbox.acknowledge

    def acknowledge(*arguments: Any) -> None:
        if journal.last_number == 1:
            journal.append(runs(1), None)
        passed(*arguments)

    monkeypatch.setattr(outbox, "acknowledge", acknowledge)
    for _ in range(2):
        assert offer_all(one, sink) is None
    assert sink.numbers == [[2]]


def test_another_journal_begins_anew(journal: Journal, feed: Make, state_dir: Path) -> None:
    journal.append(runs(5), None)
    assert offer_all(feed(XAPI), Recorder(taking_all_but(3))) is None
    journal.close()
    for path in state_dir.glob(f"{NAME}*"):
        path.unlink()
    with Journal.open(state_dir, create=True) as other, Outbox(state_dir, other.id) as outbox:
        other.append(runs(2), None)
        assert parked(outbox, XAPI) == []
        sink = Recorder()
        assert offer_all(feed_of(XAPI, other, outbox, Privacy, COURSE, 8 << 20), sink) is None
        assert sink.got == [f"{other.id}-1,{other.id}-2".encode()]
        assert outbox.cursor(XAPI.name) == 2


def test_a_preview_changes_nothing(journal: Journal, outbox: Outbox, state_dir: Path) -> None:
    journal.append(runs(150), None)
    with Outbox(state_dir, journal.id, read_only=True) as reader:
        for one, shown in ((XAPI, 2), (BATCH, 1)):
            feed, sink = feed_of(one, journal, reader, Privacy, COURSE, 8 << 20), Recorder()
            for _ in range(shown):
                assert feed.is_pending(final=True)
                assert content_of(feed.next_body(sink))
                feed.skip()
            assert not feed.is_pending(final=True)
    assert (outbox.cursor(XAPI.name), outbox.cursor(BATCH.name)) == (0, 0)


# --- documents ---


def texts(count: int, size: int) -> list[Event]:
    return [session_start(0.5), opened("01-hello", 1), *runs(count, stdout="x" * size)]


def outputs(document: dict[str, Any]) -> list[bool]:
    """For each test whether it has its output."""
    return [bool(one["stdout"]) for step in document["steps"] for one in step["tests"]]


def test_a_document_goes_when_one_of_its_events_happened(journal: Journal, outbox: Outbox, feed: Make) -> None:
    sink = Recorder()
    journal.append([session_start(1)], None)
    assert offer_all(feed(BATCH), sink) is None
    journal.append([a_compile("01-hello", 2, 3)], None)
    assert not feed(BATCH).is_pending(final=False), "a compile is no moment of a document"
    assert feed(BATCH).is_pending(final=True), "but before the end everything goes"
    journal.append([opened("01-hello", 4)], None)
    assert offer_all(feed(BATCH), sink) is None
    assert [len(one["steps"][1]["compilations"]) for one in sink.documents] == [0, 1]
    assert outbox.cursor(BATCH.name) == 3


def test_of_a_document_that_is_too_large_the_oldest_outputs_are_left_out(
    journal: Journal, outbox: Outbox, feed: Make
) -> None:
    journal.append(texts(60, 10_000), None)

    def judge(content: bytes) -> Sent:
        return TOO_LARGE if len(content) > 300_000 else TAKEN

    sink = Recorder(judge)
    assert offer_all(feed(BATCH), sink) is None
    *refused, taken = sink.got
    assert refused and len(taken) <= 300_000
    kept = outputs(json.loads(taken))
    assert len(kept) == 60, "no attempt is left out"
    assert kept == sorted(kept) and True in kept, "the oldest outputs go first"
    assert parked(outbox, BATCH) == []

    journal.append([opened("02-loop", 90)], None)
    again = Recorder(judge)
    assert offer_all(feed(BATCH), again) is None
    assert len(again.got) == 1, "how large it may be is remembered"


def test_a_document_that_can_get_no_smaller_is_parked(journal: Journal, outbox: Outbox, feed: Make) -> None:
    journal.append([session_start(0), *runs(400)], None)
    sink = Recorder(lambda _: TOO_LARGE)
    assert offer_all(feed(BATCH), sink, at_most=20) is None
    assert parked(outbox, BATCH) == [401]
    journal.append([opened("01-hello", 500)], None)
    assert offer_all(feed(BATCH), Recorder()) is None
    assert parked(outbox, BATCH) == [], "a later document held it"


def test_a_document_that_is_rejected_is_parked_until_a_later_one_is_taken(
    journal: Journal, outbox: Outbox, feed: Make
) -> None:
    journal.append([session_start(1)], None)
    assert offer_all(feed(BATCH), Recorder(lambda _: BAD)) is None
    journal.append([opened("01-hello", 2)], None)
    assert offer_all(feed(BATCH), Recorder(lambda _: BAD)) is None
    assert parked(outbox, BATCH) == [2], "it holds the one before"
    outbox.send_again(BATCH.name)
    sink = Recorder()
    assert offer_all(feed(BATCH), sink) is None
    assert (len(sink.got), parked(outbox, BATCH)) == (1, [])


def test_a_document_that_would_reduce_what_was_sent_is_not_sent_and_says_so(
    journal: Journal, outbox: Outbox, feed: Make, state_dir: Path
) -> None:
    journal.append([session_start(0.5), opened("01-hello", 1), *runs(3)], None)
    assert offer_all(feed(BATCH), Recorder()) is None
    journal.close()
    for path in state_dir.glob(f"{NAME}*"):
        path.unlink()
    with Journal.open(state_dir, create=True) as other, Outbox(state_dir, other.id) as fresh:
        other.append([session_start(0.5), opened("01-hello", 1), *runs(1)], None)
        sink = Recorder()

        def offered() -> Sent | None:
            return offer_all(feed_of(BATCH, other, fresh, Privacy, COURSE, 8 << 20), sink)

        sent = offered()
        assert sent is not None and sent.outcome is Outcome.WAIT
        assert sent.words == "the document holds less than what was sent last (01-hello: tests 3 → 1): not sent"
        assert (sink.got, fresh.cursor(BATCH.name)) == ([], 0)
        other.append([*runs(2, first=20), opened("02-loop", 30)], None)
        assert offered() is None
        assert len(sink.got) == 1


def test_what_learnpack_recorded_in_a_pause_is_left_out_and_what_lies_beside_it_is_not(
    journal: Journal, feed: Make, tmp_path: Path
) -> None:
    journal.put_fact(SINCE, ms(0))
    journal.put_fact(PAUSES, [[ms(100), ms(200)], [ms(300), ms(400)]])
    starts = (99, 100, 199.999, 200, 350, 400)
    step = learnpack_step("01-hello", compilations=[attempt(start, start + 0.1) for start in starts])
    (tmp_path / ".learn").mkdir()
    (tmp_path / ".learn" / "telemetry.json").write_text(json.dumps(learnpack_document(step)))
    DocumentFile(tmp_path, journal).adopt(COURSE)
    # One of our own is there only if it was to be recorded: the clock may have been set.
    journal.append([session_start(90), a_compile("01-hello", 150, 151, 7)], None)
    sink = Recorder()
    assert offer_all(feed(BATCH), sink) is None
    sent = [one["started_at"] for one in sink.documents[0]["steps"][1]["compilations"]]
    assert sent == [ms(99), ms(150), ms(200), ms(400)]


def test_no_opening_completion_or_session_of_a_pause_is_in_a_document(
    journal: Journal, feed: Make, tmp_path: Path
) -> None:
    journal.put_fact(PAUSES, [[ms(100), ms(200)]])
    hello = learnpack_step("01-hello", opened_at=ms(150), completed_at=ms(160))
    summed = learnpack_step("02-sum", opened_at=ms(50), completed_at=ms(170))
    document = learnpack_document(hello, summed, workout_session=[{"started_at": ms(40)}, {"started_at": ms(140)}])
    document["last_interaction_at"] = ms(170)
    (tmp_path / ".learn").mkdir()
    (tmp_path / ".learn" / "telemetry.json").write_text(json.dumps(document))
    DocumentFile(tmp_path, journal).adopt(COURSE)
    journal.append([session_start(210), opened("01-hello", 220)], None)
    sink = Recorder()
    assert offer_all(feed(BATCH), sink) is None
    sent = sink.documents[0]
    steps = {step["slug"]: step for step in sent["steps"]}
    assert (steps["01-hello"]["opened_at"], steps["02-sum"]["opened_at"]) == (ms(220), ms(50))
    assert [slug for slug, step in steps.items() if "completed_at" in step] == []
    assert [one["started_at"] for one in sent["workout_session"]] == [ms(40), ms(200)], "it goes on after the pause"
    assert sent["last_interaction_at"] == ms(220)


def test_when_somebody_else_sent_a_document_ours_is_sent_once_more_and_only_once(journal: Journal, feed: Make) -> None:
    journal.append([session_start(1)], None)
    sink = Recorder()
    assert offer_all(feed(BATCH), sink) is None
    one = feed(BATCH)
    assert not one.is_pending(final=False)
    one.is_overtaken = True
    assert offer_all(one, sink) is None
    assert len(sink.got) == 2
    assert not one.is_overtaken


def test_what_is_private_is_in_no_document(journal: Journal, outbox: Outbox) -> None:
    journal.append([opened("01-hello", 1), a_test("01-hello", 2, 3, **{**FULL, "stdout": "ada said 4711"})], None)
    privacy = Privacy(source_code=False, names={"ada": "[name]"}, mask=lambda text: text.replace("4711", "[secret]"))
    sink = Recorder()
    assert offer_all(feed_of(BATCH, journal, outbox, lambda: privacy, COURSE, 8 << 20), sink) is None
    (test,) = sink.documents[0]["steps"][1]["tests"]
    assert (test["source_code"], test["stdout"]) == ("", b64("[name] said [secret]"))


def test_what_is_refused_for_now_is_offered_again_as_it_was(journal: Journal, outbox: Outbox, feed: Make) -> None:
    journal.append([session_start(1), *runs(150)], None)
    for one in (XAPI, OTLP, STREAMING, BATCH):
        first, second = Recorder(lambda _: DOWN), Recorder(lambda _: DOWN)
        assert offer_all(feed(one), first) == offer_all(feed(one), second) == DOWN
        assert first.got == second.got
        assert (outbox.cursor(one.name), parked(outbox, one)) == (0, [])


# --- the outbox ---


def test_two_threads_of_one_sink_never_move_its_cursor_back(journal: Journal, outbox: Outbox, state_dir: Path) -> None:
    with Outbox(state_dir, journal.id) as other:
        outbox.acknowledge("a", 7)
        other.acknowledge("a", 3, Parked(2, 5, "no"))
    assert outbox.cursor("a") == 7
    assert parked_of(outbox.parked("a")) == [(2, "no", False)]


def parked_of(found: Iterable[Parked]) -> list[tuple[int, str, bool]]:
    return [(one.number, one.words, one.again) for one in found]
