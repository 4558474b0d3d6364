"""A model that is reminded writes what stood before; without a memory nothing changes."""

import pytest
import torch

from lm.decoder_in_c import needs_decoder
from techtree.engines.engine import Chunk, InfillRequest
from techtree.engines.torch_engine import TorchEngine
from techtree.lm.data.corpus import Document
from techtree.lm.eval.bits_per_byte import bits_per_byte
from techtree.lm.eval.held_out import Score
from techtree.lm.infer.generate import PrefixCache, generate
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.memory.gate import mixed
from techtree.lm.memory.growing import GrowingText
from techtree.lm.memory.index import BOUNDARY, TokenIndex
from techtree.lm.memory.memory import PIECE_CHARS, Memory
from techtree.lm.memory.repository import Repository
from techtree.lm.native.decoder import Decoder

LINE = "result = combine(first_value, second_value, third_value)\n"


def test_the_text_at_hand_is_seen_whole_and_in_order(tiny_tokenizer):
    memory = Memory(tiny_tokenizer)
    encode = tiny_tokenizer.encode
    memory.begin("before it", "behind", ["other", "more"])
    parts = [encode(text) for text in ("other", "more", "behind", "before")]  # the last word may go on
    assert memory.text.ids == [token for part in parts for token in (BOUNDARY, *part)]
    memory.begin("before it comes", "behind")
    assert memory.text.ids == [BOUNDARY, *encode("behind"), BOUNDARY, *encode("before it")]


def test_however_it_was_cut_the_text_is_encoded_as_a_whole(tiny_tokenizer, rng):
    text = "".join(f"def name_{n}(a, b):\n\n    return  a + {n}\n\n\tx['k'] = 1 \n" for n in range(200))
    assert len(text) > 4 * PIECE_CHARS
    memory = Memory(tiny_tokenizer)
    for _ in range(60):
        start, end = sorted(rng.integers(0, len(text), 2).tolist())
        end = min(end, start + 60)
        memory.begin(text[:start])
        so_far = text[:start]
        for token in tiny_tokenizer.encode(text[start:end]):
            memory.append(token)
            so_far += tiny_tokenizer.decode([token])
            expected = [BOUNDARY, BOUNDARY, *tiny_tokenizer.encode(so_far)]
            assert memory.text.ids == expected[: len(memory.text.ids)]
            n_left_out = len(tiny_tokenizer.decode(expected[len(memory.text.ids) :]))
            assert n_left_out == 0 or len(so_far) - n_left_out <= start  # the word at the cursor


def test_letters_in_several_tokens_are_taken_as_they_come(tiny_tokenizer):
    memory = Memory(tiny_tokenizer)
    memory.begin("x = ")
    ids = tiny_tokenizer.encode("'é€' + y")
    for token in ids:
        memory.append(token)
    found = memory.text.ids[2:]
    assert tiny_tokenizer.decode(found) == "x = 'é€' + y"
    assert found[-len(ids) + 2 :] == ids[2:]


@pytest.mark.parametrize("cut", range(1, len("alpha = second_value(third)")))
def test_at_any_cursor_the_line_goes_on_as_it_stood(tiny_model, tiny_tokenizer, tmp_path, cut):
    line = "alpha = second_value(third)"
    (tmp_path / "a.py").write_text(f"x = 1\n{line}\n", encoding="utf-8")
    memory = Memory(tiny_tokenizer, Repository(tmp_path, tiny_tokenizer))
    memory.begin(f"y = 2\n{line[:cut]}")
    written = ""
    scores = torch.zeros(tiny_tokenizer.vocab_size)
    while len(written) < len(line) - cut:
        token = int(memory.mixed(scores).argmax())
        assert token, written  # of equal scores the first is the largest: memory said nothing
        memory.append(token)
        written += tiny_tokenizer.decode([token])
    assert written.startswith(line[cut:])


@pytest.mark.parametrize("kind", ["torch", pytest.param("c", marks=needs_decoder)])
def test_what_stood_before_comes_again(tiny_model, tiny_tokenizer, kind, tmp_path):
    model = (
        tiny_model
        if kind == "torch"
        else Decoder(tiny_model.config, dict(tiny_model.named_parameters()), 128)
    )
    (tmp_path / "a.py").write_text(f"x = 1\n{LINE}", encoding="utf-8")
    request = InfillRequest("result = combine(first_value, ", "\n", max_tokens=12)
    plain = TorchEngine(model, tiny_tokenizer, "m").infill(request)
    files = Repository(tmp_path, tiny_tokenizer)
    reminded = TorchEngine(model, tiny_tokenizer, "m", memory=Memory(tiny_tokenizer, files)).infill(request)
    assert reminded.text.startswith("second_value, third")
    assert not plain.text.startswith("second_value")
    sent = InfillRequest(request.prefix, "\n", (Chunk("a.py", LINE),), max_tokens=12)
    engine = TorchEngine(model, tiny_tokenizer, "m", memory=Memory(tiny_tokenizer))
    assert engine.infill(sent).text.startswith("second_value, third")
    assert engine.infill(request).text == TorchEngine(model, tiny_tokenizer, "m").infill(request).text
    raw = InfillRequest(LINE + "result = combine(first_value, ", max_tokens=12, is_raw=True)
    assert engine.infill(raw).text == TorchEngine(model, tiny_tokenizer, "m").infill(raw).text


@needs_decoder
def test_guesses_change_nothing_with_a_memory_either(tiny_model, tiny_tokenizer):
    """Oracle: PyTorch, which never guesses."""
    decoder = Decoder(tiny_model.config, dict(tiny_model.named_parameters()), 128)
    for text in (LINE * 2 + "result = ", "def f(a):\n    return a\n\ndef g(a):\n    ", "x"):
        written = []
        for model in (decoder, tiny_model):
            memory = Memory(tiny_tokenizer)
            memory.begin(text, LINE)
            limits = Limits(30)
            prompt = tiny_tokenizer.encode(text)
            sampling = SamplingParams()
            cache = PrefixCache(model, 128)
            written.append(
                list(generate(cache, prompt, limits, sampling=sampling, stop_ids=(), memory=memory))
            )
        assert written[0] == written[1]


def test_bits_with_a_memory_are_those_of_the_mixture(tiny_model, tiny_tokenizer):
    """Oracle: one token at a time, from a memory that grows."""
    texts = [LINE * 2 + "a = 1\n", "b = 2\n" + LINE, "c = 3\n"]
    documents = [Document(f"{i}.py", text) for i, text in enumerate(texts)]
    for project in (None, [], documents):
        bits, n_tokens = 0.0, 0
        for document in documents:
            ids = [tiny_tokenizer.end_of_text_id, *tiny_tokenizer.encode(document.text)]
            ids.append(tiny_tokenizer.end_of_text_id)
            with torch.inference_mode():
                scores = tiny_model(torch.tensor([ids[:-1]]))[0]
            growing = GrowingText()
            others = [tiny_tokenizer.encode(each.text) for each in project or () if each != document]
            for n, target in enumerate(ids[1:]):
                growing.append(ids[n])
                found = scores[n]
                if project is not None:
                    found = mixed(found, growing.match(), TokenIndex(others).match(growing.ids))
                bits -= torch.log_softmax(found, 0)[target].item() / torch.tensor(2.0).log().item()
                n_tokens += 1
        score = bits_per_byte(tiny_model, documents, tiny_tokenizer, seq_len=128, project=project)
        assert isinstance(score, Score)
        assert score.n_tokens == n_tokens
        assert score.bits == pytest.approx(bits, rel=1e-4)
