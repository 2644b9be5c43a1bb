"""What a run that is over comes to: its source, what it printed, its single tests, and whether the step's tests passed.

jest's reporter in LearnPack prints nothing, so what there is to say of such a test comes from its report; LearnPack
itself writes "All tests passed" there, also when they failed (footprints of 2.1.34).  pytest's failing tests come
from its own cache.
"""

from __future__ import annotations

from .commands import entry_of
from .course import Course, Step, is_test_file
from .events import Captured, Output, Run, TestResult
from .observations import ReportRead
from .processes import FinishedRun
from .pytest_results import failed_in_output
from .runners import Kind

#: A report belongs to a run if it was written while it ran, give or take the clocks of two threads.
REPORT_SLACK_MS = 1_000


def report_of(run: FinishedRun, report: ReportRead | None, at: int) -> ReportRead | None:
    """The step's last report, if this run (which ended at `at`) wrote it."""
    if report is None or run.purpose.tool != "jest":
        return None
    return report if run.started_at - REPORT_SLACK_MS <= report.at <= at + REPORT_SLACK_MS else None


def run_of(course: Course, step: Step, target: str, run: FinishedRun, report: ReportRead | None) -> Run:
    """The run as it is recorded for one of the steps that it is about."""
    texts = {text.path: text.text for text in run.texts}
    is_test = run.purpose.kind is Kind.TEST or is_test_file(target.rpartition("/")[2])
    source = None if is_test else texts.get(target)
    if source is None or "\0" in source:  # a test's source is the entry file; a compiled program is no source
        source = texts.get(entry_of(course, step) or "")
    stdout, stderr = run.stdout, run.stderr
    message = (report.message or None) if report is not None else None
    return Run(
        started_at=run.started_at,
        ended_at=run.ended_at,
        exit_code=run.exit_code if run.purpose.exit_tells else None,
        signal=run.signal,
        command=run.argv,
        origin=run.origin,
        source_code=source,
        stdout=stdout.text if stdout is not None else None,
        stderr=stderr.text if stderr is not None else None,
        output=_worth(stdout, stderr, message),
        whole=run.purpose.whole and target in step.tests,
        stdout_size=stdout.size if stdout is not None else None,
        stderr_size=stderr.size if stderr is not None else None,
        results=_results(step, run, report),
        message=message,
    )


def _worth(stdout: Captured | None, stderr: Captured | None, message: str | None) -> Output:
    if stdout is None and stderr is None:
        return Output.NONE if message is None else Output.PARTIAL
    is_all = stdout is not None and stderr is not None and stdout.whole and stderr.whole
    return Output.FULL if is_all else Output.PARTIAL


def _results(step: Step, run: FinishedRun, report: ReportRead | None) -> tuple[TestResult, ...]:
    if report is not None:
        return report.results
    ids = run.failed_tests
    if run.purpose.tool == "pytest" and run.stdout is not None:
        # LearnPack's conftest makes the answers a part of the id, so a failure that is as old as the cache can't be
        # told from one that is gone; what pytest printed always tells.
        ids = failed_in_output(run.stdout.text) or ids
    of_step = (test for test in ids or () if test.partition("::")[0].removeprefix("./") in step.tests)
    return tuple(TestResult(test, "failed") for test in of_step)


def passed(run: Run, report: ReportRead | None) -> str | None:
    """Why this run shows that the step's whole test file passed, in words; None where it doesn't.

    An unknown exit code shows nothing, but the counts of jest's report do: its `success` is always false (7 of 7).
    """
    if not run.whole or run.signal is not None:
        return None
    if report is None:
        return "its whole test file passed: exit code 0" if run.exit_code == 0 else None
    is_clean = report.passed > 0 and report.failed == 0 and report.failed_suites == 0
    if not is_clean or run.exit_code not in (0, None):
        return None
    return f"jest's report says {report.passed} passed, {report.failed} failed"
