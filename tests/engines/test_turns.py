"""The line before the decoder, with threads that wait for events and never for the clock."""

import threading
import time

import pytest

from techtree.engines.engine import EngineBusyError
from techtree.engines.turns import Turns

TIMEOUT_S = 30  # of a wait that ends at once, unless something is broken


def never():
    return False


class Asker(threading.Thread):
    """Takes a turn, and holds it until it is told to leave or its turn is void."""

    def __init__(self, turns, slot=None, log=None, name="", deadline=float("inf")):
        super().__init__(daemon=True)
        self.turns, self.slot, self.log, self.label, self.deadline = turns, slot, log, name, deadline
        self.cancelled, self.leave = threading.Event(), threading.Event()
        self.joined, self.decodes, self.gave_up = threading.Event(), threading.Event(), threading.Event()
        self.error = None
        self.start()

    def run(self):
        try:
            with self.turns.take(self.slot, self.cancelled.is_set, self.deadline) as turn:
                if turn is None:
                    self.gave_up.set()
                    return
                if self.log is not None:
                    self.log.append(f"+{self.label}")
                self.decodes.set()
                while not turn.is_void() and not self.leave.wait(0.001):
                    pass
                if self.log is not None:
                    self.log.append(f"-{self.label}")
        except EngineBusyError as error:
            self.error = error

    def has_joined(self, n):
        """Wait until so many stand in line."""
        end = time.monotonic() + TIMEOUT_S
        while len(self.turns._line) < n:
            assert time.monotonic() < end
            time.sleep(0.001)
        return self


@pytest.fixture
def turns():
    return Turns(max_waiting=2)


def test_one_decodes_at_a_time_in_order(turns):
    log = []
    askers = []
    for i, name in enumerate("abc"):
        askers.append(Asker(turns, log=log, name=name).has_joined(i + 1))
    assert askers[0].decodes.wait(TIMEOUT_S)
    assert log == ["+a"]
    for asker in askers:
        assert asker.decodes.wait(TIMEOUT_S)
        asker.leave.set()
        asker.join(TIMEOUT_S)
    assert log == ["+a", "-a", "+b", "-b", "+c", "-c"]


def test_a_newer_request_of_the_same_slot_ends_the_older_ones(turns):
    first = Asker(turns, slot=0).has_joined(1)
    assert first.decodes.wait(TIMEOUT_S)
    other = Asker(turns, slot=1).has_joined(2)
    newer = Asker(turns, slot=0)
    first.join(TIMEOUT_S)  # it was decoding
    assert not first.is_alive()
    assert other.decodes.wait(TIMEOUT_S)  # its turn is not taken away
    newest = Asker(turns, slot=0)
    assert newer.gave_up.wait(TIMEOUT_S)  # it was waiting
    other.leave.set()
    assert newest.decodes.wait(TIMEOUT_S)
    newest.leave.set()


def test_without_a_slot_every_request_counts(turns):
    first = Asker(turns).has_joined(1)
    assert first.decodes.wait(TIMEOUT_S)
    second = Asker(turns).has_joined(2)
    assert not first.gave_up.is_set()
    first.leave.set()
    assert second.decodes.wait(TIMEOUT_S)
    second.leave.set()


def test_too_many_are_refused(turns):
    askers = [Asker(turns).has_joined(i + 1) for i in range(3)]
    assert askers[0].decodes.wait(TIMEOUT_S)
    with pytest.raises(EngineBusyError, match="2 requests are waiting"), turns.take(None, never):
        pass
    # Who has given up takes no place.
    askers[1].cancelled.set()
    assert askers[1].gave_up.wait(TIMEOUT_S)
    fourth = Asker(turns)
    for asker in (askers[0], askers[2], fourth):
        asker.leave.set()
    assert fourth.decodes.wait(TIMEOUT_S)


def test_typing_never_fills_the_line(turns):
    holder = Asker(turns).has_joined(1)
    assert holder.decodes.wait(TIMEOUT_S)
    keystrokes = [Asker(turns, slot=0) for _ in range(20)]
    holder.leave.set()
    for asker in keystrokes:
        asker.leave.set()
        asker.join(TIMEOUT_S)
        assert asker.error is None
        assert asker.gave_up.is_set() or asker.decodes.is_set()


def test_who_waits_can_leave(turns):
    first = Asker(turns).has_joined(1)
    second = Asker(turns).has_joined(2)
    second.cancelled.set()
    assert second.gave_up.wait(TIMEOUT_S)
    late = Asker(turns, deadline=time.monotonic())
    assert late.gave_up.wait(TIMEOUT_S)
    assert not first.gave_up.is_set()
    first.leave.set()


def test_an_exception_gives_the_turn_back(turns):
    with pytest.raises(MemoryError), turns.take(0, never):
        raise MemoryError
    with turns.take(0, never) as turn:
        assert turn is not None


def test_who_is_void_at_once_does_not_decode(turns):
    with turns.take(0, lambda: True) as turn:
        assert turn is None


def test_the_line_is_as_long_as_their_patience():
    turns = Turns(max_waiting=100)
    for _ in range(30):  # The mean of what turns take comes near 20 ms.
        with turns.take(None, never):
            time.sleep(0.02)
    askers = [Asker(turns).has_joined(i + 1) for i in range(11)]
    assert askers[0].decodes.wait(TIMEOUT_S)
    # Ten are waiting: 0.2 s at least, before the eleventh.
    impatient = turns.take(None, never, time.monotonic() + 0.1)
    with pytest.raises(EngineBusyError, match="10 requests are waiting already, for about 0 s"), impatient:
        pass
    patient = Asker(turns, deadline=time.monotonic() + TIMEOUT_S).has_joined(12)
    for asker in (*askers, patient):
        asker.leave.set()
    assert patient.decodes.wait(TIMEOUT_S)


def test_those_who_gave_up_make_nobody_wait():
    turns = Turns(max_waiting=100)
    turns._turn_s = 10.0
    holder = Asker(turns).has_joined(1)
    gone = [Asker(turns).has_joined(i + 2) for i in range(20)]
    for asker in gone:
        asker.cancelled.set()
    next_one = Asker(turns, deadline=time.monotonic() + 5)
    holder.leave.set()
    assert next_one.decodes.wait(TIMEOUT_S)
    next_one.leave.set()
