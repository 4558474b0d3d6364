"""One process at a time fills a folder, with the settings that it began with."""

import errno
import json
import signal
import subprocess
import sys
import threading

import pytest

from techtree.errors import InputError
from techtree.lm.pipeline.run_folder import (
    LOCK,
    check_settings,
    forgotten_if_refused,
    locked,
    record_settings,
)

HOLDER = """
import sys, time
from pathlib import Path
from techtree.lm.pipeline.run_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that fills the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_refused_at_once_by_the_number_of_the_first(holder, tmp_path):
    def enter():
        with locked(tmp_path / "run"):
            pass

    with pytest.raises(InputError, match=rf"run is being filled by another process \(number {holder.pid}\)"):
        enter()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()  # what it left locks nobody out
    enter()
    assert not (tmp_path / "run" / LOCK).exists()


def test_within_one_process_too(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="is being filled"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_ten_at_once_never_meet(tmp_path):
    inside, most, refused, entered = [0], [0], [], []

    def enter():
        for _ in range(50):
            try:
                with locked(tmp_path / "run"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
                    entered.append(1)
            except InputError:
                refused.append(1)

    threads = [threading.Thread(target=enter) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(entered) + len(refused) == 500
    assert entered


def test_a_stale_or_strange_lock_file_locks_nobody_out(tmp_path):
    for content in (b"", b"99999\n", b"\xff\xfe not a number", b"1\n" * 10_000):
        (tmp_path / LOCK).write_bytes(content)
        with locked(tmp_path):
            assert (tmp_path / LOCK).exists()


def test_a_new_folder_in_which_nothing_was_put_goes_again(tmp_path):
    with pytest.raises(InputError), locked(tmp_path / "a"):
        raise InputError("no")
    assert not (tmp_path / "a").exists()
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "b"):  # noqa: PT012
        (tmp_path / "b" / "work").touch()
        raise KeyboardInterrupt
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["work"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="x is a file"), locked(tmp_path / "x"):
        pass


@pytest.mark.parametrize(
    ("name", "old", "now", "message"),
    [
        ("steps", 40, 41, "run was begun with --steps 40, now it is 41: give the same --steps"),
        ("depth", 2, None, "was begun with --depth 2, now it is left out"),
        ("depth", None, 2, "was begun with --depth left out, now it is 2"),
        ("held_out_percent", 4.0, 5.0, "--held-out-percent 4.0, now it is 5.0"),
        ("corpus", ["/a", "/b"], ["/a"], "was begun with corpus /a, /b, now it is /a"),
        ("seed", 0, False, None),
        ("seed", 0, 1, "--seed 0, now it is 1"),
    ],
)
def test_another_setting_is_refused_by_name(tmp_path, name, old, now, message):
    path = tmp_path / "run" / "settings.json"
    check_settings(path, {name: now})  # Nothing is recorded yet.
    record_settings(path, {name: old, "other": 1})
    check_settings(path, {name: old, "new": 3})
    if message is None:
        check_settings(path, {name: now})
        return
    with pytest.raises(InputError) as caught:
        check_settings(path, {name: now}, positional=("corpus",))
    assert message in str(caught.value)


def test_settings_are_added_and_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "settings.json"
    record_settings(path, {"a": 1})
    record_settings(path, {"b": None})
    assert json.loads(path.read_text()) == {"a": 1, "b": None}
    for damaged in ("", "[1]", "{", "3"):
        path.write_text(damaged)
        with pytest.raises(InputError, match="as an earlier run wrote it"):
            check_settings(path, {"a": 1})


@pytest.mark.parametrize(
    ("error", "is_begun", "is_kept"),
    [
        (InputError, False, False),
        (MemoryError, False, False),
        (InputError, True, True),
        (KeyboardInterrupt, False, True),
        (OSError, False, True),
    ],
)
def test_what_a_refused_call_made_is_forgotten(tmp_path, error, is_begun, is_kept):
    (tmp_path / "mine.txt").touch()
    names = ("settings.json", "tokens")
    with pytest.raises(error), forgotten_if_refused(tmp_path, names, lambda: is_begun):  # noqa: PT012
        (tmp_path / "settings.json").touch()
        (tmp_path / "tokens").mkdir()
        (tmp_path / "tokens" / "x").touch()
        raise error
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"mine.txt", "settings.json", "tokens"} if is_kept else {"mine.txt"})


def test_what_an_earlier_call_left_stays(tmp_path):
    (tmp_path / "tokens").mkdir()
    with pytest.raises(InputError), forgotten_if_refused(tmp_path, ("a", "tokens"), lambda: False):  # noqa: PT012
        (tmp_path / "a").touch()
        raise InputError("no")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "tokens"}


def test_what_was_made_stays_when_the_disk_is_full(tmp_path):
    def fill():
        (tmp_path / "tokens").mkdir()
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise InputError("make room") from error

    with pytest.raises(InputError), forgotten_if_refused(tmp_path, ("tokens",), lambda: False):
        fill()
    assert (tmp_path / "tokens").exists()
