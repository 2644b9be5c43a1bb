"""What each command line is for.  A row is one command that a student, an editor or LearnPack really starts."""

import shlex

import pytest

from agent.core.commands import (
    NotARun,
    Purpose,
    compile_run_copy,
    files_to_read,
    is_relevant,
    is_server,
    parameter_file,
    purpose_of,
    rewrites_files,
    unknown_step,
)
from agent.core.course import ENTRIES, Course, step_from

from .world import COURSE, INCREMENTAL

S = "/c/exercises/01-hello"
APP = "exercises/01-hello/app.py"
TEST = "exercises/01-hello/test.py"
JS = "exercises/02-js/app.js"
JS_TEST = "exercises/02-js/tests.js"


def told(purpose: Purpose | NotARun) -> str:
    if isinstance(purpose, NotARun):
        return "no"
    whole = " whole" if purpose.whole else ""
    return f"{purpose.kind.value} {' '.join(purpose.targets)}{whole}"


def judged(command: str, cwd: str = "/c", course: Course = COURSE, **more: object) -> str:
    return told(purpose_of(course, shlex.split(command), cwd, **more))  # type: ignore[arg-type]


RUNS = [
    # Python
    ("python exercises/01-hello/app.py", "/c", f"compile {APP}"),
    ("python3 app.py", S, f"compile {APP}"),
    ("python3.11 -u ./app.py 1 2", S, f"compile {APP}"),
    ("/home/u/venv/bin/python /c/exercises/01-hello/app.py", "/", f"compile {APP}"),
    ("python c/exercises/01-hello/app.py", "/", f"compile {APP}"),
    ("python -i exercises/01-hello/app.py", "/c", f"compile {APP}"),
    ("python -W ignore -X dev app.py", S, f"compile {APP}"),
    ("python -Wignore app.py", S, f"compile {APP}"),
    ("python -- app.py", S, f"compile {APP}"),
    ("python -m app", S, f"compile {APP}"),
    ("python ../01-hello/app.py", "/c/exercises/04-more", f"compile {APP}"),
    ("python solution.hide.py", S, "compile exercises/01-hello/solution.hide.py"),
    ("python -m pdb app.py", S, f"compile {APP}"),
    ("python -m cProfile -s cumtime app.py", S, f"compile {APP}"),
    ("python /venv/bin/coverage run app.py", S, f"compile {APP}"),
    ("python /venv/bin/ipython app.py", S, f"compile {APP}"),
    ("pypy3 app.py", S, f"compile {APP}"),
    # JavaScript
    ("node exercises/02-js/app.js", "/c", f"compile {JS}"),
    ("node exercises/02-js/app", "/c", f"compile {JS}"),
    ("node app --flag", "/c/exercises/02-js", f"compile {JS}"),
    ("node --inspect -r dotenv/config app.js", "/c/exercises/02-js", f"compile {JS}"),
    ("node /usr/lib/node_modules/.bin/tsx app.js", "/c/exercises/02-js", f"compile {JS}"),
    # others
    ("./exercises/01-hello/a.out", "/c", "compile exercises/01-hello/a.out"),
    ("ruby exercises/01-hello/app.rb", "/c", "compile exercises/01-hello/app.rb"),
    ("bash exercises/06-shell/app.sh", "/c", "compile exercises/06-shell/app.sh"),
    ("gcc -o app exercises/01-hello/app.c", "/c", "compiler exercises/01-hello/app.c"),
]

TESTS = [
    ("python /venv/bin/pytest exercises/01-hello/test.py", "/c", f"test {TEST} whole"),
    ("python /venv/bin/pytest test.py -xvs --tb=short", S, f"test {TEST} whole"),
    ("python -m pytest exercises/01-hello/test.py", "/c", f"test {TEST} whole"),
    (
        "python /p/bin/pytest ./exercises/01-hello/test.py --testdox --capture=sys --color=yes --stdin='[\"5\"]'",
        "/c",
        f"test {TEST} whole",
    ),
    ("python -m coverage run -m pytest test.py", S, f"test {TEST} whole"),
    ("python -m pytest test.py -k hello", S, f"test {TEST}"),
    ("python -m pytest -khello test.py", S, f"test {TEST}"),
    ("python -m pytest -xk hello test.py", S, f"test {TEST}"),
    ("python -m pytest test.py::test_hello", S, f"test {TEST}"),
    ("python -m pytest --lf test.py", S, f"test {TEST}"),
    ("python -m pytest --deselect test.py::test_a test.py", S, f"test {TEST}"),
    ("python -m pytest", S, "test exercises/01-hello"),  # test.py is not collected by pattern
    ("python -m pytest exercises/01-hello/", "/c", "test exercises/01-hello"),
    ("python -m doctest app.py", S, f"test {APP}"),
    (
        'node /p/bin/jest \'--config={"testRegex":"exercises/02-js/tests.js","verbose":true}\' --colors',
        "/c",
        f"test {JS_TEST} whole",
    ),
    ("node --test exercises/02-js/tests.js", "/c", f"test {JS_TEST} whole"),
    ("node --test --test-name-pattern=one tests.js", "/c/exercises/02-js", f"test {JS_TEST}"),
    ("node --test", "/c/exercises/05-js-again", "test exercises/05-js-again/test.js whole"),
    ("node /c/node_modules/.bin/jest 02-js", "/c", f"test {JS_TEST} whole"),
    ("node /c/node_modules/.bin/jest exercises/02-js/tests.js -t adds", "/c", f"test {JS_TEST}"),
    ("node /c/node_modules/.bin/jest", "/c/exercises/05-js-again", "test exercises/05-js-again/test.js whole"),
    ("node /n/jest --testRegex exercises/02-js/tests.js", "/c", f"test {JS_TEST} whole"),
    ("node /n/jest --testRegex=exercises/02-js/tests.js", "/c", f"test {JS_TEST} whole"),
    ("node /n/jest --testMatch **/02-js/tests.js", "/c", f"test {JS_TEST} whole"),
    ("node /n/jest --rootDir . --testRegex tests.js 02-js", "/c", f"test {JS_TEST} whole"),
    ("node /n/.bin/mocha tests.js", "/c/exercises/02-js", f"test {JS_TEST} whole"),
    ("node /n/.bin/mocha --grep one tests.js", "/c/exercises/02-js", f"test {JS_TEST}"),
    ("node /n/vitest.mjs run 02-js", "/c", f"test {JS_TEST} whole"),
]

NOT_RUNS = [
    "python",
    "python -",
    "python -c 'import platform'",
    "python -V",
    "python --version",
    "python --help",
    "python -m py_compile exercises/01-hello/app.py",
    "python -m black exercises/01-hello/app.py",
    "python /venv/bin/black exercises/01-hello/app.py",
    "python /venv/bin/pylint exercises/01-hello/app.py",
    "python -m mypy exercises/01-hello/app.py",
    "python -m pip install pytest",
    "python -m venv .venv",
    "python -m http.server",
    "python /venv/bin/pytest --collect-only exercises/01-hello/test.py",
    "python /venv/bin/pytest --co -q exercises/01-hello/test.py",
    "python /venv/bin/pytest --help",
    "python /venv/bin/pytest --version",
    "python -m unittest --help",
    "python -m coverage report exercises/01-hello/app.py",
    "python3 -I -c 'import sys'",
    "python /usr/lib/some/lsp_server.py",
    "python .venv/bin/black exercises/01-hello/app.py",
    "python .learn/dist/cached_app.py",
    "bash /root/.pyenv/libexec/pyenv-which python",
    "bash /root/.pyenv/shims/python -V",
    "bash exercises/01-hello/run.sh",
    "sh -c 'python exercises/01-hello/app.py'",
    "env",
    "env python -c pass",
    "time python exercises/01-hello/app.py",
    "timeout 1 python exercises/01-hello/app.py",
    "node",
    "node -e 1",
    "node -p 1",
    "node --check exercises/02-js/app.js",
    "node -c exercises/02-js/app.js",
    "node --version",
    "node --watch exercises/02-js/app.js",  # its child is the run
    "node /usr/bin/npm test",
    "node /usr/bin/npx jest exercises/02-js/tests.js",
    "node /n/.bin/eslint exercises/02-js/app.js",
    "node /n/.bin/prettier --write exercises/02-js/app.js",
    "node /n/pyright/langserver.index.js --stdio",
    "node /n/.bin/jest --listTests",
    "node /n/.bin/jest --version",
    "git status",
    "git checkout exercises/01-hello/app.py",
    "cat exercises/01-hello/app.py",
    "vim exercises/01-hello/app.py",
    "nano exercises/01-hello/app.py",
    "sed -i s/a/b/ exercises/01-hello/app.py",
    "cp exercises/01-hello/app.py /tmp",
    "ls exercises/01-hello",
    "file exercises/01-hello/app.py",
    "gcc --version",
    "uv run exercises/01-hello/app.py",
]


@pytest.mark.parametrize(("command", "cwd", "expected"), RUNS)
def test_a_step_s_own_file_makes_a_run(command: str, cwd: str, expected: str) -> None:
    assert judged(command, cwd) == expected


@pytest.mark.parametrize(("command", "cwd", "expected"), TESTS)
def test_a_test_tool_over_a_step_makes_a_test(command: str, cwd: str, expected: str) -> None:
    assert judged(command, cwd) == expected


@pytest.mark.parametrize("command", NOT_RUNS)
def test_tools_shells_and_questions_are_no_runs(command: str) -> None:
    assert judged(command) == "no"


@pytest.mark.parametrize(
    "command",
    [
        f"env python {APP}",
        f"env -i PATH=/bin python {APP}",
        f"/usr/bin/env bash /root/.pyenv/shims/python {APP}",
        f"bash /root/.pyenv/shims/python {APP}",
        f"bash /root/.pyenv/libexec/pyenv exec python {APP}",
        f"bash /root/.pyenv/libexec/pyenv-exec python {APP}",
        f"nohup python {APP}",
        f"nice -n 5 python {APP}",
        f"stdbuf -o L python {APP}",
    ],
)
def test_a_wrapper_that_becomes_the_command_has_its_purpose_for_the_time_being(command: str) -> None:
    purpose = purpose_of(COURSE, command.split(), "/c")
    assert isinstance(purpose, Purpose)
    assert told(purpose) == f"compile {APP}"
    assert purpose.provisional


@pytest.mark.parametrize(
    ("command", "cwd", "path"),
    [
        ("python -m pkg.mod", S, "exercises/01-hello/pkg/mod.py"),
        ("python -m pkg", S, "exercises/01-hello/pkg/__main__.py"),
        ("python pkg", S, "exercises/01-hello/pkg/__main__.py"),
        ("coverage run src/main.py", S, "exercises/01-hello/src/main.py"),
        ("node lib/run", "/c/exercises/02-js", "exercises/02-js/lib/run.js"),
        ("node lib", "/c/exercises/02-js", "exercises/02-js/lib/index.js"),
    ],
)
def test_a_file_deeper_in_the_step_is_looked_for_and_then_run(command: str, cwd: str, path: str) -> None:
    assert path in files_to_read(COURSE, command.split(), cwd, None)
    assert judged(command, cwd, text_of={path: "1"}) == f"compile {path}"
    assert judged(command, cwd, text_of={}) == "no"


def test_python_completes_no_name_as_node_does() -> None:
    assert judged("python app", S, text_of={APP: "1"}) == "no"
    assert judged("node app", "/c/exercises/02-js", text_of={JS: "1"}) == f"compile {JS}"


@pytest.mark.parametrize("command", ["python -m app", "coverage run app.py", "ipython app.py", "python -m pdb app.py"])
def test_the_ways_to_run_a_file_in_the_root_of_an_incremental_course(command: str) -> None:
    assert judged(command, "/c", INCREMENTAL, text_of={"app.py": "1"}) == "compile app.py"


def test_a_script_beside_its_interpreter_is_an_installed_tool_wherever_that_is() -> None:
    assert judged("myenv/bin/python myenv/bin/pip --version", S) == "no"
    assert judged("myenv/bin/python3 myenv/bin/pytest test.py", S) == f"test {TEST} whole"


def test_the_test_explorer_of_vs_code_tells_nothing_by_its_exit_code() -> None:
    purpose = purpose_of(COURSE, f"python /x/vscode_pytest/run_pytest_script.py --rootdir=. {TEST}".split(), "/c")
    assert isinstance(purpose, Purpose)
    assert not purpose.whole
    assert not purpose.exit_tells


def test_a_java_class_is_the_source_that_the_course_has() -> None:
    java = Course("/c", "x", (step_from("exercises/01-j", ["README.md", "App.java"], 0, ENTRIES),))
    source = "compile exercises/01-j/App.java"
    assert judged("java App", "/c/exercises/01-j", java) == source
    assert judged("java -ea -Xmx512m -cp . App", "/c/exercises/01-j", java) == source
    assert judged("java -cp exercises/01-j App", "/c", java) == source
    assert judged("java --source 21 exercises/01-j/App.java", "/c", java) == source
    assert judged("java -version", "/c", java) == "no"


def test_a_shell_step_may_have_tests_in_another_language() -> None:
    shell = Course("/c", "x", (step_from("exercises/01-s", ["README.md", "app.sh", "test.py"], 0, ENTRIES),))
    assert judged("bash exercises/01-s/app.sh", "/c", shell) == "compile exercises/01-s/app.sh"
    assert files_to_read(shell, ["pytest", "exercises/01-s/test.py"], "/c", None)[0] == "exercises/01-s/app.sh"


def test_a_file_that_is_not_there_is_no_run() -> None:
    assert judged("python exercises/01-hello/typo.py", text_of={}) == "no"
    assert judged("python exercises/01-hello/new.py", text_of={"exercises/01-hello/new.py": "1"}) != "no"
    assert judged("python exercises/01-hello/app.py", text_of={}) == f"compile {APP}"  # known, but too large to read


def test_a_redirected_file_is_what_python_runs() -> None:
    assert judged("python", stdin="/c/exercises/01-hello/app.py") == f"compile {APP}"
    assert judged("python", stdin="/home/u/other.py") == "no"


def test_a_test_file_run_directly_is_a_test_only_if_it_tests_itself() -> None:
    assert judged("python test.py", S) == f"compile {TEST}"
    assert judged("python test.py", S, text_of={TEST: "unittest.main()"}) == f"test {TEST} whole"


@pytest.mark.parametrize("command", ["python -m unittest test", "python -m unittest", "python -m unittest test.py"])
def test_unittest_proves_something_only_with_a_test_case_in_the_file(command: str) -> None:
    assert judged(command, S, text_of={TEST: "class T(unittest.TestCase): ..."}) == f"test {TEST} whole"
    assert judged(command, S, text_of={TEST: "def test_a(): ..."}) == f"test {TEST}"


def test_unittest_finds_the_tests_of_a_step_in_learnpacks_own_directory() -> None:
    path = ".learn/exercises/01-a/test.py"
    found = judged(
        "python -m unittest discover -s .learn/exercises/01-a -p test.py",
        course=INCREMENTAL,
        text_of={path: "class T(unittest.TestCase): ..."},
    )
    assert found == f"test {path} whole"


def test_one_test_case_of_unittest_is_not_the_whole_file() -> None:
    text = {TEST: "class T(unittest.TestCase): ..."}
    assert judged("python -m unittest test.T.test_a", S, text_of=text) == f"test {TEST}"
    assert judged("python -m unittest -k one test", S, text_of=text) == f"test {TEST}"


def test_configured_patterns_decide_what_a_bare_pytest_collects() -> None:
    configured = Course("/c", "x", COURSE.steps, pytest_files=("test.py",))
    assert judged("python -m pytest", S, configured) == f"test {TEST} whole"
    assert judged("python -m pytest", "/c", configured).split() == ["test", TEST, "exercises/04-more/test.py", "whole"]


def test_a_command_that_names_no_step_is_broad() -> None:
    for command in ("node /n/jest --testRegex tests?.js", "python -m pytest exercises"):
        purpose = purpose_of(Course("/c", "x", COURSE.steps, pytest_files=("test.py",)), command.split(), "/c")
        assert isinstance(purpose, Purpose)
        assert purpose.broad
    purpose = purpose_of(COURSE, f"python -m pytest {TEST} exercises/04-more/test.py".split(), "/c")
    assert isinstance(purpose, Purpose)
    assert not purpose.broad


def test_identical_copies_of_compile_run_are_alternatives() -> None:
    copies = ("exercises/02-js/app.js", "exercises/05-js-again/app.js")
    purpose = purpose_of(COURSE, ["node", "/h/.compile-run2/tmp/node/source-a-1.js"], "/c", copy_of=copies)
    assert isinstance(purpose, Purpose)
    assert purpose.alternatives
    assert purpose.targets == copies


def test_code_in_the_root_of_an_incremental_course_is_the_student_s() -> None:
    assert judged("python /c/app.py", "/c", INCREMENTAL) == "compile app.py"
    assert judged("pytest ./.learn/exercises/02-b/test.py", "/c", INCREMENTAL) == (
        "test .learn/exercises/02-b/test.py whole"
    )
    assert judged("python src/main.py", "/c", INCREMENTAL) == "compile src/main.py"
    assert judged("python main.py", "/c/src", INCREMENTAL) == "compile src/main.py"
    assert judged("python venv/bin/black app.py", "/c", INCREMENTAL) == "no"
    assert judged("python .learn/dist/cached_app.py", "/c", INCREMENTAL) == "no"
    assert judged("python /c/app.py", "/c", COURSE) == "no"


def test_the_files_worth_reading_are_the_entry_and_the_test() -> None:
    assert files_to_read(COURSE, ["python", "-m", "pytest", TEST], "/c", None) == (APP, TEST)
    assert files_to_read(COURSE, ["python", APP], "/c", None) == (APP,)
    assert files_to_read(COURSE, ["git", "status"], "/c", None) == ()
    assert files_to_read(INCREMENTAL, ["pytest", ".learn/exercises/01-a/test.py"], "/c", None) == (
        "app.py",
        ".learn/exercises/01-a/test.py",
    )


def test_only_processes_that_touch_the_course_are_relevant() -> None:
    assert is_relevant(COURSE, ["anything"], "/c/exercises", None)
    assert is_relevant(COURSE, ["python", "/c/exercises/01-hello/app.py"], "/home", None)
    assert is_relevant(COURSE, ["python", "c/exercises/01-hello/app.py"], "/", None)
    assert is_relevant(COURSE, ["python"], "/home", "/c/exercises/01-hello/app.py")
    assert not is_relevant(COURSE, ["python", "app.py"], "/home", None)
    assert not is_relevant(COURSE, ["python", "app.py"], "/cc", None)


def test_a_command_in_a_step_that_nobody_knows_yet_names_its_directory() -> None:
    assert unknown_step(COURSE, ["python", "exercises/99-new/app.py"], "/c") == "exercises/99-new"
    assert unknown_step(COURSE, ["python", "-u", "app.py"], "/c/exercises/99-new/src") == "exercises/99-new"
    assert unknown_step(COURSE, ["python", APP], "/c") is None
    assert unknown_step(COURSE, ["python", "exercises/.hidden/app.py"], "/c") is None
    assert unknown_step(COURSE, ["python", "/elsewhere/app.py"], "/c") is None


def test_a_copy_of_compile_run_is_recognised_by_its_place() -> None:
    assert compile_run_copy(["node", "/h/.compile-run2/tmp/node/source-a-1.js"]) == (
        "/h/.compile-run2/tmp/node/source-a-1.js"
    )
    java = ["java", "-classpath", "/h/.compile-run2/tmp/java/source-a-1", "App"]
    assert compile_run_copy(java) == "/h/.compile-run2/tmp/java/source-a-1/App.java"
    assert compile_run_copy(["node", "app.js"]) is None


def test_formatters_and_checkouts_rewrite_files_and_questions_to_git_do_not() -> None:
    assert rewrites_files(["python", "/venv/bin/black", "app.py"])
    assert rewrites_files(["python", "-m", "black", "app.py"])
    assert rewrites_files(["git", "pull"])
    assert rewrites_files(["git", "-C", "/c", "checkout", "."])
    assert rewrites_files(["git", "-C", "/c", "-c", "a=b", "-c", "d=e", "stash"])
    assert not rewrites_files(["git", "status"])
    assert not rewrites_files(["git", "log", "checkout"])
    assert not rewrites_files(["vim", "app.py"])


def test_the_server_is_learnpack_start_in_the_course_s_root() -> None:
    start = ["node", "/usr/lib/node_modules/learnpack/bin/learnpack", "start", "-p", "3000"]
    assert is_server(COURSE, start, "/c")
    assert is_server(COURSE, ["node", "/usr/lib/node_modules/@learnpack/learnpack/bin/run", "start"], "/c")
    assert not is_server(COURSE, start, "/other")
    assert not is_server(COURSE, ["node", "/usr/bin/learnpack", "publish"], "/c")
    assert not is_server(COURSE, ["grep", "learnpack", "start"], "/c")


#: Commands that end with 0 although not all of the step's test file was run, or none of it: none completes a step.
PARTS = [
    # pytest
    ("pytest test.py -m slow", S),
    ("pytest test.py -mslow", S),
    ("pytest test.py --ignore=other", S),
    ("pytest test.py::test_a test.py::test_b", S),
    ("pytest test.py::TestAdd", S),
    ("pytest test.py --last-failed", S),
    ("pytest test.py --stepwise-skip", S),
    ("pytest test.py @arguments", S),
    (f"pytest {TEST} @arguments.txt", "/c"),
    ("pytest test.py -o python_functions=test_a*", S),
    ("pytest test.py --override-ini=python_classes=TestA", S),
    ("pytest test.py -o 'addopts=-k one'", S),
    ("pytest test.py --splits 2 --group 1", S),
    ("pytest test.py --suppress-tests-failed-exit-code", S),
    ("python -m coverage run -m pytest -k one test.py", S),
    # unittest and its kin
    ("python -m unittest test.TestAdd", S),
    ("python -m unittest test.TestAdd.test", S),
    ("python -m unittest test.Sumtest", S),
    ("python -m unittest -k one test.py", S),
    ("nose2 test.TestAdd.test_a", S),
    ("nosetests test.py:TestAdd.test_a", S),
    ("nosetests test.py -a slow", S),
    # JavaScript
    ("node /n/jest 02-js --testNamePattern=one", "/c"),
    ("node /n/jest 02-js --test-name-pattern one", "/c"),
    ("node /n/jest 02-js -t=one", "/c"),
    ("node /n/jest --testPathIgnorePatterns 05 --testRegex tests.js", "/c"),
    ("node /n/jest 02-js --test-path-ignore-patterns=02-js --pass-with-no-tests", "/c"),
    ("node /n/jest 02-js --filter ./only.js", "/c"),
    ("node /n/jest 02-js --changed-since=main", "/c"),
    ("node /n/.bin/mocha -gone tests.js", "/c/exercises/02-js"),
    ("node /n/.bin/mocha --grep=one tests.js", "/c/exercises/02-js"),
    ("node /n/.bin/mocha --spec tests.js --fgrep one", "/c/exercises/02-js"),
    ("node /n/.bin/mocha tests.js --pass-on-failing-test-suite", "/c/exercises/02-js"),
    ("node --test --test-only tests.js", "/c/exercises/02-js"),
    ("node --test --test-skip-pattern one tests.js", "/c/exercises/02-js"),
    ("node /n/vitest.mjs run 02-js -t one", "/c"),
    ("node /n/vitest.mjs run 02-js --test-name-pattern one", "/c"),
    ("node /n/vitest.mjs run exercises/02-js/tests.js:4", "/c"),
    ("node /n/.bin/ava tests.js:4", "/c/exercises/02-js"),
    ("node /n/.bin/ava tests.js --match=one", "/c/exercises/02-js"),
    ("node /n/react-scripts test 02-js --testNamePattern one", "/c"),
    ("bun test -t one 02-js", "/c"),
    ("deno test --filter one tests.js", "/c/exercises/02-js"),
    ("ruby /gems/rspec exercises/01-hello/test.rb:12", "/c"),
    ("ruby /gems/rspec exercises/01-hello/test.rb --example one", "/c"),
    ("ruby /gems/rspec exercises/01-hello/test.rb --tag slow", "/c"),
    ("phpunit --testsuite one exercises/01-hello/test.php", "/c"),
    ("bats --filter-tags one exercises/06-shell/test.bats", "/c"),
]


@pytest.mark.parametrize(("command", "cwd"), PARTS)
def test_a_part_of_a_test_is_a_test_but_not_the_whole(command: str, cwd: str) -> None:
    texts = {TEST: "class TestAdd(unittest.TestCase): ..."}
    assert judged(command, cwd, text_of=texts).startswith("test exercises/")
    assert not judged(command, cwd, text_of=texts).endswith("whole")


@pytest.mark.parametrize(
    ("command", "cwd"),
    [
        ("pytest test.py -x --maxfail=1 --ff -p no:cacheprovider -o log_cli=true", S),
        ("pytest test.py --html report.html --durations-min 1", S),
        ("python -m unittest -f test", S),
        ("python -m unittest discover -p 'test*.py'", S),
        ("python -m unittest discover . test*.py", S),
        ("python -m unittest exercises/01-hello/test.py", "/c"),
        ("nose2 test", S),
        ("nosetests test.py", S),
        ("node /n/jest 02-js --bail --run-in-band", "/c"),
        ("node /n/.bin/mocha --spec exercises/02-js/tests.js", "/c"),
        ("node /n/.bin/mocha --bail --reporter dot exercises/02-js", "/c"),
        ("node /n/vitest.mjs --run --bail=1 02-js", "/c"),
        ("ruby /gems/rspec --format doc exercises/01-hello/test.rb", "/c"),
        ("phpunit exercises/01-hello/test.php", "/c"),
    ],
)
def test_what_stops_at_a_failure_or_only_reports_is_the_whole(command: str, cwd: str) -> None:
    texts = {TEST: "class TestAdd(unittest.TestCase): ..."}
    assert judged(command, cwd, text_of=texts).endswith(" whole")


@pytest.mark.parametrize(
    ("command", "cwd"),
    [
        # Neither looks into "01-hello": `Ran 0 tests` ends with 0 before Python 3.12.
        ("python -m unittest", "/c"),
        ("python -m unittest discover -s exercises", "/c"),
        ("python -m unittest discover exercises", "/c"),
        ("nose2", "/c"),
        # Its default is ./test, and it takes what lies in there and not below.
        ("node /n/.bin/mocha", "/c"),
        ("node /n/.bin/mocha", "/c/exercises"),
        ("node /n/vitest.mjs list 02-js", "/c"),
        ("node /n/vitest.mjs bench 02-js", "/c"),
        ("node /n/.bin/mocha init exercises/02-js", "/c"),
        ("phpunit --list-tests exercises/01-hello/test.php", "/c"),
        ("ruby /gems/rspec --dry-run exercises/01-hello/test.rb", "/c"),
    ],
)
def test_what_finds_no_test_of_a_step_or_only_lists_them_is_no_test(command: str, cwd: str) -> None:
    assert judged(command, cwd, text_of={TEST: "class TestAdd(unittest.TestCase): ..."}) == "no"


def test_a_pattern_of_unittest_decides_what_it_finds() -> None:
    text = {TEST: "class TestAdd(unittest.TestCase): ..."}
    assert judged("python -m unittest discover -p check*.py", S, text_of=text) == "test exercises/01-hello"
    assert judged("python -m unittest discover . check*.py", S, text_of=text) == "test exercises/01-hello"


@pytest.mark.parametrize(
    ("text", "command", "whole"),
    [
        ("unittest.main()", "python test.py", True),
        ("unittest.main(verbosity=2)", "python test.py -v --failfast", True),
        ("unittest.main()", "python test.py TestAdd", False),
        ("unittest.main()", "python test.py TestAdd.test_a", False),
        ("unittest.main()", "python test.py -k one", False),
        ("unittest.main()", "python test.py --help", False),
        ("unittest.main(verbosity=2, exit=False)", "python test.py", False),
        ("sys.exit(pytest.main([__file__]))", "python test.py", True),
        ("raise SystemExit(pytest.main())", "python test.py", True),
        ("sys.exit(pytest.main())", "python test.py -k one", False),
        ("pytest.main([__file__])", "python test.py", False),
        ("doctest.testmod()", "python test.py", False),
    ],
)
def test_a_test_file_that_tests_itself_tells_by_its_exit_code_or_not(text: str, command: str, whole: bool) -> None:
    assert judged(command, S, text_of={TEST: text}) == f"test {TEST}" + whole * " whole"


def test_a_part_of_a_node_test_that_is_run_directly_is_not_the_whole() -> None:
    text = {JS_TEST: "const test = require('node:test')"}
    step = "/c/exercises/02-js"
    assert judged("node tests.js", step, text_of=text) == f"test {JS_TEST} whole"
    assert judged("node --test-name-pattern=one tests.js", step, text_of=text) == f"test {JS_TEST}"
    assert judged("node --test-only tests.js", step, text_of=text) == f"test {JS_TEST}"
    assert judged("node app.js --test", step) == f"compile {JS}"  # the program's own option


def test_pytest_s_configuration_can_leave_tests_out() -> None:
    def configured(*options: str) -> Course:
        return Course("/c", "x", COURSE.steps, pytest_options=options)

    assert judged("pytest test.py", S, configured("-k", "one")) == f"test {TEST}"
    assert judged("pytest test.py", S, configured("--deselect=test.py::test_a")) == f"test {TEST}"
    assert judged("pytest test.py -o addopts=", S, configured("-k", "one")) == f"test {TEST} whole"
    assert judged("pytest test.py", S, configured("-ra", "--ignore=node_modules", "-m", "not slow")) == (
        f"test {TEST} whole"
    )
    assert judged("python -m unittest test", S, configured("-k", "one"), text_of={TEST: "TestCase"}) == (
        f"test {TEST} whole"
    )


HEX = "0123456789abcdef0123"
LAUNCHER = "/usr/lib/node_modules/shelljs/src/exec-child.js"


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (f"node {LAUNCHER} /tmp/shelljs_{HEX}", f"/tmp/shelljs_{HEX}"),
        (f"/usr/bin/node --trace-warnings {LAUNCHER} /var/tmp/a/shelljs_{HEX}", f"/var/tmp/a/shelljs_{HEX}"),
        (f"/bin/bash /home/a/.asdf/shims/node {LAUNCHER} /shelljs_{HEX}", f"/shelljs_{HEX}"),
        (f"node {LAUNCHER}", None),
        (f"node {LAUNCHER} shelljs_{HEX}", None),
        (f"node {LAUNCHER} /tmp/shelljs_{HEX}0", None),
        (f"node {LAUNCHER} /tmp/shelljs_{HEX.upper()}", None),
        (f"node {LAUNCHER} /tmp/shelljs_{HEX}/x", None),
        (f"node {LAUNCHER} /etc/passwd /tmp/shelljs_{HEX}", None),
        (f"node /x/exec-child.js /tmp/shelljs_{HEX}", None),
        (f"cat /tmp/shelljs_{HEX}", None),
        ("", None),
    ],
)
def test_the_launcher_of_a_test_names_its_parameter_file(line: str, path: str | None) -> None:
    assert parameter_file(line.split()) == path
