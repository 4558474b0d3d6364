"""What a test has shown of files that did not change since is not shown again in every run.

A test whose outcome depends on certain files only says which: ``@pytest.mark.proof(digest)``. Where
proofs.json has that digest under its name, the test counts as slow, and runs with ``-m slow`` only. After a
change of one of the files it runs again, until a new proof is committed. ``--renew-proofs``, with
``-m "slow or not slow"``, writes those of the tests that pass.
"""

import json
import platform
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from techtree import atomic
from techtree.tree.certificate import digest

FILE = Path(__file__).with_name("proofs.json")
_renewed: dict[str, str] = {}


def proof_of(words: Iterable[str], files: Iterable[Path]) -> str:
    """Return a digest of words, of files, and of what runs them."""
    python = ".".join(platform.python_version_tuple()[:2])
    known = [python, np.__version__, *words]
    return digest([*(word.encode() for word in known), *(file.read_bytes() for file in files)])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes proofs."""
    parser.addoption("--renew-proofs", action="store_true", help="write proofs.json for the tests that pass")


def read() -> dict[str, str]:
    """Return the committed proofs: a test's name -> the digest for which it passed."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is proven."""
    proven = read()
    for item in items:
        if mark := item.get_closest_marker("proof"):
            item.user_properties.append(("proof", mark.args[0]))
            if proven.get(item.nodeid) == mark.args[0]:
                item.add_marker(pytest.mark.slow)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what was shown."""
    found = dict(report.user_properties).get("proof")
    if found and report.when == "call" and report.passed:
        _renewed[report.nodeid] = found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was shown, beside the proofs that are there."""
    if session.config.getoption("--renew-proofs") and not hasattr(session.config, "workerinput"):
        atomic.write_text(FILE, json.dumps(dict(sorted((read() | _renewed).items())), indent=1) + "\n")
