"""The agent is killed at random moments while a student works.

Twenty times in CI; LEARNPACK_TEST_KILLS=200 for a long look.  LEARNPACK_TEST_SEED repeats a sequence of moments.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Stage
from tests.standin.agent import Event, was_too_short
from tests.standin.courses import A_LITTLE, LASTS, PYTHON, make_course
from tests.until import until

KILLS = int(os.environ.get("LEARNPACK_TEST_KILLS", "20"))
SEED = int(os.environ.get("LEARNPACK_TEST_SEED", "0")) or random.randrange(1, 1_000_000)
#: A run that ended so long before the kill must have been written down, or three times what the slowest run took.  The
#: promise is milliseconds.
MARGIN_MS = 500

pytestmark = pytest.mark.timeout(300 + 10 * KILLS)


@dataclass
class Work:
    """A student who never stops: saves a new text, runs it, and so on, each text once."""

    course: Path
    environment: dict[str, str]
    runs: list[tuple[str, int, int]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        slugs = ["01-hello", "02-sum", "07-free"]
        number = 0
        while not self.stopping.wait(0.05):
            number += 1
            self.run(slugs[number // 5 % len(slugs)], f"# run {number}\nprint({number})\n{A_LITTLE}")
        self.run("01-hello", f"print('last')\n{LASTS}")

    def run(self, slug: str, text: str) -> None:
        (self.course / f"exercises/{slug}/app.py").write_text(text)
        began = time.time_ns() // 1_000_000
        command = ["python", f"exercises/{slug}/app.py"]
        subprocess.run(
            command, cwd=self.course, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.runs.append((text, began, time.time_ns() // 1_000_000))

    def runs_since(self, at: int) -> int:
        return sum(began >= at for _, began, _ in self.runs)

    def margin_ms(self) -> int:
        return max([MARGIN_MS, *(3 * (ended - began) for _, began, ended in self.runs)])


def test_killed_at_any_moment_nothing_is_lost_torn_or_doubled(stage: Stage, tmp_path: Path) -> None:
    moments = random.Random(SEED)
    course = make_course(tmp_path / "course", PYTHON)
    agent = stage.agent(course)
    work = Work(course, stage.toolbox.environment())
    worker = threading.Thread(target=work.go_on)
    worker.start()
    lives: list[tuple[int, int]] = []
    known: list[Event] = []
    try:
        for life in range(KILLS + 1):
            agent.start()
            ready = time.time_ns() // 1_000_000
            # A third of the kills come before anything settles, a third soon, a third after some runs.
            pause = moments.choice([moments.uniform(0, 0.1), moments.uniform(0.1, 0.6), moments.uniform(0.6, 1.6)])
            if life < KILLS:
                time.sleep(pause)
                lives.append((ready, time.time_ns() // 1_000_000))
                agent.kill()
            else:
                until(lambda since=ready + 50: work.runs_since(since) >= 5)  # type: ignore[misc]
                work.stopping.set()
                worker.join()
                agent.wait_for(lambda events: any(event.get("source_code") == work.runs[-1][0] for event in events))
                assert agent.stop() == 0, agent.log
                # Its end is in order: nothing that it saw is lost.
                lives.append((ready, time.time_ns() // 1_000_000 + work.margin_ms()))
            telemetry = course / ".learn/telemetry.json"
            if telemetry.exists():
                assert isinstance(json.loads(telemetry.read_text()), dict), f"life {life}, seed {SEED}"
            events = agent.events()
            assert events[: len(known)] == known, f"what was acknowledged changed in life {life}, seed {SEED}"
            known = events
    finally:
        work.stopping.set()
        worker.join()

    runs = Counter(event["source_code"] for event in known if event["event"] == "compile")
    doubled = {text: number for text, number in runs.items() if number > 1}
    assert not doubled, f"seed {SEED}: {doubled}"
    assert set(runs) <= {text for text, _, _ in work.runs}, f"seed {SEED}: a run with a text that was never saved"
    margin = work.margin_ms()
    due = [
        (text, began, ended)
        for text, began, ended in work.runs
        if any(ready + 50 <= began and ended <= killed - margin for ready, killed in lives)
    ]
    lost = [run for run in due if run[0] not in runs]
    unread = [run for run in lost if was_too_short(known, *run[1:])]
    assert due and lost == unread, f"seed {SEED}: {len(lost)} of {len(due)} runs lost: {lost}, as it says: {unread}"
    assert len(unread) <= len(due) / 5, f"seed {SEED}: {len(unread)} of {len(due)} were over before they could be read"
    assert all(event["exit_code"] in (0, None) for event in known if event["event"] == "compile")
    document = agent.document()
    assert document is not None
    in_document = sum(len(step["compilations"]) for step in document["steps"])
    assert in_document == sum(runs.values()), f"seed {SEED}"


def test_a_kill_during_learnpacks_work_leaves_each_run_once(stage: Stage, tmp_path: Path) -> None:
    """Kills in the middle of builds: a run whose beginning or end fell into a kill is there once or not at all."""
    moments = random.Random(SEED)
    course = make_course(tmp_path / "course", PYTHON)
    agent = stage.agent(course).start()
    learnpack = stage.learnpack(course).start()
    learnpack.open("01-hello")
    for number in range(6):
        learnpack.save("01-hello", f"# run {number}\nimport time\ntime.sleep(0.4)\n")
        build = learnpack.send("build", slug="01-hello")
        time.sleep(moments.uniform(0, 0.5))
        agent.kill()
        agent.start()
        learnpack.note(build.result())
    last = "print('last')\n" + LASTS
    learnpack.save("01-hello", last)
    learnpack.build("01-hello")
    events = agent.wait_for(lambda events: any(event.get("source_code") == last for event in events))
    texts = Counter(event["source_code"] for event in events if event["event"] == "compile")
    assert texts[last] == 1, f"seed {SEED}"
    assert max(texts.values()) == 1, f"seed {SEED}: {texts}"
    assert set(texts) <= {truth.source for truth in learnpack.truth} | {None}
