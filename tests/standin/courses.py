"""Small courses of our own, written into a temporary directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

#: File name → text; a course is slug → files.
Files = Mapping[str, str]

_PY_TEST = """\
import runpy


def test_it_says_{word}(capsys):
    runpy.run_path("exercises/{slug}/app.py")
    assert capsys.readouterr().out == "{word}\\n"
"""

_PY_INPUT_TEST = """\
import builtins
import runpy


def test_it_greets(capsys, monkeypatch, answers):
    given = iter(answers or ["Ada"])
    monkeypatch.setattr(builtins, "input", lambda *_: next(given))
    runpy.run_path("exercises/{slug}/app.py")
    assert capsys.readouterr().out == "Hello Ada\\n"
"""

_JS_TEST = """\
test('it says {word}', () => {{
  const said = jest.spyOn(console, 'log').mockImplementation(() => {{}});
  require('./app.js');
  expect(said).toHaveBeenCalledWith('{word}');
}});
"""

#: A program that lasts long enough for any process sensor, for tests that are about something else.
LASTS = "import time\ntime.sleep(0.25)\n"
#: On a busy machine a program of 20-40 ms can be over before the agent can read it, which it then says.
A_LITTLE = "import time\ntime.sleep(0.1)\n"

_STUB = "# your code here\n"
_JS_STUB = "// your code here\n"


def _python_step(slug: str, word: str, text: str = _STUB) -> Files:
    return {
        "README.md": f"# {slug}\nSay {word}.\n",
        "app.py": text,
        "solution.hide.py": f"print({word!r})\n",
        "test.py": _PY_TEST.format(word=word, slug=slug),
    }


def _node_step(slug: str, word: str, text: str = _JS_STUB) -> Files:
    return {
        "README.md": f"# {slug}\nSay {word}.\n",
        "app.js": text,
        "solution.hide.js": f"console.log({word!r});\n",
        "tests.js": _JS_TEST.format(word=word),
    }


def _reading(slug: str) -> Files:
    return {"README.md": f"# {slug}\nOnly to read.\n"}


PYTHON: Mapping[str, Files] = {
    "00-welcome": _reading("00-welcome"),
    "01-hello": _python_step("01-hello", "hello"),
    "02-sum": _python_step("02-sum", "5", "# add two numbers\n"),
    "03-reading": _reading("03-reading"),
    "04-input": {
        "README.md": "# 04-input\nAsk for a name.\n",
        "app.py": "name = input('name? ')\nprint(name)\n",
        "test.py": _PY_INPUT_TEST.format(slug="04-input"),
    },
    "05-twin-a": _python_step("05-twin-a", "twin"),
    "06-twin-b": _python_step("06-twin-b", "twin"),
    "07-free": {
        "README.md": "# 07-free\nNo tests here.\n",
        "app.py": "print('free')\n",
        "helper.py": "print('help')\n",
    },
}

JAVASCRIPT: Mapping[str, Files] = {
    "00-welcome": _reading("00-welcome"),
    "01-hello": _node_step("01-hello", "hello"),
    "02-sum": _node_step("02-sum", "5", "// add two numbers\n"),
    "03-reading": _reading("03-reading"),
    "04-twin-a": _node_step("04-twin-a", "twin"),
    "05-twin-b": _node_step("05-twin-b", "twin"),
    "06-free": {"README.md": "# 06-free\nNo tests here.\n", "app.js": "console.log('free');\n"},
}

ODD: Mapping[str, Files] = {
    slug: {"README.md": f"# {slug}\n", "app.py": f"print({position})\n"}
    for position, slug in enumerate(
        ["00 with spaces", "01-ñandú-日本語", "02-it's", "03-$HOME;`x`", "04-🐍", "05-a.b.c", "06-" + "x" * 180]
    )
}

_PAGE = "<!DOCTYPE html>\n<html><body>\n  <h1>{word}</h1>\n</body></html>"
_PAGE_TEST = """\
const fs = require('fs');
test('it says {word}', () => {{
  expect(fs.readFileSync(__dirname + '/index.html', 'utf8')).toContain('<h1>{word}</h1>');
}});
"""
_APP = """\
import React from 'react';
import ReactDOM from 'react-dom';
ReactDOM.render(<h1>{word}</h1>, document.querySelector('#myDiv'))"""

#: One of each kind that LearnPack builds without a process.
WEB: Mapping[str, Files] = {
    "00-welcome": _reading("00-welcome"),
    "01-page": {
        "README.md": "# 01-page\nSay hello.\n",
        "index.html": _PAGE.format(word="your page here"),
        "solution.hide.html": _PAGE.format(word="hello"),
        "styles.css": "h1{color:red}",
        "tests.js": _PAGE_TEST.format(word="hello"),
    },
    "02-lone": {"README.md": "# 02-lone\nOne page, nothing else.\n", "index.html": "<p>lone</p>"},
    "03-app": {
        "README.md": "# 03-app\nRender hello.\n",
        "app.jsx": _APP.format(word="your app here"),
        "solution.hide.jsx": _APP.format(word="hello"),
        "tests.js": "test('nothing yet', () => {});\n",
    },
    "04-other": {"README.md": "# 04-other\nRender something.\n", "app.jsx": _APP.format(word="other")},
    "05-plain": {
        "README.md": "# 05-plain\nA page with a script.\n",
        "index.html": "<html><body><p>plain</p><script src='./index.js'></script></body></html>",
        "index.js": "document.body.style.background = 'red'",
        "styles.css": "p{color:red}",
    },
}

JAVA: Mapping[str, Files] = {
    "00-welcome": _reading("00-welcome"),
    "01-hello": {
        "README.md": "# 01-hello\nSay hello.\n",
        "App.java": "public class App {\n    public static void main(String[] args) {\n    }\n}\n",
    },
}
#: LearnPack's own name for a Java entry is app.java, which no public class can have.
JAVA_SETTINGS: Mapping[str, object] = {"entries": {"java": "App.java"}}

#: No directory of steps: the course is its README and the files beside it.
SINGLE: Files = {
    "app.py": "# your code here\n",
    "test.py": 'import runpy\n\n\ndef test_it(capsys):\n    runpy.run_path("app.py")\n'
    '    assert capsys.readouterr().out == "single\\n"\n',
}

#: The steps lie in the root itself.
ROOTED: Mapping[str, Files] = {
    "00-welcome": _reading("00-welcome"),
    "01-one": {"README.md": "# 01-one\nPrint one.\n", "app.py": "print('one')\n"},
    "02-two": {
        "README.md": "# 02-two\nPrint two.\n",
        "app.py": "# two\n",
        "test.py": 'import runpy\n\n\ndef test_it(capsys):\n    runpy.run_path("02-two/app.py")\n'
        '    assert "two" in capsys.readouterr().out\n',
    },
}

INCREMENTAL: Mapping[str, Files] = {
    "00-welcome": _reading("00-welcome"),
    **{
        slug: {
            "README.md": f"# {slug}\nSay {word}.\n",
            "test.py": f'import runpy\n\n\ndef test_it(capsys):\n    runpy.run_path("app.py")\n'
            f'    assert "{word}" in capsys.readouterr().out\n',
        }
        for slug, word in (("01-first", "first"), ("02-second", "second"))
    },
}


def make_course(
    root: Path,
    steps: Mapping[str, Files],
    settings: Mapping[str, object] | None = None,
    exercises: str = "exercises",
    root_files: Files | None = None,
    lasting: bool = False,
    config: str = "learn.json",
    base: str = ".learn",
) -> Path:
    """Writes the course and returns its real path.  `lasting`: each Python program lasts a quarter of a second.

    `config` is the file of its settings, `base` LearnPack's own directory.
    """
    root.mkdir(parents=True)
    learn = {"slug": "a-course-of-our-own", "title": {"us": "A course of our own"}, "grading": "isolated"}
    (root / base / "_app").mkdir(parents=True)
    (root / base / "_app" / "index.html").write_text("<html></html>\n")
    (root / config).write_text(json.dumps({**learn, **(settings or {})}, indent=2), encoding="utf-8")
    (root / "README.md").write_text("# A course of our own\n", encoding="utf-8")
    for slug, files in steps.items():
        directory = root / exercises / slug
        directory.mkdir(parents=True)
        for name, text in files.items():
            lasts = lasting and name in ("app.py", "helper.py")
            (directory / name).write_text(text + LASTS if lasts else text, encoding="utf-8")
    for name, text in (root_files or {}).items():
        (root / name).write_text(text, encoding="utf-8")
    return root.resolve()


def make_incremental_course(root: Path) -> Path:
    """The steps lie in `.learn/exercises`, the code is one file at the root."""
    settings = {"grading": "incremental"}
    return make_course(root, INCREMENTAL, settings, ".learn/exercises", {"app.py": "print('start')\n"})
