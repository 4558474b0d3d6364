"""The processes that train one model together, and what they tell each other.

`torchrun` starts them and says to each who it is, by the variables RANK, WORLD_SIZE and LOCAL_RANK.
Without it there is one, and nothing here does anything.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from techtree.errors import InputError

_SIGNS_OF_A_LOST_RANK = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What gloo's errors say, which have no class of their own."""


_PARTING_S = 0.1


class SharedInputError(InputError):
    """An error that all ranks raise at once, so that it is enough if the first one tells it."""


@dataclass(frozen=True)
class Ranks:
    """One of the processes."""

    rank: int = 0
    """Which one."""
    n_ranks: int = 1
    """How many there are."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it cannot be changed
    """Where this one computes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that reports."""
        return self.rank == 0

    def share(self, n_rows: int) -> slice:
        """Return this rank's share of so many rows."""
        return share(n_rows, self.rank, self.n_ranks)

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks."""
        if self.n_ranks > 1:
            dist.all_reduce(tensor)

    def sums(self, *values: float) -> list[float]:
        """Return the sum of each value over all ranks, the same on every rank to the bit."""
        if self.n_ranks == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def wait(self) -> None:
        """Wait until every rank has come here."""
        self.sums(0.0)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a block on every rank; when it fails on one of them, all raise that one's error.

        Raises
        ------
        InputError
            What the first rank that failed raised.
        """
        problem: InputError | None = None
        try:
            yield
        except InputError as error:
            problem = error
        if self.n_ranks == 1:
            if problem is not None:
                raise problem
            return
        messages: list[str | None] = [None] * self.n_ranks
        dist.all_gather_object(messages, None if problem is None else str(problem))
        for message in messages:
            if message is not None:
                raise SharedInputError(message) from problem


def share(n_rows: int, rank: int, n_ranks: int) -> slice:
    """Return which of so many rows a rank has: equal shares, and what is missing is missing at the end.

    >>> [share(5, rank, 4) for rank in range(4)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None), slice(5, 5, None)]
    """
    size = -(-n_rows // n_ranks)
    return slice(min(rank * size, n_rows), min((rank + 1) * size, n_rows))


@contextlib.contextmanager
def join_ranks(device: torch.device | str = "cpu") -> Iterator[Ranks]:
    """Meet the other ranks that `torchrun` started, if it did, and part from them at the end.

    Parameters
    ----------
    device
        Where to compute. Of several GPUs each rank takes its own.

    Raises
    ------
    InputError
        When there are fewer GPUs than ranks on this machine.
    """
    device = torch.device(device)
    n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if n_ranks == 1:
        yield Ranks(device=device)
        return
    if device.type == "cuda":
        device = _own_gpu(int(os.environ["LOCAL_RANK"]))
    # What the ranks tell each other in passing are a few numbers in main memory, by gloo everywhere.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    ranks = Ranks(dist.get_rank(), n_ranks, device)
    is_with_all = False
    try:
        yield ranks
        is_with_all = True
    except SharedInputError:
        is_with_all = True
        raise
    finally:
        if is_with_all:
            # The first rank may hold the store through which the others still talk. (Those may be gone, too.)
            with contextlib.suppress(RuntimeError):
                ranks.wait()
        dist.destroy_process_group()
        # Gloo's threads outlive the group where FSDP's caches hold on to it. One that lets go of its last
        # tensor while Python ends aborts the process; this gives it the time before.
        time.sleep(_PARTING_S)


@contextlib.contextmanager
def explained_loss_of_ranks(folder: Path) -> Iterator[None]:
    """Turn what the libraries say when another rank has gone away into what a user can do about it."""
    try:
        yield
    except RuntimeError as error:
        sign = next((sign for sign in _SIGNS_OF_A_LOST_RANK if sign in str(error)), None)
        if sign is None and not isinstance(error, dist.DistError):
            raise
        raise InputError(
            f"another rank must have gone away ({sign or error}): see what it said last; the same command "
            f"goes on from the newest checkpoint in {folder}"
        ) from error


def _own_gpu(local_rank: int) -> torch.device:
    n_gpus = torch.cuda.device_count()
    if local_rank >= n_gpus:
        raise InputError(
            f"every rank of a machine needs a GPU of its own; there are {n_gpus}, and this is rank number "
            f"{local_rank} of the machine: lower --nproc-per-node, or train on the CPU"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
