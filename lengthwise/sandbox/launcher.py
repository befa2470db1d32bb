"""The first thing that runs in the interpreter of a program under test: confines it, then runs it.

    python -P -s -S launcher.py '{"mode": "script", ...}'

Modes: `script` runs the program as `__main__`, with the test's input on stdin. `functions` runs it as a module, then
answers calls of its functions: a line of JSON in, a line out, values written as Python literals. `judge` runs a test's
own code, in which the names of the program's functions stand for calls to a process in mode `functions`; so the program
never sees its tests, and what it returns are plain values that it cannot make equal to others.

Uses the standard library alone, and knows nothing of Lengthwise: neither may be imported where it runs.
"""

import ast
import atexit
import builtins
import contextlib
import json
import math
import os
import runpy
import sys
import traceback

SETTINGS = {}
_NOT_RAISED = (StopIteration, StopAsyncIteration, GeneratorExit)
"""Exceptions that would end a loop of the test in silence."""
MOST_ITEMS = 1_000_000


def main():
    """Confine this process, compile the program, run it in its mode."""
    settings = json.loads(sys.argv[1])
    SETTINGS.update(settings)
    sys.path += settings["path"]
    confine = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "confine.py"))
    confine["die_with_parent"]()
    try:
        _confine(confine, settings)
    except OSError as error:
        report(outcome="sandbox_error", detail=f"{settings['isolation']}: {error}")
        os._exit(70)
    report(outcome="started")
    os.chdir(settings["folder"])
    sys.argv = ["program.py"]
    for name in ("exit", "quit"):  # which the module site makes, and is not there
        setattr(builtins, name, sys.exit)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    try:
        with open("program.py", encoding="utf-8") as file:
            source = file.read()
        code = compile(source, "program.py", "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        report(outcome="syntax", detail=f"{type(error).__name__}: {error.args[0]} (line {line})")
        os._exit(1)
    except (MemoryError, RecursionError) as error:
        report(outcome="syntax", detail=f"{type(error).__name__} while it is compiled")
        os._exit(1)
    modes = {"script": run_script, "functions": serve_functions, "judge": judge}
    guarded(lambda: modes[settings["mode"]](code, settings))


def _confine(confine, settings):
    confine["limit_resources"](settings["seconds"], settings["memory_mb"], settings["file_mb"])
    confine["renounce_privileges"]()
    confine["drop_capabilities"]()
    if settings["isolation"] != "process":
        confine["restrict_files"](settings["readable"], [settings["folder"], "/dev/null"])
    try:
        confine["restrict_calls"]()
    except OSError:
        if settings["isolation"] != "process":
            raise


def guarded(run):
    """Run, and report what it raises."""
    try:
        run()
        end_as_python_does()
    except SystemExit as error:
        status = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        with contextlib.suppress(BaseException):
            end_as_python_does()
        if status:
            report(outcome="runtime", detail=f"SystemExit: {error.code}")
        flush_and_leave(status)
    except BaseException as error:
        report(**described(error))
        flush_and_leave(1)
    report(outcome="ended")
    flush_and_leave(0)


def end_as_python_does():
    """Wait for the program's threads and run what it has left for its end, both of which may still write."""
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()


def flush_and_leave(status):
    """End this process at once, whatever the program has hooked into its end."""
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os._exit(status)


def described(error):
    """Return the outcome of an exception: its type, message and line in the program."""
    if isinstance(error, MemoryError):
        return {"outcome": "memory", "detail": "MemoryError"}
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "program.py"]
    try:
        message = str(error)[:500]
    except BaseException:
        message = "?"
    where = f" (line {lines[-1]})" if lines else ""
    return {"outcome": "runtime", "detail": f"{type(error).__name__}: {message}{where}", "message": message}


def report(**entry):
    """Tell the parent; what a program itself writes there changes how it is said to have failed, never whether."""
    with contextlib.suppress(OSError):
        os.write(SETTINGS["report"], json.dumps(entry).encode() + b"\n")


def run_script(code, settings):
    """Run the program as a script."""
    exec(code, {"__name__": "__main__", "__builtins__": builtins})


# --- functions ------------------------------------------------------------------------------------


def serve_functions(code, settings):
    """Answer calls that come on stdin; the program's own prints go nowhere."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    space = {"__name__": "program", "__builtins__": builtins}
    exec(code, space)
    answers.write(json.dumps({"ready": sorted(offered(space))}) + "\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        try:
            function = called(space, request["name"])
            args, kwargs = ast.literal_eval(request["args"])
            args, kwargs = (
                [restored(item) for item in args],
                {key: restored(item) for key, item in kwargs.items()},
            )
            reply = {"value": literal(function(*args, **kwargs))}
        except BaseException as error:
            said = described(error)
            reply = {
                "error": said["detail"],
                "message": said.get("message", ""),
                "type": type(error).__name__,
            }
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def offered(space):
    """Return the names that may be called: of functions and classes, and of the methods of a class Solution."""
    names = {name for name, value in space.items() if callable(value) and not name.startswith("__")}
    solution = space.get("Solution")
    if isinstance(solution, type):
        names |= {name for name in dir(solution) if not name.startswith("_")}
    return names


def called(space, name):
    """Return a function of the program; `Solution.name` of a class of that name where there is no such function."""
    if name in space:
        return space[name]
    if "Solution" in space and hasattr(space["Solution"], name):
        return getattr(space["Solution"](), name)
    raise NameError(f"name {name!r} is not defined")


def literal(value):
    """Return a value as a Python literal; what has none is marked as something no test value equals."""
    return repr(plain(value, 0))


def plain(value, depth):
    """Return a value of built-in types alone, which have literals."""
    if depth > 50:
        raise ValueError("a value is nested too deeply")
    if value is None or type(value) is bool:
        return value
    if isinstance(value, float):
        name = "nan" if value != value else "inf" if value == float("inf") else "-inf"
        return float(value) if math.isfinite(value) else {"__lengthwise__": name}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, complex):
        return complex(value)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [plain(item, depth + 1) for item in value]
            return set(items) if kind in (set, frozenset) else kind(items)
    if isinstance(value, dict):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, range):
        return {"__lengthwise__": "range", "items": [value.start, value.stop, value.step]}
    if isinstance(value, (type({}.keys()), type({}.values()), type({}.items()))):
        return [plain(item, depth + 1) for item in value]
    if hasattr(value, "__next__"):
        items = []
        for item in value:
            items.append(plain(item, depth + 1))
            if len(items) > MOST_ITEMS:
                raise ValueError("an iterator has no end")
        return {"__lengthwise__": "iterator", "items": items}
    return {"__lengthwise__": type(value).__name__}


# --- judge ----------------------------------------------------------------------------------------


def judge(code, settings):
    """Run a test's code with calls in the place of the program's functions; reports whether it went through."""
    requests = os.fdopen(settings["requests"], "w", encoding="utf-8")
    answers = os.fdopen(settings["answers"], encoding="utf-8")
    ready = answers.readline()
    if not ready:
        report(outcome="program", detail="it ended before its functions could be called")
        os._exit(1)
    names = json.loads(ready)["ready"]

    raised, held = {}, []

    class Failed(Exception):
        """The program is gone, or broke the protocol."""

    def as_exception(reply):
        """Return what the program says that it raised; what it says decides how the test fails, never whether."""
        kind = getattr(builtins, str(reply.get("type", "")), None)
        message = str(reply.get("message", ""))
        error = Failed(message)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED):
            with contextlib.suppress(TypeError):  # some take more than a message
                error = kind(message)
        outcome = "memory" if kind is MemoryError else "runtime"
        raised[id(error)] = {"outcome": outcome, "detail": str(reply.get("error", "?"))[:500]}
        held.append(error)
        return error

    def call(name):
        def ask(*args, **kwargs):
            try:
                requests.write(json.dumps({"name": name, "args": literal((args, kwargs))}) + "\n")
                requests.flush()
                line = answers.readline()
                reply = json.loads(line)
            except (OSError, ValueError):
                report(outcome="program", detail=f"it ended in a call of {name}")
                os._exit(1)
            if not isinstance(reply, dict) or "value" not in reply:
                raise as_exception(reply if isinstance(reply, dict) else {})
            return restored(ast.literal_eval(str(reply["value"])))

        return ask

    wanted = settings["names"] or [name for name in names if not hasattr(builtins, name)]
    space = {name: call(name) for name in wanted if name in names}
    space |= {"__name__": "__main__", "__builtins__": builtins}
    try:
        exec(code, space)
    except AssertionError as error:
        tb = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in tb if f.filename == "program.py"]
        report(
            outcome="failed",
            detail=f"assertion in line {lines[-1] if lines else '?'} of the test: {error}"[:500],
        )
        os._exit(1)
    except BaseException as error:
        found = raised.get(id(error))
        report(
            **(
                found
                or {"outcome": "failed", "detail": f"the test raised {type(error).__name__}: {error}"[:500]}
            )
        )
        os._exit(1)
    report(outcome="passed")
    os._exit(0)


class Other:
    """A value without a literal form: equal to nothing."""

    def __init__(self, kind):
        """Keep the name of its type."""
        self.kind = kind

    def __repr__(self):
        """Return it for a message."""
        return f"<a {self.kind}>"

    def __eq__(self, other):
        """Return False."""
        return False

    __hash__ = object.__hash__


def restored(value):
    """Return a value as a test sees it: floats, iterators, and what equals nothing."""
    if isinstance(value, dict):
        kind = value.get("__lengthwise__")
        if kind in ("nan", "inf", "-inf"):
            return float(kind)
        if kind == "range":
            return range(*value["items"])
        if kind == "iterator":
            return iter([restored(item) for item in value["items"]])
        if kind is not None:
            return Other(kind)
        return {key: restored(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(restored(item) for item in value)
    return value


if __name__ == "__main__":
    main()
