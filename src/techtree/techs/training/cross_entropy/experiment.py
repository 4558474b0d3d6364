"""What one operation changes: gradients across a gap, memory between the passes. And what a mean is over."""

import gc
import math
import tracemalloc

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.cross_entropy import cross_entropy

N_TOKENS, N_CLASSES, WIDTH = 128, 512, 16


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure gradients of three forms of the loss, their memory, and two ways to average.

    Parameters
    ----------
    rng
        Draws logits, features and targets.
    scale
        The share of the full number of points and repetitions, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON; None where a form gave infinity or NaN.
    """
    gaps = np.linspace(0, 200, max(11, round(101 * scale))).tolist()
    ratios = [1, 2, 4, 8, 16, 32, 64]
    n_pairs = max(20, round(200 * scale))
    return {
        "gaps": gaps,
        "gradients": {name: [_gradient(form, gap) for gap in gaps] for name, form in FORMS.items()},
        "losses": {name: [_loss(form, gap) for gap in gaps] for name, form in FORMS.items()},
        "kept": {name: _memory(form, rng, with_backward=False) for name, form in FORMS.items()},
        "peak": {name: _memory(form, rng, with_backward=True) for name, form in FORMS.items()},
        "ratios": ratios,
        "error_of_mean_of_means": [_error_of_mean_of_means(rng, ratio, n_pairs) for ratio in ratios],
        "error_of_sum_over_count": _error_of_sum_over_count(rng),
        "loss_of_equal_logits": float(cross_entropy(Tensor(np.zeros((3, N_CLASSES))), np.arange(3)).data),
    }


def _softmax(logits: Tensor) -> Tensor:
    exponentials = (logits - logits.data.max(axis=-1, keepdims=True)).exp()
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _log_of_softmax(logits: Tensor, targets: np.ndarray) -> Tensor:
    return -_softmax(logits)[np.arange(len(targets)), targets].log().mean()


def _with_epsilon(logits: Tensor, targets: np.ndarray) -> Tensor:
    return -(_softmax(logits) + 1e-12)[np.arange(len(targets)), targets].log().mean()


FORMS = {
    "-log(softmax)": _log_of_softmax,
    "-log(softmax + 1e-12)": _with_epsilon,
    "cross_entropy": cross_entropy,
}


def _two_logits(form, gap: float) -> tuple[Tensor, Tensor]:
    logits = Tensor(np.array([[0, gap]], np.float32), requires_grad=True)
    with np.errstate(all="ignore"):
        loss = form(logits, np.array([0]))
        loss.backward()
    return loss, logits


def _gradient(form, gap: float) -> float | None:
    """Return how strongly the target's logit, ``gap`` below the other, is pushed up."""
    _, logits = _two_logits(form, gap)
    assert logits.grad is not None
    return _finite(-logits.grad[0, 0])


def _loss(form, gap: float) -> float | None:
    return _finite(_two_logits(form, gap)[0].data)


def _finite(value) -> float | None:
    return float(value) if np.isfinite(value) else None


def _memory(form, rng: np.random.Generator, with_backward: bool) -> float:
    """Return what is kept after the forward pass, or the peak of both passes, in arrays like the logits."""
    logits = Tensor(rng.normal(size=(N_TOKENS, N_CLASSES)), requires_grad=True)
    targets = rng.integers(N_CLASSES, size=N_TOKENS)
    gc.collect()
    tracemalloc.start()
    try:
        loss = form(logits, targets)
        kept, _ = tracemalloc.get_traced_memory()
        loss.backward()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (peak if with_backward else kept) / logits.data.nbytes


def _batch(rng: np.random.Generator, teacher: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(n, WIDTH))
    return x, (x @ teacher).argmax(axis=1)


def _weight_gradient(
    w: np.ndarray, x: np.ndarray, targets: np.ndarray, reduction: str = "mean"
) -> np.ndarray:
    weight = Tensor(w, requires_grad=True)
    cross_entropy(Tensor(x) @ weight, targets, reduction=reduction).backward()
    assert weight.grad is not None
    return weight.grad


def _error_of_mean_of_means(rng: np.random.Generator, ratio: int, n_pairs: int) -> float:
    """Average the gradients of two micro-batches, one with ``ratio`` times as many tokens as the other."""
    errors = []
    for _ in range(n_pairs):
        w, teacher = rng.normal(size=(2, WIDTH, 8)) / math.sqrt(WIDTH)
        (x, s), (y, t) = _batch(rng, teacher, 256), _batch(rng, teacher, 256 // ratio)
        whole = _weight_gradient(w, np.concatenate([x, y]), np.concatenate([s, t]))
        halves = (_weight_gradient(w, x, s) + _weight_gradient(w, y, t)) / 2
        errors.append(float(np.linalg.norm(halves - whole) / np.linalg.norm(whole)))
    return float(np.mean(errors))


def _error_of_sum_over_count(rng: np.random.Generator) -> float:
    """Add up the gradients of sums, and divide by the number of all tokens that count at the end."""
    w, teacher = rng.normal(size=(2, WIDTH, 8)) / math.sqrt(WIDTH)
    (x, s), (y, t) = _batch(rng, teacher, 256), _batch(rng, teacher, 7)
    s[::3] = -100
    whole = _weight_gradient(w, np.concatenate([x, y]), np.concatenate([s, t]))
    added = _weight_gradient(w, x, s, "sum") + _weight_gradient(w, y, t, "sum")
    added /= (s != -100).sum() + (t != -100).sum()
    return float(np.linalg.norm(added - whole) / np.linalg.norm(whole))


def plot(numbers: dict):
    """Draw the gradient across a gap, the memory of each form, and the error of a mean of means."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4))
    for (name, gradients), colour in zip(numbers["gradients"].items(), ("C1", "C2", "C0"), strict=True):
        heights = [np.nan if each is None else each for each in gradients]
        left.plot(numbers["gaps"], heights, colour, label=name, linewidth=3 if colour == "C1" else 1.5)
    left.set(xlabel="the target's logit is lower by", ylabel="gradient that raises it", ylim=(-0.05, 1.35))
    left.legend(loc="upper right")
    places = np.arange(len(FORMS))
    middle.bar(places - 0.2, numbers["kept"].values(), 0.38, color="C0", label="between the passes")
    middle.bar(places + 0.2, numbers["peak"].values(), 0.38, color="C7", label="at the peak")
    middle.set(ylabel="memory, arrays like the logits", ylim=(0, 11))
    middle.set_xticks(places, ["-log(\nsoftmax)", "-log(softmax\n+ 1e-12)", "cross_\nentropy"], fontsize=7)
    middle.legend(loc="upper right")
    right.plot(numbers["ratios"], np.array(numbers["error_of_mean_of_means"]) * 100, "C1o-", markersize=3)
    right.set(
        xscale="log", xlabel="tokens of one part / of the other", ylabel="error of the mean of means, %"
    )
    right.set_xticks(numbers["ratios"], [str(ratio) for ratio in numbers["ratios"]])
    right.minorticks_off()
    right.set_ylim(0, None)
    return figure


def claim(numbers: dict) -> None:
    """README.md: only the one operation has a gradient at every gap; it keeps nothing; means of means err."""
    plain, patched, fused = (
        list(zip(numbers["gaps"], numbers["gradients"][name], numbers["losses"][name], strict=True))
        for name in FORMS
    )
    for gap, gradient, loss in plain:
        assert (gradient is None) == (gap > 89)
        assert (loss is None) == (gap >= 104)
    for gap, gradient, loss in patched:
        assert loss is not None
        assert loss < 27.64
        assert gradient is not None
        assert gap < 40 or gradient < 1e-5
        assert gap < 110 or gradient == 0
    for gap, gradient, loss in fused:
        assert abs(loss - np.logaddexp(0, gap)) < 1e-6 * max(gap, 1)
        assert abs(gradient - 1 / (1 + math.exp(-gap))) < 1e-6
    kept, peak = (list(numbers[key].values()) for key in ("kept", "peak"))
    assert [round(each) for each in kept] == [3, 4, 0]
    assert [round(each) for each in peak] == [7, 8, 2]
    errors = numbers["error_of_mean_of_means"]
    assert errors[0] < 1e-12
    assert errors == sorted(errors)
    assert numbers["error_of_sum_over_count"] < 1e-12
    at = dict(zip(numbers["ratios"], errors, strict=True))
    assert 0.05 < at[4] < 0.4
    assert at[64] > 0.5
    assert abs(numbers["loss_of_equal_logits"] - math.log(N_CLASSES)) < 1e-12
