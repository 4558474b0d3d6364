import pytest

from techtree.errors import InputError
from techtree.lm.data.corpus import Document
from techtree.lm.pipeline.corpus_file import read_documents, write_documents
from techtree.lm.pipeline.stages import Stages, kept


class Silent:
    """A display that remembers what it was told."""

    def __init__(self):
        self.lines = []

    def begin(self, stage):
        self.lines.append(("begin", stage))

    def done(self, stage, result, seconds):
        self.lines.append(("done", stage, result))

    def progress(self, done, total):
        pass

    def step(self, step):
        pass


def test_a_stage_is_shown_and_timed(tmp_path):
    display = Silent()
    stages = Stages(tmp_path, display)
    assert stages.run("count", lambda: 3, lambda n: f"{n} things") == 3
    assert display.lines == [("begin", "count"), ("done", "count", "3 things")]
    assert stages.total_seconds == stages.seconds["count"] > 0


def test_times_survive_a_restart_and_a_quick_second_look_does_not_lower_them(tmp_path):
    Stages(tmp_path, Silent()).run("train", lambda: None, str, lambda result: 100.0)
    again = Stages(tmp_path, Silent())
    again.run("train", lambda: None, str)
    assert again.seconds == {"train": 100.0}


def test_a_stage_that_fails_leaves_no_time(tmp_path):
    stages = Stages(tmp_path, Silent())
    with pytest.raises(ZeroDivisionError):
        stages.run("divide", lambda: 1 / 0, str)
    assert Stages(tmp_path, Silent()).seconds == {}


def test_what_is_kept_is_made_once(tmp_path):
    made = []
    for _ in range(2):
        value = kept(tmp_path / "x.json", lambda: made.append(1) or {"a": [1, 2.5]})
        assert value == {"a": [1, 2.5]}
    assert made == [1]


def test_a_damaged_file_is_one_clear_error(tmp_path):
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.json must be as an earlier run wrote it .*another --out"):
        kept(tmp_path / "x.json", dict)


DOCUMENTS = [Document("a/b.py", "x = 'é\u2028😀'\n\ttab\r\n"), Document("c.py", "\n" * 3)]


def test_documents_round_trip(tmp_path):
    path = tmp_path / "corpus.gz"
    write_documents(path, DOCUMENTS)
    assert read_documents(path) == DOCUMENTS
    first = path.read_bytes()
    write_documents(path, DOCUMENTS)
    assert path.read_bytes() == first


DAMAGES = [lambda b: b[:-9], lambda b: b"", lambda b: b"not gzip", lambda b: b[:20] + b"x" + b[21:]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_documents_are_one_clear_error(tmp_path, damage):
    path = tmp_path / "corpus.gz"
    write_documents(path, DOCUMENTS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="must be as an earlier run wrote it"):
        read_documents(path)
