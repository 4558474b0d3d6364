"""Rules that hold for the whole program: quiet imports, a light command line, one-line errors."""

import os
import subprocess
import sys

import pytest

from techtree.cli.main import COMMANDS, main

HEAVY = ("torch", "numpy", "matplotlib", "tokenizers", "transformers", "rich", "starlette")


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("words", [["--help"], ["map"], ["--version"]])
def test_help_and_map_load_nothing_heavy(words):
    code = f"""
import sys
from techtree.cli.main import main
assert main({words!r}) == 0
print("loaded:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    run = python(code)
    assert run.stderr == ""
    assert run.stdout.endswith("loaded: []\n")


def test_every_module_can_be_imported_and_none_does_anything_visible(project_copy, tmp_path):
    """No output, no file, no warning, no thread, no changed environment."""
    code = """
import os, pkgutil, sys, threading, importlib
import techtree
assert techtree.__file__.startswith(os.environ["PYTHONPATH"])
before = dict(os.environ)
names = [m.name for m in pkgutil.walk_packages(techtree.__path__, "techtree.")]
names = [n for n in names if not n.rpartition(".")[2].startswith(("test_", "conftest", "__main__"))]
for name in names:
    importlib.import_module(name)
assert dict(os.environ) == before
assert threading.active_count() == 1, threading.enumerate()
assert os.listdir() == []
assert len(names) > 20
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(project_copy / "src")},
    )
    assert (run.stdout, run.stderr) == ("", "")


def test_every_command_has_help():
    for name in COMMANDS:
        run = python(f"import sys; from techtree.cli.main import main; sys.exit(main([{name!r}, '--help']))")
        assert run.returncode == 0, run.stderr
        assert f"usage: techtree {name}" in run.stdout


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert main(["complet"]) == 2
    assert "unknown command 'complet'; did you mean complete?" in capsys.readouterr().err


def test_the_light_installation_says_what_is_missing():
    code = "import sys; sys.modules['torch'] = None; sys.modules['tokenizers'] = None\n"
    run = python(code + "from techtree.cli.main import main; sys.exit(main(['build', '--out', 'nowhere']))")
    assert run.returncode == 2
    assert run.stderr.startswith("techtree: error: this command needs ")
    assert run.stderr.endswith("pip install 'techtree[lm]'\n")


def test_an_unknown_option_is_an_error_with_code_2():
    run = python("from techtree.cli.main import main; main(['map', '--colour'])")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
