"""What a recommender may have beside its backbone: a knowledge slot (a ranker) and a guidance slot (a policy), each optional.

Advice for a turn is made of the View alone: of the turns already spoken and, where it is shown, of the persona. Everything
named so far and everything the View says the user knows is left out of the candidates. Contexts are ranked one at a time, so
that no conversation depends on which others are under way.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from interplay.simulation.guidance import Guidance
from interplay.simulation.reasoning import Reasoner
from interplay.types import Action, Advice, Catalog, Role, Turn, View, derive_seed

NUM_CANDIDATES = 10
"""Candidates per turn, unless a trained model's card says otherwise."""


class Retriever(Protocol):
    """A ranker of a catalog's items (`items.ranker.ItemRanker`)."""

    def top(
        self, contexts: Sequence[Sequence[Turn]], k: int, *, excluded: Sequence[Collection[str]] | None = None
    ) -> list[list[str]]:
        """Ids of the k best items not named in the context and not excluded, best first, for each context."""
        ...

    def top_held_out(
        self, contexts: Sequence[Sequence[Turn]], k: int, *, excluded: Sequence[Collection[str]] | None = None
    ) -> tuple[list[list[str]], int]:
        """The same as if the ranker had not seen the conversations; and how many of the contexts it was trained on."""
        ...


@dataclass(slots=True, frozen=True)
class Knowledge:
    """Finds candidates for the next turn."""

    ranker: Retriever
    catalog: Catalog
    """What the ids mean."""
    num_candidates: int = NUM_CANDIDATES
    reasoner: Reasoner | None = None
    """For a recommender that reasons: what is shown beside candidates, and what stands before turns that it has not spoken."""

    def advice(self, view: View, number: int, action: Action | None = None) -> Advice:
        """Advice for turn `number`, the one after those of the View."""
        return self._advice(number, self.candidates(view), action)

    def candidates(self, view: View) -> tuple[str, ...]:
        """Titles for the turn after those of the View, best first."""
        return self._titles(self.ranker.top([view.turns], self.num_candidates, excluded=[_known(view)])[0])

    def logged_advice(self, views: Sequence[View]) -> tuple[list[tuple[Advice, ...]], int, int]:
        """Candidates for every recommender turn of logged conversations, as if the ranker had not seen the conversations.

        Args:
            views: of the recommender, with all turns.

        Returns:
            The advice of each; the turns advised; and how many of those are of conversations that the ranker was trained on.
        """
        places = [
            (n, index) for n, view in enumerate(views) for index, turn in enumerate(view.turns) if turn.role is Role.RECOMMENDER
        ]
        contexts = [views[n].turns[:index] for n, index in places]
        excluded = [_known(views[n]) for n, _ in places]
        found, num_seen = self.ranker.top_held_out(contexts, self.num_candidates, excluded=excluded)
        out: list[tuple[Advice, ...]] = [()] * len(views)
        for (n, index), ids in zip(places, found, strict=True):
            out[n] = (*out[n], self._advice(index, self._titles(ids)))
        return out, len(places), num_seen

    def _advice(self, number: int, titles: tuple[str, ...], action: Action | None = None) -> Advice:
        return Advice(number, titles, action, () if self.reasoner is None else self.reasoner.attributes(titles))

    def _titles(self, ids: Sequence[str]) -> tuple[str, ...]:
        # Two items may be written alike; a model could not tell them apart.
        return tuple(dict.fromkeys(self.catalog[i].label for i in ids))


@dataclass(slots=True, frozen=True)
class Slots:
    """The slots of one recommender."""

    knowledge: Knowledge | None = None
    in_view: bool = False
    """The candidates are shown to the model."""
    only_candidates: bool = False
    """Nothing but the candidates of a turn can be named in it."""
    guidance: Guidance | None = None
    only_first: bool = False
    """A recommender that reasons can name nothing but the first title of the list it has just written."""

    def advise_past(self, view: View) -> View:
        """The View with candidates before those of its own turns that have none yet, where the model is shown candidates.

        A model has seen candidates before each of its turns in training, and its own reasoning where it reasons; turns of a
        log come without.
        """
        if not self.in_view:
            return view
        advised = {a.turn for a in view.advice}
        missing = [n for n, turn in enumerate(view.turns) if turn.role is view.role and n not in advised]
        found = [self._advice(replace(view, turns=view.turns[:n]), n) for n in missing]
        advice = tuple(sorted((*view.advice, *found), key=lambda a: a.turn))
        reasoner = None if self.knowledge is None else self.knowledge.reasoner
        turns = view.turns if reasoner is None else reasoner.fill(view.turns, view.role, advice)
        return replace(view, advice=advice, turns=turns)

    def advise(self, view: View, seed: int) -> Advice:
        """Advice for the turn after those of the View.

        Args:
            view: the recommender's.
            seed: of the conversation.
        """
        number = len(view.turns)
        action = None if self.guidance is None else self.guidance.action(view, derive_seed(seed, "guidance", number))
        return self._advice(view, number, action)

    def shown(self, advice: Advice) -> Advice:
        """What the model's View gets of the advice."""
        return advice if self.in_view else replace(advice, candidates=(), attributes=())

    def _advice(self, view: View, number: int, action: Action | None = None) -> Advice:
        return Advice(number, (), action) if self.knowledge is None else self.knowledge.advice(view, number, action)


def _known(view: View) -> set[str]:
    return {k.item_id for k in view.known_items if k.item_id is not None}
