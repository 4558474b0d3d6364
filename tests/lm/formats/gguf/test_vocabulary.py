"""What a GGUF file says of a tokenizer, and the tokenizers that it cannot describe."""

import json

import gguf
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors

from lm.byte_level_tokenizers import PRE_TOKENIZERS, train_library_tokenizer, train_tokenizer
from techtree.errors import InputError
from techtree.lm.formats.gguf.vocabulary import vocabulary_metadata
from techtree.lm.tokenizer import SPECIAL_TOKENS, Tokenizer
from techtree.lm.tokenizer_settings import TokenizerSettings

KEYS = gguf.Keys.Tokenizer
TYPES = gguf.TokenType
LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>")


def changed(tokenizer: Tokenizer, change) -> Tokenizer:
    """Return a tokenizer whose `tokenizer.json` was edited."""
    spec = json.loads(tokenizer.to_json())
    change(spec)
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)))


# ---- our own


@pytest.fixture
def metadata(tiny_tokenizer):
    return vocabulary_metadata(tiny_tokenizer, 515)


def test_every_id_has_a_token_and_a_type(metadata, tiny_tokenizer):
    tokens, types = metadata[KEYS.LIST], metadata[KEYS.TOKEN_TYPE]
    vocab = json.loads(tiny_tokenizer.to_json())["model"]["vocab"]
    assert len(tokens) == len(types) == 515
    assert tokens[:5] == list(SPECIAL_TOKENS)
    assert types[:5] == [TYPES.CONTROL] * 5
    assert {token: i for i, token in enumerate(tokens[:512])} == vocab
    assert types[5:512] == [TYPES.NORMAL] * 507
    assert tokens[512:] == ["[PAD512]", "[PAD513]", "[PAD514]"]
    assert types[512:] == [TYPES.UNUSED] * 3


def test_merges_are_in_the_order_of_their_rank(metadata, tiny_tokenizer):
    pairs = json.loads(tiny_tokenizer.to_json())["model"]["merges"]
    assert [merge.split(" ") for merge in metadata[KEYS.MERGES]] == pairs
    assert len(pairs) > 200


def test_special_ids_and_switches(metadata, tiny_tokenizer):
    assert metadata[KEYS.MODEL] == "gpt2"
    assert metadata[KEYS.PRE] == "qwen2"
    assert metadata[KEYS.ADD_BOS] is False
    ids = {
        KEYS.BOS_ID: tiny_tokenizer.end_of_text_id,
        KEYS.EOS_ID: tiny_tokenizer.end_of_text_id,
        KEYS.EOT_ID: tiny_tokenizer.end_of_text_id,
        KEYS.PAD_ID: tiny_tokenizer.end_of_text_id,
        KEYS.FIM_PRE_ID: tiny_tokenizer.fim_prefix_id,
        KEYS.FIM_SUF_ID: tiny_tokenizer.fim_suffix_id,
        KEYS.FIM_MID_ID: tiny_tokenizer.fim_middle_id,
        KEYS.FIM_SEP_ID: tiny_tokenizer.file_sep_id,
    }
    assert {key: metadata[key] for key in ids} == ids
    others = {KEYS.MODEL, KEYS.PRE, KEYS.LIST, KEYS.TOKEN_TYPE, KEYS.MERGES, KEYS.ADD_BOS}
    assert metadata.keys() == ids.keys() | others


def test_a_chat_template_comes_along(tiny_tokenizer):
    tokenizer = Tokenizer(json.loads(tiny_tokenizer.to_json()), TokenizerSettings("{{ messages }}"))
    assert vocabulary_metadata(tokenizer, 512)[KEYS.CHAT_TEMPLATE] == "{{ messages }}"
    assert KEYS.CHAT_TEMPLATE not in vocabulary_metadata(tiny_tokenizer, 512)


# ---- those of others


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_the_way_of_splitting_is_recognized(tiny_texts, name):
    tokenizer = train_tokenizer(tiny_texts[:1], name)
    assert vocabulary_metadata(tokenizer, 700)[KEYS.PRE] == name


def test_gpt_2s_pattern_may_be_written_out(tiny_texts):
    library = train_library_tokenizer(tiny_texts[:1], "gpt-2")
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), to_bytes])
    assert vocabulary_metadata(Tokenizer(library), 700)[KEYS.PRE] == "gpt-2"


def test_a_llama_3_begins_every_text_with_its_token(tiny_texts):
    tokenizer = train_tokenizer(tiny_texts[:1], "llama-bpe", special=LLAMA3_SPECIAL, bos="<|begin_of_text|>")
    begin, end, turn = (tokenizer.special_id(name) for name in LLAMA3_SPECIAL)
    found = vocabulary_metadata(tokenizer, 700)
    assert (found[KEYS.BOS_ID], found[KEYS.EOS_ID], found[KEYS.EOT_ID]) == (begin, end, turn)
    assert found[KEYS.ADD_BOS] is True
    assert KEYS.FIM_PRE_ID not in found


def test_a_qwen_normalizes_and_has_a_token_for_the_end_of_a_turn(tiny_texts):
    tokenizer = train_tokenizer(tiny_texts[:1], "qwen2", special=QWEN_SPECIAL, normalizer=normalizers.NFC())
    found = vocabulary_metadata(tokenizer, 700)
    assert found[KEYS.EOT_ID] == tokenizer.special_id("<|im_end|>")
    assert found[KEYS.EOS_ID] == found[KEYS.BOS_ID] == tokenizer.special_id("<|endoftext|>")
    assert found[KEYS.FIM_PRE_ID] == tokenizer.special_id("<|fim_prefix|>")
    assert found[KEYS.ADD_BOS] is False


def test_added_tokens_that_are_not_special_belong_to_the_user(tiny_texts):
    library = train_library_tokenizer(tiny_texts[:1], "qwen2")
    # Qwen2.5-Coder adds both in this way; a text must not be able to say the second.
    library.add_tokens(["<tool_call>", "<|fim_prefix|>"])
    found = vocabulary_metadata(Tokenizer(library), 700)
    i = library.token_to_id("<tool_call>")
    assert found[KEYS.LIST][i : i + 2] == ["<tool_call>", "<|fim_prefix|>"]
    assert found[KEYS.TOKEN_TYPE][i : i + 2] == [TYPES.USER_DEFINED, TYPES.CONTROL]
    assert found[KEYS.FIM_PRE_ID] == i + 1


# ---- what is refused


@pytest.mark.parametrize(
    "step",
    [
        pre_tokenizers.Split(Regex(r"\p{N}{1,2}|\w+"), "isolated"),
        pre_tokenizers.Split("'s|'t", "isolated"),
        pre_tokenizers.Digits(individual_digits=False),
    ],
)
def test_another_way_of_splitting_is_refused(tiny_texts, step):
    library = train_library_tokenizer(tiny_texts[:1], "gpt-2")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([step, to_bytes])
    with pytest.raises(InputError, match=r"must split text .* use one of qwen2, gpt-2, smollm"):
        vocabulary_metadata(Tokenizer(library), 700)


def test_whole_words_without_merges_under_another_name_are_refused(tiny_tokenizer):
    tokenizer = changed(tiny_tokenizer, lambda spec: spec["model"].update(ignore_merges=True))
    with pytest.raises(InputError, match="ignore_merges=True"):
        vocabulary_metadata(tokenizer, 700)


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_special_tokens_that_take_in_their_surroundings_are_refused(tiny_texts, option):
    library = train_library_tokenizer(tiny_texts[:1], "qwen2")
    library.add_special_tokens([AddedToken("<mask>", **{option: True})])
    with pytest.raises(InputError, match="'<mask>' takes in the spaces around it"):
        vocabulary_metadata(Tokenizer(library), 700)


@pytest.mark.parametrize("template", ["$A <|endoftext|>", "<|endoftext|> $A <|endoftext|>"])
def test_tokens_after_every_text_are_refused(tiny_texts, template):
    library = train_library_tokenizer(tiny_texts[:1], "qwen2")
    end = [("<|endoftext|>", library.token_to_id("<|endoftext|>"))]
    library.post_processor = processors.TemplateProcessing(single=template, special_tokens=end)
    with pytest.raises(InputError, match="at most one token, before the text"):
        vocabulary_metadata(Tokenizer(library), 700)


def test_a_name_that_padding_would_get_is_refused(tiny_texts):
    library = train_library_tokenizer(tiny_texts[:1], "qwen2", special=("<|endoftext|>", "[PAD690]"))
    with pytest.raises(InputError, match=r"'\[PAD690\]' comes twice"):
        vocabulary_metadata(Tokenizer(library), 700)
    assert vocabulary_metadata(Tokenizer(library), 690)[KEYS.PRE] == "qwen2"


def test_a_tokenizer_without_an_end_of_text_is_refused(tiny_texts):
    tokenizer = train_tokenizer(tiny_texts[:1], "qwen2", special=("<s>",))
    with pytest.raises(InputError, match=r"no special token '<\|endoftext\|>'"):
        vocabulary_metadata(tokenizer, 700)
