"""A student's login as LearnPack keeps it: one file of node-persist in `<base>/.session`, named by md5 of its key.

The directory is there from the first start on.  Logging out deletes the file.  A token of the AI tutor alone is no
login: the file is there, but holds no token of its own.
Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from .shelljs import write_in_place

KEY = "bc-payload"


class Session:
    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, ".session", hashlib.md5(KEY.encode()).hexdigest())

    def start(self) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)

    def payload(self) -> dict[str, Any]:
        try:
            with open(self.path, encoding="utf-8") as file:
                value: dict[str, Any] = json.load(file)["value"]
        except FileNotFoundError:
            return {}
        return value

    def log_in(self, payload: dict[str, Any]) -> None:
        self.log_out()
        self.keep(payload)

    def keep(self, payload: dict[str, Any]) -> None:
        """Adds to what is kept."""
        self.start()
        write_in_place(self.path, json.dumps({"key": KEY, "value": {**self.payload(), **payload}}, ensure_ascii=False))

    def log_out(self) -> None:
        if os.path.exists(self.path):
            os.unlink(self.path)
