"""A Ctrl-C that waits until the state is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hold a Ctrl-C back while the block runs; at its end, let it do what it would have done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers Ctrl-C to the main thread only.
        return
    presses: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: presses.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if presses:
        signal.raise_signal(signal.SIGINT)
