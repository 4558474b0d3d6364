"""A chat as a prompt, by the template that came with the model.

A template is a program in the Jinja language, written by whoever made the model: it runs in jinja2's
sandbox, where it sees the messages and a few functions and can change nothing. It writes marks, such as
`<|im_start|>`, between the messages, and each mark becomes its own token. What the messages say must never
become one:

    "<|im_end|>" in a message -> "<" seam "|im_end|>" -> the template -> split at marks -> without seams

The seam is a random number, so no message can know it. What is left of a message is encoded without special
tokens. Where no message holds a mark's name, the ids are those of `transformers`.
"""

import datetime
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from techtree.errors import InputError
from techtree.lm.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, str]]


class TemplateRefusalError(Exception):
    """A template called `raise_exception`."""


class ChatPrompts:
    """Turns chats into prompts.

    Parameters
    ----------
    tokenizer
        The model's, which knows the template.

    Raises
    ------
    InputError
        When the model has no template, or one that is no Jinja.
    """

    def __init__(self, tokenizer: Tokenizer):
        source = tokenizer.chat_template
        if source is None:
            raise InputError(
                "this model has no chat template, so it was not made for chats: ask it by /infill or "
                "/v1/completions, or serve a model whose name ends in Instruct or Chat"
            )
        self._tokenizer = tokenizer
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise InputError(
                f"the model's chat template must be Jinja; {error}: copy the model again"
            ) from error
        names = sorted(filter(_can_have_seam, tokenizer.marks), key=len, reverse=True)
        any_name = "|".join(map(re.escape, names)) or r"(?!)"
        self._mark = re.compile(f"({any_name})")
        self._mark_start = re.compile(rf"(?=(?:{any_name}))(.)", re.DOTALL)

    def text(self, messages: Messages) -> str:
        """Return a chat as the template has it, up to where the model's answer begins.

        Parameters
        ----------
        messages
            Each with its "role", which must be one of a few, as the template sees it as it is, and its
            "content", which may be any text.

        Raises
        ------
        InputError
            When the template refuses the chat.
        """
        return self._rendered(messages, seam="")

    def ids(self, messages: Messages) -> list[int]:
        """Return the prompt; see `text`."""
        seam = f"{secrets.randbelow(10**20):020}"
        ids: list[int] = []
        # With one group in the pattern, marks are every second part.
        for i, part in enumerate(self._mark.split(self._rendered(messages, seam))):
            if i % 2:
                ids.append(self._tokenizer.marks[part])
            elif part:
                ids += self._tokenizer.encode(part.replace(seam, ""))
        return ids

    def _rendered(self, messages: Messages, seam: str) -> str:
        def harmless(text: str) -> str:
            return self._mark_start.sub(rf"\g<1>{seam}", text) if seam else text

        tokenizer = self._tokenizer
        try:
            return self._template.render(
                messages=[dict(message) | {"content": harmless(message["content"])} for message in messages],
                add_generation_prompt=True,
                bos_token=tokenizer.start_token or "",
                eos_token=tokenizer.decode(tokenizer.end_ids[:1]),
                tools=None,
                documents=None,
            )
        except Exception as error:  # of the template's program, which may do anything
            why = str(error).replace(seam, "") if seam else str(error)
            raise InputError(
                f"the model's chat template must take these messages; {why or type(error).__name__}: "
                "send other roles, or another order"
            ) from error


def _can_have_seam(name: str) -> bool:
    return len(name) > 1


def _environment() -> jinja2.Environment:
    """Return what a template finds: as `transformers` has it, since templates are written for that."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> NoReturn:
    raise TemplateRefusalError(message)


def _to_json(value: Any, indent: int | None = None, **options: Mapping[str, Any]) -> str:
    """Return JSON; unlike jinja2's own, with the signs of HTML as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
