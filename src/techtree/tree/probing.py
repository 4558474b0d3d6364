"""What our version and every known mistake of a technology say to its probes.

They run in a process of their own (`techtree.techs.answering`), once for each state of the technology: the
answers are kept in the user's cache.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

from techtree import atomic
from techtree.tree.certificate import contract
from techtree.tree.technology import Technology

TIMEOUT_S = 60


@dataclass(frozen=True)
class KnownAnswers:
    """Label of a probe -> answer, of our version and of each mistake under its sentence."""

    own: dict[str, object] = field(default_factory=dict)
    mistakes: dict[str, dict[str, object]] = field(default_factory=dict)


def known_answers(tech: Technology) -> KnownAnswers:
    """Return the answers of our version and of every mistake; none when they cannot be had."""
    cache = atomic.cache_folder() / f"answers-{tech.id}-{contract(tech)}.json"
    try:
        return KnownAnswers(**json.loads(cache.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    command = [sys.executable, "-P", "-m", "techtree.techs.answering", str(tech.folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)
        found = KnownAnswers(**json.loads(run.stdout.splitlines()[-1]))
    except (subprocess.TimeoutExpired, ValueError, TypeError, IndexError):
        return KnownAnswers()
    try:
        atomic.write_text(cache, run.stdout.splitlines()[-1])
    except OSError:  # A full or read-only disk: the next check asks again.
        return found
    return found
