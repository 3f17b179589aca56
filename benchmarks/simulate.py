"""How fast `interplay simulate` is: one run on one machine, one table (ratios first), one JSON file.

    python benchmarks/simulate.py --out simulate.json
    python benchmarks/simulate.py --quick                        a smoke run, under a minute
    python benchmarks/simulate.py --sections 1 2 --openvino-python .venv-openvino/bin/python

Every measurement runs in a process of its own, one after the other; nothing else should run on the machine. What is
measured and how: docs/performance.md.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.shapes import SHAPES, Shape
from engines.workload import Workload

WORKER = Path(__file__).parent / "engines" / "worker.py"

OURS = "ours"
NARROW = "ours in 16 bits"
"""With keys and values kept in bfloat16."""

GROUP = 64
"""Conversations in lock-step."""

TITLES = {
    1: "tiny models (3 x 128, vocabulary 2,048)",
    2: "135M models (30 x 576, vocabulary 49,152)",
    3: "share of the raw rate of the same model at the same batch",
    4: "without a model, on one core",
    5: "as conversations grow",
    6: "on a GPU",
    7: "the same seed in batches of other sizes",
}


@dataclass
class Bench:
    """One run: its options, the machine's rates, and everything found so far."""

    options: argparse.Namespace
    folder: Path
    machine: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    def measure(self, run: str, *, python: str = sys.executable, **job: Any) -> dict[str, Any]:
        """The result of one worker process; {"error": reason} where it could not be had."""
        job = {"run": run, "threads": self.options.threads, **job}
        print(f"  {run} {job.get('workload', '')}", file=sys.stderr, flush=True)
        # Threads are set in the worker; a limit in the environment would hold for some libraries and not for others.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(self.options.threads)}
        try:
            done = subprocess.run(
                [python, str(WORKER)],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=self.options.limit,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not finished after {self.options.limit:.0f} s"}
        except OSError as error:
            return {"error": f"{python} can't be run ({error.strerror})"}
        try:
            result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            result = {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
        if "error" in result and self.options.verbose:
            print(done.stderr, file=sys.stderr)
        return result

    def say(self, line: str = "") -> None:
        """Add a line to the table."""
        self.lines.append(line)
        print(line, flush=True)


@dataclass(frozen=True)
class Row:
    """One engine's line of a comparison."""

    label: str
    conversations: int
    result: dict[str, Any]
    workload: Workload

    @property
    def rate(self) -> float | None:
        """Conversations per second."""
        seconds = self.result.get("seconds")
        return self.conversations / seconds if seconds else None


def compare(bench: Bench, shape: Shape, sizes: dict[str, int]) -> dict[str, Any]:
    """Ours against other engines on one shape. `sizes`: how many conversations each engine holds."""
    options = bench.options
    folder = bench.folder / shape.name
    base = Workload(sizes["ours"], options.turns, options.persona_tokens, tuple(options.turn_tokens), shape.vocab_size)

    def one(label: str, run: str, engine: str, **job: Any) -> Row | None:
        if not set(options.engines) & {engine, "all"}:
            return None
        num = sizes[engine]
        if num == 0:
            return None
        workload = Workload(**{**base.to_json(), "conversations": num, **job.pop("workload", {})})
        common = {
            "shape": shape.name,
            "batch": sizes["batch"],
            "concurrency": num,
            "group": min(num, GROUP),
            "folder": str(folder),
        }
        result = bench.measure(run, **{**common, "warm_up": min(num, 8), "workload": workload.to_json(), **job})
        return Row(label, num, result, workload)

    def rows() -> Iterator[Row | None]:
        yield one(OURS, "torch_engines:ours", "ours")
        yield one(NARROW, "torch_engines:ours", "ours", kv_cache="bfloat16")
        yield one("(a) generate, one conversation at a time, full history", "torch_engines:naive", "naive")
        yield one(
            f"(b) generate, {min(sizes['lockstep'], GROUP)} in lock-step, full history", "torch_engines:lockstep", "lockstep"
        )
        yield one("(c) transformers' continuous batching", "torch_engines:continuous", "continuous")
        if options.openvino_python and set(options.engines) & {"openvino", "all"}:
            bench.measure("torch_engines:write", shape=shape.name, folder=str(folder))
            for label, precision in (("float32", "f32"), ("its defaults", "default")):
                name = f"(d) OpenVINO GenAI, prefix caching, {label}"
                yield one(name, "openvino:run", "openvino", python=options.openvino_python, precision=precision)
        if options.ragged:
            shortest, longest = options.turn_tokens
            mixed = {"turn_tokens": (max(1, shortest * 2 // 5), longest * 8 // 5)}
            turns = f"turns of {mixed['turn_tokens']} tokens"
            yield one(f"{OURS}, {turns}", "torch_engines:ours", "ours", workload=mixed)
            yield one(f"{NARROW}, {turns}", "torch_engines:ours", "ours", kv_cache="bfloat16", workload=mixed)
            yield one(f"(b), {turns}", "torch_engines:lockstep", "lockstep", workload=mixed)

    found = [row for row in rows() if row is not None]
    bench.say(
        f"{base.turns} turns of {options.turn_tokens[0]}-{options.turn_tokens[1]} tokens, "
        f"{base.persona_tokens} tokens before, greedy, {options.threads} threads"
    )
    bench.say(f"{'ours is':>9} {'16 bits':>9} {'conv/s':>9} {'conv.':>6} {'tokens/s':>9} {'GiB':>5} {'same ids':>8}")
    out: dict[str, Any] = {"rows": []}
    ours: Row | None = None
    narrow: Row | None = None
    for row in found:
        if row.label.startswith(NARROW):
            narrow = row
        elif row.label.startswith(OURS):
            ours, narrow = row, None
        same = _same(ours, row) if ours is not None else None
        if row.rate is None:
            bench.say(
                f"{'':>9} {'':>9} {'-':>9} {row.conversations:>6} {'':>9} {'':>5} {'':>8}  {row.label}: "
                f"{row.result.get('error')}"
            )
        else:
            written = sum(map(row.workload.generated_tokens, range(row.conversations)))
            ratios = [f"{times:8.2f}x" if (times := _times(one, row)) else "" for one in (ours, narrow)]
            bench.say(
                f"{ratios[0]:>9} {ratios[1]:>9} {row.rate:9.3f} {row.conversations:>6} {written / row.result['seconds']:9.0f} "
                f"{row.result['peak_gib']:5.2f} {'' if same is None else f'{same:.0%}':>8}  {row.label}"
            )
        kept = {k: v for k, v in row.result.items() if k != "said"}
        out["rows"].append(
            {
                "engine": row.label,
                "workload": row.workload.to_json(),
                "conversations_per_s": row.rate,
                "ours_is_times": _times(ours, row),
                "in_16_bits_is_times": _times(narrow, row),
                "same_conversations": same,
                **kept,
            }
        )
    out["bounds"] = []
    for row in found:
        if row.label not in (OURS, NARROW) or row.rate is None:
            continue
        bound = bound_seconds(shape, base, sizes["batch"], bench.machine, cache_bytes=4 if row.label == OURS else 2)
        share = bound["seconds"] / row.result["seconds"]
        bench.say(
            f"{row.label}: {share:.0%} of the bound of {base.conversations / bound['seconds']:.1f} conv/s "
            f"(reading {bound['reading_seconds']:.2f} s, writing {bound['writing_seconds']:.2f} s)"
        )
        out["bounds"].append({"engine": row.label, "share_of_bound": share, **bound})
    return out


def _times(one: Row | None, other: Row) -> float | None:
    """How many times the rate of `other` one's is; None for itself and where either has none."""
    return None if one is None or one is other or not one.rate or not other.rate else one.rate / other.rate


def _same(one: Row, other: Row) -> float | None:
    """Share of conversations held by both in which every token is the same; None where that can't be said."""
    if one is other or one.workload.turn_tokens != other.workload.turn_tokens:
        return None
    a, b = one.result.get("said"), other.result.get("said")
    if not a or not b:
        return None
    both = a.keys() & b.keys()
    return sum(a[i] == b[i] for i in both) / len(both)


def bound_seconds(
    shape: Shape,
    workload: Workload,
    batch: int,
    machine: dict[str, Any],
    *,
    weight_bytes: int = 4,
    cache_bytes: int = 4,
) -> dict[str, float]:
    """What the workload must take at the machine's measured rates, if every token passes each model once.

    A pass takes the longer of its FLOPs at the rate of a large matrix product and its bytes at the rate of reading:
    weights (from the cache when they fit into 16 MiB), then keys and values of every token it looks back at. Batches are full
    and in lock-step, lengths the mean of the workload's.

    Args:
        shape: of both models.
        workload: the conversations.
        batch: conversations at once.
        machine: the rates of `engines.machine`.
        weight_bytes: per weight.
        cache_bytes: per number of the caches.
    """
    rows = min(batch, workload.conversations)
    waves = workload.conversations / rows
    length = round(sum(workload.turn_tokens) / 2)
    weights = shape.parameters * weight_bytes
    weight_rate = machine["cache_bytes_per_s" if weights < 16 * 2**20 else "memory_bytes_per_s"]

    def one_pass(tokens: int, held: int) -> float:
        attended = tokens * held + tokens * (tokens + 1) // 2
        flops = shape.flops(rows * tokens, rows * attended, rows)
        read = weights / weight_rate + rows * held * shape.kv_per_token * cache_bytes / machine["memory_bytes_per_s"]
        return max(flops / machine["gemm_flops"], read)

    held = [0, 0]
    unread = [workload.persona_tokens, workload.persona_tokens]
    reading = writing = 0.0
    for turn in range(workload.turns):
        me, other = turn % 2, 1 - turn % 2
        reading += one_pass(unread[me], held[me])
        held[me] += unread[me]
        for _ in range(length - 1):
            writing += one_pass(1, held[me])
            held[me] += 1
        unread[me] = 1
        unread[other] += length
    return {
        "reading_seconds": waves * reading,
        "writing_seconds": waves * writing,
        "seconds": waves * (reading + writing),
    }


def needed_tokens(workload: Workload) -> int:
    """Tokens that pass through the models if each passes once through each model that reads or writes it."""
    total = 0
    for index in range(workload.conversations):
        passed = {0: 0, 1: 0}
        for turn, (held, length) in enumerate(workload.contexts(index)):
            passed[turn % 2] = held + length - 1  # the last token written is read only at that side's next turn
        total += sum(passed.values())
    return total


def section_tiny(bench: Bench) -> dict[str, Any]:
    """1: tiny models."""
    n = bench.options.conversations
    sizes = {
        "ours": n,
        "naive": min(n, 4),
        "lockstep": min(n, GROUP),
        "continuous": min(n, 8),
        "openvino": n,
        "batch": min(n, 256),
    }
    return compare(bench, SHAPES["tiny"], sizes)


def section_135m(bench: Bench) -> dict[str, Any]:
    """2: 135M models."""
    n = bench.options.conversations_135m
    sizes = {"ours": n, "naive": min(n, 1), "lockstep": min(n, GROUP), "continuous": min(n, 2), "openvino": n, "batch": n}
    return compare(bench, SHAPES["135m"], sizes)


def section_efficiency(bench: Bench) -> dict[str, Any]:
    """3: tokens per second within a simulation over the raw rate."""
    options = bench.options
    out: dict[str, Any] = {"rows": []}
    length = round(sum(options.turn_tokens) / 2)
    shapes = (("tiny", options.conversations), ("135m", options.conversations_135m))
    for name, num in shapes[: 1 if options.quick else 2]:
        batch = min(num, 256)
        workload = Workload(batch, options.turns, options.persona_tokens, (length, length), SHAPES[name].vocab_size)
        job = {"shape": name, "workload": workload.to_json(), "batch": batch, "concurrency": batch, "warm_up": min(batch, 8)}
        raw = bench.measure("raw:run", **job)
        ours = bench.measure("torch_engines:ours", **job)
        ours.pop("said", None)
        out["rows"].append({"shape": name, "batch": batch, "raw": raw, "ours": ours})
        if "error" in raw or "error" in ours:
            bench.say(f"{'-':>9}  {name}: {raw.get('error') or ours.get('error')}")
            continue
        written = sum(map(workload.generated_tokens, range(batch)))
        efficiency = raw["seconds"] / ours["seconds"]
        out["rows"][-1]["efficiency"] = efficiency
        bench.say(
            f"{efficiency:8.2f}   of the raw rate: {name}, batch {batch}: {written / ours['seconds']:.0f} tokens/s of "
            f"{written / raw['seconds']:.0f} (reading {raw['reading_seconds']:.2f} s, writing {raw['writing_seconds']:.2f} s)"
        )
    return out


def section_overhead(bench: Bench) -> dict[str, Any]:
    """4: turns per second without a model, and memory over many conversations."""
    options = bench.options
    few, repeats = (100, 1) if options.quick else (1000, 3)
    result = bench.measure("overhead:run", few=few, many=options.flat_conversations, repeats=repeats)
    if "error" in result:
        bench.say(f"{'-':>9}  {result['error']}")
        return result
    bench.say(
        f"{result['turns_per_s']:9.0f}  turns/s ({result['turns_per_cpu_s']:.0f} per second of processor time; "
        f"{result['turns_per_s_written']:.0f} with dialogues written to a Run), {result['tokens_per_turn']:.0f} tokens a turn"
    )
    memory = ", ".join(f"{mib:.0f} MiB after {int(num):,}" for num, mib in result["resident_mib"].items())
    bench.say(f"{'':>9}  conversations streamed from disk: {memory}")
    return result


def section_growth(bench: Bench) -> dict[str, Any]:
    """5: time, memory and tokens as conversations grow."""
    options = bench.options
    n = min(options.conversations, 32)
    bench.say(f"{n} conversations, tiny models; needed: tokens if each passes each model once")
    bench.say(f"{'turns':>9} {'seconds':>9} {'ms/turn':>8} {'GiB':>5} {'model tokens':>13} {'of needed':>9}")
    rows = []
    for turns in options.growth:
        workload = Workload(n, turns, options.persona_tokens, tuple(options.turn_tokens), SHAPES["tiny"].vocab_size)
        job = {"shape": "tiny", "workload": workload.to_json(), "batch": n, "concurrency": n, "warm_up": min(n, 8)}
        result = bench.measure("torch_engines:ours", **job)
        result.pop("said", None)
        needed = needed_tokens(workload)
        rows.append({"turns": turns, "needed_tokens": needed, **result})
        if "error" in result:
            bench.say(f"{turns:>9} {'-':>9}  {result['error']}")
            continue
        passed = result["model_tokens"]
        counted = "   not counted" if passed is None else f"{passed:>13,} {passed / needed:8.2f}x"
        bench.say(
            f"{turns:>9} {result['seconds']:9.2f} {1000 * result['seconds'] / (n * turns):8.3f} {result['peak_gib']:5.2f} "
            f"{counted}"
        )
    return {"rows": rows}


def section_gpu(bench: Bench) -> dict[str, Any]:
    """6: 0.6B and 8B models on a GPU."""
    options = bench.options
    machine = bench.measure("machine:measure", device="cuda")
    if "error" in machine:
        bench.say(f"{'-':>9}  not run: {machine['error']}")
        return {"not_run": machine["error"]}
    bench.say(
        f"{machine['processor']}: {machine['gemm_flops'] / 1e12:.0f} TFLOP/s bfloat16, "
        f"{machine['memory_bytes_per_s'] / 1e12:.2f} TB/s read"
    )
    out: dict[str, Any] = {"machine": machine, "rows": []}
    for name, num, others in (("0.6b", 256, 64), ("8b", 128, 64)):
        shape = SHAPES[name]
        for label, run, n in (
            ("ours", "torch_engines:ours", num),
            ("(a) generate, one at a time", "torch_engines:naive", 1),
            ("(b) generate, 64 in lock-step", "torch_engines:lockstep", others),
            ("(c) transformers' continuous batching", "torch_engines:continuous", others),
        ):
            workload = Workload(n, options.turns, options.persona_tokens, tuple(options.turn_tokens), shape.vocab_size)
            job = {"shape": name, "device": "cuda", "dtype": "bfloat16", "batch": n, "concurrency": n, "group": n}
            result = bench.measure(run, **job, warm_up=min(n, 8), workload=workload.to_json())
            result.pop("said", None)
            row: dict[str, Any] = {"shape": name, "engine": label, "workload": workload.to_json(), **result}
            out["rows"].append(row)
            if "error" in result:
                bench.say(f"{'-':>9}  {name} {label}: {result['error']}")
                continue
            bound = bound_seconds(shape, workload, n, machine, weight_bytes=2, cache_bytes=2)
            row["share_of_bound"] = bound["seconds"] / result["seconds"]
            written = sum(map(workload.generated_tokens, range(n)))
            bench.say(
                f"{row['share_of_bound']:8.0%}   of the bound: {name} {label}, {n} conversations: "
                f"{written / result['seconds']:.0f} tokens/s, {n / result['seconds']:.2f} conv/s"
            )
    return out


def section_agreement(bench: Bench) -> dict[str, Any]:
    """7: how often sampled conversations with one seed are the same whatever the batch."""
    options = bench.options
    n = min(options.conversations, 256)
    out: dict[str, Any] = {"rows": []}
    for temperature in (0.0, 1.0):
        workload = Workload(n, options.turns, options.persona_tokens, tuple(options.turn_tokens), temperature=temperature)
        reference: dict[str, list[list[int]]] | None = None
        for batch in sorted({1, 8, 64, n}, reverse=True):
            # One at a time takes long and shows as much on fewer: conversations don't depend on each other.
            num = min(n, 8 if batch == 1 else n)
            job = {"shape": "tiny", "batch": batch, "concurrency": batch, "warm_up": 2}
            load = Workload(**{**workload.to_json(), "conversations": num})
            result = bench.measure("torch_engines:ours", workload=load.to_json(), **job)
            said = result.pop("said", None)
            if said is None:
                bench.say(f"{'-':>9}  batch {batch}: {result.get('error')}")
                continue
            if reference is None:
                reference = said
                continue
            agreement = _agreement(reference, said)
            out["rows"].append({"temperature": temperature, "batch": batch, "of": n, "conversations": num, **agreement})
            bench.say(
                f"{agreement['same'] / num:9.1%}  of {num} conversations, {agreement['same_tokens']:.2%} of their tokens: "
                f"batch {batch} against {n}, temperature {temperature:g}"
            )
        if reference is None:
            continue
        job = {"shape": "tiny", "batch": n, "concurrency": n, "warm_up": 2, "kv_cache": "bfloat16"}
        result = bench.measure("torch_engines:ours", workload=workload.to_json(), **job)
        said = result.pop("said", None)
        if said is None:
            bench.say(f"{'-':>9}  keys and values in 16 bits: {result.get('error')}")
            continue
        agreement = _agreement(reference, said)
        out["rows"].append({"temperature": temperature, "kv_cache": "bfloat16", "of": n, "conversations": n, **agreement})
        bench.say(
            f"{agreement['same'] / n:9.1%}  of {n} conversations, {agreement['same_turns']:.1%} of turns after equal ones, "
            f"{agreement['same_tokens']:.2%} of tokens: keys and values in 16 bits against 32, temperature {temperature:g}"
        )
    return out


def _agreement(reference: dict[str, list[list[int]]], said: dict[str, list[list[int]]]) -> dict[str, float]:
    """How far conversations are the same.

    Returns:
        same: conversations in which every token is.
        same_tokens: share of tokens that are; after the first that differs two conversations have little in common.
        same_turns: share of the same turns among those up to and including the first that differs.
    """
    pairs = [(reference[i], turns) for i, turns in said.items()]
    tokens = [a == b for one, other in pairs for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=False)]
    turns = []
    for one, other in pairs:
        for x, y in zip(one, other, strict=True):
            turns.append(x == y)
            if x != y:
                break
    return {
        "same": sum(one == other for one, other in pairs),
        "same_tokens": sum(tokens) / len(tokens),
        "same_turns": sum(turns) / len(turns),
    }


SECTIONS: dict[int, Callable[[Bench], dict[str, Any]]] = {
    1: section_tiny,
    2: section_135m,
    3: section_efficiency,
    4: section_overhead,
    5: section_growth,
    6: section_gpu,
    7: section_agreement,
}


def _commit() -> str | None:
    """The commit that is checked out, with a mark where files differ from it."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How fast interplay simulates; see docs/performance.md.")
    parser.add_argument("--sections", type=int, nargs="+", default=list(SECTIONS), choices=list(SECTIONS), metavar="N")
    parser.add_argument(
        "--engines",
        nargs="+",
        default=["all"],
        choices=["all", "ours", "naive", "lockstep", "continuous", "openvino"],
        help="which engines sections 1 and 2 compare",
    )
    parser.add_argument("--conversations", type=int, default=256, help="of tiny models")
    parser.add_argument("--conversations-135m", type=int, default=16, help="of 135M models")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--persona-tokens", type=int, default=60)
    parser.add_argument("--turn-tokens", type=int, nargs=2, default=[25, 25], metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--ragged", action="store_true", help="also turns of mixed lengths (same mean), ours and (b)")
    parser.add_argument("--growth", type=int, nargs="+", default=[8, 16, 32, 64], metavar="TURNS")
    parser.add_argument("--flat-conversations", type=int, default=20_000, help="of section 4's memory")
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--openvino-python", help="python of an environment with benchmarks/requirements.txt")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one measurement may take")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--date", help="written into the JSON; today by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run? The figures mean nothing")
    parser.add_argument("--verbose", action="store_true", help="show what failing workers write")
    options = parser.parse_args(arguments)
    if options.threads is None:
        # One in a smoke run: threads that wait for each other on a busy machine take minutes.
        options.threads = 1 if options.quick else os.cpu_count()
    if options.quick:
        options.conversations, options.conversations_135m = min(options.conversations, 4), 1
        options.turns, options.turn_tokens, options.persona_tokens = 4, [4, 4], 8
        options.growth, options.flat_conversations = [4, 8], 200
        options.sections = [s for s in options.sections if s != 2]
    return options


def main() -> None:
    """Measure, print, write."""
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        bench.machine = bench.measure("machine:measure", **({"memory_mib": 64} if options.quick else {}))
        if "error" in bench.machine:
            sys.exit(f"this machine's rates could not be measured: {bench.machine['error']}")
        date = options.date or datetime.datetime.now(datetime.UTC).date().isoformat()
        machine = {
            **bench.machine,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        }
        bench.say(
            f"{machine['processor']}, {machine['cores']} cores, {machine.get('instructions')}, {options.threads} threads, "
            f"torch {machine['torch']}, transformers {machine['transformers']}, {date}"
        )
        bench.say(
            f"{machine['gemm_flops'] / 1e9:.0f} GFLOP/s float32, reads {machine['memory_bytes_per_s'] / 1e9:.1f} GB/s "
            f"from memory, {machine['cache_bytes_per_s'] / 1e9:.1f} GB/s from the cache"
        )
        for number in options.sections:
            bench.say()
            bench.say(f"{number}. {TITLES[number]}")
            bench.results[str(number)] = SECTIONS[number](bench)
        if options.out:
            sized = {k: v for k, v in vars(options).items() if k not in ("out", "openvino_python", "date")}
            report = {"date": date, "commit": _commit(), "machine": machine, "options": sized, "sections": bench.results}
            report["table"] = bench.lines
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
