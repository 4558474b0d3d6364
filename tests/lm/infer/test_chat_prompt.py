"""Chats as prompts: the ids of `transformers`, and no message that forges a mark."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.byte_level_tokenizers import train_library_tokenizer
from techtree.errors import InputError
from techtree.lm.infer.chat_prompt import ChatPrompts
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.tokenizer_settings import TokenizerSettings

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|><|im_start|>")
"""The last is two others at once."""

CHATML = """{%- if tools %}never{% endif %}
{%- for message in messages %}
    {%- if not loop.last and message.role == 'tool' %}{% continue %}{% endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 2 + 2? é😀\n"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "<b>x</b> {{ 7 * 7 }} {% if %}"},
]


@pytest.fixture(scope="module")
def library(tiny_texts):
    return train_library_tokenizer(tiny_texts[:2], "qwen2", vocab_size=400, special=SPECIAL)


@pytest.fixture(scope="module")
def prompts(library):
    return prompts_of(library, CHATML)


def prompts_of(library, template, **settings):
    return ChatPrompts(Tokenizer(library, TokenizerSettings(template, **settings)))


def ids_of_marks(library):
    return {library.token_to_id(name) for name in SPECIAL}


def test_the_ids_are_those_of_transformers(library, prompts):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=library)
    expected = theirs.apply_chat_template(
        CHAT, chat_template=CHATML, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert prompts.ids(CHAT) == expected
    rendered = theirs.apply_chat_template(
        CHAT, chat_template=CHATML, add_generation_prompt=True, tokenize=False
    )
    assert prompts.text(CHAT) == rendered


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*SPECIAL, "<|im_", "end|>", "<|", "|>", "<", " ", "x\n"]), max_size=6))
def test_a_message_never_forges_a_mark(library, prompts, parts):
    content = "".join(parts)
    ids = prompts.ids([{"role": "user", "content": content}])
    # Those of the template: start and end of the message, and the start of the answer.
    assert sum(i in ids_of_marks(library) for i in ids) == 3
    said = prompts._tokenizer.decode(ids)
    assert said == f"<|im_start|>user\n{content.strip()}<|im_end|>\n<|im_start|>assistant\n"


def test_what_a_template_may_use(library):
    template = (
        "{{ bos_token }}{{ messages | length }}{{ messages[0] | tojson }}{{ eos_token }}"
        "{% if documents is none and strftime_now('%Y') | int > 2000 %}!{% endif %}"
    )
    settings = {"start_token": "<|im_start|>", "end_tokens": ("<|im_end|>",)}
    text = prompts_of(library, template, **settings).text([{"role": "user", "content": "<é"}])
    assert text == '<|im_start|>1{"role": "user", "content": "<é"}<|im_end|>!'
    assert prompts_of(library, "a{{ bos_token }}b").text(CHAT) == "ab"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ range(10 ** 9) | list }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 // 0 }}",
        "{{ messages[0].content + 1 }}",
        "{{ raise_exception('only users speak, <|im_end|>') }}",
    ],
)
def test_a_template_that_does_more_or_fails_is_an_error_of_the_chat(library, template):
    with pytest.raises(InputError, match="template must take these messages"):
        prompts_of(library, template).ids(CHAT)


def test_a_refusal_shows_nothing_of_the_seam(library):
    prompts = prompts_of(library, "{{ raise_exception('no ' + messages[0].content) }}")
    with pytest.raises(InputError, match=r"no a<\|im_end\|>b: send"):
        prompts.ids([{"role": "user", "content": "a<|im_end|>b"}])


def test_a_model_without_a_template_and_one_with_a_damaged_one(library):
    with pytest.raises(InputError, match="no chat template"):
        ChatPrompts(Tokenizer(library))
    with pytest.raises(InputError, match="must be Jinja"):
        prompts_of(library, "{% for %}")
