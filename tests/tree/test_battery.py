"""The battery accepts what is right, and refuses each way in which an answer can be another one."""

import functools
import signal

import pytest

from techtree.techs import battery

CASES = [battery.Case("", (text,)) for text in ("", "a", "b a", "a b")]


def words(text: str) -> list[str]:
    return text.split()


def test_a_right_version_passes():
    battery.sweep_plain(words, words, CASES)
    battery.sweep_plain(lambda text: [*text.split(" ")] if text else [], words, CASES)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda text: words(text)[:1], "2 parts expected, 1 came"),
        (lambda text: [*reversed(words(text))], "at place 0, expected 'b', got 'a'"),
        (lambda text: tuple(words(text)), "list expected, tuple came"),
        (lambda text: [word.encode() for word in words(text)], "at place 0, str expected, bytes came"),
        (functools.cache(words), "at a second call"),
        (
            lambda text, _calls=[]: words(text) if _calls.append(text) or len(_calls) < 9 else [],
            "after calls",
        ),
    ],
)
def test_a_wrong_version_is_refused(wrong, told):
    with pytest.raises(battery.MismatchError, match=told):
        battery.sweep_plain(wrong, words, CASES)


def test_an_argument_that_is_changed_is_noticed():
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    def emptying(numbers: list[int]) -> int:
        result = sum(numbers)
        numbers[:] = [result]
        return result

    cases = [battery.Case("", ([1, 2],))]
    battery.sweep_plain(total, total, cases)
    with pytest.raises(battery.MismatchError, match="argument was changed"):
        battery.sweep_plain(emptying, total, cases)


def test_truth_is_no_number_and_order_of_keys_counts():
    with pytest.raises(battery.MismatchError, match="int expected, bool came"):
        battery.sweep_plain(lambda _: True, lambda _: 1, CASES)
    with pytest.raises(battery.MismatchError, match="place 0"):
        battery.sweep_plain(lambda _: {"b": 2, "a": 1}, lambda _: {"a": 1, "b": 2}, CASES)


def test_a_sweep_over_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        battery.sweep_plain(words, words, [])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_growth_is_measured_while_a_timer_of_cpu_time_runs():
    """Such a timer stops a test that takes too long; it must not make half a millisecond look like none."""
    before = signal.setitimer(signal.ITIMER_PROF, 60)
    try:
        ratio = battery.growth(lambda n: sum(range(n)), lambda n: n, 20_000, n_runs=3)
    finally:
        signal.setitimer(signal.ITIMER_PROF, *before)
    assert 1 < ratio < 4
