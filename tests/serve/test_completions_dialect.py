"""OpenAI's completions: what clients send and read. The real client, where it is installed, has its test."""

import importlib.util
import json

import pytest

from serve.loopback import FakeEngine, running
from techtree.engines.engine import InfillRequest, InfillResult, WrittenToken
from techtree.serve.completions_dialect import MOST_TOKENS, answer, parse_call, pieces
from techtree.serve.errors import ApiError


def test_what_is_left_out_is_openais_default():
    call = parse_call({"model": "any", "prompt": "x ="})
    assert call.request == InfillRequest("x =", max_tokens=16, temperature=1.0, is_raw=True)
    assert (call.is_stream, call.has_usage, call.echo) == (False, False, "")
    assert call.id != parse_call({"prompt": ""}).id


def test_every_field():
    body = {
        "prompt": ["x ="],
        "suffix": "y",
        "max_tokens": 99999,
        "stop": "\n",
        "temperature": 0,
        "top_p": 0.5,
    }
    body |= {"seed": 7, "echo": True, "stream": True, "stream_options": {"include_usage": True}, "n": 1}
    body |= {"best_of": 1, "logprobs": None, "presence_penalty": 0.0, "logit_bias": {}, "user": "me"}
    call = parse_call(body)
    expected = InfillRequest("x =", "y", (), MOST_TOKENS, ("\n",), top_p=0.5, seed=7, is_raw=True)
    assert call.request == expected
    assert (call.is_stream, call.has_usage, call.echo) == (True, True, "x =")
    assert parse_call({"prompt": "", "stop": ["a", "", "b"]}).request.stop == ("a", "b")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "", "n": 2}, "n"),
        ({"prompt": "", "best_of": 3}, "best_of"),
        ({"prompt": "", "logprobs": 6}, "logprobs"),
        ({"prompt": "", "logprobs": 1, "echo": True}, "logprobs"),
        ({"prompt": "", "presence_penalty": 0.5}, "presence_penalty"),
        ({"prompt": "", "logit_bias": {"50256": -100}}, "logit_bias"),
        ({"prompt": "", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "", "temperature": "hot"}, "temperature"),
        ({"prompt": "", "stop": 5}, "stop"),
        ({"prompt": "", "stop": ["a"] * 65}, "stop"),
        ({"prompt": "", "stream_options": True}, "stream_options"),
        ({"prompt": "", "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_what_is_refused_is_named(body, named):
    with pytest.raises(ApiError, match=f'"{named}"') as refused:
        parse_call(body)
    assert refused.value.status == 400


def test_an_answer_and_its_events():
    call = parse_call({"prompt": "x =", "echo": True, "stream_options": {"include_usage": True}})
    for stop, reason in (("end_of_text", "stop"), ("stop_string", "stop"), ("max_tokens", "length")):
        result = InfillResult(" 1", stop, n_prompt=5, n_predicted=2)
        whole = answer(call, result, (), "tiny")
        assert whole["choices"] == [{"text": "x = 1", "index": 0, "logprobs": None, "finish_reason": reason}]
        assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        assert (whole["object"], whole["model"], whole["id"]) == ("text_completion", "tiny", call.id)
        last, usage = pieces(call, result, (), "tiny")
        assert last["choices"][0] == {"text": "", "index": 0, "logprobs": None, "finish_reason": reason}
        assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    [event] = pieces(call, " 1", (), "tiny")
    assert event["choices"][0] == {"text": " 1", "index": 0, "logprobs": None, "finish_reason": None}


def test_a_request_and_a_stream(client, engine):
    answered = client.post("/v1/completions", json={"prompt": "def f():\n    "}).json()
    assert answered["choices"][0]["text"] == "return a + b"
    assert answered["choices"][0]["finish_reason"] == "stop"
    assert answered["usage"] == {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
    assert engine.requests[0].is_raw
    body = {"prompt": "x", "stream": True, "echo": True, "stream_options": {"include_usage": True}}
    streamed = client.post("/v1/completions", json=body)
    *events, done, rest = streamed.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    values = [json.loads(event.removeprefix("data: ")) for event in events]
    texts = [value["choices"][0]["text"] for value in values if value["choices"]]
    assert texts == ["x", "return ", "a + b", ""]
    assert values[-1]["usage"]["total_tokens"] == 24
    assert len({value["id"] for value in values}) == 1


def test_log_probabilities(client, engine):
    body = {"prompt": "x", "logprobs": 2}
    whole = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["return ", "a + b"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"return ": -0.25, "other": -2.0}, {"a + b": -0.25, "other": -2.0}],
        "text_offset": [0, 7],
    }
    assert engine.requests[0].n_top == 2
    streamed = client.post("/v1/completions", json=body | {"logprobs": 0, "stream": True}).text
    values = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
    parts = [value["choices"][0]["logprobs"] for value in values]
    assert [part and part["tokens"] for part in parts] == [["return "], ["a + b"], None]
    assert parts[1]["text_offset"] == [7]
    assert parts[1]["top_logprobs"] == [{}]


def test_tokens_that_a_stop_string_took_back_have_no_log_probability():
    call = parse_call({"prompt": "x", "logprobs": 0})
    tokens = [
        WrittenToken(b"a", -1.0, 0, ()),
        WrittenToken(b"b#", -2.0, 1, ()),
        WrittenToken(b"#", -3.0, 3, ()),
    ]
    told = answer(call, InfillResult("ab", "stop_string"), tokens, "tiny")["choices"][0]["logprobs"]
    assert told["tokens"] == ["a", "b#"]
    assert "null" in json.dumps(answer(parse_call({"prompt": "x"}), InfillResult("a", "rule"), tokens, "t"))


def test_a_refused_request_is_an_error_object(client):
    refused = client.post("/v1/completions", json={"prompt": "x", "n": 3, "stream": True})
    assert refused.status_code == 400
    assert "leave it out" in refused.json()["error"]["message"]


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="needs openai: pip install openai")
def test_the_real_client():
    import openai

    with (
        running(FakeEngine()) as address,
        openai.OpenAI(base_url=f"{address.url}/v1", api_key="none") as client,
    ):
        assert client.models.list().data[0].id == "fake"
        said = client.completions.create(model="fake", prompt="x", suffix="y", stop=["z"], max_tokens=9)
        assert said.choices[0].text == "return a + b"
        with client.completions.create(model="fake", prompt="x", stream=True) as events:
            assert "".join(event.choices[0].text for event in events) == "return a + b"
        said = client.completions.create(model="fake", prompt="x", logprobs=1).choices[0].logprobs
        assert said.tokens == ["return ", "a + b"]
        assert said.top_logprobs == [{"return ": -0.25}, {"a + b": -0.25}]
        with pytest.raises(openai.BadRequestError, match="logprobs"):
            client.completions.create(model="fake", prompt="x", logprobs=30)
