"""What a Run of simulated conversations looks like: endings, lengths, whether what was accepted is what was asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from interplay.evaluation.replay import named_accepted
from interplay.metrics.matching import attribute_key, attribute_keys, is_any_target
from interplay.types import Catalog, Dialogue, Ending, Role, Scenario, Target

FAULTS = (Ending.BACKEND_FAILURE, Ending.CONTEXT_OVERFLOW)
"""Endings that say nothing of what was said; such dialogues are skipped and counted."""


@dataclass(slots=True, frozen=True)
class SimulationSummary:
    """Numbers of each observed dialogue, aligned with each other and ordered by the dialogues' keys, and counts.

    The order in which dialogues finished, which changes from one invocation to the next, is not seen in it.
    """

    scenario_keys: tuple[str, ...]
    """The scenario each started from."""
    endings: tuple[Ending | None, ...]
    num_turns: tuple[int, ...]
    words: Mapping[Role, tuple[int, ...]]
    """Words of all turns of the role, per dialogue."""
    turns: Mapping[Role, tuple[int, ...]]
    """Turns of the role, per dialogue."""
    satisfied: tuple[bool | None, ...]
    """Whether an accepted item has all target attributes; None where nothing was accepted or that can't be judged."""
    num_not_judged: int
    """Accepted dialogues that could not be judged."""
    succeeded: tuple[bool | None, ...]
    """Whether a hidden target was accepted; None where the scenario has none, or is not known."""
    titles: tuple[int, ...]
    """Titles the recommender named, per dialogue."""
    off_catalog: tuple[int, ...]
    """Those of them that the catalog does not hold, per dialogue."""
    num_skipped: int
    """Dialogues that a fault ended."""
    num_noisy: int = 0
    """User turns whose verdict noise has turned round."""


def summarise(
    dialogues: Iterable[Dialogue], scenarios: Iterable[Scenario] = (), catalog: Catalog | None = None
) -> SimulationSummary:
    """Summary of a simulated Run. Both are read once, one at a time; a few numbers of each are kept.

    Args:
        dialogues: of one Run.
        scenarios: those they started from; a dialogue whose scenario is missing can't be judged for its goal.
        catalog: of their domain; None: off-catalog means that the title was linked to no item.
    """
    wanted: dict[str, frozenset[str]] = {}
    targets: dict[str, tuple[Target, ...]] = {}
    for scenario in scenarios:
        wanted[scenario.key] = frozenset(attribute_key(a) for a in scenario.persona.target_attributes)
        targets[scenario.key] = scenario.targets
    known_attributes = frozenset(a for item in catalog or () for a in attribute_keys(item))
    keys: list[tuple[str, int]] = []
    endings: list[Ending | None] = []
    num_turns: list[int] = []
    words: dict[Role, list[int]] = {role: [] for role in Role}
    turns: dict[Role, list[int]] = {role: [] for role in Role}
    verdicts: list[bool | None] = []
    succeeded: list[bool | None] = []
    titles: list[int] = []
    off_catalog: list[int] = []
    num_not_judged = num_skipped = num_noisy = 0
    for dialogue in dialogues:
        if dialogue.ending in FAULTS:
            num_skipped += 1
            continue
        key = dialogue.scenario_key
        keys.append((key, dialogue.sample))
        endings.append(dialogue.ending)
        num_noisy += len(dialogue.noisy_turns)
        num_turns.append(len(dialogue.turns))
        num_words, num_own, num_titles, num_off = dict.fromkeys(Role, 0), dict.fromkeys(Role, 0), 0, 0
        for turn in dialogue.turns:
            role = turn.role
            num_words[role] += turn.num_words
            num_own[role] += 1
            if role is Role.RECOMMENDER and (items := turn.items):
                num_titles += len(items)
                for title, mention in zip(turn.titles, items, strict=True):
                    num_off += not in_catalog(title, mention.item_id, catalog)
        for role in Role:
            words[role].append(num_words[role])
            turns[role].append(num_own[role])
        titles.append(num_titles)
        off_catalog.append(num_off)
        verdict, success = None, False
        if dialogue.ending is Ending.ACCEPTED:
            accepted = named_accepted(dialogue.turns)
            verdict = _satisfied(accepted, wanted.get(key), catalog, known_attributes)
            num_not_judged += verdict is None
            success = any(is_any_target(title, item_id, targets.get(key, ())) for title, item_id in accepted)
        verdicts.append(verdict)
        succeeded.append(success if targets.get(key) else None)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return SimulationSummary(
        scenario_keys=tuple(keys[i][0] for i in order),
        endings=tuple(endings[i] for i in order),
        num_turns=tuple(num_turns[i] for i in order),
        words={role: tuple(numbers[i] for i in order) for role, numbers in words.items()},
        turns={role: tuple(numbers[i] for i in order) for role, numbers in turns.items()},
        satisfied=tuple(verdicts[i] for i in order),
        num_not_judged=num_not_judged,
        succeeded=tuple(succeeded[i] for i in order),
        titles=tuple(titles[i] for i in order),
        off_catalog=tuple(off_catalog[i] for i in order),
        num_skipped=num_skipped,
        num_noisy=num_noisy,
    )


def in_catalog(title: str, item_id: str | None, catalog: Catalog | None) -> bool:
    """Whether a named title is an item of the catalog; without a catalog, whether it was linked to any item."""
    if catalog is None:
        return item_id is not None
    return item_id in catalog or catalog.find(title) is not None


def count_endings(dialogues: Iterable[Dialogue]) -> dict[Ending, int]:
    """How many dialogues ended how, all Endings in their order; logs that do not tell are not counted."""
    counts = Counter(dialogue.ending for dialogue in dialogues)
    return {ending: counts[ending] for ending in Ending}


def _satisfied(
    accepted: Sequence[tuple[str, str | None]], wanted: frozenset[str] | None, catalog: Catalog | None, known: frozenset[str]
) -> bool | None:
    """Whether an accepted item has every target attribute; None when that can't be told."""
    # An attribute that no item of the catalog has (a phrase out of a review) can't be checked, so it is no miss.
    if not wanted or catalog is None or not wanted <= known:
        return None
    items = [catalog.get(item_id) or catalog.find(title) for title, item_id in accepted]
    return any(wanted <= attribute_keys(item) for item in items if item is not None)
