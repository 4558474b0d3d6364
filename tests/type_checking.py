"""The type checker that the tests switch on for the product, by jaxtyping's import hook.

`typeguard.typechecked` rewrites a function's source, which jaxtyping's stand-ins do not have; so values
are given to `typeguard.check_type` one by one.
"""

import functools
import inspect
import typing
from collections.abc import Callable

from typeguard import ForwardRefPolicy, check_type

UNCHECKED = (inspect.Parameter.empty, typing.Any, typing.Self)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def checked(function: Callable) -> Callable:
    """Return the function with its arguments and its result checked against its annotations."""
    signature = inspect.signature(function)
    hints = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if parameter.kind not in VARIADIC and _is_checked(parameter.annotation)
    }

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        arguments = signature.bind(*args, **kwargs).arguments
        for name, hint in hints.items():
            if name in arguments:
                check_type(arguments[name], hint, forward_ref_policy=ForwardRefPolicy.IGNORE)
        result = function(*args, **kwargs)
        if _is_checked(signature.return_annotation):
            check_type(result, signature.return_annotation, forward_ref_policy=ForwardRefPolicy.IGNORE)
        return result

    return wrapper


def _is_checked(annotation: object) -> bool:
    return not isinstance(annotation, str) and annotation not in UNCHECKED
