"""A model that can chat."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def chatting_folder(tiny_model, tiny_tokenizer, tmp_path_factory) -> Path:
    """The tiny model with a template for chats; read it, never write to it."""
    from techtree.lm.formats.huggingface import save_pretrained

    folder = tmp_path_factory.mktemp("chats") / "tiny"
    save_pretrained(folder, tiny_model, tiny_tokenizer)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<file_sep>{{ m.role }}:{{ m.content }}<|endoftext|>{% endfor %}a:"
    )
    return folder
