"""What tells a recommender which sociable strategy its next turn uses: always one, one drawn at random, or as people did.

Only a strategy that is drawn at random, whatever the conversation is like, tells the strategy's effect on the user: see
`evaluation.strategy_scores`.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from interplay.corpora.corpus import stream_dialogues
from interplay.corpora.inspired import ELICITATION, SOCIABLE
from interplay.errors import ConfigError, DataError
from interplay.types import Dialogue, Parts, Role, Split, Turn, View, content_hash, derive_seed

STRATEGY = "strategy"
"""The kind of cue."""
NONE = "none"
"""Told of a turn that uses none of the ten."""
RANDOM, LOGS = "random", "logs:"
NAMES = SOCIABLE + ELICITATION
FEWEST = 30
"""Turns of people that a strategy is drawn from at least, before what they had heard counts."""
_NOTHING = "-"


def strategy_text(strategies: Sequence[str]) -> str:
    """The strategies of a turn in words, in the order of NAMES.

    >>> strategy_text(["opinion_inquiry", "encouragement", "transparency"]), strategy_text([])
    ('encouragement, opinion inquiry', 'none')
    """
    return ", ".join(name.replace("_", " ") for name in NAMES if name in strategies) or NONE


def told_strategies(text: str) -> tuple[str, ...]:
    """The strategies that a cue tells; empty for none. The inverse of `strategy_text`."""
    return tuple(name for name in NAMES if name.replace("_", " ") in text.split(", "))


class StrategyCues:
    """Tells a recommender before each turn which strategy to use (`cues.CueSource`).

    Args:
        texts: of cues with how often each is told, after what was heard; the key None holds those of all turns.
    """

    def __init__(self, texts: dict[str | None, Counter[str]]) -> None:
        self._texts = texts

    @property
    def digest(self) -> str:
        """Changes with what is told."""
        return content_hash(sorted((str(heard), sorted(texts.items())) for heard, texts in self._texts.items()))

    @classmethod
    def fixed(cls, strategy: str) -> "StrategyCues":
        """The same for every turn."""
        return cls({None: Counter([strategy_text([strategy])])})

    @classmethod
    def at_random(cls) -> "StrategyCues":
        """Any of the ten, each as often."""
        return cls({None: Counter(strategy_text([name]) for name in NAMES)})

    @classmethod
    def of_logs(cls, dialogues: Iterable[Dialogue]) -> "StrategyCues":
        """As often as people used them after what they had heard.

        Args:
            dialogues: conversations; those without any label are left out.

        Raises:
            DataError: none has a label.
        """
        texts: dict[str | None, Counter[str]] = {None: Counter()}
        for dialogue in dialogues:
            if any(turn.strategies for turn in dialogue.turns):
                for number, turn in enumerate(dialogue.turns):
                    if turn.role is Role.RECOMMENDER:
                        text = strategy_text(turn.strategies)
                        texts[None][text] += 1
                        texts.setdefault(heard_before(dialogue.turns[:number]), Counter())[text] += 1
        if not texts[None]:
            raise DataError(
                "no conversation there has strategy labels: take INSPIRED, or make the data directory with --strategies DIR"
            )
        return cls(texts)

    def traits(self, view: View, seed: int) -> Parts:
        """None: a strategy is of one turn."""
        del view, seed
        return ()

    def parts(self, view: View, seed: int) -> Parts:
        """The strategy of the turn to come."""
        after = self._texts.get(heard_before(view.turns), Counter())
        texts = after if after.total() >= FEWEST else self._texts[None]
        rng = random.Random(derive_seed(seed, STRATEGY, len(view.turns)))
        (text,) = rng.choices(sorted(texts), [texts[text] for text in sorted(texts)])
        return ((STRATEGY, text),)


def heard_before(turns: Sequence[Turn]) -> str:
    """The action of the last of some turns, or "-"."""
    return turns[-1].action.value if turns else _NOTHING


def strategy_cues(spec: str) -> tuple[StrategyCues, str]:
    """What --strategy asks for, and what changes when it does.

    Raises:
        InputError: it is written otherwise, or the data directory has no labels.
    """
    if spec in NAMES:
        return StrategyCues.fixed(spec), spec
    if spec == RANDOM:
        return StrategyCues.at_random(), spec
    if spec.startswith(LOGS):
        found = StrategyCues.of_logs(stream_dialogues(Path(spec.removeprefix(LOGS)), Split.TRAIN))
        return found, f"{spec} {found.digest}"
    raise ConfigError(f"--strategy takes {RANDOM}, {LOGS}DATA or one of {', '.join(NAMES)}; got {spec}")
