"""`techtree pull`: a model from the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from techtree.errors import InputError


@dataclass(frozen=True)
class Config:
    """Download a model from the Hugging Face hub, and check that it can be read.

    Only safetensors, configuration and tokenizer are downloaded. After Ctrl-C or a broken connection, the
    same command goes on where it stopped.
    """

    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """The model's name on the hub, such as Qwen/Qwen2.5-Coder-0.5B."""

    revision: str | None = None
    """A branch, a tag or a commit; the main branch when left out."""

    out: Path | None = None
    """The folder to make; runs/NAME/model when left out."""


def run(config: Config) -> int:
    """Download, check, and say how to go on."""
    name = config.repository.strip("/").rpartition("/")[2]
    if not name:
        raise InputError(f"a model's name must be OWNER/NAME, as on the hub; got {config.repository!r}")
    folder = config.out or Path("runs") / name / "model"
    from techtree.cli.next_steps import next_steps
    from techtree.lm.formats.huggingface.copying import describe
    from techtree.lm.formats.huggingface.hub import pull

    model = pull(config.repository, folder, config.revision, say=lambda line: print(line, flush=True))
    print(f"pulled    {folder}: {describe(folder, model)}")
    print(next_steps(folder))
    return 0
