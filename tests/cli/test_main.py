"""The program as a process: what it prints, wherever its output goes, and whatever the surroundings say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from techtree.cli.main import main

TIMEOUT_S = 60
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="terminals and devices of POSIX")


def techtree(*words: str | bytes, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program; `shell` is what follows it on the command line."""
    names = ("COLUMNS", "LINES", "NO_COLOR", "TERM", "PYTHONIOENCODING", "PYTHONUTF8")
    clean = {name: value for name, value in os.environ.items() if name not in names} | environment
    command = [sys.executable, "-m", "techtree", *words]
    if shell:
        command = ["/bin/sh", "-c", f'ulimit -v 4000000; "$@" {shell}', "sh", *command]
    return subprocess.run(command, capture_output=True, env=clean, timeout=TIMEOUT_S)


def on_a_terminal(*words: str, columns: int = 80, **environment: str) -> tuple[int, bytes]:
    """Run the program on a terminal of its own; return its exit code and what it wrote there."""
    import fcntl
    import pty
    import struct
    import termios

    names = ("COLUMNS", "LINES", "NO_COLOR")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "techtree", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # Linux says so when the last writer has gone.
        pass
    finally:
        os.close(ours)
    return process.wait(TIMEOUT_S), said


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "shift_jis", "latin-1"])
@pytest.mark.parametrize("words", [["map"], ["map", "attention"], ["build", "--help"], ["nothing"]])
def test_everything_can_be_printed_in_any_encoding(words, encoding):
    if words == ["map"] or encoding == "ascii":  # the others once: a start takes a quarter of a second
        run = techtree(*words, PYTHONIOENCODING=encoding)
        assert run.returncode == (2 if words == ["nothing"] else 0)
        assert b"Traceback" not in run.stderr
        assert (run.stdout + run.stderr).decode(encoding)


@POSIX_ONLY
@pytest.mark.parametrize("words", [["map"], ["--help"], ["--version"], ["data", "--help"]])
def test_a_full_disk_is_one_sentence(words):
    run = techtree(*words, shell="> /dev/full")
    assert run.returncode == 2
    assert run.stderr.startswith(
        b"techtree: error: standard output must be writable (No space left on device)"
    )
    assert run.stderr.count(b"\n") == 1


@POSIX_ONLY
def test_errors_that_nobody_can_read_end_quietly():
    for shell in ("2> /dev/full", "2>&-", ">&- 2>&-"):
        assert techtree("nothing", shell=shell).returncode == 2
    run = techtree("map", shell=">&-")
    assert (run.returncode, run.stderr) == (0, b"")


@POSIX_ONLY
@pytest.mark.parametrize("shell", ["| head -1", "| head -c 1", "| true", "2>&1 | head -1"])
def test_a_reader_that_goes_away_ends_it_quietly(shell):
    for words in (["map"], ["train", "--help"]):
        run = techtree(*words, shell=shell)
        assert run.stderr == b""


@POSIX_ONLY
def test_a_build_whose_reader_goes_away_ends_quietly(tmp_path):
    pytest.importorskip("torch")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(12):
        text = "".join(f"def f{i}_{j}(x):\n    return x * {i * j}\n\n\n" for j in range(40))
        (corpus / f"m{i}.py").write_text(text, encoding="utf-8")
    words = [
        "build",
        "--corpus",
        str(corpus),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "20",
        "--depth",
        "1",
    ]
    run = techtree(*words, shell="| head -1", OMP_NUM_THREADS="1")
    assert run.stdout.startswith(b"collect source files")
    assert run.stderr == b""


@POSIX_ONLY
@pytest.mark.parametrize("columns", ["5", "1", "0", "-3", "39", "100000", "9" * 30, "junk", "²", "", "1e3"])
def test_help_is_printed_whatever_columns_says(columns):
    run = techtree("complete", "--help", shell=";", COLUMNS=columns, LINES=columns)
    assert run.returncode == 0
    assert b"FILE:LINE:COL" in run.stdout
    run = techtree("complete", "--nothing", shell=";", COLUMNS=columns)
    assert run.returncode == 2
    assert b"Traceback" not in run.stderr


@POSIX_ONLY
@pytest.mark.parametrize("columns", [1, 5, 40, 500])
def test_help_is_printed_on_a_terminal_of_any_width(columns):
    code, said = on_a_terminal("complete", "--help", columns=columns)
    assert code == 0
    assert b"FILE:LINE:COL" in said


@POSIX_ONLY
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
@pytest.mark.parametrize("words", [["map"], ["complete", "--help"], ["complete", "--nothing"]])
def test_plain_text_for_who_wants_it(words, environment):
    assert b"\x1b" in on_a_terminal(*words)[1]
    code, said = on_a_terminal(*words, **environment)
    assert code == (2 if words[1:] == ["--nothing"] else 0)
    assert b"\x1b" not in said


@POSIX_ONLY
@pytest.mark.parametrize(
    "name", [b"\x1b[2Jx", b"a\xff\xfe", b"a\nb", b"\xc2\x9b2J", b"a\rb", b"\xe2\x80\xaex"]
)
def test_a_file_name_is_shown_and_not_obeyed(name):
    code, said = on_a_terminal("complete", os.fsdecode(name) + ":1:1")
    assert code == 2
    assert said.startswith(b"techtree: error: ")
    assert said.count(b"\n") == 1
    assert not set(b"\x1b\x9b\xff") & set(said)
    assert said.count(b"\r") == 1  # the terminal's own, before the line feed
    assert "\u202e".encode() not in said


@pytest.mark.parametrize(
    "words",
    [
        ["map", "--svg", "."],
        ["map", "--svg", "/dev/null"],
        ["map", "--svg", "/dev/null/x"],
        ["map", "--svg", "x" * 300],
        ["map", "--svg", ""],
        ["complete", "x.py:1:" + "9" * 5000],
        ["complete", "x.py:" + "9" * 5000 + ":1"],
        ["complete", "x.py:1:1", "--max-tokens", "9" * 5000],
        ["complete", "x" * 300 + ":1:1"],
        ["complete", "loop:1:1"],
        ["eval", "loop"],
        ["eval", "x.py", "--model", "x" * 300],
        ["eval", "x.py", "--max-bytes", "9" * 4000],
        ["serve", "--model", "loop", "--port", "9" * 40],
        ["import", "loop"],
        ["import", "x" * 300],
        ["export", "loop", "--to", "hf", "--out", "x"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_extreme_words_are_one_sentence(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("x.py").write_text("x = 1\n", encoding="utf-8")
    try:
        code = main(words)
    except SystemExit as ended:  # tyro's
        code = ended.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1 or "----" in err or "────" in err
    assert len(err) < 2000


def test_what_memory_and_system_refuse_is_one_sentence(monkeypatch, capsys):
    from techtree.cli import map as command

    errors = [
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        OSError(5, "Input/output error", "a.txt"),
        PermissionError(13, "Permission denied", "b.txt"),
    ]
    for error in errors:

        def fail(config, error=error):
            raise error

        monkeypatch.setattr(command, "run", fail)
        assert main(["map"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("techtree: error: ")
        assert err.count("\n") == 1
    monkeypatch.setattr(command, "run", lambda config: (_ for _ in ()).throw(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError):
        main(["map"])
