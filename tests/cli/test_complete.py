"""`techtree complete`: places in files, and what is wrong with them."""

import subprocess
import sys

import pytest

from techtree.cli.complete import Config, offset_of, parse_place, read_source, run
from techtree.cli.main import main
from techtree.errors import InputError

SOURCE = "def add(a, b):\n    return a\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(SOURCE, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("place", "file", "line", "column"),
    [
        ("x.py:3:5", "x.py", 3, 5),
        ("a/b c.py:10:1", "a/b c.py", 10, 1),
        (r"C:\x.py:3:5", r"C:\x.py", 3, 5),
        ("C:/x.py:3:5", "C:/x.py", 3, 5),
        ("odd:7:9:3:5", "odd:7:9", 3, 5),
    ],
)
def test_places(place, file, line, column):
    found, *numbers = parse_place(place)
    assert str(found).replace("\\", "/") == file.replace("\\", "/")
    assert numbers == [line, column]


@pytest.mark.parametrize(
    "place", ["", "x.py", "x.py:3", ":3:5", "x.py:3:", "x.py:a:5", "x.py:3:-1", "x.py:3:5:"]
)
def test_what_is_no_place(place):
    with pytest.raises(InputError, match="FILE:LINE:COL"):
        parse_place(place)


@pytest.mark.parametrize("place", ["x.py:0:1", "x.py:1:0"])
def test_counting_starts_at_one(place):
    with pytest.raises(InputError, match="from 1"):
        parse_place(place)


@pytest.mark.parametrize(
    ("line", "column", "before"),
    [(1, 1, ""), (1, 4, "def"), (1, 15, "def add(a, b):"), (2, 1, "def add(a, b):\n"), (3, 1, SOURCE)],
)
def test_offsets(line, column, before, file):
    assert SOURCE[: offset_of(SOURCE, line, column, file)] == before


def test_columns_count_characters(file):
    assert offset_of("é😀x\n", 1, 4, file) == 3
    assert offset_of("", 1, 1, file) == 0


def test_only_line_feeds_end_lines(file):
    text = "a\x0cb\u2028c\x85d\re\nf"  # for editors these are two lines
    assert offset_of(text, 2, 1, file) == text.index("f")


@pytest.mark.parametrize(
    ("line", "column", "part"), [(4, 1, "3 lines"), (1, 16, "up to 15"), (3, 2, "up to 1")]
)
def test_there_is_no_such_place(line, column, part, file):
    with pytest.raises(InputError, match=part):
        offset_of(SOURCE, line, column, file)


def test_line_ends_and_byte_order_marks(tmp_path):
    path = tmp_path / "x.py"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert read_source(path) == "a\nb\n"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="can be read"):
        read_source(tmp_path / "missing.py")
    with pytest.raises(InputError, match="can be read"):
        read_source(tmp_path)
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    with pytest.raises(InputError, match=r"UTF-8.*byte 5"):
        read_source(tmp_path / "latin.py")


def test_it_prints_the_completion(file, tiny_model_folder, capfdbinary):
    pytest.importorskip("torch")
    before = file.read_bytes()
    assert run(Config(f"{file}:2:12", tiny_model_folder, max_tokens=5)) == 0
    out, _ = capfdbinary.readouterr()
    assert out.endswith(b"\n")
    assert out.strip()
    out.decode("utf-8")
    assert file.read_bytes() == before
    assert run(Config(f"{file}:2:12", tiny_model_folder, max_tokens=5)) == 0
    assert capfdbinary.readouterr().out == out


def test_a_long_file_is_cut_and_that_is_said(tmp_path, tiny_model_folder, capfd):
    pytest.importorskip("torch")
    path = tmp_path / "long.py"
    path.write_text(SOURCE * 100, encoding="utf-8")
    assert run(Config(f"{path}:150:3", tiny_model_folder, max_tokens=3)) == 0
    assert "saw a part" in capfd.readouterr().err


def test_wrong_input_is_one_line_and_exit_code_2(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(tmp_path / "nothing")]
    for words in (
        ["x.py"],
        ["missing.py:1:1"],
        ["x.py:9:1"],
        ["x.py:1:1", *model],
        ["x.py:1:1", "--max-tokens", "0"],
    ):
        assert main(["complete", *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("techtree: error: ")
        assert err.count("\n") == 1


def test_without_a_model_it_says_how_to_get_one(file, tmp_path, monkeypatch, capsys):
    from techtree.engines import model_folder

    found = model_folder.find_model_folder
    monkeypatch.setattr(model_folder, "find_model_folder", lambda given: found(given, [tmp_path]))
    assert main(["complete", f"{file}:1:1"]) == 2
    assert "./techtree build" in capsys.readouterr().err


def test_help_and_mistakes_need_no_torch(tmp_path):
    code = (
        "import sys; from techtree.cli.main import main; code = main(['complete', 'x.py:1:1']); "
        "sys.exit(code if 'torch' not in sys.modules else 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_gguf_file_gives_what_its_folder_gives(file, tiny_model_folder, tmp_path, capsys):
    path = tmp_path / "tiny.gguf"
    assert main(["export", str(tiny_model_folder), "--to", "gguf", "--out", str(path)]) == 0
    capsys.readouterr()
    said = []
    for model in (tiny_model_folder, path):
        assert main(["complete", f"{file}:2:5", "--model", str(model), "--max-tokens", "9"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""
    assert main(["complete", f"{file}:2:5", "--model", str(path), "--engine", "numpy"]) == 2
    assert f"techtree import {path}" in capsys.readouterr().err
