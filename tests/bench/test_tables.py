import subprocess
import sys

import pytest

import loading
import numpy_speedrun
import report
import throughput
import time_to_loss
from techtree.errors import InputError
from techtree.lm.model import LanguageModel


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_table_is_aligned():
    found = report.table(["who", "seconds"], [["we", 1.5], ["they", 12]])
    assert found.splitlines() == [
        "| who  | seconds |",
        "| :--- | ------: |",
        "| we   |     1.5 |",
        "| they |      12 |",
    ]


def test_the_conditions_name_the_machine_and_the_versions():
    found = report.conditions("torch", n_threads=2)
    assert "machine: " in found
    assert "2 of " in found
    assert "techtree 0" in found
    assert "torch 2" in found


def test_again_is_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench/loading.py", "--runs", "2", "a b"])
    assert report.again() == "again: ./techtree bench loading --runs 2 'a b'"


def test_time_to_loss_shows_the_worst_loss_and_the_median_time():
    ours = [time_to_loss.Result(s, loss, 800, 80, 1.0) for s, loss in ((3.0, 1.8), (2.0, 1.9), (4.0, 1.85))]
    theirs = [time_to_loss.Result(60.0, 1.95, 804, 2000)]
    head, _, first, second = cells(time_to_loss.compared(ours, theirs, []))
    assert dict(zip(head, first, strict=True)) == {
        "program": "nanoGPT",
        "parameters": "804",
        "steps": "2,000",
        "held-out loss": "1.9500",
        "seconds (all runs)": "60.0",
        "share of nanoGPT's": "1/1.0",
    }
    assert second[3:] == ["1.9000 (best 1.8000)", "3.0 (3.0 2.0 4.0)", "1/20.0"]
    lessons = [time_to_loss.Result(30.0, 1.7, 820, 300)]
    *_, first, second, _ = cells(time_to_loss.compared(ours, theirs, [], lessons))
    assert (first[0], second[0], second[3:]) == (
        "nanoGPT",
        "techtree's lessons, NumPy",
        ["1.7000", "30.0", "1/2.0"],
    )


def test_the_lessons_train_on_numpy_alone(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question\n" * 40, encoding="utf-8")
    program = time_to_loss.NUMPY_SPEEDRUN
    words = [str(tmp_path), "--text", str(text), "--n-steps", "12", "--n-rows", "4", "--show-every", "3"]
    code = """
import runpy, sys
try:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, str(program), *words]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    losses = [float(line.split()[1]) for line in run.stdout.splitlines()]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]
    model = numpy_speedrun.load(tmp_path, len(set(text.read_text(encoding="utf-8"))))
    assert sum(p.data.size for p in model.parameters()) > 700_000


def test_steps_that_fit_a_time():
    # 2 s to start and 0.01 s a step: 10 s have room for 800.
    measured = [time_to_loss.Result(3.0, 1.9, 800, 100, 1.0)]
    assert time_to_loss.steps_for(10.0, measured) == 800
    assert time_to_loss.steps_for(1.0, measured) == 1


def test_a_program_that_fails_says_why(tmp_path):
    with pytest.raises(InputError, match="failed:\nno such luck"):
        time_to_loss.timed([sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: time_to_loss.Config(runs=0), "runs must be at least 1; got 0"),
        (lambda: time_to_loss.Config(shares=(0.5,)), "shares are of nanoGPT's time: give --nanogpt PATH"),
        (lambda: throughput.Config(n_steps=3), "n_steps must be more than 3; got 3"),
        (lambda: loading.Config(megabytes=0), "megabytes must be at least 1; got 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_throughput_compares_with_nanogpt_where_it_ran():
    results = {"nanoGPT": throughput.Result(1000, 6.5, 14), "techtree": throughput.Result(3100, 5.5, 13)}
    assert cells(throughput.compared(results))[3] == ["techtree", "13", "3,100", "3.10", "5.500"]
    del results["nanoGPT"]
    assert cells(throughput.compared(results))[2][3] == "-"


def test_throughput_compares_models_of_one_size():
    # nanoGPT: two tables, one for positions; six layers of 12 d^2 and two norms; no biases.
    peer = (8192 + 256) * 384 + 6 * (12 * 384**2 + 2 * 384) + 384
    for config in throughput.MODELS.values():
        assert abs(config.n_parameters / peer - 1) < 0.02


def test_loading_compares_with_transformers_where_it_ran():
    ours, theirs = loading.Result(0.1, 0.2, 10**8, 3 * 10**8), loading.Result(0.5, 0.8, 10**8, 5 * 10**8)
    _, _, first, second = cells(loading.compared({"techtree": ours, "transformers": theirs}, 2 * 10**8))
    assert first == ["techtree", "0.10", "0.20", "0.25", "300", "100", "1.00"]
    assert second[3:] == ["1.00", "500", "100", "2.00"]
    assert cells(loading.compared({"techtree": ours}, 2 * 10**8))[2][3] == "-"


@pytest.mark.parametrize("n_parameters", [3_000_000, 25_000_000, 250_000_000])
def test_loading_makes_a_model_of_about_the_size(n_parameters):
    config = loading.shape(n_parameters)
    assert abs(config.n_parameters / n_parameters - 1) < 0.2
    if n_parameters < 10**7:
        assert config.n_parameters == sum(p.numel() for p in LanguageModel(config).parameters())
