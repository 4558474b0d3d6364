"""The figures to touch: their numbers are the lessons', and each asks and answers."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from techtree.site.touch import data as touch_data
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.inference.quantization import dequantize, quantize
from techtree.techs.text.bpe import BPE
from techtree.techs.text.pretokenize import from_visible, split, visible
from techtree.techs.transformer.attention import attention_weights, causal_mask
from techtree.techs.transformer.llama_block import LlamaConfig
from techtree.techs.transformer.moe import MoE, balance_loss, route
from techtree.techs.transformer.rope import frequencies, rotate, rotation

FOLDER = Path(touch_data.__file__).parent
IDS = sorted(path.stem for path in FOLDER.glob("*.js") if path.stem != "touch")
NODE = shutil.which("node")
N = 50

PROGRAM = """
const [vm, fs] = [require("vm"), require("fs")];
const { folder, id, expression } = JSON.parse(fs.readFileSync(0, "utf8"));
for (const name of ["touch", id]) vm.runInThisContext(fs.readFileSync(`${folder}/${name}.js`, "utf8"));
const answer = vm.runInThisContext(expression.code)(touch.kinds[id], expression.argument);
fs.writeFileSync(1, JSON.stringify(answer));
"""


def run(tech_id, code, argument):
    """Return what ``code``, a JavaScript function of the figure and an argument, gives."""
    if NODE is None:
        pytest.skip("node is not installed: the scripts are not run")
    text = json.dumps(
        {"folder": str(FOLDER), "id": tech_id, "expression": {"code": f"({code})", "argument": argument}}
    )
    done = subprocess.run(
        [NODE, "-e", PROGRAM], input=text, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TEXTS = (
    "",
    " ",
    "    return self.weight.shape[-1]",
    "naïve café — 3.14\r\n\tif x:\n\n\n",
    "I'LL don't 'ſ 'Re we've",
    "\x85\xa0\u2003\ufeff\u3000a b",
    "日本語のテキスト🙂👩‍👩‍👧 x",
    "\x1c\x1d1234567890½Ⅷ",
    "a" * 70,
)


def random_texts():
    rng = np.random.default_rng(0)
    alphabet = [
        *"etaoin srhl_.()=:'\n\t 0189",
        " self",
        " return",
        "np.",
        "é",
        "日",
        "🙂",
        "\r\n",
        "\xa0",
        "ſ",
    ]
    return [*TEXTS, *("".join(rng.choice(alphabet, rng.integers(1, 90))) for _ in range(N))]


def test_bpe_cuts_words_like_the_lesson():
    texts = random_texts()
    assert run("bpe", "(figure, texts) => texts.map(figure.pure.split)", texts) == [split(t) for t in texts]


@pytest.mark.parametrize("n_merges", [0, 1, 100, touch_data.N_MERGES])
def test_bpe_merges_like_the_lesson(n_merges):
    merges = touch_data.data("bpe")["merges"][:n_merges]
    bpe = BPE([(from_visible(left), from_visible(right)) for left, right in merges])
    code = "(figure, [texts, merges]) => texts.map((text) => figure.pure.encode(text, merges).tokens)"
    found = run("bpe", code, [random_texts(), merges])
    assert found == [[visible(bpe.vocab[i]) for i in bpe.encode(text)] for text in random_texts()]


def test_attention_weighs_like_the_lesson():
    rng = np.random.default_rng(1)
    cases, expected = [], []
    for _ in range(N):
        n_queries, width = rng.integers(1, 9), rng.integers(1, 65)
        n_keys = n_queries + rng.integers(0, 5)
        q, k = rng.normal(size=(n_queries, width)) * 10, rng.normal(size=(n_keys, width))
        factor, is_causal = float(rng.uniform(0, 2)), bool(rng.integers(2))
        cases.append([q.tolist(), k.tolist(), factor, is_causal])
        # The lesson divides by the root of the width: its queries are scaled so that the factor remains.
        mask = causal_mask(n_queries, n_keys) if is_causal else None
        expected.append(attention_weights(Tensor(q * factor * math.sqrt(width)), Tensor(k), mask).data)
    code = "(figure, cases) => cases.map((each) => figure.pure.weights(...each))"
    for found, weights in zip(run("attention", code, cases), expected, strict=True):
        # Sums of up to 64 products of some hundreds, in another order.
        np.testing.assert_allclose(found, weights, rtol=1e-9, atol=1e-12)
        assert (np.array(found)[weights == 0] == 0).all()
    code = "(figure, rows) => rows.map(figure.pure.effective)"
    rows = [weights[-1] for weights in expected]
    entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in rows]
    np.testing.assert_allclose(
        run("attention", code, [r.tolist() for r in rows]), np.exp(entropies), rtol=1e-9
    )


def test_rope_turns_like_the_lesson():
    rng = np.random.default_rng(2)
    cases, turned, speeds, scores = [], [], [], []
    for _ in range(N):
        width, base = 2 * int(rng.integers(1, 17)), float(10 ** rng.uniform(0.5, 6))
        q, k = rng.normal(size=(2, width))
        t, s = (int(n) for n in rng.integers(0, 1000, 2))
        cases.append([q.tolist(), k.tolist(), t, s, base])
        both = [
            rotate(Tensor(x[None]), *rotation([place], width, base)).data[0] for x, place in ((q, t), (k, s))
        ]
        turned.append(both[0])
        scores.append(both[0] @ both[1])
        speeds.append(frequencies(width, base))
    code = """(figure, cases) => cases.map(([q, k, t, s, base]) => [
        figure.pure.rotate(q, t, base), figure.pure.score(q, k, t, s, base),
        figure.pure.frequencies(q.length, base)])"""
    for found, x, score, speed in zip(run("rope", code, cases), turned, scores, speeds, strict=True):
        # Angles of up to 1,000 radians: the powers of both languages differ in the last bit.
        np.testing.assert_allclose(found[0], x, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found[1], score, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found[2], speed, rtol=1e-12)


def test_sampling_gives_the_lessons_probabilities():
    lesson = pytest.importorskip("techtree.techs.inference.sampling")
    rng = np.random.default_rng(3)
    cases, expected = [], []
    for _ in range(N):
        size = int(rng.integers(1, 30))
        logits = rng.normal(size=size).round(1) * 3  # some are equal
        temperature = float(rng.choice([0, 0.01, 0.5, 1, 2]))
        top_k, top_p = int(rng.integers(0, size + 2)), float(rng.choice([0, 0.313, 0.877, 1]))
        cases.append([logits.tolist(), temperature, top_k, top_p])
        expected.append(lesson.probabilities(logits, temperature, top_k, top_p))
    code = "(figure, cases) => cases.map((each) => figure.pure.probabilities(...each))"
    for found, p in zip(run("sampling", code, cases), expected, strict=True):
        np.testing.assert_allclose(found, p, rtol=1e-12, atol=1e-15)


def test_quantization_rounds_like_the_lesson():
    rng = np.random.default_rng(4)
    sizes = 10.0 ** rng.uniform(-9, 3, N)
    weights = (rng.standard_t(2, (N, 32)) * sizes[:, None]).astype(np.float32)
    weights[0], weights[1, :3] = 0, [-8, 3.5, 7.9]
    weights[2] = np.resize([4, -4, 1.75], 32)  # of two of the largest magnitude the first decides
    for kind in ("q8_0", "q4_0"):
        code = f'(figure, rows) => rows.map((row) => figure.pure.block(row, "{kind}").values)'
        found = run("quantization", code, weights.astype(np.float64).tolist())
        np.testing.assert_array_equal(np.float32(found), dequantize(quantize(weights, kind), kind))


def test_the_scripts_float16_is_numpys():
    rng = np.random.default_rng(5)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    between = (halves[:-1] + halves[1:]) / 2
    x = np.concatenate([rng.choice(halves, 500), rng.choice(between, 500), 10.0 ** rng.uniform(-9, 4.8, 500)])
    x = np.concatenate([x, -x, [65504, 65519.9, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25]])
    found = run("quantization", "(figure, x) => x.map(figure.pure.f16)", x.tolist())
    np.testing.assert_array_equal(np.array(found, np.float64), x.astype(np.float16).astype(np.float64))


def test_the_cache_has_the_lessons_bytes():
    lesson = pytest.importorskip("techtree.techs.inference.kv_cache")
    rng = np.random.default_rng(6)
    cases, expected = [], []
    for _ in range(N):
        n_layers, n_kv_heads, half = (int(n) for n in rng.integers(1, 5, 3))
        n_tokens, width = int(rng.integers(1, 60)), 2 * half
        n_heads = n_kv_heads * int(rng.integers(1, 3))
        config = LlamaConfig(
            n_tokens=5,
            width=n_heads * width,
            hidden=4,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
        )
        dtype = (np.float16, np.float32, np.float64)[rng.integers(3)]
        cache = lesson.KVCache(config, n_tokens, dtype)
        shape = {"n_layers": n_layers, "n_kv_heads": n_kv_heads, "head_width": width}
        cases.append([{**shape, "bytes": np.dtype(dtype).itemsize}, n_tokens])
        expected.append(cache.keys.nbytes + cache.values.nbytes)
    code = "(figure, cases) => cases.map((each) => figure.pure.cacheBytes(...each))"
    assert run("kv_cache", code, cases) == expected


def test_the_cache_saves_what_the_lessons_loops_do():
    """`generate` reads the whole text for each token; `generate_cached` each token once."""
    rng = np.random.default_rng(7)
    cases = [[int(rng.integers(1, 40)), int(rng.integers(1, 40))] for _ in range(N)]
    code = """({ pure }, cases) =>
        cases.map(([p, n]) => [pure.work(p, n, false), pure.work(p, n, true)])"""
    for (n_prompt, n_new), found in zip(cases, run("kv_cache", code, cases), strict=True):
        text, plain, cached, unread = n_prompt, [], [], n_prompt
        for _ in range(n_new):
            plain.append(text)
            cached.append(unread)
            text, unread = text + 1, 1
        assert found == [plain, cached]


def test_moe_routes_like_the_lesson():
    rng = np.random.default_rng(8)
    cases, expected = [], []
    for _ in range(N):
        n_tokens, n_experts = int(rng.integers(1, 20)), int(rng.integers(1, 10))
        k = int(rng.integers(1, n_experts + 1))
        logits = (rng.normal(size=(n_tokens, n_experts)) * 3).round(1)  # some are equal
        capacity = float(rng.choice([0.25, 0.5, 1, 1.5]))
        experts, weights = route(Tensor(logits), k)
        cases.append([logits.tolist(), k, capacity])
        expected.append((experts, weights.data, float(balance_loss(Tensor(logits), experts).data)))
    code = """(figure, cases) => cases.map(([logits, k]) => {
        const { experts, weights } = figure.pure.route(logits, k);
        return [experts, weights, figure.pure.balanceLoss(logits, experts)];
    })"""
    for found, (experts, weights, loss) in zip(run("moe", code, cases), expected, strict=True):
        assert found[0] == experts.tolist()
        np.testing.assert_allclose(found[1], weights, rtol=1e-12)
        np.testing.assert_allclose(found[2], loss, rtol=1e-12)


def test_moe_drops_what_the_lessons_layer_drops():
    """No expert's answer is exactly 0 in all places: a row of zeros has been dropped."""
    rng = np.random.default_rng(9)
    cases, expected = [], []
    for _ in range(N):
        n_tokens, n_experts = int(rng.integers(1, 20)), int(rng.integers(1, 7))
        capacity = float(rng.choice([0.25, 0.5, 1, 1.5]))
        logits = rng.normal(size=(n_tokens, n_experts))
        layer = MoE(n_experts, 2, n_experts, 1, rng, capacity=capacity)
        layer.router.weight.data[:] = np.eye(n_experts)
        answered = (layer(Tensor(logits)).data != 0).any(axis=1)
        experts, _ = route(Tensor(logits), 1)
        cases.append([experts.tolist(), n_experts, capacity])
        expected.append((~answered).tolist())
    code = """({ pure }, cases) => cases.map(([experts, n, capacity]) =>
        pure.dropped(experts, n, pure.room(experts.length, 1, n, capacity)).map(([is]) => is))"""
    assert run("moe", code, cases) == expected


@pytest.mark.parametrize("tech_id", IDS)
def test_each_asks_a_question_whose_answer_is_in_range_and_has_few_controls(tech_id):
    code = """(figure, data) => {
        const state = figure.start(data);
        const question = figure.question(state, data);
        const before = figure.tell(state, data);
        Object.assign(state, question.then);
        return { question, before, after: figure.tell(state, data), lead: figure.lead, title: figure.title,
                 controls: figure.controls(state, data).map(({ name, key }) => [name, key, key in state]) };
    }"""
    found = run(tech_id, code, touch_data.data(tech_id))
    question = found["question"]
    assert question["low"] <= question["truth"] <= question["high"]
    assert question["text"].endswith("?")
    assert question["because"].endswith(".")
    assert question["then"], "the answer is shown in the figure"
    assert 1 <= len(found["controls"]) <= 3
    assert all(is_there for _, _, is_there in found["controls"])
    assert "NaN" not in found["before"] + found["after"]


def test_data_is_the_same_twice_and_small():
    for tech_id in IDS:
        first = json.dumps(touch_data.data(tech_id))
        assert json.dumps(touch_data.data(tech_id)) == first
        assert len(first) < 20_000
    assert touch_data.data("numerics") is None


def test_the_scripts_are_classic_and_load_nothing():
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        code = text.replace("http://www.w3.org/2000/svg", "")
        assert not any(
            word in code for word in ("import ", "export ", "http", "fetch(", "eval(", "innerHTML")
        )
        assert '"use strict";' in text
