"""How holistic conversations are: several acts in one turn, small talk before the wish, off the topic and back.

Everything is read off the words by the rules of `corpora.acts`, on either side of a comparison, whatever the records tell of
their acts: people's records tell none that the rules did not write. What records tell is counted beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from interplay.corpora.acts import acts_of, sentence_acts
from interplay.corpora.messages import Spoken
from interplay.evaluation.scoring import About, rows
from interplay.metrics.bootstrap import Estimate, estimate_ratio
from interplay.types import Action, Dialogue, Role, ScoreRow

DEFINITIONS: dict[str, str] = {
    "holistic.several_acts": "share of turns that do something beside their action",
    "holistic.told_several_acts": "share of turns whose record tells an act beside the action; None where no record does",
    "holistic.acts_per_turn": "mean number of acts of a turn, its action among them",
    "holistic.question_and_feedback": "share of user turns that both ask and judge",
    "holistic.chat_and_other": "share of turns with small talk and something else",
    "holistic.small_talk_first": "share of conversations with a user turn of nothing but small talk before the first wish",
    "holistic.off_topic_turns": "share of user turns of nothing but small talk",
    "holistic.off_topic_episodes": "mean number of times that the user leaves the topic after its first wish or verdict",
    "holistic.returns": "share of these after which a later turn of the user is on the topic again",
}
"""The metrics. The first three and `chat_and_other` are followed by a dot and the role."""

_ON_TOPIC = (Action.DISCLOSE_GOAL, Action.FEEDBACK, Action.INQUIRE, Action.ACCEPT)


@dataclass(slots=True, frozen=True)
class HolisticTalk:
    """What one conversation shows."""

    acts: tuple[tuple[Role, frozenset[Action]], ...]
    """Of every turn its role and all its acts, the action among them."""
    told: tuple[bool, ...]
    """Whether each turn's record tells an act beside the action."""
    small_talk: tuple[bool, ...]
    """Of each user turn: whether it is nothing but small talk."""
    on_topic: tuple[bool, ...]
    """Of each user turn: whether it tells a wish, judges, asks or accepts."""

    @property
    def episodes(self) -> list[bool]:
        """Each time that the user leaves the topic once it was on it: whether it comes back."""
        out = []
        was_on = is_off = False
        for place, small_talk in enumerate(self.small_talk):
            if small_talk and was_on and not is_off:
                out.append(any(self.on_topic[place + 1 :]))
            is_off = small_talk
            was_on = was_on or self.on_topic[place]
        return out

    @property
    def begins_with_small_talk(self) -> bool:
        """Whether a turn of nothing but small talk comes before the first that is on the topic."""
        first = self.on_topic.index(True) if True in self.on_topic else len(self.on_topic)
        return any(self.small_talk[:first])


def talk_of(dialogue: Dialogue) -> HolisticTalk:
    """What a conversation shows, by its words and actions."""
    spoken = [Spoken(turn.role, turn.text, turn.items) for turn in dialogue.turns]
    actions = [turn.action for turn in dialogue.turns]
    shown = sentence_acts(spoken, actions)
    own = [(turn, acts) for turn, acts in zip(dialogue.turns, shown, strict=True) if turn.role is Role.USER]
    small_talk = tuple(
        set(acts) == {Action.CHAT} and not turn.items and turn.action not in (Action.ACCEPT, Action.GIVE_UP, Action.GREETING)
        for turn, acts in own
    )
    return HolisticTalk(
        acts=tuple(
            (turn.role, frozenset((turn.action, *acts)))
            for turn, acts in zip(dialogue.turns, acts_of(spoken, actions), strict=True)
        ),
        told=tuple(bool(turn.acts) for turn in dialogue.turns),
        small_talk=small_talk,
        on_topic=tuple(
            not chat and (turn.action in _ON_TOPIC or bool(set(acts).intersection(_ON_TOPIC)))
            for (turn, acts), chat in zip(own, small_talk, strict=True)
        ),
    )


def holistic_rows(talks: Sequence[HolisticTalk], about: About, *, subject: str | None = None) -> list[ScoreRow]:
    """Every metric of DEFINITIONS, with 95 % intervals over conversations.

    Args:
        talks: of `talk_of`.
        about: the fields that the rows share.
        subject: replaces the subject.
    """
    rng = np.random.default_rng(about.seed)

    def ratio(pairs: Iterable[tuple[float, int]]) -> Estimate:
        found = list(pairs)
        return estimate_ratio([top for top, _ in found], [bottom for _, bottom in found], rng)

    out: dict[str, Estimate] = {}
    tells = any(any(talk.told) for talk in talks)
    for role in Role:
        of_role = [
            [(acts, told) for (who, acts), told in zip(talk.acts, talk.told, strict=True) if who is role] for talk in talks
        ]
        out[f"holistic.several_acts.{role}"] = ratio((sum(len(a) > 1 for a, _ in own), len(own)) for own in of_role)
        if tells:
            out[f"holistic.told_several_acts.{role}"] = ratio((sum(told for _, told in own), len(own)) for own in of_role)
        out[f"holistic.acts_per_turn.{role}"] = ratio((sum(len(a) for a, _ in own), len(own)) for own in of_role)
        out[f"holistic.chat_and_other.{role}"] = ratio(
            (sum(Action.CHAT in a and len(a) > 1 for a, _ in own), len(own)) for own in of_role
        )
        if role is Role.USER:
            both = {Action.INQUIRE, Action.FEEDBACK}
            out["holistic.question_and_feedback"] = ratio((sum(a >= both for a, _ in own), len(own)) for own in of_role)
    out["holistic.small_talk_first"] = ratio((talk.begins_with_small_talk, 1) for talk in talks)
    out["holistic.off_topic_turns"] = ratio((sum(talk.small_talk), len(talk.small_talk)) for talk in talks)
    out["holistic.off_topic_episodes"] = ratio((len(talk.episodes), 1) for talk in talks)
    out["holistic.returns"] = ratio((sum(talk.episodes), len(talk.episodes)) for talk in talks)
    return rows(out, about, subject=subject)
