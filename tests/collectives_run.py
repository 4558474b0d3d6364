"""What one real worker does with PyTorch's collectives: a module, so that a spawned process can import it."""

import numpy as np
import torch
import torch.distributed as dist

N = 2
ARRAYS = [np.random.default_rng(rank).normal(size=(3, 5)) for rank in range(N)]


def in_a_process(rank: int, folder: str) -> None:
    """Write what all_reduce and all_gather give to this worker."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=N)
    tensor = torch.from_numpy(ARRAYS[rank].copy())
    parts = [torch.empty(3, 5, dtype=torch.float64) for _ in range(N)]
    dist.all_gather(parts, tensor)
    dist.all_reduce(tensor)
    np.savez(f"{folder}/{rank}.npz", reduced=tensor.numpy(), gathered=torch.cat(parts).numpy())
    dist.destroy_process_group()
