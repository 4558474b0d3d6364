"""How many outputs parse, how far the masks bend what a model would say, and what the tables cost."""

import json
from collections.abc import Callable

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.inference.constrained import (
    TokenTable,
    compile_grammar,
    constrained_generate,
    json_grammar,
    token_masks,
)
from techtree.techs.inference.sampling import Sampling, generate
from techtree.techs.text.bpe import train
from techtree.techs.text.ngram_lm import NgramLM

PLAIN = Sampling(temperature=1.0, top_p=1.0, min_p=0.0)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["read_file", "write_file", "run_tests"]},
        "path": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "force": {"type": "boolean"},
    },
    "required": ["name", "path", "lines", "force"],
}
LIMITS = (15, 18, 21, 24, 30, 40)
LONG = 200
COUNTS = (1, 3, 10, 30, 100, 300, 1000)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
N_WORDS, LENGTH, N_LETTERS = 12, 4, 3


def documents(rng: np.random.Generator, n: int) -> list[str]:
    """Write calls of tools as people and programs do: half of them exactly as the schema has it."""
    found = []
    for _ in range(n):
        call = {
            "name": str(rng.choice(["read_file", "write_file", "run_tests"])),
            "path": "/".join(rng.choice(["src", "tests", "app", "docs", "util"], size=rng.integers(1, 3))),
            "lines": [int(each) for each in rng.integers(300, size=rng.integers(3))],
            "force": bool(rng.integers(2)),
        }
        call["path"] += str(rng.choice([".py", ".md", ""]))
        habit = rng.integers(8)
        if habit == 0:
            call["note"] = "ok"
        if habit == 1:
            call = dict(reversed(call.items()))
        text = json.dumps(call, separators=(",", ":"))
        text = text.replace("true", "True") if habit == 2 else text
        text = text.replace('"', "'") if habit == 3 else text
        found.append(text)
    return found


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Generate with and without masks, compare with the model conditioned as a whole, and count.

    Parameters
    ----------
    rng
        Draws documents, models and tokens.
    scale
        The share of the outputs and the models, in (0, 1].

    Returns
    -------
    dict
        Ready for JSON.
    """
    seeds = [int(each) for each in rng.integers(2**32, size=3 if scale == 1 else 1)]
    runs = [_outputs(np.random.default_rng(seed), max(30, round(150 * scale))) for seed in seeds]
    n_models = max(6, round(60 * scale))
    return {
        "runs": runs,
        "distances": [_distances(np.random.default_rng(seed), n_models) for seed in seeds],
        "drawn": _drawn_distance(np.random.default_rng(seeds[0]), 1500),
        "hand": _distance_by_hand(),
    }


def _model(counts: NgramLM) -> Callable[[np.ndarray], Tensor]:
    def model(ids: np.ndarray) -> Tensor:
        logits = np.zeros((len(ids), counts.vocab_size))
        logits[-1] = counts.log_probs(ids.tolist())
        return Tensor(logits)

    return model


def _outputs(rng: np.random.Generator, n: int) -> dict:
    """Train a tokenizer and a counting model; measure what it writes with masks and without."""
    texts = documents(rng, 400)
    bpe = train(texts, 400, ["<end>"])
    end = bpe.special_tokens["<end>"]
    counts = NgramLM(4, len(bpe.vocab), end)
    for text in texts:
        counts.count([*bpe.encode(text), end])
    form = compile_grammar(json_grammar(SCHEMA))
    vocabulary = [b"" if token == end else data for token, data in bpe.vocab.items()]
    table = token_masks(form, vocabulary)
    model = _model(counts)

    def share(outputs: list[list[int]]) -> float:
        return float(np.mean([form.matches(b"".join(vocabulary[i] for i in each)) for each in outputs]))

    def masked(n_new: int, table: TokenTable = table) -> list[list[int]]:
        return [constrained_generate(model, [end], n_new, table, end, PLAIN, rng) for _ in range(n)]

    free = [list(generate(model, [end], LONG, PLAIN, rng, [end])) for _ in range(n)]
    long = masked(LONG)
    texts = [b"".join(vocabulary[i] for i in each) for each in long]
    visited = {state for text in texts for state in _states(form, text)}
    return {
        "fewest": int(table.n_left[0]),
        "free": {str(limit): share([each[:limit] for each in free]) for limit in LIMITS},
        "masked": {str(limit): share([each[:limit] for each in long]) for limit in LIMITS},
        "limited": {str(limit): share(masked(limit)) for limit in LIMITS},
        "all_parse": all(_parses(text) for text in texts),
        "states": len(form.transitions),
        "visited": len(visited),
        "tokens": len(vocabulary),
        "table_bytes": table.next_state.nbytes,
        "mask_bytes": -(-table.next_state.size // 8),
        "looked_up": _looked_up(form, vocabulary, long),
        "single_bytes": _single(form, [bytes([each]) for each in range(256)], [[*each] for each in texts]),
        "single_tokens": _single(form, vocabulary, long),
        "other_cuts": float(np.mean([bpe.encode(t.decode()) != o for t, o in zip(texts, long, strict=True)])),
    }


def _looked_up(form, vocabulary: list[bytes], outputs: list[list[int]]) -> dict[str, list[int]]:
    """Count the transitions that are read until so many tokens have come, by when the masks are made.

    Returns
    -------
    dict[str, list[int]]
        "each token": all tokens walk from the state, as far as they get, before each token; "each state": the
        same, once for each state; "table": all bytes of all tokens, from every state, before the first.
    """
    cost: dict[int, int] = {}
    for state in range(len(form.transitions)):
        after = [form.transitions[state, data[0]] if data else -1 for data in vocabulary]
        n_read = sum(map(bool, vocabulary))
        for place in range(1, max(map(len, vocabulary))):
            alive = [i for i, each in enumerate(after) if each >= 0 and len(vocabulary[i]) > place]
            n_read += len(alive)
            for i in alive:
                after[i] = form.transitions[after[i], vocabulary[i][place]]
        cost[state] = n_read
    states = []
    for output in outputs:
        state = 0
        for token in output:
            states.append(state)
            state = form.step(state, vocabulary[token])
    whole = len(form.transitions) * sum(map(len, vocabulary))
    counts = [n for n in COUNTS if n <= len(states)]
    return {
        "each token": [sum(cost[state] for state in states[:n]) for n in counts],
        "each state": [sum(cost[state] for state in set(states[:n])) for n in counts],
        "table": [whole] * len(counts),
    }


def _parses(text: bytes) -> bool:
    value = json.loads(text)
    kinds = (str, str, list, bool)
    return [*value] == SCHEMA["required"] and all(map(isinstance, value.values(), kinds))


def _states(form, text: bytes) -> list[int]:
    found = [0]
    for byte in text:
        found.append(form.step(found[-1], bytes([byte])))
    return found


def _single(form, vocabulary: list[bytes], outputs: list[list[int]]) -> float:
    """Return the share of the tokens of some outputs that were the only choice."""
    table = token_masks(form, vocabulary)
    n_single = n_all = 0
    for output in outputs:
        state = 0
        for token in output:
            n_choices = (table.next_state[state] >= 0).sum() + (table.n_left[state] == 0)
            n_single, n_all = n_single + int(n_choices == 1), n_all + 1
            state = table.next_state[state, token]
    return n_single / n_all


def _tables(words: list[bytes]):
    vocabulary = [bytes([97 + each]) for each in range(N_LETTERS)] + [b""]
    return token_masks(compile_grammar(("choice", *words)), vocabulary)


def _by_token(words: list[bytes], rows: Callable[[bytes], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each word: by masks token by token, and by the model given the language."""
    table, by_masks, whole = _tables(words), [], []
    for word in words:
        state, masked, plain = 0, 1.0, 1.0
        for place in range(len(word) + 1):
            p = rows(word[:place])
            token = word[place] - 97 if place < len(word) else N_LETTERS
            choices = table.choices(state, LONG).tolist() + [N_LETTERS] * int(table.n_left[state] == 0)
            masked *= p[token] / p[choices].sum()
            plain *= p[token]
            state = table.next_state[state, token]
        by_masks.append(masked)
        whole.append(plain)
    return np.array(by_masks), np.array(whole) / np.sum(whole)


def _random_language(rng: np.random.Generator) -> list[bytes]:
    chosen = rng.choice(N_LETTERS**LENGTH, size=N_WORDS, replace=False)
    return [bytes(97 + each // N_LETTERS**i % N_LETTERS for i in range(LENGTH)) for each in chosen.tolist()]


def _rows(rng: np.random.Generator, words: list[bytes], share: float) -> Callable[[bytes], np.ndarray]:
    """Make a model that draws one of the words, mixed at each token with one that knows nothing of them."""
    weight = dict(zip(words, rng.dirichlet(np.ones(len(words))), strict=True))
    noise: dict[bytes, np.ndarray] = {}

    def rows(before: bytes) -> np.ndarray:
        p = np.zeros(N_LETTERS + 1)
        for word, w in weight.items():
            if word.startswith(before):
                p[word[len(before)] - 97 if len(word) > len(before) else N_LETTERS] += w
        if before not in noise:
            noise[before] = rng.dirichlet(np.full(N_LETTERS + 1, 0.5))
        return (1 - share) * p / p.sum() + share * noise[before]

    return rows


def _distances(rng: np.random.Generator, n_models: int) -> dict:
    """Return, by the share of noise, the mean distance between the two and the probability of the form."""
    found = {}
    for share in SHARES:
        apart, inside = [], []
        for _ in range(n_models):
            words = _random_language(rng)
            rows = _rows(rng, words, share)
            by_masks, whole = _by_token(words, rows)
            apart.append(np.abs(by_masks - whole).sum() / 2)
            inside.append(
                sum(
                    np.prod([rows(w[:i])[w[i] - 97 if i < LENGTH else -1] for i in range(LENGTH + 1)])
                    for w in words
                )
            )
        found[f"{share:g}"] = [float(np.mean(apart)), float(np.mean(inside)), float(np.max(apart))]
    return found


def _drawn_distance(rng: np.random.Generator, n: int) -> list[float]:
    """Draw words by `constrained_generate`; return how far their shares are from either distribution."""
    words = _random_language(rng)
    rows = _rows(rng, words, 0.6)
    table, drawn = _tables(words), np.zeros(len(words))

    def model(ids: np.ndarray) -> Tensor:
        with np.errstate(divide="ignore"):
            row = np.log(rows(bytes(97 + each for each in ids[1:].tolist())))
        return Tensor(np.tile(row, (len(ids), 1)))

    for _ in range(n):
        output = constrained_generate(model, [0], LENGTH, table, N_LETTERS, PLAIN, rng)
        drawn[words.index(bytes(97 + each for each in output))] += 1 / n
    return [float(np.abs(drawn - each).sum() / 2) for each in _by_token(words, rows)]


def _distance_by_hand() -> list[float]:
    """Two words, ab and cc, of which the model likes the first letter of one and the rest of the other."""
    rows = {b"": [0.9, 0, 0.1, 0], b"a": [0.99, 0.01, 0, 0], b"c": [0, 0, 1, 0]}
    by_masks, whole = _by_token([b"ab", b"cc"], lambda before: np.array(rows.get(before, [0, 0, 0, 1.0])))
    return [float(by_masks[0]), float(whole[0])]


def plot(numbers: dict):
    """Draw the share that parses by the limit; the distance by the noise; the work by the tokens."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.5))
    names = {"free": "no masks", "masked": "masks", "limited": "masks that know the limit"}
    for place, (kind, name) in enumerate(names.items()):
        values = np.array([[each[kind][str(limit)] for limit in LIMITS] for each in numbers["runs"]])
        for each in values:
            left.plot(LIMITS, 100 * each, color=f"C{place}", alpha=0.3, lw=1)
        left.plot(LIMITS, 100 * values.mean(axis=0), color=f"C{place}", marker=".", label=name)
    left.set(xlabel="limit, in tokens", ylabel="outputs that parse, %", ylim=(-4, 108))
    left.legend(fontsize=8)
    distances = np.array([[each[f"{share:g}"] for share in SHARES] for each in numbers["distances"]])
    for each in distances:
        middle.plot(SHARES, each[:, 0], color="C0", alpha=0.3, lw=1)
    middle.plot(SHARES, distances.mean(axis=0)[:, 0], "C0.-", label="distance from the model given the form")
    middle.plot(SHARES, distances.mean(axis=0)[:, 1], "C1.--", label="probability of the form without masks")
    middle.set(
        xlabel="share of the model that does not know the form", ylabel="probability", ylim=(-0.04, 1.04)
    )
    middle.legend(fontsize=8)
    names = {
        "each token": "at each token",
        "each state": "once for each state",
        "table": "all states at first",
    }
    for place, (kind, name) in enumerate(names.items()):
        for each in numbers["runs"]:
            values = each["looked_up"][kind]
            label = name if each is numbers["runs"][0] else None
            right.plot(COUNTS[: len(values)], values, color=f"C{place}", marker=".", alpha=0.7, label=label)
    right.set(xlabel="tokens that have come", ylabel="transitions read", xscale="log", yscale="log")
    right.legend(fontsize=8, title="masks are made")
    return figure


def claim(numbers: dict) -> None:
    """README.md: masks that know the limit never fail; they bend the distribution; tables are made once."""
    is_full = len(numbers["runs"]) == 3
    for each in numbers["runs"]:
        assert set(each["limited"].values()) == {1.0}
        assert each["all_parse"]
        assert each["fewest"] == 15
        assert each["free"]["40"] < 0.6
        assert each["masked"]["15"] < 0.05
        assert each["masked"]["40"] > max(0.9, each["free"]["40"] + 0.3)
        assert 0.65 < each["single_bytes"] < 0.85
        assert 0.03 < each["single_tokens"] < 0.08
        assert each["states"] == 130
        looked_up = each["looked_up"]
        n_tokens = dict(zip(COUNTS, looked_up["each token"], strict=False))
        assert 30_000 < n_tokens[100] < looked_up["table"][0] < n_tokens[300]
        assert looked_up["table"][-1] > 4 * looked_up["each state"][-1]
        assert looked_up["each token"][-1] > 7 * looked_up["each state"][-1]
        assert each["table_bytes"] == 8 * each["states"] * each["tokens"]
        if is_full:
            assert 0.12 < each["free"]["40"] < 0.45
            assert 0.7 < each["masked"]["24"] < 0.92
            assert each["other_cuts"] < 0.05
            assert each["tokens"] == 332
            assert 0.7 < each["single_bytes"] < 0.8
            assert 0.04 < each["single_tokens"] < 0.06
            assert 0.55 < each["visited"] / each["states"] < 0.75
            assert 3.2e5 < n_tokens[1000] < 4e5
            assert 25 < n_tokens[1000] / looked_up["each state"][-1] < 45
    for each in numbers["distances"]:
        assert each["0"][0] < 1e-12
        assert abs(each["0"][1] - 1) < 1e-12
        assert each["0.1"][0] < each["0.4"][0] < each["1"][0]
        assert each["0.1"][0] < 0.05
        assert each["1"][0] > 0.3
        assert each["1"][1] < 0.1
        if is_full:
            assert 0.085 < each["0.4"][0] < 0.13
            assert 0.27 < each["0.4"][1] < 0.33
            assert 0.44 < each["1"][0] < 0.64
            assert each["1"][1] < 0.03
    by_masks, whole = numbers["drawn"]
    assert by_masks < 0.06
    assert whole > by_masks + 0.03
    assert abs(numbers["hand"][0] - 0.9) < 1e-9
    assert abs(numbers["hand"][1] - 9 / 109) < 1e-9
