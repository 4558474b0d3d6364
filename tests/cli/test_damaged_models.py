"""Damage to every file of a model's folder: a right result, or one sentence and exit code 2.

Each command runs under limits of memory (4 GB) and time; see damage_run.py.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("resource")

import safetensors.torch

from lm.byte_level_tokenizers import train_library_tokenizer
from lm.families import FAMILIES, random_model
from lm.gguf_models import quantize
from techtree.lm.formats.gguf import save_gguf
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.tokenizer_settings import TokenizerSettings

RUN = Path(__file__).parents[1] / "damage_run.py"
SOURCE = b"def add(a, b):\n    return a\n" * 3

COMMANDS: dict[str, list[str]] = {
    "import": ["import", "model", "--out", "imported"],
    "import float16": ["import", "model", "--out", "imported", "--dtype", "float16"],
    "hf": ["export", "model", "--to", "hf", "--out", "exported"],
    "gguf": ["export", "model", "--to", "gguf", "--out", "exported.gguf"],
    "eval": ["eval", "x.py", "--model", "model"],
    "complete": ["complete", "x.py:2:12", "--model", "model", "--max-tokens", "4"],
    "data": ["data", "corpus", "--out", "data", "--tokenizer", "model", "--seq-len", "32", "--fim-rate", "0"],
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def is_right(self) -> bool:
        """Whether it did its work, or refused it in one sentence."""
        if self.code == 2:
            is_sentence = self.err.startswith("techtree: error: ") and self.err.count("\n") == 1
            return is_sentence and len(self.err) < 2500
        return self.code == 0 and "nan" not in self.out and "Traceback" not in self.err


@pytest.fixture(scope="module")
def folders(tiny_texts, tmp_path_factory) -> dict[str, Path]:
    """A Qwen3 for chats in one file, a GPT-2 in several; to be read, never to be written."""
    names = (
        "<|endoftext|>",
        "<|im_end|>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|file_sep|>",
    )
    library = train_library_tokenizer(tiny_texts, "qwen2", vocab_size=500, special=names, bos=names[0])
    tokenizer = Tokenizer(library, TokenizerSettings("{{ messages }}", ("<|im_end|>",), (501, 500)))
    root = tmp_path_factory.mktemp("whole")
    for name, max_shard_bytes in (("qwen3", 10**9), ("gpt2", 100_000)):
        save_pretrained(root / name, random_model(FAMILIES[name]), tokenizer, max_shard_bytes=max_shard_bytes)
        (root / name / "chat_template.jinja").write_text("{{ messages }}")
        (root / name / "special_tokens_map.json").write_text("{}")
        (root / name / "added_tokens.json").write_text("{}")
        (root / name / "LICENSE").write_text("MIT")
    return {path.name: path for path in root.iterdir()}


class Place:
    """Folders with damaged models, and what the commands made of them.

    Parameters
    ----------
    root
        Where they are made.
    folders
        The whole ones.
    runner
        Runs the commands.
    texts
        For a corpus.
    """

    def __init__(self, root: Path, folders: dict[str, Path], runner: subprocess.Popen, texts: list[str]):
        self.root, self.folders, self.runner, self.texts = root, folders, runner, texts
        self.cases: list[dict] = []

    def add(self, command: str, change: Callable[[Path], object], model: str = "qwen3") -> None:
        """Note a command on a model with some damage."""
        cwd = self.root / str(len(self.cases))
        shutil.copytree(self.folders[model], cwd / "model")
        change(cwd / "model")
        (cwd / "x.py").write_bytes(SOURCE)
        (cwd / "corpus").mkdir()
        for i, text in enumerate(self.texts):
            (cwd / "corpus" / f"{i}.py").write_text(text[:3000], encoding="utf-8")
        self.cases.append({"words": COMMANDS[command], "cwd": str(cwd)})

    def run(self) -> list[Ended]:
        """Run all that was noted."""
        found = []
        for case in self.cases:
            self.runner.stdin.write(json.dumps(case) + "\n")
            self.runner.stdin.flush()
            found.append(ended := Ended(**json.loads(self.runner.stdout.readline())))
            if ended.code == 2:  # nothing half made
                left = {path.name for path in Path(case["cwd"]).iterdir()}
                assert left <= {"model", "x.py", "corpus", "data"}, (case, ended, left)
        return found


@pytest.fixture(scope="module")
def runner():
    """A process that runs the commands."""
    # RLIMIT_AS counts what threads reserve, too.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, str(RUN)], **pipes, text=True, env=environment) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def place(tmp_path, folders, runner, tiny_texts):
    return Place(tmp_path, folders, runner, tiny_texts[:3])


def change_json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        change(values)
        (folder / name).write_text(json.dumps(values), encoding="utf-8")

    return changed


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return changed


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 5 << 30)


def deep(path: Path) -> None:
    path.write_text('{"a":' * 100_000)


KINDS = {"fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "sparse": sparse}
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE")


def test_whole_folders_give_results(place):
    for model in ("qwen3", "gpt2"):
        for command in COMMANDS:
            place.add(command, lambda folder: None, model)
    assert [(ended.code, ended.err) for ended in place.run() if ended.code or ended.out.count("nan")] == []


def test_other_kinds_of_files_are_refused_at_once(place):
    """Where a command reads the file, by name; `import` and `data` reach every one of them."""
    for kind, make in KINDS.items():
        for name in FILES:
            place.add("import", replaced(name, make))
        place.add("import", replaced("chat_template.jinja", make))
        place.add("data", replaced("tokenizer.json", make))
        if kind != "sparse":  # a file of zeros is no safetensors file, whatever its length
            place.add("eval", replaced("model-00002-of-00003.safetensors", make), "gpt2")
            place.add("import", replaced("model.safetensors", make))
        place.add("import", replaced("model.safetensors.index.json", make), "gpt2")
    place.add("complete", replaced("model.safetensors", sparse))
    found = place.run()
    assert [ended for ended in found if ended.code != 2 or not ended.is_right] == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named_by_every_command(value, place):
    name = "model.layers.1.self_attn.q_proj.weight"

    def damaged(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        tensors[name][3, 3] = value
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    reading = [command for command in COMMANDS if command != "data"]
    for command in reading:
        place.add(command, damaged)
    for command, ended in zip(reading, place.run(), strict=True):
        assert ended.code == 2, command
        assert f"error: {name} in " in ended.err
        assert f"it holds {value}: copy or download it again" in ended.err
        assert ended.out == ""


def test_numbers_of_a_config_that_nobody_can_compute(place):
    """A result is allowed, as what is not used does no harm; NaN is none."""
    config = {"max_position_embeddings": 1 << 40, "rms_norm_eps": 1e300, "rope_theta": 1e300}
    scaled = {"rope_type": "linear", "factor": 1e308, "rope_theta": 1e4}
    small = {"rope_type": "default", "rope_theta": 1e-300}
    for values in (config, {"rope_parameters": scaled}, {"rope_parameters": small}, {"rms_norm_eps": 1e-320}):
        for command in ("import", "gguf", "eval", "complete"):
            place.add(command, change_json("config.json", lambda spec, values=values: spec.update(values)))
    found = place.run()
    assert [ended for ended in found if not ended.is_right] == []
    assert [ended.code for ended in found[1::4]] == [2] * 4


def test_deep_and_odd_json(place):
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        place.add("import", replaced(name, deep))
        place.add("import", replaced(name, lambda path: path.write_bytes(b"\xff{}")))
        place.add("complete", replaced(name, lambda path: path.write_text("[" + "9" * 5000 + "]")))
    found = place.run()
    assert [ended for ended in found if ended.code != 2 or not ended.is_right] == []


def test_files_that_are_no_gguf_are_refused(place):
    whole = b"GGUF\3\0\0\0" + bytes(100)
    for data in (whole, whole[:5], b"", whole.replace(b"\3", b"\xff"), b"\xff" * 100):
        place.add("import", lambda folder, data=data: (folder / "x.gguf").write_bytes(data))
        place.cases[-1]["words"] = ["import", "model/x.gguf"]
    assert all(ended.is_right and ended.code == 2 for ended in place.run())


def test_a_damaged_gguf_file_is_refused_or_is_another_model(place):
    whole = place.root / "whole.gguf"
    save_gguf(whole, *load_pretrained(place.folders["qwen3"]))
    quantize(whole, place.root / "quantized.gguf", "Q8_0")
    for seed in range(40):

        def change(folder: Path, seed=seed) -> None:
            source = place.root / ("whole.gguf" if seed % 2 else "quantized.gguf")
            shutil.copyfile(source, folder / "x.gguf")
            damage_bytes(folder / "x.gguf", random.Random(seed))

        place.add("import", change)
        place.cases[-1]["words"] = ["import", "model/x.gguf", "--out", "imported"]
    found = place.run()
    assert [ended for ended in found if not ended.is_right] == []
    assert sum(ended.code == 2 for ended in found) > 20


# Random damage -------------------------------------------------------------------------------------------

VALUES = (
    *(None, True, [], {}, "", "x", "\ud800", -1, 0, 1, 2**31, 2**62, 2**64, 10**400, 1e308, 1e-308, 0.5),
    *(float("nan"), float("inf"), [[[]]], {"a": {"b": 1}}, "x" * 10_000, [1] * 1000),
)


def places_in(value: object, path: tuple = ()) -> list[tuple]:
    """Return the ways to all values within a JSON value, some of long ones."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:40]:
        found += places_in(inner, (*path, key))
    return found


def damage_json(path: Path, rng: random.Random) -> None:
    """Replace, remove or double one value, or change a key."""
    values = json.loads(path.read_text(encoding="utf-8"))
    *way, last = rng.choice([one for one in places_in(values) if one] or [("x",)])
    inner = values
    for key in way:
        inner = inner[key]
    kind = rng.choice(["replace", "replace", "replace", "remove", "rename"])
    if kind == "remove" and last in (inner if isinstance(inner, dict) else ()):
        del inner[last]
    elif kind == "rename" and isinstance(inner, dict):
        inner[rng.choice(["x", "", last + last if isinstance(last, str) else "y"])] = inner.pop(last, 3)
    else:
        inner[last] = rng.choice(VALUES)
    path.write_text(json.dumps(values), encoding="utf-8", errors="surrogatepass")


def damage_bytes(path: Path, rng: random.Random) -> None:
    """Flip, cut, double or fill some bytes, more often at the beginning."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * rng.random() ** 4)
    n = rng.choice([1, 1, 8, 1000])
    match rng.randrange(5):
        case 0:
            data[at : at + n] = rng.randbytes(len(data[at : at + n]))
        case 1:
            del data[at:]
        case 2:
            del data[at : at + n]
        case 3:
            data[at:at] = data[at : at + n] or b"x"
        case _:
            data[at : at + n] = rng.choice([b"\0", b"\xff", b"[", b"9"]) * len(data[at : at + n])
    path.write_bytes(data)


def damage(folder: Path, rng: random.Random) -> None:
    """Damage one file in one way or, at times, several."""
    for _ in range(rng.choice([1, 1, 1, 3])):
        path = rng.choice(sorted(folder.iterdir()))
        if path.suffix == ".json" and rng.random() < 0.7:
            try:
                damage_json(path, rng)
                continue
            except (ValueError, KeyError, TypeError, IndexError):
                pass  # it was damaged before
        damage_bytes(path, rng)


def fuzz(place: Place, seed: int, n_cases: int) -> None:
    rng = random.Random(seed)
    for _ in range(n_cases):
        model, command = rng.choice(["qwen3", "gpt2"]), rng.choice(sorted(COMMANDS))
        place.add(command, lambda folder: damage(folder, rng), model)
    found = place.run()
    wrong = [(case, ended) for case, ended in zip(place.cases, found, strict=True) if not ended.is_right]
    assert wrong == []
    assert {ended.code for ended in found} == {0, 2}


def test_random_damage(place):
    fuzz(place, seed=0, n_cases=30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_much_random_damage(place, seed):
    fuzz(place, seed, n_cases=250)
