"""LearnPack's UI of version 5 in a browser's tab: it keeps the telemetry itself and posts the whole document.

The server only writes what is posted.  The tab outlives servers: what somebody else wrote into the file meanwhile, the
next post erases.  When the tab is loaded it takes from the file only the keys that it knows, of the document and of
each step, but attempts whole.  Texts are base64 of the percent-encoded text; names are `started_at`, `ended_at` and
`exit_code`.
"""

from __future__ import annotations

import base64
import random
import string
import time
import urllib.parse
from typing import Any

from .learnpack import Answer, LearnPack

DOCUMENT_KEYS = (
    "telemetry_id user_id fullname slug package_id version cohort_id academy_id agent tutorial_started_at"
    " last_interaction_at steps workout_session global_metrics global_indicators"
).split()
STEP_LISTS = ("compilations", "tests", "ai_interactions", "quiz_submissions", "testeable_elements", "sessions")


def encoded(text: str) -> str:
    """JavaScript's `btoa(encodeURIComponent(text))`."""
    return base64.b64encode(urllib.parse.quote(text, safe="-_.!~*'()").encode()).decode()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Tab:
    """`load` reads the file through the server; everything else changes the document in memory and posts it."""

    def __init__(self, learnpack: LearnPack, steps: list[dict[str, Any]], *, user_id: str, fullname: str) -> None:
        """`steps`: slug, files and is_testeable of each, in order."""
        self.learnpack = learnpack
        self.user = {"user_id": user_id, "fullname": fullname}
        self._fresh = [self._fresh_step(step, position) for position, step in enumerate(steps)]
        self.document: dict[str, Any] = {}
        self._open: tuple[int, int] | None = None

    @staticmethod
    def _fresh_step(step: dict[str, Any], position: int) -> dict[str, Any]:
        lists: dict[str, Any] = {name: [] for name in STEP_LISTS}
        return {**step, "position": position, **lists, "is_completed": False}

    def load(self) -> None:
        now = now_ms()
        found = self.learnpack.send("get_telemetry").result()["document"]
        stored = {key: found[key] for key in DOCUMENT_KEYS if key in found} if found else {}
        by_slug = {step["slug"]: step for step in stored.get("steps", [])}
        self.document = {
            "telemetry_id": "".join(random.choices(string.ascii_lowercase + string.digits, k=16)),
            "slug": "a-course-of-our-own",
            "version": "5.0.344",
            "cohort_id": None,
            "academy_id": None,
            "agent": "vscode",
            "tutorial_started_at": now,
            "last_interaction_at": now,
            "workout_session": [{"started_at": now}],
            **stored,
            "steps": [self._merged(step, by_slug.get(step["slug"])) for step in self._fresh],
            **self.user,
        }
        last = self.document["workout_session"][-1]
        if found and not last.get("ended_at"):
            last["ended_at"] = self.document["last_interaction_at"]
            self.document["workout_session"].append({"started_at": now})
        self.post()

    def _merged(self, fresh: dict[str, Any], stored: dict[str, Any] | None) -> dict[str, Any]:
        step = {**fresh, **{name: [] for name in STEP_LISTS}}
        if stored is not None:
            step |= {name: stored.get(name) or [] for name in STEP_LISTS}
            step["is_completed"] = stored.get("is_completed", False)
            step |= {name: stored[name] for name in ("opened_at", "completed_at") if stored.get(name)}
        return step

    def post(self) -> None:
        """Nobody hears it where the server is gone."""
        if self.learnpack.process is not None and self.learnpack.process.poll() is None:
            self.learnpack.send("post_telemetry", document=self.document).result()

    # ------------------------------------------------------------------------------------------ what the student does

    def _step(self, slug: str) -> dict[str, Any]:
        step: dict[str, Any] = next(step for step in self.document["steps"] if step["slug"] == slug)
        return step

    def _interaction(self) -> None:
        self.document["last_interaction_at"] = now_ms()
        self.post()

    def open(self, slug: str) -> Answer:
        answer, now = self.learnpack.open(slug), now_ms()
        if self._open is not None:
            position, since = self._open
            self.document["steps"][position]["sessions"].append(now - since)
        step = self._step(slug)
        step.setdefault("opened_at", now)
        self._open = step["position"], now
        self._interaction()
        return answer

    def build(self, slug: str) -> Answer:
        return self._ran("compilations", slug, self.learnpack.build(slug))

    def test(self, slug: str) -> Answer:
        answer = self._ran("tests", slug, self.learnpack.test(slug))
        step = self._step(slug)
        if answer["exit_code"] == 0 and "completed_at" not in step:
            step |= {"completed_at": now_ms(), "is_completed": True}
            self.post()
        return answer

    def _ran(self, kind: str, slug: str, answer: Answer) -> Answer:
        texts = {"source_code": answer.get("source", ""), "stdout": answer["stdout"], "stderr": answer["stderr"]}
        times = {name: answer[name] for name in ("started_at", "ended_at", "exit_code")}
        encodings = {name: encoded(text) if text else text for name, text in texts.items()}
        self._step(slug)[kind].append({**times, **encodings})
        self._interaction()
        return answer

    def ask_tutor(self, slug: str, question: str, answer: str, source: str) -> dict[str, Any]:
        """Returns the times."""
        times = {"started_at": now_ms() - 700, "ended_at": now_ms()}
        texts = {"student_message": question, "source_code": encoded(source), "ai_response": answer}
        self._step(slug)["ai_interactions"].append({**texts, **times})
        self._interaction()
        return times

    def submit_quiz(self, slug: str, quiz: str, *, right: bool) -> dict[str, Any]:
        """Returns the submission as it is in the document."""
        submission = {
            "status": "SUCCESS" if right else "ERROR",
            "percentage": 100 if right else 0,
            "quiz_hash": quiz,
            "selections": [{"question": "Which one?", "answer": "The ñ", "isCorrect": right}],
            "ended_at": now_ms(),
            "started_at": now_ms() - 900,
        }
        step = self._step(slug)
        step["quiz_submissions"].append(submission)
        elements = [one for one in step["testeable_elements"] if one["hash"] != quiz]
        step["testeable_elements"] = [*elements, {"hash": quiz, "type": "quiz", "is_completed": right}]
        self._interaction()
        return submission
