import asyncio
import gc
import logging
import random
import socket
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import TypeVar

import pytest
from fastapi.responses import HTMLResponse, JSONResponse, Response

from interplay.backends.backend import Completion, Message, Request
from interplay.backends.http import HttpBackend
from interplay.config import Sampling
from interplay.errors import BackendError, ConfigError, ContextOverflow, InputError, MissingExtra
from server import FakeServer, logprob_of

T = TypeVar("T")
KEY = "sk-very-secret-0123456789"
HELLO = (Message("system", "You like films."), Message("user", "Hello"))


def chat(seed: int = 1, stop: tuple[str, ...] = ()) -> Request:
    return Request(HELLO, Sampling(temperature=0.7, top_p=0.9, max_new_tokens=20), seed, f"s{seed}", stop_text=stop)


def ids(seed: int = 1, stop: tuple[int, ...] = (), limit: int = 20) -> Request:
    return Request((1, 2, 3), Sampling(max_new_tokens=limit), seed, f"s{seed}", stop_ids=stop)


def with_backend(server: FakeServer, use: Callable[[HttpBackend], Awaitable[T]], **options: object) -> T:
    async def main() -> T:
        settings = {"backoff_s": 0.01, "timeout_s": 5.0} | options
        backend = HttpBackend(server.base_url, "tiny", **settings)  # type: ignore[arg-type]  # options of any test
        try:
            return await use(backend)
        finally:
            await backend.close()

    return asyncio.run(main())


def ask(server: FakeServer, request: Request, **options: object) -> Completion:
    return with_backend(server, lambda backend: backend.complete(request), **options)


def test_a_chat_prompt_is_sent_as_messages_with_its_sampling_and_seed(fake_server: FakeServer) -> None:
    completion = ask(fake_server, chat(seed=42, stop=("</response>",)))
    assert completion == Completion("seed 42</response>", ids=None, logprobs=None, finish="stop")
    [sent] = fake_server.requests
    assert sent.path == "/v1/chat/completions"
    assert sent.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "You like films."}, {"role": "user", "content": "Hello"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 20,
        "seed": 42,
        "stop": ["</response>"],
    }


def test_ids_and_logprobs_come_back_aligned(fake_server: FakeServer) -> None:
    completion = ask(fake_server, ids(seed=5))
    assert completion.ids == (7, 8, 9)
    assert completion.logprobs == tuple(logprob_of(i) for i in (7, 8, 9))
    [sent] = fake_server.requests
    assert sent.path == "/v1/completions"
    assert sent.body["prompt"] == [1, 2, 3]
    assert sent.body["seed"] == 5
    assert sent.body["return_token_ids"] is True
    assert sent.body["skip_special_tokens"] is False


def test_a_completion_ends_with_the_first_stop_id(fake_server: FakeServer) -> None:
    completion = ask(fake_server, ids(stop=(8,)))
    assert (completion.ids, completion.finish) == ((7, 8), "stop")


def test_ids_after_a_stop_id_that_the_server_overlooked_are_cut_with_their_logprobs(fake_server: FakeServer) -> None:
    fake_server.raw_reply = JSONResponse(
        {"choices": [{"token_ids": [7, 8, 9], "logprobs": {"token_logprobs": [-1, -2, -3]}, "finish_reason": "length"}]}
    )
    assert ask(fake_server, ids(stop=(8,))) == Completion("", (7, 8), (-1.0, -2.0), "stop")


def test_a_completion_cut_off_by_its_limit_says_so(fake_server: FakeServer) -> None:
    completion = ask(fake_server, ids(limit=2))
    assert (completion.ids, completion.finish) == ((7, 8), "length")


def test_logprobs_are_none_when_the_server_does_not_tell_them(fake_server: FakeServer) -> None:
    fake_server.tells_logprobs = False
    assert ask(fake_server, ids()).logprobs is None


def test_a_server_that_tells_no_token_ids_is_refused_for_prompts_of_ids(fake_server: FakeServer) -> None:
    fake_server.tells_ids = False
    with pytest.raises(BackendError, match="no token_ids"):
        ask(fake_server, ids())


def test_logprobs_that_do_not_match_the_ids_are_refused(fake_server: FakeServer) -> None:
    fake_server.raw_reply = JSONResponse({"choices": [{"token_ids": [7, 8], "logprobs": {"token_logprobs": [-1]}}]})
    with pytest.raises(BackendError, match="1 log-probabilities for 2 token ids"):
        ask(fake_server, ids())


def test_a_server_that_changed_the_prompt_is_refused(fake_server: FakeServer) -> None:
    fake_server.raw_reply = JSONResponse({"choices": [{"token_ids": [7], "prompt_token_ids": [0, 1, 2, 3]}]})
    with pytest.raises(BackendError, match="another prompt"):
        ask(fake_server, ids())


@pytest.mark.parametrize(
    ("tells", "reply", "stop", "text"),
    [
        (True, "yes</a>no", ("</a>", "</b>"), "yes</a>"),  # the server says which one it met
        (True, "yes", ("</a>",), "yes"),  # the model ended by itself
        (False, "yes</a>no", ("</a>",), "yes</a>"),  # it can only have been this one
        (False, "yes</a>no", ("</a>", "</b>"), "yes"),  # no telling which: nothing is made up
    ],
)
def test_the_stop_string_is_put_back_where_it_is_known(
    fake_server: FakeServer, tells: bool, reply: str, stop: tuple[str, ...], text: str
) -> None:
    fake_server.tells_stop_reason = tells
    fake_server.reply_text = lambda body: reply
    assert ask(fake_server, chat(stop=stop)).text == text


def test_text_after_a_stop_string_that_the_server_ignored_is_cut(fake_server: FakeServer) -> None:
    fake_server.raw_reply = JSONResponse({"choices": [{"message": {"content": "a</b>c"}, "finish_reason": "length"}]})
    assert ask(fake_server, chat(stop=("</b>",))) == Completion("a</b>", None, None, "stop")


def test_no_more_requests_are_under_way_than_allowed(fake_server: FakeServer) -> None:
    fake_server.delay_s = 0.02

    async def many(backend: HttpBackend) -> list[Completion]:
        return list(await asyncio.gather(*(backend.complete(chat(seed)) for seed in range(40))))

    completions = with_backend(fake_server, many, max_concurrency=7)
    assert 1 < fake_server.peak <= 7
    assert [c.text for c in completions] == [f"seed {seed}" for seed in range(40)]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_fault_is_tried_again_and_counted(fake_server: FakeServer, status: int) -> None:
    fake_server.fail(status, times=2)

    async def use(backend: HttpBackend) -> tuple[str, dict[str, int], int]:
        return (await backend.complete(chat())).text, dict(backend.retries), backend.num_retries

    assert with_backend(fake_server, use) == ("seed 1", {str(status): 2}, 2)
    assert len(fake_server.requests) == 3


def test_a_cut_connection_is_tried_again(fake_server: FakeServer) -> None:
    fake_server.fail(kind="reset", times=2)

    async def use(backend: HttpBackend) -> dict[str, int]:
        await backend.complete(chat())
        return dict(backend.retries)

    assert with_backend(fake_server, use) == {"connection": 2}


def test_a_hanging_server_times_out_and_is_asked_again(fake_server: FakeServer) -> None:
    fake_server.fail(kind="hang")

    async def use(backend: HttpBackend) -> dict[str, int]:
        await backend.complete(chat())
        return dict(backend.retries)

    assert with_backend(fake_server, use, timeout_s=0.2) == {"timeout": 1}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 500])
def test_what_the_server_refuses_is_not_asked_again(fake_server: FakeServer, status: int) -> None:
    fake_server.fail(status, times=None, message="not like this")
    with pytest.raises(BackendError, match=f"{fake_server.base_url}/chat/completions answered {status}: not like this; "):
        ask(fake_server, chat())
    assert len(fake_server.requests) == 1


def test_a_used_up_quota_is_not_asked_again(fake_server: FakeServer) -> None:
    fake_server.fail(429, times=None, code="insufficient_quota")
    with pytest.raises(BackendError):
        ask(fake_server, chat())
    assert len(fake_server.requests) == 1


def test_it_waits_as_long_as_the_server_asks(fake_server: FakeServer) -> None:
    fake_server.fail(429, retry_after="0.4")
    ask(fake_server, chat())
    first, second = fake_server.requests
    assert second.at - first.at >= 0.4


def test_it_waits_until_the_date_the_server_names(fake_server: FakeServer) -> None:
    fake_server.fail(503, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))
    ask(fake_server, chat())
    first, second = fake_server.requests
    assert second.at - first.at >= 0.5  # the date has whole seconds, so it may be up to a second less than asked


@pytest.mark.parametrize("value", ["soon", "nan", "-3"])
def test_a_retry_after_that_can_not_be_read_means_the_usual_pause(fake_server: FakeServer, value: str) -> None:
    fake_server.fail(429, retry_after=value)
    assert ask(fake_server, chat()).text == "seed 1"


def test_a_server_that_asks_to_wait_too_long_is_given_up(fake_server: FakeServer) -> None:
    fake_server.fail(429, retry_after="3600")
    started = time.monotonic()
    with pytest.raises(BackendError, match="asks to wait 3600 s"):
        ask(fake_server, chat())
    assert time.monotonic() - started < 5


def test_pauses_grow_and_leave_global_randomness_alone(fake_server: FakeServer) -> None:
    fake_server.fail(503, times=3)
    before = random.getstate()
    ask(fake_server, chat(), backoff_s=0.1)
    assert random.getstate() == before
    times = [r.at for r in fake_server.requests]
    pauses = [b - a for a, b in pairwise(times)]
    for n, pause in enumerate(pauses):
        assert pause >= 0.5 * 0.1 * 2**n
    assert pauses[2] > pauses[0]


def test_when_it_gives_up_it_names_the_url_the_status_and_what_to_do(fake_server: FakeServer) -> None:
    fake_server.fail(503, times=None, message="loading\nthe model")
    with pytest.raises(BackendError) as caught:
        ask(fake_server, chat(), max_retries=2)
    assert str(caught.value) == (
        f"{fake_server.base_url}/chat/completions answered 503: loading the model (attempt 3 of 3); "
        "look at the server's log, then resume"
    )
    assert len(fake_server.requests) == 3


def test_a_server_that_keeps_cutting_the_connection_is_given_up(fake_server: FakeServer) -> None:
    fake_server.fail(kind="reset", times=None)
    with pytest.raises(BackendError, match=r"can't be reached, no status: .*check that the server still runs"):
        ask(fake_server, chat(), max_retries=1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "This model's maximum context length is 512 tokens. However, you requested 600 tokens"}),
        (400, {"message": "The decoder prompt (length 600) is longer than the maximum model length of 512."}),
        (400, {"message": "request (600 tokens) exceeds the available context size (512 tokens), try increasing it"}),
        (400, {"message": "too long", "code": "context_length_exceeded"}),
        (500, {"message": "Context size has been exceeded.", "type": "server_error"}),
    ],
)
def test_a_prompt_that_does_not_fit_is_a_context_overflow(fake_server: FakeServer, status: int, error: dict[str, str]) -> None:
    fake_server.fail(status, times=None, **error)
    with pytest.raises(ContextOverflow, match=fake_server.base_url):
        ask(fake_server, ids())
    assert len(fake_server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        HTMLResponse("<html>Welcome</html>"),
        JSONResponse({"hello": "world"}),
        JSONResponse({"choices": []}),
        Response("{", media_type="application/json"),
    ],
)
def test_an_answer_that_is_no_completion_is_a_backend_error(fake_server: FakeServer, reply: Response) -> None:
    fake_server.raw_reply = reply
    with pytest.raises(BackendError, match="answered 200 with something that is not"):
        ask(fake_server, chat())


def test_a_withheld_answer_is_a_backend_error(fake_server: FakeServer) -> None:
    fake_server.finish_reason = "content_filter"
    with pytest.raises(BackendError, match="content_filter"):
        ask(fake_server, chat())


def test_large_and_negative_seeds_fit_what_servers_read(fake_server: FakeServer) -> None:
    for seed in (2**63, -1, 2**32 - 1):
        ask(fake_server, chat(seed))
    assert all(0 <= r.body["seed"] < 2**31 for r in fake_server.requests)


def test_the_key_of_the_named_variable_is_sent(fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    fake_server.required_key = KEY
    ask(fake_server, chat(), api_key_env="MY_KEY")
    assert fake_server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_server_on_this_machine_needs_no_key(fake_server: FakeServer) -> None:
    ask(fake_server, chat())
    assert fake_server.requests[0].headers["authorization"] == "Bearer none"


def test_a_server_elsewhere_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key"):
        HttpBackend("https://models.example/v1", "tiny")


def test_the_key_is_in_no_repr_and_no_error(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fake_server.required_key = "another"
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    async def use(backend: HttpBackend) -> None:
        seen.extend([repr(backend), str(vars(backend))])
        for attempt in (backend.complete(chat()), backend.check()):
            with pytest.raises((BackendError, ConfigError), match="OPENAI_API_KEY") as caught:
                await attempt
            seen.extend([repr(caught.value), "".join(traceback.format_exception(caught.value))])

    with_backend(fake_server, use)
    assert "Incorrect API key provided: ***" in "".join(seen)
    assert KEY not in "".join(seen) + caplog.text


def test_a_key_with_strange_characters_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sécret")
    with pytest.raises(ConfigError) as caught:
        HttpBackend("http://127.0.0.1:8000/v1", "tiny")
    assert "sécret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x/v1", "http://", "http://a:pass@x/v1", "http://x/v1?key=pass", "http://x:y"]
)
def test_an_unusable_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="base URL is not usable") as caught:
        HttpBackend(url, "tiny")
    assert "pass@" not in str(caught.value)
    assert "key=" not in str(caught.value)


@pytest.mark.parametrize("option", [{"max_concurrency": 0}, {"max_concurrency": 1001}, {"timeout_s": 0}, {"max_retries": -1}])
def test_numbers_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="accepted"):
        HttpBackend("http://127.0.0.1:8000", "tiny", **option)  # type: ignore[arg-type]  # one option of any kind


def test_v1_is_added_to_a_url_without_a_path(fake_server: FakeServer) -> None:
    assert HttpBackend(fake_server.origin, "tiny").base_url == fake_server.base_url


def test_without_openai_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'interplay\[http\]'"):
        HttpBackend("http://127.0.0.1:8000/v1", "tiny")


def test_check_passes_a_server_that_has_the_model(fake_server: FakeServer) -> None:
    with_backend(fake_server, lambda backend: backend.check())
    assert fake_server.requests == []


def test_check_passes_a_server_that_lists_no_models(fake_server: FakeServer) -> None:
    fake_server.models = None
    with_backend(fake_server, lambda backend: backend.check())


def test_check_names_the_models_of_a_server_that_has_not_this_one(fake_server: FakeServer) -> None:
    fake_server.models = ["qwen", "llama"]
    with pytest.raises(InputError, match="has no model 'tiny'; it lists: qwen, llama"):
        with_backend(fake_server, lambda backend: backend.check())


def test_check_passes_a_server_that_takes_any_name(fake_server: FakeServer) -> None:
    fake_server.models = ["gguf"]
    fake_server.fail(400)
    with_backend(fake_server, lambda backend: backend.check())


def test_check_says_in_one_line_that_no_server_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        backend = HttpBackend(url, "tiny")
        with pytest.raises(InputError, match="no server answers at") as caught:
            asyncio.run(backend.check())
    assert url in str(caught.value)
    assert "check the URL" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_close_leaves_no_warning_behind(fake_server: FakeServer) -> None:
    async def many(backend: HttpBackend) -> None:
        await asyncio.gather(*(backend.complete(chat(seed)) for seed in range(8)))
        backend.release("s1")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with_backend(fake_server, many)
        gc.collect()
    assert [str(w.message) for w in caught] == []


def test_a_cancelled_request_frees_its_place(fake_server: FakeServer) -> None:
    fake_server.fail(kind="hang")

    async def use(backend: HttpBackend) -> Completion:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.complete(chat()), 0.2)
        return await backend.complete(chat(2))

    assert with_backend(fake_server, use, max_concurrency=1).text == "seed 2"
