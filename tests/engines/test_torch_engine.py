"""The tiny model behind the protocol."""

import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from techtree.engines.engine import ChatRequest, Chunk, Engine, InfillRequest, Message
from techtree.errors import InputError

torch = pytest.importorskip("torch")

from lm.decoder_in_c import needs_decoder  # noqa: E402 - where there is PyTorch

TIMEOUT_S = 30
SOURCE = "def add(a, b):\n    total = a + b\n    return total\n"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engine(tiny_model_folder) -> Engine:
    from techtree.engines.torch_engine import TorchEngine

    return TorchEngine.load(tiny_model_folder)


def test_what_it_says_of_itself(engine):
    assert engine.name == "tiny"
    assert engine.context_length == 128


def test_it_answers(engine):
    pieces = []
    result = engine.infill(InfillRequest(SOURCE[:20], SOURCE[20:], max_tokens=8), on_text=pieces.append)
    assert result.text
    assert "".join(pieces) == result.text
    assert 1 <= result.n_predicted <= 8
    assert result.n_prompt > 10
    assert result.prompt_ms > 0
    assert result.predicted_ms > 0
    assert not result.is_truncated


CHAT = (Message("user", "hello<|endoftext|>"),)


def test_a_chat(chatting_folder):
    from techtree.engines.torch_engine import TorchEngine

    engine = TorchEngine.load(chatting_folder)
    assert engine.chat_text(CHAT) == "<file_sep>user:hello<|endoftext|><|endoftext|>a:"
    pieces = []
    result = engine.chat(ChatRequest(CHAT, max_tokens=8), on_text=pieces.append)
    assert "".join(pieces) == result.text != ""
    n_plain = len(engine.tokenize("hello<|endoftext|>")) - len(engine.tokenize("hello"))
    assert n_plain > 1  # the name of a mark in a message is text
    assert result.n_prompt == 2 + sum(map(len, map(engine.tokenize, ("user:hello<|endoftext|>", "a:"))))
    assert engine.chat(ChatRequest(CHAT, max_tokens=8)).text == result.text
    with pytest.raises(InputError, match="fewer than 128 tokens"):
        engine.chat(ChatRequest((Message("user", "long " * 200),)))


def test_a_model_without_a_template_holds_no_chat(engine):
    with pytest.raises(InputError, match="no chat template"):
        engine.chat(ChatRequest(CHAT))


def test_how_likely_each_token_was(engine, tiny_model):
    """Beside the model itself, run over the text once more."""
    tokens = []
    request = InfillRequest("x = ", max_tokens=6, is_raw=True, n_top=3)
    result = engine.infill(request, on_token=tokens.append)
    assert b"".join(token.data for token in tokens).decode() == result.text
    assert [token.start for token in tokens] == [
        len(b"".join(token.data for token in tokens[:i]).decode()) for i in range(len(tokens))
    ]
    prompt = engine.tokenize("x = ")
    written = [engine.tokenize(token.data.decode()) for token in tokens]
    assert all(len(ids) == 1 for ids in written)
    ids = [*prompt, *(i for one in written for i in one)]
    expected = torch.log_softmax(tiny_model(torch.tensor([ids]))[0].detach(), dim=-1)
    for i, token in enumerate(tokens):
        row = expected[len(prompt) + i - 1]
        # In float32 here, and within the engine in another order.
        assert token.logprob == pytest.approx(float(row[ids[len(prompt) + i]]), abs=1e-3)
        assert [one.logprob for one in token.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-3)
        assert token.top[0].data == token.data  # greedy


def test_text_to_ids_and_back(engine):
    assert engine.tokenize("<|endoftext|>", parse_special=True) == [0]
    assert engine.detokenize(engine.tokenize("x = 'é'<|endoftext|>")) == "x = 'é'<|endoftext|>"
    with pytest.raises(InputError, match="vocabulary"):
        engine.detokenize([10**6])


def test_the_same_question_gets_the_same_answer(engine):
    request = InfillRequest(SOURCE[:30], SOURCE[30:], max_tokens=6)
    first = engine.infill(request)
    again = engine.infill(request)
    assert again.text == first.text
    assert again.n_reused == again.n_prompt - 1


def test_a_long_file_and_extra_chunks(engine):
    extra = (Chunk("other.py", "value = 1\n"),)
    result = engine.infill(InfillRequest(SOURCE * 50, SOURCE * 50, extra, max_tokens=4))
    assert result.is_truncated
    assert result.n_prompt <= 128 - 4


def test_nonsense_is_refused(engine):
    with pytest.raises(InputError, match="temperature"):
        engine.infill(InfillRequest("x", temperature=-1.0))
    assert engine.infill(InfillRequest("x", max_tokens=1)).n_predicted <= 1


@pytest.mark.parametrize("half", ["\ud83d", "x = '\ude42", "\udcff\n"])
def test_half_a_character_anywhere_costs_nothing_but_itself(engine, half):
    """As clients send it that cut a chunk, a prefix or a suffix by UTF-16's units."""
    whole = half.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def answered(text, place):
        words = {"prefix": "def f(x):\n    return ", "suffix": "\n"}
        chunk = Chunk(text, "A = 1\n") if place == "filename" else Chunk("a.py", "A = 1\n" + text)
        words |= {place: text + words[place]} if place in words else {"extra": (chunk,)}
        found = engine.infill(InfillRequest(**words, max_tokens=8))
        return found.text, found.stop, found.n_prompt

    for place in ("prefix", "suffix", "chunk", "filename"):
        assert answered(half, place) == answered(whole, place)


def test_a_folder_without_a_model(tmp_path):
    from techtree.engines.torch_engine import TorchEngine

    with pytest.raises(InputError):
        TorchEngine.load(tmp_path)


def test_it_is_cancelled_before_and_between_tokens(engine):
    assert engine.infill(InfillRequest("x = "), cancelled=lambda: True).stop == "cancelled"
    pieces = []
    result = engine.infill(
        InfillRequest("x = ", max_tokens=100), cancelled=lambda: len(pieces) >= 2, on_text=pieces.append
    )
    assert result.stop in ("cancelled", "end_of_text", "rule")
    assert len(pieces) <= 3  # text that was held back comes in the end


def test_a_deadline(engine):
    assert engine.infill(InfillRequest("x = ", timeout_s=0.0)).stop == "deadline"


def test_a_newer_request_ends_the_older(engine):
    started, newer_came = threading.Event(), threading.Event()

    def on_text(piece):
        started.set()
        assert newer_came.wait(TIMEOUT_S)

    with ThreadPoolExecutor(2) as pool:
        older = pool.submit(
            engine.infill, InfillRequest("x = ", max_tokens=100, slot=0), lambda: False, on_text
        )
        assert started.wait(TIMEOUT_S)
        newer = pool.submit(engine.infill, InfillRequest("y = ", max_tokens=3, slot=0))
        end = time.monotonic() + TIMEOUT_S
        while len(engine._turns._line) < 2:
            assert time.monotonic() < end
            time.sleep(0.001)
        newer_came.set()
        assert older.result(TIMEOUT_S).stop == "cancelled"
        assert newer.result(TIMEOUT_S).stop != "cancelled"


def test_many_threads_get_what_one_gets(engine):
    requests = [InfillRequest(SOURCE[:n], SOURCE[n:], max_tokens=3) for n in (10, 20, 30)]
    alone = [engine.infill(request).text for request in requests]
    with ThreadPoolExecutor(3) as pool:
        assert [done.text for done in pool.map(engine.infill, requests)] == alone


def test_it_serves_an_editor(engine):
    """The real engine behind the real application, once."""
    testclient = pytest.importorskip("starlette.testclient")
    from techtree.serve.app import create_app

    client = testclient.TestClient(create_app(engine), "http://127.0.0.1:8012")
    body = {"input_prefix": "def add(a, b):\n", "prompt": "    ", "input_suffix": "\n", "n_predict": 6}
    whole = client.post("/infill", json=body).json()
    assert whole["content"]
    assert whole["tokens_evaluated"] == whole["timings"]["prompt_n"] + whole["timings"]["cache_n"]
    stream = client.post("/infill", json=body | {"stream": True}).text.split("\n\n")
    pieces = [json.loads(event.removeprefix("data: "))["content"] for event in stream if event]
    assert "".join(pieces) == whole["content"]
    refused = client.post("/infill", json=body | {"temperature": -1})
    assert refused.json()["error"]["code"] == 400


@pytest.mark.parametrize(
    ("stored", "has_units", "expected"),
    [
        ("float32", True, "float32"),
        ("float32", False, "float32"),
        ("bfloat16", True, "bfloat16"),
        ("bfloat16", False, "float32"),
        ("float16", True, "float32"),
    ],
)
def test_weights_stay_as_they_are_stored_where_the_machine_multiplies_so(
    tiny_model, tiny_tokenizer, tmp_path, monkeypatch, stored, has_units, expected
):
    from techtree.engines import torch_engine
    from techtree.lm.formats.huggingface import save_pretrained

    save_pretrained(tmp_path, tiny_model, tiny_tokenizer, dtype=getattr(torch, stored))
    fastest = torch.bfloat16 if has_units else torch.float32
    monkeypatch.setattr(torch_engine, "compute_dtype", lambda device: fastest)
    monkeypatch.setattr(torch_engine, "decoder", lambda config, weights: None)
    model, _ = torch_engine.load_to_decode(tmp_path)
    assert model.dtype == getattr(torch, expected)
    assert model(torch.arange(9)[None]).dtype == torch.float32


@pytest.mark.parametrize("temperature", [1e-46, 5e-324, 1e-30, 1e-9, 1e-5, 1e5, 1e38, 1e39, 1e308])
def test_extreme_temperatures(engine, temperature):
    request = InfillRequest(SOURCE[:30], SOURCE[30:], max_tokens=6, temperature=temperature, seed=1)
    result = engine.infill(request)
    assert result.stop in ("end_of_text", "max_tokens", "rule")
    if temperature < 1e-4:
        assert result.text == engine.infill(dataclasses.replace(request, temperature=0)).text


@pytest.mark.parametrize(
    "extreme",
    [
        {"top_p": 1e-46},
        {"top_p": 0.0},
        {"min_p": 5e-324},
        {"min_p": 1.0},
        {"top_k": 2**63 - 1},
        {"seed": 2**63 - 1},
        {"n_indent": 2**63 - 1},
        {"max_line_ms": 1e308},
        {"max_line_ms": 5e-324},
        {"max_tokens": 2**63 - 1},
        {"timeout_s": 1e308},
    ],
)
def test_other_extreme_numbers(engine, extreme):
    request = dataclasses.replace(
        InfillRequest(SOURCE[:30], SOURCE[30:], max_tokens=4, temperature=0.8, seed=1), **extreme
    )
    assert engine.infill(request).stop in ("end_of_text", "max_tokens", "rule", "slow", "context")


def test_ten_at_once_without_a_slot_are_all_answered(engine):
    requests = [InfillRequest(SOURCE[:n], SOURCE[n:], max_tokens=3) for n in range(10, 30, 2)]
    alone = [engine.infill(request).text for request in requests]
    with ThreadPoolExecutor(10) as pool:
        assert [done.text for done in pool.map(engine.infill, requests)] == alone


@needs_decoder
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "q8_0", "q4_0"])
def test_the_decoder_in_c_writes_what_pytorch_writes(
    tiny_model, tiny_tokenizer, tiny_model_folder, tmp_path, monkeypatch, kind
):
    from techtree.engines import torch_engine
    from techtree.lm.formats.gguf import save_gguf
    from techtree.lm.native.decoder import Decoder
    from techtree.lm.native.library import NoCompilerError

    path = tmp_path / "tiny.gguf"
    save_gguf(path, tiny_model, tiny_tokenizer, kind if kind[0] == "q" else getattr(torch, kind))
    request = InfillRequest("def f(x):\n    return ", "\n", max_tokens=20, is_raw=True)
    engine = torch_engine.TorchEngine.load(path)
    assert engine.name == "tiny"
    assert isinstance(torch_engine.load_to_decode(path)[0], Decoder)
    with monkeypatch.context() as three_threads:
        three_threads.setattr("torch.get_num_threads", lambda: 3)
        for model in (path, tiny_model_folder):
            assert torch_engine.load_to_decode(model)[0].threads.n_most == 3

    def without_compiler(*args):
        raise NoCompilerError

    monkeypatch.setattr(torch_engine, "Decoder", without_compiler)
    portable = torch_engine.TorchEngine.load(path)
    results = [one.infill(request) for one in (engine, portable)]
    assert results[0].text == results[1].text != ""
    assert results[0].n_predicted == results[1].n_predicted == 20


def test_a_raw_text_is_what_the_model_writes(engine, tiny_model, tiny_tokenizer):
    from techtree.lm.infer.generate import PrefixCache, generate
    from techtree.lm.infer.limits import Limits
    from techtree.lm.infer.sampling import SamplingParams

    prefix = "def f(x):\n    return"
    cache = PrefixCache(tiny_model, 128)
    ids = generate(
        cache,
        tiny_tokenizer.encode(prefix),
        Limits(12),
        sampling=SamplingParams(),
        stop_ids=tiny_tokenizer.stop_ids,
    )
    text = tiny_tokenizer.decode(ids)
    raw = engine.infill(InfillRequest(prefix, max_tokens=12, is_raw=True))
    assert raw.text == text
    stop = text[5:8]
    stopped = engine.infill(InfillRequest(prefix, max_tokens=12, is_raw=True, stop=(stop,)))
    assert (stopped.text, stopped.stopping_word) == (text[: text.index(stop)], stop)
    between = engine.infill(InfillRequest(prefix, "\n\nf(1)\n", max_tokens=12, is_raw=True))
    assert between.n_prompt > raw.n_prompt
