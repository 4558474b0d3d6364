"""Files of others: regular ones of a sensible size, or one sentence."""

import os
import socket
import sys

import pytest

from techtree.errors import InputError
from techtree.reading import is_missing, open_regular, read_json, read_regular, read_text

posix = pytest.mark.skipif(os.name != "posix", reason="there are no such files")


@pytest.fixture
def refused():
    def check(path, message, read=read_regular):
        with pytest.raises(InputError, match=message) as raised:
            read(path, 100)
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)

    return check


def test_what_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes('{"é": [1]}'.encode())
    assert read_regular(path, 11) == path.read_bytes()
    assert read_text(path, 11) == '{"é": [1]}'
    assert read_json(path, 11) == {"é": [1]}
    (tmp_path / "link").symlink_to(path)
    with open_regular(tmp_path / "link") as file:
        assert file.read() == path.read_bytes()


def test_what_is_too_large_is_not_read(tmp_path, refused):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 101)
    refused(path, r"must have at most 100 bytes; it has 101: copy it again")
    os.truncate(path, 1 << 40)  # it takes no room on the disk, and would not fit into any memory
    refused(path, r"it has 1,099,511,627,776")


@posix
def test_other_kinds_of_files_are_neither_waited_for_nor_read(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "must be a regular file; it is a named pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    refused(tmp_path / "link", "it is a named pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    refused(tmp_path / "zero", "it is a device")
    refused(tmp_path, "it is a folder")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # the names of sockets are short
        server.bind("socket")
        refused(tmp_path / "socket", "it is a socket")


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
def test_a_file_of_the_system_that_claims_no_size_is_bounded_too():
    with pytest.raises(InputError, match="must have at most 100 bytes; it has more"):
        read_regular("/proc/self/status", 100)


@posix
def test_what_is_not_there(tmp_path, refused):
    refused(tmp_path / "x", "is missing: copy it again")
    (tmp_path / "nowhere").symlink_to(tmp_path / "x")
    refused(tmp_path / "nowhere", "is missing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "cannot be read")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "x", "cannot be read")
    assert is_missing(tmp_path / "x")
    assert not is_missing(tmp_path / "nowhere")
    assert not is_missing(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b'"\xed\xa0\x80"', b"[" * 100_000, b'{"a":' * 100_000, b"[1] 2", b"9" * 5000],
    ids=["empty", "cut", "no UTF-8", "half a pair", "deep lists", "deep objects", "more", "long number"],
)
def test_what_is_no_json(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged") as raised:
        read_json(path, 10_000_000)
    assert "\n" not in str(raised.value)
