"""One table per question: how does each language run a file, how does it test one, which tools are no runs.

Looking to add a language?  Add a row to `INTERPRETERS` (or `TEST_TOOLS`) and a line to `tests/core/test_commands.py`.

The tables are read by `agent.core.commands`, which knows what a command line means in a course.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum


class Kind(Enum):
    """What a command is for.  COMPILER is one without its program: only its failure is a run of its own."""

    COMPILE = "compile"
    TEST = "test"
    COMPILER = "compiler"


# --- options ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """How a tool's command line is read.

    `values` take the next word as their value; `never` mean that nothing is run; `narrow` run only a part.
    Names are whole options ("--lf") or the letters of short ones ("-k").  `clusters`: short options can be
    joined ("-xvk name").  `dashes`: "--test-name-pattern" is another spelling of "--testNamePattern" (yargs, cac).
    """

    values: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    narrow: frozenset[str] = frozenset()
    clusters: bool = True
    dashes: bool = False


@dataclass(frozen=True, slots=True)
class Parsed:
    """A command line read with `Options`: operands in order, each option seen with its value (None without)."""

    operands: tuple[str, ...]
    options: tuple[tuple[str, str | None], ...]

    def values_of(self, *names: str) -> list[str]:
        return [value for name, value in self.options if name in names and value is not None]

    def has(self, names: frozenset[str]) -> bool:
        return any(name in names for name, _ in self.options)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def parse(line: Sequence[str], options: Options, *, stop_at_operand: bool = False) -> Parsed:
    """Read `line` (without the program's name).  With `stop_at_operand` all that follows the first operand
    belongs to it (an interpreter's script)."""
    operands: list[str] = []
    seen: list[tuple[str, str | None]] = []
    index = 0
    while index < len(line):
        word = line[index]
        index += 1
        if word == "--":
            operands.extend(line[index:])
            break
        if word == "-" or not word.startswith("-"):
            operands.append(word)
            if stop_at_operand:
                operands.extend(line[index:])
                break
            continue
        found: list[tuple[str, str | None]]
        if word.startswith("--") or not options.clusters:
            name, has_value, value = word.partition("=")
            if options.dashes:
                name = _DASH.sub(lambda found: found[1].upper(), name)
            found = [(name, value if has_value else None)]
        else:
            found = list(cluster(word, options))
        name, given = found[-1]
        if given is None and name in options.values and index < len(line):
            found[-1] = (name, line[index])
            index += 1
        seen.extend(found)
    return Parsed(tuple(operands), tuple(seen))


_DASH = re.compile(r"(?<=\w)-(\w)")


def cluster(word: str, options: Options) -> Iterator[tuple[str, str | None]]:
    """`-xvkname` → -x, -v, -k=name."""
    for position, letter in enumerate(word[1:], start=2):
        name = "-" + letter
        if name in options.values or name in options.never:
            rest = word[position:]
            yield name, rest if rest and name in options.values else None
            return
        yield name, None


# --- the tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A program whose first operand is the file that it runs.

    `programs` is matched against the whole name of the program; `endings` are tried where the operand names no
    known file (`node app`); `directory_file` is what a directory as operand means.  `subcommand`: the word that
    must come first (`deno run`).  `only_own_language`: a run only in a step without another language (a shell
    script beside `app.py` is a wrapper).
    """

    name: str
    programs: str
    options: Options
    endings: tuple[str, ...] = ()
    directory_file: str | None = None
    subcommand: frozenset[str] = frozenset()
    only_own_language: bool = False


_NODE_VALUES = words(
    "-r --require --import --loader --experimental-loader -C --conditions --env-file --env-file-if-exists"
    " --input-type --title --inspect-port --icu-data-dir --max-http-header-size --redirect-warnings"
    " --trace-event-categories --unhandled-rejections --watch-path --test-name-pattern --test-skip-pattern"
    " --test-reporter --test-reporter-destination --test-concurrency --test-timeout --test-shard"
    " --experimental-default-type --dns-result-order --diagnostic-dir --report-dir --report-directory --run"
    " --localstorage-file --openssl-config --tls-cipher-list --secure-heap --stack-trace-limit"
)

PYTHON = Interpreter(
    "python",
    r"([Pp]ython|pypy)(\d+(\.\d+)*)?t?(-dbg)?",  # "Python": the framework builds of macOS
    Options(
        values=words("-W -X -m --check-hash-based-pycs"),
        never=words("-c -h -? -V --version --help --help-env --help-xoptions --help-all"),
    ),
    endings=(".py",),
    directory_file="__main__.py",
)

NODE = Interpreter(
    "node",
    r"node(js)?(\d+)?",
    Options(
        values=_NODE_VALUES,
        never=words(
            "-e --eval -p --print -pe -c --check -h --help -v --version --v8-options --completion-bash"
            " --prof-process --run"
        ),
        clusters=False,
    ),
    endings=(".js", ".mjs", ".cjs"),
    directory_file="index.js",
)


SHELL = re.compile(r"(ba|da|z|k|fi)?sh")

#: Programs that become the command on their line (`exec`), each with its options that take a value.
EXEC_WRAPPERS: Mapping[str, frozenset[str]] = {
    "env": words("-u --unset -C --chdir"),
    "nice": words("-n --adjustment"),
    "nohup": frozenset(),
    "stdbuf": words("-i -o -e --input --output --error"),
    "ionice": words("-c -n --class --classdata"),
    "chrt": frozenset(),
}


def _plain(name: str, never: str = "", values: str = "", programs: str | None = None, **more: object) -> Interpreter:
    row = Interpreter(name, programs or name, Options(words(values), words(never)))
    return replace(row, **more)  # type: ignore[arg-type]


INTERPRETERS: tuple[Interpreter, ...] = (
    PYTHON,
    NODE,
    _plain("ruby", "-e -c -h --help -v --version", "-I -r -C", programs=r"j?ruby(\d+(\.\d+)*)?"),
    _plain("php", "-r -l -i -m -v -h --version --help -a -S", "-d -c -z", programs=r"php(\d+(\.\d+)*)?"),
    _plain("perl", "-e -E -c -v -V -h", "-I -M -m", programs=r"perl(5[\d.]*)?"),
    _plain("lua", "-e -v", "-l", programs=r"lua(jit)?(\d+(\.\d+)*)?"),
    _plain("R", "-e --version --help", programs="Rscript"),
    _plain("julia", "-e -E -v -h --version --help", "-J -L -p -t --project"),
    Interpreter(
        "java",
        "java",
        Options(
            words("-cp -classpath --class-path -p --module-path --source --release --add-modules --add-opens"),
            words("-version --version -h --help -? -help"),
            clusters=False,
        ),
        endings=(".java",),
    ),
    _plain("groovy", "-e -v -h"),
    _plain("elixir", "-e -v -h"),
    _plain("swift", "--version -h", subcommand=frozenset()),
    _plain("kotlin", "-e -version -h"),
    _plain("ts-node", "-e -p -v -h --version --help --eval", "-P -r -T --project --require"),
    _plain("tsx", "-e -p -v -h --version --help --eval", "--tsconfig"),
    _plain("deno", "--version --help", "-c --config --import-map --allow-read", subcommand=frozenset({"run"})),
    _plain("bun", "--version --help -e", "-r --preload"),
    _plain("go", "", "-exec -tags", subcommand=frozenset({"run"})),
    _plain("dart", "--version -h", subcommand=frozenset({"run"})),
    _plain(
        "shell",
        "-c -n --version --help",
        "-o -O --rcfile --init-file",
        programs=SHELL.pattern,
        only_own_language=True,
    ),
)


@dataclass(frozen=True, slots=True)
class TestTool:
    """A program that tests files.

    `operands`: "files" (paths, with `::` parts), "patterns" (matched against paths) or "names" (dotted names; none
    means what a directory holds).  `collects` are the file names that it takes from a directory without being told
    (None: as `Course` says).  `silent_codes` are exit codes for "no tests".  Not `decisive`: success proves nothing
    of the step's tests; not `exit_tells`: the exit code says nothing at all.  `subcommands`: words that may or (with
    `needs_subcommand`) must come first; `others` are words that come first and test nothing.  `default` is the
    operand that none means, `operand_options` are options whose values are operands.  Not `recursive`: of a
    directory only the files in it are taken.
    """

    name: str
    programs: str
    options: Options
    operands: str = "files"
    collects: tuple[str, ...] | None = ()
    silent_codes: frozenset[int] = frozenset()
    subcommands: frozenset[str] = frozenset()
    needs_subcommand: bool = False
    decisive: bool = True
    exit_tells: bool = True
    others: frozenset[str] = frozenset()
    default: str = "."
    operand_options: frozenset[str] = frozenset()
    recursive: bool = True


PYTEST = TestTool(
    "pytest",
    r"pytest|py\.test",
    Options(
        values=words(
            "-k -m -c -o -p -n -r -W --rootdir --confcutdir --basetemp --junitxml --junit-xml --maxfail --tb --color"
            " --durations --capture --ignore --ignore-glob --deselect --log-level --log-file --cov --cov-report"
            " --cov-config --numprocesses --dist --timeout --import-mode --override-ini --config-file --stdin"
            " --lfnf --last-failed-no-failures --html --durations-min --show-capture --verbosity --log-cli-level"
            " --cov-fail-under --reruns --splits --group --shard-id --num-shards"
        ),
        never=words(
            "-h --help -V --version --collect-only --co --fixtures --funcargs --fixtures-per-test --markers"
            " --setup-plan --setup-only --cache-show --cache-clear-only"
        ),
        narrow=words(
            "-k -m --deselect --ignore --ignore-glob --lf --last-failed --sw --stepwise --sw-skip --stepwise-skip"
            " --testmon --picked --splits --group --shard-id --num-shards"
            " --suppress-tests-failed-exit-code --suppress-no-test-exit-code"
        ),
    ),
    collects=None,
    silent_codes=frozenset({5}),
)

#: Options that leave a part of a step's tests out even where pytest's configuration holds them (`addopts`).  Others,
#: like `--ignore` and `-m`, may well be in it by the author's will: with them, the whole test is what is left.
CONFIGURED_NARROW = words(
    "-k --deselect --lf --last-failed --sw --stepwise --sw-skip --stepwise-skip --co --collect-only"
)

UNITTEST = TestTool(
    "unittest",
    "unittest",
    Options(
        values=words("-k -s --start-directory -p --pattern -t --top-level-directory --durations"),
        never=words("-h --help"),
        narrow=words("-k"),
    ),
    operands="names",
    collects=("test*.py",),
    silent_codes=frozenset({5}),
    recursive=False,  # only into packages, and "01-hello" can't be the name of one
)

DOCTEST = TestTool(
    "doctest",
    "doctest",
    Options(values=words("-o --option"), never=words("-h --help"), clusters=True),
    decisive=False,
)

JEST_FILES = ("*.test.?s", "*.test.?sx", "*.spec.?s", "*.spec.?sx", "test.?s", "test.?sx", "spec.?s", "spec.?sx")

JEST = TestTool(
    "jest",
    r"jest|jest-cli",
    Options(
        values=words(
            "-c --config -t --testNamePattern --testPathPattern --testPathPatterns --rootDir --roots --reporters"
            " --coverageDirectory -w --maxWorkers --env --testEnvironment --outputFile --selectProjects --shard"
            " --changedSince --testRegex --testMatch --setupFiles --setupFilesAfterEnv --testTimeout --projects"
            " --transform --testPathIgnorePatterns --maxConcurrency --seed --filter --ignoreProjects"
        ),
        never=words("-h --help --version --listTests --showConfig --init --clearCache"),
        narrow=words(
            "-t --testNamePattern --shard -o --onlyChanged -f --onlyFailures --lastCommit --changedSince"
            " --findRelatedTests --watch --watchAll --passWithNoTests --changedFilesWithAncestor --filter"
            " --testPathIgnorePatterns --selectProjects --ignoreProjects"
        ),
        dashes=True,
    ),
    operands="patterns",
    collects=None,
)

NODE_TEST = TestTool(
    "node --test",
    "node",
    Options(
        values=_NODE_VALUES,
        never=NODE.options.never,
        narrow=words("--test-name-pattern --test-skip-pattern --test-only --test-shard --watch"),
        clusters=False,
    ),
    collects=("*.test.?js", "*.test.js", "*-test.js", "*_test.js", "test-*.js", "test.js", "test.?js"),
)

TEST_TOOLS: tuple[TestTool, ...] = (
    PYTEST,
    UNITTEST,
    DOCTEST,
    # VS Code's test explorer: the tests come through a pipe, and pytest's result is dropped (it always exits with 0).
    TestTool("VS Code's tests", "run_pytest_script", PYTEST.options, collects=None, decisive=False, exit_tells=False),
    JEST,
    TestTool(
        "nose2",
        "nose2",
        Options(words("-s -t -c --start-dir --top-level-directory --config -A -E"), words("-h --help"), words("-A -E")),
        operands="names",
        collects=("test*.py",),
        silent_codes=frozenset({5}),
        recursive=False,
    ),
    TestTool(
        "nosetests",
        "nosetests3?",
        Options(
            words("-w -c -m -a -e -i -I --where --config --testmatch --attr --exclude --include --ignore-files"),
            words("-h --help -V --version --collect-only -p --plugins"),
            words("-m -a -e -I --testmatch --attr --exclude --ignore-files --failed"),
        ),
        collects=("test*.py",),
        recursive=False,
    ),
    TestTool(
        "mocha",
        "_?mocha",
        Options(
            words(
                "-g --grep -f --fgrep -r --require -R --reporter -t --timeout --config --spec -u --ui --extension"
                " --file --ignore --exclude -s --slow -O --reporter-option --reporter-options --package"
            ),
            words("-h --help -V --version --dry-run --list-reporters --list-interfaces"),
            words(
                "-g --grep -f --fgrep -i --invert -w --watch --shard --ignore --exclude"
                " --pass-on-failing-test-suite --passOnFailingTestSuite"
            ),
        ),
        collects=("*.js", "*.cjs", "*.mjs"),
        others=frozenset({"init"}),
        default="test",  # ./test/*.{js,cjs,mjs}
        operand_options=frozenset({"--spec"}),
        recursive=False,
    ),
    TestTool(
        "vitest",
        "vitest",
        Options(
            words(
                "-t --testNamePattern -c --config -r --root --reporter --environment --pool --dir --project"
                " --exclude --outputFile --testTimeout --retry --mode"
            ),
            words("-h --help -v --version --clearCache --mergeReports"),
            words("-t --testNamePattern --changed --shard -w --watch --passWithNoTests --exclude --project"),
            dashes=True,
        ),
        operands="patterns",
        collects=("*.test.?s", "*.test.?sx", "*.spec.?s", "*.spec.?sx"),
        subcommands=frozenset({"run"}),
        others=words("list bench init typecheck related"),
    ),
    TestTool(
        "ava",
        "ava",
        Options(words("-m --match -T --timeout --config"), words("--help --version"), words("-m --match -w --watch")),
        collects=("test.js", "test-*.js", "*.test.js"),
        others=words("debug reset-cache"),
    ),
    TestTool("tape", "tape", Options(words("-r -i"), words("--help"))),
    TestTool(
        "jasmine",
        "jasmine",
        Options(
            words("--filter --filter-path --config --reporter --helper --require --seed"),
            words("-h -v --help --version"),
            words("--filter --filter-path"),
        ),
        collects=("*[sS]pec.js",),
        others=words("init examples help version enumerate"),
    ),
    TestTool(
        "react-scripts test",
        "react-scripts",
        JEST.options,
        operands="patterns",
        collects=JEST_FILES,
        subcommands=frozenset({"test"}),
        needs_subcommand=True,
    ),
    TestTool(
        "rspec",
        "rspec",
        Options(
            words(
                "-e -E -t -f -o -r -I -P --example --example-matches --tag --format --out --require --pattern --seed"
                " --exclude-pattern --default-path --order --failure-exit-code --error-exit-code"
            ),
            words("-h -v --help --version --dry-run --init --bisect"),
            words(
                "-e -E -t -P --example --example-matches --tag --pattern --exclude-pattern --only-failures"
                " -n --next-failure --failure-exit-code"
            ),
        ),
        collects=("*_spec.rb",),
    ),
    TestTool(
        "phpunit",
        "phpunit",
        Options(
            words(
                "--filter --group --exclude-group --exclude-filter --testsuite --exclude-testsuite --covers --uses"
                " -c --configuration --bootstrap -d --printer --test-suffix"
            ),
            words("-h --help --version --list-tests --list-tests-xml --list-groups --list-suites --check-version"),
            words(
                "--filter --group --exclude-group --exclude-filter --testsuite --exclude-testsuite --covers --uses"
                " --test-suffix"
            ),
        ),
        collects=("*Test.php",),
    ),
    TestTool(
        "bats",
        "bats",
        Options(
            words("-f --filter --filter-tags --filter-status -F --formatter -j --jobs -o --output"),
            words("-h --help -v --version -c --count"),
            words("-f --filter --filter-tags --filter-status"),
        ),
    ),
    TestTool(
        "go test",
        "go",
        Options(
            words("-run --run -skip --skip -count --count -timeout --timeout -tags --tags -exec -o"),
            words("-list --list -c -n"),
            words("-run --run -skip --skip -short --short"),
            clusters=False,
        ),
        collects=("*_test.go",),
        subcommands=frozenset({"test"}),
        needs_subcommand=True,
    ),
    TestTool(
        "deno test",
        "deno",
        Options(
            words("--filter -c --config --ignore"),
            words("--help -h --no-run"),
            words("--filter --ignore --watch --permit-no-files"),
        ),
        collects=("*_test.?s", "*.test.?s", "test.?s"),
        subcommands=frozenset({"test"}),
        needs_subcommand=True,
    ),
    TestTool(
        "bun test",
        "bun",
        Options(
            words("-t --test-name-pattern --preload --timeout --path-ignore-patterns"),
            words("--help -h"),
            words("-t --test-name-pattern --watch --only --pass-with-no-tests --path-ignore-patterns"),
        ),
        operands="patterns",
        collects=("*.test.?s", "*.spec.?s", "*_test.?s"),
        subcommands=frozenset({"test"}),
        needs_subcommand=True,
    ),
)

#: Tools and modules that run the file given to them in their own process; where a subcommand is named, only with it.
HOSTS: Mapping[str, frozenset[str]] = {
    "coverage": frozenset({"run"}),
    "coverage3": frozenset({"run"}),
    **dict.fromkeys(
        words(
            "pdb ipdb pudb cProfile profile trace debugpy ipython IPython bpython ptpython kernprof pyinstrument"
            " viztracer scalene memory_profiler line_profiler faulthandler"
        ),
        frozenset(),
    ),
}
HOST_MODULE_OPTION = frozenset({"-m"})

#: Compilers: a failure is the student's run; after a success the program's own run is.
COMPILERS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(-\d+)?|javac|kotlinc|rustc|tsc|ghc|fpc|nasm|scalac|gfortran|mcs|csc"
)

#: Commands that rewrite many files without being anybody's work on a step.
GIT_OPTIONS = Options(words("-C -c --git-dir --work-tree --namespace --exec-path"), clusters=False)
GIT_WRITERS = words("checkout pull merge reset stash restore clone switch rebase apply am cherry-pick revert clean")
FORMATTERS = words(
    "black autopep8 yapf isort ruff prettier eslint standard gofmt rustfmt clang-format blue docformatter"
)
