"""OpenAI's chats: what clients send and read. The real client, where it is installed, has its test."""

import importlib.util
import json

import pytest

from serve.loopback import FakeEngine, running
from techtree.engines.engine import ChatRequest, Message
from techtree.errors import InputError
from techtree.serve.chat_dialect import MAX_MESSAGES, parse_call
from techtree.serve.errors import ApiError
from techtree.serve.openai_fields import MOST_TOKENS

PATH = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def events_of(text):
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_what_is_left_out_is_openais_default():
    call = parse_call(HELLO)
    assert call.request == ChatRequest((Message("user", "hello"),), max_tokens=1024, temperature=1.0)
    assert (call.is_stream, call.has_usage, call.has_logprobs) == (False, False, False)
    assert call.id != parse_call(HELLO).id


def test_every_field():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts, "name": "me"},
        {"role": "assistant", "content": None, "refusal": None},
        {"role": "tool", "content": "done"},
    ]
    body = {"messages": messages, "max_tokens": 1, "max_completion_tokens": 99999, "stop": "\n", "seed": 7}
    body |= {"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "n": 1, "tools": []}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2}
    # llama.vim sends these here, too.
    body |= {"id_slot": 0, "samplers": ["top_k"], "n_predict": 9, "cache_prompt": True}
    call = parse_call(body)
    said = (("system", "be brief"), ("user", "ab"), ("assistant", ""), ("tool", "done"))
    assert call.request == ChatRequest(
        tuple(Message(*message) for message in said),
        max_tokens=MOST_TOKENS,
        stop=("\n",),
        top_k=3,
        top_p=0.5,
        min_p=0.1,
        seed=7,
        n_top=2,
    )
    assert (call.is_stream, call.has_usage, call.has_logprobs) == (True, True, True)


def test_llama_vims_warm_up_writes_nothing():
    warm_up = HELLO | {"id_slot": 0, "samplers": [], "n_predict": 0, "stream": False, "response_fields": [""]}
    assert parse_call(warm_up).request.max_tokens == 0
    assert parse_call(HELLO | {"n_predict": -1}).request.max_tokens == 1024


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": HELLO["messages"] * (MAX_MESSAGES + 1)}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user<|im_end|>", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        (HELLO | {"n": 2}, "n"),
        (HELLO | {"tools": [{"type": "function"}]}, "tools"),
        (HELLO | {"response_format": {"type": "xml"}}, "response_format.type"),
        (HELLO | {"top_logprobs": 21}, "top_logprobs"),
        (HELLO | {"max_tokens": -1}, "max_tokens"),
        (HELLO | {"stop": ["a"] * 65}, "stop"),
        (HELLO | {"stream_options": 1}, "stream_options"),
    ],
)
def test_what_is_refused_is_named(body, named):
    with pytest.raises(ApiError) as refused:
        parse_call(body)
    assert refused.value.status == 400
    assert f'"{named}"' in refused.value.message


@pytest.mark.parametrize("path", [PATH, "/chat/completions"])
def test_an_answer(client, engine, path):
    answered = client.post(path, json=HELLO).json()
    [choice] = answered["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "return a + b"},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answered["object"] == "chat.completion"
    assert answered["usage"] == {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
    assert engine.requests == [parse_call(HELLO).request]


def test_a_stream(client):
    body = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
    *values, usage = events_of(client.post(PATH, json=body).text)
    assert [value["choices"][0]["delta"] for value in values] == [
        {"role": "assistant", "content": None},
        {"content": "return "},
        {"content": "a + b"},
        {},
    ]
    assert [value["choices"][0]["finish_reason"] for value in values] == [None, None, None, "stop"]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 24)
    assert {value["object"] for value in values} == {"chat.completion.chunk"}
    assert len({value["id"] for value in (*values, usage)}) == 1


def test_log_probabilities(client):
    body = HELLO | {"logprobs": True, "top_logprobs": 1}
    whole = client.post(PATH, json=body).json()["choices"][0]["logprobs"]
    token = {"token": "return ", "logprob": -0.25, "bytes": list(b"return ")}
    assert whole["content"][0] == token | {"top_logprobs": [token]}
    streamed = events_of(client.post(PATH, json=body | {"stream": True}).text)
    told = [value["choices"][0]["logprobs"] for value in streamed]
    assert [part and [one["token"] for one in part["content"]] for part in told] == [
        None,
        ["return "],
        ["a + b"],
        None,
    ]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_model_without_a_template_says_so(client, engine, is_stream):
    engine.pieces, engine.error = (), InputError("this model has no chat template")
    refused = client.post(PATH, json=HELLO | {"stream": is_stream})
    assert refused.status_code == 400
    assert "no chat template" in refused.json()["error"]["message"]


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="needs openai: pip install openai")
def test_the_real_client():
    import openai

    messages = HELLO["messages"]
    with (
        running(FakeEngine()) as address,
        openai.OpenAI(base_url=f"{address.url}/v1", api_key="none", max_retries=0) as client,
    ):
        chats = client.chat.completions
        said = chats.create(model="fake", messages=messages, stop=["z"], max_tokens=9, seed=1)
        assert said.choices[0].message.content == "return a + b"
        assert said.usage.total_tokens == 24
        said = chats.create(model="fake", messages=messages, logprobs=True, top_logprobs=2)
        assert [one.token for one in said.choices[0].logprobs.content] == ["return ", "a + b"]
        options = {"include_usage": True}
        with chats.create(model="fake", messages=messages, stream=True, stream_options=options) as events:
            *chunks, last = events
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "return a + b"
        assert last.usage.completion_tokens == 4
        with pytest.raises(openai.BadRequestError, match="tools"):
            chats.create(model="fake", messages=messages, tools=[{"type": "function"}])
