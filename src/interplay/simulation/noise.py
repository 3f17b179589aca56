"""A user simulator whose feedback is wrong at a given rate: what is learned from it must hold up as the rate grows.

    noise:0.1:agenda        each verdict of the rules is turned round with probability 0.1
    noise:0.3:runs/user     the same of a trained user

A verdict is an accept, or feedback on a recommendation. Turned round, an accept becomes a rejection and the talk goes on; a
rejection becomes an accept, which ends it. Everything else, giving up among it, is left as it is. The words are those of the
wrapped model, asked for that action, where it can be held to one (a trained model under constrained decoding), else our own.
The record tells which turns were turned round (`Dialogue.noisy_turns`); neither side is told.
"""

import random
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from interplay.errors import ConfigError, FormatError
from interplay.simulation.agents import Agent, Speaker, drawn_name, is_told_target, traits_of
from interplay.types import Action, Mention, Parts, Role, Turn, View, derive_seed

NOISE = "noise:"
"""How the specs begin."""

ACCEPTS = (
    "Sounds good, I'll take that one.",
    "Yes, that works for me.",
    "Okay, that's the one.",
    "Great, I'll go with it.",
    "Perfect, thank you!",
)
NAMED_ACCEPTS = (("I'll go with ", "."), ("Okay, ", " it is."), ("Let me take ", ", thanks."))
"""Around the title, where several are on the table."""
REJECTIONS = (
    "Hmm, no, not that one.",
    "I don't think that's for me. What else is there?",
    "Not quite, do you have another?",
    "No, I'd rather have something else.",
    "That one doesn't appeal to me, sorry.",
    "I'll pass on that. Anything else?",
)


def read_spec(spec: str) -> tuple[float, str]:
    """The rate and the user simulator that noise:P:SPEC names.

    Raises:
        ConfigError: it is written otherwise, or P is no share.

    >>> read_spec("noise:0.1:agenda"), read_spec("noise:.3:http://localhost:8000/v1#m")
    ((0.1, 'agenda'), (0.3, 'http://localhost:8000/v1#m'))
    """
    rate, _, inner = spec.removeprefix(NOISE).partition(":")
    try:
        share = float(rate)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1 or not inner:
        raise ConfigError(
            f"{spec!r} is no user with noise; write {NOISE}P:SPEC with P from 0 to 1, for example {NOISE}0.1:agenda"
        )
    return share, inner


def without_noise(spec: str) -> str:
    """The user simulator of a spec, whatever noise is about it: another rate makes no other simulator.

    >>> without_noise("noise:0.3:noise:0.1:agenda"), without_noise("runs/user")
    ('agenda', 'runs/user')
    """
    while spec.startswith(NOISE):
        spec = read_spec(spec)[1]
    return spec


class Always:
    """Guidance that has one answer."""

    def __init__(self, action: Action) -> None:
        self._action = action

    def action(self, view: View, seed: int) -> Action:
        """See `guidance.Guidance`."""
        return self._action


class NoisyUser:
    """A user simulator with wrong feedback, as an Agent.

    Args:
        inner: the user simulator.
        rate: how likely each verdict is turned round, in [0, 1]; each is drawn by the conversation's seed and the turn, so
            that what is turned round at a lower rate is turned round at a higher one.
        name: written into the Dialogue.

    Raises:
        ConfigError: the rate is no share.
        ValueError: `inner` is a recommender.
    """

    role = Role.USER

    def __init__(self, inner: Agent, rate: float, name: str | None = None) -> None:
        if not 0 <= rate <= 1:
            raise ConfigError(f"a rate of wrong feedback lies from 0 to 1; got {rate}")
        if inner.role is not Role.USER:
            raise ValueError(f"{inner.name} is a recommender; feedback is the user's")
        self.inner = inner
        self.rate = rate
        self.name = name or f"{NOISE}{rate:g}:{inner.name}"
        self.backend: object = getattr(inner, "backend", None)
        """What has to answer, and be closed."""
        self.told_target = is_told_target(inner)

    @property
    def retries(self) -> Counter[str]:
        """Answers that were asked for again, where the wrapped agent counts them."""
        return Counter(getattr(self.inner, "retries", {}))

    def begin(self, view: View, seed: int, session: str) -> "NoisySpeaker":
        """A Speaker that turns round verdicts from here on; those of `view.turns` stand as they are."""
        return NoisySpeaker(self, view, seed, session)

    def wrong(self, action: Action, view: View, seed: int) -> Speaker | None:
        """The wrapped model held to an action; None where it can't be."""
        # Imported here: what a spec means is asked of by every command, also of those without a model.
        from interplay.simulation.model_agents import TokenAgent
        from interplay.simulation.slots import Slots

        if not isinstance(self.inner, TokenAgent) or self.inner.turn_grammar is None:
            return None
        held = copy(self.inner)
        held.slots = replace(self.inner.slots or Slots(), guidance=Always(action))
        return held.begin(view, seed, f"noise/{seed}")


class NoisySpeaker:
    """One conversation's side: the wrapped Speaker, begun anew after each turn that was turned round."""

    def __init__(self, agent: NoisyUser, view: View, seed: int, session: str) -> None:
        self._agent, self._view, self._seed, self._session = agent, view, seed, session
        self._inner = agent.inner.begin(view, seed, session)
        self._noisy_turns: list[int] = []

    @property
    def noisy_turns(self) -> tuple[int, ...]:
        """See `agents.NOISY_TURNS`."""
        return tuple(self._noisy_turns)

    @property
    def drawn(self) -> str:
        """See `agents.DRAWN`: told of an ensemble that is wrapped."""
        name = drawn_name(self._agent.inner, self._inner)
        return self._agent.name if name == self._agent.inner.name else f"{NOISE}{self._agent.rate:g}:{name}"

    @property
    def traits(self) -> Parts:
        """See `agents.TRAITS`."""
        return traits_of(self._inner)

    async def speak(self) -> Turn:
        """The wrapped Speaker's turn, or the opposite verdict.

        Raises:
            InterplayError: as the wrapped Speaker's.
        """
        turn = await self._inner.speak()
        place = len(self._view.turns)
        opposite = opposite_of(turn, self._view.turns)
        rng = random.Random(derive_seed(self._seed, "noise", place))
        if opposite is None or rng.random() >= self._agent.rate:
            self._view = self._view.after(turn)
            return turn
        turn = await self._wrong(opposite, place, rng)
        self._noisy_turns.append(place)
        self._view = self._view.after(turn)
        self._inner.end()
        # It believes to have said something else. Whoever begins in the middle goes on as if it had spoken from the start.
        self._inner = self._agent.inner.begin(self._view, self._seed, f"{self._session}/{place}")
        return turn

    async def _wrong(self, action: Action, place: int, rng: random.Random) -> Turn:
        speaker = self._agent.wrong(action, self._view, derive_seed(self._seed, "noise", place, "words"))
        if speaker is not None:
            try:
                return await speaker.speak()
            except FormatError:
                pass  # noise is to make feedback wrong, not formats
            finally:
                speaker.end()
        return own_words(action, self._view.turns, rng)

    def hear(self, turn: Turn) -> None:
        """Take in the recommender's turn."""
        self._view = self._view.after(turn)
        self._inner.hear(turn)

    def end(self) -> None:
        """The wrapped Speaker gives back what it holds."""
        self._inner.end()


def opposite_of(turn: Turn, before: Sequence[Turn]) -> Action | None:
    """The action that turns a verdict round; None where the turn is no verdict on a recommendation.

    Args:
        turn: the user's.
        before: what was said before it.
    """
    offers = [t for t in before if t.role is Role.RECOMMENDER and t.items]
    if turn.action is Action.ACCEPT and offers:
        return Action.FEEDBACK
    if turn.action is Action.FEEDBACK and offers and offers[-1] is before[-1]:
        return Action.ACCEPT
    return None


def own_words(action: Action, before: Sequence[Turn], rng: random.Random) -> Turn:
    """A verdict in our words, none that the conversation holds already where there are others left.

    Args:
        action: accept or feedback. Of several titles on the table an accept names one, drawn.
        before: what was said before it.
        rng: draws the words.
    """
    offer = next((t for t in reversed(before) if t.role is Role.RECOMMENDER and t.items), None)
    if action is Action.ACCEPT and offer is not None and len(offer.items) > 1:
        head, tail = rng.choice(NAMED_ACCEPTS)
        place = rng.randrange(len(offer.items))
        title = offer.titles[place]
        mention = Mention(start=len(head), end=len(head) + len(title), item_id=offer.items[place].item_id)
        return Turn(role=Role.USER, action=action, text=f"{head}{title}{tail}", items=(mention,))
    said = {t.text for t in before}
    phrases = ACCEPTS if action is Action.ACCEPT else REJECTIONS
    return Turn(role=Role.USER, action=action, text=rng.choice([p for p in phrases if p not in said] or list(phrases)))
