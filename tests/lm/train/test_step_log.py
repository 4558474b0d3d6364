import dataclasses
import struct
import sys

import pytest

from techtree.errors import InputError
from techtree.lm.train.run import Step
from techtree.lm.train.step_log import CsvLog, TensorBoardLog

FIRST = Step(
    step=1,
    n_steps=9,
    loss=1 / 3,
    tokens=8,
    tokens_per_s=1234.5,
    seconds=0.25,
    lr_scale=0.1,
    gradient_norm=2.0,
)
HEAD = "step,loss,lr_scale,gradient_norm,tokens_per_s,seconds"


def steps(*numbers):
    return [dataclasses.replace(FIRST, step=number) for number in numbers]


def write(path, *numbers):
    log = CsvLog(path)
    for step in steps(*numbers):
        log.add(step)
    log.close()


def test_a_line_by_hand(tmp_path):
    write(tmp_path / "log.csv", 1)
    assert (tmp_path / "log.csv").read_text() == f"{HEAD}\n1,0.3333333333,0.1,2,1234.5,0.25\n"


def numbers_in(path):
    head, *lines = path.read_text().splitlines()
    assert head == HEAD
    return [int(line.split(",")[0]) for line in lines]


def test_a_resumed_run_goes_on_where_its_checkpoint_stands(tmp_path):
    path = tmp_path / "log.csv"
    write(path, 1, 2, 3, 4, 5)
    write(path, 4, 5, 6)
    assert numbers_in(path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("torn", ["5,0.3", "5", "", "\n", "5,0.1,0.2,0.3,0.4,0.5"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "log.csv"
    write(path, 1, 2, 3)
    path.write_text(path.read_text() + torn)
    write(path, 4)
    assert numbers_in(path) == [1, 2, 3, 4]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.flush()
    assert not list(tmp_path.iterdir())
    log.add(FIRST)
    assert numbers_in(tmp_path / "log.csv") == [1]
    log.flush()
    log.close()


def events(folder):
    """The scalars in TensorBoard's files: records of length, checksum, event, checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path / "tb")
    for step in steps(1, 2):
        log.add(step)
    log.flush()
    log.close()
    found = events(tmp_path / "tb")
    names = ("loss", "lr_scale", "gradient_norm", "tokens_per_s")
    assert [(step, name) for step, name, _ in found] == [(step, name) for step in (1, 2) for name in names]
    assert found[0][2] == pytest.approx(1 / 3)  # in float32
    assert found[7][2] == 1234.5


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'techtree\[tensorboard\]', or take --log csv"):
        TensorBoardLog(tmp_path)
