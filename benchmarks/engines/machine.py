"""What the machine can do: the rate of matrix products and of reading memory, which bound any engine."""

import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def _best(call: Callable[[], Any], repeats: int, sync: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        sync()
        start = time.perf_counter()
        call()
        sync()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@torch.inference_mode()
def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Peak rates with the job's threads, on its device.

    Returns:
        `gemm_flops`: FLOP/s of a product of two square float32 (on a GPU bfloat16) matrices, a multiply-add counted as two.
        `memory_bytes_per_s`: bytes read per second by a matrix-vector product too large for any cache.
        `cache_bytes_per_s`: the same for a matrix of 4 MiB.
    """
    device = torch.device(job.get("device", "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        return {"error": "no GPU"}
    torch.set_num_threads(job["threads"])
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    gemm = 2.0 * size**3 / _best(lambda: a @ b, 15, sync)
    rates = []
    for mib in (job.get("memory_mib", 512 if device.type == "cpu" else 8192), 4):
        columns = 4096 if mib > 4 else 1024
        rows = mib * 2**20 // (columns * a.element_size())
        matrix = torch.ones(rows, columns, device=device, dtype=dtype)
        vector = torch.ones(columns, device=device, dtype=dtype)
        inner = 1 if mib > 4 else 100

        def read(matrix: torch.Tensor = matrix, vector: torch.Tensor = vector, inner: int = inner) -> None:
            for _ in range(inner):
                torch.mv(matrix, vector)

        rates.append(inner * matrix.numel() * matrix.element_size() / _best(read, 8, sync))
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "torch_threads": torch.get_num_threads(),
        "processor": _processor() if device.type == "cpu" else torch.cuda.get_device_name(),
        "gemm_flops": gemm,
        "memory_bytes_per_s": rates[0],
        "cache_bytes_per_s": rates[1],
    }
    if device.type == "cpu":
        facts["instructions"] = torch.backends.cpu.get_cpu_capability()
    return facts


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
