import itertools

from techtree.learn.watching import saves


def test_saves_and_keys_come_as_they_happen(tmp_path):
    path, new = tmp_path / "a.py", tmp_path / "b.py"
    path.write_text("1", encoding="utf-8")
    keys = iter(["", "", "n", "", "q"])
    edits = iter(
        [
            None,
            lambda: path.write_text("22", encoding="utf-8"),
            None,
            lambda: new.write_text("", encoding="utf-8"),
            None,
        ]
    )

    def read_key(seconds):
        edit = next(edits)
        if edit:
            edit()
        return next(keys)

    events = saves(lambda: sorted(tmp_path.glob("*.py")), read_key)
    assert list(itertools.islice(events, 4)) == [path, "n", new, "q"]
