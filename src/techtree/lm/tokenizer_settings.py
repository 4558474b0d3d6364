"""What stands beside `tokenizer.json`: the template for chats, and which tokens end a text."""

import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from techtree.atomic import write_text
from techtree.errors import InputError
from techtree.reading import is_missing, read_object, read_text

TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
MODEL_CONFIGS = ("generation_config.json", "config.json")
"""Of the model; where both name tokens that end a text, both count."""

MAX_CONFIG_BYTES = 20_000_000
"""Of tokenizer_config.json, in which some repeat thousands of tokens: the longest have 8 MB."""
MAX_TEMPLATE_BYTES = 4_000_000
_MAX_MODEL_CONFIG_BYTES = 10_000_000


@dataclass(frozen=True)
class TokenizerSettings:
    """What the files beside `tokenizer.json` say."""

    chat_template: str | None = None
    """How a chat becomes a text, in the Jinja language; None where the model is not made for chats."""
    end_tokens: tuple[str, ...] = ()
    """The names of tokens that end what a model says."""
    end_ids: tuple[int, ...] = ()
    """The same by number."""
    special_ids: frozenset[int] = frozenset()
    """Further tokens that belong to no text."""
    start_token: str | None = None
    """The name of the token that a template calls `bos_token`."""


def read_settings(folder: Path) -> TokenizerSettings:
    """Read what a folder says; files that are not there say nothing.

    Raises
    ------
    InputError
        When a file is damaged, or is none.
    """
    config = _read_optional(folder / TOKENIZER_CONFIG, MAX_CONFIG_BYTES)
    path = folder / CHAT_TEMPLATE
    if is_missing(path):
        template = _template(folder / TOKENIZER_CONFIG, config)
    else:
        template = read_text(path, MAX_TEMPLATE_BYTES)
    eos_token = _token_name(config, "eos_token")
    return TokenizerSettings(
        chat_template=template,
        start_token=_token_name(config, "bos_token"),
        end_tokens=() if eos_token is None else (eos_token,),
        end_ids=_end_ids(folder),
        special_ids=frozenset(_special_ids(config)),
    )


def write_settings(
    folder: Path, chat_template: str | None, end_of_text: str, end_token: str, start_token: str | None = None
) -> None:
    """Write the `tokenizer_config.json` that transformers wants.

    Parameters
    ----------
    folder
        Where the tokenizer lies.
    chat_template
        The template for chats, if any.
    end_of_text
        The token that ends a document.
    end_token
        The one that ends what the model says; of a model for chats, another one.
    start_token
        The one that the template calls `bos_token`, if any.
    """
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": start_token,
        "clean_up_tokenization_spaces": False,
        "eos_token": end_token,
        "pad_token": end_of_text,
        "unk_token": None,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    write_text(folder / TOKENIZER_CONFIG, json.dumps(config, indent=2) + "\n")
    (folder / CHAT_TEMPLATE).unlink(missing_ok=True)  # an older one, which would count


def _read_optional(path: Path, max_bytes: int) -> dict[str, Any]:
    return {} if is_missing(path) else read_object(path, max_bytes)


def _token_name(config: Mapping[str, Any], role: str) -> str | None:
    token = config.get(role)
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _template(path: Path, config: Mapping[str, Any]) -> str | None:
    """Return the template for chats; of several, the default one."""
    template = config.get("chat_template")
    if isinstance(template, list):
        if not all(isinstance(one, Mapping) for one in template):
            raise InputError(
                f"{path} is damaged (several chat templates must be objects; got {reprlib.repr(template)}): "
                "copy it again"
            )
        template = next((one.get("template") for one in template if one.get("name") == "default"), None)
    if not isinstance(template, str):
        return None
    try:
        template.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path} is damaged (its chat template holds half of a surrogate pair): copy it again"
        ) from error
    return template


def _end_ids(folder: Path) -> tuple[int, ...]:
    ids: dict[int, None] = {}
    for name in MODEL_CONFIGS:
        given = _read_optional(folder / name, _MAX_MODEL_CONFIG_BYTES).get("eos_token_id")
        for i in given if isinstance(given, list) else [given]:
            if i is not None and (type(i) is not int or i < 0):
                raise InputError(
                    f"eos_token_id in {folder / name} must be whole numbers; got {reprlib.repr(given)}: "
                    "copy it again"
                )
            if i is not None:
                ids[i] = None
    return tuple(ids)


def _special_ids(config: Mapping[str, Any]) -> Iterable[int]:
    """Yield the ids that transformers takes as special, whatever tokenizer.json says."""
    decoder = config.get("added_tokens_decoder")
    for i, token in decoder.items() if isinstance(decoder, Mapping) else ():
        if i.isdecimal() and len(i) < 10 and isinstance(token, Mapping) and token.get("special") is True:
            yield int(i)
