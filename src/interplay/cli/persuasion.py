"""`interplay evaluate persuasion`: a scripted recommender praises what the user does not want.

OUT/                      a Run of the conversations in which the item contradicts a target attribute, with all scores
OUT/cases.jsonl           which aspect and which item, of all conversations; OUT/outcomes.jsonl what came of each
OUT/weak/, OUT/fitting/   Runs of the other two pushes
"""

import asyncio
from collections import Counter
from itertools import islice
from typing import Any

from interplay import __version__
from interplay.cli.pipeline import (
    SCENARIOS,
    check_servers,
    close,
    empty_split,
    new_run,
    print_retries,
    print_rows,
    prompts_of,
    retries_of,
    told_target_record,
)
from interplay.cli.progress import Progress
from interplay.config import PersuasionConfig
from interplay.corpora.corpus import read_catalog, stream_scenarios
from interplay.errors import DataError
from interplay.simulation.specs import load_from_spec
from interplay.store import Run, write_records
from interplay.types import Catalog, Dialogue, Role, Scenario, Split

CASES, OUTCOMES = "cases.jsonl", "outcomes.jsonl"


def persuasion(config: PersuasionConfig) -> int:
    """`interplay evaluate persuasion`. Returns 0.

    Raises:
        DataError: the split is empty, or no scenario has a wish that an item of the catalog contradicts.
        InputError: there is no such user.
        RunError: the output can't be written.
    """
    from interplay.evaluation.faults import fault_rows
    from interplay.evaluation.persuasion import Push, outcome_of, persuade, persuasion_rows, persuasion_values, plan_cases
    from interplay.evaluation.scoring import About, data_digest, retry_rows
    from interplay.evaluation.values import write_values
    from interplay.simulation.facets import FacetIndex

    catalog = read_catalog(config.data)
    scenarios = list(islice(stream_scenarios(config.data, Split(config.split)), config.num_dialogues))
    if not scenarios:
        raise empty_split(config.split, config.data)
    index = FacetIndex(catalog)
    planned = plan_cases(scenarios, index, seed=config.seed)
    if not any(case.push is Push.HELD for _, case in planned.cases):
        raise DataError(
            f"no scenario of {config.data} has a target attribute that an item of its catalog contradicts; the kinds looked at "
            "are genre, decade, mood, theme, director and cast"
        )
    loaded = load_from_spec(
        config.user,
        Role.USER,
        sampling=config.sampling,
        catalog=catalog,
        max_batch=config.concurrency,
        memory_gib=config.memory_gib,
        kv_cache=config.kv_cache,
        constrained=config.constrained,
    )
    record = config.record() | {
        "verb": "evaluate persuasion",
        "agent": loaded.fingerprint,
        **prompts_of(loaded),
        **told_target_record(loaded),
        "catalog_digest": catalog.digest,
        "package_version": __version__,
    }
    for field in ("concurrency", "memory_gib"):
        record.pop(field)
    runs = {
        push.value: _run(config, push.value, record, catalog, [s for s, c in planned.cases if c.push is push]) for push in Push
    }
    finished = {name: run.finished_keys() for name, run in runs.items()}
    owed = [(s, c) for s, c in planned.cases if f"{s.key}.0" not in finished[c.push.value]]

    async def hold() -> None:
        await check_servers(loaded)
        done = len(planned.cases) - len(owed)
        with Progress("evaluate persuasion", len(planned.cases), "conversations", done=done) as progress:
            try:
                await persuade(
                    owed,
                    loaded.agent,
                    index,
                    seed=config.seed,
                    concurrency=config.concurrency,
                    on_dialogue=lambda case, dialogue: runs[case.push.value].append(dialogue),
                    on_progress=lambda now, _: progress.update(done + now),
                )
            finally:
                await close(loaded)

    asyncio.run(hold())
    dialogues: dict[tuple[str, str], Dialogue] = {}
    for name, run in runs.items():
        run.put_in_order(f"{s.key}.0" for s, c in planned.cases if c.push.value == name)
        dialogues |= {(name, d.scenario_key): d for d in run.dialogues()}
    outcomes = [outcome_of(case, dialogues[case.push.value, s.key], index) for s, case in planned.cases]
    about = About(loaded.agent.name, config.split, config.seed, data_digest(scenarios))
    scored = persuasion_rows(outcomes, planned, about)
    scored += fault_rows("persuasion", (dialogue.failure for dialogue in dialogues.values()), about)
    scored += retry_rows(
        "persuasion",
        retries_of(loaded),
        about,
        num_units=len(owed),
        num_skipped=len(planned.cases) - len(owed),
    )
    run = runs[Push.HELD.value]
    run.write_scores(scored)
    write_values(run, persuasion_values(outcomes))
    write_records(run.path / CASES, (case for _, case in planned.cases))
    write_records(run.path / OUTCOMES, outcomes)
    print_rows(scored)
    _print_left_out(Counter({f"{push.value}: {why}": n for (push, why), n in planned.skipped.items()}), "scenarios")
    _print_left_out(Counter(f"{o.push.value}: {o.skipped}" for o in outcomes if o.skipped is not None), "conversations")
    print_retries(loaded)
    print(f"written to {run.path}")
    return 0


def _run(config: PersuasionConfig, push: str, record: dict[str, Any], catalog: Catalog, scenarios: list[Scenario]) -> Run:
    """The Run of one push: OUT itself for the first, which is the one that is refused or replaced."""
    is_first = push == "held"
    path = config.out if is_first else config.out / push
    own = record | {"push": push}
    overwrite = config.overwrite and is_first
    if config.resume and (path / Run.MARKER).is_file():
        if (path / SCENARIOS).is_file():
            return Run.resume(path, own)
        overwrite = True  # killed before its scenarios were written, so nothing was held
    return new_run(path, own, catalog, scenarios, overwrite)


def _print_left_out(reasons: Counter[str], what: str) -> None:
    for reason, number in reasons.most_common():
        print(f"  {number} {what} left out: {reason}")
