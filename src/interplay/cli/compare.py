"""`interplay evaluate compare`: Runs against the first of them. `interplay evaluate noise`: what seeds alone do."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from interplay import __version__
from interplay.cli.matrix import Watch, cell_config, hold_cell
from interplay.cli.pipeline import check_servers, close, load_agent
from interplay.cli.progress import Progress
from interplay.config import CompareConfig, NoiseConfig
from interplay.corpora.corpus import read_catalog
from interplay.errors import ConfigError, RunError
from interplay.evaluation.comparison import NOISE, ScoredRun, compare_runs, noise_of
from interplay.simulation.specs import LoadedAgent
from interplay.store import Run, prepare_output, read_json, write_lines
from interplay.types import Catalog, Role

REPEATS = "repeats"


def compare(config: CompareConfig) -> int:
    """`interplay evaluate compare`: one table of differences.

    Raises:
        InputError: fewer than two Runs, a Run that may not be compared, or no shared scenario or metric.
    """
    from interplay.report.comparison_tables import MARKER, comparison_markdown, write_comparison

    if len(config.runs) < 2:
        raise ConfigError("a comparison takes two Runs or more: the one to compare with, then the others")
    runs = [ScoredRun.read(path, name) for path, name in zip(config.runs, run_names(config.runs), strict=True)]
    repeats = [] if config.noise is None else read_repeats(config.noise)
    found = compare_runs(runs, metrics=config.metrics, repeats=repeats, seed=config.seed)
    prepare_output(config.out, overwrite=config.overwrite, marker=MARKER)
    write_comparison(found, config.out)
    print(comparison_markdown(found))
    print(f"written to {config.out}")
    return 0


def run_names(paths: list[Path]) -> list[str]:
    """The last part of each path, with as many parents as it takes to tell them apart.

    Raises:
        ConfigError: a Run is given twice.
    """
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"a Run is given twice: {', '.join(map(str, paths))}")


def read_repeats(path: Path) -> list[ScoredRun]:
    """The repeats of a directory that `interplay evaluate noise` made.

    Raises:
        RunError: it is none.
    """
    if not (path / NOISE).is_file():
        raise RunError(f"{path} holds no {NOISE}; make it with: interplay evaluate noise")
    return [ScoredRun.read(path / name, Path(name).name) for name in read_json(path / NOISE)["repeats"]]


def noise(config: NoiseConfig) -> int:
    """`interplay evaluate noise`: the same agents on the same scenarios under several seeds. Returns 2 where one broke.

    Raises:
        InputError: an agent is unknown, or the split is empty.
    """
    from interplay.report.comparison_tables import noise_table

    catalog = read_catalog(config.data)
    agents = {
        role: load_agent(spec, role, config, catalog)
        for role, spec in ((Role.USER, config.user), (Role.RECOMMENDER, config.recommender))
    }
    record = config.record() | {
        "verb": "evaluate",
        "form": "noise",
        "agents": {role.value: agent.fingerprint for role, agent in agents.items()},
        "catalog_digest": catalog.digest,
        "package_version": __version__,
    }
    for field in ("concurrency", "memory_gib"):
        record.pop(field)
    if config.resume:
        Run.resume(config.out, record)
    else:
        Run.create(config.out, record, overwrite=config.overwrite)
    names = asyncio.run(_repeat(config, catalog, agents))
    repeats = [ScoredRun.read(config.out / name, Path(name).name) for name in names]
    floors = noise_of(repeats)
    values = {
        metric: [row.value for run in repeats for row in run.scores if (row.metric, row.condition) == (metric, "standard")]
        for metric in floors
    }
    means = {metric: sum(v for v in found if v is not None) / len(found) for metric, found in values.items()}
    record = {
        "repeats": names,
        "runs": [run.facts for run in repeats],
        "floors": {metric: asdict(floor) | {"mean": means[metric]} for metric, floor in floors.items()},
    }
    table = noise_table(floors, means)
    write_lines(config.out / "noise.md", table)
    write_lines(config.out / NOISE, [json.dumps(record, indent=1, ensure_ascii=False)])
    print("\n".join(table))
    print(
        f"\nTwo Runs of these agents that differ in the seed alone differ by less than the floor in 19 of 20 cases, over "
        f"{len(names)} seeds; a smaller difference is noise.\nwritten to {config.out}; use it with: "
        f"interplay evaluate compare RUN RUN --noise {config.out}"
    )
    return 0


async def _repeat(config: NoiseConfig, catalog: Catalog, agents: dict[Role, LoadedAgent]) -> list[str]:
    names: list[str] = []
    user, recommender = agents[Role.USER], agents[Role.RECOMMENDER]
    try:
        await check_servers(user, recommender)
        with Progress("noise", 0, "dialogues") as progress:
            for place, seed in enumerate(range(config.seed, config.seed + config.repeats)):
                names.append(f"{REPEATS}/seed-{seed}")
                held = cell_config(config, config.user, config.recommender, config.data, config.out / names[-1], seed=seed)
                watch = Watch(progress, f"seed {seed}", place, config.repeats)
                reason = await hold_cell(held, catalog, user, recommender, watch)
                if reason is not None:
                    raise RunError(f"the repeat with seed {seed} broke: {reason}; mend it and go on with --resume")
    finally:
        await close(user, recommender)
    return names
