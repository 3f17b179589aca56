"""Fixtures shared by the tests."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: a missing model is asked for nowhere

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from server import FakeServer

settings.register_profile("without deadlines", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("without deadlines")


def pytest_collection_finish() -> None:
    """What was imported by now stays: to look through it for garbage again and again took a tenth of the suite's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts() -> None:
    """A job that a shell starts in the background ignores Ctrl-C, and its children with it; what is tested here does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _running_server() -> "Iterator[FakeServer]":
    from server import FakeServer  # FastAPI is slow to import, and most files of tests need no server

    with FakeServer() as server:
        yield server


@pytest.fixture
def fake_server(_running_server: "FakeServer", monkeypatch: pytest.MonkeyPatch) -> "FakeServer":
    """An OpenAI-compatible server on loopback, well-behaved and with nothing recorded; no key is set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _running_server.reset()
    return _running_server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of the real corpora; absent on most machines, required where CI runs."""
    root = os.environ.get("INTERPLAY_DATA")
    if root and Path(root).is_dir():
        return Path(root)
    reason = "INTERPLAY_DATA does not name the directory of the real corpora"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _quick_fonts() -> Iterator[None]:
    """To embed whole outlines is most of what a figure takes; a test of its own sees that files have them."""
    from interplay.report import figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "PDF_FONT_TYPE", 3)
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERPLAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
