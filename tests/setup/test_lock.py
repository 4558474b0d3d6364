"""The lock between two holders: within a process, two open files count as two."""

import threading

from techtree.file_lock import take
from techtree.setup.lock import wait_for


def test_one_holder_at_a_time(tmp_path):
    with (tmp_path / "lock").open("a") as first, (tmp_path / "lock").open("a") as second:
        assert take(first)
        assert not take(second)
        first.close()
        assert take(second)


def test_waiting_ends_when_the_holder_lets_go(tmp_path, capsys):
    with (tmp_path / "lock").open("a") as first, (tmp_path / "lock").open("a") as second:
        assert take(first)
        threading.Timer(0.3, first.close).start()
        wait_for(second)
        assert first.closed
    assert "waiting for it" in capsys.readouterr().err
