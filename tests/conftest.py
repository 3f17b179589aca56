"""Fixtures shared by the tests."""

from collections.abc import Iterator

import pytest
from server import FakeServer


@pytest.fixture(scope="session")
def _running_server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def fake_server(_running_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """An OpenAI-compatible server on loopback, well-behaved and with nothing recorded; no key is set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _running_server.reset()
    return _running_server
