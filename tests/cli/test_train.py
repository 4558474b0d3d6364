"""`techtree train`: what it makes, how it goes on, and what is wrong with its inputs."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from techtree.cli.main import main

pytest.importorskip("torch")

from lm.byte_level_tokenizers import train_library_tokenizer
from lm.families import FAMILIES, random_model
from techtree.lm.data.store import TokenStore
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.pipeline.run_folder import locked
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.tokenizer_settings import TokenizerSettings
from techtree.lm.train.checkpoint_folder import checkpoint_path, newest
from techtree.lm.train.step_log import CsvLog

SMALL = ["--depth", "1", "--steps", "12", "--batch-tokens", "256"]


@pytest.fixture(scope="module")
def data(tiny_texts, tmp_path_factory) -> Path:
    """Prepared data, rows of 64 tokens."""
    root = tmp_path_factory.mktemp("data")
    (root / "corpus").mkdir()
    for i, text in enumerate(tiny_texts):
        (root / "corpus" / f"a{i}.py").write_text(text, encoding="utf-8")
    words = ["--out", str(root / "prepared"), "--vocab-size", "400", "--seq-len", "64"]
    assert main(["data", str(root / "corpus"), *words]) == 0
    return root / "prepared"


def train(data: Path, out: Path, *words: str) -> int:
    return main(["train", str(data), "--out", str(out), *words])


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that was made in one go; read it, never write to it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(data, out, *SMALL, "--plot") == 0
    return out


def rows(run: Path) -> list[list[str]]:
    """The log's lines without the speed and the time."""
    return [line.split(",")[:4] for line in (run / "log.csv").read_text().splitlines()[1:]]


def test_the_folder_of_a_run(whole, data, capsys):
    names = {path.name for path in whole.iterdir()}
    assert names == {"checkpoints", "log.csv", "loss.svg", "model", "report.json", "train.json"}
    losses = newest(whole).state.losses
    assert [float(row[1]) for row in rows(whole)] == pytest.approx(losses)
    assert [int(row[0]) for row in rows(whole)] == list(range(1, 13))
    report = json.loads((whole / "report.json").read_text())
    assert (report["steps"], report["tokens"], report["batch_tokens"]) == (12, 12 * 256, 256)
    assert report["model"]["max_seq_len"] == 64
    # Width 64 and 256 tokens, against 256 and 2,048.
    assert report["rates"]["muon_lr"] == pytest.approx(0.01 / 8**0.5)
    assert report["rates"]["embedding_lr"] == pytest.approx(0.1 / 8**0.5 * 2)
    model, tokenizer = load_pretrained(whole / "model")
    assert model.config.n_parameters == report["n_parameters"]
    assert tokenizer.vocab_size == model.config.vocab_size == 400
    state = newest(whole)
    assert state.shapes["model.lm_head.weight"] == (400, 64)


def test_it_says_what_it_does_and_what_comes_next(data, tmp_path, capsys):
    assert train(data, tmp_path, *SMALL) == 0
    output = capsys.readouterr().out
    assert "1 layers of width 64" in output
    assert "12 steps, 3,072 tokens" in output
    assert "rates: matrices 0.00354, embedding 0.0707, head 0.00424, gains 0.0212" in output
    assert f"techtree serve --model {tmp_path / 'model'}" in output
    assert f"techtree eval {data} --model {tmp_path / 'model'}" in output


@pytest.mark.parametrize(
    ("shape", "model_type", "is_for_others"),
    [("experts", "qwen3_moe", True), ("speedrun", "techtree", False)],
)
def test_other_shapes_say_whether_others_can_compute_them(
    data, tmp_path, capsys, shape, model_type, is_for_others
):
    assert train(data, tmp_path / "run", *SMALL, "--depth", "2", "--shape", shape, "--steps", "3") == 0
    assert ("not for export" in capsys.readouterr().out) != is_for_others
    folder = tmp_path / "run" / "model"
    assert json.loads((folder / "config.json").read_text())["model_type"] == model_type
    model, _ = load_pretrained(folder)
    assert (model.config.speedrun is None) == is_for_others
    exported = main(["export", str(folder), "--to", "hf", "--out", str(tmp_path / "exported")])
    assert (exported == 0) == is_for_others
    assert train(data, tmp_path / "on", "--init", str(folder), "--steps", "2", "--batch-tokens", "256") == 0


def test_a_finished_run_says_so(whole, data, capsys):
    before = (whole / "report.json").stat().st_mtime_ns
    assert train(data, whole, *SMALL) == 0
    assert f"holds a finished run: choose another --out; to go on with its model, --init {whole}" in (
        capsys.readouterr().out
    )
    assert (whole / "report.json").stat().st_mtime_ns == before


def test_the_same_command_goes_on(whole, data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "parts"
    add = CsvLog.add

    def pressing_add(self, step):
        add(self, step)
        if step.step in (4, 9):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CsvLog, "add", pressing_add)
    for step in (4, 9):
        assert train(data, out, *SMALL) == 130
        assert "stopped; the same command goes on from here" in capsys.readouterr().err
        assert len(rows(out)) == step
    # Lines of steps that no checkpoint has, as a kill leaves them.
    with (out / "log.csv").open("a") as file:
        file.write("10,9,9,9,9,9\n11,9")
    assert train(data, out, *SMALL) == 0
    assert rows(out) == rows(whole)
    for name in ("model.safetensors", "config.json"):
        assert (out / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()


def change_last_file(folder: Path) -> None:
    """Make the data again, with one file changed."""
    corpus = folder.parent / "changed"
    shutil.copytree(folder.parent / "corpus", corpus)
    last = max(corpus.iterdir())
    last.write_text(last.read_text(encoding="utf-8").replace("the", "teh"), encoding="utf-8")
    shutil.rmtree(folder)
    words = ["--out", str(folder), "--vocab-size", "400", "--seq-len", "64"]
    assert main(["data", str(corpus), *words]) == 0


def change_rows(folder: Path) -> None:
    """Change a token of the last row."""
    (path,) = (folder / "tokens").glob("rows-*.npy")
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def change_origin(folder: Path) -> None:
    """Let it say that it was made from another text."""
    path = folder / "tokens" / "store.json"
    values = json.loads(path.read_text())
    values["shards"][0]["made_from"] = "0" * 32
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("change", [change_last_file, change_rows, change_origin])
def test_a_run_does_not_go_on_with_changed_data(change, data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "prepared"
    shutil.copytree(data.parent / "corpus", tmp_path / "corpus")
    shutil.copytree(data, folder)
    add = CsvLog.add

    def pressing_add(self, step):
        add(self, step)
        if step.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CsvLog, "add", pressing_add)
    words = ["--depth", "1", "--steps", "3", "--batch-tokens", "64"]
    assert train(folder, tmp_path / "run", *words) == 130
    change(folder)
    capsys.readouterr()
    assert train(folder, tmp_path / "run", *words) == 2
    assert "must resume on the data that it began with" in capsys.readouterr().err


def test_one_pass_over_the_data_is_the_default(data, tmp_path):
    assert train(data, tmp_path, "--depth", "1", "--batch-tokens", "8192", "--log", "none") == 0
    n_rows = TokenStore(data / "tokens").n_rows
    assert json.loads((tmp_path / "report.json").read_text())["steps"] == -(-n_rows // 128)
    assert not (tmp_path / "log.csv").exists()
    assert not (tmp_path / "loss.svg").exists()


def test_it_goes_on_with_a_given_model(whole, data, tmp_path, capsys):
    words = ["--init", str(whole / "model"), "--steps", "8", "--batch-tokens", "256"]
    assert train(data, tmp_path / "more", *words, "--log", "tensorboard") == 0
    more = newest(tmp_path / "more").state.losses
    # It begins where the other one ended, and not where that one began.
    assert more[0] < newest(whole).state.losses[0] - 0.3
    assert list((tmp_path / "more" / "tensorboard").glob("events.*"))
    # Another model would be another run.
    (tmp_path / "more" / "report.json").unlink()
    assert train(data, tmp_path / "more", "--depth", "1", *words[2:]) == 2
    assert "was begun with --init" in capsys.readouterr().err


def test_a_model_for_chats_keeps_its_end_of_turn_and_its_template(data, tiny_texts, tmp_path):
    """Whichever file names it: all that the given model had, the new one has."""
    library = train_library_tokenizer(tiny_texts, "qwen2", special=("<|endoftext|>", "<|im_end|>", "<|x|>"))
    end, turn, other = map(library.token_to_id, ("<|endoftext|>", "<|im_end|>", "<|x|>"))
    given, prepared = tmp_path / "given", tmp_path / "data"
    settings = TokenizerSettings("{{ messages }}", ("<|im_end|>",), (turn, other))
    tokenizer = Tokenizer(library, settings)
    config = dataclasses.replace(FAMILIES["qwen3"], vocab_size=tokenizer.vocab_size)
    save_pretrained(given, random_model(config), tokenizer)
    words = ["--out", str(prepared), "--tokenizer", str(given), "--seq-len", "64", "--fim-rate", "0"]
    assert main(["data", str(data.parent / "corpus"), *words]) == 0
    run = ["--steps", "1", "--batch-tokens", "64"]
    assert train(prepared, tmp_path / "run", "--init", str(given), *run) == 0
    for name in ("config.json", "generation_config.json"):
        values = json.loads((tmp_path / "run" / "model" / name).read_text())
        assert values["eos_token_id"] == [turn, other, end]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "run" / "model" / name).read_bytes() == (given / name).read_bytes()
    # A new model with that tokenizer has the template too, and so the token that the template ends with.
    assert train(prepared, tmp_path / "new", "--depth", "1", *run) == 0
    _, found = load_pretrained(tmp_path / "new" / "model")
    assert found.chat_template == "{{ messages }}"
    assert found.end_ids == (turn, end)


def test_it_branches_from_a_checkpoint(whole, data, tmp_path):
    source = checkpoint_path(whole, 12)
    words = ["--depth", "1", "--steps", "20", "--batch-tokens", "256", "--muon-lr", "0.001"]
    assert train(data, tmp_path, *words, "--branch-from", str(source)) == 0
    losses = newest(tmp_path).state.losses
    assert losses[:12] == newest(whole).state.losses
    assert len(losses) == 20
    assert [int(row[0]) for row in rows(tmp_path)] == list(range(13, 21))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shape", "experts", "--init", "x"], "--shape is for a new model"),
        (
            ["--batch-tokens", "100"],
            "must be a multiple of the data's 64 tokens a row; got 100: use 64",
        ),
        (["--batch-tokens", "32"], "use 64"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--depth", "0"], "--depth must be from 1 to 48"),
        (["--depth", "2", "--init", "x"], "--depth is for a new model"),
        (["--init", "nowhere"], "nowhere is not a folder"),
        (["--micro-batches", "5", "--batch-tokens", "256"], "n_micro_batches must be at most the rows"),
        (["--muon-lr", "-1"], "muon_lr must not be negative"),
        (["--branch-from", "nowhere"], "nowhere cannot be resumed"),
    ],
)
def test_wrong_inputs_are_one_clear_error(data, tmp_path, capsys, words, message):
    assert train(data, tmp_path / "run", *words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("techtree: error: ")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_folder_without_data_is_refused(tmp_path, capsys):
    assert train(tmp_path, tmp_path / "run") == 2
    assert "must hold a store of tokens" in capsys.readouterr().err


def test_a_model_with_another_tokenizer_is_refused(data, tiny_model, tiny_tokenizer, tmp_path, capsys):
    save_pretrained(tmp_path / "model", tiny_model, tiny_tokenizer)
    assert train(data, tmp_path / "run", "--init", str(tmp_path / "model")) == 2
    assert f"make the data with techtree data ... --tokenizer {tmp_path / 'model'}" in capsys.readouterr().err


def torchrun(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "techtree", "train", *words], capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["replicated", "sharded"])
def test_under_torchrun_it_trains_the_same_model(data, tmp_path, strategy):
    precise = ["--precision", "float32"]
    assert train(data, tmp_path / "one", *SMALL, *precise) == 0
    run = torchrun(str(data), "--out", str(tmp_path / "two"), *SMALL, *precise, "--strategy", strategy)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("12 steps, 3,072 tokens") == 1  # one of them speaks
    one, two = (newest(tmp_path / name).state.losses for name in ("one", "two"))
    # The ranks add up in another order, in float32.
    assert two == pytest.approx(one, abs=1e-5)
    models = [load_pretrained(tmp_path / name / "model")[0].state_dict() for name in ("one", "two")]
    assert models[0].keys() == models[1].keys()
    # A step of AdamW is as long for a gradient of rounding errors: the weights agree less than the losses.
    difference = max((models[0][name] - models[1][name]).abs().max().item() for name in models[0])
    assert difference < 1e-2


@pytest.mark.slow
def test_under_torchrun_an_error_is_told_once(data, tmp_path):
    run = torchrun(str(data), "--out", str(tmp_path / "run"), "--steps", "5", "--batch-tokens", "64")
    assert run.returncode != 0
    assert run.stderr.count("techtree: error: ") == 1
    assert "n_ranks must divide batch_size; got batch_size=1, n_ranks=2" in run.stderr


def test_a_second_training_in_the_same_folder_is_refused_at_once(data, tmp_path, capsys):
    with locked(tmp_path):
        assert train(data, tmp_path, *SMALL) == 2
    assert "is being filled by another process" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--branch-from", "--init"])
def test_a_mistyped_option_is_not_recorded(data, whole, tmp_path, option, capsys):
    right = {"--branch-from": str(checkpoint_path(whole, 12)), "--init": str(whole / "model")}[option]
    shape = ["--depth", "1"] if option == "--branch-from" else []
    words = [*shape, "--steps", "13", "--batch-tokens", "256", option]
    assert train(data, tmp_path, *words, right + "x") == 2
    assert train(data, tmp_path, *words, right) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda"], "--device cuda needs a GPU that PyTorch can use"),
        (["--seed", str(2**65)], "--seed must be"),
        (["--seed", str(2**63)], "--seed must be"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--steps", str(10**30)], "--steps must be 1000000000 at most"),
        (["--batch-tokens", str(64 * 10**40)], ""),
        (["--micro-batches", str(10**40)], "n_micro_batches must be at most"),
        (["--out", "x" * 300], "File name too long"),
        (["--out", "/dev/null/x"], "/dev/null/x must be a folder"),
        (["--out", "loop"], "loop"),
    ],
)
def test_extreme_options_are_one_sentence(data, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("loop").symlink_to("loop")
    assert main(["train", str(data), *words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("techtree: error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_data_that_is_a_loop_of_links_is_one_sentence(tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    assert main(["train", str(tmp_path / "loop"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
