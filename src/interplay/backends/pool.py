"""Which of several servers gets the next request, and how many it gets at once. Knows nothing of what a request is.

The next request goes to the usable server with the least outstanding work. How much a server may have outstanding adapts
as TCP does (additive increase, multiplicative decrease; Chiu and Jain 1989): half as much when it throttles, one more per
round of successes. Belongs to one event loop.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar


class Server:
    """One server as the pool sees it.

    Args:
        url: names it.
        max_concurrency: requests it may have outstanding at most, >= 1; it starts there.
    """

    def __init__(self, url: str, max_concurrency: int) -> None:
        self.url = url
        self.max_concurrency = max_concurrency
        self.limit = float(max_concurrency)
        """Requests it may have outstanding now, [1, max_concurrency]; the fraction counts towards the next whole one."""
        self.outstanding = 0
        self.num_sent = 0
        """Requests it was given so far."""
        self.num_throttled = 0
        """How often its limit was halved."""
        self.paused_until = 0.0
        """Time of the loop before which it asked not to be asked."""
        self.away_since: float | None = None
        """Time of the loop since which it can't be reached; None while it can."""

    def __repr__(self) -> str:
        away = ", away" if self.away_since is not None else ""
        return f"{type(self).__name__}({self.url!r}, {self.outstanding} of {self.limit:.1f} outstanding{away})"


ServerT = TypeVar("ServerT", bound=Server)


@dataclass(slots=True, frozen=True)
class Place(Generic[ServerT]):
    """The right to have one request outstanding at a server, until it is given back."""

    server: ServerT
    num_throttled: int
    """The server's count when the place was taken: what fails afterwards was sent under the old limit."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[ServerT]):
    future: "asyncio.Future[Place[ServerT]]"
    session: str
    not_again: ServerT | None = field(default=None)


class NoServerLeft(Exception):
    """Every server is away, or asks for a longer pause than anybody waits."""


class Pool(Generic[ServerT]):
    """Several servers, any of which can answer.

    Args:
        servers: at least one.
        patience_s: how long a server may be away before requests stop waiting for it, in seconds.
        max_pause_s: the longest pause a server may ask for before requests stop waiting for it, in seconds.
    """

    def __init__(self, servers: list[ServerT], *, patience_s: float, max_pause_s: float) -> None:
        self.servers = servers
        self._patience_s = patience_s
        self._max_pause_s = max_pause_s
        self._waiting: deque[_Waiting[ServerT]] = deque()
        self._latest: dict[str, ServerT] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    async def take(self, session: str, not_again: ServerT | None = None) -> Place[ServerT]:
        """Wait for a place.

        Args:
            session: among equally busy servers the one that served it before is preferred: it may have its prefix cached.
            not_again: the server that has just failed this request; taken only when no other is usable.

        Raises:
            NoServerLeft: there is nothing to wait for.
        """
        self._fail_if_hopeless()
        future: asyncio.Future[Place[ServerT]] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(future, session, not_again)
        # What was tried before goes first: its conversation has waited longest.
        (self._waiting.append if not_again is None else self._waiting.appendleft)(waiting)
        self._dispatch()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise

    def give_back(self, place: Place[ServerT]) -> None:
        """The request is over, however it ended."""
        place.server.outstanding -= 1
        self._dispatch()

    def succeeded(self, place: Place[ServerT]) -> None:
        """The server answered: after a round of such answers it may have one more outstanding."""
        server = place.server
        server.limit = min(float(server.max_concurrency), server.limit + 1 / server.limit)

    def throttled(self, place: Place[ServerT], pause_s: float = 0.0) -> None:
        """The server has too much to do: half as much from now on, and nothing for `pause_s` seconds.

        Requests sent before an earlier halving do not halve again: a burst that fails together is one sign, not many.
        """
        server = place.server
        if place.num_throttled == server.num_throttled:
            server.limit = max(1.0, server.limit / 2)
            server.num_throttled += 1
        if pause_s > 0:
            now = asyncio.get_running_loop().time()
            server.paused_until = max(server.paused_until, now + pause_s)
            self._later(pause_s)
            self._give_up_if_hopeless()

    def lost(self, server: ServerT) -> bool:
        """The server can't be reached: nothing goes there until `found`. Returns whether that is news."""
        if server.away_since is not None:
            return False
        server.away_since = asyncio.get_running_loop().time()
        self._later(self._patience_s)
        return True

    def found(self, server: ServerT) -> None:
        """The server can be reached again."""
        server.away_since = None
        self._dispatch()

    def has_other(self, server: ServerT) -> bool:
        """Whether another server than this one is usable now, however busy it is."""
        return any(self._is_usable(other) for other in self.servers if other is not server)

    def forget(self, session: str) -> None:
        """The session is over."""
        self._latest.pop(session, None)

    def close(self) -> None:
        """Drop the timers."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _is_usable(self, server: ServerT) -> bool:
        return server.away_since is None and server.paused_until <= asyncio.get_running_loop().time()

    def _best(self, waiting: _Waiting[ServerT]) -> ServerT | None:
        usable = [s for s in self.servers if self._is_usable(s)]
        if len(usable) > 1:
            usable = [s for s in usable if s is not waiting.not_again]
        free = [s for s in usable if s.outstanding < int(s.limit)]
        latest = self._latest.get(waiting.session)
        return min(free, key=lambda s: (s.outstanding, s is not latest, s.num_sent), default=None)

    def _dispatch(self) -> None:
        held_back: list[_Waiting[ServerT]] = []
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.future.done():
                continue
            server = self._best(waiting)
            if server is None:
                held_back.append(waiting)
                # Only a request that avoids a server may be stuck where the next one is not.
                if waiting.not_again is None:
                    break
                continue
            server.outstanding += 1
            server.num_sent += 1
            self._latest[waiting.session] = server
            waiting.future.set_result(Place(server, server.num_throttled))
        self._waiting.extendleft(reversed(held_back))

    def _later(self, delay_s: float) -> None:
        def ring() -> None:
            self._timers.discard(timer)
            self._dispatch()
            self._give_up_if_hopeless()

        # A timer may ring a little early by the clock that `_is_usable` reads.
        timer = asyncio.get_running_loop().call_later(delay_s + 0.002, ring)
        self._timers.add(timer)

    def _is_hopeless(self) -> bool:
        now = asyncio.get_running_loop().time()
        return all(
            (s.away_since is not None and now - s.away_since >= self._patience_s) or s.paused_until - now > self._max_pause_s
            for s in self.servers
        )

    def _fail_if_hopeless(self) -> None:
        if self._is_hopeless():
            raise NoServerLeft

    def _give_up_if_hopeless(self) -> None:
        if not self._is_hopeless():
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(NoServerLeft())
