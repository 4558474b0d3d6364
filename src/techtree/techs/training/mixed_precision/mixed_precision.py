"""Sixteen bits for what there is much of, thirty-two for what is added up.

Claim: weights, activations and gradients may be rounded to 16 bits, but the sum of many small updates may
not. So the model computes with rounded weights, and the optimizer changes a float32 copy, the *master
weights*.

Idea: a floating-point format is two numbers. Bits of mantissa say how fine it is: bfloat16 has 7, so that
an update below 2**-9 of a weight is rounded away. Bits of exponent say how far it reaches: float16 has 5
and ends at 6e-8, where many gradients lie. Multiplying the loss by a large number moves all gradients up,
and dividing them in float32 moves them back.

Legend: ``n_exponent, n_mantissa`` the bits of a format: (8, 7) is bfloat16, (5, 10) float16, (8, 23) float32.

Left out: arithmetic that is faster because its numbers are small. Here each number is rounded to what the
format has and kept in float32; products are added up in float32, as matrix units do.

Paper: Micikevicius et al. (2018), https://arxiv.org/abs/1710.03740
"""

from collections.abc import Iterable, Mapping

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.training.sgd import Optimizer


def round_to(x: np.ndarray, n_exponent: int, n_mantissa: int) -> np.ndarray:
    """Round each number to the nearest that a floating-point format of fewer bits has.

    Parameters
    ----------
    x
        Any shape and any values; not changed. What is not float32 is turned into float32 first.
    n_exponent, n_mantissa
        Bits of exponent, 2 to 8, and of mantissa, 1 to 23, used as in IEEE 754.

    Returns
    -------
    np.ndarray
        A new float32 array of the shape of ``x``. Of two neighbours that are equally near, the one whose
        last bit is 0. Below the smallest normal number, ``2**(2 - 2**(n_exponent - 1))``, the spacing stays
        what it is there: subnormal numbers, and then 0. What would be rounded to ``2**2**(n_exponent - 1)``
        or beyond becomes infinity. Every sign stays, also of 0. Infinities stay, and NaN stays NaN.

    Raises
    ------
    ValueError
        When a number of bits is out of its range.

    Examples
    --------
    >>> round_to(np.array([257.0, 259.0, 3.4e38, 1e-41]), 8, 7).tolist()  # bfloat16 has 256, 258, 260
    [256.0, 260.0, inf, 0.0]
    >>> round_to(np.array([2049.0, 65519.0, 65520.0, 2e-8]), 5, 10).tolist()  # float16
    [2048.0, 65504.0, inf, 0.0]
    """
    if not (2 <= n_exponent <= 8 and 1 <= n_mantissa <= 23):
        raise ValueError(
            "a format must have 2 to 8 bits of exponent and 1 to 23 of mantissa; "
            f"got {n_exponent} and {n_mantissa}: bfloat16 is (8, 7), float16 (5, 10)"
        )
    with np.errstate(all="ignore"):  # float64 beyond float32's range becomes infinite, and may
        wide = np.asarray(x).astype(np.float32).astype(np.float64)  # where all that follows is exact
    reach = 2 ** (n_exponent - 1)
    # frexp gives x = m * 2**exponent with m in [0.5, 1).
    spacing = np.maximum(np.frexp(wide)[1] - 1, 2 - reach) - n_mantissa
    rounded = np.ldexp(np.rint(np.ldexp(wide, -spacing)), spacing)  # rint rounds halves to even
    rounded = np.where(np.abs(rounded) >= 2.0**reach, np.copysign(np.inf, rounded), rounded)
    return rounded.astype(np.float32)


def cast(x: Tensor, n_exponent: int, n_mantissa: int) -> Tensor:
    """Round a tensor on its way forward, and its gradient on the way back, as 16-bit hardware does.

    Parameters
    ----------
    x
        A tensor.
    n_exponent, n_mantissa
        As in `round_to`.

    Returns
    -------
    Tensor
        float32: `round_to` of the data. The gradient that arrives here is rounded by `round_to`, too,
        before it is passed on to ``x``; the rounding itself counts as having the derivative 1.
    """
    return record(
        round_to(x.data, n_exponent, n_mantissa), (x, lambda g: round_to(g, n_exponent, n_mantissa))
    )


class MasterWeights:
    """Keeps float32 copies of weights: the optimizer changes these, the model computes with rounded ones.

    Parameters
    ----------
    parameters
        Of the model. They are rounded at once, as by `publish`.
    n_exponent, n_mantissa
        The format that the model computes in, as in `round_to`.

    Attributes
    ----------
    masters
        A list of float32 `Parameter`, one for each of the model's, in order, with the weights before
        rounding: to be given to the optimizer.

    Examples
    --------
    >>> weight = Parameter(np.array([1.0], np.float32))
    >>> weights = MasterWeights([weight], 8, 7)
    >>> for _ in range(4):  # bfloat16 has no number between 1 and 1.0078125
    ...     weights.masters[0].data += np.float32(0.001)
    ...     weights.publish()
    >>> weight.data.tolist()
    [1.0078125]
    """

    def __init__(self, parameters: Iterable[Parameter], n_exponent: int, n_mantissa: int):
        self._model = list(parameters)
        self._format = (n_exponent, n_mantissa)
        self.masters = [Parameter(each.data.astype(np.float32)) for each in self._model]
        self.publish()

    def take_gradients(self) -> None:
        """Move the gradients from the model to the masters, rounded by `round_to`.

        They take the place of the masters' earlier ones; the model's become None. Where the model has none,
        the master's becomes None, too.
        """
        for parameter, master in zip(self._model, self.masters, strict=True):
            master.grad = None if parameter.grad is None else round_to(parameter.grad, *self._format)
            parameter.grad = None

    def publish(self) -> None:
        """Write the masters, rounded by `round_to`, into the arrays of the model's weights; dtypes stay."""
        for parameter, master in zip(self._model, self.masters, strict=True):
            parameter.data[...] = round_to(master.data, *self._format)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of the masters' weights, under the names ``"0"``, ``"1"``, and so on."""
        return {str(number): each.data.copy() for number, each in enumerate(self.masters)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Write the values of a `state_dict` into the arrays of the masters, and `publish` them.

        Raises
        ------
        ValueError
            When the names or shapes are not those of `state_dict`. Nothing is changed then.
        """
        wanted = {name: each.shape for name, each in self.state_dict().items()}
        if wanted != {name: np.shape(each) for name, each in state.items()}:
            raise ValueError(f"the state must have the shapes {wanted}: load that of a model like this one")
        for number, master in enumerate(self.masters):
            master.data[...] = state[str(number)]
        self.publish()


class LossScaler:
    """Finds a factor for the loss with which float16 neither loses small gradients nor overflows.

    Call ``(loss * scaler.scale).backward()``, and `step` in place of the optimizer's.

    Parameters
    ----------
    scale
        The factor for the first step.
    n_growth
        After so many steps without overflow in a row the scale is doubled, and the count starts at 0 again.

    Attributes
    ----------
    scale
        The factor for the next loss, a float.
    """

    def __init__(self, scale: float = 65536.0, n_growth: int = 2000):
        self.scale = float(scale)
        self.n_growth = n_growth
        self._n_good = 0

    def step(self, optimizer: Optimizer) -> bool:
        """Divide the gradients by the scale, update the weights if all are finite, and adapt the scale.

        Parameters
        ----------
        optimizer
            The gradients are those of the parameters in its groups; None counts as finite and stays None. If
            no entry of any is infinite or NaN, all are divided by ``scale``, keep their dtypes, and then
            ``optimizer.step()`` is called once. Otherwise it is not called, and the gradients stay.

        Returns
        -------
        bool
            Whether it was called. If not, the scale is halved, and the count of steps without overflow is 0
            again.
        """
        with_gradient = [
            each for group in optimizer.groups for each in group["parameters"] if each.grad is not None
        ]
        is_finite = all(np.isfinite(each.grad).all() for each in with_gradient)
        if is_finite:
            for each in with_gradient:
                # Divided by a number of NumPy: beside float16 a plain 65536 becomes infinity.
                each.grad = np.asarray(each.grad / np.float64(self.scale), each.grad.dtype)
            optimizer.step()
        self._n_good = self._n_good + 1 if is_finite else 0
        if not is_finite:
            self.scale /= 2
        elif self._n_good == self.n_growth:
            self.scale, self._n_good = self.scale * 2, 0
        return is_finite

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the scale, and the count of steps without overflow, as arrays of any names."""
        return {"scale": np.array(self.scale), "n_good": np.array(self._n_good)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on as the scaler whose `state_dict` this is would have gone on."""
        self.scale, self._n_good = float(state["scale"]), int(state["n_good"])
