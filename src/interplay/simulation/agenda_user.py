"""The agenda-based user: a stack of acts that are due, and rules that put new ones on top when the other side speaks.

A goal is a set of facets. Everything the user does follows from its View, the turns so far and the seed; what it knows
of a conversation is derived from the turns, so a Speaker begun in the middle goes on as if it had spoken from the start.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from interplay.simulation import phrases
from interplay.simulation.facets import KINDS, OTHER, Facet, FacetIndex, asked_kind
from interplay.simulation.wording import join, load_wording, make_turn, plainly, tidy, with_typos
from interplay.titles import title_key
from interplay.types import Action, Catalog, Item, Mention, Role, Turn, View

_POLITE = re.compile(r"please|thank|thanks|appreciate|sorry", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class AgendaRates:
    """How often the user does what. All are probabilities in [0, 1] unless said otherwise.

    Reference, measured on real users' turns (ReDial validation / INSPIRED dev / CRSArena-Dial closed): 10.3 / 12.1 / 7.9
    words per turn; 16.0 / 12.3 / 16.9 % of turns have three words or fewer; 17.7 / 15.1 / 13.0 % are polite.
    """

    short: float = 0.19
    """An act is said in its short form, where it has one; gives about 16 % turns of three words or fewer (ReDial)."""
    polite: float = 0.03
    """A polite word is added to a turn that has none; with those in the phrasings about 15 % of turns are polite (INSPIRED)."""
    plain_typing: float = 0.25
    """Users without capitals and full stops (ours)."""
    slips: float = 0.2
    """Users who make typing errors (ours)."""
    slip_per_word: float = 0.04
    """Typing errors of such a user per word of four letters or more (ours)."""
    ask: float = 0.15
    """A proposal is asked about before it is judged (ours)."""
    chat: float = 0.11
    """Small talk where a wish is due; about 5 % of all turns (ours)."""
    genre_first: float = 0.9
    """The genre is the first wish that is told; otherwise any is (ours)."""
    change_mind: float = 0.075
    """A rejection is taken as the occasion to change one wish, at most once; about 6 % of conversations (ours)."""
    tail: float = 0.25
    """A wish, a rejection or an accept is followed by one more sentence; brings words per turn to about 8 (CRSArena-Dial)."""
    name_known: float = 0.0
    """A wish is said together with a known item that was liked (ours). Off: a tiny model does not learn to spell titles from
    the few that users would say, and breaks off inside them."""
    name_accepted: float = 0.0
    """An accept names the item (ours). Off for the same reason."""
    patience: tuple[int, ...] = (2, 2, 3, 3, 4)
    """Proposals until the user gives up, drawn with equal weight per entry; about 17 % of conversations end so (ours). Few: a
    model learns when to give up only where the corpus shows it often, and otherwise talks to the turn limit."""
    max_turns: int = 9
    """Own turns until the user gives up whatever was proposed (ours)."""
    several: float = 0.0
    """A wish is told with small talk before it, and a rejection comes with a question about what is rejected. Off, as the next
    two: plain talk is what a tiny model learns in minutes, and what earlier figures are of. See docs/holistic.md."""
    small_talk: float = 0.0
    """Conversations that the user begins with small talk and no wish."""
    off_topic: float = 0.0
    """Turns, once a wish is told, in which small talk takes the place of what is due, which is said in the turn after."""


@dataclass(slots=True, frozen=True)
class _Act:
    """Something that is due."""

    kind: Literal["greet", "disclose", "answer", "judge"]
    facet: Facet | None = None
    """disclose: what is to be told."""
    asked: str | None = None
    """answer: the kind asked for; None when anything was."""
    offered: tuple[tuple[Mention, str], ...] = ()
    """judge: the proposals, each with its title as written."""
    questioned: bool = False
    """judge: whether the user has asked about it."""


class AgendaUser:
    """The agenda-based user as an Agent.

    It accepts a proposal if and only if the catalog's facts about it satisfy all target attributes of the View and it is
    not one of the known items. Target attributes that are no values of the catalog are told, but nothing is judged by them.

    Args:
        catalog: where facts about items are looked up.
        rates: how often it does what.
        name: written into the Dialogue.
    """

    role = Role.USER

    def __init__(self, catalog: Catalog, rates: AgendaRates | None = None, name: str = "agenda") -> None:
        self.name = name
        self._index = FacetIndex(catalog)
        self._rates = rates or AgendaRates()

    def begin(self, view: View, seed: int, session: str) -> "AgendaUserSpeaker":
        """A Speaker that has heard and said what `view.turns` hold."""
        return AgendaUserSpeaker(self._index, self._rates, view, seed)


class AgendaUserSpeaker:
    """One conversation's side of the agenda-based user."""

    def __init__(self, index: FacetIndex, rates: AgendaRates, view: View, seed: int) -> None:
        self._index = index
        self._rates = rates
        self._seed = seed
        self._known = view.known_items
        self._known_keys = {title_key(k.title) for k in view.known_items}
        style = random.Random(f"{seed}|style|{self.role}")
        self._plain = style.random() < rates.plain_typing
        self._slips = style.random() < rates.slips
        self._patience = style.choice(rates.patience)
        self._goals = list(dict.fromkeys(index.facet(a) for a in view.target_attributes))
        order = style.sample(self._goals, len(self._goals))
        if style.random() < rates.genre_first:
            order.sort(key=lambda goal: goal.kind != "genre")
        # A genre is what most people begin with.
        order.sort(key=lambda f: f.kind != "genre" and style.random() < 0.6)
        self._agenda = [_Act("disclose", facet=f) for f in reversed(order)] + [_Act("greet")]
        self._turns: list[Turn] = []
        self._rejected: set[str] = set()
        self._num_offers = 0
        self._changed = False
        for turn in view.turns:
            if turn.role is self.role:
                self._said(turn)
            else:
                self.hear(turn)

    role = Role.USER

    @property
    def has_changed_its_mind(self) -> bool:
        """Whether one of the wishes is no longer the View's."""
        return self._changed

    @property
    def goals(self) -> tuple[Facet, ...]:
        """The wishes that proposals are judged by at this moment."""
        return tuple(self._goals)

    def end(self) -> None:
        """Holds nothing."""

    def hear(self, turn: Turn) -> None:
        """Take in a recommender's turn: what it calls for is put on top of the agenda."""
        self._turns.append(turn)
        judging = bool(self._agenda) and self._agenda[-1].kind == "judge"
        if judging and (turn.action is Action.ANSWER or (turn.action is Action.CHAT and self._is_off_topic)):
            return
        self._agenda = [act for act in self._agenda if act.kind in ("greet", "disclose")]
        if turn.action is Action.RECOMMEND and turn.items:
            self._num_offers += 1
            self._agenda.append(_Act("judge", offered=tuple(zip(turn.items, turn.titles, strict=True))))
        elif turn.action is Action.INQUIRE or "?" in turn.text:
            self._agenda.append(_Act("answer", asked=asked_kind(turn.text)))

    async def speak(self) -> Turn:
        """What is on top of the agenda, in words."""
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
        """Bring agenda and goals up to what was said in an own turn."""
        top = self._agenda[-1] if self._agenda else None
        heard = self._index.read(turn.text, turn.items, asked=top.asked if top else None)
        self._turns.append(turn)
        if turn.action is Action.FEEDBACK and not self._changed:
            for new in heard.wants:
                old = next((g for g in self._goals if g.kind == new.kind and g.kind in ("genre", "decade", "mood")), None)
                if old is not None and new not in self._goals:
                    self._goals[self._goals.index(old)] = new
                    self._changed = True
                    self._agenda = [act for act in self._agenda if act.facet != old]
                    break
        if top is not None and top.kind == "judge" and turn.action is Action.INQUIRE:
            self._agenda[-1] = replace(top, questioned=True)
        elif top is not None and top.kind == "judge" and turn.action is Action.CHAT:
            pass  # the verdict is still due
        elif top is not None and top.kind != "disclose":
            if top.kind == "judge":
                self._rejected.update(title_key(title) for _, title in top.offered)
            self._agenda = [act for act in self._agenda if act != top]
        self._agenda = [act for act in self._agenda if act.kind not in ("greet",) and act.facet not in heard.wants]

    @property
    def _untold(self) -> list[Facet]:
        return [act.facet for act in reversed(self._agenda) if act.facet is not None]

    @property
    def _is_off_topic(self) -> bool:
        """Whether the last own turn was small talk in the place of what is due."""
        own = [turn for turn in self._turns if turn.role is self.role]
        return self._rates.off_topic > 0 and len(own) > 1 and own[-1].action is Action.CHAT

    def _next(self, rng: random.Random) -> Turn:
        """What is due, or small talk in its place."""
        words = load_wording("user")
        num_own = sum(t.role is self.role for t in self._turns)
        if not num_own and self._draw("small talk", self._rates.small_talk):
            before = words.pick(rng, "greet.before")
            return self._turn(rng, Action.CHAT, join(before, words.pick(rng, "chat.any")))
        told = any(t.action is Action.DISCLOSE_GOAL for t in self._turns)
        chatted = any(t.role is self.role and t.action is Action.CHAT for t in self._turns[-4:])
        if told and not chatted and num_own + 2 < self._rates.max_turns and self._draw("off topic", self._rates.off_topic):
            return self._turn(rng, Action.CHAT, words.pick(rng, "chat.any"))
        return self._due(rng)

    def _draw(self, what: str, rate: float) -> bool:
        """A draw of its own, so that a rate of 0 leaves all others as they are."""
        return rate > 0 and random.Random(f"{self._seed}|{len(self._turns)}|{what}").random() < rate

    def _due(self, rng: random.Random) -> Turn:
        num_own = sum(t.role is self.role for t in self._turns)
        tired = num_own + 1 >= self._rates.max_turns
        top = self._agenda[-1] if self._agenda else _Act("answer")
        if top.kind == "judge":
            return self._judge(top, rng, tired)
        if tired:
            return self._turn(rng, Action.GIVE_UP, self._pick(rng, "giveup"))
        chatted = any(t.role is self.role and t.action is Action.CHAT for t in self._turns[-2:])
        if not chatted and rng.random() < self._rates.chat:
            words = load_wording("user")
            before = "" if num_own else words.pick(rng, "greet.before")
            return self._turn(rng, Action.CHAT, join(before, words.pick(rng, "chat.any")))
        if top.kind == "greet":
            return self._greet(rng, asked=None)
        if top.kind == "answer" and not num_own:
            return self._greet(rng, asked="open")
        if top.kind == "answer":
            return self._answer(rng, top.asked)
        return self._disclose(rng, "disclose.full", "disclose.short")

    def _greet(self, rng: random.Random, asked: str | None) -> Turn:
        words = load_wording("user")
        if not self._untold or (asked is None and rng.random() < 0.4):
            return self._turn(rng, Action.GREETING, words.pick(rng, "greet.only"))
        before = words.pick(rng, "greet.before") if rng.random() < 0.6 else ""
        return self._disclose(rng, "disclose.full", "disclose.short", before)

    def _answer(self, rng: random.Random, asked: str | None) -> Turn:
        words = load_wording("user")
        wanted = [g for g in self._goals if g.kind == asked]
        if asked is None:
            if self._untold:
                return self._disclose(rng, "answer.full", "answer.short")
            return self._turn(rng, Action.DISCLOSE_GOAL, words.pick(rng, "answer.nothing_more"))
        if wanted:
            also = [f for f in self._untold if f not in wanted][: rng.random() < 0.35]
            return self._tell(rng, [*wanted, *also], "answer.full", "answer.short")
        if self._untold and rng.random() < 0.4:
            text = words.pick(rng, "answer.open_but", np=phrases.wish(self._untold[:1], rng))
        else:
            text = words.pick(rng, "answer.open_short" if rng.random() < self._rates.short else "answer.open")
        return self._turn(rng, Action.DISCLOSE_GOAL, text)

    def _disclose(self, rng: random.Random, full: str, short: str, before: str = "") -> Turn:
        """Tell the next one or two wishes."""
        untold = self._untold or self._goals
        if not untold:
            return self._turn(rng, Action.DISCLOSE_GOAL, load_wording("user").pick(rng, "answer.nothing_more"))
        told = untold[: 1 + (rng.random() < 0.6)]
        if full == "disclose.full" and len(untold) < len(self._goals):
            full = "disclose.also"
        return self._tell(rng, told, full, short, before)

    def _tell(self, rng: random.Random, told: Sequence[Facet], full: str, short: str, before: str = "") -> Turn:
        words = load_wording("user")
        np = phrases.wish(told, rng)
        liked = [k for k in self._known if k.item_id is not None]
        if full == "disclose.full" and liked and rng.random() < self._rates.name_known:
            known = rng.choice(liked)
            text = join(before, words.pick(rng, "disclose.known", np=np))
            mention = Mention(start=0, end=1, item_id=known.item_id)
            return self._turn(rng, Action.DISCLOSE_GOAL, text, [mention], [known.title])
        if rng.random() < self._rates.short and not before and told[0].kind in ("genre", "decade", "mood", "theme"):
            want = phrases.value_as_said(told[0], rng) if told[0].kind != "theme" else phrases.about([told[0].value])
            text = words.pick(rng, short, np=phrases.wish(told[:1], rng), want=want)
        else:
            text = self._with_tail(rng, join(before, words.pick(rng, full, np=np)), "disclose")
            if not self._is_off_topic and self._draw("several", self._rates.several):
                return self._turn(rng, Action.DISCLOSE_GOAL, f"{words.pick(rng, 'chat.any')} {text}", acts=[Action.CHAT])
        return self._turn(rng, Action.DISCLOSE_GOAL, text)

    def _judge(self, act: _Act, rng: random.Random, tired: bool) -> Turn:
        words = load_wording("user")
        offered = [(mention, title, self._item(mention, title)) for mention, title in act.offered]
        fitting = [(m, t) for m, t, item in offered if item is not None and self._accepts(item)]
        mention, title, item = offered[-1]
        fresh = item is not None and not self._knows(item) and title_key(title) not in self._rejected
        if not act.questioned and not tired and fresh and rng.random() < self._rates.ask:
            return self._ask(rng)
        if fitting:
            mention, title = fitting[0]
            if len(offered) > 1 or rng.random() < self._rates.name_accepted:
                text = self._with_tail(rng, words.pick(rng, "accept.named"), "accept")
                return self._turn(rng, Action.ACCEPT, text, [mention], [title])
            if act.questioned and rng.random() < 0.6:
                return self._turn(rng, Action.ACCEPT, words.pick(rng, "accept.after_question"))
            text = self._pick(rng, "accept")
            return self._turn(rng, Action.ACCEPT, self._with_tail(rng, text, "accept") if text[-1] in ".!" else text)
        if tired or self._num_offers >= self._patience:
            return self._turn(rng, Action.GIVE_UP, self._pick(rng, "giveup"))
        criticism = self._criticism(rng, title, item)
        if fresh and not act.questioned and self._draw("several", self._rates.several):
            question = self._question(rng)
            return self._turn(rng, Action.FEEDBACK, f"{question} {criticism}", acts=[Action.INQUIRE])
        return self._turn(rng, Action.FEEDBACK, criticism)

    def _accepts(self, item: Item) -> bool:
        return not self._knows(item) and all(self._index.has(item, goal) for goal in self._goals)

    def _knows(self, item: Item) -> bool:
        return title_key(item.title) in self._known_keys

    def _item(self, mention: Mention, title: str) -> Item | None:
        return self._index.catalog.get(mention.item_id) or self._index.catalog.find(title)

    def _ask(self, rng: random.Random) -> Turn:
        words = load_wording("user")
        before = words.pick(rng, "ask.before") if rng.random() < 0.4 else ""
        return self._turn(rng, Action.INQUIRE, join(before, self._question(rng)))

    def _question(self, rng: random.Random) -> str:
        """About what was proposed, and not told with it."""
        heard = self._turns[-1].text
        told = self._index.read(heard).wants
        kinds = ["plot", "good"]
        if not any(f.kind in ("director", "cast") for f in told):
            kinds += ["director", "cast"]
        return load_wording("user").pick(rng, f"ask.{rng.choice(kinds)}")

    def _criticism(self, rng: random.Random, title: str, item: Item | None) -> str:
        """Why a proposal is rejected: one reason."""
        words = load_wording("user")
        short = rng.random() < self._rates.short
        if item is None:
            return words.pick(rng, "reject.unknown")
        if self._knows(item):
            return words.pick(rng, "reject.seen_short" if short else "reject.seen")
        if title_key(title) in self._rejected:
            return words.pick(rng, "reject.again")
        if not self._changed and rng.random() < self._rates.change_mind:
            new = self._other_wish(rng)
            if new is not None:
                return words.pick(rng, "reject.change", np=phrases.wish([new], rng))
        if short and rng.random() < 0.45:
            return words.pick(rng, "reject.short")
        violated = [g for g in self._goals if not self._index.has(item, g)]
        if not violated:
            return words.pick(rng, "reject.plain")
        # What has not been told yet is the better reason to give.
        untold = [g for g in violated if g in self._untold]
        goal = rng.choice(untold or violated)
        key, has = self._reason(rng, goal, item)
        slots = {"np": phrases.wish([goal], rng), "want": _want(goal, rng), "has": has}
        if short and words.get(f"reject.{key}_short"):
            return words.pick(rng, f"reject.{key}_short", **slots)
        satisfied = [g for g in self._goals if self._index.has(item, g) and g.kind not in (OTHER, "director", "cast")]
        if satisfied and rng.random() < 0.3:
            before = words.pick(rng, "reject.liked", as_is=phrases.as_is(rng.choice(satisfied), rng))
        else:
            before = words.pick(rng, "reject.before") if rng.random() < 0.5 else ""
        return self._with_tail(rng, join(before, words.pick(rng, f"reject.{key}", **slots)), "reject")

    def _reason(self, rng: random.Random, goal: Facet, item: Item) -> tuple[str, str]:
        """The wording key for a violated goal, and what the item has instead."""
        others = [v for v in item.attributes.get(goal.kind, ()) if Facet(goal.kind, v) not in self._goals]
        if goal.kind == "decade" and others:
            return ("decade_old" if others[0] < goal.value else "decade_new"), others[0]
        if goal.kind in ("genre", "mood") and others:
            return goal.kind, rng.choice(others)
        if goal.kind in ("director", "cast"):
            return "person", ""
        return ("theme" if goal.kind == "theme" else "other"), ""

    def _other_wish(self, rng: random.Random) -> Facet | None:
        """A new value for one goal that at least one item has together with the other goals."""
        old = [g for g in self._goals if g.kind in ("genre", "decade", "mood")]
        if not old:
            return None
        goal = rng.choice(old)
        places = sorted(self._index.having(g for g in self._goals if g != goal and g.kind in KINDS))
        values = {v for i in places for v in self._index.items[i].attributes.get(goal.kind, ())} - {goal.value}
        return Facet(goal.kind, rng.choice(sorted(values))) if values else None

    def _with_tail(self, rng: random.Random, text: str, act: str) -> str:
        """`text`, now and then with one more sentence, of which none is a second question or thanks twice."""
        tail = load_wording("user").pick(rng, f"{act}.tail")
        if rng.random() >= self._rates.tail or ("?" in text and "?" in tail) or (_POLITE.search(text) and _POLITE.search(tail)):
            return text
        return f"{text if text[-1] in '.!?' else text + '.'} {tail}"

    def _pick(self, rng: random.Random, act: str) -> str:
        return load_wording("user").pick(rng, f"{act}.short" if rng.random() < self._rates.short else f"{act}.full")

    def _turn(
        self,
        rng: random.Random,
        action: Action,
        text: str,
        items: Sequence[Mention] = (),
        titles: Sequence[str] = (),
        acts: Sequence[Action] = (),
    ) -> Turn:
        """The act in this user's way of typing."""
        words = load_wording("user")
        text = text.strip()
        if self._is_off_topic and action is not Action.CHAT:
            text = join(words.pick(rng, "chat.back"), text)
        if rng.random() < self._rates.polite and not _POLITE.search(text):
            if action in (Action.FEEDBACK, Action.GIVE_UP):
                text = join(words.pick(rng, "polite.before"), text)
            elif action in (Action.DISCLOSE_GOAL, Action.ACCEPT):
                text = f"{text.rstrip('.!')} {words.pick(rng, 'polite.after')}" if not text.endswith("?") else text
        text = tidy(text, capitals=len(text.split()) > 3 or rng.random() < 0.5)
        if self._slips:
            text = with_typos(text, rng, self._rates.slip_per_word, self._index.careful)
        if self._plain:
            text = plainly(text, rng)
        return make_turn(self.role, action, text, items, titles, acts)


def _want(goal: Facet, rng: random.Random) -> str:
    return phrases.theme(goal.value) if goal.kind == "theme" else phrases.value_as_said(goal, rng)
