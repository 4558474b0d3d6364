"""nanoGPT as a peer, run from a copy of somebody's checkout of it; its own files stay as they are.

https://github.com/karpathy/nanoGPT
"""

import importlib.util
import pickle
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from shakespeare import WINDOW, Characters
from techtree.errors import InputError

ADVICE = "give --nanogpt PATH, a checkout of https://github.com/karpathy/nanoGPT, to compare with it"

CPU_RECIPE = (
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=100",
    f"--block_size={WINDOW}",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
)
"""What its README recommends for a CPU, but for `log_interval`, which prints less here."""


def check(checkout: Path) -> None:
    """Make sure that a folder is a checkout.

    Raises
    ------
    InputError
        When it is none.
    """
    for name in ("train.py", "model.py", "config/train_shakespeare_char.py"):
        if not (checkout / name).is_file():
            raise InputError(f"--nanogpt must name a checkout of nanoGPT; {checkout} has no {name}: {ADVICE}")


def commit(checkout: Path) -> str:
    """Return the first digits of the commit, or a question mark where there is no git."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def copy_with_text(checkout: Path, to: Path, text: Characters) -> None:
    """Copy a checkout, and write the text into the copy as its `prepare.py` would, which downloads it."""
    check(checkout)
    shutil.copytree(checkout, to, ignore=shutil.ignore_patterns(".git", "out*", "assets", "*.ipynb"))
    folder = to / "data" / "shakespeare_char"
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in (("train", text.train), ("val", text.held_out)):
        ids.numpy().astype(np.uint16).tofile(folder / f"{name}.bin")
    by_number = dict(enumerate(text.alphabet))
    by_character = {character: i for i, character in by_number.items()}
    meta = {"vocab_size": len(text.alphabet), "itos": by_number, "stoi": by_character}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def model_module(checkout: Path) -> ModuleType:
    """Import its `model.py`, under a name of its own."""
    check(checkout)
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained_model(copy: Path) -> Any:
    """Return the model of the last checkpoint that training in a copy wrote."""
    path = copy / "out-shakespeare-char" / "ckpt.pt"
    saved = torch.load(path, map_location="cpu", weights_only=True)  # only tensors and plain values
    module = model_module(copy)
    model = module.GPT(module.GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    return model.eval()


def logits(model: Any) -> Any:
    """Return the function from tokens to logits; without targets its model gives the last token's only."""
    return lambda ids: model(ids, ids)[0]
