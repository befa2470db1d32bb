"""The process that compares answers: it may hang, die or eat memory, and is never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lengthwise import answer_process
from lengthwise.answer_process import AnswerProcess, Comparison, ComparisonFailed, compare_answers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it rests on fork and /proc")

HANGS = "9^{9^{9^{9}}}"
"""Takes longer than the universe to compute, inside one call that no signal handler interrupts."""

REAL = "from lengthwise import answer_worker\n{}\nraise SystemExit(answer_worker.main())\n"


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def becomes_true(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def process() -> Iterator[AnswerProcess]:
    made = AnswerProcess(seconds=30)
    yield made
    made.close()


@pytest.fixture
def with_worker(tmp_path: Path, monkeypatch) -> Iterator[Callable[[str], AnswerProcess]]:
    made: list[AnswerProcess] = []

    def make(program: str, seconds: float = 30) -> AnswerProcess:
        (tmp_path / "own_worker.py").write_text(program)
        monkeypatch.syspath_prepend(str(tmp_path))
        made.append(AnswerProcess(seconds=seconds, worker="own_worker"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_one_process_serves_all_questions(process):
    assert process.pid is None
    assert process.compare("2(x + 1)", "2x + 2") == Comparison(True)
    first = process.pid
    assert process.compare("2(x + 1)", "2x + 1") == Comparison(False)
    assert process.compare("(x, 2(y + 1)]", "(x, 2y + 2]") == Comparison(True)
    assert process.pid == first


def test_what_the_writing_tells_starts_no_process(monkeypatch):
    def refuse(*_: str) -> Comparison:
        raise AssertionError("asked")

    monkeypatch.setattr(answer_process._shared, "compare", refuse)
    assert compare_answers("10001", "10000") == Comparison(False)
    assert compare_answers(r"\dfrac12", "0.5") == Comparison(True)
    with pytest.raises(AssertionError, match="asked"):
        compare_answers("x + y", "y + x")


def test_a_comparison_that_hangs_counts_as_different_and_harms_no_other(process):
    process.compare("x", "y")
    first = process.pid
    process.seconds = 0.3
    assert process.compare(HANGS, "5") == Comparison(False, "timed out twice")
    process.seconds = 30
    assert process.compare("x + y", "y + x") == Comparison(True)
    assert process.pid == first
    assert children(first) == []


def test_a_process_that_is_stuck_is_replaced(with_worker, monkeypatch):
    monkeypatch.setattr(answer_process, "GRACE_SECONDS", 0.2)
    stuck = with_worker(
        'import time\nprint(\'{"verdict": "ready"}\', flush=True)\ntime.sleep(60)', seconds=0.1
    )
    assert stuck.compare("x", "y") == Comparison(False, "timed out twice")
    assert stuck.pid is None


def test_a_process_that_was_killed_is_replaced(process):
    process.compare("x", "y")
    first = process.pid
    os.kill(first, signal.SIGKILL)
    assert process.compare("x + y", "y + x") == Comparison(True)
    assert process.pid != first


def test_a_process_killed_at_work_is_replaced(process):
    process.compare("x", "y")
    first = process.pid

    def kill_at_work() -> None:
        becomes_true(lambda: bool(children(first)))
        os.kill(first, signal.SIGKILL)

    process.seconds = 5
    killer = threading.Thread(target=kill_at_work)
    killer.start()
    verdict = process.compare(HANGS, "5")
    killer.join()
    assert verdict == Comparison(False, "timed out once, crashed once")
    assert process.pid not in (None, first)


def test_a_process_that_dies_twice_is_not_the_models_fault(with_worker):
    dies = with_worker('print(\'{"verdict": "ready"}\', flush=True)\ninput()\nraise SystemExit(3)')
    with pytest.raises(ComparisonFailed, match=r"crashed twice: it ended with status 3"):
        dies.compare("x", "y")


def test_a_comparison_that_crashes_twice_is_not_the_models_fault(with_worker):
    own = "import os\nanswer_worker.same_answer = lambda *_: os.kill(os.getpid(), 11)"
    crashes = with_worker(REAL.format(own))
    with pytest.raises(ComparisonFailed, match=r"crashed twice: .* ended with signal 11"):
        crashes.compare("x", "y")


def test_memory_is_limited(with_worker):
    own = "answer_worker.MEMORY_BYTES = 2**29\nanswer_worker.same_answer = lambda *_: len(bytes(2**30)) > 0"
    assert with_worker(REAL.format(own)).compare("x", "y") == Comparison(False, "MemoryError")


def test_what_a_library_prints_is_no_answer(with_worker):
    own = 'answer_worker.same_answer = lambda *_: print(\'{"verdict": "different"}\', flush=True) is None'
    assert with_worker(REAL.format(own)).compare("x", "y") == Comparison(True)


def test_a_library_that_is_missing_is_named(with_worker):
    lacks = with_worker(REAL.format("import sys\nsys.modules['math_verify'] = None"))
    with pytest.raises(ComparisonFailed, match=r"did not start: math-verify cannot be loaded: .*math_verify"):
        lacks.compare("x", "y")


def test_a_program_that_does_not_start_is_named(with_worker):
    with pytest.raises(ComparisonFailed, match=r"did not start: it ended with status 7"):
        with_worker("raise SystemExit(7)").compare("x", "y")


def test_files_of_the_current_folder_are_no_modules(process, tmp_path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert process.compare("x + y", "y + x") == Comparison(True)


def test_four_threads_ask_at_once(process):
    verdicts: dict[int, list[bool]] = {}

    def ask(number: int) -> None:
        pairs = [(f"{number}x + {i}", f"{i} + {number + i % 2}x") for i in range(1, 9)]
        verdicts[number] = [process.compare(*pair).same for pair in pairs]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: [False, True] * 4 for number in range(2, 6)}


def test_it_outlives_the_thread_that_started_it(process):
    thread = threading.Thread(target=process.compare, args=("x", "y"))
    thread.start()
    thread.join()
    first = process.pid
    time.sleep(0.2)
    assert process.compare("x + y", "y + x") == Comparison(True)
    assert process.pid == first


def test_a_forked_process_starts_its_own(process):
    process.compare("x", "y")
    first = process.pid
    child = os.fork()
    if child == 0:
        is_right = process.compare("x + y", "y + x").same and process.pid not in (None, first)
        process.close()
        os._exit(0 if is_right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert process.pid == first
    assert process.compare("x + y", "y + x") == Comparison(True)


ASKER = f"""
import sys
from lengthwise import answer_process
process = answer_process.AnswerProcess(seconds=600)
process.compare("x", "y")
print(process.pid, flush=True)
if sys.argv[1] == "hang":
    process.compare({HANGS!r}, "5")
elif sys.argv[1] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["wait", "hang"])
def test_nothing_is_left_of_an_asker_that_is_killed(when):
    command = [sys.executable, "-c", ASKER, when]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdout is not None
        worker = int(asker.stdout.readline())
        if when == "hang":
            assert becomes_true(lambda: bool(children(worker)))
        comparing = children(worker)
        assert is_alive(worker) and len(comparing) == (when == "hang")
        asker.kill()
    for pid in (worker, *comparing):
        assert becomes_true(lambda pid=pid: not is_alive(pid))


def test_nothing_is_left_of_an_asker_that_ends(tmp_path):
    run = subprocess.run([sys.executable, "-c", ASKER, "end"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert becomes_true(lambda: not is_alive(int(run.stdout)))
    assert run.stderr == ""
