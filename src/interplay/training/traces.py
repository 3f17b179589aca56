"""The reasoning that a recommender learns to write: made by rules for every turn, or written by a language model.

The gold items of a turn are the titles that the log's recommender names in it. A trace's list begins with them where they are
candidates. Where none is, and where the turn names none, there is nothing to rank for: the list is by score and is not
learned (`TokenFormat.render`, `unranked`), since learning it would teach the rules' order and not what people take.
`trace_writing` has a model write traces.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from interplay.simulation.reasoning import Reasoner
from interplay.types import Advice, Reasoning, View, content_hash, derive_seed

Outside = Literal["unlearned", "insert"]
"""What is done where no gold item is a candidate: leave the list unlearned, or put one in the place of a candidate."""


@dataclass(slots=True)
class TraceCounts:
    """What the traces are made of."""

    traces: int = 0
    gold_first: int = 0
    """Lists that begin with a gold item; only these are learned."""
    gold_outside: int = 0
    """Turns whose gold items are no candidates. With `insert` one has been made one, and the list is learned."""
    no_gold: int = 0
    """Turns that name no title of the catalog."""
    written: int = 0
    """Traces that a language model wrote."""


@dataclass(slots=True, frozen=True)
class Traces:
    """Puts reasoning before a recommender's logged turns.

    Args:
        reasoner: the rules.
        outside: see `Outside`.
        distractors: share of the candidates that are no gold items and are replaced by items drawn from the catalog.
        seed: of where a gold item is inserted, and of what is replaced.
        written: a model's traces by `trace_key`; turns without one get the rules'.
        counts: are added to.
    """

    reasoner: Reasoner
    outside: Outside = "unlearned"
    distractors: float = 0.0
    seed: int = 0
    written: Mapping[str, Reasoning] = field(default_factory=dict)
    counts: TraceCounts = field(default_factory=TraceCounts)

    def label(self, view: View) -> tuple[View, frozenset[int]]:
        """The View with reasoning before its role's turns, and the turns whose list is not to be learned.

        Args:
            view: of a recommender, with advice for each of its turns.
        """
        advice = {a.turn: self.candidates(view, a) for a in view.advice}
        turns = list(self.reasoner.fill(view.turns, view.role, tuple(advice.values())))
        unranked: set[int] = set()
        for place, own in advice.items():
            if place >= len(turns) or turns[place].reasoning is None:
                continue
            self.counts.traces += 1
            gold = self.gold(view, place)
            if not set(gold) & set(own.candidates):
                unranked.add(place)
            else:
                self.counts.gold_first += 1
            self.counts.no_gold += not gold
            self.counts.gold_outside += bool(gold) and not set(gold) & set(self._found(view, place))
            if self.written and (trace := self.written.get(trace_key(view, own, gold))) is not None:
                turns[place] = turns[place].model_copy(update={"reasoning": trace})
                self.counts.written += 1
        return replace(view, turns=tuple(turns), advice=tuple(advice.values())), frozenset(unranked)

    def gold(self, view: View, place: int) -> tuple[str, ...]:
        """The titles of the catalog that a turn names, as candidates are written."""
        turn = view.turns[place]
        labels = zip(self.reasoner.labels(turn), turn.items, strict=True)
        return tuple(dict.fromkeys(label for label, mention in labels if mention.item_id in self.reasoner.catalog))

    def candidates(self, view: View, advice: Advice) -> Advice:
        """The advice as it is trained on.

        With `distractors` some candidates are replaced by items drawn from the catalog; with `insert`, where no gold item is
        among the candidates, one of these by a gold item.
        """
        gold = self.gold(view, advice.turn)
        titles = list(advice.candidates)
        rng = random.Random(derive_seed(self.seed, "candidates", trace_key(view, advice, gold)))
        named = {title for turn in view.turns[: advice.turn] for title in self.reasoner.labels(turn)}
        if self.distractors:
            drawn = (title for title in rng.choices(self.reasoner.labels_of_catalog, k=4 * len(titles)) if title not in named)
            for place, title in enumerate(titles):
                other = next(drawn, title)
                if title not in gold and rng.random() < self.distractors and other not in titles:
                    titles[place] = other
        new = [title for title in gold if title not in named]
        if self.outside == "insert" and new and titles and not set(gold) & set(titles):
            titles[rng.randrange(len(titles))] = new[0]
        if titles == list(advice.candidates):
            return advice
        return replace(advice, candidates=tuple(titles), attributes=self.reasoner.attributes(titles))

    @staticmethod
    def _found(view: View, place: int) -> tuple[str, ...]:
        return next((a.candidates for a in view.advice if a.turn == place), ())


def trace_key(view: View, advice: Advice, gold: tuple[str, ...]) -> str:
    """Identifies a trace: the turns before it, the candidates and the gold items."""
    said = [[turn.role.value, turn.text] for turn in view.turns[: advice.turn]]
    return content_hash([said, list(advice.candidates), list(gold)])
