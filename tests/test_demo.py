"""The demo: the first thing that anybody runs must work wherever it is run, and must be able to fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import demo
from agent.core.events import SessionEnd, SessionStart
from agent.demo import Act
from agent.store.journal import Journal
from tests.making import T0, evidence

#: The demo promises 20 s; this is for a machine with other work, which gets more time than that from the demo too.
PATIENCE_S = 200
PATIENT = "from agent import demo; demo.LIMIT_S = demo.WAIT_S = 100; raise SystemExit(demo.demo())"


def played(tmp_path: Path, home: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), **more}
    if home is not None:
        environment["XDG_CONFIG_HOME"] = str(home)
    top = Path(demo.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", PATIENT],
        cwd=top,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_the_demo_concludes_everything_even_where_a_user_has_settings_and_a_service_manager(tmp_path: Path) -> None:
    settings = tmp_path / "config" / "learnpack-agent" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('log_level = "warning"\n')
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = played(
        temporary,
        settings.parent.parent,
        JOURNAL_STREAM="8:12345",
        NOTIFY_SOCKET=str(tmp_path / "nobody"),
        LEARNPACK_AGENT_CONFIG=str(tmp_path / "missing.toml"),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1] == "every action was concluded once, and nothing was invented"
    assert list(temporary.iterdir()) == []


def test_an_agent_that_cannot_start_fails_the_demo_and_its_words_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = {"learn.json": "{"}
    monkeypatch.setattr(demo, "_FILES", broken)
    monkeypatch.setattr(demo, "LIMIT_S", 100)
    assert demo.demo() == 1
    out, _ = capfd.readouterr()
    assert "the agent did not start" in out
    assert "learn.json" in out


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "state", create=True)


def soon() -> float:
    return time.monotonic() + demo.LIMIT_S


START = SessionStart(T0, evidence(T0))
END = SessionEnd(T0, evidence(T0))


def test_what_was_concluded_as_expected_is_not_wrong(journal: Journal) -> None:
    act = Act("it starts", lambda: journal.append([START], None), (("session_start", None, None),))
    assert demo._perform([act], journal, soon()) == []
    journal.close()


def test_another_conclusion_one_too_many_and_one_too_late_are_wrong(journal: Journal) -> None:
    expected = (("session_start", None, None),)
    wrong = demo._perform([Act("it starts", lambda: journal.append([END], None), expected)], journal, soon())
    assert wrong == ["it starts: expected [('session_start', None, None)], concluded [('session_end', None, None)]"]
    journal.append([START], None)
    assert demo._perform([], journal, soon())[0].startswith("after all that: expected nothing, concluded")
    journal.close()


def test_an_agent_that_concludes_nothing_is_wrong_and_the_demo_ends_in_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "WAIT_S", 1.0)
    before = time.monotonic()
    acts = [Act(f"act {number}", lambda: None, (("session_start", None, None),)) for number in range(50)]
    wrong = demo._perform(acts, journal, before + 1.5)
    assert len(wrong) == 50
    assert "not played" in wrong[-1]
    assert time.monotonic() - before < 10  # and not the 50 s that 50 acts would wait
    journal.close()


def test_an_agent_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "END_S", 0.2)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    agent = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    with agent.stdout:
        assert agent.stdout.readline() == b"on\n"
        demo._end(agent)
    assert agent.returncode == -9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_takes_its_agent_and_its_directory_with_it(tmp_path: Path, number: signal.Signals) -> None:
    # SIGHUP is ignored in what `nohup` started, and the demo leaves it so.
    default = f"import signal; signal.signal({number:d}, signal.SIG_DFL); {PATIENT}"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", default],
        cwd=Path(demo.__file__).parent.parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as playing:
        try:
            assert playing.stdout is not None
            first = playing.stdout.readline()
            found = re.search(r"the agent \(process (\d+)\)", first)
            assert found is not None, first
            playing.send_signal(number)
            playing.send_signal(number)  # as `timeout` does: to the process, and to its group
            assert playing.wait(PATIENCE_S) == 128 + number
        finally:
            playing.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_played_gives_the_signals_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_play", lambda directory: 0)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert demo.demo() == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before
