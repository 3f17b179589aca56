"""OpenVINO GenAI's continuous batching with prefix caching as a Backend, driven by the package's own coroutine.

Runs in its own environment (benchmarks/requirements.txt), because the exporter pins another transformers than ours.
"""

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

from engines.workload import Workload, play
from interplay.backends.backend import Completion, Request

CACHE_GB = 2
"""For each of the two models; more than any run here fills, so that nothing is ever evicted."""


def export(checkpoint: Path, out: Path) -> None:
    """Convert a transformers checkpoint to OpenVINO's format, weights in float32, unless it is there."""
    if (out / "openvino_tokenizer.xml").exists():
        return
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM
    from transformers import AutoTokenizer

    model = OVModelForCausalLM.from_pretrained(checkpoint, export=True, compile=False, load_in_8bit=False)
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.save_pretrained(out)
    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(encoder, out / "openvino_tokenizer.xml")
    openvino.save_model(decoder, out / "openvino_detokenizer.xml")
    del model
    gc.collect()


class OpenVinoBackend:
    """One pipeline; a step of it decodes everything that is under way."""

    def __init__(self, path: Path, *, max_batch: int, threads: int, properties: dict[str, Any], turn: asyncio.Lock) -> None:
        import openvino_genai

        self.name = "openvino"
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = max_batch
        scheduler.max_num_batched_tokens = 4096
        scheduler.dynamic_split_fuse = True
        self._genai = openvino_genai
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads, **properties}
        )
        self._turn = turn
        self._number = 0
        self._new: list[tuple[Request, asyncio.Future[Completion]]] = []
        self._open: list[tuple[Any, asyncio.Future[Completion]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def complete(self, request: Request) -> Completion:
        """Answer one token-id request."""
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._new.append((request, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    def release(self, session: str) -> None:
        """The pipeline's own prefix cache decides what to drop."""

    async def close(self) -> None:
        """Nothing is under way when the benchmark closes."""

    async def _work(self) -> None:
        while self._new or self._open:
            # The two pipelines take turns: each uses all threads while it computes.
            async with self._turn:
                for _ in range(4):  # what was just answered may ask again at once
                    await asyncio.sleep(0)
                new, self._new = self._new, []
                finished = await asyncio.to_thread(self._advance, new)
            for answer, ids in finished:
                answer.set_result(Completion("", tuple(ids), None, "length"))

    def _advance(self, new: list[tuple[Request, "asyncio.Future[Completion]"]]) -> list[tuple[Any, list[int]]]:
        """Take in new requests and go on until one is finished."""
        import numpy as np
        import openvino

        for request, answer in new:
            config = self._genai.GenerationConfig()
            config.max_new_tokens = request.sampling.max_new_tokens
            config.ignore_eos = True
            config.do_sample = False
            ids = openvino.Tensor(np.array([request.prompt], dtype=np.int64))
            self._number += 1
            self._open.append((self._pipeline.add_request(self._number, ids, config), answer))
        running = self._genai.GenerationStatus.RUNNING
        while True:
            self._pipeline.step()
            finished, still = [], []
            for handle, answer in self._open:
                if handle.get_status() == running:
                    still.append((handle, answer))
                else:
                    finished.append((answer, handle.read_all()[0].generated_ids))
            if finished or not still:
                self._open = still
                return finished


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Export if need be, play a small warm-up and then the workload."""
    workload = Workload.from_json(job["workload"])
    folder = Path(job["folder"])
    paths = []
    for role in ("user", "recommender"):
        out = folder / f"openvino-{role}"
        export(folder / role, out)
        paths.append(out)
    properties: dict[str, Any] = {}
    if job["precision"] == "f32":
        properties = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    turn = asyncio.Lock()
    backends = [
        OpenVinoBackend(path, max_batch=job["batch"], threads=job["threads"], properties=properties, turn=turn)
        for path in paths
    ]
    warm = Workload.from_json({**job["workload"], "conversations": job["warm_up"], "seed": 10_000})
    play(backends[0], backends[1], warm, concurrency=job["concurrency"])
    turn = asyncio.Lock()
    for backend in backends:
        backend._turn = turn
    played = play(backends[0], backends[1], workload, concurrency=job["concurrency"])
    import openvino

    return {
        "seconds": played.seconds,
        "said": played.said,
        "versions": {"openvino": openvino.__version__.split("-")[0]},
        "cores": os.cpu_count(),
    }
