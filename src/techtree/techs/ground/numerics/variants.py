"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import hashlib
import math

import numpy as np

from techtree.techs.elsewhere import elsewhere


def _naive_softmax(x, axis=-1):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def _one_maximum_softmax(x, axis=-1):
    e = np.exp(x - np.max(x))
    return e / e.sum(axis=axis, keepdims=True)


def _log_of_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    with np.errstate(divide="ignore"):
        return np.log(e / e.sum(axis=axis, keepdims=True))


def _epsilon_log_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.log(e / e.sum(axis=axis, keepdims=True) + 1e-12)


def _nan_on_empty_sum(x, axis=-1):
    x = np.asarray(x)
    m = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - m).sum(axis=axis)) + m.squeeze(axis)


def _in_place_softmax(x, axis=-1):
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(float)
    x -= x.max(axis=axis, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=axis, keepdims=True)
    return x


def _float64_softmax(x, axis=-1):
    return _two_pass_softmax(np.asarray(x, dtype=np.float64), axis)


def _error(actual, expected, floor, reduce=np.max, size=None, same_shape=True):
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    if same_shape and actual.shape != expected.shape:
        raise ValueError("shapes differ")
    with np.errstate(invalid="ignore"):
        difference = np.abs(actual - expected)
        scale = np.maximum(np.abs(actual), np.abs(expected)) if size is None else size(actual, expected)
        ratio = np.where(actual == expected, 0.0, difference / np.maximum(scale, floor))
    return float(reduce(ratio)) if ratio.size else 0.0


def _nan_is_ignored(actual, expected, floor=1e-8):
    return _error(actual, expected, floor, reduce=np.nanmax)


def _nan_passes(actual, expected, floor=1e-8):
    """NaN > worst is False, so a NaN never becomes the worst."""
    worst = 0.0
    for a, e in zip(np.ravel(actual).tolist(), np.ravel(expected).tolist(), strict=True):
        error = 0.0 if a == e else abs(a - e) / max(abs(a), abs(e), floor)
        if error > worst:
            worst = error
    if np.shape(actual) != np.shape(expected):
        raise ValueError("shapes differ")
    return worst


def _mean_error(actual, expected, floor=1e-8):
    return _guarded(actual, expected, floor, reduce=np.mean)


def _norm_error(actual, expected, floor=1e-8):
    def over_the_whole(a, e):
        return np.full(a.shape, max(np.abs(a).max(), np.abs(e).max()))

    return _guarded(actual, expected, floor, size=over_the_whole)


def _against_expected_only(actual, expected, floor=1e-8):
    return _guarded(actual, expected, floor, size=lambda a, e: np.abs(e))


def _absolute_error(actual, expected, floor=1e-8):
    return _guarded(actual, expected, floor, size=lambda a, e: np.ones(a.shape))


def _broadcasting_error(actual, expected, floor=1e-8):
    return _guarded(actual, expected, floor, same_shape=False)


def _floor_added(actual, expected, floor=1e-8):
    return _guarded(actual, expected, 0.0, size=lambda a, e: np.maximum(np.abs(a), np.abs(e)) + floor)


def _guarded(actual, expected, floor, **options):
    """The right treatment of NaN and infinity around a wrong formula, so that only the formula is wrong."""
    error = _error(actual, expected, floor, **options)
    a, e = np.broadcast_arrays(np.asarray(actual, float), np.asarray(expected, float))
    bad = (a != e) & ~(np.isfinite(a) & np.isfinite(e))
    return math.inf if bad.any() else error


def _integers_as_they_are(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


STREAM = "[len(letters), *letters, seed]"
IMPORTS = "import numpy as np\n"

MISTAKES = {
    "softmax subtracts in the integers that it was given, where 0 - 2 may be 254": {
        "softmax": _integers_as_they_are
    },
    "softmax adds a small number to the sum, so that probabilities do not add up to 1": [
        (
            "exponentials.sum(axis=axis, keepdims=True)\n",
            "(exponentials.sum(axis=axis, keepdims=True) + 1e-6)\n",
        )
    ],
    "softmax divides by the number of logits, not by the sum": [
        (
            "return exponentials / exponentials.sum(axis=axis, keepdims=True)",
            "return exponentials / x.shape[axis]",
        )
    ],
    "logsumexp subtracts one maximum of the whole array": [
        ("m = _finite_max(x, axis)\n    with", "m = 0 * _finite_max(x, axis) + x.max()\n    with")
    ],
    "logsumexp turns float32 into float64": [
        (
            "return np.log(np.exp(x - m).sum(axis=axis))",
            "return np.log(np.exp(x - m).sum(axis=axis, dtype=float))",
        )
    ],
    "logsumexp always works along the last axis": [
        (".sum(axis=axis)) + m.squeeze(axis)", ".sum(axis=-1)) + m.squeeze(axis)")
    ],
    "logsumexp is the mean in place of the sum": [
        ("np.exp(x - m).sum(axis=axis)", "np.exp(x - m).mean(axis=axis)")
    ],
    "log_softmax always works along the last axis": [
        (
            "return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))",
            "return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))",
        )
    ],
    "log_softmax is in base 2": [
        ("return shifted - np.log(np.exp", "return (shifted - np.log(np.exp"),
        (
            "(shifted).sum(axis=axis, keepdims=True))",
            "(shifted).sum(axis=axis, keepdims=True))) / math.log(2)",
        ),
        (IMPORTS, f"import math\n\n{IMPORTS}"),
    ],
    "log_softmax leaves out the logarithm of the sum": [
        ("return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))", "return shifted")
    ],
    "relative_error ignores the floor that it is given": [
        ("np.abs(expected)), floor)", "np.abs(expected)), 1e-8)")
    ],
    "relative_error measures in float32": [
        ("np.asarray(actual, dtype=np.float64)", "np.asarray(actual, dtype=np.float32)"),
    ],
    "relative_error counts equal infinities as different": [
        ("differing = actual != expected", "differing = (actual != expected) | np.isinf(actual)")
    ],
    "relative_error refuses empty arrays": [(", initial=0.0))", "))")],
    "random_stream looks at the first 64 letters of the name only": [
        ("letters = name.encode", "letters = name[:64].encode")
    ],
    "random_stream mixes a checksum of the name, which names share": [
        (STREAM, "[seed, zlib.crc32(letters)]"),
        (IMPORTS, f"import zlib\n\n{IMPORTS}"),
    ],
    "random_stream ignores case": [("letters = name.encode", "letters = name.lower().encode")],
    "random_stream keeps 32 bits of the seed": [(STREAM, "[len(letters), *letters, seed % 2**32]")],
    "random_stream ignores the seed": [(STREAM, "[len(letters), *letters, 0]")],
    "random_stream cuts blanks off the name": [("letters = name.encode", "letters = name.strip().encode")],
    "softmax exponentiates the logits as they are, and overflows above 709 (float32: 88)": {
        "softmax": _naive_softmax
    },
    "softmax subtracts one maximum of the whole array, so that rows of small logits underflow": {
        "softmax": _one_maximum_softmax
    },
    "softmax changes its input in place": {"softmax": _in_place_softmax},
    "softmax turns float32 into float64": {"softmax": _float64_softmax},
    "softmax divides by the sum over everything instead of along the axis": [
        (
            "return exponentials / exponentials.sum(axis=axis, keepdims=True)",
            "return exponentials / exponentials.sum()",
        )
    ],
    "softmax always works along the last axis": [
        ("exponentials.sum(axis=axis, keepdims=True)", "exponentials.sum(axis=-1, keepdims=True)")
    ],
    "logsumexp does not subtract the maximum": [
        ("m = _finite_max(x, axis)\n    with", "m = 0 * _finite_max(x, axis)\n    with")
    ],
    "logsumexp subtracts the maximum and does not add it back": [(" + m.squeeze(axis)", "")],
    "logsumexp keeps the summed axis": [
        ("sum(axis=axis)) + m.squeeze(axis)", "sum(axis=axis, keepdims=True)) + m")
    ],
    "logsumexp of nothing but -inf is NaN": {"logsumexp": _nan_on_empty_sum},
    "log_softmax takes the log of softmax, which underflows to -inf": {"log_softmax": _log_of_softmax},
    "log_softmax adds an epsilon before the log, and so never goes below its log": {
        "log_softmax": _epsilon_log_softmax
    },
    "relative_error lets NaN pass, because NaN is larger than nothing": {"relative_error": _nan_passes},
    "relative_error leaves NaN out (nanmax)": {"relative_error": _nan_is_ignored},
    "relative_error averages, so that one wrong entry in many disappears": {"relative_error": _mean_error},
    "relative_error divides by the largest entry of all, so that small wrong entries disappear": {
        "relative_error": _norm_error
    },
    "relative_error divides by the expected value only, and is not symmetric": {
        "relative_error": _against_expected_only
    },
    "relative_error is an absolute error": {"relative_error": _absolute_error},
    "relative_error broadcasts arrays of different shapes against each other": {
        "relative_error": _broadcasting_error
    },
    "relative_error adds the floor to the size instead of taking the larger": {
        "relative_error": _floor_added
    },
    "random_stream uses hash(), which differs from process to process": [(STREAM, "[seed, abs(hash(name))]")],
    "random_stream ignores the name": [(STREAM, "seed")],
    "random_stream adds up the letters, so that anagrams share a stream": [(STREAM, "[seed, sum(letters)]")],
    "random_stream adds the seed to the name's number, so that neighbouring seeds share streams": [
        (STREAM, "seed + zlib.crc32(letters)"),
        (IMPORTS, f"import zlib\n\n{IMPORTS}"),
        ("letters = name.encode", "letters = name[:1].encode"),
    ],
    "random_stream adds the seed to a digest of the name, so that names share streams at other seeds": [
        (STREAM, "seed + int.from_bytes(hashlib.sha256(letters).digest()[:4], 'big')"),
        (IMPORTS, f"import hashlib\n\n{IMPORTS}"),
    ],
    "random_stream puts the seed first and no length behind, so that a large seed is a name's first letters": [
        (STREAM, "[seed, *letters]")
    ],
    "random_stream looks at the last 64 letters of the name only": [
        ("letters = name.encode", "letters = name[-64:].encode")
    ],
    "random_stream takes no account of the order of the letters": [
        (STREAM, "[len(letters), *sorted(letters), seed]")
    ],
    "random_stream draws from where the last call for the same purpose stopped": [
        ("def random_stream(", "CALLS = []\n\n\ndef random_stream("),
        (
            f"return np.random.default_rng({STREAM})",
            f"CALLS.append((seed, name))\n    rng = np.random.default_rng({STREAM})\n"
            "    rng.random(CALLS.count((seed, name)) - 1)\n    return rng",
        ),
    ],
    "random_stream mixes in the number of the process": [
        (STREAM, "[len(letters), *letters, os.getpid(), seed]"),
        (IMPORTS, f"import os\n\n{IMPORTS}"),
    ],
    "relative_error takes axes of length 1 for none when it compares shapes": [
        ("if actual.shape != expected.shape:", "if actual.squeeze().shape != expected.squeeze().shape:"),
        (
            "differing = actual",
            "actual, expected = actual.squeeze(), expected.squeeze()\n    differing = actual",
        ),
    ],
    "random_stream hands out one shared generator, so that a user moves the next user's numbers": [
        ("def random_stream(", "@__import__('functools').cache\ndef random_stream(")
    ],
}


def _two_pass_softmax(x, axis=-1):
    """Through the logarithm: exp(x - logsumexp(x))."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(float)
    shifted = x - x.max(axis=axis, keepdims=True)
    return np.exp(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def _pairwise_logsumexp(x, axis=-1):
    """Fold log(exp(a) + exp(b)) over the axis, as an online softmax does."""
    x = np.asarray(x)
    x = x if x.dtype.kind == "f" else x.astype(float)

    def add(a, b):
        high, low = np.maximum(a, b), np.minimum(a, b)
        with np.errstate(invalid="ignore"):
            gap = np.where(np.isneginf(low), low, low - high)
        return high + np.log1p(np.exp(gap))

    return np.array(functools.reduce(add, np.moveaxis(x, axis, 0)))


def _looping_error(actual, expected, floor=1e-8):
    if np.shape(actual) != np.shape(expected):
        raise ValueError("the shapes differ")
    errors = [0.0]
    for a, e in zip(np.ravel(actual).tolist(), np.ravel(expected).tolist(), strict=True):
        if a == e:
            continue
        error = abs(a - e) / max(abs(a), abs(e), floor)
        errors.append(error if math.isfinite(error) else math.inf)
    return max(errors)


def _sha_stream(seed, name):
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _spawned_stream(seed, name):
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(*name.encode(), len(name)))
    return np.random.Generator(np.random.Philox(sequence))


EQUIVALENTS = {
    "softmax as exp(x - logsumexp(x))": {"softmax": _two_pass_softmax},
    "log_softmax as x - logsumexp(x)": [
        (
            "return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))",
            "return shifted - np.expand_dims(logsumexp(shifted, axis), axis)",
        )
    ],
    "logsumexp folded pair by pair": {"logsumexp": _pairwise_logsumexp},
    "relative_error in a loop": {"relative_error": _looping_error},
    "random_stream from a SHA-256 digest": {"random_stream": _sha_stream},
    "random_stream spawned by SeedSequence, on another generator": {"random_stream": _spawned_stream},
}


HARMLESS = {
    f"random_stream: wrong for {what}": "other numbers for these names, still the same ones each time"
    for what in (
        "text with a byte order mark",
        "text with NUL",
        "text with CRLF",
        "text beyond 255 characters",
        "empty text",
    )
}
HARMLESS |= {
    "actual, expected = (np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)) => "
    f"actual, expected = ({sides})": "one side in float64 is enough, the other is promoted"
    for sides in (
        "np.asarray(actual), np.asarray(expected, dtype=np.float64)",
        "np.asarray(actual, dtype=np.float64), np.asarray(expected)",
    )
}
"""Mutants that are right versions."""


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    logits = rng.normal(size=(3, 5)) * 3
    apart = np.array([[1000.0, 1001.0], [-1000.0, -999.0]])
    empty = np.array([-np.inf, -np.inf])
    gap = np.array([0.0, -2000.0], dtype=np.float32)
    a, e = np.array([1010.0, 2.0, 1e-9]), np.array([1000.0, 1.0, 0.0])
    holes = np.array([1.0, np.nan, 0.5])

    def survives_another_salt(impl):
        """Whether the stream stays when Python's hash gives other numbers, as it does in another process."""
        names, before = impl.random_stream.__globals__, impl.random_stream(1, "ab").random()
        names["hash"] = lambda _: 1
        try:
            return before == impl.random_stream(1, "ab").random()
        finally:
            del names["hash"]

    def survives_elsewhere(impl):
        before = impl.random_stream(2, "ab").random()
        with elsewhere(impl):
            return before == impl.random_stream(2, "ab").random()

    def repeats_often(impl):
        return len({impl.random_stream(4, "q").random() for _ in range(12)}) == 1

    def untouched(impl):
        x = logits.copy()
        impl.softmax(x)
        return x

    def digest(name):
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")

    def share(first, second):
        return lambda impl: impl.random_stream(*first).random() == impl.random_stream(*second).random()

    return {
        "softmax of rows": lambda impl: impl.softmax(logits),
        "softmax of columns": lambda impl: impl.softmax(logits, axis=0),
        "softmax of rows far apart": lambda impl: impl.softmax(apart),
        "softmax of small integers": lambda impl: impl.softmax(np.array([0, 2], np.uint8)),
        "the input after softmax": untouched,
        "dtype of softmax": lambda impl: str(impl.softmax(gap).dtype),
        "logsumexp of rows": lambda impl: impl.logsumexp(logits),
        "logsumexp of columns": lambda impl: impl.logsumexp(logits, axis=0),
        "logsumexp of rows far apart": lambda impl: impl.logsumexp(apart),
        "logsumexp of -inf": lambda impl: impl.logsumexp(empty),
        "dtype of logsumexp": lambda impl: str(np.asarray(impl.logsumexp(gap)).dtype),
        "log_softmax of columns": lambda impl: impl.log_softmax(logits, axis=0),
        "log_softmax over a gap": lambda impl: impl.log_softmax(gap),
        "relative error": lambda impl: impl.relative_error(a, e),
        "relative error, the other way round": lambda impl: impl.relative_error(e, a),
        "relative error of one entry in three": lambda impl: impl.relative_error(
            [1.0, 4.0, 0.5], [1.0, 4.0, 1.0]
        ),
        "relative error with NaN": lambda impl: impl.relative_error(holes, np.ones(3)),
        "relative error of NaN alone": lambda impl: impl.relative_error([np.nan], [np.nan]),
        "relative error of infinities": lambda impl: impl.relative_error([np.inf, 1.0], [np.inf, 2.0]),
        "relative error at the floor": lambda impl: impl.relative_error([3.0], [4.0], floor=1.0),
        "relative error below the floor": lambda impl: impl.relative_error([0.25], [0.5], floor=1.0),
        "relative error of a small difference": lambda impl: impl.relative_error([1.0 + 1e-9], [1.0]),
        "relative error of nothing": lambda impl: impl.relative_error([], []),
        "relative error of one number against many": lambda impl: impl.relative_error(np.ones(1), np.ones(3)),
        "relative error of other shapes": lambda impl: impl.relative_error(np.ones(2), np.ones((2, 1))),
        "streams repeat": share((1, "ab"), (1, "ab")),
        "streams repeat however often they are asked for": repeats_often,
        "two streams of one purpose are one": lambda impl: (
            impl.random_stream(5, "x").bit_generator is impl.random_stream(5, "x").bit_generator
        ),
        "streams in another process": survives_another_salt,
        "streams of another process's number": survives_elsewhere,
        "streams of seed and letters": share((2**32, ""), (0, "\x01")),
        "streams of equal sums": share((1, "ac"), (1, "bb")),
        "streams of long endings": share((0, "x" + "a" * 64), (0, "y" + "a" * 64)),
        "streams of anagrams": share((1, "ab"), (1, "ba")),
        "streams of seed and name": share((0, "b"), (1, "a")),
        "streams of prefixes": share((0, "a"), (0, "az")),
        "streams of long prefixes": share((0, "a" * 64), (0, "a" * 65)),
        "streams of names with one checksum": share((0, "plumless"), (0, "buckeroo")),
        "streams of other case": share((0, "a"), (0, "A")),
        "streams of equal sums of seed and digest": share((digest("b"), "a"), (digest("a"), "b")),
        "streams of far seeds": share((0, "a"), (2**32, "a")),
        "streams of near seeds": share((0, "a"), (1, "a")),
        "streams of blanks": share((0, "a"), (0, " a ")),
    }
