"""What went wrong in a set-up, and what to do about it, in words for the user."""

import errno
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence

NEEDED_BYTES = 2_000_000_000
"""`.venv` takes 1.75 GB on Linux, 5.6 GB with the libraries for NVIDIA cards, and pip unpacks on the way."""

# pip may translate its messages, but neither the numbers nor the names of the exceptions.
DISK_FULL_SIGNS = ("[Errno 28]", "[Errno 122]", "[WinError 112]", "No space left on device")
UNREACHABLE_SIGNS = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "NameResolutionError",
    "ProxyError",
    "SSLError",
    "MaxRetryError",
    "ProtocolError",
    "after connection broken by",
    "Could not fetch URL",
    "not a trusted or secure host",
)
NO_BUILD_SIGN = "No matching distribution found"


def explain(lines: Sequence[str], root: str, log: str) -> str:
    """Return why a command failed and what to do.

    Parameters
    ----------
    lines
        What the command printed.
    root
        The folder that is set up.
    log
        The file with all that was printed.
    """
    telling = [line.strip() for line in lines if line.strip() and "is ignored: it is neither" not in line]
    if _first(telling, DISK_FULL_SIGNS):
        return disk_full_message(root)
    if line := _first(telling, UNREACHABLE_SIGNS):
        return (
            f"pip could not reach the package index. Its words:\n    {_readable(line)}\n"
            "Check the network, the proxy and pip's settings (`pip config list`), then run the command again."
        )
    if line := _first(telling, (NO_BUILD_SIGN,)):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        n_bits = 64 if sys.maxsize > 2**32 else 32
        return (
            f"a package has no build for Python {version}, {n_bits} bits, on {sys.platform}. pip's words:\n"
            f"    {_readable(line)}\n"
            "Run this file with a Python from 3.11 to 3.13 of 64 bits, such as `python3.12 techtree`."
        )
    last_words = "\n    ".join(telling[-8:])
    return (
        f"the set-up failed. Its last words:\n    {last_words}\nAll are in {log}. The next run tries again."
    )


def explain_os_error(error: OSError, root: str) -> str:
    """Return why the set-up could not go on, and what to do, for an error of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full_message(root)
    return f".venv in {root} could not be set up: {error}. Put that right, then run the same command again."


def disk_full_message(root: str) -> str:
    """Return what to do about a full disk, with the room on both disks that a set-up uses."""
    scratch = tempfile.gettempdir()
    free_gb = shutil.disk_usage(root).free / 1e9
    scratch_gb = shutil.disk_usage(scratch).free / 1e9
    return (
        "the disk is full. A set-up needs\n"
        f"    2 GB (6 GB with the libraries for NVIDIA cards) in {root}: {free_gb:.2f} GB are free there;\n"
        f"    1 GB, on the way, in {scratch} or where TMPDIR says: {scratch_gb:.2f} GB are free there.\n"
        "Make room, then run the same command again."
    )


def _readable(line: str) -> str:
    # Python objects and the state of the retries say nothing to a person.
    return re.sub(r"<[^<>]*object at [^<>]*>: |\(Retry\(.*?\)\) ", "", line)[:400]


def _first(lines: Sequence[str], signs: Sequence[str]) -> str:
    return next((line for line in lines if any(sign in line for sign in signs)), "")
