"""Cues read off conversations that exist, for training: what was said is what the speaker is told to say.

Session-level cues come from the whole conversation, those of a turn from the turn itself, by the rules of `metrics.latents`.
Some are left out at random, so that a model learns to work without them and with any part of them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from interplay.config import TrainConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError
from interplay.metrics.latents import derive_latents, is_off_topic, nearest_length
from interplay.simulation.beliefs import PreferenceState, belief_text
from interplay.simulation.control import CueCounts, count_cues
from interplay.simulation.facets import FacetIndex
from interplay.simulation.fit import fit_text
from interplay.simulation.strategy_cues import strategy_text
from interplay.types import BELIEF, FIT, SESSION_CUES, TURN_CUES, Cue, Dialogue, Parts, Role, Split, View, cues_for, derive_seed

ALL = "all"
"""In place of kinds of cues: every one that the role can be told."""

TurnLabel = Callable[[View, int], str | None]
"""The text of a cue of the View's turn with an index; None where there is nothing to tell."""


def _strategy(view: View, index: int) -> str | None:
    """The strategies of a turn; None in a conversation without any label."""
    return strategy_text(view.turns[index].strategies) if any(turn.strategies for turn in view.turns) else None


TURN_LABELS: dict[str, TurnLabel] = {
    "intent": lambda view, index: view.turns[index].action.value,
    "off-topic": lambda view, index: "yes" if is_off_topic(view.turns[index], view.domain.name) else "no",
    "length": lambda view, index: str(nearest_length(view.turns[index].num_words)),
    "strategy": _strategy,
}
"""How each kind of TURN_CUES is read off a turn that was spoken."""


def trained_cues(config: TrainConfig) -> tuple[str, ...]:
    """The kinds of cues that a training shows, in order; a base's are those of both roles.

    Raises:
        ConfigError: there is no such kind, or it is none of the role's.
    """
    roles = list(Role) if config.role == "base" else [Role(config.role)]
    known = tuple(dict.fromkeys(kind for role in roles for kind in cues_for(role)))
    unknown = [kind for kind in config.cues if kind not in (*known, ALL)]
    if unknown or (config.cues and not known):
        accepted = f"{ALL}, {', '.join(known)}" if known else "none"
        raise ConfigError(f"--cues {' '.join(unknown or config.cues)}: cues of a {config.role} are {accepted}")
    for flag, is_given in (("--beliefs are what a user holds", config.beliefs), ("--fit is what a user knows", config.fit)):
        if is_given and Role.USER not in roles:
            raise ConfigError(f"{flag}; a recommender has nothing of the kind: leave it out")
    asked = known if ALL in config.cues else tuple(kind for kind in known if kind in config.cues)
    return (*asked, *([BELIEF] if config.beliefs else []), *([FIT] if config.fit else []))


@dataclass(slots=True, frozen=True)
class LoggedCues:
    """Puts cues into Views of conversations that exist.

    Args:
        kinds: which.
        dropout: share of the conversations that get no cue at all, and of the cues of the others that are left out.
        seed: of what is left out, with the conversation's key and the role.
        index: of the corpus's catalog, for what a user holds and knows before each turn; needed for STATE_CUES alone.
    """

    kinds: tuple[str, ...]
    dropout: float = 0.0
    seed: int = 0
    index: FacetIndex | None = None

    def label(self, view: View, dialogue: Dialogue) -> View:
        """The View with its traits and a cue before each of its role's turns.

        Args:
            view: of one role, with all turns of the dialogue.
            dialogue: the conversation.
        """
        rng = random.Random(derive_seed(self.seed, "cues", dialogue.key, view.role))
        own = [index for index, turn in enumerate(view.turns) if turn.role is view.role]
        if not own or rng.random() < self.dropout:
            return view
        traits = self._kept(session_cues(dialogue, self.kinds), rng) if view.role is Role.USER else ()
        beliefs, fits = self._beliefs(view), self._fits(view)
        told = ((n, turn_cues(view, n, self.kinds) + beliefs.get(n, ()) + fits.get(n, ())) for n in own)
        cues = (Cue(n, self._kept(parts, rng)) for n, parts in told)
        return replace(view, traits=traits, cues=tuple(cue for cue in cues if cue.parts))

    def _beliefs(self, view: View) -> dict[int, Parts]:
        """What the user holds before each of its turns; of a turn and what comes after it nothing is known by then."""
        found: dict[int, Parts] = {}
        if self.index is None or BELIEF not in self.kinds or view.role is not Role.USER:
            return found
        state = PreferenceState(self.index, replace(view, turns=()))
        for number, turn in enumerate(view.turns):
            if turn.role is Role.USER and (text := belief_text(state)) is not None:
                found[number] = ((BELIEF, text),)
            state.take(turn)
        return found

    def _fits(self, view: View) -> dict[int, Parts]:
        """Whether what is on offer before each of the user's turns has what it looks for."""
        if self.index is None or FIT not in self.kinds or view.role is not Role.USER:
            return {}
        own = (n for n, turn in enumerate(view.turns) if turn.role is Role.USER)
        texts = ((n, fit_text(self.index.catalog, view.target_attributes, view.turns[:n])) for n in own)
        return {n: ((FIT, text),) for n, text in texts if text is not None}

    def _kept(self, parts: Parts, rng: random.Random) -> Parts:
        return tuple(part for part in parts if rng.random() >= self.dropout)


def session_cues(dialogue: Dialogue, kinds: Sequence[str] = SESSION_CUES) -> Parts:
    """The session-level cues of a conversation's user; those that it doesn't tell are left out.

    Raises:
        ValueError: the user says nothing.
    """
    wanted = [kind for kind in SESSION_CUES if kind in kinds]
    if not wanted:
        return ()
    session = derive_latents(dialogue).session
    found = ((kind, getattr(session, kind)) for kind in wanted)
    return tuple((kind, value) for kind, value in found if value is not None)


def people_counts(corpora: Sequence[Corpus]) -> CueCounts:
    """What the users of the training split were like, for `simulation.control`."""
    logs = (d for corpus in corpora for _, d in corpus.pairs(Split.TRAIN) if any(t.role is Role.USER for t in d.turns))
    return count_cues((log, derive_latents(log)) for log in logs)


def turn_cues(view: View, index: int, kinds: Sequence[str]) -> Parts:
    """The cues of one turn of the View's role."""
    found = ((kind, TURN_LABELS[kind](view, index)) for kind in TURN_CUES[view.role] if kind in kinds)
    return tuple((kind, text) for kind, text in found if text is not None)
