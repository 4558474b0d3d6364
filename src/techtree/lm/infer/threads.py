"""How many threads share a piece of work: one, unless it is large.

Threads that share a matrix product meet at its end. On a machine that is not idle, one of them waits
for a turn on a processor, several milliseconds each time, and all wait for that one. A token of a
model of 10M parameters takes 50 products: with one other program busy on two cores, 56 ms with two
threads and 7 ms with one.
"""

import contextlib
from collections.abc import Iterator

import torch

SMALL_WORK = 300_000_000
"""Multiplications that one thread does alone: a token of 300M parameters, 30 tokens of 10M."""


@contextlib.contextmanager
def threads_for(n_multiplications: int) -> Iterator[None]:
    """Use one thread for a block with little work; otherwise leave PyTorch's number as it is."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1 if n_multiplications <= SMALL_WORK else n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
