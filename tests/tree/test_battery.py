"""The battery accepts what is right, and refuses each way in which an answer can be another one."""

import functools
import signal
from types import ModuleType

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.elsewhere import elsewhere

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


def root(x: float) -> float:
    """Return the root of a number that is not negative."""
    if x < 0:
        raise ValueError(f"x must not be negative; got {x}")
    return x**0.5


def test_an_error_that_is_due_is_required():
    assert str(battery.refuses(root, -1.0, says=["negative", "-1.0"])) == "x must not be negative; got -1.0"
    with pytest.raises(battery.MismatchError, match=r"(?s)nothing was raised.*asked: root\(4\.0\).*2\.0"):
        battery.refuses(root, 4.0)
    with pytest.raises(
        battery.MismatchError, match=r"(?s)ValueError expected, TypeError came.*asked: root\('a'\)"
    ):
        battery.refuses(root, "a")
    with pytest.raises(battery.MismatchError, match="must hold 'rounding'"):
        battery.refuses(root, -1.0, says=["negative", "rounding"])


@pytest.fixture
def aimed():
    """Aim at a source; at nothing again afterwards."""
    yield aim.look_at
    aim.look_at("")


def test_numbers_and_texts_of_a_source_are_found(aimed):
    aimed(
        '''"""It is 99 here."""
LIMIT = 2**12
def f(x, n=1000):
    """Not 77."""
    if len(x) > LIMIT or x.dtype == np.float16 or x.dtype == "<i2":
        return x[: 10 * 50] + 1e-3 - (-30.5) + (1 << 70) + 10**-2, "\\u200b", True, 0, 1, 2
'''
    )
    found = [0.001, 0.01, 30.5, 12, 10, 50, 70, 500, 1000, 4096, 32767, 65504, 1 << 70]
    assert sorted(found) == aim.NUMBERS
    assert sorted(aim.TEXTS) == ["<i2", "\u200b"]
    assert aim.whole(3, 100) == [10, 12, 50, 70]
    assert aim.sizes(0, 3, at_most=130) == [0, 3, 10, 11, 12, 13, 23, 27, 50, 51, 70, 71, 103]


@pytest.mark.parametrize("source", ["def f(:", "\0", "x = 1 / 0", "x = 1e400 * 0", "x = 0**-1"])
def test_a_source_without_sense_gives_no_aim(aimed, source):
    aimed(source)
    assert aim.NUMBERS == []


def test_a_power_beyond_all_bounds_is_left_alone(aimed):
    aimed("x = 9**9**9")
    assert aim.NUMBERS == [9, 9**9]


def total(x):
    return x.sum(-1)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("x[:4096]", lambda x: x[..., :4096].sum(-1)),
        ("len(x) > 300", lambda x: x.sum(-1) * (1 if x.shape[-1] <= 300 else 1.001)),
        ("np.int16", lambda x: x[..., :32767].sum(-1)),
        ("x.ndim == 5", lambda x: x.sum(-1) if x.ndim != 5 else x.sum(0)),
        ("abs(x) > 88.5", lambda x: np.clip(x, -88.5, 88.5).sum(-1)),
    ],
)
def test_a_threshold_that_the_source_names_is_found(aimed, source, wrong):
    def cases():
        return battery.cases(np.random.default_rng(0), "... n", largest=1e4)

    aimed("")
    battery.sweep(wrong, total, cases(), magnitude=100)
    aimed(source)
    battery.sweep(total, total, cases(), magnitude=100)
    with pytest.raises(battery.MismatchError):
        battery.sweep(wrong, total, cases(), magnitude=100)


def test_answers_for_earlier_values_and_read_only_results_are_refused():
    kept: dict[int, tuple] = {}

    def by_identity(x):
        if id(x) not in kept:
            kept[id(x)] = x, total(x)
        return np.array(kept[id(x)][1])

    def read_only(x):
        result = np.array(total(x))
        result.flags.writeable = False
        return result

    cases = battery.cases(np.random.default_rng(0), "... n")
    # Where axes may be 0 or 1 long, the smallest cases hold nothing that could be changed.
    for each in (cases, battery.cases(np.random.default_rng(0), "m n k")):
        with pytest.raises(battery.MismatchError, match="old values"):
            battery.sweep(by_identity, total, each)
    with pytest.raises(battery.MismatchError, match="read-only"):
        battery.sweep(read_only, total, cases)


def test_elsewhere_process_machine_and_day_are_others():
    here = ModuleType("here")
    exec(
        "import os, time, socket\nfrom os import getpid as number\nfrom datetime import date\n"
        "def asked():\n    return [os.getpid(), number(), date.today(), socket.gethostname(), hash('a'), "
        "time.strftime('%Y'), time.time() // 1e6, os.environ.get('HOME')]",
        vars(here),
    )
    before = here.asked()
    with elsewhere(here):
        inside = here.asked()
    assert all(one != other for one, other in zip(before, inside, strict=True))
    assert here.asked() == before
