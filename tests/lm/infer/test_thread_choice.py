"""The number of threads follows the machine: simulated, with a clock that the test moves."""

import pytest

from techtree.lm.infer.threads import PROBE_S, Threads


class Machine:
    """Steps take as long as a table says for each number of threads."""

    def __init__(self, n_most):
        self.now = 0.0
        self.costs = {}
        self.threads = Threads(n_most, clock=lambda: self.now)

    def fail(self, seconds):
        with self.threads.timed(1):
            self.now += seconds
            raise MemoryError

    def run(self, seconds, n_tokens=1):
        """Run steps for so long; return how much of the time each number of threads had."""
        end, shares = self.now + seconds, {}
        while self.now < end:
            with self.threads.timed(n_tokens) as n:
                self.now += self.costs[n] * n_tokens
                shares[n] = shares.get(n, 0) + self.costs[n] * n_tokens / seconds
        return shares


def test_one_core_has_nothing_to_choose():
    machine = Machine(1)
    machine.costs = {1: 0.02}
    assert set(machine.run(10)) == {1}


@pytest.mark.parametrize("n_tokens", [1, 64])
def test_it_follows_the_machine_within_two_seconds(n_tokens):
    free, busy = {1: 0.017, 2: 0.010}, {1: 0.018, 2: 0.10}
    machine = Machine(2)
    for costs, best in ((free, 2), (busy, 1), (free, 2)):
        machine.costs = costs
        machine.run(2 if n_tokens == 1 else 30, n_tokens)
        assert machine.run(20, n_tokens)[best] > 0.8


def test_many_cores_of_which_few_are_free():
    machine = Machine(16)
    machine.costs = {n: 0.1 / min(n, 4) + 0.01 * max(0, n - 4) for n in range(1, 17)}
    machine.run(20)
    shares = machine.run(20)
    assert max(shares, key=shares.get) == 4


def test_trials_cost_at_most_a_tenth():
    machine = Machine(2)
    machine.costs = {1: 0.015, 2: 0.010}
    machine.run(1)
    assert machine.run(50)[1] < 0.1
    assert machine.run(50, 64)[1] < 0.15
    assert PROBE_S < 1


def test_a_step_that_fails_teaches_nothing():
    machine = Machine(2)
    machine.costs = {1: 0.015, 2: 0.010}
    machine.run(1)
    with pytest.raises(MemoryError):
        machine.fail(100)
    assert machine.run(20)[2] > 0.8
