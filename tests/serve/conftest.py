"""The application with an engine that needs no model."""

import pytest

pytest.importorskip("starlette")


@pytest.fixture
def engine():
    from serve.loopback import FakeEngine

    return FakeEngine()


@pytest.fixture
def client(engine):
    """A client of the application without a server between."""
    from starlette.testclient import TestClient

    from techtree.serve.app import create_app

    with TestClient(create_app(engine), "http://127.0.0.1:8012", raise_server_exceptions=False) as client:
        yield client
