"""A model is an object whose attributes hold its parameters: found by a walk, saved and loaded by name.

Claim: a layer needs no list of what is to be trained. It assigns parameters and smaller layers to
attributes, as any Python object does, and a walk over these finds each parameter, once, and gives it a name.

Legend: ``name`` the path to a parameter, with dots: ``"layers.0.weight"``.

Left out: arrays that are saved and not trained (buffers), hooks, parameters that are made at the first call.

Paper: Paszke et al. (2019), https://arxiv.org/abs/1912.01703
"""

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor


class Parameter(Tensor):
    """A tensor that is there to be trained: it needs a gradient, and no one else holds its numbers.

    Parameters
    ----------
    data
        As for `Tensor`. Copied: ``data`` of the parameter is a writable array of its own.

    Attributes
    ----------
    requires_grad
        True from the start, also inside `no_grad`.

    Examples
    --------
    >>> drawn = np.zeros(2)
    >>> weight = Parameter(drawn)
    >>> weight.data += 1.0
    >>> drawn.tolist(), weight.requires_grad
    ([0.0, 0.0], True)
    """

    def __init__(self, data):
        super().__init__(np.array(data), requires_grad=True)


class Module:
    """A part of a model, or the whole: what it learns lies in its attributes, what it computes in `forward`.

    A subclass assigns parameters, modules, and lists, tuples or dicts of these, nested at will, to
    attributes of any name but its methods', at any time; it need not call ``super().__init__()``. What is
    nested too deep for Python is a ``RecursionError``, never left out. Other attributes are left alone: a
    `Tensor` that is no `Parameter` is not trained, nor is what the class holds. The same object (``is``;
    modules may define ``==``) may be found in several places, and a module may hold one that holds it.

    Attributes
    ----------
    is_training
        True at the start. For `forward` to read, where a layer works otherwise in training than in use.

    Examples
    --------
    >>> class Affine(Module):
    ...     def __init__(self):
    ...         self.weight, self.bias = Parameter([[2.0, 0.0]]), Parameter([1.0])
    ...     def forward(self, x):
    ...         return x @ self.weight.swapaxes(0, 1) + self.bias
    >>> class Chain(Module):
    ...     def __init__(self):
    ...         self.layers = [Affine(), Affine()]
    >>> [name for name, _ in Chain().named_parameters()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    >>> Affine()(np.array([[3.0, 4.0]])).data.tolist()
    [[7.0]]
    """

    is_training: bool = True

    def forward(self, *arguments, **options):
        """Compute the result: written by the subclass; ``NotImplementedError`` if it was not."""
        raise NotImplementedError(f"{type(self).__name__} must define forward to be called")

    def __call__(self, *arguments, **options):
        """Return what `forward` returns for the same arguments and options."""
        return self.forward(*arguments, **options)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Give each parameter of this module and of all modules in it, with its name.

        The name is the path to the parameter: attributes, positions in lists and tuples (from 0) and keys
        of dicts (as ``str`` or an f-string writes them), joined by dots. The order is that in which the
        attributes were first assigned, and of the entries of lists, tuples and dicts; all that is inside an
        attribute comes before the next attribute. A parameter that is found several times comes once, by its
        first name.

        Raises
        ------
        ValueError
            When two parameters have the same name, as keys with dots can give; the message says which.
            All that needs the names, `parameters` too, refuses them likewise.
        """
        names: set[str] = set()
        for name, each in _walk(self, "", set()):
            if isinstance(each, Parameter):
                if name in names:
                    raise ValueError(f"names must differ; got two parameters called {name!r}: rename one")
                names.add(name)
                yield name, each

    def parameters(self) -> Iterator[Parameter]:
        """Give the parameters in the order of `named_parameters`, without the names."""
        return (parameter for _, parameter in self.named_parameters())

    def train(self) -> Self:
        """Set ``is_training`` of this module and of all modules in it to True; return this module."""
        _switch(self, True)
        return self

    def eval(self) -> Self:
        """Set ``is_training`` of this module and of all modules in it to False; return this module."""
        _switch(self, False)
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the data of each parameter under its name, in the order of `named_parameters`."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Write the values of ``state`` into the arrays that the parameters have.

        The arrays stay the same objects and keep their dtypes, to which values are converted; all else
        stays as it is, gradients and ``is_training`` too. ``state`` is not changed, and may hold arrays of
        this module, or views of them: all values are read before one is written.

        Parameters
        ----------
        state
            An array of the parameter's shape for each name that `named_parameters` gives, and no others.

        Raises
        ------
        ValueError
            When names are missing or not expected, or shapes differ; one message names all that are wrong.
            No parameter is changed then, nor by any other error, as of a value that is no number.
        """
        own = dict(self.named_parameters())
        problems = [f"{name!r} is missing" for name in own if name not in state]
        problems += [f"{name!r} is not expected" for name in state if name not in own]
        problems += [
            f"{name!r} must have the shape {parameter.shape}, got {np.shape(state[name])}"
            for name, parameter in own.items()
            if name in state and np.shape(state[name]) != parameter.shape
        ]
        if problems:
            raise ValueError(f"the state must fit the {type(self).__name__}: {'; '.join(problems)}")
        values = {name: np.array(state[name], parameter.dtype) for name, parameter in own.items()}
        for name, parameter in own.items():
            parameter.data[...] = values[name]


def _switch(module: Module, is_training: bool) -> None:
    for _, each in _walk(module, "", set()):
        if isinstance(each, Module):
            each.is_training = is_training


def _walk(each: object, path: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Give an object and all that is inside once, in order, each with its path; ``seen`` holds their ids."""
    if id(each) in seen:
        return
    seen.add(id(each))
    yield path, each
    inside = {}
    if isinstance(each, Module):
        inside = vars(each)
    elif isinstance(each, dict):
        inside = each
    elif isinstance(each, list | tuple):
        inside = dict(enumerate(each))
    for name, child in inside.items():
        yield from _walk(child, f"{path}.{name}" if path else str(name), seen)
