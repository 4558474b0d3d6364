"""Pieces of various lengths, put into rows of one length with little waste."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Assign pieces to rows: the longest first, each to the fullest row that still has room for it.

    Best-fit decreasing needs at most 11/9 of the fewest rows possible (Johnson 1974); among equals, the
    earlier piece and the earlier row come first.

    Parameters
    ----------
    lengths
        Of the pieces; none may exceed the row's.
    row_length
        What fits in a row.

    Returns
    -------
    list of list of int
        For each row, the indices of its pieces.

    >>> best_fit([3, 4, 2, 1], 6)
    [[1, 2], [0, 3]]
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room, row), sorted
    for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[piece]
        assert length <= row_length
        place = bisect_left(free, (length, 0))
        if place < len(free):
            room, row = free.pop(place)
            rows[row].append(piece)
        else:
            room, row = row_length, len(rows)
            rows.append([piece])
        if room > length:
            insort(free, (room - length, row))
    return rows
