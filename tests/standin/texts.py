"""Files that the stand-in lays down, in our own words."""

from __future__ import annotations

#: What the server lays in the course before each test, in our own words: the options of its command line.
CONFTEST = """\
import json

import pytest


def pytest_addoption(parser):
    for name in ("--testdox", "--stdin"):
        try:
            parser.addoption(name, action="store_true" if name == "--testdox" else "store", default=None)
        except ValueError:
            pass


@pytest.fixture
def answers(request):
    return json.loads(request.config.getoption("--stdin") or "[]")
"""

#: Put before every JavaScript program that is built, so that `prompt` has answers.
PROMPT_HEADER = "".join(f"// line {number} of the prompt header\n" for number in range(50))

#: jest's reporter: counts into a file, nothing on the terminal.  `success` is false always, as in the real one.
REPORTER = """\
const fs = require('fs');
class Report {
  constructor(_, options) { this.options = options; }
  onRunComplete(_, results) {
    const single = results.testResults.flatMap(file => file.testResults);
    fs.writeFileSync(this.options.reportPath, JSON.stringify({
      success: false,
      numFailedTestSuites: results.numFailedTestSuites,
      numFailedTests: results.numFailedTests,
      numPassedTests: results.numPassedTests,
      testResults: results.testResults.map(file => ({ message: file.failureMessage })),
      failed: single.map(test => ({ title: test.title, status: test.status })),
    }, null, 2));
  }
}
module.exports = Report;
"""

#: What webpack makes in development mode, as far as it tells what was built: each module under its name.
BUNDLE = """\
/******/ (() => {{ // webpackBootstrap
/******/ 	var __webpack_modules__ = ({{}});
(() => {{
/*!{line}*\\
  !*** {name} ***!
  \\{line}*/
{body}
}})();

/******/ }})()
;
//# sourceMappingURL=index.js.map"""

#: The page around a React bundle.
PREVIEW_PAGE = """\
<!DOCTYPE html>
<html>
	<head><title>Preview</title><script defer src="/preview/index.js"></script></head>
	<body><div id="myDiv"></div></body>
</html>
"""
