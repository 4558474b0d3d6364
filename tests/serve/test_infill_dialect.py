"""The dialect as pure functions: fields in, fields out."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from techtree.engines.engine import Chunk, InfillRequest, InfillResult
from techtree.serve.errors import ApiError
from techtree.serve.infill_dialect import MAX_N_PREDICT, answer, last_piece, parse_call, piece

MINIMAL = {"input_prefix": "a", "input_suffix": "b"}
RESULT = InfillResult("x\ny", "stop_string", "END", True, 20, 5, 30.0, 4, 8.0)


def parse(**fields):
    return parse_call(MINIMAL | fields)


def test_the_minimal_request_of_llama_cpps_tests():
    request = parse(prompt="p").request
    assert (request.prefix, request.suffix, request.temperature) == ("ap", "b", 0.0)
    assert request.slot is None
    assert not parse().is_stream
    assert parse().response_fields is None


def test_all_fields_arrive():
    call = parse(
        id_slot=3,
        input_extra=[{"filename": "f.py", "text": "t", "time": 12.5}],
        n_predict=7,
        stop=["\n\n", ""],
        n_indent=4,
        t_max_predict_ms=250,
        temperature=0.5,
        top_k=11,
        top_p=0.9,
        min_p=0.1,
        seed=5,
        stream=True,
        response_fields=["content"],
        cache_prompt=True,
        something_new={"x": 1},
    )
    assert call.request == InfillRequest(
        prefix="a",
        suffix="b",
        extra=(Chunk("f.py", "t"),),
        max_tokens=7,
        stop=("\n\n",),
        n_indent=4,
        temperature=0.5,
        top_k=11,
        top_p=0.9,
        min_p=0.1,
        seed=5,
        max_line_ms=250.0,
        slot=3,
    )
    assert call.is_stream
    assert call.response_fields == ("content",)


def test_null_is_left_out():
    names = ("prompt", "n_predict", "stop", "stream", "input_extra", "temperature", "response_fields")
    assert parse(**dict.fromkeys(names)) == parse()


def test_samplers_choose_the_filters():
    chosen = parse(samplers=["top_k", "infill"], temperature=1, top_k=9, top_p=0.5).request
    assert (chosen.top_k, chosen.top_p, chosen.min_p) == (9, 1.0, 0.0)
    usual = parse(temperature=1).request
    assert (usual.top_k, usual.top_p, usual.min_p) == (40, 0.95, 0.05)
    # These mean "off" for llama.cpp.
    off = parse(temperature=1, top_k=-1, top_p=1.5, min_p=0, seed=-1, t_max_predict_ms=0).request
    assert (off.top_k, off.top_p, off.min_p, off.seed, off.max_line_ms) == (0, 1.0, 0.0, None, None)


def test_caps():
    assert parse(n_predict=10**6).request.max_tokens == MAX_N_PREDICT
    assert parse(n_predict=64.0).request.max_tokens == 64
    assert parse(n_predict=0).request.max_tokens == 0


@pytest.mark.parametrize("n_predict", [-1, -2, -1.0, 2**40])
def test_as_many_tokens_as_there_are(n_predict):
    assert parse(n_predict=n_predict).request.max_tokens == MAX_N_PREDICT


@pytest.mark.parametrize("chunk", [{"text": "x"}, {"text": "x", "filename": None}, {"text": "x", "time": 3}])
def test_a_chunk_may_come_without_a_filename(chunk):
    named = {"text": "y", "filename": "b.py"}
    assert parse(input_extra=[chunk, named]).request.extra == (Chunk("tmp", "x"), Chunk("b.py", "y"))


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("\ud83d", "\ufffd"),
        ("a\ude00b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("😀\ud83d", "😀\ufffd"),
        ("\ufeff\ud800x", "\ufeff\ufffdx"),
    ],
)
def test_half_a_character_becomes_a_mark_in_every_text(text, whole):
    request = parse(
        input_prefix=text,
        input_suffix=text,
        prompt=text,
        input_extra=[{"text": text, "filename": text}],
        stop=[text],
    ).request
    assert (request.prefix, request.suffix) == (whole + whole, whole)
    assert (request.extra, request.stop) == ((Chunk(whole, whole),), (whole,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_prefix", None),
        ("input_prefix", 1),
        ("input_suffix", None),
        ("input_suffix", ["b"]),
        ("prompt", 3),
        ("prompt", [1, 2]),
        ("n_predict", -3),
        ("n_predict", "7"),
        ("n_predict", 7.5),
        ("n_predict", True),
        ("n_predict", [7]),
        ("n_predict", 10**30),
        ("n_indent", -1),
        ("n_indent", "4"),
        ("id_slot", -2),
        ("id_slot", "0"),
        ("stop", "x"),
        ("stop", [1]),
        ("stop", ["x"] * 65),
        ("stop", {"x": 1}),
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", True),
        ("temperature", 10**400),
        ("temperature", float("inf")),
        ("top_k", 1.5),
        ("top_p", "1"),
        ("top_p", -0.1),
        ("min_p", []),
        ("seed", "s"),
        ("samplers", 3),
        ("samplers", [3]),
        ("stream", 1),
        ("stream", "true"),
        ("t_max_predict_ms", -5),
        ("t_max_predict_ms", "fast"),
        ("response_fields", "content"),
        ("response_fields", [None]),
        ("input_extra", {}),
        ("input_extra", "x"),
    ],
)
def test_what_is_malformed_is_refused_by_name(field, value):
    with pytest.raises(ApiError, match=f'"{field}') as refused:
        parse(**{field: value})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("chunk", "name"),
    [
        ({}, "text"),
        ({"filename": "ok"}, "text"),
        ({"filename": ["a"], "text": "ok"}, "filename"),
        ({"filename": 123}, "filename"),
        ({"filename": 123, "text": "abc"}, "filename"),
        ({"filename": "ok", "text": 123}, "text"),
        ({"filename": "ok", "text": None}, "text"),
    ],
)
def test_each_bad_chunk_is_refused(chunk, name):
    good = {"filename": "a", "text": "b"}
    with pytest.raises(ApiError, match=rf'"input_extra\[1\]\.{name}"'):
        parse(input_extra=[good, chunk])


def test_a_chunk_is_an_object():
    with pytest.raises(ApiError, match=r'"input_extra\[0\]" must be an object'):
        parse(input_extra=["x"])


def test_long_values_are_not_repeated_in_errors():
    with pytest.raises(ApiError) as refused:
        parse(n_predict="9" * 10_000)
    assert len(refused.value.message) < 200


def test_the_answer_with_nested_timings():
    full = answer(parse(id_slot=2), RESULT, "m")
    assert next(iter(full)) == "content"
    assert full["content"] == "x\ny"
    assert (full["stop"], full["truncated"], full["has_new_line"]) == (True, True, True)
    assert (full["stop_type"], full["stopping_word"]) == ("word", "END")
    assert (full["tokens_evaluated"], full["tokens_predicted"], full["tokens_cached"]) == (20, 4, 23)
    assert full["id_slot"] == 2
    assert full["timings"] == {
        "cache_n": 5,
        "prompt_n": 15,
        "prompt_ms": 30.0,
        "prompt_per_token_ms": 2.0,
        "prompt_per_second": 500.0,
        "predicted_n": 4,
        "predicted_ms": 8.0,
        "predicted_per_token_ms": 2.0,
        "predicted_per_second": 500.0,
    }


def test_the_answer_with_chosen_fields():
    names = ["content", "timings/prompt_n", "truncated", "tokens_cached", "nothing", "timings/nothing", ""]
    assert answer(parse(response_fields=names), RESULT, "m") == {
        "content": "x\ny",
        "timings/prompt_n": 15,
        "truncated": True,
        "tokens_cached": 23,
    }
    assert answer(parse(response_fields=[""]), RESULT, "m") == {}
    assert answer(parse(response_fields=["timings", "content/x"]), RESULT, "m").keys() == {"timings"}


def test_an_empty_result_divides_by_nothing():
    full = answer(parse(), InfillResult("", "cancelled"), "m")
    assert full["content"] == ""
    assert full["tokens_cached"] == 0
    assert full["timings"]["prompt_per_second"] == 0.0
    assert full["stop_type"] == "none"


def test_half_of_a_cancelled_answer_is_no_answer():
    assert answer(parse(), InfillResult("ret", "cancelled"), "m")["content"] == ""
    assert answer(parse(), InfillResult("ret", "deadline"), "m")["content"] == "ret"


def test_events_of_a_stream():
    call = parse(response_fields=["content", "stop"])
    assert piece(call, "ab") == {"index": 0, "content": "ab", "tokens": [], "stop": False, "id_slot": 0}
    assert last_piece(call, RESULT, "m") == {"content": "", "stop": True}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("aé\ud800\0", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["filename", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
TEXTS = ("input_prefix", "input_suffix", "prompt")
NUMBERS = ("n_predict", "n_indent", "id_slot", "seed", "temperature", "top_k", "top_p", "t_max_predict_ms")
OTHERS = ("input_extra", "stop", "samplers", "stream", "response_fields", "unknown")
OTHERS += ("grammar", "json_schema", "response_format")
NAMES = st.sampled_from(TEXTS + NUMBERS + OTHERS)


@given(st.dictionaries(NAMES, JSON, max_size=8))
def test_nothing_but_an_api_error_comes_of_any_fields(fields):
    with contextlib.suppress(ApiError):
        assert parse_call(MINIMAL | fields).request.max_tokens >= 0
