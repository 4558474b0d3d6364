"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
import tracemalloc

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record, where
from techtree.techs.ground.numerics import log_softmax, logsumexp


def _check(x, targets, ignore_index, reduction):
    """A right check, so that only what comes after it is wrong."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError("unknown reduction")
    if x.ndim == 0 or x.shape[-1] == 0 or targets.shape != x.shape[:-1] or targets.dtype.kind not in "iu":
        raise ValueError("shapes or dtype")
    is_class = (targets >= 0) & (targets < x.shape[-1])
    if not (is_class | (targets == ignore_index)).all():
        raise ValueError("out of range")


def _losses_on_the_tape(log_probabilities, unsafe=False):
    """Make a version from a function of tensors that gives log-probabilities; the rest is right."""

    def cross_entropy(logits, targets, ignore_index=-100, reduction="mean"):
        targets = np.asarray(targets)
        _check(logits.data, targets, ignore_index, reduction)
        counts = targets != ignore_index
        rows = where(counts[..., None], logits, 0.0)
        onehot = np.arange(logits.shape[-1]) == np.where(counts, targets, 0)[..., None]
        chosen = where(onehot, log_probabilities(rows), 0.0).sum(axis=-1)
        losses = where(counts, -chosen, 0.0)
        if reduction == "none":
            return losses
        return losses.sum() / (max(int(counts.sum()), 1) if reduction == "mean" else 1)

    return cross_entropy


def _softmax_of_tensor(x):
    e = (x - x.data.max(axis=-1, keepdims=True)).exp()
    return e / e.sum(axis=-1, keepdims=True)


def _log_of_softmax(x):
    return _softmax_of_tensor(x).log()


def _log_with_epsilon(x):
    return (_softmax_of_tensor(x) + 1e-12).log()


def _stable_on_the_tape(x):
    z = x - x.data.max(axis=-1, keepdims=True)
    return z - z.exp().sum(axis=-1, keepdims=True).log()


def _one_operation(value_of, gradient_of=None):
    """Make a version of one operation from the log-probabilities of an array; value and gradient are right,
    unless ``value_of`` or ``gradient_of`` is not.
    """

    def cross_entropy(logits, targets, ignore_index=-100, reduction="mean"):
        targets = np.asarray(targets)
        _check(logits.data, targets, ignore_index, reduction)
        counts = targets != ignore_index
        rows = np.where(counts[..., None], logits.data, 0)
        chosen = np.where(counts, targets, 0).astype(np.intp)[..., None]
        onehot = np.arange(rows.shape[-1]) == chosen
        n = max(int(counts.sum()), 1) if reduction == "mean" else 1
        losses = value_of(rows, chosen, counts)
        value = losses if reduction == "none" else losses.sum(dtype=np.float64) / n

        def pull_back(g):
            p = np.exp(log_softmax(rows))
            weight = (np.asarray(g) * counts / n)[..., None]
            return (p - onehot) * weight if gradient_of is None else gradient_of(p, onehot, weight, counts)

        return record(np.asarray(value, logits.dtype), (logits, pull_back))

    return cross_entropy


def _right_losses(rows, chosen, counts):
    return -np.take_along_axis(log_softmax(rows), chosen, axis=-1)[..., 0] * counts


def _smoothed(rows, chosen, counts):
    return 0.9 * _right_losses(rows, chosen, counts) - 0.1 * log_softmax(rows).mean(axis=-1) * counts


def _outer_index(p, onehot, weight, counts):
    """p[:, targets] -= 1: each row loses 1 at the targets of all rows."""
    p = p.reshape(-1, p.shape[-1])
    p[:, onehot.reshape(p.shape)[counts.ravel()].any(axis=0)] -= 1
    return p.reshape(onehot.shape) * weight


def _mean_of_means(logits, targets, ignore_index=-100, reduction="mean"):
    targets = np.asarray(targets)
    if reduction != "mean" or targets.ndim < 2:
        return _right(logits, targets, ignore_index, reduction)
    _check(logits.data, targets, ignore_index, reduction)
    counts = (targets != ignore_index).sum(axis=-1, keepdims=True)
    share = np.broadcast_to(1 / np.maximum(counts, 1) / max(int((counts > 0).sum()), 1), targets.shape)
    return (_right(logits, targets, ignore_index, "none") * share.astype(logits.dtype)).sum()


def _masked_by_a_product(logits, targets, ignore_index=-100, reduction="mean"):
    targets = np.asarray(targets)
    counts = targets != ignore_index
    losses = _right(logits, np.where(counts, targets, 0), -100, "none") * counts
    _check(logits.data, targets, ignore_index, reduction)
    if reduction == "none":
        return losses
    return losses.sum() / (max(int(counts.sum()), 1) if reduction == "mean" else 1)


def _in_place(logits, targets, ignore_index=-100, reduction="mean"):
    result = _right(Tensor(logits.data.copy()), targets, ignore_index, reduction)
    pull_back = record(
        result.data, (logits, lambda g: _gradient(logits, targets, ignore_index, reduction, g))
    )
    logits.data -= logits.data.max(axis=-1, keepdims=True)
    return pull_back


def _gradient(logits, targets, ignore_index, reduction, g):
    leaf = Tensor(logits.data, requires_grad=True)
    _right(leaf, targets, ignore_index, reduction).backward(g)
    return leaf.grad


def _without_the_ignored(logits, targets, ignore_index=-100, reduction="mean"):
    losses = _right(logits, targets, ignore_index, reduction)
    return losses[np.asarray(targets) != ignore_index] if reduction == "none" else losses


def _flat_losses(logits, targets, ignore_index=-100, reduction="mean"):
    losses = _right(logits, targets, ignore_index, reduction)
    return losses.reshape(-1) if reduction == "none" else losses


def _nan_when_nothing_counts(logits, targets, ignore_index=-100, reduction="mean"):
    losses = _right(logits, targets, ignore_index, reduction)
    if reduction == "mean" and (np.asarray(targets) == ignore_index).all():
        return losses * math.nan
    return losses


def _error_when_nothing_counts(logits, targets, ignore_index=-100, reduction="mean"):
    if (np.asarray(targets) == ignore_index).all():
        raise ValueError("there must be a token that counts")
    return _right(logits, targets, ignore_index, reduction)


def _perplexity(logits, targets, ignore_index=-100, reduction="mean"):
    return _right(logits, targets, ignore_index, reduction).exp()


def _scaled(factor):
    def cross_entropy(logits, targets, ignore_index=-100, reduction="mean"):
        return _right(logits, targets, ignore_index, reduction) * factor

    return cross_entropy


def _classes_behind_the_batch(logits, targets, ignore_index=-100, reduction="mean"):
    """Classes along the second axis, as PyTorch has them for images."""
    if logits.ndim > 2:
        order = (0, *range(2, logits.ndim), 1)
        logits = logits.transpose(order)
    return _right(logits, targets, ignore_index, reduction)


def _modulo_classes(logits, targets, ignore_index=-100, reduction="mean"):
    """Negative numbers count from the end, as indices do."""
    targets = np.asarray(targets)
    n = logits.shape[-1] if logits.ndim else 1
    is_index = (targets != ignore_index) & (targets < 0) & (targets >= -n) & (targets.dtype.kind == "i")
    if not is_index.any():
        return _right(logits, targets, ignore_index, reduction)
    return _right(logits, np.where(is_index, targets + n, targets), ignore_index, reduction)


def _clipped_targets(logits, targets, ignore_index=-100, reduction="mean"):
    targets = np.asarray(targets)
    n = logits.shape[-1] if logits.ndim else 1
    if targets.dtype.kind not in "iu" or n == 0:
        return _right(logits, targets, ignore_index, reduction)
    is_beyond = (targets >= n) & (targets != ignore_index)
    return _right(logits, np.where(is_beyond, n - 1, targets), ignore_index, reduction)


def _every_negative_is_ignored(logits, targets, ignore_index=-100, reduction="mean"):
    targets = np.asarray(targets)
    is_negative = (targets != ignore_index) & (targets < 0)
    if targets.dtype.kind != "i":
        return _right(logits, targets, ignore_index, reduction)
    return _right(logits, np.where(is_negative, ignore_index, targets), ignore_index, reduction)


def _broadcasting_targets(logits, targets, ignore_index=-100, reduction="mean"):
    targets = np.asarray(targets)
    if targets.shape != logits.shape[:-1] and targets.size == 1:
        targets = np.broadcast_to(targets.reshape(()), logits.shape[:-1])
    return _right(logits, targets, ignore_index, reduction)


def _any_number_is_a_target(kinds):
    def cross_entropy(logits, targets, ignore_index=-100, reduction="mean"):
        targets = np.asarray(targets)
        targets = targets.astype(np.int64) if targets.dtype.kind in kinds else targets
        return _right(logits, targets, ignore_index, reduction)

    return cross_entropy


def _other_words_mean(logits, targets, ignore_index=-100, reduction="mean"):
    reduction = reduction if reduction in ("mean", "sum", "none") else "mean"
    return _right(logits, targets, ignore_index, reduction)


def _without_classes(logits, targets, ignore_index=-100, reduction="mean"):
    if logits.ndim and logits.shape[-1] == 0 and np.shape(targets) == logits.shape[:-1]:
        return logits.sum()
    return _right(logits, targets, ignore_index, reduction)


def _one_maximum(rows, chosen, counts):
    e = np.exp(rows - rows.max(initial=-np.inf))
    with np.errstate(all="ignore"):
        return (
            np.log(e.sum(axis=-1))
            - (np.take_along_axis(rows, chosen, -1)[..., 0] - rows.max(initial=-np.inf))
        ) * counts


_COUNT = "n = max(int(counts.sum()), 1) if reduction"
_WEIGHT = "(np.asarray(g, np.float64) * counts / n)[..., None]"
_ONE_LESS = "np.put_along_axis(p, chosen, np.take_along_axis(p, chosen, axis=-1) - 1, axis=-1)"

MISTAKES = {
    "takes the logarithm of the softmax, which is rounded to 0 for a gap above 745 (float32: 104)": {
        "cross_entropy": _one_operation(
            lambda rows, chosen, counts: (
                -np.log(np.take_along_axis(np.exp(log_softmax(rows)), chosen, -1))[..., 0] * counts
            )
        )
    },
    "adds 1e-12 to the probabilities before the logarithm, so that no loss exceeds 27.6": {
        "cross_entropy": _one_operation(
            lambda rows, chosen, counts: (
                -np.log(np.take_along_axis(np.exp(log_softmax(rows)), chosen, -1) + 1e-12)[..., 0] * counts
            )
        )
    },
    "does not subtract the largest logit, and overflows": [
        ("rows - rows.max(axis=-1, keepdims=True)", "rows - 0 * rows.max(axis=-1, keepdims=True)")
    ],
    "subtracts the largest logit of all rows, so that rows far below it vanish": {
        "cross_entropy": _one_operation(_one_maximum)
    },
    "computes each step on the tape, which keeps several arrays for the backward pass": {
        "cross_entropy": _losses_on_the_tape(_stable_on_the_tape)
    },
    "takes softmax twice, as if the logits were probabilities already": {
        "cross_entropy": _one_operation(
            lambda rows, chosen, counts: _right_losses(np.exp(log_softmax(rows)), chosen, counts),
        )
    },
    "counts in bits instead of nats": {"cross_entropy": _scaled(1 / math.log(2))},
    "returns the log-likelihood, with the sign of something to be raised": {"cross_entropy": _scaled(-1.0)},
    "returns the perplexity, the exponential of the loss": {"cross_entropy": _perplexity},
    "smooths the targets by a tenth": {
        "cross_entropy": _one_operation(
            _smoothed, lambda p, onehot, weight, counts: (p - 0.9 * onehot - 0.1 / p.shape[-1]) * weight
        )
    },
    "averages over all tokens, those that do not count included": [
        (_COUNT, "n = max(counts.size, 1) if reduction")
    ],
    "averages the averages of sequences, so that tokens of short ones count more": {
        "cross_entropy": _mean_of_means
    },
    "averages over tokens and classes": [
        (_COUNT, "n = max(int(counts.sum()), 1) * x.shape[-1] if reduction")
    ],
    "sums up when asked for the mean": [(_COUNT, "n = 1 if reduction")],
    "averages when asked for the sum": [('if reduction == "mean" else 1', 'if reduction != "none" else 1')],
    "divides the losses of single tokens by their number": [(' if reduction == "mean" else 1', "")],
    "divides the loss by the number of tokens, but not its gradient": [
        (_WEIGHT, _WEIGHT.replace(" / n", ""))
    ],
    "has the probabilities as gradient, and forgets to subtract the target": [(_ONE_LESS, "pass")],
    "has the gradient of the wrong sign: what came minus what was predicted": [(_WEIGHT, f"-{_WEIGHT}")],
    "subtracts 1 at the targets of all rows from each row": {
        "cross_entropy": _one_operation(_right_losses, _outer_index)
    },
    "does not multiply by the gradient that arrives": [(_WEIGHT, "(counts / n)[..., None]")],
    "hands the gradient of the target's logit back, and nothing to the other classes": {
        "cross_entropy": _one_operation(
            _right_losses, lambda p, onehot, weight, counts: (p - 1) * onehot * weight
        )
    },
    "leaves the tape, so that nothing learns": [
        (
            "return record(np.asarray(value, x.dtype), (logits, pull_back))",
            "return Tensor(np.asarray(value, x.dtype))",
        )
    ],
    "takes loss 0 for tokens that do not count, and yet their gradient": [
        (_WEIGHT, "(np.broadcast_to(np.asarray(g, np.float64), counts.shape) / n)[..., None]")
    ],
    "removes tokens that do not count by multiplying by 0, which NaN and infinity survive": {
        "cross_entropy": _masked_by_a_product
    },
    "always takes -100 for the ignored target": [
        ("counts = targets != ignore_index", "counts = targets != -100")
    ],
    "counts the tokens of an ignored class, because it is a class": [
        (
            "counts = targets != ignore_index",
            "counts = (targets != ignore_index) | ((targets >= 0) & (targets < x.shape[-1]))",
        )
    ],
    "is NaN when no token counts": {"cross_entropy": _nan_when_nothing_counts},
    "fails when no token counts": {"cross_entropy": _error_when_nothing_counts},
    "leaves tokens that do not count out of the single losses": {"cross_entropy": _without_the_ignored},
    "returns the single losses in one row": {"cross_entropy": _flat_losses},
    "takes the second axis for the classes": {"cross_entropy": _classes_behind_the_batch},
    "takes -1 for the last class": {"cross_entropy": _modulo_classes},
    "ignores every negative target": {"cross_entropy": _every_negative_is_ignored},
    "clips targets beyond the last class": {"cross_entropy": _clipped_targets},
    "broadcasts a single target over all tokens": {"cross_entropy": _broadcasting_targets},
    "cuts targets that are not integers": {"cross_entropy": _any_number_is_a_target("f")},
    "takes booleans for classes": {"cross_entropy": _any_number_is_a_target("b")},
    "takes any other word for the mean": {"cross_entropy": _other_words_mean},
    "accepts logits without a class": {"cross_entropy": _without_classes},
    "turns float32 into float64": [
        ("return record(np.asarray(value, x.dtype)", "return record(np.asarray(value, np.float64)")
    ],
    "changes the logits in place": {"cross_entropy": _in_place},
    "changes the targets in place": [
        (
            "chosen = np.where(counts, targets, 0)",
            "targets[~counts] = 0\n    chosen = np.where(counts, targets, 0)",
        )
    ],
    "shares the gradient of ties: subtracts the target's part from every class of the same probability": {
        "cross_entropy": _one_operation(
            _right_losses,
            lambda p, onehot, weight, counts: (p - _shared_ties(p, onehot)) * weight,
        )
    },
}


def _shared_ties(p, onehot):
    is_tied = p == (p * onehot).sum(axis=-1, keepdims=True)
    return is_tied / np.maximum(is_tied.sum(axis=-1, keepdims=True), 1)


def _token_by_token(logits, targets, ignore_index=-100, reduction="mean"):
    """A loop over the tokens, in Python's numbers."""
    targets = np.asarray(targets)
    _check(logits.data, targets, ignore_index, reduction)
    losses, gradient = np.zeros(targets.shape), np.zeros(logits.shape)
    n = 0
    for at in np.ndindex(targets.shape):
        if targets[at] == ignore_index:
            continue
        n += 1
        row = [float(each) for each in logits.data[at]]
        top = max(row)
        total = math.fsum(math.exp(each - top) for each in row)
        losses[at] = math.log(total) + top - row[int(targets[at])]
        if top - row[int(targets[at])] > 0:
            losses[at] = math.log(total) + (top - row[int(targets[at])])
        gradient[at] = [math.exp(each - top) / total for each in row]
        gradient[at][int(targets[at])] -= 1
    n = max(n, 1) if reduction == "mean" else 1
    value = losses if reduction == "none" else losses.sum() / n
    back = (logits, lambda g: gradient * np.asarray(g)[..., None] / n)
    return record(np.asarray(value, logits.dtype), back)


def _selected_rows(logits, targets, ignore_index=-100, reduction="mean"):
    """Only the rows that count are computed; their gradients are scattered into zeros."""
    targets = np.asarray(targets)
    _check(logits.data, targets, ignore_index, reduction)
    counts = targets != ignore_index
    rows, chosen = logits.data[counts], targets[counts].astype(int)
    log_p = log_softmax(rows) if len(rows) else rows
    losses = -log_p[np.arange(len(rows)), chosen]
    n = max(len(rows), 1) if reduction == "mean" else 1
    value = losses.sum(dtype=np.float64) / n
    if reduction == "none":
        value = np.zeros(targets.shape, logits.dtype)
        value[counts] = losses

    def pull_back(g):
        p = np.exp(log_p)
        p[np.arange(len(rows)), chosen] -= 1
        whole = np.zeros(logits.shape, logits.dtype)
        whole[counts] = p * (g[counts][:, None] if reduction == "none" else g) / n
        return whole

    return record(np.asarray(value, logits.dtype), (logits, pull_back))


def _unshifted(rows, chosen, counts):
    """logsumexp(x) - x[target], as the definition reads."""
    return (logsumexp(rows) - np.take_along_axis(rows, chosen, axis=-1)[..., 0]) * counts


def _flat_with_onehot(logits, targets, ignore_index=-100, reduction="mean"):
    """Flatten all tokens, and choose by a product with a matrix of ones and zeros."""
    targets = np.asarray(targets)
    _check(logits.data, targets, ignore_index, reduction)
    counts = (targets != ignore_index).reshape(-1)
    x = np.where(counts[:, None], logits.data.reshape(-1, logits.shape[-1]), 0)
    onehot = np.zeros(x.shape, x.dtype)
    onehot[counts, targets.reshape(-1)[counts].astype(int)] = 1
    losses = -np.einsum("nc,nc->n", log_softmax(x), onehot)
    n = max(counts.sum(), 1) if reduction == "mean" else 1
    value = losses.reshape(targets.shape) if reduction == "none" else losses.sum(dtype=np.float64) / n
    del onehot

    def pull_back(g):
        p = np.exp(log_softmax(x))
        p[counts, targets.reshape(-1)[counts].astype(int)] -= 1
        weights = np.broadcast_to(np.asarray(g), targets.shape).reshape(-1) * counts / n
        return (p * weights[:, None]).reshape(logits.shape)

    return record(np.asarray(value, logits.dtype), (logits, pull_back))


def _mean_of_single_losses(logits, targets, ignore_index=-100, reduction="mean"):
    """One operation for the single losses; the tape adds them up and divides."""
    losses = _selected_rows(logits, targets, ignore_index, "none")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError("unknown reduction")
    if reduction == "none":
        return losses
    n = max(int((np.asarray(targets) != ignore_index).sum()), 1)
    # Divided first: the sum may be beyond float16.
    return (losses / n).sum() if reduction == "mean" else losses.sum()


def _right(logits, targets, ignore_index=-100, reduction="mean"):
    return _selected_rows(logits, targets, ignore_index, reduction)


EQUIVALENTS = {
    "token by token, in Python's numbers": {"cross_entropy": _token_by_token},
    "only the rows that count": {"cross_entropy": _selected_rows},
    "logsumexp minus the target's logit": {"cross_entropy": _one_operation(_unshifted)},
    "flat, with a matrix of ones and zeros": {"cross_entropy": _flat_with_onehot},
    "single losses, added up by the tape": {"cross_entropy": _mean_of_single_losses},
    "log_softmax of numerics": {"cross_entropy": _one_operation(_right_losses)},
}


def _harmless(before, *pairs):
    """Name the mutants of a statement: the text before and after, each with the reason."""
    return {f"{before} => {before.replace(old, new)}": why for old, new, why in pairs}


HARMLESS = {
    **_harmless(
        "chosen = np.where(counts, targets, 0).astype(np.intp)[..., None]",
        ("targets, 0", "targets, -1", "the token does not count, whichever class it has"),
    ),
    **_harmless(
        "losses = (log_sum - np.take_along_axis(z, chosen, axis=-1))[..., 0] * counts",
        (", axis=-1", "", "the default"),
        ("[..., 0]", "[..., -1]", "there is one"),
    ),
    **_harmless(
        "if x.ndim == 0 or x.shape[-1] == 0:",
        ("] == 0", "] == -1", "NumPy refuses the maximum of nothing with a ValueError, too"),
    ),
    **_harmless(
        "rows = np.where(counts[..., None], x, 0)",
        *(("x, 0", each, "the token does not count, whatever its logits") for each in ("x, 1", "x, -1")),
    ),
    "np.put_along_axis(p, chosen, np.take_along_axis(p, chosen, axis=-1) - 1, axis=-1) => "
    "np.put_along_axis(p, chosen, np.take_along_axis(p, chosen) - 1, axis=-1)": "the default",
    **{
        f"cross_entropy: wrong for {text}": "`reduction` is one of three words"
        for text in (
            "text with a byte order mark",
            "text with NUL",
            "text with CRLF",
            "text beyond 255 characters",
            "empty text",
        )
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.normal(size=(2, 4, 3))
    targets = np.array([[0, 2, 1, 2], [1, -100, -100, 2]])
    g = np.array([[1.0, -2.0, 0.5, 3.0], [-1.5, 2.0, 1.0, 0.25]])

    def value(x=x, targets=targets, **options):
        return lambda impl: impl.cross_entropy(Tensor(np.array(x)), np.array(targets), **options).data

    def gradient(x=x, targets=targets, g=1.0, **options):
        def probe(impl):
            leaf = Tensor(np.array(x), requires_grad=True)
            loss = impl.cross_entropy(leaf, np.array(targets), **options)
            if not loss.requires_grad:
                return "no gradient"
            loss.backward(np.array(g))
            return leaf.grad

        return probe

    def dtype(impl):
        return str(impl.cross_entropy(Tensor(x.astype(np.float32)), targets.copy()).dtype)

    def kept_logits(impl):
        given = Tensor(x.copy())
        impl.cross_entropy(given, targets.copy())
        return given.data

    def kept_targets(impl):
        given = targets.copy()
        impl.cross_entropy(Tensor(x.copy()), given)
        return given

    def kept_memory(impl):
        leaf, given = Tensor(np.zeros((64, 256)), requires_grad=True), np.zeros(64, int)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            loss = impl.cross_entropy(leaf, given)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return float(loss.requires_grad and after - before < 2.5 * leaf.data.nbytes)

    padded = np.array([[0.5, -0.5, 1.0], [np.nan, np.inf, 0.0]])
    return {
        "mean": value(),
        "sum": value(reduction="sum"),
        "single losses": value(reduction="none"),
        "mean where all count": value(x[0], targets[0]),
        "gradient of the mean": gradient(),
        "gradient of the sum": gradient(reduction="sum"),
        "gradient of single losses": gradient(g=g, reduction="none"),
        "gradient of the mean where all count": gradient(x[0], targets[0]),
        "gradient of equal logits": gradient(np.ones((2, 3)), [0, 2]),
        "gradient times -3": gradient(x[0], targets[0], g=-3.0),
        "one token": value(x[0, 0], 1),
        "large logits": value(x[0] * 1e4, targets[0]),
        "a gap of 40": value([[0.0, 40.0]], [0]),
        "rows far apart": value([[5000.0, 5001.0], [-5000.0, -5001.0]], [0, 1]),
        "another ignored target": value(targets=np.where(targets < 0, 7, targets), ignore_index=7),
        "an ignored class": value(x[0], targets[0], ignore_index=2),
        "nothing counts": value(targets=np.full((2, 4), -100)),
        "NaN in padding": value(padded, [1, -100]),
        "the target -1": value(x[0], [0, 1, -1, 2]),
        "the target -2": value(x[0], [0, 1, -2, 2]),
        "a target beyond the last class": value(x[0], [0, 1, 3, 2]),
        "one target for four rows": value(x[0], [1]),
        "targets of floats": value(x[0], [0.0, 1.0, 1.5, 2.0]),
        "targets of booleans": value(x[0], [True, False, True, True]),
        "another word": value(reduction="average"),
        "no class": value(np.zeros((2, 0)), [-100, -100]),
        "dtype": dtype,
        "the logits afterwards": kept_logits,
        "the targets afterwards": kept_targets,
        "memory between the passes": kept_memory,
    }
