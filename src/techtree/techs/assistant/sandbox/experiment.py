"""What passes a guard within Python, and what a process: deeds, leftovers, time, memory."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from techtree.techs.assistant import sandbox
from techtree.techs.assistant.sandbox import Limits, means
from techtree.techs.assistant.sandbox.sandbox import _run

GUARD = """
import builtins, os, shutil, signal, socket, subprocess, sys, threading
secret = "a value of the caller's"
verdict = "fails"
def judge():
    return verdict
names_of = {
    os: "system popen fork forkpty kill killpg remove rename rmdir open setsid putenv _exit",
    shutil: "rmtree move copy", subprocess: "Popen run call", socket: "socket create_connection",
}
for module, names in names_of.items():
    for name in names.split():
        setattr(module, name, None)
for name in ("open", "exit", "quit", "help", "input"):
    if hasattr(builtins, name):
        setattr(builtins, name, None)
for name in ("ctypes", "psutil", "tkinter", "joblib"):
    sys.modules[name] = None
def stop(number, frame):
    raise TimeoutError
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 1.5)
try:
    exec(SOURCE, {"__name__": "program"})
except BaseException:
    pass
signal.setitimer(signal.ITIMER_REAL, 0)
print("\\nthe caller goes on", judge())
"""
"""What evaluation harnesses do: names that could hurt become None, an alarm ends what takes too long."""

SLEEPER = "import os, time; os.closerange(0, 99); time.sleep(60)"
"""Lets the one who waits for its pipe go on, when it has begun."""

DEEDS = {
    "reads the caller's environment": "import os\nprint('done' if 'SANDBOX_SECRET' in os.environ else '')",
    "reads the caller's variables": (
        "import gc\nfor each in gc.get_objects():\n"
        "    if type(each) is dict and 'secret' in each:\n        print('done')"
    ),
    "changes the verdict": "import sys\nsys.modules['__main__'].verdict = 'passes'",
    "ends the caller": "import posix\nposix._exit(0)",
    "goes on when time is up": (
        "import time\nwhile True:\n    try:\n        while True:\n            time.sleep(0.1)\n"
        "    except BaseException:\n        pass"
    ),
    "takes 400 MB": "import mmap\nx = mmap.mmap(-1, 400 << 20)\nprint('done')",
    "prints 100,000 letters": "print('x' * 100_000)",
    "leaves a process behind": (
        "import importlib, os\nimportlib.reload(os)\nreading, writing = os.pipe()\n"
        "if os.fork():\n    os.close(writing)\n    os.read(reading, 1)\n"
        "else:\n    os.setsid()\n    os.set_inheritable(writing, True)\n"
        "    os.execv(PYTHON, [PYTHON, '-ISc', SLEEPER, TOKEN])"
    ),
    "writes a file elsewhere": "import io\nio.open(PLACE, 'w').write('x')",
    "talks to a server": (
        "import _socket\ns = _socket.socket()\ns.connect(('127.0.0.1', PORT))\nprint('done')"
    ),
}
WAYS = ("a guard within Python", "a process with limits", "and namespaces")
CHILDREN = {
    "in its group": "",
    "in a group of its own": "os.setpgid(0, 0)",
    "in a session of its own": "os.setsid()",
}
KILLED = ("the process", "its group", "its namespace")
CLOCK = {
    "sleeps": "import time\ntime.sleep(0.8)",
    "computes": "import time\nwhile time.process_time() < 0.4:\n    pass",
    "has others compute": (
        "import os, time\nfor n in range(N):\n    if not os.fork():\n"
        "        while time.process_time() < 0.6:\n            pass\n"
        "        os._exit(0)\nfor n in range(N):\n    os.wait()"
    ),
}
NEEDS = {
    "nothing": "pass",
    "what many import": "import collections, heapq, itertools, json, math, random, re, statistics",
    "a million numbers": "x = list(range(1_000_000))",
}


def survivors(token: str) -> list[int]:
    """Return the processes whose command has a word, and that still run."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    found = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, *words in found if words and token in words[0].split()]


def ended(token: str) -> int:
    """End what is left, and return how many that were."""
    time.sleep(0.2)  # What is being killed needs a moment.
    left = survivors(token)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def does(name: str, way: str, token: str) -> bool:
    """Tell whether a deed succeeds."""
    with tempfile.TemporaryDirectory() as room, socket.create_server(("127.0.0.1", 0)) as server:
        place = Path(room, "elsewhere")
        told = {
            "PLACE": str(place),
            "PORT": server.getsockname()[1],
            "PYTHON": sys.executable,
            "SLEEPER": SLEEPER,
            "TOKEN": token,
        }
        source = "\n".join([*(f"{key} = {value!r}" for key, value in told.items()), DEEDS[name]])
        limits = Limits(wall_seconds=0.6 if "time" in name else 20.0)
        os.environ["SANDBOX_SECRET"] = "1"
        try:
            if way == WAYS[0]:
                output, is_going_on = guarded(source)
            else:
                output = _run(source, limits, way == WAYS[2]).output
                is_going_on = True
        finally:
            del os.environ["SANDBOX_SECRET"]
        n_left = ended(token)
        return (
            "done" in output
            or "passes" in output
            or len(output) > limits.output_bytes + 99
            or not is_going_on
            or place.exists()
            or n_left > 0
        )


def guarded(source: str) -> tuple[str, bool]:
    """Run a program by `exec` behind a guard, and tell what was printed and whether the caller goes on."""
    command = [sys.executable, "-I", "-S", "-c", f"SOURCE = {source!r}\n{GUARD}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return "", False
    return found.stdout, "the caller goes on" in found.stdout


def left_by(child: str, killed: str, token: str) -> int:
    """Return how many processes are left of a program that has one child, when it is killed so or so."""
    source = f"""
import os
reading, writing = os.pipe()
if not os.fork():
    {CHILDREN[child] or "pass"}
    os.set_inheritable(writing, True)
    os.execv({sys.executable!r}, ["python", "-ISc", {SLEEPER!r}, {token!r}])
os.close(writing)
os.read(reading, 1)
"""
    if killed == KILLED[2]:
        sandbox.run(source, Limits(wall_seconds=20.0))
        return ended(token)
    program = subprocess.Popen([sys.executable, "-ISc", f"{source}os.wait()"], start_new_session=True)
    deadline = time.monotonic() + 20
    while not survivors(token) and time.monotonic() < deadline:
        time.sleep(0.05)
    if killed == KILLED[1]:
        os.killpg(program.pid, signal.SIGKILL)
    program.kill()
    program.wait()
    return ended(token)


def spent(source: str) -> list[float]:
    """Return the seconds of CPU and of the clock that a program takes, which may have one of CPU."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    found = sandbox.run(source, Limits(cpu_seconds=1.0, wall_seconds=60.0))
    took, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [cpu, took, float(found.exit_code == 0)]


def needed(source: str) -> int:
    """Return with how many megabytes of addresses a program ends well: the least power of 2^(1/4)."""
    sizes = [round(2 ** (n / 4)) for n in range(12, 41)]
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        found = sandbox.run(source, Limits(memory_bytes=sizes[middle] << 20, wall_seconds=20.0))
        low, high = (low, middle) if found.exit_code == 0 else (middle + 1, high)
    return sizes[low]


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Try the deeds, kill programs, and measure what they take.

    Parameters
    ----------
    rng
        Draws the word by which processes are found again.
    scale
        Below 1 for fewer processes that compute.

    Returns
    -------
    dict
        Ready for JSON: what succeeded, what was left, seconds, megabytes.
    """
    token = f"sandbox-{rng.integers(2**60)}"
    is_apart = bool(means())
    return {
        "means": sorted(means()),
        "deeds": {way: [int(does(name, way, token)) for name in DEEDS] for way in WAYS[: 2 + is_apart]},
        "left": {
            killed: [left_by(child, killed, token) for child in CHILDREN] for killed in KILLED[: 2 + is_apart]
        },
        "spent": {name: spent(f"N = {4 if scale == 1 else 2}\n{source}") for name, source in CLOCK.items()},
        "needed": {name: needed(source) for name, source in NEEDS.items()},
    }


def plot(numbers: dict):
    """Draw which deeds succeed, what CPU and clock count, and what an interpreter needs."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.1, 1, 1))
    for place, found in enumerate(numbers["deeds"].values()):
        for row, is_done in enumerate(found):
            left.scatter(place, row, s=70, marker="s", color="C1" if is_done else "none", edgecolors="C1")
    left.set_yticks(range(len(DEEDS)), list(DEEDS), fontsize=8)
    ways = [f"{way}\n{sum(found)} of {len(DEEDS)}" for way, found in numbers["deeds"].items()]
    ways = [way.replace("within", "\nwithin").replace("with limits", "\nwith limits") for way in ways]
    left.set_xticks(range(len(ways)), ways, fontsize=7)
    left.set(xlim=(-0.6, len(ways) - 0.4), ylim=(len(DEEDS) - 0.4, -0.6))
    left.set_title("what succeeds", fontsize=9)
    for place, (cpu, clock, _) in enumerate(numbers["spent"].values()):
        middle.bar(place - 0.2, cpu, 0.38, color="C0", label=None if place else "of the processor")
        middle.bar(place + 0.2, clock, 0.38, color="C2", label=None if place else "of the clock")
    middle.axhline(1, color="0.5", ls="--", lw=1)
    names = [name.replace(" others ", "\nothers ") for name in numbers["spent"]]
    middle.set_xticks(range(len(names)), names, fontsize=8)
    middle.set(ylabel="seconds, where one of CPU is allowed")
    middle.legend(fontsize=8, loc="upper left")
    right.bar(range(len(NEEDS)), numbers["needed"].values(), 0.5, color="C0")
    right.axhline(256, color="0.5", ls="--", lw=1)
    right.set_xticks(range(len(NEEDS)), [name.replace(" ", "\n", 1) for name in NEEDS], fontsize=8)
    right.set(ylabel="MB of addresses that a program needs", ylim=(0, 290))
    return figure


def claim(numbers: dict) -> None:
    """README.md: a guard stops nothing, limits what is within the process, namespaces the rest."""
    deeds = {way: dict(zip(DEEDS, found, strict=True)) for way, found in numbers["deeds"].items()}
    assert all(deeds[WAYS[0]].values())
    outside = {"leaves a process behind", "writes a file elsewhere", "talks to a server"}
    passed = {name for name, is_done in deeds[WAYS[1]].items() if is_done}
    assert passed <= outside
    assert passed >= outside - {
        "leaves a process behind"
    }  # Who is not root may find no process left to start.
    sleeps, computes, others = numbers["spent"].values()
    assert sleeps[2] == computes[2] == 1
    assert sleeps[0] < sleeps[1] / 2
    assert computes[0] > 0.35
    assert numbers["needed"]["nothing"] < 64
    assert numbers["needed"]["a million numbers"] <= 128
    assert numbers["needed"]["what many import"] <= 128
    assert numbers["left"]["the process"] == [1, 1, 1]
    assert numbers["left"]["its group"] == [0, 1, 1]
    if numbers["means"]:
        assert not any(deeds[WAYS[2]].values())
        assert numbers["left"]["its namespace"] == [0, 0, 0]
        assert others[2] == 1
        assert others[0] > 1.05
