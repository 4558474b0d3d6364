"""`techtree site` as a reader calls it, and with a learner's workspace around."""

import re

from techtree.cli.main import main
from techtree.learn import workspace
from techtree.tree.graph import load_tree


def test_it_says_what_to_open_and_in_a_workspace_shows_the_learners_states(tmp_path, monkeypatch, capsys):
    tree = load_tree()
    mine = workspace.create(tmp_path / "my-tree", tree)
    first = tree["python_numpy"]
    mine.write_stub(first)
    found = workspace.find(mine.folder, tree)
    assert found is not None
    found.with_certificate(first)
    monkeypatch.chdir(mine.folder)
    assert main(["site"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"open file:///\S+/my-tree/site/index\.html\n", said)
    index = (mine.folder / "site" / "index.html").read_text(encoding="utf-8")
    assert "<h1>my-tree</h1>" in index
    assert "1 of" in index
    following = index.partition("Open next")[2].partition("</section>")[0]
    assert 'href="tech/numerics.html"' in following
    assert "techtree learn start numerics" in following
    assert 'id="map-python_numpy" class="box unlocked"' in index
    assert 'id="map-rope" class="box locked"' in index


def test_a_folder_of_somebody_else_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["site", "--out", str(tmp_path)]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
