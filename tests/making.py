"""Events, courses and LearnPack documents in a word or two, for the tests of what is written down."""

from __future__ import annotations

import base64
from typing import Any

from agent.core.course import Course, Step, StepFile
from agent.core.events import (
    AiInteraction,
    Compile,
    CompleteStep,
    Evidence,
    Gap,
    Interaction,
    OpenStep,
    Origin,
    Output,
    ResetStep,
    Run,
    SessionEnd,
    SessionStart,
    StepName,
    Test,
    Visit,
)

#: A moment in November 2023; times in tests are seconds after it.
T0 = 1_700_000_000_000


def ms(seconds: float) -> int:
    return T0 + round(seconds * 1000)


def step(slug: str, position: int, *, tests: bool = True) -> Step:
    path = f"exercises/{slug}"
    return Step(
        slug=slug,
        position=position,
        path=path,
        files=(StepFile(f"{path}/app.py", "app.py", False),),
        language="python3",
        entry=f"{path}/app.py",
        tests=(f"{path}/test.py",) if tests else (),
    )


STEPS = (step("00-welcome", 0, tests=False), step("01-hello", 1), step("02-loop", 2))
COURSE = Course("/course", "demo", STEPS)


def name(slug: str) -> StepName:
    return StepName(slug, int(slug[:2]))


def evidence(at: int) -> tuple[Evidence, ...]:
    return (Evidence(1, at, "because"),)


def run(start: float, end: float | None, exit_code: int | None = 0, **more: Any) -> Run:
    return Run(
        started_at=ms(start),
        ended_at=None if end is None else ms(end),
        exit_code=exit_code,
        signal=more.pop("signal", None),
        command=more.pop("command", ("python", "app.py")),
        origin=more.pop("origin", Origin.LEARNPACK),
        **more,
    )


def a_compile(slug: str, start: float, end: float | None, exit_code: int | None = 0, **more: Any) -> Compile:
    at = ms(start if end is None else end)
    return Compile(at, name(slug), run(start, end, exit_code, **more), evidence(at))


def a_test(slug: str, start: float, end: float | None, exit_code: int | None = 0, **more: Any) -> Test:
    at = ms(start if end is None else end)
    return Test(at, name(slug), run(start, end, exit_code, whole=True, **more), evidence(at))


def visit(slug: str, start: float, end: float, active_ms: int) -> Visit:
    return Visit(slug, ms(start), ms(end), active_ms)


def opened(slug: str, at: float, left: Visit | None = None) -> OpenStep:
    return OpenStep(ms(at), name(slug), evidence(ms(at)), left)


def completed(slug: str, at: float, tests_modified: bool | None = None) -> CompleteStep:
    return CompleteStep(ms(at), name(slug), evidence(ms(at)), tests_modified)


def reset(slug: str, at: float) -> ResetStep:
    return ResetStep(ms(at), name(slug), evidence(ms(at)))


def session_start(at: float) -> SessionStart:
    return SessionStart(ms(at), evidence(ms(at)))


def session_end(at: float, left: Visit | None = None) -> SessionEnd:
    return SessionEnd(ms(at), evidence(ms(at)), left)


def asked(slug: str, start: float, end: float | None, question: str = "why?", answer: str = "so") -> AiInteraction:
    told = Interaction(ms(start), None if end is None else ms(end), question, answer, "print()\n")
    at = ms(start if end is None else end)
    return AiInteraction(at, name(slug), told, evidence(at))


def gap(start: float, at: float) -> Gap:
    return Gap(ms(at), ms(start), "blind", evidence(ms(at)))


FULL: dict[str, Any] = {"source_code": "print('ñandú')\n", "stdout": "ñandú\n", "stderr": "", "output": Output.FULL}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def attempt(start: float, end: float, exit_code: int | None = 0, **more: Any) -> dict[str, Any]:
    """An attempt as LearnPack's CLI and plugins write it."""
    texts = {"source_code": b64("source"), "stdout": b64("out"), "stderr": ""}
    return {"starting_at": ms(start), "ended_at": ms(end), "exitCode": exit_code, **texts, **more}


def learnpack_step(slug: str, **more: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {"compilations": [], "tests": [], "ai_interactions": []}
    files = [{"path": f"/home/ada/demo/exercises/{slug}/app.py", "name": "app.py", "hidden": False}]
    return {"slug": slug, "position": int(slug[:2]), "files": files, "is_testeable": True, **lists, **more}


def learnpack_document(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document as LearnPack's CLI writes it: all steps of COURSE, the given ones in their places."""
    given: dict[str, Any] = {one["slug"]: one for one in steps}
    course = [given.pop(each.slug, learnpack_step(each.slug)) for each in STEPS]
    return {
        "telemetry_id": "lp00lp00lp00lp00",
        "slug": "demo",
        "agent": "vscode",
        "tutorial_started_at": ms(0),
        "steps": course + list(given.values()),
        "workout_session": [{"started_at": ms(0)}],
        **more,
    }


def assert_receivable(document: dict[str, Any]) -> None:
    """What the receiver's metrics need in order neither to crash nor to be silently wrong (the telemetry contract)."""
    for key in ("tutorial_started_at", "last_interaction_at"):
        assert_milliseconds(document[key])
    assert document["last_interaction_at"] >= document["tutorial_started_at"]
    assert isinstance(document["workout_session"], list)
    for one in document["steps"]:
        assert isinstance(one["slug"], str) and one["slug"]
        assert isinstance(one["is_testeable"], bool)
        if "opened_at" in one:
            assert_milliseconds(one["opened_at"])
        if "completed_at" in one:
            assert_milliseconds(one["completed_at"])
            assert one["opened_at"] <= one["completed_at"]
        for key in ("compilations", "tests", "ai_interactions"):
            assert isinstance(one[key], list)
        for each in one["compilations"] + one["tests"]:
            assert_milliseconds(each["started_at"])
            assert_milliseconds(each["ended_at"])
            assert each["exit_code"] is None or type(each["exit_code"]) is int
            assert one["opened_at"] <= each["started_at"] <= each["ended_at"]


def assert_milliseconds(at: object) -> None:
    assert type(at) is int
    assert 1_000_000_000_000 < at < 10_000_000_000_000
