"""Real last words of pip, and what the user is told instead."""

import errno

import pytest

from techtree.setup.failure import explain, explain_os_error

RETRYING = (
    "WARNING: Retrying (Retry(total=4, connect=None, read=None, redirect=None, status=None)) after "
    "connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at "
    "0x7fcb8247d050>: Failed to establish a new connection: [Errno 111] Connection refused')': /hatchling/"
)
NONE_FOUND = "ERROR: No matching distribution found for torch<2.14,>=2.13 (from techtree)"
DISK_FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
DISK_FULL_IN_GERMAN = "OSError: [Errno 28] Auf dem Gerät ist kein Speicherplatz mehr verfügbar"
IGNORED = "WARNING: Location 'file:///mirror/torch/' is ignored: it is neither a file nor a directory."


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([RETRYING, NONE_FOUND], "could not reach the package index"),
        ([IGNORED, NONE_FOUND], "no build for Python"),
        (["Collecting torch", DISK_FULL], "the disk is full"),
        ([DISK_FULL_IN_GERMAN], "the disk is full"),
        ([RETRYING, DISK_FULL], "the disk is full"),
        (["one", IGNORED, "ERROR: something else"], "one\n    ERROR: something else\nAll are in setup.log"),
        ([], "the set-up failed"),
    ],
)
def test_names_the_cause_and_what_to_do(lines, told, tmp_path):
    message = explain(lines, str(tmp_path), "setup.log")
    assert told in message
    assert "run" in message.splitlines()[-1].lower()


def test_leaves_out_what_says_nothing_to_a_person(tmp_path):
    message = explain([RETRYING], str(tmp_path), "setup.log")
    assert "Retrying after connection broken by 'NewConnectionError('Failed to establish" in message


@pytest.mark.parametrize(("number", "told"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "/a/file")])
def test_explains_errors_of_the_operating_system(number, told, tmp_path):
    error = OSError(number, "its words", "/a/file")
    assert told in explain_os_error(error, str(tmp_path))
