"""Answers that must have a form, from both engines; a form changes nothing of what has it anyway."""

import dataclasses
import json
import re

import pytest

from techtree.engines.engine import ChatRequest, Engine, Form, InfillRequest, Message
from techtree.errors import InputError

torch = pytest.importorskip("torch")

from lm.decoder_in_c import needs_decoder  # noqa: E402 - where there is PyTorch

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "def add(a, b):\n    total = a + b\n    return total\n"
ANY_TEXT = Form("gbnf", "root ::= .*")
SMALL_FORM = Form(
    "gbnf",
    r'''root ::= "{\"kind\":" ("\"red\"" | "\"green\"") ",\"on\":" boolean ",\"n\":" ("1" | "20" | "300") "}"
boolean ::= "true" | "false"''',
)
"""A JSON object without the blanks of which a random model writes many."""


def is_small(text):
    value = json.loads(text)
    return (
        list(value) == ["kind", "on", "n"]
        and value["kind"] in ("red", "green")
        and isinstance(value["on"], bool)
        and value["n"] in (1, 20, 300)
    )


@pytest.fixture(scope="module")
def product(tiny_model_folder) -> Engine:
    from techtree.engines.torch_engine import TorchEngine

    return TorchEngine.load(tiny_model_folder)


@pytest.fixture(scope="module")
def lessons(tiny_model_folder) -> Engine:
    from techtree.engines.numpy_engine import NumpyEngine

    return NumpyEngine.load(tiny_model_folder)


@pytest.fixture(params=["product", "lessons"])
def engine(request) -> Engine:
    return request.getfixturevalue(request.param)


def raw(form, max_tokens=100, **more):
    return InfillRequest("x = ", max_tokens=max_tokens, is_raw=True, form=form, **more)


def test_whatever_a_random_model_draws_has_the_form(product):
    texts = set()
    for seed in range(100):
        result = product.infill(raw(SMALL_FORM, temperature=2.0, seed=seed))
        assert result.stop == "end_of_text"
        assert is_small(result.text)
        texts.add(result.text)
    assert len(texts) > 6


def test_the_likeliest_text_of_a_form(engine):
    form = Form("gbnf", 'root ::= "[" ("red" | "green" | [0-9]{2,4}) ("," " "? [a-z])* "]"')
    result = engine.infill(raw(form, max_tokens=60))
    pattern = r"\[(red|green|[0-9]{2,4})(, ?[a-z])*\]"
    assert result.stop == "max_tokens" or re.fullmatch(pattern, result.text)
    assert re.match(r"\[(red|green|[0-9]{2,4})", result.text)


def test_the_engines_agree(product, lessons):
    for grammar in ("root ::= [a-z]+", 'root ::= "(" [a-z0-9 ]{1,9} ")"', 'root ::= ([A-Z] | "\\n" [b-d])*'):
        ours, theirs = (one.infill(raw(Form("gbnf", grammar), 15)) for one in (product, lessons))
        assert (ours.text, ours.stop, ours.n_predicted) == (theirs.text, theirs.stop, theirs.n_predicted)


def test_what_has_the_form_anyway_stays_token_for_token(engine):
    plain, tokens, free = engine.infill(raw(None, 20)), [], []
    for form in (
        ANY_TEXT,
        Form("gbnf", f"root ::= {json.dumps(plain.text[:9])} .*"),
        Form("gbnf", "root ::= [^~]+"),
    ):
        kept = engine.infill(raw(form, 20), on_token=tokens.append)
        assert (kept.text, kept.stop, kept.n_predicted) == (plain.text, plain.stop, plain.n_predicted)
    engine.infill(raw(None, 20), on_token=free.append)
    assert tokens == free * 3  # their probabilities too: the model's own


def test_the_end_of_the_form_ends_the_text(engine):
    result = engine.infill(raw(Form("json_schema", '{"const": "é😀"}')))
    assert (result.text, result.stop) == ('"é😀"', "end_of_text")
    exact = engine.infill(raw(Form("json_schema", '{"const": "é😀"}'), result.n_predicted))
    assert (exact.text, exact.stop) == ('"é😀"', "end_of_text")
    nothing = engine.infill(raw(Form("gbnf", 'root ::= ""')))
    assert (nothing.text, nothing.stop, nothing.n_predicted) == ("", "end_of_text", 0)


def test_a_limit_in_the_middle(engine):
    whole = engine.infill(raw(Form("json_schema", '{"const": "é😀𐍈"}')))
    for n in range(1, whole.n_predicted):
        part = engine.infill(raw(Form("json_schema", '{"const": "é😀𐍈"}'), n))
        assert part.stop == "max_tokens"
        assert whole.text.startswith(part.text)
        assert "\ufffd" not in part.text


def test_a_stop_string_within_a_form(engine):
    result = engine.infill(raw(Form("json_schema", '{"const": "abcdef"}'), stop=("cd",)))
    assert (result.text, result.stop, result.stopping_word) == ('"ab', "stop_string", "cd")


def test_pieces_and_tokens_come_as_they_are_made(engine):
    pieces, tokens = [], []
    form = Form("json_schema", '{"const": ["é", 12]}')
    result = engine.infill(raw(form, n_top=2), on_text=pieces.append, on_token=tokens.append)
    assert "".join(pieces) == result.text
    assert json.loads(result.text) == ["é", 12]
    assert b"".join(token.data for token in tokens).decode() == result.text
    assert all(len(token.top) == 2 for token in tokens)


def test_a_form_between_prefix_and_suffix_is_not_cut(engine):
    form = Form("gbnf", r'root ::= "1,\n2\n)\n```"')
    result = engine.infill(InfillRequest("f(\n    ", "\n)\n", max_tokens=50, n_indent=4, form=form))
    assert (result.text, result.stop) == ("1,\n2\n)\n```", "end_of_text")


def test_a_form_in_a_chat(chatting_folder):
    from techtree.engines.torch_engine import TorchEngine

    chatting = TorchEngine.load(chatting_folder)
    request = ChatRequest((Message("user", "hello"),), form=Form("json_schema", '{"const": {"a": null}}'))
    assert json.loads(chatting.chat(request).text) == {"a": None}
    assert chatting.chat(request).text == chatting.chat(request).text


def test_a_form_that_makes_no_sense(engine):
    with pytest.raises(InputError, match="a rule root"):
        engine.infill(raw(Form("gbnf", "nonsense")))
    with pytest.raises(InputError, match="JSON schema"):
        engine.infill(raw(Form("json_schema", "[]")))


@needs_decoder
def test_guesses_change_nothing(tiny_model, tiny_tokenizer, monkeypatch):
    """Beside PyTorch, which checks no guesses. The prompt repeats itself, so that there are some."""
    from techtree.lm.infer.constraint import Constraint, Grammars
    from techtree.lm.infer.generate import PrefixCache, generate
    from techtree.lm.infer.limits import Limits
    from techtree.lm.infer.sampling import SamplingParams
    from techtree.lm.native.decoder import Decoder

    n_guessed, n_cut = 0, 0
    accepted = Constraint.accepted

    def counted(self, tokens):
        nonlocal n_guessed, n_cut
        kept = accepted(self, tokens)
        n_guessed, n_cut = n_guessed + len(kept), n_cut + len(tokens) - len(kept)
        return kept

    monkeypatch.setattr(Constraint, "accepted", counted)
    grammars = Grammars(tiny_tokenizer)
    model = Decoder(tiny_model.config, dict(tiny_model.named_parameters()), 128)
    row = '[1, 2, "abc", 30, "abc", 1, 2, "abc", 31]\n'
    prompt = tiny_tokenizer.encode(row * 2)
    for grammar in (
        'root ::= ("[1, 2, \\"abc\\", 30, \\"" [a-z]{1,3} "\\", 1]\\n"){2,}',
        'root ::= "[" ([0-9]+ | "\\"abc\\"") (", " ([0-9]+ | "\\"abc\\""))* "]"',
        "root ::= ([0-9] | [a-c,] | [ ]){40,}",
    ):
        texts = []
        for each in (model, tiny_model):
            tokens = generate(
                PrefixCache(each, 128),
                prompt,
                Limits(50),
                sampling=SamplingParams(),
                stop_ids=tiny_tokenizer.stop_ids,
                constraint=grammars.constraint("gbnf", grammar),
            )
            texts.append(tiny_tokenizer.decode(tokens))
        assert texts[0] == texts[1] != ""
    assert n_guessed > 10
    assert n_cut > 0


def test_a_form_is_for_one_answer(product):
    request = raw(Form("json_schema", '{"const": "ab"}'))
    assert [product.infill(request).text for _ in range(3)] == ['"ab"'] * 3
    assert product.infill(dataclasses.replace(request, form=None, max_tokens=5)).text[:1] != '"'
