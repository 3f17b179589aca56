"""`interplay evaluate counterfactual`: one user simulator with a good recommender and with worse ones.

OUT/config.json               what was asked for, which a resume must match
OUT/cells/good, OUT/cells/*   Runs, as simulate writes them
OUT/counterfactual.json .md   what came of it, beside people
"""

import asyncio
import os
from pathlib import Path

from interplay import __version__
from interplay.cli.matrix import CELLS, Watch, cell_config, hold_cell
from interplay.cli.pipeline import check_servers, close, load_agent
from interplay.cli.progress import Progress
from interplay.config import CounterfactualConfig
from interplay.corpora import DATA_VARIABLE
from interplay.corpora.corpus import read_catalog
from interplay.errors import RunError
from interplay.evaluation.counterfactual import PeoplesReactions, judge_reactions, peoples_reactions, reactions_in
from interplay.simulation.degraded import DEGRADED, Fault
from interplay.simulation.specs import LoadedAgent, degrade
from interplay.store import Run
from interplay.types import Catalog, Role

GOOD = "good"


def counterfactual(config: CounterfactualConfig) -> int:
    """`interplay evaluate counterfactual`.

    Raises:
        InputError: an agent is unknown, the split is empty, or a Run broke.
    """
    from interplay.report.counterfactual_tables import counterfactual_markdown, write_counterfactual

    catalog = read_catalog(config.data)
    user = load_agent(config.user, Role.USER, config, catalog)
    good = load_agent(config.recommender, Role.RECOMMENDER, config, catalog)
    recommenders = {GOOD: good} | {fault.value: degrade(good, fault, catalog) for fault in Fault}
    record = config.record() | {
        "verb": "evaluate",
        "form": "counterfactual",
        "agents": {"user": user.fingerprint, "recommender": good.fingerprint},
        "catalog_digest": catalog.digest,
        "package_version": __version__,
    }
    for field in ("concurrency", "memory_gib"):
        record.pop(field)
    whole = Run.resume(config.out, record) if config.resume else Run.create(config.out, record, overwrite=config.overwrite)
    runs = asyncio.run(_hold_all(config, catalog, user, recommenders))
    values = {name: reactions_in(run.dialogues()) for name, run in runs.items()}
    bad = {name: found for name, found in values.items() if name != GOOD}
    reactions = judge_reactions(values[GOOD], bad, config.seed)
    people = _people(config.seed) if catalog.domain.name == "movie" else None
    write_counterfactual(reactions, people, {"config": whole.config}, config.out)
    print(counterfactual_markdown(reactions, people))
    if people is None:
        print(f"people's reactions are not beside it: set {DATA_VARIABLE} to a directory with crs_arena (movies only)")
    print(f"written to {config.out}")
    return 0


async def _hold_all(
    config: CounterfactualConfig, catalog: Catalog, user: LoadedAgent, recommenders: dict[str, LoadedAgent]
) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    good = recommenders[GOOD]
    try:
        await check_servers(user, good)
        with Progress("counterfactual", 0, "dialogues") as progress:
            for place, (name, recommender) in enumerate(recommenders.items()):
                spec = config.recommender if name == GOOD else f"{DEGRADED}{name}:{config.recommender}"
                held = cell_config(config, config.user, spec, config.data, config.out / CELLS / name)
                watch = Watch(progress, name, place, len(recommenders))
                reason = await hold_cell(held, catalog, user, recommender, watch)
                if reason is not None:
                    raise RunError(f"the conversations with {spec} broke: {reason}; mend it and go on with --resume")
                runs[name] = Run.read(held.out)
    finally:
        await close(user, good)  # the others speak through the good one
    return runs


def _people(seed: int) -> PeoplesReactions | None:
    from interplay.corpora.encounters import read_arena, read_votes

    root = os.environ.get(DATA_VARIABLE)
    folder = Path(root) / "crs_arena" if root else None
    if folder is None or not folder.is_dir():
        return None
    talks = [encounter for crowd in read_arena(folder).values() for encounter in crowd.found]
    return peoples_reactions(talks, read_votes(folder), seed)
