"""HTML and React builds have no process: what is concluded from the preview that they leave behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.builds import BUNDLE_MS, NO_WINDOW_MS
from agent.core.course import ENTRIES, Course, step_from
from agent.core.events import Compile
from agent.core.inference import Inference
from agent.core.observations import (
    AgentStarted,
    ClockJumped,
    CourseRead,
    FileText,
    Observation,
    Preview,
    PreviewWritten,
    QueueEntry,
    QueueRead,
    RunRecorded,
)

from .world import ROOT, SERVER, conclude, events_of, executed, exited, told

PAGE = ["README.md", "index.html", "solution.hide.html", "styles.css", "tests.js"]
COURSE = Course(
    ROOT,
    "pages",
    (
        step_from("exercises/01-page", PAGE, 0, ENTRIES),
        step_from("exercises/02-react", ["README.md", "app.jsx", "tests.js"], 1, ENTRIES),
        step_from("exercises/03-python", ["README.md", "app.py", "test.py"], 2, ENTRIES),
    ),
)
URL = "http://localhost:3000/preview"


def queue(at: int, *words: str, preview: Preview | None = None) -> QueueRead:
    entries = [word.partition(" ") for word in ("initializing", *words)]
    return QueueRead(
        at, tuple(QueueEntry(name, data or None, str(n)) for n, (name, _, data) in enumerate(entries)), preview
    )


def wrote(
    at: int, name: str, slug: str = "01-page", *, source: str | None = None, failed: bool = False, sure: bool = True
) -> PreviewWritten:
    text = FileText("exercises/01-page/index.html", source) if source else None
    return PreviewWritten(at, name, Preview(slug, failed if name.endswith(".js") else None, text, is_sure=sure))


def served(slug: str) -> list[Observation]:
    """A LearnPack server that began at 100 and opened this step at 200."""
    return [
        AgentStarted(0),
        CourseRead(0, COURSE),
        executed(100, 10, SERVER),
        queue(150),
        queue(200, f"start_exercise {slug}"),
    ]


OPENED = ["session_start @100", "open_step 01-page @200"]
WINDOW = queue(1004, "start_exercise 01-page", f"open_window {URL}")


def test_a_window_is_a_build_that_went_well() -> None:
    source = Preview("01-page", None, FileText("exercises/01-page/index.html", "<p>"))
    seen = [*served("01-page"), wrote(1000, "index.html"), wrote(1001, "styles.css"), replace(WINDOW, preview=source)]
    events = events_of(seen, until=10_000)
    assert conclude(seen, until=10_000) == [*OPENED, "compile 01-page 0 @1000-1004 learnpack"]
    assert isinstance(events[-1], Compile) and events[-1].run.source_code == "<p>" and events[-1].run.command == ()
    assert [reason.words for reason in events[-1].evidence] == [
        "LearnPack wrote index.html for its preview window",
        "LearnPack built the page and opened its preview window (vscode_queue.json got open_window)",
    ]


def test_a_build_whose_copies_were_not_seen_is_one_all_the_same() -> None:
    window = replace(WINDOW, preview=Preview("01-page", False))
    assert conclude([*served("01-page"), window]) == [*OPENED, "compile 01-page 0 @1004-1004 learnpack"]


def test_two_builds_are_two() -> None:
    twice = ("start_exercise 01-page", f"open_window {URL}", f"open_window {URL}")
    seen = [*served("01-page"), wrote(1000, "index.html"), WINDOW, wrote(2000, "index.html"), queue(2003, *twice)]
    assert conclude(seen, until=9_000)[2:] == [
        "compile 01-page 0 @1000-1004 learnpack",
        "compile 01-page 0 @2000-2003 learnpack",
    ]


def test_the_web_uis_own_open_window_is_no_build() -> None:
    # Its data is an object, which has no text.
    assert conclude([*served("01-page"), queue(1004, "start_exercise 01-page", "open_window")]) == OPENED


def test_copies_without_a_window_are_a_build_that_failed() -> None:
    seen = [*served("01-page"), wrote(1000, "solution.hide.html"), wrote(1002, "styles.css")]
    assert conclude(seen, until=1002 + NO_WINDOW_MS - 1) == OPENED
    assert conclude(seen, until=1002 + NO_WINDOW_MS) == [*OPENED, "compile 01-page 1 @1000-1002 learnpack"]


@pytest.mark.parametrize("window", [[], [replace(WINDOW, at=1200)]])
def test_of_a_build_in_which_learnpack_ended_the_end_is_not_known(window: list[Observation]) -> None:
    seen = [*served("01-page"), wrote(1000, "index.html"), exited(1010, 10, signal=9), *window]
    build = "compile 01-page 0 @1000-1010 learnpack" if window else "compile 01-page None @1000-1000 learnpack"
    assert sorted(conclude(seen, until=9_000)) == sorted([*OPENED, "session_end @1010", build])


def test_an_opening_that_is_told_with_the_window_was_before_the_copies() -> None:
    told_late = queue(1004, "start_exercise 03-python", "start_exercise 01-page", f"open_window {URL}")
    seen = [*served("03-python"), wrote(1000, "index.html"), told_late]
    assert conclude(seen, until=9_000)[2:] == ["open_step 01-page @1004", "compile 01-page 0 @1000-1004 learnpack"]


def test_a_window_may_have_been_opened_before_the_agent_looked() -> None:
    seen = [*served("01-page"), AgentStarted(900), wrote(1000, "index.html")]
    assert conclude(seen, until=9_000)[2:] == ["gap 200-900"]


def test_a_build_that_failed_tells_the_source_as_it_was() -> None:
    *_, event = events_of([*served("01-page"), wrote(1000, "styles.css", source="<p></b>")], until=9_000)
    assert isinstance(event, Compile) and event.run.source_code == "<p></b>"


def test_copies_that_nobodys_server_made_are_no_build() -> None:
    seen = [*served("01-page"), exited(500, 10), wrote(1000, "index.html")]
    assert conclude(seen, until=9_000) == [*OPENED, "session_end @500"]


def test_what_pytest_leaves_in_the_preview_is_no_build() -> None:
    assert conclude([*served("03-python"), wrote(1000, "cached_app.py", "03-python")], until=9_000)[2:] == []


@pytest.mark.parametrize(("failed", "code"), [(False, 0), (True, 1), (None, 0)])
def test_a_react_bundle_that_throws_is_a_build_that_failed(failed: bool | None, code: int) -> None:
    window = queue(2100, "start_exercise 02-react", f"open_window {URL}", preview=Preview("02-react", failed))
    seen = [
        *served("02-react"),
        wrote(2000, "index.js", "02-react", failed=failed is True),
        wrote(2001, "index.js.map", "02-react"),
        window,
    ]
    assert conclude(seen, until=9_000)[2:] == [f"compile 02-react {code} @2000-2001 learnpack"]


@pytest.mark.parametrize(("first", "last"), [(True, False), (False, True)])
def test_the_bundle_as_it_was_read_last_says_whether_the_build_failed(first: bool, last: bool) -> None:
    """The map may come first: then the bundle that lies there is still that of the build before."""
    of_the_map = PreviewWritten(2000, "index.js.map", Preview("02-react", first))
    window = queue(2100, "start_exercise 02-react", f"open_window {URL}", preview=Preview("02-react", last))
    seen = [*served("02-react"), of_the_map, wrote(2001, "index.js", "02-react", failed=last), window]
    assert conclude(seen, until=9_000)[2:] == [f"compile 02-react {int(last)} @2000-2001 learnpack"]


def test_a_react_build_that_an_opening_overtook_belongs_to_the_step_that_the_bundle_names() -> None:
    words = ("start_exercise 02-react", "start_exercise 01-page", f"open_window {URL}")
    seen = [*served("02-react"), queue(1500, *words[:2]), queue(2100, *words, preview=Preview("02-react", False))]
    assert conclude(seen, until=9_000)[2:] == ["open_step 01-page @1500", "compile 02-react 0 @2100-2100 learnpack"]


def test_what_webpack_wrote_without_a_window_is_a_build_that_failed_later() -> None:
    seen = [*served("02-react"), wrote(2000, "index.js", "02-react")]
    assert conclude(seen, until=2000 + BUNDLE_MS - 1)[2:] == []
    assert conclude(seen, until=2000 + BUNDLE_MS)[2:] == ["compile 02-react 1 @2000-2000 learnpack"]


def test_a_build_that_wrote_nothing_new_is_one_all_the_same() -> None:
    seen = [
        *served("02-react"),
        queue(60_000, "start_exercise 02-react", f"open_window {URL}", preview=Preview("02-react", False)),
    ]
    assert conclude(seen)[2:] == ["compile 02-react 0 @60000-60000 learnpack"]


def test_what_was_in_the_queue_before_the_agent_began_is_the_past() -> None:
    seen: list[Observation] = [
        AgentStarted(5_000),
        CourseRead(5_000, COURSE),
        executed(5_000, 10, SERVER, found=True, started_at=100),
        replace(WINDOW, at=1004),
    ]
    assert [event for event in conclude(seen) if event.startswith("compile")] == []


def test_the_clock_moves_a_build_at_work_too() -> None:
    inference = Inference()
    seen = [*served("01-page"), wrote(1000, "index.html"), ClockJumped(61_000, 60_000), replace(WINDOW, at=61_004)]
    events = [event for one in seen for event in inference.receive(one)]
    assert [told(event) for event in events][2:] == ["gap 1000-61000", "compile 01-page 0 @61000-61004 learnpack"]


def test_a_build_that_learnpack_told_of_first_is_one() -> None:
    seen: list[Observation] = [
        *served("01-page"),
        RunRecorded(1010, "01-page", "compile", 1004, 1005, 0),
        WINDOW,
    ]
    assert conclude(seen)[2:] == ["compile 01-page 0 @1004-1005 learnpack"]


def test_a_failure_waits_for_its_deadline_and_nothing_else_does() -> None:
    inference = Inference()
    conclude([*served("01-page"), wrote(1000, "index.html")], inference=inference)
    assert inference.next_deadline() == 1000 + NO_WINDOW_MS
    conclude([WINDOW], inference=inference)
    assert inference.next_deadline() is None


def test_two_builds_that_failed_one_after_the_other_are_two() -> None:
    # An HTML build writes each file once, so the same name again is another build.
    seen = [*served("01-page"), wrote(1000, "styles.css"), wrote(1250, "styles.css"), wrote(2300, "solution.hide.html")]
    assert conclude(seen, until=9_000)[2:] == [
        "compile 01-page 1 @1000-1000 learnpack",
        "compile 01-page 1 @1250-1250 learnpack",
        "compile 01-page 1 @2300-2300 learnpack",
    ]


def test_a_machine_that_stops_in_the_middle_of_a_build_makes_no_two_of_it() -> None:
    seen = [*served("01-page"), wrote(1000, "index.html"), wrote(1900, "solution.hide.html")]
    assert conclude(seen, until=9_000)[2:] == ["compile 01-page 1 @1000-1900 learnpack"]


def test_a_failed_build_and_one_that_went_well_right_after_it_are_two() -> None:
    seen = [
        *served("01-page"),
        wrote(1000, "styles.css"),
        wrote(1250, "styles.css"),
        wrote(1251, "index.html"),
        replace(WINDOW, at=1254),
    ]
    assert conclude(seen, until=9_000)[2:] == [
        "compile 01-page 1 @1000-1000 learnpack",
        "compile 01-page 0 @1250-1254 learnpack",
    ]


def test_an_opening_proves_that_no_window_will_come() -> None:
    words = ("start_exercise 01-page", "start_exercise 02-react", f"open_window {URL}")
    seen = [
        *served("01-page"),
        wrote(1000, "styles.css"),
        queue(1100, *words[:2]),
        queue(1400, *words, preview=Preview("02-react", False)),
    ]
    assert conclude(seen, until=9_000)[2:] == [
        "compile 01-page 1 @1000-1000 learnpack",
        "open_step 02-react @1100",
        "compile 02-react 0 @1400-1400 learnpack",
    ]


def test_bundles_that_end_while_a_page_is_open_are_of_the_steps_that_they_name() -> None:
    words = ("start_exercise 02-react", "start_exercise 01-page")
    window = f"open_window {URL}"
    seen = [
        *served("02-react"),
        queue(1500, *words),
        wrote(1600, "styles.css"),
        queue(1604, *words, window, preview=Preview("02-react", False)),
        wrote(2000, "index.js", "02-react"),
        wrote(2001, "index.js.map", "02-react"),
        wrote(2002, "index.html", "02-react", sure=False),
        queue(2060, *words, window, window, preview=Preview("02-react", False)),
    ]
    assert conclude(seen, until=9_000)[2:] == [
        "open_step 01-page @1500",
        "compile 01-page 0 @1600-1604 learnpack",
        "compile 02-react 0 @2000-2002 learnpack",
    ]


def test_two_bundles_that_wait_for_their_windows_get_them_in_their_order() -> None:
    window = f"open_window {URL}"
    seen = [
        *served("02-react"),
        wrote(2000, "index.js", "02-react", failed=True),
        wrote(2050, "index.js", "02-react"),
        queue(2060, "start_exercise 02-react", window, preview=Preview("02-react", False)),
        queue(2090, "start_exercise 02-react", window, window, preview=Preview("02-react", False)),
    ]
    assert conclude(seen, until=9_000)[2:] == [
        "compile 02-react 1 @2000-2000 learnpack",
        "compile 02-react 0 @2050-2050 learnpack",
    ]


def test_a_page_of_another_step_may_be_built_too() -> None:
    # In another tab of the browser.
    seen = [
        *served("02-react"),
        wrote(1000, "index.html"),
        queue(1004, "start_exercise 02-react", f"open_window {URL}"),
    ]
    assert conclude(seen, until=9_000)[2:] == ["open_step 01-page @1000", "compile 01-page 0 @1000-1004 learnpack"]


def test_a_page_tells_for_sure_which_step_a_style_sheet_was_of() -> None:
    words = ("start_exercise 01-page", "start_exercise 02-react", f"open_window {URL}")
    seen = [
        *served("01-page"),
        queue(1100, *words[:2]),
        wrote(1200, "styles.css", "02-react", sure=False),
        wrote(1230, "index.html", "01-page"),
        queue(1240, *words, preview=Preview("02-react", None)),
    ]
    assert conclude(seen, until=9_000)[3:] == ["compile 01-page 0 @1200-1230 learnpack"]
