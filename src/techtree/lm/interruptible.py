"""Long work in a library that does not hear Ctrl-C."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")

_POLL_S = 0.1
_PATIENCE_S = 1.0
"""How long work may take to end by itself once nothing more comes."""
_DRAWING_PATIENCE_S = 20.0
"""How long work that draws may take to see that nothing more comes.

It takes the interpreter's lock for each draw. A thread that asks for it when the process is ending already is
ended in the middle of the library's function, and some libraries abort the process then.
"""


def run_interruptibly(work: Callable[[Callable[[Iterable[_T]], Iterator[_T]]], None]) -> None:
    """Do some work in a thread, so that Ctrl-C ends the wait for it.

    A signal is heard by Python's main thread between two of its steps. A library's function is one step, be
    it an hour long; so it is another thread that takes it. After Ctrl-C the work goes on unheard until it, or
    the process, ends: nothing may depend on what it does.

    Parameters
    ----------
    work
        Called with a function through which it should draw from what it iterates over: after Ctrl-C there is
        nothing more to draw.

    Raises
    ------
    BaseException
        Whatever the work raises.
    """
    is_stopped, is_at_rest = threading.Event(), threading.Event()
    is_at_rest.set()
    errors: list[BaseException] = []

    def drawn(items: Iterable[_T]) -> Iterator[_T]:
        is_at_rest.clear()
        try:
            for item in items:
                if is_stopped.is_set():
                    return
                yield item
        finally:
            is_at_rest.set()

    def run() -> None:
        try:
            work(drawn)
        except BaseException as error:  # raised again below
            errors.append(error)

    if threading.current_thread() is not threading.main_thread():
        work(drawn)  # no signal comes here
        return
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
    except BaseException:
        is_stopped.set()
        is_at_rest.wait(_DRAWING_PATIENCE_S)
        thread.join(_PATIENCE_S)
        raise
    if errors:
        raise errors[0]
