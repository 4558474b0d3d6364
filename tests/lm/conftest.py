"""What all tests of the product's language models have in common."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_thread_in_every_module(one_thread):
    """PyTorch takes one thread, as `one_thread` says."""
