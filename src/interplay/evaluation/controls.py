"""Controls of replay (SPEC 2.3 point 1, D4): the same logs with something changed that a reading user would notice.

- gold-random: wherever the log names the gold item, a random item stands in;
- gold-matched: an item that has the same wanted attributes stands in;
- gold-moved: the gold item changes places with an item that another turn offers;
- shuffled-attributes: everybody gets the wishes of somebody else (`replay.shuffled_attributes`).

A user who reads accepts the random stand-in less often than the gold item, and the matched one about as often; a user who
goes by position accepts whatever stands in the gold item's place. Under the first two controls such an accept is no success;
its rate has a name of its own, `replay.stand_in_rate`.

A title is replaced in every turn of the log, with or without its year as it was written there; so are the attribute values
of the item that the same turn states, where the stand-in has values of that kind. What can't be changed so is skipped and
counted, and turns that still state a fact of the item that is gone are counted too.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from interplay.errors import DataError
from interplay.evaluation.asking import CONCURRENCY, Pair, Progress
from interplay.evaluation.attributes import AttributeIndex
from interplay.evaluation.replay import History, ReplayOutcome, reason_to_skip, replay, shuffled_attributes
from interplay.metrics.matching import attribute_key, is_target
from interplay.simulation.agents import Agent
from interplay.titles import names_title, remove_title, split_year, title_key
from interplay.types import Catalog, Dialogue, Item, Mention, Role, Scenario, Target, Turn, derive_seed

_PLACE = "\0{}\0"
"""What holds a title's place while a text is reworded."""
MOST_DRAWS = 200
"""Draws after which no random item is found to stand in."""


class Control(StrEnum):
    """What is changed; the condition of its ScoreRows."""

    STANDARD = "standard"
    RANDOM = "gold-random"
    MATCHED = "gold-matched"
    MOVED = "gold-moved"
    SHUFFLED = "shuffled-attributes"


STAND_INS = (Control.RANDOM, Control.MATCHED)
"""Controls in which another item stands in for the gold item, so that no success is possible."""


@dataclass(slots=True, frozen=True)
class Controlled:
    """The conversations under one control."""

    control: Control
    pairs: tuple[Pair | str, ...]
    """The changed conversation, or the reason why it could not be changed; aligned with the conversations given."""
    num_stale: int = 0
    """Conversations in which a turn still states a fact of the item that is gone: the stand-in has none of that kind, or
    the turn names several items, and whose fact it is can't be told."""


@dataclass(slots=True, frozen=True)
class Swap:
    """One title in another's place."""

    old: Target
    new: Target
    old_item: Item | None = None
    """What the catalog knows of it: the facts that are exchanged with the title."""
    new_item: Item | None = None


@dataclass(slots=True, frozen=True)
class Played:
    """What a control gave."""

    controlled: Controlled
    dialogues: tuple[Dialogue, ...]
    """Of the conversations that were replayed."""
    outcomes: tuple[ReplayOutcome, ...]
    """Aligned with the conversations given."""
    logs: tuple[Pair | None, ...] = field(repr=False)
    """What was replayed, aligned with the outcomes; None where nothing was."""


def controlled_pairs(pairs: Sequence[Pair], catalog: Catalog, *, seed: int) -> list[Controlled]:
    """The conversations as they are, and under every control.

    Args:
        pairs: scenarios with their logs.
        catalog: of their domain: where stand-ins come from.
        seed: of the draws; those of a conversation derive from it and the scenario's source.

    Returns:
        One for each Control, in their order.
    """
    index = AttributeIndex(catalog)
    out = [Controlled(Control.STANDARD, tuple(pairs))]
    for control in (Control.RANDOM, Control.MATCHED, Control.MOVED):
        changed: list[Pair | str] = []
        stale = 0
        for scenario, log in pairs:
            rng = random.Random(derive_seed(seed, control.value, scenario.corpus, scenario.source_id))
            reason = reason_to_skip(scenario, log)
            if reason is not None:
                changed.append(reason)
                continue
            if control is Control.MOVED:
                result = moved((scenario, log), catalog, rng)
            else:
                result = stood_in((scenario, log), catalog, index, rng, matched=control is Control.MATCHED)
            if isinstance(result, str):
                changed.append(result)
                continue
            changed.append(result[0])
            stale += result[1]
        out.append(Controlled(control, tuple(changed), stale))
    out.append(_shuffled(pairs, seed))
    return out


def _shuffled(pairs: Sequence[Pair], seed: int) -> Controlled:
    try:
        scenarios = shuffled_attributes([s for s, _ in pairs], seed)
    except DataError:
        return Controlled(Control.SHUFFLED, ("nobody else has target attributes",) * len(pairs))
    changed: list[Pair | str] = []
    for (before, log), after in zip(pairs, scenarios, strict=True):
        same = set(before.persona.target_attributes) == set(after.persona.target_attributes)
        changed.append("no target attributes, or the same again" if same else (after, log))
    return Controlled(Control.SHUFFLED, tuple(changed))


def stood_in(
    pair: Pair, catalog: Catalog, index: AttributeIndex, rng: random.Random, *, matched: bool
) -> tuple[Pair, bool] | str:
    """The conversation with another item in place of each target that it names.

    The stand-in is named nowhere in the log or the persona. A random one is drawn uniformly from the items that do not
    have all wanted attributes; a matched one has every wanted attribute that the target has, and is the one most alike in
    all attributes (Jaccard), the first of `rng` among equals.

    Args:
        pair: a conversation that `reason_to_skip` lets through.
        catalog: where it comes from.
        index: of the catalog.
        rng: draws.
        matched: whether it must be matched.

    Returns:
        The changed conversation, whose scenario has the stand-ins as its targets, and whether a turn still states a fact
        of a target; or why it can't be changed.
    """
    scenario, log = pair
    named = {target for target in scenario.targets if any(_names(turn, target) for turn in log.turns)}
    swaps: list[Swap] = []
    taken = {key for turn in log.turns for key in map(title_key, turn.titles)}
    taken |= {title_key(t.title) for t in scenario.targets} | {title_key(text) for text in scenario.persona.texts()}
    for target in (t for t in scenario.targets if t in named):
        old = catalog.get(target.item_id)
        choices = _matched(old, scenario, catalog, index, rng) if matched else _random(scenario, catalog, index, rng)
        if isinstance(choices, str):
            return choices
        texts = [*scenario.persona.texts(), *(turn.text for turn in log.turns)]
        new = next(
            (i for i in choices if title_key(i.title) not in taken and not any(names_title(t, i.label) for t in texts)), None
        )
        if new is None:
            return "no attribute-matched item" if matched else "no item to stand in"
        taken.add(title_key(new.title))
        swaps.append(Swap(target, Target(item_id=new.id, title=new.label), old, new))
    turns, stale = swapped(log.turns, swaps)
    if any(names_title(turn.text, s.old.title) or _names(turn, s.old) for turn in turns for s in swaps):
        return "the gold item can't be taken out of the log"
    changed = _rebuilt(scenario, tuple(s.new for s in swaps))
    return _pair(changed, log, turns), stale


def moved(pair: Pair, catalog: Catalog, rng: random.Random) -> tuple[Pair, bool] | str:
    """The conversation with its gold item in another turn, where an item that was offered there takes its place.

    Args:
        pair: a conversation that `reason_to_skip` lets through.
        catalog: of the domain.
        rng: draws the other offer among those of the log that are heard.

    Returns:
        The changed conversation and whether a turn still states a fact of the item that is gone; or why it can't be
        changed.
    """
    scenario, log = pair
    named = [t for t in scenario.targets if any(_names(turn, t) for turn in log.turns if turn.role is Role.RECOMMENDER)]
    if len(named) != 1:
        return "several gold items"
    target = named[0]
    last = max(i for i, turn in enumerate(log.turns) if turn.role is Role.USER)
    heard = [(i, turn) for i, turn in enumerate(log.turns[:last]) if turn.role is Role.RECOMMENDER]
    first, gold_turn = next((i, turn) for i, turn in heard if _names(turn, target))
    here = {title_key(title) for title in gold_turn.titles}
    others = [
        Target(item_id=mention.item_id or "", title=title)
        for i, turn in heard
        if i != first
        for title, mention in zip(turn.titles, turn.items, strict=True)
        if title_key(title) not in here and not is_target(title, mention.item_id, target)
    ]
    if not others:
        return "no other offer to change places with"
    other = rng.choice(others)
    item = catalog.get(other.item_id)
    other = other if item is None else Target(item_id=item.id, title=item.label)
    old = catalog.get(target.item_id)
    turns, stale = swapped(log.turns, [Swap(target, other, old, item), Swap(other, target, item, old)])
    now = next((i for i, turn in enumerate(turns) if turn.role is Role.RECOMMENDER and _names(turn, target)), None)
    if now is None or now == first:
        return "the gold item can't be moved"
    return _pair(scenario, log, turns), stale


def _random(scenario: Scenario, catalog: Catalog, index: AttributeIndex, rng: random.Random) -> list[Item]:
    items = list(catalog)
    wanted = index.known(scenario.persona.target_attributes)
    drawn = rng.sample(items, min(MOST_DRAWS, len(items)))
    return [item for item in drawn if not wanted or not wanted <= index.keys[item.id]]


def _matched(
    old: Item | None, scenario: Scenario, catalog: Catalog, index: AttributeIndex, rng: random.Random
) -> list[Item] | str:
    if old is None:
        return "the gold item is not in the catalog"
    own = index.keys[old.id]
    wanted = own & index.known(scenario.persona.target_attributes)
    if not wanted:
        return "no attribute to match by"
    holders = sorted(set.intersection(*(index.holders[key] for key in wanted)) - {old.id})
    rng.shuffle(holders)
    holders.sort(key=lambda i: len(own & index.keys[i]) / len(own | index.keys[i]), reverse=True)
    return [catalog[i] for i in holders]


def _rebuilt(scenario: Scenario, targets: tuple[Target, ...]) -> Scenario:
    # Built anew, not copied, so that the check against named targets runs.
    return Scenario(**{n: getattr(scenario, n) for n in Scenario.model_fields if n != "targets"}, targets=targets)


def _pair(scenario: Scenario, log: Dialogue, turns: Sequence[Turn]) -> Pair:
    return scenario, log.model_copy(update={"scenario_key": scenario.key, "turns": tuple(turns)})


def _names(turn: Turn, target: Target) -> bool:
    return any(is_target(t, m.item_id, target) for t, m in zip(turn.titles, turn.items, strict=True))


# ---- text ------------------------------------------------------------------------------------------------------------


def swapped(turns: Sequence[Turn], swaps: Sequence[Swap]) -> tuple[list[Turn], bool]:
    """Turns with titles exchanged, all at once, and with them the facts that are stated of the items.

    Facts are exchanged where a turn names no other item, since they could be the other's, and in the turns after it until
    another item is named ("Who is in it?").

    Args:
        turns: of a log; `raw` of a changed turn is empty, for the source messages are no longer what was said.
        swaps: what stands in for what.

    Returns:
        The turns, and whether one still states a fact that only the replaced item has.
    """
    out: list[Turn] = []
    stale = False
    topic: Swap | None = None
    for turn in turns:
        named = [next((s for s in swaps if is_target(t, m.item_id, s.old)), None) for t, m in _named(turn)]
        unlinked = [s for s in swaps if any(names_title(text, s.old.title) for text in _between(turn))]
        about = {id(s): s for s in (*named, *unlinked) if s is not None}
        if named or unlinked:
            topic = next(iter(about.values())) if len(about) == 1 and all(named) else None
        out.append(_rewritten(turn, named, unlinked, topic))
        gone = list(about.values()) or [s for s in (topic,) if s is not None]
        stale = stale or any(_states(text, value) for s in gone for value, _ in _facts(s) for text in _between(out[-1]))
    return out, stale


def _rewritten(turn: Turn, named: Sequence[Swap | None], unlinked: Sequence[Swap], topic: Swap | None) -> Turn:
    pieces: list[str] = []
    mentions: list[Mention] = []
    length = at = 0

    def write(text: str) -> None:
        nonlocal length
        pieces.append(text)
        length += len(text)

    for mention, swap in zip(turn.items, named, strict=True):
        write(_reworded(turn.text[at : mention.start], unlinked, topic))
        title = turn.text[mention.start : mention.end]
        new = title if swap is None else _as_written(swap.new.title, title)
        item_id = mention.item_id if swap is None else swap.new.item_id or None
        mentions.append(Mention(start=length, end=length + len(new), item_id=item_id))
        write(new)
        at = mention.end
    write(_reworded(turn.text[at:], unlinked, topic))
    text = "".join(pieces)
    return turn if text == turn.text else turn.model_copy(update={"text": text, "items": tuple(mentions), "raw": ()})


def _named(turn: Turn) -> Iterator[tuple[str, Mention]]:
    return zip(turn.titles, turn.items, strict=True)


def _between(turn: Turn) -> Iterator[str]:
    """The text outside of the titles."""
    at = 0
    for mention in turn.items:
        yield turn.text[at : mention.start]
        at = mention.end
    yield turn.text[at:]


def _as_written(label: str, before: str) -> str:
    """The new title with a year only where the old one was written with it."""
    return label if split_year(before)[1] is not None else split_year(label)[0]


def _reworded(text: str, unlinked: Sequence[Swap], topic: Swap | None) -> str:
    # Titles leave their place first, so that two can change places and no fact is looked for inside a title.
    for n, swap in enumerate(unlinked):
        text = remove_title(text, swap.old.title, _PLACE.format(n))
    facts = {value.casefold(): new for value, new in _facts(topic) if new is not None} if topic is not None else {}
    if facts:
        text = _pattern(tuple(facts)).sub(lambda m: _like(m.group(), facts[m.group().casefold()]), text)
        # Two facts that became one: "a crime thriller" of a drama.
        text = _pattern(tuple(dict.fromkeys(facts.values())), repeated=True).sub(r"\1", text)
    for n, swap in enumerate(unlinked):
        text = text.replace(_PLACE.format(n), split_year(swap.new.title)[0])
    return text


def _facts(swap: Swap) -> Iterator[tuple[str, str | None]]:
    """Every fact that only the old item has, and what of the same kind is to be said in its place; None for nothing."""
    old, new = swap.old_item, swap.new_item
    if old is None:
        return
    theirs = {} if new is None else dict(new.attributes) | _time(new)
    new_keys = {attribute_key(v) for values in theirs.values() for v in values}
    for kind, values in (dict(old.attributes) | _time(old)).items():
        gone = [v for v in values if attribute_key(v) not in new_keys]
        fresh = [v for v in theirs.get(kind, ()) if v not in values] or list(theirs.get(kind, ()))
        for n, value in enumerate(gone):
            yield value, fresh[n % len(fresh)] if fresh else None


def _time(item: Item) -> dict[str, tuple[str, ...]]:
    if item.year is None:
        return {}
    return {"year": (str(item.year),), "decade": (f"{item.year // 10 * 10}s",)}


@lru_cache(maxsize=20_000)
def _pattern(values: tuple[str, ...], *, repeated: bool = False) -> re.Pattern[str]:
    """Any of some values as whole words; or one of them said twice in a row."""
    longest_first = "|".join(map(re.escape, sorted(values, key=len, reverse=True)))
    body = rf"({longest_first})(?:(?:,| and|, and)? \1)+" if repeated else longest_first
    return re.compile(rf"(?<!\w)(?:{body})(?!\w)", re.IGNORECASE)


def _states(text: str, value: str) -> bool:
    return _pattern((value,)).search(text) is not None


def _like(before: str, after: str) -> str:
    """The new value with a capital where the old one had one."""
    return after[:1].upper() + after[1:] if before[:1].isupper() else after


# ---- playing ---------------------------------------------------------------------------------------------------------


async def replay_controls(
    pairs: Sequence[Pair],
    controlled: Sequence[Controlled],
    user_agent: Agent,
    *,
    seed: int,
    history: History = "own",
    concurrency: int = CONCURRENCY,
    on_progress: Progress | None = None,
) -> list[Played]:
    """Replay the conversations under every control, one control after the other, on the same random numbers.

    Args:
        pairs: the conversations as they are.
        controlled: of `controlled_pairs`, from them.
        user_agent: the simulator.
        seed: see `replay`, as the rest.
        history: see there.
        concurrency: see there.
        on_progress: called with (finished, total) over all controls.
    """
    total = sum(isinstance(pair, tuple) for c in controlled for pair in c.pairs)
    before = 0
    out = []
    for c in controlled:
        able = [pair for pair in c.pairs if not isinstance(pair, str)]
        # A user that is told its target goes on looking for that one, whatever stands in for it.
        told = [s for (s, _), pair in zip(pairs, c.pairs, strict=True) if not isinstance(pair, str)]

        def report(done: int, _: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        dialogues, played = await replay(
            able,
            user_agent,
            seed=seed,
            condition=c.control.value,
            history=history,
            concurrency=concurrency,
            on_progress=report,
            shown=told if c.control in STAND_INS else None,
        )
        before += len(able)
        rest = iter(played)
        outcomes = [ReplayOutcome("", None, skipped=pair) if isinstance(pair, str) else next(rest) for pair in c.pairs]
        logs = tuple(None if isinstance(pair, str) else pair for pair in c.pairs)
        out.append(Played(c, tuple(dialogues), tuple(outcomes), logs))
    return out
