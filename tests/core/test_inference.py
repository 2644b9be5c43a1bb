"""Observations in, events out.  Each test is a short story; `at` times are ms."""

from dataclasses import replace

import pytest

from agent.core import events
from agent.core.codec import from_plain, to_plain
from agent.core.course import ENTRIES, step_from
from agent.core.inference import LATE_MS, Inference, Settings, Snapshot
from agent.core.observations import (
    AgentStarted,
    AgentStopped,
    Change,
    ClockJumped,
    ConfigRead,
    CourseGone,
    CourseRead,
    EventsLost,
    FileChanged,
    Observation,
    ProcessesListed,
    ProcessExited,
    QueueEntry,
    QueueRead,
    ReportRead,
    ResetCopyAppeared,
    RunRecorded,
)
from agent.core.processes import LAUNCHER_GRACE_MS
from agent.core.runs import UNSURE_MS
from agent.core.steps import EDIT_MS, HINT_MS

from .world import BOX, COURSE, EXEC_CHILD, INCREMENTAL, SERVER, conclude, events_of, executed, exited, queue, told

HOUR = 3_600_000
APP, TEST = "exercises/01-hello/app.py", "exercises/01-hello/test.py"
BEGIN: list[Observation] = [AgentStarted(0), CourseRead(0, COURSE)]
#: A LearnPack server (process 10) that began at 100 and opened 01-hello at 200.
SERVED: list[Observation] = [
    *BEGIN,
    executed(100, 10, SERVER),
    queue(150, "initializing"),
    queue(200, "initializing", "start_exercise 01-hello"),
]
OPENED = ["session_start @100", "open_step 01-hello @200"]


def learnpack_build(at: int, pid: int, command: str, end: ProcessExited, **more: object) -> list[Observation]:
    """box (pid) runs the program (pid + 1) and is ended by the server right after it."""
    return [
        executed(at, pid, BOX, parent=10),
        executed(at + 80, pid + 1, command, parent=pid, terminal=False, **more),  # type: ignore[arg-type]
        replace(end, pid=pid + 1, born=(pid + 1) * 10),
        exited(end.at + 3, pid, signal=15),
    ]


def learnpack_test(at: int, pid: int, command: str, end: ProcessExited, **more: object) -> list[Observation]:
    return [
        executed(at, pid, EXEC_CHILD, parent=10, terminal=False),
        executed(at + 60, pid + 1, ["/bin/sh", "-c", command], parent=pid, terminal=False),
        executed(at + 70, pid + 2, command, parent=pid + 1, terminal=False, **more),  # type: ignore[arg-type]
        replace(end, pid=pid + 2, born=(pid + 2) * 10),
        exited(end.at + 2, pid + 1, end.exit_code or 0),
        exited(end.at + 6, pid, end.exit_code or 0),
    ]


# --- runs ---------------------------------------------------------------------------------------------------------


def test_a_run_in_a_terminal_opens_the_step_and_starts_a_session() -> None:
    story: list[Observation] = [*BEGIN, executed(10, 5, f"python {APP}"), exited(40, 5, 1)]
    assert conclude(story) == ["session_start @10", "open_step 01-hello @10", "compile 01-hello 1 @10-40 terminal"]


def test_a_build_of_learnpack_has_the_launcher_s_times_and_the_program_s_exit_code() -> None:
    story: list[Observation] = [*SERVED, *learnpack_build(1000, 20, f"python /c/{APP}", exited(1200, 0, 3))]
    assert conclude(story) == [*OPENED, "compile 01-hello 3 @1000-1203 learnpack"]


def test_a_test_of_learnpack_that_passes_completes_its_step() -> None:
    story: list[Observation] = [*SERVED, *learnpack_test(1000, 20, f"pytest ./{TEST} --testdox", exited(1500, 0, 0))]
    assert conclude(story) == [*OPENED, "test 01-hello 0 @1000-1506 learnpack", "complete_step 01-hello @1506"]


def test_a_build_killed_by_learnpack_after_three_seconds_has_a_signal_and_no_exit_code() -> None:
    story: list[Observation] = [*SERVED, *learnpack_build(1000, 20, f"python /c/{APP}", exited(4090, 0, signal=15))]
    assert conclude(story) == [*OPENED, "compile 01-hello sig15 @1000-4093 learnpack"]


def test_the_version_question_of_the_server_is_no_run() -> None:
    story: list[Observation] = [
        *SERVED,
        executed(900, 20, ["/bin/sh", "-c", "python -c 'import platform'"], parent=10),
        executed(905, 21, ["python", "-c", "import platform"], parent=20),
        exited(930, 21),
        exited(931, 20),
    ]
    assert conclude(story) == OPENED


def test_a_pyenv_shim_is_one_run_judged_by_its_last_program() -> None:
    shim = ["/usr/bin/env bash /p/shims/python x", "bash /p/shims/python x", "bash /p/libexec/pyenv exec python x"]
    chain: list[Observation] = [executed(10 + i, 5, line) for i, line in enumerate(shim)]
    helper: list[Observation] = [executed(14, 6, "bash /p/libexec/pyenv-version-name", parent=5), exited(15, 6)]
    story: list[Observation] = [
        *BEGIN,
        *chain,
        *helper,
        executed(100, 5, f"/p/versions/3.11.7/bin/python {APP}"),
        exited(130, 5),
    ]
    assert conclude(story)[-1] == "compile 01-hello 0 @10-130 terminal"


def test_a_shim_that_finds_no_program_is_no_run() -> None:
    shim = executed(10, 5, f"bash /p/shims/python {APP}")
    assert conclude([*BEGIN, shim, exited(40, 5, 127)]) == []
    assert conclude([*BEGIN, shim, exited(40, 5, 1)])[-1] == "compile 01-hello 1 @10-40 terminal"


def test_a_build_whose_program_was_too_short_to_be_seen_has_no_exit_code() -> None:
    story: list[Observation] = [*SERVED, executed(1000, 20, BOX, parent=10), exited(1200, 20, signal=15)]
    assert conclude(story, until=1200 + UNSURE_MS - 1) == OPENED  # LearnPack's own telemetry may tell more
    assert conclude(story, until=1200 + UNSURE_MS) == [*OPENED, "compile 01-hello None @1000-1200 learnpack"]


def test_such_a_build_belongs_to_the_step_that_learnpack_names() -> None:
    box: list[Observation] = [*SERVED, executed(1000, 20, BOX, parent=10), exited(1200, 20, signal=15)]
    told_of = RunRecorded(4_300, "04-more", "compile", 994, 1_202, 0)
    assert conclude([*box, told_of], until=60_000) == [
        *OPENED,
        "open_step 04-more @994",
        "compile 04-more 0 @994-1202 learnpack",
    ]
    another = RunRecorded(4_300, "04-more", "compile", 2_000, 2_200, 0)
    assert "compile 01-hello None @1000-1200 learnpack" in conclude([*box, another], until=60_000)


def test_such_a_build_is_told_after_a_restart_and_opens_no_session_that_is_over() -> None:
    inference = Inference()
    story = [*SERVED, executed(1000, 20, BOX, parent=10), exited(1200, 20, signal=15), exited(2000, 10, 0)]
    conclude([*story, AgentStopped(2_500)], inference=inference)
    again = Inference.resumed(inference.snapshot())
    later: list[Observation] = [AgentStarted(3_000), CourseRead(3_000, COURSE)]
    assert conclude(later, until=60_000, inference=again)[1:] == ["compile 01-hello None @1000-1200 learnpack"]


def test_a_program_that_replaces_itself_is_still_that_run() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}"),
        executed(30, 5, "python -c pass"),
        exited(40, 5, 5),
    ]
    assert conclude(story)[-1] == "compile 01-hello 5 @10-40 terminal"


def test_what_a_run_starts_belongs_to_it() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python -m pytest {TEST}"),
        executed(20, 6, f"python {APP}", parent=5),  # the test runs the student's program
        exited(30, 6, 1),
        exited(40, 5, 0),
    ]
    assert conclude(story)[2:] == ["test 01-hello 0 @10-40 terminal", "complete_step 01-hello @40"]


def test_wrappers_are_not_the_run_and_what_they_start_is() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"timeout 1 python {APP}"),
        executed(12, 6, f"python {APP}", parent=5),
        exited(1012, 6, signal=15),
        exited(1013, 5, 124),
    ]
    assert conclude(story)[-1] == "compile 01-hello sig15 @12-1012 terminal"


def test_a_script_of_the_student_that_starts_two_programs_makes_two_runs() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, "bash run.sh"),
        executed(12, 6, f"python {APP}", parent=5),
        exited(40, 6),
        executed(50, 7, "python exercises/04-more/app.py", parent=5),
        exited(80, 7),
        exited(81, 5),
    ]
    assert [line.split()[:2] for line in conclude(story) if line.startswith("compile")] == [
        ["compile", "01-hello"],
        ["compile", "04-more"],
    ]


def test_every_start_of_a_watched_program_is_a_run_and_the_watcher_is_none() -> None:
    js = "exercises/02-js/app.js"
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"node --watch {js}"),
        executed(15, 6, f"/usr/bin/node {js}", parent=5),
        exited(60, 6),
        executed(500, 7, f"/usr/bin/node {js}", parent=5),
        exited(560, 7, 1),
        exited(900, 5, signal=2),
    ]
    assert [line for line in conclude(story) if "02-js" in line][1:] == [
        "compile 02-js 0 @15-60 terminal",
        "compile 02-js 1 @500-560 terminal",
    ]


def test_the_source_is_the_text_read_at_the_start_and_a_test_s_is_the_entry_file_s() -> None:
    texts = {APP: "print(1)", TEST: "def test_a(): ..."}
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}", texts=texts),
        exited(40, 5),
        executed(50, 6, f"pytest {TEST}", texts=texts),
        exited(90, 6),
    ]
    runs = [event.run for event in events_of(story) if isinstance(event, (events.Compile, events.Test))]
    assert [run.source_code for run in runs] == ["print(1)", "print(1)"]


def test_of_identical_copies_the_current_step_s_is_the_run() -> None:
    copies = ("exercises/02-js/app.js", "exercises/05-js-again/app.js")
    story: list[Observation] = [
        *SERVED,
        queue(300, "initializing", "start_exercise 01-hello", "start_exercise 05-js-again"),
        *learnpack_build(1000, 20, "node /h/.compile-run2/tmp/node/source-a-1.js", exited(1100, 0, 0), copy_of=copies),
    ]
    assert conclude(story)[-1] == "compile 05-js-again 0 @1000-1103 learnpack"


def test_a_copy_of_an_empty_file_is_the_current_step_s_run() -> None:
    story: list[Observation] = [
        *SERVED,
        *learnpack_build(1000, 20, "node /h/.compile-run2/tmp/node/source-a-1.js", exited(1100, 0, 0)),
    ]
    assert conclude(story)[-1] == "compile 01-hello 0 @1000-1103 learnpack"


def test_code_in_the_root_belongs_to_the_step_that_is_current_then() -> None:
    story: list[Observation] = [
        AgentStarted(0),
        CourseRead(0, INCREMENTAL),
        executed(100, 10, SERVER),
        queue(200, "start_exercise 02-b"),
        queue(210, "start_exercise 02-b", "configuration_loaded"),
        *learnpack_build(1000, 20, "python /c/app.py", exited(1100, 0, 0), texts={"app.py": "print(1)"}),
    ]
    assert conclude(story)[-1] == "compile 02-b 0 @1000-1103 learnpack"


def test_two_builds_at_once_are_two_runs() -> None:
    one = learnpack_build(1000, 20, f"python /c/{APP}", exited(1300, 0, 0))
    two = learnpack_build(1050, 30, f"python /c/{APP}", exited(1200, 0, 1))
    story = sorted([*one, *two], key=lambda seen: seen.at)
    assert conclude([*SERVED, *story])[2:] == [
        "compile 01-hello 1 @1050-1203 learnpack",
        "compile 01-hello 0 @1000-1303 learnpack",
    ]


def test_a_program_that_outlives_its_launcher_is_waited_for_a_moment() -> None:
    begun: list[Observation] = [
        *SERVED,
        executed(1000, 20, BOX, parent=10),
        executed(1080, 21, f"python /c/{APP}", parent=20),
    ]
    killed: list[Observation] = [*begun, exited(2000, 20, signal=15)]
    assert conclude([*killed, exited(2100, 21, 7)])[-1] == "compile 01-hello 7 @1000-2000 learnpack"
    assert conclude(killed, until=2000 + LAUNCHER_GRACE_MS)[-1] == "compile 01-hello None @1000-2000 learnpack"


def test_a_compiler_that_fails_is_a_run_and_one_that_succeeds_is_none() -> None:
    gcc = executed(10, 5, "gcc exercises/01-hello/app.c -o exercises/01-hello/app")
    program: list[Observation] = [executed(500, 6, "./exercises/01-hello/app"), exited(520, 6, 4)]
    assert conclude([*BEGIN, gcc, exited(400, 5, 1)])[-1] == "compile 01-hello 1 @10-400 terminal"
    assert conclude([*BEGIN, gcc, exited(400, 5, 0), *program])[1:] == [
        "open_step 01-hello @500",
        "compile 01-hello 4 @500-520 terminal",
    ]


# --- tests and completions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "end", "completes"),
    [
        (f"pytest {TEST}", exited(90, 5, 0), True),
        (f"pytest {TEST}", exited(90, 5, 1), False),
        (f"pytest {TEST}", exited(90, 5, None), False),
        (f"pytest {TEST}", exited(90, 5, signal=2), False),
        (f"pytest -k one {TEST}", exited(90, 5, 0), False),
        (f"pytest {TEST}::test_one", exited(90, 5, 0), False),
        (f"pytest --lf {TEST}", exited(90, 5, 0), False),
        (f"python {APP}", exited(90, 5, 0), False),
        (f"python -m doctest {APP}", exited(90, 5, 0), False),
        (f"python {TEST}", exited(90, 5, 0), False),
    ],
)
def test_only_a_known_success_of_the_whole_test_file_completes(
    command: str, end: ProcessExited, completes: bool
) -> None:
    lines = conclude([*BEGIN, executed(10, 5, command), end])
    assert ("complete_step 01-hello @90" in lines) is completes


def test_nothing_collected_in_a_terminal_is_no_test() -> None:
    story: list[Observation] = [*BEGIN, executed(10, 5, "pytest", cwd="/c/exercises/01-hello"), exited(90, 5, 5)]
    assert conclude(story) == []


def test_nothing_collected_by_learnpack_is_a_test_that_did_not_pass() -> None:
    story: list[Observation] = [*SERVED, *learnpack_test(1000, 20, f"pytest ./{TEST}", exited(1500, 0, 5))]
    assert conclude(story)[2:] == ["test 01-hello 5 @1000-1506 learnpack"]


@pytest.mark.parametrize(
    ("report", "code", "completes"),
    [
        ((3, 0, 0), 0, True),
        ((3, 0, 0), None, True),
        ((3, 0, 0), 1, False),
        ((2, 1, 1), 0, False),
        ((0, 0, 0), 0, False),  # every test skipped
        ((0, 0, 1), 0, False),
    ],
)
def test_the_counts_of_jest_s_report_decide(report: tuple[int, int, int], code: int | None, completes: bool) -> None:
    jest = 'node /n/jest --config={"testRegex":"exercises/02-js/tests.js"} --colors'
    story: list[Observation] = [
        *SERVED,
        ReportRead(1480, "02-js", *report),
        *learnpack_test(1000, 20, jest, exited(1500, 0, code)),
    ]
    story.sort(key=lambda seen: seen.at)
    assert ("complete_step 02-js @1506" in conclude(story)) is completes


def test_a_report_of_an_earlier_run_decides_nothing() -> None:
    jest = 'node /n/jest --config={"testRegex":"exercises/02-js/tests.js"} --colors'
    old = ReportRead(300, "02-js", 3, 0, 0)
    story: list[Observation] = [*SERVED, old, *learnpack_test(9000, 20, jest, exited(9500, 0, None))]
    assert "complete_step 02-js @9506" not in conclude(story)


def test_a_step_is_completed_once() -> None:
    passed: list[Observation] = [
        *learnpack_test(1000, 20, f"pytest {TEST}", exited(1500, 0)),
        *learnpack_test(2000, 30, f"pytest {TEST}", exited(2500, 0)),
    ]
    assert [line for line in conclude([*SERVED, *passed]) if line.startswith("complete")] == [
        "complete_step 01-hello @1506"
    ]


def test_several_steps_in_one_command_share_a_success_and_hide_a_failure() -> None:
    both = f"pytest {TEST} exercises/04-more/test.py"
    assert [
        line.split()[:3] for line in conclude([*BEGIN, executed(10, 5, both), exited(90, 5, 1)]) if line[:4] == "test"
    ] == [
        ["test", "01-hello", "None"],
        ["test", "04-more", "None"],
    ]
    passed = conclude([*BEGIN, executed(10, 5, both), exited(90, 5, 0)])
    assert [line for line in passed if line.startswith("complete")] == [
        "complete_step 01-hello @90",
        "complete_step 04-more @90",
    ]


def test_a_test_of_the_whole_course_is_one_test_of_the_current_step() -> None:
    configured = CourseRead(0, replace(COURSE, pytest_files=("test.py",)))
    story: list[Observation] = [AgentStarted(0), configured, executed(10, 5, "python -m pytest"), exited(90, 5, 0)]
    assert conclude(story) == []
    here: list[Observation] = [executed(1, 4, f"python {APP}"), exited(5, 4)]
    assert conclude([*story[:2], *here, *story[2:]])[3:] == [
        "test 01-hello 0 @10-90 terminal",
        "complete_step 01-hello @90",
    ]


# --- openings -----------------------------------------------------------------------------------------------------


def test_position_zero_is_opened_like_any_other_and_a_step_without_tests_is_done_when_left() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(100, 10, SERVER),
        queue(150, "initializing"),
        queue(200, "initializing", "start_exercise 00-welcome"),
        queue(300, "initializing", "start_exercise 00-welcome", "start_exercise 01-hello"),
    ]
    assert conclude(story)[1:] == [
        "open_step 00-welcome @200",
        "complete_step 00-welcome @300",
        "open_step 01-hello @300",
    ]


def test_a_burst_of_openings_keeps_its_order() -> None:
    opened = [f"start_exercise {slug}" for slug in ("01-hello", "02-js", "03-read", "04-more")]
    story: list[Observation] = [
        *BEGIN,
        executed(100, 10, SERVER),
        queue(150, "x"),
        ConfigRead(198, "04-more"),
        queue(200, "x", *opened),
    ]
    assert [line for line in conclude(story, until=9000) if line.startswith("open")] == [
        "open_step 01-hello @200",
        "open_step 02-js @200",
        "open_step 03-read @200",
        "open_step 04-more @200",
    ]


def test_going_back_to_a_step_is_an_opening_again() -> None:
    one, two = "start_exercise 01-hello", "start_exercise 04-more"
    story: list[Observation] = [
        *BEGIN,
        queue(150, "initializing"),
        queue(200, "initializing", one),
        queue(300, "initializing", one, two),
    ]
    story.append(queue(400, "initializing", one, two, one))
    assert [line for line in conclude(story) if line.startswith("open")] == [
        "open_step 01-hello @200",
        "open_step 04-more @300",
        "open_step 01-hello @400",
    ]


def test_config_json_alone_opens_a_step_after_waiting_for_the_queue() -> None:
    story: list[Observation] = [*BEGIN, queue(100, "initializing"), ConfigRead(110, None), ConfigRead(500, "01-hello")]
    assert "open_step 01-hello @500" not in conclude(story)
    assert conclude(story, until=500 + HINT_MS)[-1] == "open_step 01-hello @500"


def test_config_json_and_the_queue_together_are_one_opening() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(50, 10, SERVER),
        queue(100, "initializing"),
        ConfigRead(110, None),
        ConfigRead(500, "01-hello"),
        queue(502, "initializing", "start_exercise 01-hello"),
        ResetCopyAppeared(520, "01-hello"),
    ]
    assert [line for line in conclude(story, until=HOUR) if line.startswith("open")] == ["open_step 01-hello @502"]


def test_a_queue_that_comes_too_late_for_its_opening_opens_nothing_a_second_time() -> None:
    late = 1_000 + 4 * HINT_MS
    entries = ("initializing", "start_exercise 01-hello", "start_exercise 04-more")
    story: list[Observation] = [*SERVED, ConfigRead(1_000, "04-more"), queue(late, *entries)]
    assert conclude(story)[2:] == ["open_step 04-more @1000"]
    # Only once: what follows in the queue is another opening.
    again = queue(late + 100, *entries, "start_exercise 04-more")
    assert conclude([*story, again])[3:] == [f"open_step 04-more @{late + 100}"]
    other = queue(late, "initializing", "start_exercise 01-hello", "start_exercise 03-read", "start_exercise 04-more")
    lines = conclude([*story[:-1], other, replace(other, at=late + 50, entries=(*other.entries, other.entries[-1]))])
    assert [line for line in lines[3:] if "open" in line] == [
        f"open_step 03-read @{late}",
        f"open_step 04-more @{late}",
        f"open_step 04-more @{late + 50}",
    ]


def test_a_first_copy_in_resets_opens_a_step_only_while_learnpack_lives() -> None:
    copy = ResetCopyAppeared(500, "04-more")
    assert conclude([*SERVED, copy], until=5000)[2:] == ["open_step 04-more @500"]
    assert conclude([*BEGIN, copy], until=5000) == []


def test_a_save_in_another_step_opens_it_after_a_moment() -> None:
    story: list[Observation] = [*SERVED, FileChanged(5000, "exercises/04-more/app.py", Change.MODIFIED)]
    assert conclude(story) == OPENED
    assert conclude(story, until=5000 + EDIT_MS) == [*OPENED, "open_step 04-more @5000"]


def test_a_run_confirms_a_save_at_once() -> None:
    story: list[Observation] = [
        *SERVED,
        FileChanged(5000, "exercises/04-more/app.py", Change.MODIFIED),
        executed(5200, 30, "python exercises/04-more/app.py"),
        exited(5230, 30),
    ]
    assert conclude(story, until=9000)[2:] == ["open_step 04-more @5200", "compile 04-more 0 @5200-5230 terminal"]


@pytest.mark.parametrize(
    "seen",
    [
        FileChanged(5000, "exercises/04-more/README.md", Change.MODIFIED),
        FileChanged(5000, "exercises/04-more/test.py", Change.MODIFIED),
        FileChanged(5000, "exercises/04-more/solution.hide.py", Change.CREATED),
        FileChanged(5000, "exercises/04-more/app.py", Change.DELETED),
        FileChanged(5000, "exercises/01-hello/app.py", Change.MODIFIED),  # the current step
        FileChanged(5000, "notes.py", Change.MODIFIED),
    ],
)
def test_other_files_open_nothing(seen: FileChanged) -> None:
    assert conclude([*SERVED, seen], until=9000) == OPENED


def test_many_steps_changed_at_once_are_a_checkout_and_no_student() -> None:
    changed: list[Observation] = [
        FileChanged(5000 + n, f"exercises/{step}", Change.MODIFIED)
        for n, step in enumerate(["02-js/app.js", "04-more/app.py", "05-js-again/app.js"])
    ]
    assert conclude([*SERVED, *changed], until=9000) == OPENED


@pytest.mark.parametrize("command", ["python /v/bin/black .", "git pull"])
def test_what_a_formatter_or_a_checkout_rewrites_opens_nothing(command: str) -> None:
    story: list[Observation] = [
        *SERVED,
        executed(4990, 30, command),
        FileChanged(5000, "exercises/04-more/app.py", Change.MODIFIED),
        exited(5010, 30),
    ]
    assert conclude(story, until=9000) == OPENED


def test_a_build_that_an_opening_overtook_does_not_open_its_step_again() -> None:
    story: list[Observation] = [
        *SERVED,
        ConfigRead(210, "01-hello"),
        ConfigRead(990, "04-more"),
        queue(992, "initializing", "start_exercise 01-hello", "start_exercise 04-more"),
        *learnpack_build(1000, 20, f"python /c/{APP}", exited(1200, 0, 0)),
    ]
    assert conclude(story)[2:] == ["open_step 04-more @992", "compile 01-hello 0 @1000-1203 learnpack"]


def test_a_reset_is_its_own_event_and_its_saves_open_nothing() -> None:
    entries = ("initializing", "start_exercise 01-hello")
    story: list[Observation] = [
        *SERVED,
        FileChanged(500, "exercises/04-more/app.py", Change.MODIFIED),
        queue(503, *entries, "reset_exercise 04-more"),
    ]
    assert conclude(story, until=9000)[2:] == ["reset_step 04-more @503"]


def test_the_step_that_is_open_when_the_agent_comes_late_is_opened() -> None:
    server = executed(5000, 10, SERVER, found=True, started_at=100)
    before = queue(4000, "initializing", "start_exercise 00-welcome", "start_exercise 01-hello")
    assert conclude([AgentStarted(5000), CourseRead(5000, COURSE), server, before]) == [
        "session_start @100",
        "open_step 01-hello @4000",
    ]


def test_a_queue_of_a_server_that_is_gone_opens_nothing() -> None:
    began: list[Observation] = [AgentStarted(5000), CourseRead(5000, COURSE)]
    assert conclude([*began, queue(4000, "initializing", "start_exercise 01-hello")]) == []


# --- sessions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [exited(9000, 10, 0), exited(9000, 10, signal=9)])
def test_the_session_ends_when_the_server_does(end: ProcessExited) -> None:
    assert conclude([*SERVED, end]) == [*OPENED, "session_end @9000"]


def test_connection_ended_just_before_the_exit_is_one_end() -> None:
    story: list[Observation] = [
        *SERVED,
        queue(8990, "initializing", "start_exercise 01-hello", "connection_ended"),
        exited(9000, 10),
    ]
    assert conclude(story) == [*OPENED, "session_end @9000"]


def test_what_learnpack_wrote_last_is_read_when_it_is_gone_and_begins_no_session() -> None:
    story: list[Observation] = [
        *SERVED,
        exited(9000, 10),
        queue(9100, "initializing", "start_exercise 01-hello", "start_exercise 02-js"),
    ]
    assert conclude(story) == [*OPENED, "session_end @9000", "open_step 02-js @9000"]
    later = replace(story[-1], at=9000 + LATE_MS + 1)
    assert "session_start" in conclude([*story[:-1], later])[-2], "a server that nobody saw"


def test_without_a_visible_server_the_queue_tells_start_and_end() -> None:
    story: list[Observation] = [
        *BEGIN,
        queue(50, "old"),
        queue(100, "initializing"),
        queue(900, "initializing", "connection_ended"),
    ]
    assert conclude(story) == ["session_start @100", "session_end @900"]


def test_work_without_learnpack_ends_at_its_last_activity_after_half_an_hour() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}"),
        exited(40, 5),
        executed(HOUR, 6, f"python {APP}"),
        exited(HOUR + 30, 6),
    ]
    assert [line for line in conclude(story, until=3 * HOUR) if line.startswith("session")] == [
        "session_start @10",
        "session_end @40",
        f"session_start @{HOUR}",
        f"session_end @{HOUR + 30}",
    ]


def test_a_session_with_learnpack_has_no_silence() -> None:
    assert conclude(SERVED, until=9 * HOUR) == OPENED


def test_terminal_work_before_learnpack_starts_is_the_same_session() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}"),
        exited(40, 5),
        executed(100, 10, SERVER),
        exited(HOUR, 10),
    ]
    assert [line for line in conclude(story, until=3 * HOUR) if line.startswith("session")] == [
        "session_start @10",
        f"session_end @{HOUR}",
    ]


def test_with_two_servers_the_session_ends_with_the_last() -> None:
    story: list[Observation] = [*SERVED, executed(300, 11, SERVER), exited(400, 10), exited(900, 11)]
    assert conclude(story) == [*OPENED, "session_end @900"]


# --- restarts of the agent ----------------------------------------------------------------------------------------


def restarted(story: list[Observation]) -> Inference:
    before = Inference()
    events_of(story, inference=before)
    return Inference.resumed(from_plain(Snapshot, to_plain(before.snapshot())))  # as the journal keeps it


def test_a_restart_with_learnpack_still_running_continues_the_session_and_the_step() -> None:
    after: list[Observation] = [
        AgentStarted(5000),
        CourseRead(5000, COURSE),
        executed(5001, 10, SERVER, found=True, started_at=100),
        ProcessesListed(5002, frozenset({(10, 100)})),
        queue(4000, "initializing", "start_exercise 01-hello", "start_exercise 04-more"),
        exited(9000, 10),
    ]
    inference = restarted([*SERVED, AgentStopped(3000)])
    assert conclude(after, inference=inference) == ["gap 3000-5000", "open_step 04-more @4000", "session_end @9000"]


def test_a_run_in_flight_over_a_restart_keeps_its_start_and_its_source() -> None:
    begun = executed(1000, 30, f"python {APP}", texts={APP: "print(1)"})
    found = executed(5001, 30, f"python {APP}", texts={APP: "print(2)"}, found=True, started_at=1003)
    after: list[Observation] = [
        AgentStarted(5000),
        CourseRead(5000, COURSE),
        found,
        ProcessesListed(5002, frozenset({(30, 300)})),
        exited(6000, 30, 0),
    ]
    found_events = events_of(after, inference=restarted([*BEGIN, begun, AgentStopped(3000)]))
    run = next(event.run for event in found_events if isinstance(event, events.Compile))
    assert (run.started_at, run.ended_at, run.exit_code, run.source_code) == (1000, 6000, 0, "print(1)")


def test_a_run_that_ended_while_the_agent_was_down_has_no_end_and_no_code() -> None:
    begun = executed(1000, 30, f"python -m pytest {TEST}")
    after: list[Observation] = [AgentStarted(5000), CourseRead(5000, COURSE), ProcessesListed(5002, frozenset())]
    lines = conclude(after, inference=restarted([*BEGIN, begun, AgentStopped(3000)]))
    assert lines[-1] == "test 01-hello None @1000-None terminal"


def test_a_server_that_went_while_the_agent_was_down_ends_the_session_at_the_last_work() -> None:
    after: list[Observation] = [
        AgentStarted(5000),
        CourseRead(5000, COURSE),
        executed(5001, 12, SERVER, found=True, started_at=4000),
        ProcessesListed(5002, frozenset({(12, 120)})),
    ]
    lines = conclude(after, inference=restarted([*SERVED, AgentStopped(3000)]))
    assert lines == ["gap 3000-5000", "session_end @200", "session_start @4000"]


def test_a_completed_step_is_not_completed_again_after_a_restart() -> None:
    passed: list[Observation] = [executed(10, 5, f"pytest {TEST}"), exited(90, 5)]
    again: list[Observation] = [
        AgentStarted(200),
        CourseRead(200, COURSE),
        executed(300, 6, f"pytest {TEST}"),
        exited(390, 6),
    ]
    inference = restarted([*BEGIN, *passed])
    assert not any(line.startswith("complete") for line in conclude(again, inference=inference))


# --- gaps and clocks ----------------------------------------------------------------------------------------------


def test_lost_events_are_a_gap() -> None:
    assert conclude([*BEGIN, EventsLost(90, 50, "processes", "buffer overflow")]) == ["gap 50-90"]


def test_a_course_that_was_gone_leaves_a_gap_when_it_is_back() -> None:
    assert conclude([*BEGIN, CourseGone(50, "deleted"), CourseRead(90, COURSE)]) == ["gap 50-90"]


def test_lost_events_resolve_processes_that_are_over() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}"),
        EventsLost(90, 50, "processes", "buffer overflow"),
        ProcessesListed(91, frozenset()),
    ]
    assert conclude(story)[-1] == "compile 01-hello None @10-None terminal"


def test_a_clock_set_back_does_not_keep_a_session_open() -> None:
    inference = Inference(Settings(session_silence_ms=1000))
    story: list[Observation] = [
        *BEGIN,
        executed(HOUR, 5, f"python {APP}"),
        exited(HOUR + 40, 5),
        ClockJumped(140, -HOUR),
    ]
    assert conclude(story, inference=inference, until=1039)[-1].startswith("gap")
    # Closed a second of real time after the last work, and never before it began by the old clock.
    assert conclude([], inference=inference, until=1040) == [f"session_end @{HOUR}"]


def test_every_event_has_evidence() -> None:
    story: list[Observation] = [
        *SERVED,
        *learnpack_test(1000, 20, f"pytest ./{TEST}", exited(1500, 0, 0)),
        exited(9000, 10),
    ]
    assert all(event.evidence for event in events_of(story))
    assert all(reason.words for event in events_of(story) for reason in event.evidence)


def test_the_same_observations_lead_to_the_same_events() -> None:
    story: list[Observation] = [
        *SERVED,
        *learnpack_test(1000, 20, f"pytest ./{TEST}", exited(1500, 0, 0)),
        exited(9000, 10),
    ]
    assert events_of(story) == events_of(story)


# --- late, long and odd -------------------------------------------------------------------------------------------


def received(story: list[Observation], inference: Inference | None = None) -> list[str]:
    """As the loop may do it: an observation comes before anybody asked about deadlines that have passed."""
    inference = inference or Inference()
    return [told(event) for seen in story for event in inference.receive(seen)]


def test_a_session_whose_silence_has_passed_ends_before_the_next_morning_s_work() -> None:
    morning = 12 * HOUR
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}"),
        exited(40, 5),
        executed(morning, 10, SERVER),
    ]
    assert [line for line in received(story) if line.startswith("session")] == [
        "session_start @10",
        "session_end @40",
        f"session_start @{morning}",
    ]


def test_a_program_that_keeps_running_does_not_open_its_step_a_second_time() -> None:
    story: list[Observation] = [
        *SERVED,
        executed(1000, 30, "python exercises/04-more/app.py"),
        FileChanged(2000, "exercises/04-more/app.py", Change.MODIFIED),
        exited(9000, 30),
    ]
    assert [line for line in conclude(story) if line.startswith("open")] == [
        "open_step 01-hello @200",
        "open_step 04-more @2000",
    ]


def test_a_run_that_outlives_its_session_does_not_begin_the_next_one_in_the_past() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python {APP}"),
        exited(40, 5),
        executed(50, 6, f"python {APP}"),
        exited(2 * HOUR, 6),
    ]
    assert [line for line in conclude(story) if line.startswith("session")] == [
        "session_start @10",
        "session_end @40",
        "session_start @50",
    ]


def test_a_save_that_waits_to_be_believed_survives_a_restart() -> None:
    saved = FileChanged(2900, "exercises/04-more/app.py", Change.MODIFIED)
    inference = restarted([*SERVED, saved, AgentStopped(3000)])
    after: list[Observation] = [
        AgentStarted(5000),
        CourseRead(5000, COURSE),
        executed(5001, 10, SERVER, found=True, started_at=100),
        ProcessesListed(5002, frozenset({(10, 100)})),
    ]
    assert "open_step 04-more @2900" in conclude(after, inference=inference)


def test_a_run_in_flight_over_a_restart_does_not_open_the_step_that_was_left_meanwhile() -> None:
    begun: list[Observation] = [
        *SERVED,
        executed(1000, 30, f"python {APP}"),
        queue(2000, "initializing", "start_exercise 01-hello", "start_exercise 04-more"),
        AgentStopped(3000),
    ]
    after: list[Observation] = [
        AgentStarted(5000),
        CourseRead(5000, COURSE),
        executed(5001, 10, SERVER, found=True, started_at=100),
        executed(5001, 30, f"python {APP}", found=True, started_at=1000),
        ProcessesListed(5002, frozenset({(10, 100), (30, 300)})),
        exited(6000, 30),
    ]
    assert conclude(after, inference=restarted(begun)) == ["gap 3000-5000", "compile 01-hello 0 @1000-6000 terminal"]


def test_a_new_queue_of_the_same_length_is_not_taken_for_the_old_one() -> None:
    old = QueueRead(200, (QueueEntry("initializing", None, "1"), QueueEntry("start_exercise", "01-hello", "2")))
    new = QueueRead(
        900,
        (
            QueueEntry("initializing", None, "7"),
            QueueEntry("start_exercise", "01-hello", "8"),
            QueueEntry("start_exercise", "04-more", "9"),
        ),
    )
    lines = conclude([*BEGIN, executed(100, 10, SERVER), old, new])
    assert [line for line in lines if line.startswith("open")] == [
        "open_step 01-hello @200",
        "open_step 01-hello @900",
        "open_step 04-more @900",
    ]


def test_a_checkout_that_takes_its_time_opens_nothing() -> None:
    steps = ["01-hello/app.py", "02-js/app.js", "04-more/app.py", "05-js-again/app.js"]
    changed: list[Observation] = [
        FileChanged(5000 + at, f"exercises/{step}", Change.MODIFIED)
        for at, step in zip((0, 500, 1000, 2100), steps, strict=True)
    ]
    assert conclude([*BEGIN, *changed], until=HOUR) == []


def test_a_clock_set_back_moves_the_runs_that_go_on() -> None:
    story: list[Observation] = [*BEGIN, executed(HOUR, 5, f"python {APP}"), ClockJumped(50, -HOUR), exited(90, 5)]
    assert conclude(story)[-1] == "compile 01-hello 0 @0-90 terminal"


def test_a_clock_set_back_while_the_agent_was_down_is_a_gap_too() -> None:
    inference = restarted([*BEGIN, executed(HOUR, 5, f"python {APP}"), exited(HOUR + 40, 5)])
    assert conclude([AgentStarted(90)], inference=inference) == ["gap 90-90"]


def test_a_clock_set_back_while_the_agent_was_down_leaves_nothing_in_the_future() -> None:
    day = 24 * HOUR
    before: list[Observation] = [
        AgentStarted(day),
        CourseRead(day, COURSE),
        executed(day + 100, 5, f"python {APP}"),
        exited(day + 140, 5),
    ]
    ended = Inference()
    assert conclude(before, until=day + HOUR, inference=ended)[-1] == f"session_end @{day + 140}"
    ended.receive(AgentStopped(day + HOUR))
    after: list[Observation] = [
        AgentStarted(0),
        CourseRead(0, COURSE),
        executed(100, 10, SERVER),
        queue(200, "initializing", "start_exercise 03-read"),
        queue(300, "initializing", "start_exercise 03-read", "start_exercise 04-more"),
    ]
    assert conclude(after, inference=Inference.resumed(ended.snapshot())) == [
        "gap 0-0",
        "session_start @100",
        "open_step 03-read @200",
        "complete_step 03-read @300",
        "open_step 04-more @300",
    ]


ONLY_THE_BOX: list[Observation] = [
    *SERVED,
    executed(1000, 20, BOX, parent=10),
    exited(1200, 20, None, 15),
    AgentStopped(2000),
]


@pytest.mark.parametrize("at", [3000, 60_000])
def test_a_build_of_which_only_the_box_was_seen_survives_a_restart(at: int) -> None:
    after: list[Observation] = [
        AgentStarted(at),
        CourseRead(at + 1, COURSE),
        executed(at + 2, 10, SERVER, found=True, started_at=100),
        ProcessesListed(at + 3, frozenset({(10, 100)})),
    ]
    lines = conclude(after, until=at + 10_000, inference=restarted(ONLY_THE_BOX))
    assert lines == [f"gap 2000-{at}", "compile 01-hello None @1000-1200 learnpack"]


def test_a_build_that_is_told_after_its_session_begins_no_visit() -> None:
    inference = Inference()
    story = [*ONLY_THE_BOX[:-1], exited(2000, 10)]
    lines = conclude(story, until=1200 + UNSURE_MS, inference=inference)
    assert lines[-2:] == ["session_end @2000", "compile 01-hello None @1000-1200 learnpack"]
    assert inference.snapshot().presence is None


@pytest.mark.parametrize("pattern", ["(.+)+Z", "(a|a)*Z", "(.{1,9}){1,9}Z", ".*.*.*.*.*.*.*.*Z"])
def test_a_pattern_that_never_ends_is_taken_literally(pattern: str) -> None:
    story: list[Observation] = [*BEGIN, executed(10, 5, ["node", "/n/jest", pattern]), exited(40, 5, 1)]
    assert conclude(story) == []


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 3000, "[", "*"])
def test_a_pattern_that_is_no_pattern_is_taken_literally(pattern: str) -> None:
    story: list[Observation] = [*BEGIN, executed(10, 5, ["node", "/n/jest", pattern]), exited(40, 5, 1)]
    assert conclude(story) == []


def test_a_run_whose_exit_code_says_nothing_has_none() -> None:
    story: list[Observation] = [
        *BEGIN,
        executed(10, 5, f"python /x/vscode_pytest/run_pytest_script.py --rootdir=. {TEST}"),
        exited(40, 5, 0),
    ]
    assert conclude(story)[-1] == "test 01-hello None @10-40 terminal"


def test_a_compiled_program_is_no_source() -> None:
    program = "exercises/01-hello/a.out"
    texts = {program: "\x7fELF\0", APP: "print(1)"}
    story: list[Observation] = [*BEGIN, executed(10, 5, f"./{program}", texts=texts), exited(40, 5, 0)]
    (run,) = [event.run for event in events_of(story) if isinstance(event, events.Compile)]
    assert run.source_code == "print(1)"


def test_a_step_that_is_renamed_while_its_program_runs_keeps_its_run() -> None:
    after = step_from("exercises/01-hi", ["README.md", "app.py", "test.py"], 1, ENTRIES)
    renamed = replace(COURSE, steps=tuple(after if step.slug == "01-hello" else step for step in COURSE.steps))
    seen = [
        *BEGIN,
        executed(1_000, 20, f"python {APP}"),
        CourseRead(1_500, renamed),
        exited(2_000, 20, 0),
        executed(3_000, 21, "python exercises/01-hi/app.py"),
        exited(3_500, 21, 1),
    ]
    assert [event for event in conclude(seen) if event.startswith("compile")] == [
        "compile 01-hello 0 @1000-2000 terminal",
        "compile 01-hi 1 @3000-3500 terminal",
    ]


JAVA = step_from("exercises/01-java", ["README.md", "App.java", "Test.java"], 0, ENTRIES)


@pytest.mark.parametrize(
    ("command", "code", "events_of_it"),
    [
        (
            "java ./exercises/01-java/Test.java",
            0,
            ["test 01-java 0 @1000-1506 learnpack", "complete_step 01-java @1506"],
        ),
        ("java ./exercises/01-java/Test.java", 1, ["test 01-java 1 @1000-1506 learnpack"]),
        ("java ./exercises/01-java/App.java", 0, ["test 01-java 0 @1000-1506 learnpack"]),
        ("javac ./exercises/01-java/Test.java", 1, ["test 01-java 1 @1000-1506 learnpack"]),
        ("javac ./exercises/01-java/Test.java", 0, []),
    ],
)
def test_what_learnpack_starts_by_way_of_shelljs_is_a_test(command: str, code: int, events_of_it: list[str]) -> None:
    course = replace(COURSE, steps=(JAVA,))
    seen = [
        AgentStarted(0),
        CourseRead(0, course),
        executed(100, 10, SERVER),
        queue(200, "initializing", "start_exercise 01-java"),
        *learnpack_test(1_000, 20, command, exited(1_500, 0, code)),
    ]
    assert conclude(seen)[2:] == events_of_it
