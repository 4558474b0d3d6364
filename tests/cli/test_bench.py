import pytest

import techtree
from techtree.cli.bench import Config, benchmarks, run, summary
from techtree.cli.main import main
from techtree.errors import InputError
from tracked import is_tracked


@pytest.fixture
def clone(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    monkeypatch.setattr(techtree, "__file__", str(tmp_path / "src" / "techtree" / "__init__.py"))
    return tmp_path


def write(clone, name, body):
    text = f'"""What it does: `{name}.py --x`.\n\nMore.\n"""\nif __name__ == "__main__":\n    {body}\n'
    (clone / "bench" / f"{name}.py").write_text(text)


def test_the_list_has_programs_and_what_they_do(clone, capsys):
    write(clone, "speed", "pass")
    (clone / "bench" / "part.py").write_text('"""A part."""\n')
    assert run(Config()) == 0
    assert capsys.readouterr().out == "  speed          What it does\n"


def test_a_benchmark_gets_its_words_and_gives_its_exit_code(clone, capfd):
    write(clone, "speed", "import sys; print(sys.argv[1:]); sys.exit(7)")
    assert main(["bench", "speed", "--help", "--runs", "2", "x"]) == 7
    assert capfd.readouterr().out == "['--help', '--runs', '2', 'x']\n"


def test_an_unknown_name_gets_a_suggestion(clone, capsys):
    write(clone, "speed", "pass")
    assert main(["bench", "sped"]) == 2
    assert (
        "unknown benchmark 'sped'; did you mean speed? (techtree bench lists all)" in capsys.readouterr().err
    )


def test_outside_of_a_clone_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(techtree, "__file__", str(tmp_path / "site-packages" / "techtree" / "__init__.py"))
    with pytest.raises(InputError, match=r"in a clone of techtree, which .* is not: clone it"):
        benchmarks()


def test_the_benchmarks_of_this_clone_say_what_they_do():
    found = {name: path for name, path in benchmarks().items() if is_tracked(path)}
    assert {"loading", "recipe", "throughput", "time_to_loss"} <= set(found)
    assert all(summary(path) for path in found.values())


@pytest.mark.parametrize("content", [b'if __name__ == "__main__":\n    )', b"\xff", b"\0", b"(" * 100_000])
def test_a_file_that_is_no_program_stops_no_other(clone, content, capsys):
    write(clone, "speed", "pass")
    (clone / "bench" / "notes.py").write_bytes(content)
    assert main(["bench"]) == 0
    assert "speed          What it does\n" in capsys.readouterr().out
    assert main(["bench", "speed"]) == 0
