"""The disk under the course and under the journal is full while the student works, and then has room again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.standin.agent import count
from tests.standin.courses import LASTS
from tests.standin.toolbox import Toolbox
from tests.until import until


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_what_is_done_while_the_disk_is_full_is_written_when_it_has_room_again(
    toolbox: Toolbox, small_disk: Path, tmp_path: Path
) -> None:
    course = small_disk / "course"
    (course / "exercises" / "01-a").mkdir(parents=True)
    (course / ".learn").mkdir()
    (course / "learn.json").write_text("{}")
    (course / "exercises" / "01-a" / "app.py").write_text(LASTS)
    (small_disk / "state").mkdir()
    (tmp_path / "state").symlink_to(small_disk / "state")  # the log lies beside it, on the disk that has room
    stage = Stage(toolbox, tmp_path)
    try:
        agent = stage.agent(course).start()
        student = stage.student(course, PYTHONDONTWRITEBYTECODE="1")
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(bytes(4096))
        student.type("python exercises/01-a/app.py")
        until(lambda: "the journal takes nothing" in agent.log)
        assert agent.process is not None
        assert agent.process.poll() is None, "the agent goes on"
        filler.unlink()
        events = agent.wait_for(lambda events: count(events, "compile") > 0)
        assert [event["event"] for event in events] == ["session_start", "open_step", "compile"]
        assert agent.stop() == 0
        document = json.loads((course / ".learn" / "telemetry.json").read_text())
        assert len(document["steps"][0]["compilations"]) == 1
    finally:
        stage.end()
