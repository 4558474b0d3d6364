"""How a tensor in a file is made of the model's parameters.

Most are the parameter itself. GPT-2 stores matrices transposed, and queries, keys and values in one; experts
are stored one by one, and are stacked in the model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stored:
    """A tensor of a file, in terms of parameters."""

    ours: tuple[str, ...]
    """The parameters of which it consists."""
    index: int | None = None
    """Which expert of the stacked parameter it is."""
    is_transposed: bool = False
    """Whether each of them is stored (in, out)."""
    axis: int = 0
    """Along which axis of the file's tensor they follow each other."""

    @property
    def is_whole(self) -> bool:
        """Whether it is one parameter as it is."""
        return len(self.ours) == 1 and self.index is None and not self.is_transposed

    def parts(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """Return views of the parameters that together are this tensor."""
        views = [parameters[name] for name in self.ours]
        views = views if self.index is None else [view[self.index] for view in views]
        return [view.T for view in views] if self.is_transposed else views

    def shape(self, parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Return the tensor's shape, for which the parameters need no memory."""
        parts = self.parts(parameters)
        shape = list(parts[0].shape)
        if len(parts) > 1:  # joining them would do, but tensors without memory take a second to learn that
            shape[self.axis] = sum(part.shape[self.axis] for part in parts)
        return tuple(shape)

    def joined(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor: a view where it is made of one parameter."""
        parts = self.parts(parameters)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=self.axis)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a file, each made when it is asked for."""

    def __init__(self, layout: Mapping[str, Stored], parameters: Mapping[str, Tensor]) -> None:
        self._layout = layout
        self._parameters = parameters

    def __getitem__(self, name: str) -> Tensor:
        return self._layout[name].joined(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)
