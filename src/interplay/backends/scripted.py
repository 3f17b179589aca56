"""A backend that answers from a script: for tests, demos, and for looking at the machinery without a model."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from interplay.backends.backend import Completion, Request
from interplay.errors import BackendError

Reply = str | tuple[int, ...]
"""Text, or token ids."""


class ScriptedBackend:
    """Answers every request by a function of the request, so the answers are as deterministic as that function.

    Stop ids and stop strings cut the reply as a model would be cut (the stop is kept), and ids beyond
    `sampling.max_new_tokens` are cut off with the finish "length". Log-probabilities are not told.

    Args:
        reply: text, or token ids, for a request.
        delay_s: how long each answer takes, in seconds.
        fail_on: gives the exception a request ends with, or None where it is to be answered.

    Attributes:
        requests: every request, in the order they came.
        released: every session released, in order.
    """

    name = "scripted"

    def __init__(
        self,
        reply: Callable[[Request], Reply],
        *,
        delay_s: float = 0.0,
        fail_on: Callable[[Request], Exception | None] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.released: list[str] = []
        self._reply = reply
        self._delay_s = delay_s
        self._fail_on = fail_on
        self._num_answered: dict[str, int] = {}

    @classmethod
    def from_list(
        cls,
        replies: Sequence[Reply],
        *,
        delay_s: float = 0.0,
        fail_on: Callable[[Request], Exception | None] | None = None,
    ) -> Self:
        """A backend that gives the replies one after the other, to each session from the first on.

        The order is kept per session, so that the answers do not depend on which conversation asks first. A session that
        asks for more than there are gets a BackendError.
        """

        def reply(request: Request) -> Reply:
            index = backend._num_answered.get(request.session, 0)
            if index >= len(replies):
                raise BackendError(f"the script has {len(replies)} replies and session {request.session!r} asks for another")
            backend._num_answered[request.session] = index + 1
            return replies[index]

        backend = cls(reply, delay_s=delay_s, fail_on=fail_on)
        return backend

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            Exception: whatever `fail_on` gives.
            BackendError: a list of replies is used up.
        """
        self.requests.append(request)
        # Also when it is 0: a real backend always gives way to the other conversations.
        await asyncio.sleep(self._delay_s)
        failure = self._fail_on(request) if self._fail_on else None
        if failure is not None:
            raise failure
        reply = self._reply(request)
        if isinstance(reply, str):
            ends = [reply.find(s) + len(s) for s in request.stop_text if s in reply]
            return Completion(reply[: min(ends, default=len(reply))], ids=None, logprobs=None, finish="stop")
        end = next((i + 1 for i, token in enumerate(reply) if token in request.stop_ids), len(reply))
        limit = request.sampling.max_new_tokens
        return Completion("", ids=reply[: min(end, limit)], logprobs=None, finish="length" if end > limit else "stop")

    def release(self, session: str) -> None:
        """Forget how far the session has come."""
        self.released.append(session)
        self._num_answered.pop(session, None)

    async def close(self) -> None:
        """Nothing to give back."""
