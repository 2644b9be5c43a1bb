"""What a support bundle is about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checks.finding import Place
from ..config import course_state_dir
from ..core.course import Course
from ..sensors.course import base_of

if TYPE_CHECKING:
    from ..config.loading import Loaded


@dataclass(frozen=True, slots=True)
class Case:
    """`named` is the course as the caller named it, `why` says why it can't be read."""

    place: Place
    loaded: Loaded
    named: str | None = None
    why: str | None = None

    @property
    def course(self) -> Course | None:
        """Also one that can't be read: something may be recorded of it."""
        if self.place.course is not None or self.named is None:
            return self.place.course
        root = os.path.realpath(self.named)
        return Course(root, "course", base=base_of(root), aliases=(os.path.abspath(self.named),))

    @property
    def directory(self) -> str:
        course = self.course
        return course_state_dir(self.place.config, course.root) if course else self.place.config.state_dir

    @property
    def named_course(self) -> Course:
        """Raises LookupError."""
        if self.course is None:
            raise LookupError("no course was named")
        return self.course
