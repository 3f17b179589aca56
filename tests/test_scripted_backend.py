import asyncio
import time

import pytest

from interplay.backends.backend import Backend, Completion, Message, Request
from interplay.backends.scripted import ScriptedBackend
from interplay.config import Sampling
from interplay.errors import BackendError


def request(session: str = "a", stop_ids: tuple[int, ...] = (), stop_text: tuple[str, ...] = (), limit: int = 10) -> Request:
    return Request((Message("user", "Hi"),), Sampling(max_new_tokens=limit), 0, session, stop_ids, stop_text)


def ask(backend: Backend, *requests: Request) -> list[Completion]:
    async def main() -> list[Completion]:
        return list(await asyncio.gather(*(backend.complete(r) for r in requests)))

    return asyncio.run(main())


def test_text_comes_back_as_text() -> None:
    backend = ScriptedBackend(lambda r: f"to {r.session}")
    assert ask(backend, request("x")) == [Completion("to x", None, None, "stop")]
    assert [r.session for r in backend.requests] == ["x"]


def test_ids_come_back_as_ids() -> None:
    assert ask(ScriptedBackend(lambda r: (1, 2)), request()) == [Completion("", (1, 2), None, "stop")]


def test_a_reply_ends_with_its_first_stop() -> None:
    assert ask(ScriptedBackend(lambda r: "a</x>b</y>"), request(stop_text=("</y>", "</x>")))[0].text == "a</x>"
    assert ask(ScriptedBackend(lambda r: (1, 2, 3)), request(stop_ids=(3, 2)))[0].ids == (1, 2)


def test_ids_beyond_the_limit_are_cut_off() -> None:
    assert ask(ScriptedBackend(lambda r: (1, 2, 3)), request(limit=2)) == [Completion("", (1, 2), None, "length")]


def test_a_list_is_read_from_its_start_by_each_session() -> None:
    backend = ScriptedBackend.from_list(["one", "two"])
    replies = ask(backend, request("a"), request("b"), request("b"), request("a"))
    assert [r.text for r in replies] == ["one", "one", "two", "two"]


def test_a_list_that_is_used_up_is_a_backend_error() -> None:
    backend = ScriptedBackend.from_list(["one"])
    with pytest.raises(BackendError, match="1 replies"):
        ask(backend, request(), request())


def test_a_released_session_starts_again() -> None:
    backend = ScriptedBackend.from_list(["one"])
    ask(backend, request("a"))
    backend.release("a")
    assert ask(backend, request("a"))[0].text == "one"
    assert backend.released == ["a"]


def test_it_fails_where_it_is_told_to() -> None:
    backend = ScriptedBackend(lambda r: "ok", fail_on=lambda r: BackendError("down") if r.session == "bad" else None)
    assert ask(backend, request("good"))[0].text == "ok"
    with pytest.raises(BackendError, match="down"):
        ask(backend, request("bad"))


def test_delays_of_many_requests_pass_together() -> None:
    started = time.monotonic()
    ask(ScriptedBackend(lambda r: "ok", delay_s=0.05), *(request(str(i)) for i in range(50)))
    assert 0.05 <= time.monotonic() - started < 1


def test_closing_is_harmless() -> None:
    asyncio.run(ScriptedBackend(lambda r: "ok").close())
