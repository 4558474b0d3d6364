"""The lessons' code behind the engines' protocol: token for token what the product's engine says."""

import numpy as np
import pytest

from techtree.engines.engine import Chunk, Engine, InfillRequest
from techtree.errors import InputError

torch = pytest.importorskip("torch")

SOURCE = "def add(a, b):\n    total = a + b\n    return total\n"


@pytest.fixture(scope="module")
def engine(tiny_model_folder) -> Engine:
    from techtree.engines.numpy_engine import NumpyEngine

    return NumpyEngine.load(tiny_model_folder)


@pytest.fixture(scope="module")
def product(tiny_model_folder) -> Engine:
    from techtree.engines.torch_engine import TorchEngine

    return TorchEngine.load(tiny_model_folder)


def test_what_it_says_of_itself(engine):
    assert engine.name == "tiny"
    assert engine.context_length == 128


@pytest.mark.parametrize("place", range(5, len(SOURCE), 7))
def test_it_answers_as_the_product_does(engine, product, place):
    extra = (Chunk("b.py", "import os\n"),)
    request = InfillRequest(SOURCE[:place], SOURCE[place:], extra, max_tokens=6)
    ours, theirs = engine.infill(request), product.infill(request)
    assert (ours.text, ours.stop, ours.n_prompt, ours.n_predicted) == (
        theirs.text,
        theirs.stop,
        theirs.n_prompt,
        theirs.n_predicted,
    )


def test_scores_are_the_products(tiny_model, tiny_model_folder):
    from techtree.engines.numpy_engine import load_logits

    logits, length = load_logits(tiny_model_folder)
    ids = np.random.default_rng(0).integers(tiny_model.config.vocab_size, size=length)
    with torch.no_grad():
        theirs = tiny_model(torch.tensor(ids)[None])[0].numpy()
    np.testing.assert_allclose(logits(ids), theirs, atol=1e-5 * abs(theirs).max())


def test_text_comes_while_it_is_made(engine):
    pieces = []
    result = engine.infill(InfillRequest(SOURCE[:20], SOURCE[20:], max_tokens=8), on_text=pieces.append)
    assert result.text
    assert "".join(pieces) == result.text
    assert len(pieces) > 1


def test_a_text_beyond_the_context_is_cut(engine, product):
    request = InfillRequest(SOURCE * 20, SOURCE * 20, max_tokens=3)
    result = engine.infill(request)
    assert result.is_truncated
    assert result.text == product.infill(request).text


def test_it_stops_at_the_contexts_end(engine):
    from techtree.engines.numpy_engine import decode
    from techtree.lm.infer.limits import Limits, Progress

    progress = Progress()
    scores = np.eye(4)[[3]]
    given = list(decode(lambda ids: scores, [1, 2], Limits(10), {0}, 5, progress))
    assert given == [3, 3, 3]
    assert progress.stop == "context"


def test_it_can_be_stopped(engine):
    assert engine.infill(InfillRequest("x = "), cancelled=lambda: True).stop == "cancelled"
    assert engine.infill(InfillRequest("x = ", timeout_s=0.0)).stop == "deadline"
    assert engine.infill(InfillRequest("x = ", max_tokens=0)).text == ""


def test_it_only_takes_the_likeliest(engine):
    with pytest.raises(InputError, match="likeliest"):
        engine.infill(InfillRequest("x = ", temperature=0.5))


def test_scores_that_are_no_numbers():
    from techtree.engines.numpy_engine import decode
    from techtree.lm.infer.limits import Limits, Progress

    with pytest.raises(InputError, match="damaged"):
        next(decode(lambda ids: np.array([[np.nan, 1.0]]), [0], Limits(3), {1}, 9, Progress()))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{}", "model"),
        ('{"model_type": "mamba"}', "mamba"),
        ("[]", "JSON object"),
        ("{", "damaged"),
    ],
)
def test_folders_that_no_technology_can_run(tmp_path, config, says):
    from techtree.engines.numpy_engine import load_logits

    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        load_logits(tmp_path)
