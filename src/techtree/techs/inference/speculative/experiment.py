"""How many tokens a call gives, by draft and length; what drafting costs; and that nothing else changes."""

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import no_grad
from techtree.techs.ground.numerics import softmax
from techtree.techs.inference.kv_cache import generate_cached
from techtree.techs.inference.sampling import Sampling, draw
from techtree.techs.inference.speculative import (
    ModelDraft,
    acceptance,
    generate_speculative,
    prompt_lookup,
    tokens_per_call,
    verify,
)
from techtree.techs.text.pretokenize import split
from techtree.techs.text.pretokenize.experiment import standard_library
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.llama_block.experiment import LENGTH, N_CHARACTERS, texts, train

LARGE = LlamaConfig(N_CHARACTERS, width=32, hidden=80, n_layers=2, n_heads=4, n_kv_heads=2)
SMALL = LlamaConfig(N_CHARACTERS, width=12, hidden=16, n_layers=1, n_heads=2, n_kv_heads=1)
PLAIN = Sampling(1.0, 0, 1.0, 0.0)
DRAFTED = (1, 2, 4, 8, 16)
TEMPERATURES = (0.1, 0.3, 0.5, 0.8, 1.0, 1.3)
RULES = ("kept by p and q", "the likeliest of q, compared", "drawn from q, compared")
N_PIECES = 500
"""Of a file, how many words and signs are the prompt, and as many are written."""


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Let models write with drafts and count their calls; measure rates, frequencies, and lookups in files.

    Parameters
    ----------
    rng
        Draws seeds, files, places and tokens.
    scale
        Below 1: one pair of models in place of three, less training, shorter texts.

    Returns
    -------
    dict
        Ready for JSON; lists have an entry for each pair of models, or each file.
    """
    is_full = scale == 1
    drafted = DRAFTED[:4] if is_full else (2, 8)
    seen, unseen = texts()
    found: dict = {"drafted": drafted, "rates": {}, "tokens": [], "formula": [], "same": [], "weights": 0.0}
    for seed in rng.integers(2**32, size=3 if is_full else 1):
        own = np.random.default_rng(seed)
        models = [Llama(each, own, dtype=np.float32) for each in (LARGE, SMALL)]
        for model in models:
            train(model, seen, own, 300 if is_full else 25)
        large, small = models
        n_weights = [sum(p.data.size for p in model.parameters()) for model in models]
        found["weights"] = n_weights[1] / n_weights[0]
        rates = _rates(large, small, unseen, 60 if is_full else 6)
        for temperature, of in rates.items():
            for rule, rate in of.items():
                found["rates"].setdefault(temperature, {}).setdefault(rule, []).append(rate)
        n_new = 160 if is_full else 30
        found["tokens"].append([_written(large, small, unseen[:20], n_new, n, own) for n in drafted])
        rate = rates["1.0"][RULES[0]]
        found["formula"].append([tokens_per_call(rate, n) for n in drafted])
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        ways = (
            generate_cached(large, unseen[:40].tolist(), 40, PLAIN, one),
            generate_speculative(large, unseen[:40].tolist(), 40, PLAIN, other, prompt_lookup, 4),
        )
        found["same"].append([*ways[0]] == [*ways[1]] and one.random() == other.random())
    found["lookup"] = _lookups(rng, *((3, N_PIECES, DRAFTED) if is_full else (1, 200, (4, 16))))
    found["off"] = _frequencies(rng, 20_000 if is_full else 1_500)
    return found


def _rates(large: Llama, small: Llama, ids: np.ndarray, n_windows: int) -> dict[str, dict[str, float]]:
    """Measure on real text how often a drafted token is kept, by temperature and rule."""
    starts = np.linspace(0, len(ids) - LENGTH, n_windows).astype(int)
    rows = ids[starts[:, None] + np.arange(LENGTH)]
    with no_grad():
        logits = [model(rows).data.astype(np.float64).reshape(-1, N_CHARACTERS) for model in (large, small)]
    found = {}
    for temperature in TEMPERATURES:
        p, q = (softmax(each / temperature) for each in logits)
        likeliest = p[np.arange(len(p)), q.argmax(axis=-1)]
        rates = (acceptance(p, q).mean(), likeliest.mean(), (p * q).sum(axis=-1).mean())
        found[str(temperature)] = dict(zip(RULES, map(float, rates), strict=True))
    return found


def _written(
    large: Llama, small: Llama, ids: np.ndarray, n_new: int, n_draft: int, rng: np.random.Generator
) -> float:
    """Write a text; return how many tokens there were for each call of the large model."""
    n_rounds = 0
    model = ModelDraft(small, PLAIN, len(ids) + n_new)

    def draft(text, n_most, rng):
        nonlocal n_rounds
        n_rounds += 1
        return model(text, n_most, rng)

    text = list(generate_speculative(large, ids.tolist(), n_new, PLAIN, rng, draft, n_draft))
    return len(text) / n_rounds


def _lookups(rng: np.random.Generator, n_files: int, n_pieces: int, drafted: tuple[int, ...]) -> dict:
    """Let a file be written as it is: its second half, or its first again with one name changed.

    A model that would write exactly this is taken for granted; a draft is right where the file goes on so.
    """
    files = [text for text in standard_library() if len(text) > 12_000]
    found: dict = {"new text": [], "an edit": []}
    for number in rng.choice(len(files), size=n_files, replace=False):
        pieces = split(files[number][:12_000])[: 2 * n_pieces]
        known = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
        ids = [known[piece] for piece in pieces]
        prompt, later = ids[:n_pieces], ids[n_pieces:]
        names = [each for each in prompt if pieces[ids.index(each)].strip().isidentifier()]
        name = max(set(names), key=names.count)
        edited = [len(known) if each == name else each for each in prompt]
        for kind, written in (("new text", later), ("an edit", edited)):
            found[kind].append([len(written) / _n_calls(prompt, written, n) for n in drafted])
    return found


def _n_calls(prompt: list[int], written: list[int], n_draft: int) -> int:
    """Count the calls until a text is written, if drafts come from `prompt_lookup`."""
    place, n_calls = 0, 0
    while place < len(written):
        guess, _ = prompt_lookup([*prompt, *written[:place]], n_draft)
        right = [one == other for one, other in zip(guess, written[place:], strict=False)]
        place += (right.index(False) if False in right else len(right)) + 1
        n_calls += 1
    return n_calls


def _frequencies(rng: np.random.Generator, n_draws: int) -> dict[str, float]:
    """Draw many first tokens in several ways; return how far their frequencies are from p.

    The distance is half the sum of the differences. Token 0 stops the text.
    """
    p, q = np.array([0.3, 0.4, 0.1, 0.1, 0.1]), np.array([0.5, 0.1, 0.2, 0.1, 0.1])

    def kept_or(replace) -> int:
        token = draw(q, rng)
        return token if rng.random() * q[token] < p[token] else replace()

    def cut() -> int:
        token = draw(q, rng)
        return draw(p, rng) if token == 0 else verify([token], np.array([p, p]), rng, q[None])[0]

    ways = {
        "drawn from p": lambda: draw(p, rng),
        "verified": lambda: verify([draw(q, rng)], np.array([p, p]), rng, q[None])[0],
        "verified without q": lambda: verify([draw(q, rng)], np.array([p, p]), rng)[0],
        "replaced from p": lambda: kept_or(lambda: draw(p, rng)),
        "cut before a stop": cut,
    }
    found = {}
    for name, way in ways.items():
        count = np.bincount([way() for _ in range(n_draws)], minlength=len(p))
        found[name] = float(np.abs(count / n_draws - p).sum() / 2)
    return found


def read_for_a_token(numbers: dict) -> np.ndarray:
    """Return the weights read for each token, the large model's as 1, by models and drafted tokens."""
    return (1 + numbers["weights"] * np.array(numbers["drafted"])) / np.array(numbers["tokens"])


def plot(numbers: dict):
    """Draw tokens for each call, weights read for each token, and how often drafts are kept."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.5))
    drafted = numbers["drafted"]
    lookups = DRAFTED if len(numbers["lookup"]["an edit"][0]) == len(DRAFTED) else (4, 16)
    left.plot(drafted, np.mean(numbers["tokens"], axis=0), "C0o-", ms=4, label="small model")
    left.plot(drafted, np.mean(numbers["formula"], axis=0), "C0--", lw=1, label="by its rate alone")
    for (kind, values), colour in zip(numbers["lookup"].items(), ("C1", "C2"), strict=True):
        left.plot(lookups, np.mean(values, axis=0), f"{colour}s-", ms=4, label=f"lookup, {kind}")
        reads = 1 / np.mean(values, axis=0)
        middle.plot(lookups, reads, f"{colour}s-", ms=4, label=f"lookup, {kind}")
    left.set(xlabel="tokens drafted", ylabel="tokens for each call of the model")
    left.legend(fontsize=8)
    middle.plot(drafted, read_for_a_token(numbers).mean(axis=0), "C0o-", ms=4, label="small model")
    middle.axhline(1, color="0.6", lw=1, ls="--")
    middle.set(xlabel="tokens drafted", ylabel="weights read for each token", ylim=(0, None))
    middle.legend(fontsize=8)
    for axes in (left, middle):
        axes.set(xscale="log")
        axes.set_xticks(lookups, [str(each) for each in lookups])
        axes.minorticks_off()
    temperatures = [float(each) for each in numbers["rates"]]
    for rule, colour in zip(RULES, ("C0", "C3", "C4"), strict=True):
        rates = [100 * np.mean(each[rule]) for each in numbers["rates"].values()]
        right.plot(temperatures, rates, f"{colour}.-", label=rule)
    right.set(xlabel="temperature", ylabel="percent of drafted tokens kept", ylim=(0, None))
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: tokens for each call, the best length of a draft, the rules, the frequencies."""
    is_full = len(numbers["tokens"]) > 1
    assert all(numbers["same"])
    off = numbers["off"]
    for right in ("drawn from p", "verified", "verified without q"):
        assert off[right] < (0.012 if is_full else 0.05)
    for wrong in ("replaced from p", "cut before a stop"):
        assert off[wrong] > 0.06
    hot = numbers["rates"]["1.0"]
    for kept, likeliest, drawn in zip(*(hot[rule] for rule in RULES), strict=True):
        assert kept > likeliest > drawn
    edit, new_text = (np.array(numbers["lookup"][kind]) for kind in ("an edit", "new text"))
    assert (edit > 2 * new_text)[:, -1].all()
    assert (new_text >= 1).all()
    if is_full:
        tokens = np.array(numbers["tokens"])
        ratio = (tokens / np.array(numbers["formula"])).mean(axis=0)
        assert ((ratio > 0.6) & (ratio < 1.05)).all()
        reads = read_for_a_token(numbers)
        assert (reads < 0.75).all()
        assert 0.08 < numbers["weights"] < 0.1
        assert reads.mean(axis=0).argmin() == numbers["drafted"].index(4)
        assert reads.mean(axis=0).min() < 0.52
        for kept, likeliest, drawn in zip(*(hot[rule] for rule in RULES), strict=True):
            assert 0.7 < kept < 0.86
            assert 0.27 < likeliest < 0.38
            assert 0.17 < drawn < 0.27
        cold = [numbers["rates"]["0.1"][rule] for rule in RULES]
        assert np.ptp(cold, axis=0).max() < 0.05
        assert (edit[:, -1] > 5).all()
        assert (edit[:, 3] > 4).all()
        assert (new_text < 2).all()
