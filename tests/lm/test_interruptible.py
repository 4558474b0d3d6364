"""Ctrl-C ends the wait for a library that does not hear it."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from techtree.lm import interruptible
from techtree.lm.interruptible import run_interruptibly
from techtree.lm.tokenizer import Tokenizer

posix = pytest.mark.skipif(os.name != "posix", reason="there, Ctrl-C is no signal that a test can send")


@pytest.fixture
def pressed():
    """Press Ctrl-C after a moment."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    yield
    timer.cancel()


def test_work_is_done_and_its_errors_are_raised():
    done = []
    run_interruptibly(lambda drawn: done.extend(drawn([1, 2])))
    assert done == [1, 2]
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda drawn: 1 // 0)
    thread = threading.Thread(target=run_interruptibly, args=(lambda drawn: done.extend(drawn([3])),))
    thread.start()
    thread.join()
    assert done == [1, 2, 3]


@posix
def test_work_that_hears_nothing_is_left(pressed):
    is_free = threading.Event()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(lambda drawn: is_free.wait(60))
    assert time.monotonic() - started < 30
    is_free.set()


@posix
def test_work_that_draws_is_waited_for_until_it_sees_the_end(pressed, monkeypatch):
    """A library that wants its next text while the process ends already would abort it."""
    monkeypatch.setattr(interruptible, "_PATIENCE_S", 0.3)
    ended = []

    def work(drawn):
        for _ in drawn(range(30)):
            time.sleep(1)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(work)
    assert ended == [True]


@posix
def test_training_on_texts_without_end_is_left(pressed):
    with pytest.raises(KeyboardInterrupt):
        Tokenizer.train(itertools.repeat("x = 1\n" * 100), 300)


TRAINING = """
import random, string
from techtree.lm.tokenizer import Tokenizer
from techtree.cli import main as cli

words = [" ".join("".join(random.choices(string.ascii_letters, k=500)) for _ in range(9000))]
print("begin", flush=True)
try:
    Tokenizer.train(words, 100_000)
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@posix
def test_training_within_the_library_is_left():
    """Alone it takes the library a minute."""
    run = subprocess.Popen(
        [sys.executable, "-c", TRAINING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "begin\n"
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors) == (130, "")
