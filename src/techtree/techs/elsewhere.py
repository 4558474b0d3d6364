"""Another process, machine and day, as a version under test would see them.

A stream of random numbers that repeats only in this process, an order that hangs on ``hash``: such versions
give the same answer again and again while the tests look.
"""

import contextlib
import datetime
import os
import platform
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType
from unittest import mock

_NAMES = (
    (os, "getcwd"),
    (socket, "gethostname"),
    (socket, "getfqdn"),
    (platform, "node"),
    (platform, "version"),
)


@contextlib.contextmanager
def elsewhere(impl: ModuleType) -> Iterator[None]:
    """Let a version run as in another process, on another machine, on another day.

    What it asks there of `os`, `time`, `datetime`, `socket`, `platform` and `uuid`, of ``hash`` and ``id``,
    has another answer than here. Whatever is a function of its arguments alone stays the same.
    """
    shift, salt = 40_000_000.0, 0x5DEECE66D

    class Date(datetime.date):
        @classmethod
        def today(cls):
            return cls.fromtimestamp(time.time())

    class Moment(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def today(cls):
            return cls.fromtimestamp(time.time())

        @classmethod
        def utcnow(cls):
            return cls.fromtimestamp(time.time())

    def later(ask: Callable) -> Callable:
        return lambda: ask() + type(ask())(shift if isinstance(ask(), float) else shift * 1e9)

    def then(ask: Callable) -> Callable:
        return lambda seconds=None: ask(time.time() if seconds is None else seconds)

    clocks = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    other: list[tuple[object, str, object]] = [(time, name, later(getattr(time, name))) for name in clocks]
    other += [(time, name, then(getattr(time, name))) for name in ("localtime", "gmtime", "ctime")]
    other += [(datetime, "date", Date), (datetime, "datetime", Moment)]
    other += [(os, name, lambda: 4_000_001) for name in ("getpid", "getppid", "getuid") if hasattr(os, name)]
    other += [(os, "cpu_count", lambda: 3), (uuid, "getnode", lambda: 7)]
    other += [(module, name, lambda: "elsewhere") for module, name in _NAMES]
    strftime = time.strftime
    other += [(time, "strftime", lambda form, when=None: strftime(form, when or time.localtime()))]
    names = {"HOSTNAME", "USER", "LOGNAME", "HOME", "PYTHONHASHSEED", "LANG", "TZ", *os.environ}
    fakes = {id(getattr(owner, name)): fake for owner, name, fake in other}
    with contextlib.ExitStack() as stack:
        for owner, name, fake in other:
            stack.enter_context(mock.patch.object(owner, name, fake))
        stack.enter_context(mock.patch.dict(os.environ, dict.fromkeys(names, "elsewhere")))
        bound = {name: fakes[id(value)] for name, value in vars(impl).items() if id(value) in fakes}
        salted = {"hash": lambda value: hash(value) ^ salt, "id": lambda value: id(value) ^ salt}
        stack.enter_context(mock.patch.dict(vars(impl), salted | bound))
        yield
