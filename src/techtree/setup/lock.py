"""Waiting for whoever sets up the same `.venv`."""

import time
from typing import IO

from techtree.file_lock import take
from techtree.setup.progress import say


def wait_for(file: IO[str]) -> None:
    """Wait until this process holds the lock of an open file, and tell the user if that takes time."""
    if not take(file):
        say("techtree: another run is setting up .venv; waiting for it")
        while not take(file):
            time.sleep(0.2)
