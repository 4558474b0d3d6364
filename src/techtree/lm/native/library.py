"""Compiles decoder.c for this processor, once, and loads it.

The library lies in the user's cache, under a name that depends on the source, the compiler's flags and the
processor: a home that several machines share gets one for each kind.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from techtree.atomic import cache_folder

SOURCE = Path(__file__).with_name("decoder.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC")
LIBRARIES = ("-lm", "-lpthread")
_COMPILE_S = 120


class NoCompilerError(Exception):
    """The decoder cannot be made here; the message says why."""


@functools.cache
def library() -> ctypes.CDLL:
    """Return the library, compiled when it is not there yet.

    Raises
    ------
    NoCompilerError
        When there is no C compiler, or it cannot compile this, or its result cannot be kept or loaded.
    """
    try:
        loaded = ctypes.CDLL(str(compiled(FLAGS)))
    except OSError as error:
        raise NoCompilerError(f"the compiled decoder cannot be kept or loaded: {error}") from error
    loaded.techtree_new_pool.restype = ctypes.c_void_p
    loaded.techtree_packed_bytes.restype = ctypes.c_size_t
    return loaded


def compiled(flags: tuple[str, ...]) -> Path:
    """Return the file of the library that these flags make.

    Raises
    ------
    NoCompilerError
        When there is no C compiler, or it cannot compile this.
    OSError
        When the library cannot be kept.
    """
    if os.name != "posix":
        raise NoCompilerError("the decoder in C needs POSIX threads")
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise NoCompilerError("there is no C compiler (cc, gcc or clang)")
    kind = hashlib.sha256(SOURCE.read_bytes())
    kind.update("\0".join((compiler, *flags, _processor())).encode())
    path = cache_folder() / f"decoder-{kind.hexdigest()[:20]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *flags, "-o", str(made), str(SOURCE), *LIBRARIES]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise NoCompilerError(f"{compiler} did not end within {_COMPILE_S} s") from error
        if ran.returncode:
            told = (ran.stderr.strip().splitlines() or ["it says nothing"])[0]
            raise NoCompilerError(f"{compiler} cannot compile the decoder: {told}")
        made.replace(path)
    return path


def _processor() -> str:
    """Return what tells processors apart that need different code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return " ".join((platform.machine(), platform.processor()))
    told = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join((platform.machine(), *dict.fromkeys(told)))
