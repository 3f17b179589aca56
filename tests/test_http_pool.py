import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from interplay.backends.pool import NoServerLeft, Place, Pool, Server

T = TypeVar("T")


def with_pool(
    use: Callable[[Pool[Server], list[Server]], Awaitable[T]], *limits: int, patience_s: float = 60.0, max_pause_s: float = 60.0
) -> T:
    async def main() -> T:
        servers = [Server(f"http://s{i}", limit) for i, limit in enumerate(limits)]
        pool = Pool(servers, patience_s=patience_s, max_pause_s=max_pause_s)
        try:
            return await use(pool, servers)
        finally:
            pool.close()

    return asyncio.run(main())


async def soon(pool: Pool[Server], session: str = "s", not_again: Server | None = None) -> Place[Server]:
    return await asyncio.wait_for(pool.take(session, not_again), 1)


def test_the_server_with_the_least_outstanding_is_next() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        places = [await soon(pool, str(i)) for i in range(6)]
        assert [s.outstanding for s in servers] == [2, 2, 2]
        for place in places:
            if place.server is servers[1]:
                pool.give_back(place)
        assert (await soon(pool)).server is servers[1]

    with_pool(use, 8, 8, 8)


def test_a_session_stays_where_its_prefix_is_cached_when_servers_are_equally_busy() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        for session in ("a", "b", "a", "b", "b", "a"):
            place = await soon(pool, session)
            assert place.server is servers["ab".index(session)]
            pool.give_back(place)

    with_pool(use, 8, 8)


def test_no_server_gets_more_than_its_limit_and_the_rest_wait_in_turn() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        places = [await soon(pool) for _ in range(3)]
        order: list[int] = []

        async def wait(number: int) -> None:
            await pool.take("s")
            order.append(number)

        tasks = [asyncio.create_task(wait(i)) for i in range(3)]
        await asyncio.sleep(0.01)
        assert order == []
        for place in places:
            pool.give_back(place)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2]
        assert servers[0].outstanding == 3

    with_pool(use, 3)


def test_throttling_halves_the_limit_once_per_burst_and_answers_raise_it_one_by_one() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        [server] = servers
        burst = [await soon(pool) for _ in range(16)]
        for place in burst:
            pool.throttled(place)
            pool.give_back(place)
        assert (server.limit, server.num_throttled) == (8, 1)
        later = await soon(pool)
        pool.throttled(later)
        assert server.limit == 4
        for _ in range(4):  # about a round
            pool.succeeded(later)
        assert 4.8 < server.limit <= 5
        for _ in range(1000):
            pool.succeeded(later)
        assert server.limit == 16

    with_pool(use, 16)


def test_the_limit_never_falls_below_one() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        for _ in range(10):
            place = await soon(pool)
            pool.throttled(place)
            pool.give_back(place)
        assert servers[0].limit == 1

    with_pool(use, 4)


def test_a_server_that_asks_for_a_pause_gets_nothing_until_then() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        place = await soon(pool)
        pool.throttled(place, 0.2)
        pool.give_back(place)
        other = servers[1] if place.server is servers[0] else servers[0]
        places = [await soon(pool) for _ in range(4)]
        assert {p.server for p in places} == {other}
        before = time.monotonic()
        assert (await soon(pool)).server is place.server
        assert time.monotonic() - before >= 0.15

    with_pool(use, 4, 4)


def test_a_lost_server_is_left_out_until_it_is_found() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        assert pool.lost(servers[0])
        assert not pool.lost(servers[0])
        places = [await soon(pool) for _ in range(2)]
        assert {p.server for p in places} == {servers[1]}
        waiting = asyncio.create_task(pool.take("s"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        pool.found(servers[0])
        assert (await waiting).server is servers[0]

    with_pool(use, 2, 2)


def test_a_request_goes_to_another_server_than_the_one_that_failed_it_where_there_is_one() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        first = await soon(pool)
        pool.give_back(first)
        assert (await soon(pool, "s", first.server)).server is not first.server
        pool.lost(next(s for s in servers if s is not first.server))
        assert (await soon(pool, "s", first.server)).server is first.server

    with_pool(use, 2, 2)


def test_requests_wait_for_lost_servers_as_long_as_patience_lasts_and_then_fail_at_once() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        for server in servers:
            pool.lost(server)
        before = time.monotonic()
        waiting = [asyncio.create_task(pool.take(str(i))) for i in range(3)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert 0.15 <= time.monotonic() - before < 1
        assert all(isinstance(r, NoServerLeft) for r in results)
        before = time.monotonic()
        with pytest.raises(NoServerLeft):
            await pool.take("s")
        assert time.monotonic() - before < 0.1
        pool.found(servers[0])
        assert (await soon(pool)).server is servers[0]

    with_pool(use, 2, 2, patience_s=0.2)


def test_a_pause_that_nobody_waits_for_fails_what_waits() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        place = await soon(pool)
        waiting = asyncio.create_task(pool.take("w"))
        await asyncio.sleep(0)
        pool.throttled(place, 3600)
        with pytest.raises(NoServerLeft):
            await waiting

    with_pool(use, 1)


def test_cancelled_requests_leave_no_place_taken() -> None:
    async def use(pool: Pool[Server], servers: list[Server]) -> None:
        place = await soon(pool)
        waiting = [asyncio.create_task(pool.take(str(i))) for i in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        pool.give_back(place)  # the second one has a place now, and is cancelled before it can take it
        waiting[1].cancel()
        await asyncio.wait(waiting[:2])
        pool.give_back(await asyncio.wait_for(waiting[2], 1))
        assert servers[0].outstanding == 0

    with_pool(use, 1)
