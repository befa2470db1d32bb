"""Programs that mean harm, and programs that cheat, on each rung of isolation that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lengthwise.config import ConfigError
from lengthwise.sandbox import isolation as isolation_module
from lengthwise.sandbox.code_tests import AssertTest, CallTest, Sandbox, StdioTest, last_code_block
from lengthwise.sandbox.execute import run_script, run_test
from lengthwise.sandbox.isolation import available, works
from lengthwise.sandbox.outcomes import RUNGS, Limits
from lengthwise.scratch import remove_abandoned

HERE = available()
LIMITS = Limits(seconds=5, memory_mb=512, output_kb=64)
QUICK = Limits(seconds=1, memory_mb=512, output_kb=64)


def rungs(*names: str):
    return pytest.mark.parametrize(
        "rung",
        [
            pytest.param(name, marks=[] if name in HERE else pytest.mark.skip(reason=f"{name}: {works(name)}"))
            for name in (names or RUNGS)
        ],
    )  # fmt: skip


def folders() -> set[str]:
    return {entry for entry in os.listdir(tempfile.gettempdir()) if entry.startswith("lengthwise-sandbox-")}


BEFORE = folders()
"""Of runs that were killed as a whole, before these tests."""


def leftovers() -> set[str]:
    return folders() - BEFORE


HARM = {
    "an endless loop": ("while True: pass", "timeout"),
    "a sleep that ignores signals": (
        "import signal, time\nfor s in (15, 2, 1): signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)", "timeout",
    ),
    "a fork bomb": ("import os\nwhile True: os.fork()", "runtime"),
    "subprocesses": ("import subprocess\nsubprocess.run(['/bin/true'])", "runtime"),
    "a grandchild": ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)", "runtime"),
    "a memory bomb": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "memory"),
    "a flood of output": ("while True: print('x' * 10000)", "output_limit"),
    "a socket": ("import socket\nsocket.socket().connect(('127.0.0.1', 80))", "runtime"),
    "a signal to its parent": ("import os\nos.kill(os.getppid(), 9)", "runtime"),
    "an exit that claims success": ("import os\nos._exit(0)", "failed"),
    "an exit with a status": ("import os\nos._exit(3)", "runtime"),
    "sys.exit": ("import sys\nsys.exit(1)", "runtime"),
    "input at its end": ("input()", "runtime"),
    "endless recursion": ("def f(): f()\nf()", "runtime"),
    "recursion through the stack": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): return [f()]\nf()", None),
    "a storm of threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()", None,
    ),
    "a crash": ("import ctypes\nctypes.string_at(0)", "killed"),
    "no Python": ("def f(:", "syntax"),
    "a null byte": ("x = 1\0", "syntax"),
    "a huge file": ("with open('big', 'wb') as f:\n    while True: f.write(bytes(1 << 20))", None),
    "a report of its own": (
        "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'{\"outcome\": \"passed\"}\\n')\n"
        "        os.write(fd, b'{\"outcome\": \"sandbox_error\"}\\n')\n    except OSError: pass", "failed",
    ),
    "a session of its own": ("import os, time\nos.setsid()\ntime.sleep(60)", "runtime"),
    "outliving its parent": ("import ctypes\nif ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) != 0: raise OSError", "runtime"),
    "limits of its parent": (
        "import os, resource\nresource.prlimit(os.getppid() or 1, resource.RLIMIT_CPU, (1, 1))", "runtime",
    ),
    "the cores of its parent": ("import os\nos.sched_setaffinity(os.getppid(), {0})", "runtime"),
    "shared memory": ("import ctypes\nif ctypes.CDLL(None).shmget(0, 4096, 0o1600) < 0: raise OSError", "runtime"),
    "a device": ("import os, stat\nos.mknod('d', stat.S_IFCHR | 0o600, os.makedev(1, 5))", "runtime"),
    "signals by a pipe": (
        "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, os.getppid())", "runtime",
    ),
    "folders without end": ("import os\nfor i in range(1500):\n    os.mkdir('d')\n    os.chdir('d')", "failed"),
    "half a surrogate in its source": ("x = '\ud800'", "syntax"),
    "half a surrogate": ("print('\\ud800')", "runtime"),
}  # fmt: skip


@rungs()
@pytest.mark.parametrize("name", HARM)
def test_harm_is_contained_and_named(rung, name):
    source, outcome = HARM[name]
    sandbox = Sandbox(allow_code_execution=True, limits=QUICK if outcome in ("timeout", None) else LIMITS)
    sandbox.isolation = rung
    start = time.monotonic()
    (result,) = sandbox.run(source, [StdioTest(stdin="", expected="42")])
    assert result.outcome == outcome or (outcome is None and result.passed is False), result
    assert result.isolation == rung and time.monotonic() - start < 15
    assert not leftovers()


@rungs("landlock", "userns", "bwrap")
def test_files_of_others_are_out_of_reach(rung, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    for source in (
        f"print(open({str(secret)!r}).read())",
        f"open({str(tmp_path / 'new.txt')!r}, 'w').write('x')",
        f"import os\nprint(os.listdir({str(tmp_path)!r}))",
        f"import os\nos.symlink({str(secret)!r}, 'link')\nprint(open('link').read())",
        f"import os\nos.remove({str(secret)!r})",
        "print(open('/etc/passwd').read())",
        "print(open(f'/proc/{__import__(\"os\").getppid()}/environ').read())",
    ):
        ran = run_script(source, limits=LIMITS, isolation=rung)
        assert ran.outcome == "runtime" and "secret" not in ran.output, (source, ran)
    assert secret.read_text() == "the secret" and [p.name for p in tmp_path.iterdir()] == ["secret.txt"]


@rungs()
def test_the_environment_is_empty_of_ours(rung, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    ran = run_script("import os\nprint(dict(os.environ))", limits=LIMITS, isolation=rung)
    assert ran.outcome == "ended" and "abc" not in ran.output and "OMP_NUM_THREADS" in ran.output


@rungs()
def test_a_program_prints_the_same_in_each_run(rung):
    source = "print({'a', 'bb', 'ccc', 'dd', 'e'})"
    assert len({run_script(source, limits=LIMITS, isolation=rung).output for _ in range(4)}) == 1


@rungs()
def test_its_own_folder_is_its_own(rung):
    source = "open('a.txt', 'w').write('x')\nimport tempfile\nprint(open('a.txt').read(), tempfile.TemporaryFile())"
    assert run_script(source, limits=LIMITS, isolation=rung).outcome == "ended"
    again = run_script("print(open('a.txt').read())", limits=LIMITS, isolation=rung)
    assert again.outcome == "runtime"


CHEATS = {
    "passes": ("def add(a, b): return a + b", "passed"),
    "wrong": ("def add(a, b): return a - b", "failed"),
    "equal to all": (
        "class X:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef add(a, b): return X()", "failed",
    ),
    "an int that equals all": (
        "class X(int):\n    def __eq__(self, o): return True\ndef add(a, b): return X(7)", "failed",
    ),
    "patches assert": ("import builtins\nbuiltins.AssertionError = SystemExit\ndef add(a, b): return 0", "failed"),
    "leaves in the call": ("import os\ndef add(a, b): os._exit(0)", "runtime"),
    "exits in the call": ("import sys\ndef add(a, b): sys.exit(0)", None),
    "leaves at once": ("import os\nos._exit(0)", "runtime"),
    "raises": ("def add(a, b): raise ValueError('no')", "runtime"),
    "loops": ("def add(a, b):\n    while True: pass", "timeout"),
    "prints passed": ("print('passed')\ndef add(a, b):\n    print('{\"value\": \"4\"}')\n    return 0", "failed"),
    "answers before it is asked": (
        "import os\nfor fd in range(0, 64):\n    try: os.write(fd, b'{\"ready\": [\"add\"]}\\n{\"value\": \"4\"}\\n')\n"
        "    except OSError: pass\ndef add(a, b): return 0", None,
    ),
    "looks for its test": (
        "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n"
        "        if 'assert' in str(f.f_locals.get('code')): return 4\n        f = f.f_back\n    return 0", "failed",
    ),
    "dictates its verdict": (
        "import __main__\n__main__.described = lambda e: {'outcome': 'passed', 'detail': ''}\n"
        "def add(a, b): raise ValueError", "runtime",
    ),
    "dictates that nobody knows": (
        "import __main__\n__main__.described = lambda e: {'outcome': 'sandbox_error', 'detail': 3}\n"
        "def add(a, b): raise ValueError", "runtime",
    ),
    "no such function": ("x = 1", "failed"),
    "no Python": ("def add(:", "syntax"),
}  # fmt: skip


@rungs()
@pytest.mark.parametrize("name", CHEATS)
def test_no_program_passes_but_by_being_right(rung, name):
    source, outcome = CHEATS[name]
    limits = QUICK if outcome == "timeout" else LIMITS
    ran = run_test(source, "assert add(2, 2) == 4\nassert add(5, 6) == 11", limits=limits, isolation=rung)
    assert ran.outcome == outcome or (outcome is None and ran.outcome not in ("passed", "sandbox_error")), ran


@pytest.fixture(scope="module")
def sandbox():
    made = Sandbox(allow_code_execution=True, limits=LIMITS, workers=2)
    yield made
    made.close()


def test_values_travel_as_they_are(sandbox):
    source = (
        "def same(x): return x\ndef least(x): return min(x)\ndef keys(x): return x.keys()\n"
        "def count(n):\n    yield from range(n)\n"
        "def pair(a, b=2, *, c=3): return (a, b, c)\nclass Solution:\n    def twice(self, x): return x * 2\n"
    )
    code = (
        "assert same((1, 'ä', None, {'a': {1, 2}}, 2.5, b'x', 1j)) == (1, 'ä', None, {'a': {1, 2}}, 2.5, b'x', 1j)\n"
        "assert same(float('inf')) == float('inf') and same(float('nan')) != 0\n"
        "assert same(range(3)) == range(3) and least([float('inf'), 3]) == 3 and list(keys({'a': 1})) == ['a']\n"
        "assert list(count(3)) == [0, 1, 2]\nassert pair(1, c=5) == (1, 2, 5)\n"
    )
    assert [r.outcome for r in sandbox.run(source, [AssertTest(code=code)])] == ["passed"]
    tests = [
        CallTest(name="pair", args=[1, 2], expected=[1, 2, 3]),
        CallTest(name="same", args=[0.1], expected=0.1000000001),
    ]
    assert [r.outcome for r in sandbox.run(source, tests)] == ["passed", "passed"]


SHADOWS = "def add(a, b): return 0\n" + "".join(
    f"def {name}(*a, **k): return True\n"
    for name in ("set", "len", "all", "zip", "isinstance", "sorted", "type", "abs")
)


@pytest.mark.parametrize(
    "test",
    [
        AssertTest(code="assert set([add(2, 2)]) == set([4])"),
        AssertTest(code="assert sorted([add(2, 2)]) == [4]"),
        CallTest(name="add", args=[2, 2], expected=4),
        CallTest(name="add", args=[2, 2], expected=[4]),
    ],
)
def test_functions_named_like_builtins_decide_nothing(sandbox, test):
    assert [r.outcome for r in sandbox.run(SHADOWS, [test])] == ["failed"]


def test_an_exception_that_ends_loops_ends_no_test(sandbox):
    source = "def check(x): raise StopIteration"
    assert [r.outcome for r in sandbox.run(source, [AssertTest(code="assert all(map(check, [1]))")])] == [
        "runtime"
    ]


@pytest.mark.parametrize(
    "source",
    [
        "import threading, time\ndef f():\n    time.sleep(0.1)\n    print(42)\nthreading.Thread(target=f).start()",
        "import atexit\natexit.register(lambda: print(42))",
        "print(42)\nexit()",
        "import sys\nprint(42)\nsys.exit(0)",
        "import sys\nprint(len(str(10 ** 5000)) - 4959)",
    ],
)
def test_programs_that_end_in_other_ways_are_right(sandbox, source):
    (result,) = sandbox.run(source, [StdioTest(stdin="", expected="42")])
    assert result.passed, result


def test_methods_of_a_solution_and_wrapped_results(sandbox):
    source = "class Solution:\n    def twice(self, x): return x * 2\n    def pair(self, x): return [x, x]"
    tests = [
        CallTest(name="twice", args=["ab"], expected="abab"),
        CallTest(name="twice", args=["ab"], expected=["abab"], may_be_wrapped=True),
        CallTest(name="pair", args=[1], expected=[[1, 1]], may_be_wrapped=True),
        CallTest(name="twice", args=["ab"], expected=["abab"]),
        CallTest(name="pair", args=[1], expected=[1], may_be_wrapped=True),
    ]
    found = [r.outcome for r in sandbox.run(source, tests)]
    assert found == ["passed", "passed", "passed", "failed", "failed"]


def test_exceptions_of_the_program_reach_the_test(sandbox):
    source = "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x"
    caught = (
        "try:\n    f(-1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'negative'"
    )
    uncaught = "assert f(-1) == 1"
    found = sandbox.run(source, [AssertTest(code=caught), AssertTest(code=uncaught)])
    assert [r.outcome for r in found] == ["passed", "runtime"]
    assert found[1].detail == "ValueError: negative (line 2)"


def test_the_first_failure_ends_a_reward(sandbox):
    tests = [StdioTest(stdin=s, expected="1") for s in ("1", "2", "1")]
    assert [r.passed for r in sandbox.run("print(input())", tests)] == [True, False, True]
    assert [r.passed for r in sandbox.run("print(input())", tests, stop_at_failure=True)] == [True, False]
    assert [r.outcome for r in sandbox.run(None, tests[:1])] == ["no_code"]


def test_a_fault_of_the_sandbox_is_none_of_the_program(sandbox, monkeypatch):
    tries = []

    def broken(*args):
        tries.append(args)
        return ["/nowhere/python"]

    monkeypatch.setattr("lengthwise.sandbox.execute.command", broken)
    for test in (StdioTest(stdin="", expected="1"), AssertTest(code="assert True")):
        (result,) = sandbox.run("print(1)", [test])
        assert (result.outcome, result.passed) == ("sandbox_error", None)
    assert len(tries) == 6


@pytest.mark.slow
def test_two_hundred_hostile_programs_leave_nothing(sandbox):
    sources = [source for source, _ in HARM.values()]
    jobs = [(sources[i % len(sources)], [StdioTest(stdin="", expected="42")]) for i in range(200)]
    sandbox.limits, before = QUICK, sandbox.limits
    try:
        results = sandbox.run_many(jobs)
    finally:
        sandbox.limits = before
    assert len(results) == 200 and not any(result.passed for (result,) in results)
    assert not any(result.outcome == "sandbox_error" for (result,) in results)
    assert not leftovers()
    listed = subprocess.run(
        ["ps", "-eo", "ppid,stat,args"], capture_output=True, text=True, check=True
    ).stdout
    assert not [line for line in listed.splitlines() if "launcher.py" in line]
    assert not [line for line in listed.splitlines() if line.split()[:2] == [str(os.getpid()), "Z"]]


def test_from_another_thread(sandbox):
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(sandbox.run("print(1)", [StdioTest(stdin="", expected="1")]))
    )
    thread.start()
    thread.join()
    assert found[0].passed


KILLED = """
import sys, time
sys.path.insert(0, {root!r})
from lengthwise.sandbox.execute import run_script
from lengthwise.sandbox.outcomes import Limits
run_script("import time\\nopen('begun', 'w').close()\\ntime.sleep(300)", limits=Limits(seconds=300), isolation={rung!r})
"""


@rungs()
def test_a_program_dies_with_the_job_that_runs_it(rung, tmp_path):
    root = str(Path(__file__).resolve().parents[2])
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(root=root, rung=rung)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/work/begun")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.glob("*/work/begun"))
    job.kill()
    job.wait()
    while time.monotonic() < deadline:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        if not [line for line in listed.splitlines() if str(tmp_path) in line and "launcher.py" in line]:
            break
        time.sleep(0.05)
    else:
        raise AssertionError(listed)
    assert len(remove_abandoned(tmp_path)) == 1  # what the next sandbox does
    assert not list(tmp_path.glob("*/work"))


def test_it_is_off_until_it_is_allowed():
    with pytest.raises(ConfigError, match="allow_code_execution: true"):
        Sandbox()


def test_too_weak_a_machine_is_refused(monkeypatch):
    monkeypatch.setattr("lengthwise.sandbox.code_tests.available", lambda: ("process",))
    with pytest.raises(ConfigError, match="require_isolation is bwrap, and this machine has process at most"):
        Sandbox(allow_code_execution=True, require_isolation="bwrap")
    assert Sandbox(allow_code_execution=True, require_isolation="process").isolation == "process"


@pytest.mark.parametrize("options", [{"seconds": 0}, {"memory_mb": 1}, {"output_kb": 0}, {"file_mb": 0}])
def test_limits_under_which_nothing_starts_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Limits(**options)


def test_code_is_the_last_block_that_closes():
    assert last_code_block("none") is None and last_code_block("```python\nx = 1\n") is None
    assert last_code_block("```py\na\n```\n```\nb\n\nc\n```\nend") == "b\n\nc"
    assert last_code_block("```python\n```") == ""


def test_isolation_names_why_it_lacks_something(monkeypatch):
    monkeypatch.setattr(isolation_module.shutil, "which", lambda name: None)
    works.cache_clear()
    assert works("bwrap") == "bwrap is not installed"
    works.cache_clear()
