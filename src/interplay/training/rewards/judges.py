"""Judges that the reward terms can be given: P(human) by the words of turns, and a user's goal by rules.

Any callable of the same shape does as well: a fine-tuned encoder, a language model, a classifier of strategies.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from interplay.metrics.coherence import stances
from interplay.metrics.discriminators import tokens
from interplay.metrics.lexicon import lexicon, named_aspects, plain
from interplay.titles import title_key
from interplay.training.rewards.rollouts import Rollout, Step
from interplay.training.rewards.terms import GoalPart
from interplay.types import Action, Role, Turn

_DECADE = re.compile(r"(\d{3})0s")


class WordDiscriminator:
    """P(human) by the words of a turn: the n-gram discriminator of `metrics.discriminators`, kept to be asked again.

    Logistic regression on 1- and 2-grams of words and punctuation (TF-IDF, sublinear), both classes of one weight. There the
    figures of a report are cross-validated; here a reward is wanted, and the two must not be one: report with another
    discriminator, or with other simulators, than those that were optimised against.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def fit(cls, human: Sequence[str], simulated: Sequence[str]) -> Self:
        """Learn from turns of people and of simulators.

        Args:
            human: turns of people.
            simulated: turns of simulators, of the same role.

        Raises:
            ValueError: a side has no turn.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        if not human or not simulated:
            raise ValueError(f"a discriminator needs turns of both sides, got {len(human)} and {len(simulated)}")
        vectors = TfidfVectorizer(
            tokenizer=tokens, token_pattern=None, lowercase=False, ngram_range=(1, 2), sublinear_tf=True, use_idf=True
        )
        model = make_pipeline(vectors, LogisticRegression(C=4.0, class_weight="balanced", max_iter=200, tol=1e-3))
        model.fit([t or "." for t in (*human, *simulated)], [1] * len(human) + [0] * len(simulated))
        return cls(model)

    def __call__(self, turns: Sequence[str]) -> float | None:
        """Mean P(human) of the turns, in [0, 1]; None without turns."""
        if not turns:
            return None
        return float(self._model.predict_proba([t or "." for t in turns])[:, 1].mean())


class PolicyDiscriminator:
    """A WordDiscriminator between people and one policy, for a `Rewards` that is made before the policy has spoken.

    Args:
        people: turns of people, in the policy's role.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, people: Sequence[str]) -> None:
        if not people:
            raise ValueError("a discriminator needs turns of people, got none")
        self._people = tuple(people)
        self._fitted: WordDiscriminator | None = None

    def fit(self, said: Sequence[str]) -> None:
        """Learn from turns of the policy; what was learned before is forgotten.

        Raises:
            ValueError: there are none.
        """
        self._fitted = WordDiscriminator.fit(self._people, said)

    def __call__(self, turns: Sequence[str]) -> float | None:
        """Mean P(human) of the turns, in [0, 1]; None without turns.

        Raises:
            ValueError: it was not fitted.
        """
        if self._fitted is None:
            raise ValueError("this discriminator was asked before it had any turn of the policy")
        return self._fitted(turns)


def goal_by_rules(rollout: Rollout, step: Step) -> Mapping[GoalPart, bool | None]:
    """Whether a user's step keeps to its goal, by rules (ours): a cheap stand-in for UGST's language model.

    profile: no aspect that the general preferences speak of is wanted here and not there, or the reverse.
    policy: it does not speak as if it were the assistant.
    objective: an accept takes something that was shown; a give-up comes after something was shown (the recommender had its
    chance: UGST's "attempted" counts as success).
    requirement: what is accepted is not among the known items, and of a decade that the target attributes name.
    preference: every aspect that it asks for is among the target attributes, and none of these is turned down.

    Aspects are those of `metrics.lexicon`; titles in the words are not read. None: the step says nothing of that part.
    """
    if step.turn is None:
        return {}
    persona = rollout.scenario.persona
    domain = rollout.dialogue.domain
    said = dict(stances(_without_titles(step.turn), domain))
    general = dict(stances(persona.general_preferences, domain))
    shared = [said[aspect] == general[aspect] for aspect in said if aspect in general]
    wanted = {aspect for text in persona.target_attributes for _, aspect in named_aspects(text, domain)}
    followed = [(aspect in wanted) if is_wanted else (aspect not in wanted) for aspect, is_wanted in said.items()]
    return {
        GoalPart.PROFILE: all(shared) if shared else None,
        GoalPart.POLICY: lexicon("identity_confusion").search(plain(step.turn.text)) is None,
        GoalPart.OBJECTIVE: _objective(rollout, step, step.turn),
        GoalPart.REQUIREMENT: _requirement(rollout, step.turn),
        GoalPart.PREFERENCE: all(followed) if followed and wanted else None,
    }


def _without_titles(turn: Turn) -> str:
    text = turn.text
    for mention in reversed(turn.items):
        text = f"{text[: mention.start]} , {text[mention.end :]}"
    return text


def _objective(rollout: Rollout, step: Step, turn: Turn) -> bool | None:
    if turn.action is Action.ACCEPT:
        return bool(rollout.accepted)
    if turn.action is Action.GIVE_UP:
        return any(t.role is Role.RECOMMENDER and t.items for t in rollout.before(step))
    return None


def _requirement(rollout: Rollout, turn: Turn) -> bool | None:
    if turn.action is not Action.ACCEPT or not rollout.accepted:
        return None
    persona = rollout.scenario.persona
    known = {title_key(item.title) for item in persona.known_items}
    decades = {int(m.group(1)) for a in persona.target_attributes if (m := _DECADE.fullmatch(a.strip()))}

    def fits(title: str, item_id: str | None) -> bool:
        item = rollout.find(title, item_id)
        year = None if item is None else item.year
        return title_key(title) not in known and (not decades or year is None or year // 10 in decades)

    return any(fits(title, item_id) for title, item_id in rollout.accepted)
