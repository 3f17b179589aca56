"""What differs between servers: which fields they take, and what happens where they do not."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
from fastapi.responses import JSONResponse, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interplay.backends.backend import Message, Request
from interplay.backends.http import HttpBackend
from interplay.cli import main
from interplay.config import Sampling
from interplay.errors import BackendError, ConfigError
from interplay.simulation.specs import load_from_spec, split_server
from interplay.types import Role
from makers import CATALOG
from server import FakeServer

T = TypeVar("T")
GRAMMAR = 'root ::= "yes"'


def chat(grammar: str | None = None, seed: int = 1, **sampling: float) -> Request:
    drawn = Sampling(max_new_tokens=20, **sampling)  # type: ignore[arg-type]  # any of its numbers
    return Request((Message("user", "Hello"),), drawn, seed, f"s{seed}", grammar=grammar)


def with_backend(server: FakeServer, use: Callable[[HttpBackend], Awaitable[T]]) -> T:
    async def run() -> T:
        backend = HttpBackend(server.base_url, "tiny", backoff_s=0.01, timeout_s=5.0)
        try:
            return await use(backend)
        finally:
            await backend.close()

    return asyncio.run(run())


async def ask_twice(backend: HttpBackend) -> tuple[str, str, int]:
    answers = [(await backend.complete(chat(GRAMMAR, seed))).text for seed in (1, 2)]
    return answers[0], answers[1], backend.num_unconstrained


# ---- grammars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "sent"), [("structured_outputs", {"grammar": GRAMMAR}), ("grammar", GRAMMAR)], ids=["vllm", "llama.cpp"]
)
@pytest.mark.parametrize("refuses", [False, True], ids=["ignores", "refuses"])
def test_a_grammar_goes_in_the_field_that_the_server_takes(
    fake_server: FakeServer, field: str, sent: object, refuses: bool
) -> None:
    fake_server.grammar_field = field
    if refuses:
        fake_server.refused_fields = tuple({"structured_outputs", "grammar"} - {field})
    assert with_backend(fake_server, ask_twice) == ("yes", "yes", 0)
    assert [r.body[field] for r in fake_server.requests[-2:]] == [sent, sent]
    # The server is asked once for what it takes, with at most one try per form.
    assert len(fake_server.requests) - 2 <= 2


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores", "refuses"])
def test_a_server_without_grammars_is_asked_without_and_that_is_counted(fake_server: FakeServer, refuses: bool) -> None:
    if refuses:
        fake_server.refused_fields = ("structured_outputs", "grammar")
    assert with_backend(fake_server, ask_twice) == ("seed 1", "seed 2", 2)
    assert len(fake_server.requests) == 4
    assert not {"structured_outputs", "grammar"} & fake_server.requests[-1].body.keys()


def test_many_requests_at_once_ask_only_once_what_the_server_takes(fake_server: FakeServer) -> None:
    fake_server.grammar_field = "structured_outputs"
    fake_server.delay_s = 0.02

    async def many(backend: HttpBackend) -> list[str]:
        completions = await asyncio.gather(*(backend.complete(chat(GRAMMAR, seed)) for seed in range(10)))
        return [c.text for c in completions]

    assert with_backend(fake_server, many) == ["yes"] * 10
    assert len(fake_server.requests) == 11


def test_a_grammar_that_a_server_refuses_is_left_out_from_then_on(fake_server: FakeServer) -> None:
    fake_server.grammar_field = "structured_outputs"

    async def use(backend: HttpBackend) -> tuple[str, str, int]:
        assert (await backend.complete(chat(GRAMMAR))).text == "yes"
        fake_server.refused_fields = ("structured_outputs",)
        return await ask_twice(backend)

    assert with_backend(fake_server, use) == ("seed 1", "seed 2", 2)


def test_a_request_that_is_refused_with_and_without_its_grammar_does_not_blame_the_grammar(fake_server: FakeServer) -> None:
    fake_server.grammar_field = "structured_outputs"

    async def use(backend: HttpBackend) -> str:
        await backend.complete(chat(GRAMMAR))
        fake_server.fail(400, times=2, message="no such seed")
        with pytest.raises(BackendError, match="no such seed"):
            await backend.complete(chat(GRAMMAR))
        return (await backend.complete(chat(GRAMMAR))).text

    assert with_backend(fake_server, use) == "yes"


def test_prompts_of_ids_go_without_grammar_since_text_can_not_ask_for_special_tokens(fake_server: FakeServer) -> None:
    fake_server.grammar_field = "structured_outputs"
    request = Request((1, 2, 3), Sampling(), 1, "s", grammar=GRAMMAR)

    async def use(backend: HttpBackend) -> int:
        await backend.complete(request)
        return backend.num_unconstrained

    assert with_backend(fake_server, use) == 1
    [sent] = fake_server.requests
    assert not {"structured_outputs", "grammar"} & sent.body.keys()


# ---- sampling ----------------------------------------------------------------------------------------------------------


def test_penalties_are_sent_where_they_are_not_zero(fake_server: FakeServer) -> None:
    with_backend(fake_server, lambda b: b.complete(chat(presence_penalty=0.5)))
    with_backend(fake_server, lambda b: b.complete(chat(frequency_penalty=-0.5)))
    first, second = (r.body for r in fake_server.requests)
    assert (first["presence_penalty"], "frequency_penalty" in first) == (0.5, False)
    assert (second["frequency_penalty"], "presence_penalty" in second) == (-0.5, False)


@pytest.mark.parametrize(
    ("owner", "repetition"),
    [("vllm", "repetition_penalty"), ("llamacpp", "repeat_penalty"), ("sglang", "repetition_penalty")],
)
def test_servers_that_have_more_settings_are_told_all_of_them(fake_server: FakeServer, owner: str, repetition: str) -> None:
    fake_server.owned_by = owner
    with_backend(fake_server, lambda b: b.complete(chat(min_p=0.1)))
    with_backend(fake_server, lambda b: b.complete(chat()))
    assert [r.body["min_p"] for r in fake_server.requests] == [0.1, 0.0]
    assert all((r.body["top_k"], r.body[repetition]) == (-1, 1.0) for r in fake_server.requests)


@pytest.mark.parametrize("owner", [None, "openai", "library"])
def test_min_p_is_never_silently_dropped(fake_server: FakeServer, owner: str | None) -> None:
    fake_server.owned_by = owner
    with pytest.raises(ConfigError, match=r"min-p is 0.1, but .* set sampling.min_p to 0"):
        with_backend(fake_server, lambda b: b.complete(chat(min_p=0.1)))
    assert fake_server.requests == []


# ---- secrets -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "agenda"
    args = ["data", "agenda", "--out", path, "--num-dialogues", 20, "--num-items", 100, "--test-fraction", 0.5]
    assert main([str(a) for a in args]) == 0
    return path


@pytest.fixture
def numbers() -> Iterator[int]:
    return iter(range(1000))


def spellings(key: str) -> set[str]:
    return {key, repr(key)[1:-1], json.dumps(key)[1:-1], quote(key), quote(key, safe="")}


def refusing(status: int, key: str) -> Response:
    return JSONResponse({"error": {"message": f"bad   key {key} in {{'Authorization': {key!r}}}"}}, status_code=status)


MODES = ("answers", 400, 401, 403, 404, 429, 500, 503, "unstructured", "reset", "not JSON")
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True, database=None)
@given(key=KEYS.map(lambda key: f"k{key}y"))
def test_the_key_is_in_no_file_of_a_run_and_in_nothing_printed(
    key: str,
    mode: str | int,
    data: Path,
    tmp_path: Path,
    numbers: Iterator[int],
    fake_server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(HttpBackend.__init__, "__kwdefaults__", QUICK)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    fake_server.reset()
    fake_server.required_key = key
    say = "<action><give-up></action><response>bye</response>"
    fake_server.reply_text = lambda body: say
    if isinstance(mode, int):
        fake_server.raw_reply = refusing(mode, key)
    elif mode == "unstructured":
        fake_server.raw_reply = JSONResponse({"detail": [f"Bearer {key}"]}, status_code=401)
    elif mode == "not JSON":
        fake_server.raw_reply = Response(f"Bearer {key}", media_type="application/json")
    elif mode == "reset":
        fake_server.fail(kind="reset", times=None)
    out = tmp_path / str(next(numbers))
    args = ["simulate", "--user", f"{fake_server.base_url}#tiny", "--recommender", "agenda", "--scenarios", data, "--out", out]
    code = main([str(a) for a in [*args, "--num-dialogues", 2]])
    assert code == (0 if mode == "answers" else 2)
    printed = capfd.readouterr()
    written = [path.read_text(encoding="utf-8") for path in out.rglob("*") if path.is_file()]
    assert len(written) >= 4
    everything = "\n".join([*written, printed.out, printed.err, caplog.text])
    for spelling in spellings(key):
        assert spelling not in everything
    assert any(r.headers["authorization"] == f"Bearer {key}" for r in fake_server.requests)


QUICK = {**HttpBackend.__init__.__kwdefaults__, "backoff_s": 0.01, "max_retries": 1, "patience_s": 0.3}


@pytest.mark.parametrize(
    ("url", "verb"),
    list(
        product(
            [
                "http://someone:hush-hush@127.0.0.1:9/v1#m",
                "HTTPS://hush-hush@host/v1#m",
                "http://127.0.0.1:9/v1,http://a:hush-hush@host/v1#m",
                "http://127.0.0.1:9/v1?api_key=hush-hush#m",
                "http://a:hush-hush@host/v1",
            ],
            ["simulate", "evaluate", "data", "dry-run"],
        )
    ),
)
def test_a_url_with_a_password_is_refused_without_a_trace(
    url: str, verb: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args: list[object] = {
        "simulate": ["simulate", "--user", url, "--recommender", "agenda", "--scenarios", data],
        "dry-run": ["simulate", "--user", "agenda", "--recommender", url, "--scenarios", data, "--dry-run"],
        "evaluate": ["evaluate", "replay", "--user", url, "--data", data],
        "data": ["data", "agenda", "--annotate-with", url],
    }[verb]
    assert main([str(a) for a in [*args, "--out", out]]) == 1
    printed = capfd.readouterr()
    assert "hush-hush" not in printed.out + printed.err
    assert printed.err.count("\n") == 1
    assert not out.exists()


# ---- what people write -------------------------------------------------------------------------------------------------


def test_several_servers_are_written_with_commas() -> None:
    spec = "http://127.0.0.1:8000,http://127.0.0.1:8001/v1#org/model"
    loaded = load_from_spec(spec, Role.USER, sampling=Sampling(), catalog=CATALOG, max_batch=8)
    assert loaded.agent.backend.base_url == "http://127.0.0.1:8000/v1,http://127.0.0.1:8001/v1"  # type: ignore[attr-defined]
    assert loaded.agent.backend.model == "org/model"  # type: ignore[attr-defined]


def test_a_server_without_a_model_is_refused() -> None:
    with pytest.raises(Exception, match="write URL#MODEL"):
        split_server("http://127.0.0.1:8000/v1")


def test_the_same_server_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        HttpBackend("http://127.0.0.1:8000,http://127.0.0.1:8000/v1", "m")
