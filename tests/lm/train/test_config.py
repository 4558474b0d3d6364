import pytest

from techtree.errors import InputError
from techtree.lm.train.config import TrainConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1; got 0"),
        ({"n_micro_batches": 0}, "n_micro_batches must be at least 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"muon_lr": -0.1}, "muon_lr must not be negative; got -0.1"),
        ({"embedding_lr": float("nan")}, "embedding_lr must not be negative; got nan"),
        ({"decay_fraction": 1.5}, "decay_fraction must be between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**{"n_steps": 5} | values)
