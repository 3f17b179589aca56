"""An earlier Run as a corpus: what was simulated can be trained on like a log.

The Run directory must hold, beside its `dialogues.jsonl`, the `scenarios.jsonl` and `catalog.jsonl` it was played from.
Only conversations that ended by the user's own doing (accepted, gave up) are kept. The item that was accepted becomes the
target of the new Scenario: that is what the persona led to here, whatever the hidden target was.
"""

from pathlib import Path

from interplay.corpora.acts import with_acts
from interplay.corpora.assemble import MIN_TURNS, Loaded, Tools
from interplay.corpora.corpus import Counts
from interplay.errors import DataError, RunError
from interplay.store import Run, read_records
from interplay.types import DOMAINS, Catalog, Dialogue, Ending, Item, Role, Scenario, Target

_KEPT = (Ending.ACCEPTED, Ending.GAVE_UP)


def load(source: Path, tools: Tools) -> Loaded:
    """The finished conversations of a Run.

    Scenarios get a new `source_id` (the key of the dialogue in the Run); a sample number is part of it, so one scenario
    played several times gives several.

    Args:
        source: the Run directory.
        tools: not needed; every turn of a Run has its Action.

    Raises:
        DataError: it is not a Run, lacks scenarios or catalog, or a dialogue's scenario is not among them.
    """
    del tools
    try:
        run = Run.read(source)
    except RunError as error:
        raise DataError(str(error)) from None
    for name in ("dialogues.jsonl", "scenarios.jsonl", "catalog.jsonl"):
        if not (source / name).is_file():
            raise DataError(f"{source} holds no {name}; expected a Run with dialogues.jsonl, scenarios.jsonl and catalog.jsonl")
    scenarios = {s.key: s for s in read_records(source / "scenarios.jsonl", Scenario)}
    domains = {s.domain for s in scenarios.values()}
    if len(domains) > 1:
        raise DataError(f"{source}: scenarios of several domains ({', '.join(sorted(domains))}); a corpus has one")
    domain = DOMAINS[next(iter(domains), "movie")]
    catalog = Catalog(read_records(source / "catalog.jsonl", Item), domain)
    counts = Counts()
    dialogues, out = [], []
    for dialogue in run.dialogues():
        counts.dialogues_read += 1
        if dialogue.ending not in _KEPT:
            counts.drop(f"ended {dialogue.ending.value if dialogue.ending else 'openly'}")
            continue
        if len(dialogue.turns) < MIN_TURNS or not any(t.role is Role.USER for t in dialogue.turns):
            counts.drop("fewer than 2 turns or no user turn")
            continue
        scenario = scenarios.get(dialogue.scenario_key)
        if scenario is None:
            raise DataError(f"{source}: the dialogue {dialogue.key} belongs to a scenario that is not in scenarios.jsonl")
        accepted = _accepted(dialogue, catalog)
        if dialogue.ending is Ending.ACCEPTED and accepted is None:
            counts.drop("accepted item not in the catalog")
            continue
        if accepted is not None and accepted.id not in {t.item_id for t in scenario.targets}:
            counts.note("accepted another item than the hidden target")
        counts.note(f"ended {dialogue.ending.value}")
        new = _scenario(scenario, dialogue, accepted)
        out.append(new)
        dialogues.append(with_acts(dialogue.model_copy(update={"scenario_key": new.key, "sample": 0, "corpus": new.corpus})))
    counts.dialogues_kept = len(dialogues)
    return Loaded("run", dialogues, out, catalog, counts)


def _accepted(dialogue: Dialogue, catalog: Catalog) -> Item | None:
    for mention in reversed(dialogue.accepted_items):
        item = catalog.get(mention.item_id)
        if item is not None:
            return item
    for turn in reversed(dialogue.turns[:-1]):
        if dialogue.ending is Ending.ACCEPTED and turn.role is Role.RECOMMENDER and turn.items:
            found = [catalog.find(title) for title in turn.titles]
            return next((item for item in reversed(found) if item is not None), None)
    return None


def _scenario(scenario: Scenario, dialogue: Dialogue, accepted: Item | None) -> Scenario:
    persona = scenario.persona if accepted is None else scenario.persona.without([accepted.label])
    return Scenario(
        corpus=scenario.corpus,
        domain=scenario.domain,
        split=scenario.split,
        source_id=f"{scenario.source_id}.{dialogue.key}",
        user_id=scenario.user_id,
        persona=persona,
        targets=() if accepted is None else (Target(item_id=accepted.id, title=accepted.label),),
    )
