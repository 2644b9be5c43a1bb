"""What node_exporter would read, read by the parser of Prometheus's own client."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent import __version__
from agent.config import Config, course_state_dir
from agent.metrics import rendered, write_metrics
from agent.overview import CourseState, Sight
from agent.store.journal import Journal
from agent.store.lock import Lock
from tests.making import ms, session_start
from tests.test_cli import called

ONE = CourseState(
    key="demo-0badcafe",
    uid=1001,
    course="/home/ada/secret-place",
    pid=77,
    processes=Sight("pidfd", "most"),
    files=Sight("inotify"),
    started_at=ms(1),
    last_event_at=ms(2.5),
    events=9,
    gaps=2,
    lost=3,
    waiting=4,
    parked=5,
    failing=1,
    journal_bytes=4096,
    version="0.9",
)
STOPPED = CourseState(key="other-1", uid=1002, trouble="damaged", silent="paused")

Sample = tuple[str, tuple[tuple[str, str], ...]]


def parsed(text: str) -> dict[Sample, float]:
    """The samples by name and labels, without the prefix; each must be of a family with HELP and TYPE."""
    samples: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("gauge", "counter"), family
        for sample in family.samples:
            key = (sample.name.removeprefix("learnpack_agent_"), tuple(sorted(sample.labels.items())))
            assert sample.name.startswith("learnpack_agent_") and key not in samples
            samples[key] = sample.value
    return samples


def of(samples: dict[Sample, float], course: str) -> dict[str, float]:
    return {name: value for (name, labels), value in samples.items() if ("course", course) in labels}


def test_everything_that_is_known_of_a_running_agent_is_told() -> None:
    samples = parsed(rendered([ONE, STOPPED]))
    assert of(samples, ONE.key) == {
        "up": 1,
        "start_time_seconds": ms(1) / 1000,
        "process_sensor_level": 1,
        "file_sensor_level": 1,
        "last_event_timestamp_seconds": ms(2.5) / 1000,
        "events_total": 9,
        "gaps_total": 2,
        "lost_total": 3,
        "waiting_records": 4,
        "parked_records": 5,
        "failing_sinks": 1,
        "journal_bytes": 4096,
        "journal_trouble": 0,
        "silent": 0,
        "agent_info": 1,
    }
    labels = {name: dict(labels) for name, labels in samples if ("course", ONE.key) in labels}
    assert labels["process_sensor_level"]["level"] == "pidfd"
    assert labels["file_sensor_level"]["level"] == "inotify"
    assert labels["agent_info"]["version"] == "0.9"
    assert {one["uid"] for one in labels.values()} == {"1001"}
    assert samples[("build_info", (("version", __version__),))] == 1
    assert samples[("courses", ())] == 2


def test_of_a_stopped_agent_no_level_and_no_time_is_told() -> None:
    found = of(parsed(rendered([STOPPED])), STOPPED.key)
    assert (found["up"], found["journal_trouble"], found["silent"]) == (0, 1, 1)
    assert not {"process_sensor_level", "file_sensor_level", "start_time_seconds", "agent_info"} & found.keys()
    assert "last_event_timestamp_seconds" not in found


def test_a_course_is_named_by_its_key_alone() -> None:
    assert "secret-place" not in rendered([ONE]) and "ada" not in rendered([ONE])


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\\nb", "a\nb", "ünï", "}{,="])
def test_whatever_stands_in_a_label_comes_back(text: str) -> None:
    (found,) = {dict(labels)["course"] for _, labels in parsed(rendered([CourseState(text, 1)])) if len(labels) > 1}
    assert found == text


def test_half_of_a_letter_spoils_nothing() -> None:
    assert of(parsed(rendered([CourseState("a\udcffb", 1)])), "a?b")["up"] == 0


def test_a_course_that_comes_twice_is_told_once_and_first_things_first() -> None:
    again = CourseState(ONE.key, ONE.uid)
    assert of(parsed(rendered([ONE, again])), ONE.key)["up"] == 1
    assert parsed(rendered([ONE, CourseState(ONE.key, 5)]))[("courses", ())] == 2


def test_without_a_course_there_is_still_a_text() -> None:
    assert parsed(rendered([]))[("courses", ())] == 0


def test_the_file_is_readable_for_the_collector_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "agent.prom"
    old = os.umask(0o077)
    try:
        write_metrics(str(path), "new\n")
    finally:
        os.umask(old)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new\n", 0o644)
    assert os.listdir(tmp_path) == ["agent.prom"]


def test_a_link_in_the_file_s_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "agent.prom"
    path.symlink_to(victim)
    (tmp_path / f".agent.prom.{os.getpid()}.tmp").symlink_to(victim)
    write_metrics(str(path), "new\n")
    assert (victim.read_text(), path.is_symlink(), path.read_text()) == ("mine", False, "new\n")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "agent.prom"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_metrics(str(path), "\udcff")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["agent.prom"])


def test_the_command_tells_of_this_user_s_courses(
    capfd: pytest.CaptureFixture[str], state_dir: Path, tmp_path: Path
) -> None:
    directory = course_state_dir(Config(state_dir=str(state_dir)), "/course")
    with Journal.open(directory, create=True) as journal:
        journal.append([session_start(0)], None)
    lock = Lock.acquire(directory)
    code, out, err = called(capfd, "metrics", "--state-dir", state_dir)
    assert (code, err) == (0, "")
    found = of(parsed(out), os.path.basename(directory))
    assert (found["up"], found["events_total"]) == (1, 1)
    lock.release()
    path = tmp_path / "agent.prom"
    assert called(capfd, "metrics", "--state-dir", state_dir, "--output", path) == (0, "", "")
    assert of(parsed(path.read_text()), os.path.basename(directory))["up"] == 0
