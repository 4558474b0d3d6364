"""Runs the steps of a set-up one by one, and shows which one, since when, and how long still."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from techtree.errors import InputError
from techtree.setup.failure import explain
from techtree.setup.pip_output import PipOutput
from techtree.streams import is_plain

TERMINAL_INTERVAL_S = 0.2
PLAIN_INTERVAL_S = 15.0
"""How often a step shows where it is, on a terminal and elsewhere."""

CPU_ADVICE = """
techtree: pip is fetching libraries for NVIDIA cards, some gigabytes; this machine seems to have no such card.
To do without them, press Ctrl-C and put this in front of the command, on the same line:
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"""


def say(text: str) -> None:
    """Print for a person: standard output belongs to the program that is started afterwards."""
    _write(f"{text}\n")


def _write(text: str) -> None:
    """Write to standard error, if it leads anywhere: a set-up does not end because nobody can read of it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(47.9), duration(200)
    ('48 s', '3 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Progress:
    """The steps of one set-up.

    Parameters
    ----------
    root
        The clone's folder, where the steps run.
    venv
        Its virtual environment, where the log of all steps is kept.
    n_steps
        How many there will be.
    lock
        The locked file, which each step's process inherits: should this process be killed, then the lock
        is held until that one has ended too.
    """

    def __init__(self, root: str, venv: str, n_steps: int, lock: IO[str]) -> None:
        self.root = root
        self.venv = venv
        self.n_steps = n_steps
        self.lock = lock
        self.log = Path(venv, "techtree-setup.log")
        self.is_terminal = not is_plain(sys.stderr)
        self.n_begun = 0
        self.title = ""
        self.began = self.shown = 0.0
        self.pip = PipOutput(venv, 0)
        self.has_advised = False

    def step(self, title: str, command: Sequence[str]) -> None:
        """Run one command to its end.

        Raises
        ------
        InputError
            When it fails; the message explains why.
        """
        self.n_begun += 1
        self.title = title
        self.pip = PipOutput(self.venv, Path(self.root, "constraints.txt").read_bytes().count(b"=="))
        self.began = time.time()
        self.shown = 0.0 if self.is_terminal else self.began
        lines: list[str] = []
        with self.log.open("ab", buffering=0) as log:
            exit_code = self._follow(command, lines, log)
        self._show("done in" if exit_code == 0 else "failed after")
        if exit_code != 0:
            raise InputError(explain(lines, self.root, str(self.log)))

    def _follow(self, command: Sequence[str], lines: list[str], log: IO[bytes]) -> int:
        # PIP_USER: a user's setting to install outside of virtual environments would make pip fail.
        with subprocess.Popen(
            command,
            cwd=self.root,
            env={**os.environ, "PIP_USER": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if os.name == "nt" else (self.lock.fileno(),),
        ) as process:
            reader = threading.Thread(target=self._read, args=(process.stdout, lines, log))
            reader.start()
            try:
                while reader.is_alive():
                    reader.join(TERMINAL_INTERVAL_S)
                    self._show()
                    self._advise()
            except BaseException:
                process.kill()
                raise
            finally:
                reader.join()
        return process.returncode

    def _read(self, stream: IO[bytes], lines: list[str], log: IO[bytes]) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            self.pip.take(text)
            if not text.startswith("Progress "):
                lines.append(text)
                # A full disk must not end this thread: the command finds it too, and says so in `lines`.
                with contextlib.suppress(OSError):
                    log.write(line)

    def _show(self, ending: str = "") -> None:
        now = time.time()
        if not ending and now < self.shown + (TERMINAL_INTERVAL_S if self.is_terminal else PLAIN_INTERVAL_S):
            return
        self.shown = now
        elapsed = now - self.began
        text = f"  [{self.n_begun}/{self.n_steps}] {self.title}: "
        text += f"{ending} {duration(elapsed)}" if ending else self._state(elapsed)
        if self.is_terminal:
            n_columns = min(max(shutil.get_terminal_size().columns, 2), 200) - 1
            text = "\r" + text[:n_columns].ljust(n_columns)
        _write(text if self.is_terminal and not ending else f"{text}\n")

    def _state(self, elapsed: float) -> str:
        if self.title != "packages":
            return duration(elapsed)
        share = self.pip.share_done()
        known = elapsed > 3 and share > 0.05
        left = f", about {duration(elapsed * (1 - share) / share)} left" if known else ""
        return f"{self.pip.state()}; {duration(elapsed)}{left}"

    def _advise(self) -> None:
        has_card = os.path.exists("/proc/driver/nvidia") or os.path.exists("/dev/dxg")
        if self.pip.fetches_cuda() and not has_card and not self.has_advised:
            self.has_advised = True
            say(CPU_ADVICE)
