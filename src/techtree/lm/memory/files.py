"""Which files of a folder are remembered: what people write by hand, and nothing that should stay secret."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from techtree.lm.data.corpus import EXCLUDED_FOLDERS, read_text

MAX_FILE_BYTES = 500_000
"""Longer files are data, as a rule."""

_WANTED = re.compile(
    r"\.(pyi?|pyx|ipynb|[mc]?jsx?|tsx?|vue|svelte|[chm]|cc|cpp|cxx|hpp|hh|mm|cu|cs|go|rs|java|kts?|scala"
    r"|groovy|gradle|rb|php|swift|lua|sh|bash|zsh|fish|ps1|p[lm]|r|jl|hs|mli?|exs?|erl|clj|dart|zig|nim|el|vim"
    r"|nix|sql|html|css|scss|less|xml|toml|ya?ml|ini|cfg|md|rst|txt|tex|proto|graphql|cmake|tf)$"
    r"|^(Makefile|Dockerfile|Rakefile|Gemfile|Justfile)$",
    re.IGNORECASE,
)
"""Names of files that people write by hand."""

_SECRET_NAME = re.compile(
    r"\.env($|\.)|\.(pem|key|p12|pfx|jks|kdbx)$|^id_(rsa|dsa|ecdsa|ed25519)|credential|secret|password"
    r"|^\.(netrc|npmrc|pypirc|htpasswd)$|\.tfvars$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\b(AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{40}|\bglpat-[A-Za-z0-9_-]{20}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10}|\bsk-[A-Za-z0-9_-]{32}|\bsk_live_[A-Za-z0-9]{20}"
    r"|\bAIza[A-Za-z0-9_-]{35}|\bhf_[A-Za-z0-9]{30}"
    r"|\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\."
)
"""Private keys, and the tokens of the common services, which have a form of their own."""


def repository_of(path: Path) -> Path | None:
    """Return the git repository that a file or folder lies in, or None."""
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / ".git").exists():
            return folder
    return None


def files_of(root: Path) -> list[str]:
    """Return the files of a folder that may be remembered, as paths relative to it, sorted.

    In a git repository those that git knows or would add, and none that it ignores; elsewhere all but the
    hidden ones.
    """
    names = _files_of_git(root)
    if names is None:
        names = list(_walk(root))
    return sorted(name for name in names if _is_wanted(name))


def text_of(file: Path) -> str | None:
    """Return the text of a file, or None where it should not be remembered."""
    text, _ = read_text(file, max_bytes=MAX_FILE_BYTES)
    return None if text is None or _SECRET_TEXT.search(text) else text


def _is_wanted(name: str) -> bool:
    path = Path(name)
    return bool(_WANTED.search(path.name)) and not any(map(_SECRET_NAME.search, path.parts))


def _files_of_git(root: Path) -> list[str] | None:
    """Return what `git ls-files` lists, or None where that is not to be had."""
    git = shutil.which("git")
    if git is None or repository_of(root) is None:
        return None
    command = [git, "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    # A repository may come from anybody: nothing that its own configuration names is run.
    safe = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "false"}
    try:
        found = subprocess.run(
            command,
            env=os.environ | safe,
            capture_output=True,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    names = (os.fsdecode(name) for name in found.stdout.split(b"\0") if name)
    return [name for name in dict.fromkeys(names) if not os.path.islink(root / name)]


def _walk(root: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(
            name for name in subfolders if name not in EXCLUDED_FOLDERS and not name.startswith(".")
        )
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and not file.is_symlink():
                yield str(file.relative_to(root))
