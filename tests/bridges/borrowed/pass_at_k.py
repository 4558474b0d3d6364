"""SciPy's hypergeometric distribution, behind the exercise's names; what it does not offer stays our own."""

import numpy as np
from scipy.stats import hypergeom

from techtree.techs.assistant.pass_at_k import Problem, evaluate, passes, truncate

__all__ = ["Problem", "estimate", "evaluate", "passes", "truncate"]


def estimate(n, c, k):
    """Draw k of n without putting back, c of which are right: how likely is more than none?"""
    for each in (n, c, k):
        if isinstance(each, bool) or not isinstance(each, int | np.integer):
            raise ValueError("whole numbers, please")
    n, c, k = int(n), int(c), int(k)
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError("0 <= c <= n and 1 <= k <= n, please")
    return float(hypergeom.sf(0, n, c, k))
