"""One clone for all tests here, because a set-up takes seconds."""

import pytest
from toy_clone import Clone


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone that is not set up; its path has a space and a letter beyond ASCII."""
    made = Clone(tmp_path_factory.mktemp("launcher") / "a clone é")
    made.fill()
    return made
