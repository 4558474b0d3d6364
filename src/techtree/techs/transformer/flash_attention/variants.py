"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import itertools
import math

import numpy as np

from techtree.techs import battery
from techtree.techs.autodiff.tensor_autodiff import Tensor, record

_SMALL = "if tile_q < 1 or tile_k < 1:"
_MANY = "if is_causal and n_queries > n_keys:"
_AHEAD = "ahead = n_keys - n_queries  # what even the first query has before it"
_ENDS = "slice(start, min(start + tile_k, n_keys))"
_ROWS = "for first in range(0, n_queries, tile_q)"
_LAST = "for last in [min(first + tile_q, n_queries)]"
_COLUMNS = "for start in range(0, last + ahead if is_causal else n_keys, tile_k)"
_BOOLEAN = "if mask is not None and mask.dtype != bool:"
_FIT = "if q.shape[-1] != k.shape[-1] or v.shape[-2] != n_keys:"
_MASK_FIT = "if np.broadcast_shapes(mask_shape[-2:], (n_queries, n_keys)) != (n_queries, n_keys):"
_WORK = "work = np.result_type(dtype, np.float32)  # sums in float16 would lose digits with each tile"
_EARLY = "tiles(*every)  # raises here if the sizes are no good"
_SCORE = "s = part(q.data, rows) @ part(k.data, columns).swapaxes(-1, -2) * factor"
_POSITION = "position = np.arange(rows.start, rows.stop)[:, None] + n_keys - n_queries"
_CAUSAL = "s = np.where(np.arange(columns.start, columns.stop) <= position, s, -math.inf)"
_SEEN = "return s if seen is None else np.where(seen[..., rows, columns], s, -math.inf)"
_START = "largest = np.full((*scored, n_queries, 1), -math.inf, work)"
_NEW = "new = np.maximum(old, s.max(axis=-1, keepdims=True))"
_KNOWN = "known = np.where(new == -math.inf, 0, new)  # nothing seen so far: any finite number will do"
_TOTAL = "total[..., rows, :] = total[..., rows, :] * shrink + e.sum(axis=-1, keepdims=True)"
_OUT = "out[..., rows, :] = out[..., rows, :] * shrink + e @ part(v.data, columns)"
_DIVIDE = "out /= total"
_CAST = "out = out.astype(dtype, copy=False)"
_LOG_SUM = "log_sum = largest + np.log(total)"
_BLIND = "largest[is_blind] = math.inf  # exp(score - inf) is 0"
_AVERAGE = "average = (g_rows * out[..., rows, :]).sum(axis=-1, keepdims=True)"
_DS = "weights(rows, columns) * (g_rows @ part(v.data, columns).swapaxes(-1, -2) - average) * factor"
_TO_Q = "found[..., rows, :] += of_scores(g, rows, columns) @ part(k.data, columns)"
_TO_K = "found[..., columns, :] += of_scores(g, rows, columns).swapaxes(-1, -2) @ part(q.data, rows)"
_TO_V = "found[..., columns, :] += weights(rows, columns).swapaxes(-1, -2) @ part(g, rows)"
_RECORD = "return record(out, (q, to_q), (k, to_k), (v, to_v))"
_CHECKED = "dtype = np.result_type(q.dtype, k.dtype, v.dtype)"


def _first(*lines):
    """Put lines before the work begins, behind the checks."""
    return [(_CHECKED, "\n    ".join((_CHECKED, *lines)))]


MISTAKES = {
    "tiles leaves out the last keys, where they do not fill a tile": [
        (_COLUMNS, "for start in range(0, (last + ahead if is_causal else n_keys) - tile_k + 1, tile_k)")
    ],
    "tiles leaves out the last queries, where they do not fill a tile": [
        (_ROWS, "for first in range(0, n_queries - tile_q + 1, tile_q)")
    ],
    "tiles reach beyond the last key": [(_ENDS, "slice(start, start + tile_k)")],
    "tiles reach beyond the last query": [
        ("slice(first, last)", "slice(first, first + tile_q)"),
    ],
    "tiles begins with the keys: for the first keys all tiles of queries": [
        (
            _ROWS,
            "for start in range(0, n_keys, tile_k)\n        " + _ROWS,
        ),
        (_COLUMNS, "if not is_causal or start < last + ahead"),
    ],
    "tiles are the same with and without is_causal": [(_COLUMNS, "for start in range(0, n_keys, tile_k)")],
    "tiles for a causal mask begins with the first keys, not with the last": [(_AHEAD, "ahead = 0")],
    "tiles leaves out the tile that only the last of its queries sees a key of": [
        (_COLUMNS, _COLUMNS.replace("last + ahead", "last + ahead - 1"))
    ],
    "tiles keeps one hidden tile more": [(_COLUMNS, _COLUMNS.replace("last + ahead", "last + ahead + 1"))],
    "tiles counts from the first of its queries": [
        (_COLUMNS, _COLUMNS.replace("last + ahead", "first + 1 + ahead"))
    ],
    "the sizes of tiles are exchanged": [
        (_SMALL, f"tile_q, tile_k = tile_k, tile_q\n    {_SMALL}"),
    ],
    "a tile of no keys is a tile of one": [
        (_SMALL, "tile_k = tile_k or 1\n    if tile_q < 1 or tile_k < 1:"),
    ],
    "negative sizes of tiles are taken for their size": [
        (_SMALL, "tile_q, tile_k = abs(tile_q), abs(tile_k)\n    " + _SMALL),
    ],
    "causal with more queries than keys is allowed, the first see nothing": [(_MANY, "if False:")],
    "sizes of tiles are looked at only when there are queries": [
        (_SMALL, "if n_queries and (tile_q < 1 or tile_k < 1):")
    ],
    "a number as a mask counts as true where it is not 0": [
        (_BOOLEAN, "mask = None if mask is None else np.asarray(mask, bool)\n    if False:")
    ],
    "an additive mask is inverted in meaning: 0 hides": [
        (_BOOLEAN, "mask = mask if mask is None or mask.dtype == bool else mask == 0\n    if False:")
    ],
    "queries of width 1 are compared with wider keys": [
        (
            _FIT,
            "if v.shape[-2] != n_keys or min(q.shape[-1], k.shape[-1]) not in (1, max(q.shape[-1], k.shape[-1])):",
        ),
        (
            _SCORE,
            "s = (part(q.data, rows)[..., None, :] * part(k.data, columns)[..., None, :, :]).sum(-1) * factor",
        ),
    ],
    "keys beyond the last value are left out": [
        (
            _FIT,
            "if v.shape[-2] < n_keys:\n        k = k[..., : v.shape[-2], :]\n        return flash_attention(q, k, v, is_causal, mask, tile_q, tile_k)\n    "
            + _FIT,
        )
    ],
    "a mask with more keys than there are is cut": [
        (
            _MASK_FIT,
            "if mask is not None and mask.ndim and mask.shape[-1] > n_keys:\n"
            "        mask = mask[..., :n_keys]\n"
            "        mask_shape = mask.shape\n    " + _MASK_FIT,
        )
    ],
    "scores are not divided by the root of the width": [
        ("factor = 1 / math.sqrt(q.shape[-1])", "factor = 1.0")
    ],
    "scores are divided by the width": [("1 / math.sqrt(q.shape[-1])", "1 / q.shape[-1]")],
    "scores are divided by the root of the width of the values": [
        ("math.sqrt(q.shape[-1])", "math.sqrt(max(v.shape[-1], 1))")
    ],
    "inside a tile the causal mask begins anew": [
        (_POSITION, "position = np.arange(rows.stop - rows.start)[:, None]"),
        (_CAUSAL, "s = np.where(np.arange(columns.stop - columns.start) <= position, s, -math.inf)"),
    ],
    "a tile on the diagonal is seen whole": [
        ("        if is_causal:\n            position", "        if False:\n            position")
    ],
    "no query sees its own position": [(_CAUSAL, _CAUSAL.replace("<=", "<"))],
    "the causal mask begins with the first key inside a tile, not with the last": [
        (_POSITION, _POSITION.replace(" + n_keys - n_queries", ""))
    ],
    "a causal call forgets the mask": [(_SEEN, _SEEN.replace("seen is None", "seen is None or is_causal"))],
    "a call with a mask forgets to be causal": [
        (
            "        if is_causal:\n            position",
            "        if is_causal and seen is None:\n            position",
        ),
    ],
    "the mask says what may not be seen": [
        (_SEEN, _SEEN.replace("seen[..., rows, columns]", "~seen[..., rows, columns]"))
    ],
    "every tile takes the first tile's part of the mask": [
        (_SEEN, _SEEN.replace("rows, columns", ": rows.stop - rows.start, : columns.stop - columns.start"))
    ],
    "of several masks the first counts for all": [
        (
            _SEEN,
            _SEEN.replace("seen[..., rows, columns]", "seen.reshape(-1, *seen.shape[-2:])[0][rows, columns]"),
        )
    ],
    "what is hidden has a score of -1e9": [
        (_CAUSAL, _CAUSAL.replace("-math.inf", "-1e9")),
        (_SEEN, _SEEN.replace("-math.inf", "-1e9")),
    ],
    "what is hidden has a score of -10": [
        (_CAUSAL, _CAUSAL.replace("-math.inf", "-10.0")),
        (_SEEN, _SEEN.replace("-math.inf", "-10.0")),
    ],
    "a tile of which a query sees nothing makes NaN of it": [(_KNOWN, "known = new")],
    "the largest score so far begins at 0: low scores vanish": [
        (_START, _START.replace("-math.inf", "0.0")),
    ],
    "nothing is subtracted: large scores overflow": [(_NEW, "new = np.zeros_like(old)")],
    "the largest score is that of the tile": [(_NEW, "new = s.max(axis=-1, keepdims=True)")],
    "one largest score serves all queries of a tile": [
        (_NEW, "new = np.maximum(old, s.max(initial=-math.inf))"),
    ],
    "the sum is not made smaller when a larger score comes": [(_TOTAL, _TOTAL.replace(" * shrink", ""))],
    "the answer is not made smaller when a larger score comes": [(_OUT, _OUT.replace(" * shrink", ""))],
    "the factor is the wrong way round": [
        ("np.exp(old - known)", "np.exp(np.where(old == -math.inf, old, known - old))")
    ],
    "the sum is that of the last tile": [(_TOTAL, "total[..., rows, :] = e.sum(axis=-1, keepdims=True)")],
    "each tile divides by the sum so far": [
        (
            _OUT,
            _OUT + "\n        out[..., rows, :] /= np.where(total[..., rows, :] > 0, total[..., rows, :], 1)",
        ),
        (_DIVIDE, "pass"),
    ],
    "the answer is not divided by the sum": [(_DIVIDE, "pass")],
    "every tile counts as much as every other: the softmax of each, averaged": [
        (_NEW, "new = np.zeros_like(old)"),
        (
            _TOTAL,
            "e = np.exp(s - s.max(axis=-1, keepdims=True, initial=-1e300))\n        e /= np.maximum(e.sum(axis=-1, keepdims=True), 1e-300)\n        shrink = 1\n        "
            + _TOTAL,
        ),
    ],
    "a query that sees nothing gets the average of all values": [
        (
            _CAST,
            _CAST
            + "\n    blind = out + 0 * is_blind\n    out = np.where(is_blind, v.data.mean(axis=-2, keepdims=True), blind).astype(dtype)",
        )
    ],
    "float32 becomes float64": [(_CAST, "dtype = work"), (_WORK, "work = np.dtype(np.float64)")],
    "the dtype is that of the queries": [(_CHECKED, "dtype = q.dtype")],
    "the answer has no gradient": [(_RECORD, "return Tensor(out)")],
    "no gradient reaches the queries": [(_RECORD, "return record(out, (k, to_k), (v, to_v))")],
    "no gradient reaches the keys": [(_RECORD, "return record(out, (q, to_q), (v, to_v))")],
    "no gradient reaches the values": [(_RECORD, "return record(out, (q, to_q), (k, to_k))")],
    "the gradients of keys and queries lack the factor": [(_DS, _DS.replace(" * factor", ""))],
    "the gradient of the keys lacks the factor": [(_TO_K, _TO_K + " / factor")],
    "backward forgets that the weights sum to 1": [(_DS, _DS.replace(" - average", ""))],
    "backward takes the sum of p * dp over one tile for that over all": [
        (
            _AVERAGE,
            "average = (weights(rows, columns) * (g_rows @ part(v.data, columns).swapaxes(-1, -2))).sum(axis=-1, keepdims=True)",
        )
    ],
    "backward has weights that are not divided by their sum": [(_LOG_SUM, "log_sum = largest")],
    "backward forgets the largest score": [
        (_LOG_SUM, "log_sum = np.log(total) + np.where(is_blind, math.inf, 0)")
    ],
    "backward of a query that sees nothing is NaN": [(_BLIND, "pass")],
    "each tile of keys overwrites the gradient of the queries": [(_TO_Q, _TO_Q.replace("+=", "="))],
    "each tile of queries overwrites the gradient of the keys": [(_TO_K, _TO_K.replace("+=", "="))],
    "each tile of queries overwrites the gradient of the values": [(_TO_V, _TO_V.replace("+=", "="))],
    "the gradient of the values forgets the gradient of the result": [
        (_TO_V, _TO_V.replace("part(g, rows)", "np.ones_like(part(g, rows))"))
    ],
    "forward looks at hidden tiles": [
        (
            "for rows, columns in tiles(*every):\n        s = ",
            "for rows, columns in tiles(n_queries, n_keys, False, tile_q, tile_k):\n        s = ",
        )
    ],
    "backward looks at hidden tiles for the queries": [
        (
            "for rows, columns in tiles(*every):\n            " + _TO_Q,
            "for rows, columns in tiles(n_queries, n_keys, False, tile_q, tile_k):\n            " + _TO_Q,
        )
    ],
    "backward looks at hidden tiles for the keys": [
        (
            "for rows, columns in tiles(*every):\n            " + _TO_K,
            "for rows, columns in tiles(n_queries, n_keys, False, tile_q, tile_k):\n            " + _TO_K,
        )
    ],
    "all scores are computed at once": _first(
        "tile_q, tile_k = max(1, n_queries), max(1, n_keys)",
        "every = n_queries, n_keys, is_causal, tile_q, tile_k",
    ),
    "all queries of a tile of keys are computed at once": _first(
        "tile_q = max(1, n_queries)", "every = n_queries, n_keys, is_causal, tile_q, tile_k"
    ),
    "tiles are always of 64 and 64": _first("every = n_queries, n_keys, is_causal, 64, 64"),
    "the whole causal mask is made first": [
        (_WORK, _WORK + "\n    everything = np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool)"),
        (_CAUSAL, "s = np.where(everything[rows, columns], s, -math.inf)"),
    ],
    "all weights are kept for the backward pass": [
        (
            _RECORD,
            "kept = [weights(rows, columns) for rows, columns in tiles(*every)]\n    result = "
            + _RECORD[7:]
            + "\n    result.weights = kept\n    return result",
        )
    ],
    "queries are scaled in place": [
        (_WORK, _WORK + "\n    q.data[...] *= 1 / math.sqrt(q.shape[-1])\n    factor = 1.0"),
        ("    factor = 1 / math.sqrt(q.shape[-1])\n\n", "\n"),
    ],
    "results are remembered by shape": [
        ("def flash_attention(", "_known = {}\n\n\ndef flash_attention("),
        (
            _RECORD,
            "return _known.setdefault((q.shape, k.shape, v.shape, is_causal, mask is None, tile_q, tile_k), "
            + _RECORD[7:]
            + ")",
        ),
    ],
}


def _ready(q, k, v, is_causal, mask, tile_q, tile_k):
    """The documented refusals; returns a function of rows and columns that says what may be seen."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if min(tile_q, tile_k) < 1 or (is_causal and n_queries > n_keys):
        raise ValueError("sizes")
    if q.shape[-1] != k.shape[-1] or n_keys != v.shape[-2]:
        raise ValueError("shapes")
    if mask is not None:
        if mask.dtype != bool or np.broadcast_shapes((n_queries, n_keys), mask.shape[-2:]) != (
            n_queries,
            n_keys,
        ):
            raise ValueError("mask")
        mask = np.broadcast_to(mask, np.broadcast_shapes(mask.shape, (n_queries, n_keys)))
    np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2], () if mask is None else mask.shape[:-2])

    def seen(rows, columns):
        whole = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        if is_causal:
            distance = rows.start + n_keys - n_queries - columns.start
            whole = np.tri(*whole.shape, distance, dtype=bool)
        return whole if mask is None else whole & mask[..., rows, columns]

    return seen


def _parts(length, size):
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _list_of_tiles(n_queries, n_keys, is_causal=False, tile_q=64, tile_k=64):
    """Look at the corner of each tile: its last query and its first key."""
    if not (tile_q >= 1 and tile_k >= 1) or (is_causal and n_keys < n_queries):
        raise ValueError("sizes")
    pairs = itertools.product(_parts(n_queries, tile_q), _parts(n_keys, tile_k))
    return iter([(a, b) for a, b in pairs if not is_causal or b.start - n_keys <= a.stop - 1 - n_queries])


def _two_passes(q, k, v, is_causal=False, mask=None, tile_q=64, tile_k=64):
    """All in float64: first the logarithms of the sums, by logaddexp; then the answer, one edge for all three."""
    seen = _ready(q, k, v, is_causal, mask, tile_q, tile_k)
    n_queries, n_keys, factor = q.shape[-2], k.shape[-2], q.shape[-1] ** -0.5

    def found():
        for rows in _parts(n_queries, tile_q):
            for columns in _parts(n_keys, tile_k):
                if is_causal and columns.start > rows.stop - 1 + n_keys - n_queries:
                    break
                a, b = (x.data[..., part, :].astype(float) for x, part in ((q, rows), (k, columns)))
                yield rows, columns, np.where(seen(rows, columns), a @ b.swapaxes(-1, -2) * factor, -np.inf)

    scored = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], () if mask is None else mask.shape[:-2])
    log_sum = np.full((*scored, n_queries, 1), -np.inf)
    for rows, _, s in found():
        both = np.logaddexp.reduce(s, axis=-1, keepdims=True)
        log_sum[..., rows, :] = np.logaddexp(log_sum[..., rows, :], both)
    log_sum[log_sum == -np.inf] = np.inf
    leading = np.broadcast_shapes(scored, v.shape[:-2])
    out = np.zeros((*leading, n_queries, v.shape[-1]))
    for rows, columns, s in found():
        out[..., rows, :] += np.exp(s - log_sum[..., rows, :]) @ v.data[..., columns, :]
    dtype = np.result_type(q.dtype, k.dtype, v.dtype)

    def gradient(of):
        def pull_back(g):
            shape = (q, k, v)[of].shape[-2:]
            total = np.zeros((*leading, *shape))
            for rows, columns, s in found():
                p, g_rows = np.exp(s - log_sum[..., rows, :]), g[..., rows, :].astype(float)
                if of == 2:
                    total[..., columns, :] += p.swapaxes(-1, -2) @ g_rows
                    continue
                mean = (g_rows * out[..., rows, :]).sum(-1, keepdims=True)
                dp = g_rows @ v.data[..., columns, :].swapaxes(-1, -2)
                ds = np.where(p > 0, p * (dp - mean), 0) * factor
                if of == 0:
                    total[..., rows, :] += ds @ k.data[..., columns, :]
                else:
                    total[..., columns, :] += ds.swapaxes(-1, -2) @ q.data[..., rows, :]
            return total

        return pull_back

    return record(out.astype(dtype), *((x, gradient(n)) for n, x in enumerate((q, k, v))))


def _head_by_head(q, k, v, is_causal=False, mask=None, tile_q=64, tile_k=64):
    """One sample and head after the other; the largest score and the sum kept apart, not as a logarithm."""
    _ready(q, k, v, is_causal, mask, tile_q, tile_k)
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    leading = np.broadcast_shapes(
        q.shape[:-2], k.shape[:-2], v.shape[:-2], () if mask is None else mask.shape[:-2]
    )
    dtype = np.result_type(q.dtype, k.dtype, v.dtype)
    a, b, c = (np.broadcast_to(x.data, (*leading, *x.shape[-2:])) for x in (q, k, v))
    every = None if mask is None else np.broadcast_to(mask, (*leading, n_queries, n_keys))
    root = math.sqrt(q.shape[-1])
    out = np.zeros((*leading, n_queries, v.shape[-1]), dtype)
    top, total = np.zeros((*leading, n_queries)), np.ones((*leading, n_queries))

    def parts(head):
        for rows in _parts(n_queries, tile_q):
            limit = n_keys if not is_causal else rows.stop + n_keys - n_queries
            for columns in _parts(n_keys, tile_k):
                if columns.start < limit:
                    yield rows, columns

    def scores(head, rows, columns):
        s = einsum_of(a[head][rows].astype(float), b[head][columns].astype(float)) / root
        hidden = np.zeros(s.shape, bool) if every is None else ~every[head][rows, columns]
        if is_causal:
            where_q, where_k = np.ogrid[rows, columns]
            hidden = hidden | (where_q - n_queries < where_k - n_keys)
        s[hidden] = -np.inf
        return s

    def einsum_of(x, y):
        return np.dot(x, y.T)

    for head in np.ndindex(leading):
        answer = np.zeros((n_queries, v.shape[-1]))
        m, t = np.full(n_queries, -np.inf), np.zeros(n_queries)
        for rows, columns in parts(head):
            s = scores(head, rows, columns)
            most = np.maximum(m[rows], s.max(axis=1))
            finite = np.isfinite(most)
            safe = np.where(finite, most, 0.0)
            old = np.exp(m[rows] - safe)
            e = np.exp(s - safe[:, None])
            t[rows] = t[rows] * old + e.sum(axis=1)
            answer[rows] = answer[rows] * old[:, None] + e @ c[head][columns].astype(float)
            m[rows] = most
        t[t == 0] = np.inf
        top[head], total[head] = np.where(np.isfinite(m), m, 0), t
        out[head] = answer / t[:, None]

    def gradient(of):
        def pull_back(g):
            x = (a, b, c)[of]
            found = np.zeros(x.shape, np.result_type(dtype, np.float32))
            for head in np.ndindex(leading):
                for rows, columns in parts(head):
                    p = np.exp(scores(head, rows, columns) - top[head][rows, None]) / total[head][rows, None]
                    up = g[head][rows].astype(float)
                    if of == 2:
                        found[head][columns] += p.T @ up
                        continue
                    mean = (up * out[head][rows]).sum(axis=1)[:, None]
                    ds = p * (up @ c[head][columns].T.astype(float) - mean) / root
                    if of == 0:
                        found[head][rows] += ds @ b[head][columns]
                    else:
                        found[head][columns] += ds.T @ a[head][rows]
            return found

        return pull_back

    return record(out, *((x, gradient(n)) for n, x in enumerate((q, k, v))))


_KEPT_APART = [
    (_LOG_SUM, "log_sum = (largest, total)"),
    (
        "return np.exp(scores(rows, columns) - log_sum[..., rows, :])",
        "return np.exp(scores(rows, columns) - log_sum[0][..., rows, :]) / log_sum[1][..., rows, :]",
    ),
    ("    del largest, total\n", ""),
]

EQUIVALENTS = {
    "tiles as a list, by their corners": {"tiles": _list_of_tiles},
    "flash_attention in two passes over the tiles, all in float64": {"flash_attention": _two_passes},
    "flash_attention one head after the other": {"flash_attention": _head_by_head},
    "largest score and sum are kept apart": _KEPT_APART,
    "the factor is given to the queries, and the sums are in float64": [
        (_WORK, "work = np.dtype(np.float64)"),
        (_SCORE, "s = (part(q.data, rows) * factor) @ part(k.data, columns).swapaxes(-1, -2)"),
    ],
    "the answer is divided in every tile and multiplied again in the next": [
        (_TOTAL, "before = total[..., rows, :] * shrink\n        " + _TOTAL),
        (
            _OUT,
            "now = total[..., rows, :]\n"
            "        now = np.where(now > 0, now, 1)\n"
            "        out[..., rows, :] = out[..., rows, :] * (before / now) + (e / now) @ part(v.data, columns)",
        ),
        (_DIVIDE, "pass"),
    ],
    "tiles that a mask hides are left out, too": [
        (
            "        s = scores(rows, columns)\n        old",
            "        if seen is not None and not seen[..., rows, columns].any():\n            continue\n        s = scores(rows, columns)\n        old",
        ),
    ],
}

_ORDER = "what is combined does not depend on the order"
_REFUSED = "NumPy refuses to broadcast it, in other words"
_SCORED = "scored = np.broadcast_shapes({}, mask_shape[:-2])"
_LEADING = "leading = np.broadcast_shapes({})"
_TYPE = "dtype = np.result_type({}, v.dtype)"
_IF_MASK = "if np.broadcast_shapes({}) != (n_queries, n_keys):"
_PART = "return x[..., rows, :].astype(work{})"
_KNOWN_IS = "known = np.where(new == -math.inf, {}, new)"
_OUT_IS = "out = out.astype(dtype{})"
_Q, _K, _NUMBERS = "q.shape[:-2]", "k.shape[:-2]", "(n_queries, n_keys)"
HARMLESS = {
    "if tile_q < 1 or tile_k < 1: => if tile_q < 0 or tile_k < 1:": "range refuses a step of 0 at the call",
    "tiles(*every) => pass": "the first pass over the tiles raises the same, a few lines later",
    f"{_SCORED.format(f'{_Q}, {_K}')} => {_SCORED.format(f'{_K}, {_Q}')}": _ORDER,
    f"{_LEADING.format('scored, v.shape[:-2]')} => {_LEADING.format('v.shape[:-2], scored')}": _ORDER,
    f"{_TYPE.format('q.dtype, k.dtype')} => {_TYPE.format('k.dtype, q.dtype')}": _ORDER,
    "work = np.result_type(dtype, np.float32) => work = np.result_type(np.float32, dtype)": _ORDER,
    f"{_IF_MASK.format(f'mask_shape[-2:], {_NUMBERS}')} => if False:": _REFUSED,
    **{
        f"{_IF_MASK.format(f'mask_shape[-2:], {_NUMBERS}')} => {_IF_MASK.format(other)}": _REFUSED
        for other in (f"{_NUMBERS}, mask_shape[-2:]", f"mask_shape[-1:], {_NUMBERS}")
    },
    "raise ValueError(f'a mask must broadcast to {(n_queries, n_keys)}; got {mask_shape}') => pass": _REFUSED,
    "total[is_blind] = 1 => total[is_blind] = 2": "what is divided by it is 0",
    "del largest, total => pass": "no function below refers to them, so nothing keeps them",
    **{
        f"{each.format(', copy=False')} => {each.format(other)}": "one more copy of what is thrown away"
        for each, other in itertools.product((_PART, _OUT_IS), ("", ", copy=True"))
    },
    **{
        f"{_KNOWN_IS.format(0)} => {_KNOWN_IS.format(number)}": "exp(-inf - 1) is 0 as well"
        for number in (1, -1)
    },
    "tiles: right at the first call only": "an iterator is handed on as it is",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    q, k, v = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 2))
    masks = {
        "a mask": np.array(
            [[1, 0, 0, 1, 0], [1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [1, 1, 0, 1, 1], [0, 0, 1, 1, 0]]
        )
        > 0,
        "a blind query": np.arange(5)[:, None] != np.array([2]),
        "late keys only": np.broadcast_to(np.arange(5) > 2, (5, 5)),
        "two masks": np.array([np.tri(5) > 0, np.tri(5).T > 0]),
    }
    weight = np.cos(np.arange(20.0)).reshape(2, 5, 2)

    def answer(*arrays, dtypes=(np.float64,) * 3, **options):
        return lambda impl: (
            impl.flash_attention(
                *(Tensor(x.astype(t)) for x, t in zip(arrays, dtypes, strict=True)), **options
            ).data
        )

    def gradients(*arrays, g=weight, see=slice(None), **options):
        def probe(impl):
            leaves = [Tensor(x.copy(), requires_grad=True) for x in arrays]
            out = impl.flash_attention(*leaves, **options)
            if not out.requires_grad:
                return "no gradient"
            out.backward(np.resize(g, out.shape))
            return [float("nan") if x.grad is None else float(np.sin(x.grad[see] + 1).sum()) for x in leaves]

        return probe

    def named(*arguments, **options):
        def probe(impl):
            found = itertools.islice(impl.tiles(*arguments, **options), 50)
            return [float(n) for a, b in found for n in (a.start, a.stop, b.start, b.stop)]

        return probe

    def refused(call):
        def probe(impl):
            try:
                return np.asarray(getattr(call(impl), "data", 0.0))
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__

        return probe

    def memory(tile_q, tile_k):
        def probe(impl):
            three = [Tensor(np.zeros((400, 1)), requires_grad=True) for _ in range(3)]
            most = battery.peak_bytes(lambda: impl.flash_attention(*three, True, None, tile_q, tile_k))
            return [most > 140_000, most > 1_000_000]

        return probe

    def kept(impl):
        three = [Tensor(np.zeros((300, 1)), requires_grad=True) for _ in range(3)]
        held = []
        battery.peak_bytes(lambda: held.append(impl.flash_attention(*three, False, None, 100, 100)))
        return (
            sum(each.nbytes for kind in vars(held[0]).values() if isinstance(kind, list) for each in kind)
            > 100_000
        )

    def poisoned(place, where_, see, g=weight):
        def probe(impl):
            three = [q.copy(), k.copy(), v.copy()]
            three[place][:, where_] = np.nan
            leaves = [Tensor(x, requires_grad=True) for x in three]
            out = impl.flash_attention(*leaves, True, None, 2, 2)
            if not out.requires_grad:
                return "no gradient"
            out.backward(g)
            found = (
                [out.data[:, :2], leaves[0].grad[:, :2]]
                if see == "queries"
                else [leaves[1].grad[:, 4:]]
                if leaves[1].grad is not None
                else ["none"]
            )
            return [bool(np.isfinite(each).all()) for each in found]

        return probe

    def unchanged(impl):
        one = q.copy()
        impl.flash_attention(Tensor(one), Tensor(k.copy()), Tensor(v.copy()))
        return float(np.abs(one - q).max())

    def twice(impl):
        for _ in range(2):
            found = impl.flash_attention(Tensor(q.copy()), Tensor(k.copy()), Tensor(v.copy()), tile_k=2)
            q[...], k[...] = k.copy(), q.copy()
        return found.data

    small = {"tile_q": 2, "tile_k": 2}
    line = np.array([[0.0], [1.0], [60.0], [-60.0], [61.0]])
    one = np.ones((5, 1))
    return {
        "one tile": answer(q, k, v),
        "tiles of 2 and 2": answer(q, k, v, **small),
        "causal": answer(q, k, v, is_causal=True),
        "causal, tiles of 2 and 2": answer(q, k, v, is_causal=True, **small),
        "causal, two queries": answer(q[:, :2], k, v, is_causal=True, tile_q=1, tile_k=2),
        **{
            f"{name}, {c}": answer(q, k, v, mask=mask, is_causal=c, **small)
            for name, mask in masks.items()
            for c in (False, True)
        },
        "rising scores": answer(one, line[[0, 1, 2, 4, 4]], v[0], tile_k=1),
        "falling scores": answer(one, line[::-1], v[0], tile_k=1),
        "low scores": answer(one, line - 2000, v[0], tile_k=2),
        "high scores": answer(one, line + 2000, v[0], tile_k=2),
        "queries far apart": answer(np.array([[-1.0], [1], [0], [1], [1]]), line * 30, v[0], **small),
        "gradients": gradients(q, k, v, **small),
        "gradients of one tile": gradients(q, k, v),
        "gradients, causal": gradients(q, k, v, is_causal=True, **small),
        "gradients, a blind query": gradients(
            q, k, v, mask=masks["a blind query"] & masks["a mask"] & (np.arange(5) != 1)[:, None], **small
        ),
        "dtype": lambda impl: str(answer(q, k, v, dtypes=(np.float32,) * 3)(impl).dtype),
        "dtype of a mixture": lambda impl: str(
            answer(q, k, v, dtypes=(np.float32, np.float64, np.float32))(impl).dtype
        ),
        "tiles": named(3, 5, False, 2, 2),
        "tiles, causal": named(3, 5, True, 2, 2),
        "tiles, causal, squares": named(5, 5, True, 2, 2),
        "tiles of 3 and 2": named(4, 6, True, 3, 2),
        "tiles of 1 and 3": named(5, 7, False, tile_q=1, tile_k=3),
        "tiles of no keys": refused(lambda impl: list(impl.tiles(2, 2, False, 1, 0))),
        "tiles of no queries": refused(lambda impl: list(impl.tiles(2, 2, False, 0, 1))),
        "tiles of -1 keys": refused(lambda impl: list(impl.tiles(2, 2, False, 1, -1))),
        "tiles of -1 for no queries": refused(lambda impl: list(impl.tiles(0, 2, False, -1, 1))),
        "more queries than keys": refused(lambda impl: list(impl.tiles(3, 2, True))),
        "a mask of numbers": refused(lambda impl: answer(q, k, v, mask=masks["a mask"].astype(float))(impl)),
        "an additive mask": refused(
            lambda impl: answer(q, k, v, mask=np.where(masks["a mask"], 0, -np.inf))(impl)
        ),
        "narrow queries": refused(lambda impl: answer(q[..., :1], k, v)(impl)),
        "few values": refused(lambda impl: answer(q, k, v[:, :3])(impl)),
        "a wide mask": refused(lambda impl: answer(q, k, v, mask=np.ones((5, 6), bool))(impl)),
        "memory": memory(40, 40),
        "memory of low tiles": memory(10, 160),
        "memory of narrow tiles": memory(160, 10),
        "what is kept": kept,
        "NaN in late keys": poisoned(1, slice(4, 5), "queries"),
        "NaN in late values": poisoned(2, slice(4, 5), "queries"),
        "NaN in early queries": poisoned(0, slice(0, 2), "keys"),
        "the arguments afterwards": unchanged,
        "again": twice,
    }
