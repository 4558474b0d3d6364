"""Best fit against its slow definition."""

from hypothesis import given
from hypothesis import strategies as st

from techtree.lm.data.packing import best_fit

LENGTHS = st.lists(st.integers(1, 20), max_size=60)


def slow_best_fit(lengths: list[int], row_length: int) -> list[list[int]]:
    """Look at all rows for every piece."""
    rows: list[list[int]] = []
    for piece in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        room = [row_length - sum(lengths[i] for i in row) for row in rows]
        fits = [(free, i) for i, free in enumerate(room) if free >= lengths[piece]]
        if fits:
            rows[min(fits)[1]].append(piece)
        else:
            rows.append([piece])
    return rows


@given(LENGTHS, st.integers(20, 40))
def test_equals_the_slow_definition(lengths, row_length):
    assert best_fit(lengths, row_length) == slow_best_fit(lengths, row_length)


@given(LENGTHS)
def test_every_piece_is_in_one_row_and_fits(lengths):
    rows = best_fit(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)


def test_full_rows_are_alone():
    assert best_fit([8, 3, 8, 5], 8) == [[0], [2], [3, 1]]
