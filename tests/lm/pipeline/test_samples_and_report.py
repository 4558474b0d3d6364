import xml.etree.ElementTree as ElementTree

import pytest

from techtree.lm.pipeline.report import page, write_report
from techtree.lm.pipeline.samples import choose_cursor

REPORT = {
    "name": "5min",
    "bits_per_byte": 1.5,
    "ngram_bits_per_byte": {"2": 1.8, "3": 1.6, "4": 1.7, "5": 1.75},
    "bits_per_byte_before": None,
    "n_parameters": 4_000_000,
    "tokens": 1_000_000,
    "steps": 250,
    "tokens_per_s": 4000.0,
    "seconds": 290.0,
    "bits_per_token": 5.0,
    "model": {"n_layers": 4, "d_model": 256, "n_heads": 4},
    "corpus": {"n_bytes": 9_000_000},
    "held_out": {"n_documents": 20, "n_bytes": 300_000},
    "stage_seconds": {"train": 240.0, "measure": 20.0},
    "samples": [{"path": "a.py", "line": "3", "before": "x =", "completion": " 1", "actual": " 2"}],
    "model_folder": "runs/5min/model",
    "gguf": "runs/5min/model.gguf",
}


def test_the_page_says_what_the_figures_say():
    text = page(REPORT)
    assert "**1.500 bits per byte**, 6.2% less than the best n-gram model (order 3: 1.600)" in text
    assert "| 3-gram | 1.600 |" in text
    assert "4 layers of width 256" in text
    assert "techtree serve --model runs/5min/model" in text
    assert "`a.py`, line 3" in text


def test_the_model_that_it_began_with_stands_beside_it():
    assert "began with" not in page(REPORT)
    text = page(REPORT | {"bits_per_byte_before": 1.9})
    assert "| the model that it began with | 1.900 |" in text
    assert "the last two on others before" in text


def test_a_worse_model_is_called_worse():
    assert "25.0% more than the best n-gram" in page(REPORT | {"bits_per_byte": 2.0})


def test_code_with_fences_stays_inside_its_fence():
    sample = REPORT["samples"][0] | {"before": "```\n# not a heading\n```"}
    text = page(REPORT | {"samples": [sample]})
    assert "````python\n```\n# not a heading\n```\n````" in text


@pytest.mark.parametrize("n_steps", [1, 2, 29, 400])
def test_the_plot_is_an_image_for_any_number_of_steps(tmp_path, n_steps):
    write_report(tmp_path, REPORT, [2.0 + 1 / (i + 1) for i in range(n_steps)])
    ElementTree.parse(tmp_path / "loss.svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loss.svg", "report.json", "report.md"]


def test_the_cursor_stands_after_the_first_word_of_a_line_near_the_middle():
    text = "import os\n\ndef f(x):\n    # a comment here\n    return x + 1\n\nprint(f(2))\n"
    cursor = choose_cursor(text)
    assert text[:cursor].endswith("\n    return")


@pytest.mark.parametrize("text", ["", "\n", "x = 1\n", "'''\nwords without code\n'''\n"])
def test_no_line_of_code_no_cursor(text):
    assert choose_cursor(text) is None
