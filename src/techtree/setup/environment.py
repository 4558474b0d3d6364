"""Makes the `.venv` of a clone complete, whatever state it is in.

A set-up survives a kill at any moment. The stamp is removed before `.venv` changes, and written in one step
when all is done. So a `.venv` without its stamp is half-made: its contents are removed and made anew. Where
only pyproject.toml or constraints.txt changed, pip installs again into what is there.

Two runs do not meet: whoever sets up holds a lock of the operating system, which dies with its holder. pip
inherits it, so that an orphaned pip is waited for too.
"""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from techtree import atomic
from techtree.errors import InputError
from techtree.setup.failure import NEEDED_BYTES, disk_full_message, explain_os_error
from techtree.setup.lock import wait_for
from techtree.setup.pip_output import pip_progress_style
from techtree.setup.progress import Progress, duration, say

IS_WORKING = """
import os, sys, pip
sys.exit(sys.version_info < (3, 11) or not os.path.samefile(sys.prefix, sys.argv[1]))
"""


@dataclass(frozen=True)
class Environment:
    """The places of a clone, and the two parts of the stamp that a complete `.venv` has."""

    root: str
    """The clone's folder."""
    venv: str
    """Its virtual environment."""
    python: str
    """The interpreter in that."""
    stamp_file: str
    """The file that only a complete `.venv` has."""
    identity: Callable[[], bytes]
    """Returns where `.venv` is and what its interpreter is; OSError where it has none."""
    wanted: Callable[[], bytes]
    """Returns the files that say what is to be installed."""

    @property
    def lock_file(self) -> Path:
        """The file that whoever sets up has locked; it is empty while `.venv` is not ours."""
        return Path(self.venv, "techtree-setup.lock")

    def recorded(self) -> bytes:
        """Return what the stamp's file holds, nothing if there is none."""
        path = Path(self.stamp_file)
        return path.read_bytes() if path.exists() else b""


def make_ready(environment: Environment) -> int:
    """Make `.venv` complete, telling the user about it.

    Returns
    -------
    int
        0 when `.venv` is complete; 2 after an error that the user was told; 130 after Ctrl-C.
    """
    try:
        _make_ready(environment)
    except KeyboardInterrupt:
        say("\ntechtree: stopped; the next run sets up again")
        return 130
    except InputError as error:
        say(f"techtree: error: {error}")
        return 2
    except OSError as error:
        say(f"techtree: error: {explain_os_error(error, environment.root)}")
        return 2
    return 0


def _make_ready(environment: Environment) -> None:
    began = time.time()
    # Should somebody edit them meanwhile, then this stamp is out of date, and the next run updates.
    wanted = environment.wanted()
    Path(environment.venv).mkdir(exist_ok=True)
    with environment.lock_file.open("a", encoding="utf-8") as lock:
        wait_for(lock)
        is_ours = environment.lock_file.stat().st_size > 0
        recorded = environment.recorded()
        works = is_working(environment)
        if works and recorded == environment.identity() + wanted:
            return  # The process that we waited for has made it.
        # A working `.venv` that the user has made is completed, never removed.
        if works and (recorded.startswith(environment.identity()) or not is_ours):
            update(environment, recorded, lock)
        else:
            make_anew(environment, lock)
        mark_as_ours(lock)
        atomic.write_bytes(Path(environment.stamp_file), environment.identity() + wanted)
    say(f"techtree: ready after {duration(time.time() - began)}")


def is_working(environment: Environment) -> bool:
    """Return whether the interpreter in `.venv` starts, is new enough, and has pip."""
    command = [environment.python, "-I", "-c", IS_WORKING, environment.venv]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def mark_as_ours(lock: IO[str]) -> None:
    """Note in the locked file that `.venv` was made here, so that it may be removed."""
    lock.write("made by techtree\n")
    lock.flush()


def make_anew(environment: Environment, lock: IO[str]) -> None:
    """Empty `.venv` and fill it; from then on it is ours.

    Raises
    ------
    InputError
        When a step fails; `.venv` then has no stamp.
    """
    version = ".".join(str(number) for number in sys.version_info[:3])
    say(f"techtree: setting up .venv with Python {version} (once; usually one to five minutes)")
    if 0 < shutil.disk_usage(environment.venv).free < NEEDED_BYTES:  # Some network drives report 0.
        raise InputError(disk_full_message(environment.root))
    entries = [entry for entry in Path(environment.venv).iterdir() if entry != environment.lock_file]
    if entries:
        say("  removing what is in .venv, because it is half-made, moved or broken")
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    mark_as_ours(lock)
    progress = Progress(environment.root, environment.venv, 4, lock)
    # When it is the Python in `.venv` that runs this, then the one that it was made from is needed.
    python = getattr(sys, "_base_executable", sys.executable)
    progress.step("virtual environment", [python, "-I", "-m", "venv", "--without-pip", environment.venv])
    progress.step("pip", [environment.python, "-I", "-m", "ensurepip", "--default-pip"])
    install(environment, progress)


def update(environment: Environment, recorded: bytes, lock: IO[str]) -> None:
    """Install again into a `.venv` that works; a failure before any change leaves it as it was.

    Raises
    ------
    InputError
        When a step fails.
    """
    say("techtree: updating .venv to pyproject.toml and constraints.txt")
    stamp_file = Path(environment.stamp_file)
    stamp_file.unlink(missing_ok=True)
    progress = Progress(environment.root, environment.venv, 2, lock)
    try:
        install(environment, progress)
    except (InputError, KeyboardInterrupt):
        if recorded and not progress.pip.is_installing:
            atomic.write_bytes(stamp_file, recorded)
        raise


def install(environment: Environment, progress: Progress) -> None:
    """Install what builds the project, then the project and all that it needs.

    The build tools come first, and by constraints.txt. pip's own isolated build would fetch the newest
    ones, at each update again, so that no update would work offline.
    """
    try:
        project = tomllib.loads(Path(environment.root, "pyproject.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"pyproject.toml must be valid TOML; got: {error}. Correct it and run again."
        ) from error
    build_tools = project["build-system"]["requires"]
    if "hatchling" in build_tools:
        build_tools.append("editables")  # hatchling asks for it when the install is editable.
    pip = [environment.python, "-I", "-u", "-m", "pip", "install", "-c", "constraints.txt"]
    pip += ["--disable-pip-version-check", "--no-input", "--prefer-binary"]
    pip += ["--progress-bar", pip_progress_style(environment.venv)]
    if build_tools:
        progress.step("build tools", [*pip, *build_tools])
    progress.step("packages", [*pip, "--no-build-isolation", "-e", ".[dev]"])
