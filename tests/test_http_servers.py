"""The HTTP backend against several real servers, each a process: killed, restarted, slow, interrupted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat_server import ChatServer
from interplay.backends.backend import Message, Request
from interplay.backends.http import HttpBackend
from interplay.config import Sampling
from interplay.corpora.corpus import Corpus
from interplay.formats.chat import ChatFormat
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.model_agents import ChatAgent
from interplay.store import Run
from interplay.types import Dialogue, Ending, Role
from makers import CATALOG, MOVIE, scenario

Starter = Callable[..., list[ChatServer]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    """Starts one server process per delay, all at once."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running: list[ChatServer] = []

    def begin(*delays_s: float, slots: int = 1000) -> list[ChatServer]:
        servers = [ChatServer(tmp_path / f"served{i}.jsonl", delay, slots).start() for i, delay in enumerate(delays_s)]
        running.extend(servers)
        return [server.wait() for server in servers]

    yield begin
    for server in running:
        server.kill()


def agents(urls: str, **options: float) -> tuple[ChatAgent, ChatAgent]:
    form, sampling = ChatFormat(MOVIE), Sampling(max_new_tokens=40)
    user, recommender = (
        ChatAgent(role, role.value, form, HttpBackend(urls, role.value, **options), sampling, CATALOG)  # type: ignore[arg-type]
        for role in (Role.USER, Role.RECOMMENDER)
    )
    return user, recommender


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_server_killed_and_restarted_loses_and_duplicates_nothing(start: Starter, tmp_path: Path, num_servers: int) -> None:
    servers = start(*[0.01] * num_servers)
    victim = servers[0]
    scenarios = [scenario(source_id=str(i)) for i in range(40)]
    run = Run.create(tmp_path / "run", {})
    endings: Counter[Ending | None] = Counter()
    served_before_restart = 0

    async def main() -> tuple[ChatAgent, ChatAgent]:
        nonlocal served_before_restart
        user, recommender = agents(",".join(s.url for s in servers), backoff_s=0.05)

        def keep(dialogue: Dialogue) -> None:
            nonlocal served_before_restart
            run.append(dialogue)
            endings[dialogue.ending] += 1
            if endings.total() == 10:
                victim.kill()  # while the other conversations wait for its answers
                served_before_restart = len(victim.served())
                victim.start()

        try:
            await simulate(scenarios, user, recommender, Plan(concurrency=12), on_dialogue=keep)
            if num_servers > 1:  # the others may have done all the rest before it was back
                await asyncio.to_thread(victim.wait)
                await asyncio.sleep(0.5)
                more = [scenario(source_id=str(i)) for i in range(40, 60)]
                await simulate(more, user, recommender, Plan(concurrency=12), on_dialogue=keep)
                scenarios.extend(more)
        finally:
            await asyncio.gather(user.backend.close(), recommender.backend.close())
        return user, recommender

    user, recommender = asyncio.run(main())
    lines = [json.loads(line) for line in run.dialogues_path.read_text().splitlines()]
    assert Counter(line["scenario_key"] for line in lines) == Counter({s.key: 1 for s in scenarios})
    assert endings == {Ending.GAVE_UP: len(scenarios)}
    assert all(len(line["turns"]) == 6 for line in lines)
    retries = user.backend.retries + recommender.backend.retries  # type: ignore[attr-defined]
    assert retries["connection"] > 0
    assert len(victim.served()) > served_before_restart


def test_faster_servers_get_more_of_the_work(start: Starter) -> None:
    servers = start(0.05, 0.15, 0.45)

    async def main() -> dict[str, int]:
        backend = HttpBackend(",".join(s.url for s in servers), "user")
        crowd = asyncio.Semaphore(9)

        async def ask(seed: int) -> None:
            async with crowd:
                await backend.complete(Request((Message("user", "hello"),), Sampling(), seed, f"s{seed}"))

        await asyncio.gather(*(ask(seed) for seed in range(120)))
        await backend.close()
        return backend.num_sent

    sent = asyncio.run(main())
    counts = [len(server.served()) for server in servers]
    assert counts == [sent[server.url] for server in servers]
    assert sum(counts) == 120
    fast, middle, slow = counts
    assert fast > middle > slow
    assert fast > 2 * slow


def test_the_loop_stays_live_while_servers_think(start: Starter) -> None:
    [server] = start(0.3)

    async def main() -> float:
        backend = HttpBackend(server.url, "user")
        worst = 0.0

        async def tick() -> None:
            nonlocal worst
            while True:
                # Of the loop's own work nothing waits for a server, and a busy machine makes it long.
                before, worked = time.perf_counter(), time.thread_time()
                await asyncio.sleep(0.005)
                worst = max(worst, time.perf_counter() - before - (time.thread_time() - worked) - 0.005)

        ticking = asyncio.create_task(tick())
        requests = [Request((Message("user", "hello"),), Sampling(), seed, f"s{seed}") for seed in range(64)]
        await asyncio.gather(*(backend.complete(r) for r in requests))
        ticking.cancel()
        await backend.close()
        return worst

    assert asyncio.run(main()) < 0.25


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A small data directory."""
    from interplay.cli import main

    path = tmp_path / "data"
    args = ["data", "agenda", "--out", path, "--num-dialogues", 60, "--num-items", 100, "--test-fraction", 0.5]
    assert main([str(a) for a in args]) == 0
    capsys.readouterr()
    return path


def interplay(*args: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "interplay", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_an_interrupt_while_requests_are_under_way_leaves_a_run_that_can_be_resumed(
    start: Starter, data: Path, tmp_path: Path
) -> None:
    [server] = start(0.08)
    out = tmp_path / "sim"
    test_keys = [s.key for s in Corpus.read(data).scenarios if s.split == "test"]
    keys = Counter(test_keys[:14])
    args = ["simulate", "--user", f"{server.url}#user", "--recommender", f"{server.url}#recommender"]
    args += ["--scenarios", str(data), "--out", str(out), "--concurrency", "4", "--num-dialogues", "14"]
    process = interplay(*args)
    lines = out / "dialogues.jsonl"
    until = time.monotonic() + 60
    while not (lines.is_file() and lines.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    half = lines.read_text().splitlines()
    assert 3 <= len(half) < keys.total()
    process = interplay(*args, "--resume")
    text, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"{keys.total()} conversations ({keys.total() - len(half)} held now): gave-up {keys.total()}" in text
    whole = lines.read_text().splitlines()
    # The half is in the order of finishing, and the whole, once scored, in that of the scenarios; no line has changed.
    assert [line for line in whole if line in half] == sorted(half, key=whole.index)
    assert [json.loads(line)["scenario_key"] for line in whole] == test_keys[:14]
