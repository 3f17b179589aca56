"""Completions from any OpenAI-compatible server: vLLM, llama.cpp, Ollama, a hosted service.

Chat messages go to `/chat/completions`, token ids to `/completions`. Only faults of the transport are tried again (no
connection, time-out, 429, 502, 503, 504); what the server refuses, it would refuse again. The key comes from an environment
variable and appears in no message.
"""

import asyncio
import ipaddress
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import Random
from time import time
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from interplay.backends.backend import Completion, Message, Request
from interplay.errors import BackendError, ConfigError, ContextOverflow, InputError, MissingExtra

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError

MAX_CONCURRENCY = 1000
"""Connections the openai client opens at most; more requests would wait in its pool and count as timed out."""

MAX_WAIT_S = 60.0
"""The longest pause between two attempts, in seconds. A server that asks for a longer one is given up."""

_CHECK_TIMEOUT_S = 10.0
_RETRIED_STATUSES = frozenset({429, 502, 503, 504})
# vLLM: "maximum context length is ..." or "longer than the maximum model length"; OpenAI: code "context_length_exceeded";
# llama.cpp: "exceeds the available context size" (400) and "Context size has been exceeded" (500, while generating).
_OVERFLOW_STATUSES = frozenset({400, 413, 422, 500})
_OVERFLOW = re.compile(r"context[ _](length|size|window)|maximum context|maximum model length", re.IGNORECASE)
_WITHHELD = frozenset({"content_filter", "abort", "error"})


class _Logprobs(BaseModel):
    token_logprobs: tuple[float, ...] | None = None


class _IdsChoice(BaseModel):
    text: str = ""
    finish_reason: str | None = None
    token_ids: tuple[int, ...] | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    logprobs: _Logprobs | None = None


class _IdsReply(BaseModel):
    choices: tuple[_IdsChoice, ...] = Field(min_length=1)


class _ChatMessage(BaseModel):
    content: str | None = None


class _ChatChoice(BaseModel):
    message: _ChatMessage
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """vLLM: the stop string that was met; null when the model ended by itself."""
    matched_stop: str | int | None = None
    """SGLang's name for the same."""


class _ChatReply(BaseModel):
    choices: tuple[_ChatChoice, ...] = Field(min_length=1)


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: tuple[_Model, ...] = ()


ReplyT = TypeVar("ReplyT", bound=BaseModel)


@dataclass(slots=True, frozen=True)
class _Fault:
    """Why an attempt failed."""

    kind: str
    """What `HttpBackend.retries` counts it under."""
    what: str
    """In words, the server's own included."""
    todo: str
    retried: bool
    at_least_s: float = 0.0
    """The pause the server asks for, in seconds."""


class HttpBackend:
    """A model behind an OpenAI-compatible server. Belongs to one event loop.

    Args:
        base_url: for example "http://127.0.0.1:8000/v1"; "/v1" is added when the URL has no path.
        model: the name under which the server knows the model.
        api_key_env: the environment variable that holds the key. A server on this machine needs none.
        max_concurrency: requests under way at once, [1, 1000]; the others wait. A request that pauses before another
            attempt keeps its place, so an overloaded server is asked less.
        timeout_s: seconds without a byte from the server after which an attempt has failed, > 0.
        max_retries: attempts after the first, >= 0.
        backoff_s: scale of the pause before another attempt, in seconds: the n-th pause (from 0) is drawn from
            [0.5, 1] * backoff_s * 2 ** n by the request's own seed, or is what the server asks for when that is longer.

    Attributes:
        retries: attempts that were repeated, by reason ("connection", "timeout", "429", ...).
        num_requests: completions asked for.

    Raises:
        ConfigError: the URL or a number is not usable, or a server elsewhere needs a key and there is none.
        MissingExtra: `openai` is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        max_concurrency: int = 64,
        timeout_s: float = 120.0,
        max_retries: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.model = model
        self.name = f"http:{model}"
        self.retries: Counter[str] = Counter()
        self.num_requests = 0
        if not 1 <= max_concurrency <= MAX_CONCURRENCY:
            raise ConfigError(f"max_concurrency is {max_concurrency}; accepted: 1 to {MAX_CONCURRENCY}")
        if not (timeout_s > 0 and max_retries >= 0 and backoff_s >= 0):
            raise ConfigError(
                f"timeout_s is {timeout_s}, max_retries {max_retries}, backoff_s {backoff_s}; accepted: above 0, from 0, from 0"
            )
        self._api_key_env = api_key_env
        key = _key_from(api_key_env, self.base_url)
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise MissingExtra("openai", "http", "A model behind an HTTP server") from None
        # Our own loop retries, since the client's would also repeat 408, 409 and 500, and would not be counted.
        self._client = AsyncOpenAI(api_key=key, base_url=self.base_url, timeout=timeout_s, max_retries=0)
        self._slots = asyncio.Semaphore(max_concurrency)
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._backoff_s = backoff_s

    def __repr__(self) -> str:
        return f"HttpBackend({self.base_url!r}, {self.model!r})"

    @property
    def num_retries(self) -> int:
        """Attempts that were repeated, whatever the reason."""
        return self.retries.total()

    async def check(self) -> None:
        """Make sure, before the first conversation, that a server answers, takes the key and knows the model.

        Servers that list no models are taken at their word. A name that is not listed is tried with one token, since
        some servers (llama.cpp) take any.

        Raises:
            InputError: no server answers, or it does not have the model.
            ConfigError: the server refuses the key.
        """
        from openai import APIConnectionError, APIStatusError

        timeout_s = min(_CHECK_TIMEOUT_S, self._timeout_s)
        try:
            listed = await self._client.get("/models", cast_to=object, options={"timeout": timeout_s})
            names = [m.id for m in _Models.model_validate(listed).data]
        except APIConnectionError as error:
            reason = self._words(error.__cause__ or error)
        except APIStatusError as error:
            if error.status_code not in (401, 403):
                return
            status = error.status_code
            raise ConfigError(
                f"{self.base_url} refuses the key ({status}); put a valid one into the environment variable {self._api_key_env}"
            ) from None
        except ValueError:
            return
        else:
            if names and self.model not in names and not await self._takes_model():
                raise InputError(f"{self.base_url} has no model {self.model!r}; it lists: {', '.join(names[:10])}")
            return
        raise InputError(
            f"no server answers at {self.base_url} ({reason}); "
            f"start one with: vllm serve {self.model} --port {urlsplit(self.base_url).port or 8000}, or check the URL"
        )

    async def _takes_model(self) -> bool:
        from openai import APIConnectionError, APIStatusError

        try:
            body = {"model": self.model, "prompt": "a", "max_tokens": 1}
            await self._client.post("/completions", cast_to=object, body=body)
        except APIStatusError as error:
            return not (error.status_code == 404 and "model" in str(error).lower())
        except (APIConnectionError, ValueError):
            return True
        return True

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        A prompt of token ids comes back with the sampled ids and, where the server tells them, their log-probabilities.
        A chat prompt comes back as text alone. OpenAI-compatible servers leave the stop string out of the text; it is put
        back when the server says which one was met, or when there was only one that could have been.

        Raises:
            BackendError: no usable answer; the message names the URL, the status and what to do.
            ContextOverflow: the prompt and the tokens asked for exceed the server's context.
        """
        self.num_requests += 1
        body: dict[str, object] = {
            "model": self.model,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "max_tokens": request.sampling.max_new_tokens,
            # llama.cpp reads 32 bits and takes 2 ** 32 - 1 as "draw one"; vLLM takes -1 so.
            "seed": request.seed % 2**31,
        }
        if request.stop_text:
            body["stop"] = list(request.stop_text)
        messages = [m for m in request.prompt if isinstance(m, Message)]
        if messages:
            body["messages"] = [{"role": m.role, "content": m.content} for m in messages]
            return self._read_chat(await self._post("/chat/completions", body, request), request)
        body |= {
            "prompt": list(request.prompt),
            "logprobs": 1,
            "stop_token_ids": list(request.stop_ids),
            "return_token_ids": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "include_stop_str_in_output": True,
        }
        return self._read_ids(await self._post("/completions", body, request), request)

    def release(self, session: str) -> None:
        """Nothing to do: a server keeps its prefix cache itself."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _post(self, path: str, body: dict[str, object], request: Request) -> object:
        from openai import APIConnectionError, APIStatusError

        rng = Random(request.seed)
        async with self._slots:
            for attempt in range(self._max_retries + 1):
                try:
                    return await self._client.post(path, cast_to=object, body=body)
                except APIConnectionError as error:
                    fault = self._connection_fault(error)
                except APIStatusError as error:
                    fault = self._status_fault(error)
                except ValueError:
                    raise self._unusable(path, "something that is not JSON") from None
                wait_s = max(fault.at_least_s, rng.uniform(0.5, 1.0) * self._backoff_s * 2**attempt)
                if not fault.retried or fault.at_least_s > MAX_WAIT_S or attempt == self._max_retries:
                    break
                self.retries[fault.kind] += 1
                await asyncio.sleep(min(wait_s, MAX_WAIT_S))
        tried = "" if attempt == 0 else f" (attempt {attempt + 1} of {self._max_retries + 1})"
        raise BackendError(f"{self.base_url}{path} {fault.what}{tried}; {fault.todo}")

    def _connection_fault(self, error: "APIConnectionError") -> _Fault:
        from openai import APITimeoutError

        if isinstance(error, APITimeoutError):
            return _Fault(
                kind="timeout",
                what=f"did not answer within {self._timeout_s:g} s",
                todo="look at the server's load, raise the time-out or lower the concurrency, then resume",
                retried=True,
            )
        return _Fault(
            kind="connection",
            what=f"can't be reached, no status: {self._words(error.__cause__ or error)}",
            todo="check that the server still runs, then resume",
            retried=True,
        )

    def _status_fault(self, error: "APIStatusError") -> _Fault:
        status = error.status_code
        words = self._words(error)
        if status in _OVERFLOW_STATUSES and _OVERFLOW.search(f"{words} {error.code} {error.type}"):
            raise ContextOverflow(f"{self.base_url} answered {status}: {words}") from None
        at_least_s = _retry_after(error.response.headers.get("retry-after"))
        todo = {
            400: "the server does not take such a request: see docs/backends.md for what servers must support",
            401: f"check the key in the environment variable {self._api_key_env}",
            403: f"check the key in the environment variable {self._api_key_env}",
            404: f"check the model's name ({self.model}) and the URL, which usually ends in /v1",
            429: "the server limits the rate: lower the concurrency or wait, then resume",
        }.get(status, "look at the server's log, then resume" if status >= 500 else "check the URL and the server's log")
        if at_least_s > MAX_WAIT_S:
            todo = f"it asks to wait {at_least_s:g} s: resume after that"
        # A used-up quota is sent as 429 too, and no waiting mends it.
        retried = status in _RETRIED_STATUSES and error.code != "insufficient_quota"
        return _Fault(str(status), f"answered {status}: {words}", todo, retried, at_least_s)

    def _words(self, error: BaseException) -> str:
        """One line about an error, cut to a readable length, with the key taken out: servers like to repeat it."""
        body = getattr(error, "body", None)
        text = body["message"] if isinstance(body, dict) and isinstance(body.get("message"), str) else str(error)
        text = " ".join((text or type(error).__name__).split())
        return text.replace(self._client.api_key, "***")[:300] if self._client.api_key != _NO_KEY else text[:300]

    def _unusable(self, path: str, what: str) -> BackendError:
        return BackendError(f"{self.base_url}{path} answered 200 with {what}; check the URL and docs/backends.md")

    def _parsed(self, path: str, reply: object, kind: type[ReplyT]) -> ReplyT:
        try:
            return kind.model_validate(reply)
        except ValueError:
            raise self._unusable(path, "something that is not a completion") from None

    def _finish(self, path: str, reason: str | None) -> Literal["stop", "length"]:
        if reason in _WITHHELD:
            raise self._unusable(path, f"a completion it broke off ({reason})")
        return "length" if reason == "length" else "stop"

    def _read_chat(self, reply: object, request: Request) -> Completion:
        path = "/chat/completions"
        choice = self._parsed(path, reply, _ChatReply).choices[0]
        finish = self._finish(path, choice.finish_reason)
        text = choice.message.content or ""
        ends = [text.find(s) + len(s) for s in request.stop_text if s in text]
        if ends:
            return Completion(text[: min(ends)], ids=None, logprobs=None, finish="stop")
        if finish == "stop":
            text += _stripped_stop(choice, request.stop_text)
        return Completion(text, ids=None, logprobs=None, finish=finish)

    def _read_ids(self, reply: object, request: Request) -> Completion:
        path = "/completions"
        choice = self._parsed(path, reply, _IdsReply).choices[0]
        finish = self._finish(path, choice.finish_reason)
        ids = choice.token_ids
        if ids is None:
            raise self._unusable(path, "no token_ids, which a prompt of token ids needs (vLLM from 0.10.2 gives them)")
        if choice.prompt_token_ids is not None and choice.prompt_token_ids != request.prompt:
            raise self._unusable(path, "a completion of another prompt than was sent: it cut it or added tokens")
        logprobs = choice.logprobs.token_logprobs if choice.logprobs else None
        if logprobs is not None and len(logprobs) != len(ids):
            raise self._unusable(path, f"{len(logprobs)} log-probabilities for {len(ids)} token ids")
        end = next((i + 1 for i, token in enumerate(ids) if token in request.stop_ids), None)
        if end is not None:
            ids, logprobs, finish = ids[:end], logprobs and logprobs[:end], "stop"
        return Completion(choice.text, ids, logprobs, finish)


_NO_KEY = "none"


def _stripped_stop(choice: _ChatChoice, stop_text: tuple[str, ...]) -> str:
    """The stop string that the server met and left out, as far as one can know."""
    told = choice.model_fields_set & {"stop_reason", "matched_stop"}
    for name in sorted(told):
        met = getattr(choice, name)
        if met in stop_text:
            return str(met)
    return stop_text[0] if not told and len(stop_text) == 1 else ""


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        # The URL itself is not repeated: what makes it unusable may be a password.
        raise ConfigError(
            "the base URL is not usable; accepted: http(s)://HOST[:PORT][/PATH] without user name, password or query, "
            "for example http://127.0.0.1:8000/v1; keys come from the environment"
        )
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _key_from(variable: str, base_url: str) -> str:
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable} holds characters that no key has; set it again")
    if not key and not _is_loopback(urlsplit(base_url).hostname or ""):
        raise ConfigError(
            f"{base_url} is not on this machine and the environment variable {variable} holds no key; "
            f"set it (to any word, for a server without keys)"
        )
    return key or _NO_KEY


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, section 10.2.3: seconds, or a date); 0 when it can't be read."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
