"""The course that the benchmarks watch: N exercises of four files each, and LearnPack's directory."""

from __future__ import annotations

import json
from pathlib import Path

#: The program of each step: short, as a student's is.
PROGRAM = "print('hello')\n"


def slug(number: int) -> str:
    return f"{number:03d}-exercise"


def entry(number: int) -> str:
    return f"exercises/{slug(number)}/app.py"


def make_course(root: Path, exercises: int) -> Path:
    """T25 is this with 25 exercises, T500 with 500."""
    for number in range(exercises):
        step = root / "exercises" / slug(number)
        step.mkdir(parents=True)
        (step / "README.md").write_text(f"# Exercise {number}\n\nPrint a greeting.\n" * 20)
        (step / "app.py").write_text(PROGRAM)
        (step / "test.py").write_text("def test_it():\n    assert True\n")
        (step / "solution.hide.py").write_text(PROGRAM)
    learn = root / ".learn"
    (learn / "resets").mkdir(parents=True)
    (root / "learn.json").write_text(json.dumps({"slug": "bench", "title": "Bench", "grading": "isolated"}))
    (learn / "config.json").write_text(json.dumps({"currentExercise": None}))
    (learn / "vscode_queue.json").write_text("[]")
    return root
