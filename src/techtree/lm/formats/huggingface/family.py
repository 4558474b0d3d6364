"""A family of models on the Hugging Face hub: how its `config.json` says what a `ModelConfig` says.

A family is a table. Which one can carry a config follows from the config: nothing else remembers where a
model came from.
"""

import dataclasses
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.stored import Stored

MAX_LAYERS = MAX_EXPERTS = 10_000
"""More is damage, and would cost minutes and gigabytes before any weight is looked at."""
MAX_NUMBER = 1 << 62
"""What PyTorch can count."""


@dataclass(frozen=True)
class Aspect:
    """Some fields of a `ModelConfig`, and how a `config.json` says them."""

    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    """From their keys to our fields; raises `InputError`."""
    write: Callable[[ModelConfig], dict[str, Any]]
    """From our fields to their keys."""


@dataclass(frozen=True)
class Family:
    """What one `model_type` can say, and in which words."""

    architecture: str
    """The class of transformers that has the head."""
    names: Mapping[str, str]
    """Their keys for single values, and our fields."""
    defaults: Mapping[str, Any]
    """What transformers assumes where a file says nothing."""
    required: Mapping[str, tuple[Any, ...]]
    """Options that this program does not have: key -> what is fine, the first when nothing is said."""
    allows: Mapping[str, tuple[Any, ...]]
    """The values of our fields that it can carry. A single one goes without saying."""
    aspects: tuple[Aspect, ...]
    """What takes more than a name."""
    misfits: Callable[[ModelConfig], Iterator[str]]
    """What else a config must be, in the words "n_heads to divide d_model (got ...)"."""
    layout: Callable[[ModelConfig, Collection[str], Collection[str]], dict[str, Stored]]
    """The tensors in a file, given the names of our parameters, and those found in a file or none."""

    def problems(self, config: ModelConfig) -> list[str]:
        """Return why this family cannot carry a config; nothing when it can."""
        found = [
            f"{field}={' or '.join(map(repr, allowed))} (got {_shown(getattr(config, field))})"
            for field, allowed in self.allows.items()
            if getattr(config, field) not in allowed
        ]
        if config.speedrun is not None:
            found.append("speedrun=None (got some), as no file here has a place for its parts")
        return [*found, *self.misfits(config)]

    def read(self, values: Mapping[str, Any]) -> ModelConfig:
        """Return the shape that the contents of a `config.json` describe.

        Raises
        ------
        InputError
            When a key is missing or of another type, or the model uses an option that this program does
            not have.
        """
        for key, allowed in self.required.items():
            if (given := values.get(key, allowed[0])) not in allowed:
                raise InputError(f"{key} must be {allowed[0]!r} or absent; got {given!r}: use another model")
        values = {**self.defaults, **values}
        for key in self.names:
            if key not in values:
                raise InputError(f"the file must have {key!r}, which is missing")
        fields = {field: allowed[0] for field, allowed in self.allows.items() if len(allowed) == 1}
        fields |= {ours: values[theirs] for theirs, ours in self.names.items()}
        check_n_layers(fields)
        for aspect in self.aspects:
            fields |= aspect.read(values)
        numbers = {**fields, **(fields.get("experts") or {}), **(fields.get("rope_scaling") or {})}
        for name, value in numbers.items():
            if type(value) is int and value >= MAX_NUMBER:
                raise InputError(f"{name} must be below 2^62; got {reprlib.repr(value)}")
        config = ModelConfig.from_dict(fields)
        if config.n_parameters >= MAX_NUMBER:
            raise InputError("a model must have fewer than 2^62 parameters; its config describes more")
        return config

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Return the keys of a `config.json` that describe a shape."""
        values = {theirs: getattr(config, ours) for theirs, ours in self.names.items()}
        for aspect in self.aspects:
            values |= aspect.write(config)
        return values


def _shown(value: object) -> str:
    return "some" if dataclasses.is_dataclass(value) else repr(value)


def check_n_layers(fields: Mapping[str, Any]) -> None:
    """Refuse a number of layers that nobody has, before anything counts them.

    Raises
    ------
    InputError
        When there are too many.
    """
    n_layers = fields.get("n_layers")
    if type(n_layers) is int and n_layers > MAX_LAYERS:
        raise InputError(f"a model must have at most {MAX_LAYERS} layers; got {n_layers}")


def flag(values: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """Return a switch.

    Raises
    ------
    InputError
        When it is anything else.
    """
    given = values.get(key, default)
    if not isinstance(given, bool):
        raise InputError(f"{key} must be true or false; got {given!r}")
    return given


def count(values: Mapping[str, Any], key: str, default: int | None = None, at_least: int = 1) -> int:
    """Return a whole number.

    Raises
    ------
    InputError
        When it is missing or anything else.
    """
    given = values.get(key, default)
    if type(given) is not int or given < at_least:
        raise InputError(f"{key} must be a whole number from {at_least} on; got {given!r}")
    return given
