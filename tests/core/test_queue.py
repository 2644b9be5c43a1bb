"""What was read once from LearnPack's queue is never news again, whoever writes that file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.inference import Inference
from agent.core.observations import AgentStarted, CourseRead, Observation, QueueEntry, QueueRead
from agent.core.queue import MOST, News, QueuePosition, news

from .world import COURSE, SERVER, conclude, executed


def entries(*words: str) -> tuple[QueueEntry, ...]:
    """`entries("init@1", "start_exercise 01-hello@2")`."""
    found = []
    for word in words:
        name, _, stamp = word.partition("@")
        name, _, slug = name.partition(" ")
        found.append(QueueEntry(name, slug or None, stamp))
    return tuple(found)


def read_all(*queues: tuple[QueueEntry, ...]) -> list[str]:
    """The stamps that were news, one text for each reading."""
    position: QueuePosition | None = None
    told = []
    for queue in queues:
        found = news(position, queue)
        position = found.position
        told.append("".join(entry.stamp for entry in found.entries))
    return told


A, B, C, D = entries("init@a", "open x@b", "open y@c", "open x@d")


def test_the_first_queue_is_all_news_and_then_its_end_is() -> None:
    assert read_all((A,), (A, B), (A, B), (A, B, C, D)) == ["a", "b", "", "cd"]


def test_learnpack_that_starts_again_begins_a_new_queue() -> None:
    assert read_all((A, B, C), entries("init@1", "open x@2")) == ["abc", "12"]


def test_an_emptied_queue_is_no_new_one() -> None:
    assert read_all((A, B), (), (A, B), (A, B, C)) == ["ab", "", "", "c"]


def test_a_queue_that_somebody_edited_tells_only_what_follows_the_last_known_entry() -> None:
    assert read_all((A, B, C), (A, C, D)) == ["abc", "d"]
    assert read_all((A, B, C), (A, B)) == ["abc", ""]
    assert read_all((A, B, C), (A, D)) == ["abc", ""]
    assert read_all((A, B, C), (B, C), (A, B, C), (A, B, C, D)) == ["abc", "", "", "d"]


def test_an_old_copy_that_is_put_back_tells_nothing_twice() -> None:
    assert read_all((A, B), (A, B, C, D), (A, B), (A, B, C, D)) == ["ab", "cd", "", ""]


def test_without_stamps_another_content_is_another_queue() -> None:
    one, other = entries("init", "open x"), entries("init", "open y", "open z")
    assert [len(news(None, one).entries), len(news(news(None, one).position, other).entries)] == [2, 3]


def test_more_than_learnpack_ever_writes_is_left_out_and_counted() -> None:
    many = tuple(QueueEntry("start_exercise", "01-hello", str(n)) for n in range(MOST + 5))
    found = news(None, many)
    assert (len(found.entries), found.entries[-1], found.left_out) == (MOST, many[-1], 5)
    seen: list[Observation] = [AgentStarted(0), CourseRead(0, COURSE), executed(100, 10, SERVER), QueueRead(200, many)]
    assert [event for event in conclude(seen) if event.startswith("gap")] == ["gap 200-200"]


@given(st.lists(st.lists(st.sampled_from([A, B, C, D]), max_size=6).map(tuple), max_size=6))
def test_no_queue_makes_it_fail(queues: list[tuple[QueueEntry, ...]]) -> None:
    position = None
    for queue in queues:
        found = news(position, queue)
        assert isinstance(found, News) and set(found.entries) <= set(queue)
        position = found.position
    inference = Inference()
    inference.receive(AgentStarted(0))
    inference.receive(CourseRead(0, COURSE))
    for at, queue in enumerate(queues, start=1):
        inference.receive(QueueRead(at, queue))
