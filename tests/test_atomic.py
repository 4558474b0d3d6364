"""Files that are replaced whole or not at all, and errors that name what the user named."""

import os

import pytest

from techtree.atomic import atomic_writer, write_bytes, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    write_text(path, "one\r\n")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_writer(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.skipif(os.name == "nt", reason="folders and pipes of POSIX")
def test_what_is_no_file_is_not_replaced_and_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in (".", "folder", "pipe", "/dev/null", "x" * 300, "file/under.txt", "/dev/null/x"):
        with pytest.raises(OSError, match=r"\[Errno [0-9]+\]") as caught:
            write_text(type(tmp_path)(name), "x")
        assert caught.value.filename in (name, str(type(tmp_path)(name).parent)), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "pipe"]
    assert not os.path.isfile("/dev/null")


def test_a_link_to_a_file_may_be_replaced(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").read_text() == "x"


def test_a_name_that_is_not_utf8_is_written_as_codes(tmp_path):
    write_text(tmp_path / "page.md", "# run\udcff\n")
    assert (tmp_path / "page.md").read_bytes() == b"# run\\udcff\n"
