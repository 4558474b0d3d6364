"""What a `tokenizer.json` may not say, and what is taken out of it before the library sees it."""

import copy
import json

import pytest
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from lm.byte_level_tokenizers import PRE_TOKENIZERS, train_library_tokenizer, train_tokenizer
from techtree.errors import InputError
from techtree.lm.formats.gguf.vocabulary import GPT2_PATTERN
from techtree.lm.tokenizer import LLAMA3_PATTERN, QWEN2_PATTERN, Tokenizer
from techtree.lm.tokenizer_spec import may_take_ages

TEXT = "def f(x):\n    return 'é 日本 🙂', x  # 1234\r\n" * 40


@pytest.fixture(scope="module")
def spec(tiny_texts):
    """The contents of a good file."""
    names = ("<|endoftext|>", "<|im_end|>")
    return json.loads(train_library_tokenizer(tiny_texts, "qwen2", special=names).to_str())


@pytest.fixture
def loaded(tmp_path, spec):
    """Return a function that loads the good file with a change."""

    def load(change):
        values = copy.deepcopy(spec)
        change(values)
        (tmp_path / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
        return Tokenizer.load(tmp_path)

    return load


TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 10**9},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<nobody>",
}
TWICE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
    "pair": [],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(truncation=TRUNCATION),
        lambda spec: spec.update(truncation={"max_length": -1, "strategy": 3}),
        lambda spec: spec.update(padding=PADDING),
        lambda spec: spec.update(padding=PADDING | {"strategy": "BatchLongest", "pad_id": 2**31}),
        lambda spec: spec.update(post_processor=TWICE),
        lambda spec: spec.update(normalizer={"type": "Sequence", "normalizers": []}),
        lambda spec: spec.update(surprise=[1]),
        lambda spec: spec["model"].update(unk_token="<nobody>"),
        lambda spec: spec["model"].update(dropout=0.0),
    ],
    ids=["truncation", "bad truncation", "padding", "bad padding", "twice", "nothing", "key", "unk", "0"],
)
def test_what_is_not_used_is_taken_out(change, loaded):
    plain, found = loaded(lambda spec: None), loaded(change)
    for text in (TEXT, "", "a", "é"):
        assert found.encode(text) == found.encode_batch([text])[0] == plain.encode(text)
        assert found.encode(text, parse_special=True) == plain.encode(text, parse_special=True)
        assert found.decode(found.encode(text)) == text


@pytest.mark.parametrize("how", ["str", "list"])
def test_older_and_newer_files_are_the_same_tokenizer(how, loaded):
    def change(spec):
        pairs = spec["model"]["merges"]
        spec["model"]["merges"] = [" ".join(pair) if how == "str" else list(pair) for pair in pairs]
        for key in ("type", "ignore_merges", "byte_fallback", "dropout"):
            del spec["model"][key]
        del spec["truncation"], spec["padding"], spec["version"]

    assert loaded(change).to_json() == loaded(lambda spec: None).to_json()


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_it_is_written_as_the_library_writes_it(name, tiny_texts):
    library = train_library_tokenizer(tiny_texts[:1], name, bos="<|endoftext|>")
    assert Tokenizer(library).to_json() == library.to_str(pretty=True)


REPLACE = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 10_000}
REMOVED = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}


def vocabulary(change):
    def changed(spec):
        vocab = spec["model"]["vocab"]
        change(vocab)

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Ids.
        (vocabulary(lambda v: v.update(dict.fromkeys(v, 0))), "every token must have an id of its own"),
        (vocabulary(lambda v: v.update({"zz": v["a"]})), "both have"),
        (vocabulary(lambda v: v.update(zz=-1)), "'zz' has -1"),
        (vocabulary(lambda v: v.update(zz=2**40)), "a whole number from 0 to 16,777,215"),
        (vocabulary(lambda v: v.update(zz=1.5)), r"'zz' has 1\.5"),
        (vocabulary(lambda v: v.update(zz=True)), "'zz' has True"),
        (lambda s: s["added_tokens"][0].update(id=5), "one id of its own; '<|endoftext|>' has 5"),
        (lambda s: s["added_tokens"][1].update(id=s["added_tokens"][0]["id"]), "one id of its own"),
        (lambda s: s["added_tokens"].append(s["added_tokens"][0]), "or has two"),
        (lambda s: s["added_tokens"][0].update(content=""), "must have a name"),
        (lambda s: s["added_tokens"][0].update(content="\ud800"), "must have a name"),
        (lambda s: s["added_tokens"][0].update(special="yes"), "special must be true or false"),
        (lambda s: s.update(added_tokens={"a": 1}), "must be a list of objects"),
        # Text that would not come back.
        (vocabulary(lambda v: v.pop("z")), "none for 0x7a"),
        (vocabulary(lambda v: v.pop("Ġ")), "none for 0x20"),
        (vocabulary(lambda v: [v.pop("Ċ"), v.pop("ð")]), r"none for 0x0a \(2 in all\)"),
        (lambda s: s["model"].update(dropout=0.5), "dropout must be absent"),
        (lambda s: s["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix must be absent"),
        (lambda s: s.update(normalizer=REPLACE), "its normalizer Replace would change it"),
        (lambda s: s.update(normalizer={"type": "Lowercase"}), "Lowercase would change it"),
        (lambda s: s.update(normalizer={"type": "Sequence", "normalizers": [REPLACE]}), "Replace would"),
        (lambda s: s.update(normalizer={"type": 3}), "normalizer 3 would"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"].insert(0, REMOVED), "leave all of it as it is"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Whitespace"}), "all of it"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"].pop(), "must have one ByteLevel step; it has 0"),
        (lambda s: s.update(pre_tokenizer=None), "it has 0"),
        (
            lambda s: s["pre_tokenizer"]["pretokenizers"].append(s["pre_tokenizer"]["pretokenizers"][1]),
            "it has 2",
        ),
        (lambda s: s["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "all of it"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"].extend([REMOVED] * 10**5), "at most 32"),
        (lambda s: s["decoder"].update(type="Sequence", decoders=[REPLACE, {"type": "ByteLevel"}]), "alone"),
        # Merges.
        (lambda s: s["model"]["merges"].append(["a", "nobody"]), "does not: copy the file again"),
        (lambda s: s["model"]["merges"].append("a b c"), "must be a pair of tokens"),
        (lambda s: s["model"]["merges"].append(3), "must be a pair of tokens; got 3"),
        (lambda s: s["model"].update(merges={}), "merges must be a list"),
        # Other things.
        (lambda s: s["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "(("}), "is damaged"),
        (lambda s: s["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "x" * 10**5}), "split"),
        (lambda s: s.update(post_processor={"type": "Unknown"}), "must put known tokens"),
        (lambda s: s.update(post_processor=TWICE | {"special_tokens": {"a": {"ids": []}}}), "known tokens"),
        (lambda s: s.update(model=[]), "must have an object 'model'"),
    ],
)
def test_what_is_refused_before_the_library_sees_it(change, message, loaded, capfd):
    with pytest.raises(InputError, match=message) as raised:
        loaded(change)
    assert "tokenizer.json" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")  # a panic of the library would stand here


O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*"
)
QUICK = [
    *(
        QWEN2_PATTERN,
        LLAMA3_PATTERN,
        GPT2_PATTERN,
        O200K,
        DEEPSEEK,
        "[0-9][0-9][0-9]",
        r"\s?[A-Za-zµÀ-Ö]+",
        "",
    ),
    *(
        r"\d{1,3}(?=(?:\d{3})*\b)",
        r"(?:\(\+\))+",
        r"[(a+)+]",
        r"(?:ab)+c*",
        r"(a|b)?c+",
        "(",
        ")",
        ")+",
        "a{,3}",
        "{}",
    ),
]
SLOW = [
    *(
        r"(a+)+b",
        r"(a|aa)+$",
        r"(?:a*)*",
        r"((a?b)c)*",
        r"(?:a{1,2})+",
        r"(?:a+){2,}",
        r"(x(?=a+))+",
        r"(?i:a|b)+c",
    ),
    *(r"([a-z]+)*\d", r"(\p{L}+)+", r"(?:\)+)+"),
]


def test_patterns_that_take_ages_are_known():
    assert [pattern for pattern in QUICK if may_take_ages(pattern)] == []
    assert [pattern for pattern in SLOW if not may_take_ages(pattern)] == []


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_take_ages_are_refused(pattern, loaded):
    def change(spec):
        spec["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}

    with pytest.raises(InputError, match="must not repeat what repeats"):
        loaded(change)


def test_a_pattern_on_which_the_library_gives_up_is_one_clear_error(loaded):
    def change(spec):
        spec["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "a*a*a*a*a*$"}

    tokenizer = loaded(change)
    assert tokenizer.decode(tokenizer.encode("aab c")) == "aab c"
    with pytest.raises(InputError, match="its pattern gave up"):
        tokenizer.encode("a" * 2000 + "c")


@pytest.mark.parametrize(
    "step", [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Whitespace(), "prefix"]
)
def test_steps_that_change_the_text_are_refused(tiny_texts, step):
    library = train_library_tokenizer(tiny_texts[:1], "gpt-2")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=step == "prefix", use_regex=False)
    library.pre_tokenizer = to_bytes if step == "prefix" else pre_tokenizers.Sequence([step, to_bytes])
    with pytest.raises(InputError, match="leave all of it as it is"):
        Tokenizer(library)


@pytest.mark.parametrize("normalizer", [normalizers.NFKC(), normalizers.Lowercase()])
def test_normalizers_that_change_the_text_are_refused(tiny_texts, normalizer):
    with pytest.raises(InputError, match="must leave text as it is"):
        train_tokenizer(tiny_texts[:1], "qwen2", normalizer=normalizer)


@pytest.mark.parametrize("key", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_marks_within_words_are_refused(tiny_texts, key):
    library = tokenizers.Tokenizer(models.BPE({"a": 0, "<|endoftext|>": 1}, [], **{key: "@@"}))
    reference = train_library_tokenizer(tiny_texts[:1], "qwen2")
    library.pre_tokenizer, library.decoder = reference.pre_tokenizer, reference.decoder
    with pytest.raises(InputError, match=f"{key} must be absent"):
        Tokenizer(library)
