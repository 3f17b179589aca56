"""A fake OpenAI-compatible server on loopback: both routes, token ids, log-probabilities, and faults on demand.

It runs in a thread of the test process, so tests can change its replies and look at what it was sent. Where real servers
differ (do they tell ids, or why they stopped?), attributes switch between them.
"""

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

Body = dict[str, Any]


@dataclass(slots=True)
class Recorded:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: Body
    at: float
    """time.monotonic() of its arrival."""


@dataclass(slots=True)
class Fault:
    """What goes wrong instead of an answer: a status, or one of the kinds "reset" and "hang"."""

    status: int = 0
    kind: str = "status"
    retry_after: str | None = None
    error: Body = field(default_factory=dict)


def logprob_of(token: int) -> float:
    """The log-probability the server reports for an id, so that tests can check the alignment."""
    return -(1 + token) / 100


class FakeServer:
    """The server; a context manager. `base_url` is known once it is entered."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.base_url = f"{self.origin}/v1"
        config = uvicorn.Config(self._app(), log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self.reset()

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(5)
        self._socket.close()

    def reset(self) -> None:
        """Forget what was recorded and behave again."""
        self.requests: list[Recorded] = []
        self.faults: deque[Fault] = deque()
        self.endless_fault: Fault | None = None
        self.running = self.peak = 0
        self.delay_s = 0.0
        self.required_key: str | None = None
        self.models: list[str] | None = ["tiny"]
        self.owned_by: str | None = None
        self.grammar_field: str | None = None
        """The field in which it takes grammars (of a single word); other fields it does not know it ignores."""
        self.refused_fields: tuple[str, ...] = ()
        """Fields that it answers with 400."""
        self.tells_ids = self.tells_logprobs = True
        self.tells_stop_reason = False
        self.raw_reply: Response | None = None
        self.finish_reason: str | None = None
        self.reply_text: Callable[[Body], str] = lambda body: f"seed {body.get('seed')}"
        self.reply_ids: Callable[[Body], list[int]] = lambda body: [7, 8, 9]

    def fail(
        self,
        status: int = 0,
        *,
        times: int | None = 1,
        kind: str = "status",
        retry_after: str | None = None,
        message: str = "a fault on demand",
        **error: object,
    ) -> None:
        """The next `times` completions fail; every one from now on when `times` is None."""
        fault = Fault(status, kind, retry_after, {"message": message, **error})
        if times is None:
            self.endless_fault = fault
        else:
            self.faults.extend([fault] * times)

    def _app(self) -> Callable[..., Any]:
        api = FastAPI()
        api.post("/v1/chat/completions")(self._chat)
        api.post("/v1/completions")(self._ids)
        api.get("/v1/models")(self._list_models)

        async def outermost(scope: Body, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
            # Only here `send` is still uvicorn's own, through which the connection can be cut.
            scope["cut"] = lambda: send.__self__.transport.abort()  # type: ignore[attr-defined]
            await api(scope, receive, send)

        return outermost

    async def _list_models(self, request: Request) -> Response:
        if refusal := self._refuse_key(request):
            return refusal
        if self.models is None:
            return JSONResponse({"error": {"message": "no such route"}}, status_code=500)
        return JSONResponse({"data": [{"id": name, "owned_by": self.owned_by} for name in self.models]})

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, self._chat_choice)

    async def _ids(self, request: Request) -> Response:
        return await self._answer(request, self._ids_choice)

    async def _answer(self, request: Request, choice: Callable[[Body], Body]) -> Response:
        body = await request.json()
        self.requests.append(Recorded(request.url.path, dict(request.headers), body, time.monotonic()))
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if refusal := self._refuse_key(request):
                return refusal
            fault = self.faults.popleft() if self.faults else self.endless_fault
            if fault is not None:
                return await self._break(request, fault)
            if self.models is not None and body["model"] not in self.models:
                return JSONResponse({"error": {"message": f"The model {body['model']} does not exist"}}, status_code=404)
            if refused := [name for name in self.refused_fields if name in body]:
                return JSONResponse({"error": {"message": f"unknown field {refused[0]}"}}, status_code=400)
            await asyncio.sleep(self.delay_s)
            if self.raw_reply is not None:
                return self.raw_reply
            return JSONResponse({"id": "c", "object": "completion", "model": body["model"], "choices": [choice(body)]})
        finally:
            self.running -= 1

    def _refuse_key(self, request: Request) -> Response | None:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.required_key in (None, key):
            return None
        # Hosted services repeat the key they refuse.
        return JSONResponse({"error": {"message": f"Incorrect API key provided: {key}"}}, status_code=401)

    async def _break(self, request: Request, fault: Fault) -> Response:
        if fault.kind == "reset":
            request.scope["cut"]()
        if fault.kind == "hang":
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return JSONResponse({"error": fault.error}, status_code=fault.status or 500, headers=headers)

    def _chat_choice(self, body: Body) -> Body:
        text, met = self._forced_word(body) or self.reply_text(body), None
        for stop in body.get("stop", ()):
            if stop in text:
                text, met = text[: text.index(stop)], stop
        choice: Body = {"index": 0, "message": {"role": "assistant", "content": text}}
        choice["finish_reason"] = self.finish_reason or "stop"
        if self.tells_stop_reason:
            choice["stop_reason"] = met
        return choice

    def _forced_word(self, body: Body) -> str | None:
        grammar = body.get(self.grammar_field) if self.grammar_field else None
        if isinstance(grammar, dict):
            grammar = grammar["grammar"]
        return None if grammar is None else str(grammar).partition('"')[2].partition('"')[0]

    def _ids_choice(self, body: Body) -> Body:
        ids = self.reply_ids(body)
        end = next((i + 1 for i, token in enumerate(ids) if token in body.get("stop_token_ids", ())), len(ids))
        cut = end > body["max_tokens"]
        ids = ids[: min(end, body["max_tokens"])]
        choice: Body = {"index": 0, "text": " ".join(f"<{token}>" for token in ids)}
        choice["finish_reason"] = self.finish_reason or ("length" if cut else "stop")
        if self.tells_ids and body.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": body["prompt"]}
        if self.tells_logprobs and body.get("logprobs"):
            choice["logprobs"] = {"token_logprobs": [logprob_of(token) for token in ids]}
        return choice
