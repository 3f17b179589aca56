"""Does anything give the hidden target away before the recommender finds it? Four detectors (SPEC G1).

- prompt: what a role is shown before the first turn names the target, or describes it so that hardly another item fits;
- history: a logged turn names the target before the recommender offers it;
- reply: the simulated user names it unasked;
- attributes: a blind guess from the target attributes alone has the target first in the catalog (`guessing`).

The detectors read the Views that agents are begun with and the Turns that they hear, the same objects: a Speaker gets
nothing else, so what was checked is what was heard. Nothing is filtered. A conversation that leaks is counted as such, and
every success is given three times: over all conversations, over those without a leak, and without those whose first offer
already held the target (How Reliable is Your Simulator, arXiv 2403.16416).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import tee
from pathlib import Path
from types import MappingProxyType

from interplay.evaluation.attributes import AttributeIndex
from interplay.evaluation.guessing import BlindGuesser, Question, ScoresContexts
from interplay.evaluation.recommendation import GoldTurn
from interplay.evaluation.simulation import FAULTS
from interplay.metrics.matching import is_any_target
from interplay.metrics.naming import how_named
from interplay.store import write_lines
from interplay.titles import title_key
from interplay.types import Catalog, Dialogue, Ending, Item, Role, Scenario, Target, Turn, View, view_of

LEAKS = "leaks.jsonl"
"""What was found in each conversation of a Run."""
HUMAN = "human"
"""Name of a side that nobody simulated: its turns are a log's."""
NEAR_UNIQUE = 3
"""A description that no more than so many items fit as well as the target gives it away."""
MIN_VALUES = 2
"""Values of the target's attributes that a text must name to count as a description."""
MIN_RUN = 8
"""Words in a row that a text must share with the target's own description to count as a copy of it."""
MAX_VALUE_WORDS = 4
"""Words of an attribute's value that is looked for in texts."""


class Detector(StrEnum):
    """Where a leak was found."""

    PROMPT = "prompt"
    HISTORY = "history"
    REPLY = "reply"
    ATTRIBUTES = "attributes"


class Subset(StrEnum):
    """Over which conversations a success is measured."""

    ALL = "all"
    LEAK_FREE = "leak-free"
    """Those that were checked and where no detector found anything."""
    LATER = "first-turn-excluded"
    """Those that the first offer did not decide: see `is_first_turn`."""


@dataclass(slots=True, frozen=True)
class Leak:
    """One place where the target is given away."""

    detector: Detector
    place: str
    """For example "general_preferences", "known_items[0].review", "turn 3", "target_attributes"."""
    how: str
    """"exact", "normalised", "fuzzy" (`metrics.naming.Naming`), "linked" (by catalog id), "description", "rank 1"."""
    text: str
    """What gives it away."""


@dataclass(slots=True, frozen=True)
class LeakReport:
    """What was found in one conversation."""

    scenario_key: str
    sample: int
    leaks: tuple[Leak, ...] | None
    """None where nothing could be checked: there is no target, or the scenario is missing."""
    blind_rank: int | None
    """Rank of the target in the blind guess, from 1; None where none could be made."""
    is_first_turn: bool
    is_observed: bool = True
    """Whether the conversation came to an end that no fault brought about."""

    def is_in(self, subset: Subset) -> bool:
        """Whether the conversation belongs to the subset."""
        if subset is Subset.LEAK_FREE:
            return self.leaks == ()
        return subset is Subset.ALL or not self.is_first_turn

    def has(self, detector: Detector) -> bool:
        """Whether the detector found anything."""
        return bool(self.leaks) and any(leak.detector is detector for leak in self.leaks or ())


def texts_of(view: View) -> Iterator[tuple[str, str]]:
    """Every text that a View shows before the first turn, with its place; renderings show nothing else of a Scenario."""
    yield "general_preferences", view.general_preferences
    for n, known in enumerate(view.known_items):
        yield f"known_items[{n}].title", known.title
        yield f"known_items[{n}].review", known.review
    for n, attribute in enumerate(view.target_attributes):
        yield f"target_attributes[{n}]", attribute
    for n, title in enumerate(view.told_targets):
        yield f"told_targets[{n}]", title


@dataclass(slots=True, frozen=True)
class _Checked:
    """What is kept of a scenario: enough for its dialogues."""

    targets: tuple[Target, ...]
    leaks: tuple[Leak, ...]
    blind_rank: int | None


@dataclass(slots=True)
class LeakChecker:
    """Checks the dialogues of some scenarios; keeps a few numbers of each.

    Args:
        catalog: of their domain.
        tell_target: whether the user was told the target (`agents.is_told_target`).
        ranker: guesses blindly in place of the rules: see BlindGuesser.
    """

    catalog: Catalog
    tell_target: bool = False
    ranker: ScoresContexts | None = None
    _index: AttributeIndex = field(init=False)
    _guesser: BlindGuesser = field(init=False)
    _title_keys: frozenset[str] = field(init=False)
    _runs: dict[str, frozenset[tuple[str, ...]]] = field(init=False, default_factory=dict)
    _scenarios: dict[str, _Checked] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._index = AttributeIndex(self.catalog)
        self._guesser = BlindGuesser(self.catalog, self.ranker, index=self._index)
        self._title_keys = frozenset(title_key(item.title) for item in self.catalog)

    def take(self, scenarios: Iterable[Scenario]) -> None:
        """Check what is shown at the outset of scenarios. Read once, one at a time."""
        asked, kept = tee(scenarios)
        questions = (Question(s.persona.target_attributes, tuple(t.item_id for t in s.targets)) for s in asked)
        for rank, scenario in zip(self._guesser.ranks(questions), kept, strict=True):
            leaks = [*self._prompt_leaks(scenario)] if scenario.targets else []
            if rank == 1:
                guess = ", ".join(scenario.persona.target_attributes)
                leaks.append(Leak(Detector.ATTRIBUTES, "target_attributes", "rank 1", guess))
            self._scenarios[scenario.key] = _Checked(scenario.targets, tuple(leaks), rank)

    def check(self, dialogue: Dialogue, *, logged: Collection[Role] | None = None, shown: Sequence[Turn] = ()) -> LeakReport:
        """What gives the target away in one conversation.

        Args:
            dialogue: of a scenario that `take` has seen; else nothing can be checked.
            logged: the sides whose turns are a log's; by default those named "human".
            shown: turns of a log that the user was shown instead of its own (`replay` with the logged history).
        """
        known = self._scenarios.get(dialogue.scenario_key)
        if known is None or not known.targets:
            first = is_first_turn(dialogue, ())
            return LeakReport(dialogue.scenario_key, dialogue.sample, None, None, first, dialogue.ending not in FAULTS)
        if logged is None:
            names = {Role.USER: dialogue.user, Role.RECOMMENDER: dialogue.recommender}
            logged = [role for role, name in names.items() if name == HUMAN]
        leaks = [*known.leaks, *self.turn_leaks(dialogue.turns, known.targets, logged)]
        if shown:
            leaks += [leak for leak in self.turn_leaks(shown, known.targets, tuple(Role)) if leak not in leaks]
        first = is_first_turn(dialogue, known.targets, by_offer=Role.RECOMMENDER in logged)
        seen = dialogue.ending not in FAULTS
        return LeakReport(dialogue.scenario_key, dialogue.sample, tuple(leaks), known.blind_rank, first, seen)

    def watch(self, dialogues: Iterable[Dialogue], reports: list[LeakReport]) -> Iterator[Dialogue]:
        """The same dialogues, one at a time; a report of each is added to `reports`."""
        for dialogue in dialogues:
            reports.append(self.check(dialogue))
            yield dialogue

    def turn_leaks(self, turns: Sequence[Turn], targets: Sequence[Target], logged: Collection[Role]) -> Iterator[Leak]:
        """Where turns name a target before the recommender offers it: history where the turn is a log's, else reply.

        What a simulated recommender says is never a leak: naming the target is what it is there for.
        """
        for place, turn in enumerate(turns):
            linked = holds_target(turn, targets)
            how = "linked" if linked else self._how(_unlinked_text(turn), targets)
            if how is None:
                continue
            role = turn.role
            if role is Role.RECOMMENDER and (linked or role not in logged):
                return
            yield Leak(Detector.HISTORY if role in logged else Detector.REPLY, f"turn {place}", how, turn.text)

    def _how(self, text: str, targets: Sequence[Target]) -> str | None:
        for target in targets:
            naming = how_named(text, target.title, self._title_keys)
            if naming is not None:
                return naming.value
        return None

    def _prompt_leaks(self, scenario: Scenario) -> Iterator[Leak]:
        # The user's View holds everything that the recommender's can.
        view = view_of(scenario, Role.USER, with_persona=True, tell_target=self.tell_target)
        for place, text in texts_of(view):
            how = self._how(text, scenario.targets)
            if how is None and not place.startswith("target_attributes"):
                how = "description" if any(self._describes(text, view, target) for target in scenario.targets) else None
            if how is not None:
                yield Leak(Detector.PROMPT, place, how, text)

    def _describes(self, text: str, view: View, target: Target) -> bool:
        item = self.catalog.get(target.item_id)
        if item is None or not text:
            return False
        return self._copies(text, item) or self._singles_out(text, view, item)

    def _copies(self, text: str, item: Item) -> bool:
        if item.id not in self._runs:
            self._runs[item.id] = frozenset(_runs(item.text))
        return bool(self._runs[item.id]) and not self._runs[item.id].isdisjoint(_runs(text))

    def _singles_out(self, text: str, view: View, item: Item) -> bool:
        """Whether the attribute values that a text names fit the item and hardly another."""
        spoken = f" {title_key(text)} "
        own = sum(f" {key} " in spoken for key in self._index.keys[item.id])
        if own < MIN_VALUES:
            return False
        words = spoken.split()
        named = {" ".join(words[i : i + n]) for n in range(1, MAX_VALUE_WORDS + 1) for i in range(len(words) - n + 1)}
        held = self._index.num_held(named)
        best = held >= held[self._index.row[item.id]]
        # A review of another item that is as good a fit is about that one.
        known = [self._index.row[k.item_id] for k in view.known_items if k.item_id in self._index.row]
        return int(best.sum()) <= NEAR_UNIQUE and not best[known].any()


def holds_target(turn: Turn, targets: Sequence[Target]) -> bool:
    """Whether a turn has a mention that means one of the targets."""
    items = turn.items
    return bool(items) and any(is_any_target(t, m.item_id, targets) for t, m in zip(turn.titles, items, strict=True))


def _unlinked_text(turn: Turn) -> str:
    """The text without the titles that were linked to items, for what those mean is known."""
    if not turn.items:
        return turn.text
    parts, at = [], 0
    for mention in turn.items:
        if mention.item_id is not None:
            parts.append(turn.text[at : mention.start])
            at = mention.end
    return " | ".join([*parts, turn.text[at:]])


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = title_key(text).split()
    return (tuple(words[i : i + MIN_RUN]) for i in range(len(words) - MIN_RUN + 1))


def replay_reports(
    checker: LeakChecker,
    pairs: Sequence[tuple[Scenario, Dialogue]],
    dialogues: Iterable[Dialogue],
    *,
    logged_history: bool = False,
) -> list[LeakReport | None]:
    """A report of every conversation of a replay.

    Whether the first offer decides is read from the log, which also tells it where the user left before.

    Args:
        checker: has not yet taken the scenarios.
        pairs: what was replayed.
        dialogues: that came of it; a pair that was skipped has none.
        logged_history: whether the user was shown the log's user turns.

    Returns:
        Aligned with the pairs; None where there is no dialogue.
    """
    checker.take(scenario for scenario, _ in pairs)
    played = {dialogue.scenario_key: dialogue for dialogue in dialogues}
    reports: list[LeakReport | None] = []
    for scenario, log in pairs:
        dialogue = played.get(scenario.key)
        if dialogue is None:
            reports.append(None)
            continue
        shown = log.turns if logged_history else ()
        report = checker.check(dialogue, logged=(Role.RECOMMENDER,), shown=shown)
        reports.append(replace(report, is_first_turn=is_first_turn(log, scenario.targets, by_offer=True)))
    return reports


def gold_turn_reports(
    checker: LeakChecker, pairs: Sequence[tuple[Scenario, Dialogue]], gold_turns: Sequence[GoldTurn]
) -> list[LeakReport | None]:
    """A report of every conversation at whose gold turn a recommender spoke.

    They are about the log, which is what it has read. What counts as a leak is the same as in a replay, so that both are
    given over the same conversations, whether or not the recommender is shown the persona.

    Args:
        checker: has not yet taken the scenarios.
        pairs: what `recommend_at_gold_turn` was asked.
        gold_turns: what it returned.

    Returns:
        Aligned with the pairs; None where nothing was observed.
    """
    checker.take(scenario for scenario, _ in pairs)
    return [
        None if gold.skipped is not None else checker.check(log, logged=tuple(Role))
        for (_, log), gold in zip(pairs, gold_turns, strict=True)
    ]


def is_first_turn(dialogue: Dialogue, targets: Sequence[Target], *, by_offer: bool = False) -> bool:
    """Whether the first offer decided: it holds a target, or the user accepts before there is a second one.

    An offer is a recommender turn that names an item.

    Args:
        dialogue: the conversation.
        targets: what it leads to.
        by_offer: go by what is offered alone, whatever the user does: where the offers are a log's, the conversations
            that are left out must not depend on who is measured.
    """
    offers = [t for t in dialogue.turns if t.role is Role.RECOMMENDER and t.items]
    if not offers:
        return False
    if holds_target(offers[0], targets):
        return True
    return not by_offer and dialogue.ending is Ending.ACCEPTED and len(offers) == 1


def condition_of(condition: str, subset: Subset) -> str:
    """The condition of a ScoreRow over a subset.

    >>> condition_of("standard", Subset.LEAK_FREE), condition_of("gold-random", Subset.LEAK_FREE)
    ('leak-free', 'gold-random, leak-free')
    """
    if subset is Subset.ALL:
        return condition
    return subset.value if condition == "standard" else f"{condition}, {subset.value}"


DETECTOR_METRICS: Mapping[Detector, str] = MappingProxyType(
    {
        Detector.PROMPT: "leakage.prompt_rate",
        Detector.HISTORY: "leakage.history_rate",
        Detector.REPLY: "leakage.reply_rate",
    }
)
"""The metric of each detector but the blind guess, whose ranks have metrics of their own."""


def write_leaks(path: Path, reports: Iterable[LeakReport]) -> None:
    """Write what was found in each conversation to PATH/leaks.jsonl, one line each.

    Raises:
        RunError: the disk is full.
    """
    write_lines(path / LEAKS, (json.dumps(asdict(report), ensure_ascii=False) for report in reports))
