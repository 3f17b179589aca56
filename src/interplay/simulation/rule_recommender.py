"""The rule-based recommender: asks for a genre, a decade or a mood, and proposes catalog items that match what it heard.

It sees nothing but the conversation; preferences are read from the user's words by `facets.FacetIndex.read`. What it
knows is derived from the turns, so a Speaker begun in the middle goes on as if it had spoken from the start.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from interplay.simulation import phrases
from interplay.simulation.facets import Facet, FacetIndex, asked_fact, asked_kind
from interplay.simulation.wording import list_of, load_wording, make_turn, tidy
from interplay.types import Action, Catalog, Item, Role, Turn, View

_MAX_INQUIRIES = 3


@dataclass(slots=True, frozen=True)
class RuleRates:
    """How often the recommender does what; probabilities in [0, 1] unless said otherwise. All are ours."""

    ask_in_greeting: float = 0.4
    """The greeting ends with a question."""
    ignore: float = 0.25
    """One facet that was heard, but not the genre, is left out of account, so that the user has something to reject."""
    inattentive: float = 0.25
    """Conversations in which the recommender listens badly: it leaves out a facet three times as often."""
    inquiries: tuple[int, ...] = (0, 0, 0, 1, 1, 2)
    """Questions before the first proposal, drawn with equal weight per entry."""
    ask_again: float = 0.1
    """A rejection is answered by a question instead of a proposal."""
    tell_story: float = 0.3
    """What it is about is told with a proposal (always when the user has named a theme)."""
    tell_people: float = 0.2
    """Director and cast are told with a proposal (always when the user has named a person)."""
    chat: float = 0.5
    """Small talk is answered by small talk alone."""


class Choice(Protocol):
    """Something that overrules what the rules would recommend (`degraded.WrongChoice`)."""

    def instead_of(self, good: Item | None, own: Sequence[str], rng: random.Random) -> Item:
        """What is recommended in place of `good`, after the items with the ids `own`."""
        ...


class RuleRecommender:
    """The rule-based recommender as an Agent.

    Args:
        catalog: what it recommends from, with the attributes of `facets.KINDS`.
        rates: how often it does what.
        name: written into the Dialogue.
        choice: overrules what it recommends, not what it says of it.
    """

    role = Role.RECOMMENDER

    def __init__(
        self, catalog: Catalog, rates: RuleRates | None = None, name: str = "rules", choice: Choice | None = None
    ) -> None:
        self.name = name
        self._index = FacetIndex(catalog)
        self._rates = rates or RuleRates()
        self._choice = choice

    def begin(self, view: View, seed: int, session: str) -> "RuleRecommenderSpeaker":
        """A Speaker that has heard and said what `view.turns` hold. Nothing else of the View is read."""
        return RuleRecommenderSpeaker(self._index, self._rates, view, seed, self._choice)


class RuleRecommenderSpeaker:
    """One conversation's side of the rule-based recommender."""

    role = Role.RECOMMENDER

    def __init__(self, index: FacetIndex, rates: RuleRates, view: View, seed: int, choice: Choice | None = None) -> None:
        self._index = index
        self._rates = rates
        self._choice = choice
        self._seed = seed
        style = random.Random(f"{seed}|style|{self.role}")
        self._num_planned = style.choice(rates.inquiries)
        self._ignore = min(1.0, rates.ignore * 3) if style.random() < rates.inattentive else rates.ignore
        self._turns: list[Turn] = []
        self._wants: dict[str, list[Facet]] = {}
        self._dislikes: dict[Facet, None] = {}
        self._news: tuple[Facet, ...] = ()
        self._asked: dict[str, None] = {}
        self._num_inquiries = 0
        self._offered: dict[str, None] = {}
        self._years: tuple[int | None, int | None] = (None, None)
        for turn in view.turns:
            if turn.role is self.role:
                self._said(turn)
            else:
                self.hear(turn)

    @property
    def heard(self) -> tuple[Facet, ...]:
        """The facets that the user is believed to want."""
        return tuple(f for facets in self._wants.values() for f in facets)

    def end(self) -> None:
        """Holds nothing."""

    def hear(self, turn: Turn) -> None:
        """Take in a user's turn: what it says about facets and items."""
        previous = self._turns[-1] if self._turns else None
        asked = asked_kind(previous.text) if previous is not None and previous.action is Action.INQUIRE else None
        self._turns.append(turn)
        self._news = ()
        for mention in turn.items:
            if mention.item_id is not None:
                self._offered[mention.item_id] = None
        if turn.action in (Action.INQUIRE, Action.CHAT):
            return
        said = self._index.read(turn.text, turn.items, asked)
        self._news = said.wants
        for kind in {f.kind: None for f in said.wants}:
            self._wants[kind] = [f for f in said.wants if f.kind == kind]
        self._dislikes.update(dict.fromkeys(said.dislikes))
        for facet in said.wants:
            self._dislikes.pop(facet, None)
        for facet in said.dislikes:
            self._wants[facet.kind] = [f for f in self._wants.get(facet.kind, []) if f != facet]
        if "decade" in {f.kind for f in said.wants}:
            self._years = (None, None)
        elif (said.newer or said.older) and (last := self._last_offer()) is not None and last.year is not None:
            decade = last.year // 10 * 10
            self._years = (decade + 10, self._years[1]) if said.newer else (self._years[0], decade - 1)
            self._wants.pop("decade", None)

    async def speak(self) -> Turn:
        """The next turn."""
        rng = random.Random(f"{self._seed}|{len(self._turns)}|{self.role}")
        said = {t.text for t in self._turns if t.role is self.role}
        turn = self._next(rng)
        for _ in range(5):
            if turn.text not in said:
                break
            turn = self._next(rng)
        self._said(turn)
        return turn

    def _said(self, turn: Turn) -> None:
        self._turns.append(turn)
        if turn.action is Action.INQUIRE:
            self._num_inquiries += 1
            kind = asked_kind(turn.text)
            if kind is not None:
                self._asked[kind] = None
        if turn.action is Action.RECOMMEND:
            self._offered.update((m.item_id, None) for m in turn.items if m.item_id is not None)

    def _last_offer(self) -> Item | None:
        for turn in reversed(self._turns):
            if turn.role is self.role and turn.action is Action.RECOMMEND and turn.items:
                return self._index.catalog.get(turn.items[-1].item_id)
        return None

    def _next(self, rng: random.Random) -> Turn:
        words = load_wording("recommender")
        last = self._turns[-1] if self._turns else None
        if not any(t.role is self.role for t in self._turns) and last is None:
            kind = "question" if rng.random() < self._rates.ask_in_greeting else "plain"
            return make_turn(self.role, Action.GREETING, tidy(words.pick(rng, f"greet.{kind}")))
        offer = self._last_offer()
        if last is not None and last.action is Action.INQUIRE and offer is not None:
            return self._explain(rng, offer, last.text)
        if last is not None and offer is not None and Action.INQUIRE in last.acts:
            return self._answer_and_recommend(rng, offer, last)
        chatted = any(t.role is self.role and t.action is Action.CHAT for t in self._turns[-2:])
        # After an offer small talk puts the verdict off: it is still to come.
        is_open = len(self._turns) > 1 and self._turns[-2].action is Action.RECOMMEND
        if last is not None and last.action is Action.CHAT and not chatted and (is_open or rng.random() < self._rates.chat):
            return make_turn(self.role, Action.CHAT, tidy(words.pick(rng, "chat.reply")))
        if self._inquires(rng, offer is not None):
            return self._inquire(rng, last)
        return self._recommend(rng, last)

    def _answer_and_recommend(self, rng: random.Random, offer: Item, last: Turn) -> Turn:
        """The reply to a question that came with a rejection: a fact of what was rejected, then something else."""
        answer = self._explain(rng, offer, last.text, alone=False)
        verdict = re.sub(r"[^.!?]*\?", "", last.text)
        proposal = self._recommend(rng, last.model_copy(update={"text": verdict}))
        shift = len(answer.text) + 1
        items = tuple(m.model_copy(update={"start": m.start + shift, "end": m.end + shift}) for m in proposal.items)
        update = {"text": f"{answer.text} {proposal.text}", "items": items, "acts": (Action.ANSWER,)}
        return proposal.model_copy(update=update)

    def _inquires(self, rng: random.Random, has_offered: bool) -> bool:
        if self._num_inquiries >= _MAX_INQUIRIES:
            return False
        if not self.heard and not has_offered:
            return True
        if not self._missing():
            return False
        return rng.random() < self._rates.ask_again if has_offered else self._num_inquiries < self._num_planned

    def _missing(self) -> list[str]:
        return [k for k in ("genre", "decade", "mood", "theme") if not self._wants.get(k) and k not in self._asked]

    def _inquire(self, rng: random.Random, last: Turn | None) -> Turn:
        words = load_wording("recommender")
        missing = self._missing()
        if not self.heard and rng.random() < 0.35:
            key = "open"
        elif missing:
            weights = {"genre": 6, "decade": 3, "mood": 3, "theme": 1}
            key = rng.choices(missing, [weights[k] for k in missing])[0]
        else:
            key = "more"
        before = ""
        if self._news and rng.random() < 0.5:
            before = words.pick(rng, "ask.heard", np=phrases.wish(self._news, rng))
        elif last is not None and last.action is Action.GREETING and "?" in last.text:
            before = words.pick(rng, "chat.greeting")
        elif last is not None and last.action is Action.CHAT:
            before = words.pick(rng, "chat.reply") if rng.random() < 0.5 else ""
        elif rng.random() < 0.35:
            before = words.pick(rng, "ask.heard_plain")
        return make_turn(self.role, Action.INQUIRE, tidy(f"{before} {words.pick(rng, f'ask.{key}')}"))

    def _recommend(self, rng: random.Random, last: Turn | None) -> Turn:
        words = load_wording("recommender")
        heard = list(self.heard)
        neglected = [facet for facet in heard if facet.kind != "genre"]
        if neglected and rng.random() < self._ignore:
            heard.remove(rng.choice(neglected))
        item, exact = self._find(rng, heard)
        if self._choice is not None:
            offers = [t for t in self._turns if t.role is self.role and t.action is Action.RECOMMEND]
            own = [m.item_id for t in offers for m in t.items if m.item_id is not None]
            item = self._choice.instead_of(item, own, random.Random(f"{self._seed}|{len(own)}|choice"))
        text = last.text.casefold() if last is not None else ""
        if not exact:
            key = "closest"
        elif last is None or last.action is not Action.FEEDBACK:
            key = "first"
        elif any(cue in text for cue in ("seen", "saw", "watched", "know that", "i know")):
            key = "seen"
        else:
            key = "rejected"
        named = any(f.kind in ("director", "cast") for f in self.heard)
        told = phrases.facts(
            item,
            rng,
            with_story=any(f.kind == "theme" for f in self.heard) or rng.random() < self._rates.tell_story,
            with_people=named or rng.random() < self._rates.tell_people,
        )
        proposal = words.pick(rng, f"recommend.{rng.choice(('inline', 'inline', 'apart'))}", np=told)
        after = words.pick(rng, "recommend.after") if rng.random() < 0.25 and not proposal.endswith("?") else ""
        text = tidy(f"{words.pick(rng, f'before.{key}')} {proposal} {after}")
        return make_turn(self.role, Action.RECOMMEND, text, [item])

    def _find(self, rng: random.Random, heard: list[Facet]) -> tuple[Item, bool]:
        """An item that has the facets heard, and whether it has all; the closest ones where none has."""
        items = self._index.items
        fresh = [i for i in range(len(items)) if items[i].id not in self._offered] or list(range(len(items)))
        having = self._index.having(heard)
        pool = [i for i in fresh if i in having]
        exact = bool(pool)
        if not exact:
            places = [self._index.having([facet]) for facet in heard]
            num_had = [sum(i in having for having in places) for i in fresh]
            most = max(num_had)
            pool = [i for i, had in zip(fresh, num_had, strict=True) if had == most]
        faults = [self._faults(items[i]) for i in pool]
        fewest = min(faults)
        return items[rng.choice([i for i, fault in zip(pool, faults, strict=True) if fault == fewest])], exact

    def _faults(self, item: Item) -> int:
        after, before = self._years
        year = item.year if item.year is not None else (after or before or 0)
        wrong_time = (after is not None and year < after) or (before is not None and year > before)
        return 2 * wrong_time + sum(self._index.has(item, facet) for facet in self._dislikes)

    def _explain(self, rng: random.Random, item: Item, question: str, *, alone: bool = True) -> Turn:
        """An answer to a question about the last proposal, from its facts; nothing follows it unless it is `alone`."""
        words = load_wording("recommender")
        values = item.attributes
        slots = {
            "director": list_of(values["director"]) if values.get("director") else "",
            "cast": list_of(values["cast"]) if values.get("cast") else "",
            "about": phrases.about(values.get("theme", ())),
            "mood": list_of(values["mood"]) if values.get("mood") else "",
            "genre": list_of([phrases.plural(g) for g in values["genre"]]) if values.get("genre") else "",
            "year": str(item.year) if item.year is not None else "",
            "np": phrases.facts(item, rng, with_people=False),
        }
        fact = asked_fact(question) or "kind"
        needed = {"plot": ("about", "mood"), "good": ("genre", "mood"), "kind": ("np",)}.get(fact, (fact,))
        text = words.pick(rng, f"fact.{fact}" if all(slots[n] for n in needed) else "fact.unknown", **slots)
        after = words.pick(rng, "fact.after") if alone else ""
        return make_turn(self.role, Action.ANSWER, tidy(f"{text} {after}".strip()))
