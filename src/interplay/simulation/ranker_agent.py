"""A recommender that is nothing but a ranker: each turn it names the best item that was not named yet, in one sentence.

It shows what ranking alone is worth in conversation, without a language model: it hears everything and explains nothing.
"""

from typing import Protocol

from interplay.types import Action, Catalog, Mention, Role, Turn, View

OPENING = "Hello! What kind of {noun} are you looking for?"
BEFORE, AFTER = "How about ", "?"
NOTHING_LEFT = "I have nothing else to suggest."


class TopItems(Protocol):
    """A ranker that gives the best items after each context (`items.ranker.ItemRanker`)."""

    def top(self, contexts: list[tuple[Turn, ...]], k: int) -> list[list[str]]:
        """Ids of the k best items not named in the context, best first, for each context."""
        ...


class RankerAgent:
    """Recommends by a ranker.

    Args:
        ranker: of the catalog's items.
        catalog: what the ids mean.
        name: written into the Dialogue.
    """

    role = Role.RECOMMENDER

    def __init__(self, ranker: TopItems, catalog: Catalog, name: str = "ranker") -> None:
        self.name = name
        self._ranker, self._catalog = ranker, catalog

    def begin(self, view: View, seed: int, session: str) -> "RankerSpeaker":
        """A Speaker that has heard the view's turns; nothing it does is random."""
        return RankerSpeaker(self._ranker, self._catalog, view)


class RankerSpeaker:
    """One conversation's side: the turns so far."""

    def __init__(self, ranker: TopItems, catalog: Catalog, view: View) -> None:
        self._ranker, self._catalog = ranker, catalog
        self._noun = view.domain.noun
        self._turns = list(view.turns)

    async def speak(self) -> Turn:
        """The opening when nothing was said yet, else the best item that nobody has named."""
        turn = self._next()
        self._turns.append(turn)
        return turn

    def _next(self) -> Turn:
        if not self._turns:
            return Turn(role=Role.RECOMMENDER, action=Action.INQUIRE, text=OPENING.format(noun=self._noun))
        best = self._ranker.top([tuple(self._turns)], 1)[0]
        if not best:
            return Turn(role=Role.RECOMMENDER, action=Action.CHAT, text=NOTHING_LEFT)
        label = self._catalog[best[0]].label
        mention = Mention(start=len(BEFORE), end=len(BEFORE) + len(label), item_id=best[0])
        text = f"{BEFORE}{label}{AFTER}"
        return Turn(role=Role.RECOMMENDER, action=Action.RECOMMEND, text=text, items=(mention,))

    def hear(self, turn: Turn) -> None:
        """What the other side said."""
        self._turns.append(turn)

    def end(self) -> None:
        """Holds nothing beyond the turns."""
