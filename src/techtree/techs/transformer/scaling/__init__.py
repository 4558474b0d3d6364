"""What a model costs before it is built, and how good it will be before it is trained."""

from techtree.techs.transformer.scaling.scaling import (
    PowerLaw,
    best_shape,
    count_parameters,
    fit_power_law,
    flops_per_token,
    memory,
)

__all__ = ["PowerLaw", "best_shape", "count_parameters", "fit_power_law", "flops_per_token", "memory"]
