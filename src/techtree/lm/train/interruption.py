"""A Ctrl-C that waits until the state is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether somebody asked the program to stop."""

    is_made = False


@contextlib.contextmanager
def awaited_stop(*, second_is_obeyed: bool = True) -> Iterator[StopRequest]:
    """Take note of Ctrl-C, and of the SIGTERM that schedulers of clusters send, while the block runs.

    The block looks at what this gives whenever its state is whole. A second Ctrl-C does at once what it
    would have done without this, unless ``second_is_obeyed`` is false: a rank gets one Ctrl-C from the
    terminal and one from `torchrun`.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread only.
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.is_made and second_is_obeyed:
            restore()
            signal.raise_signal(number)
        request.is_made = True

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        restore()
