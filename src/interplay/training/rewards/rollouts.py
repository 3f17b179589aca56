"""What a reward reads: one conversation of the policy that is trained, cut into the policy's steps."""

from dataclasses import dataclass
from functools import cached_property

from interplay.titles import title_key
from interplay.types import Action, Catalog, Dialogue, Ending, Item, Role, Scenario, Turn, accepted_mentions

FAULTS = (Ending.BACKEND_FAILURE, Ending.CONTEXT_OVERFLOW)
"""Endings that say nothing of what was said: such a conversation has no reward at all."""

Values = tuple[float | None, ...]
"""One value per step of a rollout; None where a reward is not defined there."""


@dataclass(slots=True, frozen=True)
class Answer:
    """What one answer of a policy that reasons holds beside its words. Whoever parses the answer fills it in."""

    ranking: tuple[str, ...] | None = None
    """Titles of its list as written, best first; None when no list could be read."""
    preferences: tuple[str, ...] | None = None
    """Attribute values that its reasoning says are wanted; None when no reasoning could be read."""
    candidates: tuple[str, ...] | None = None
    """Titles that it was told to choose from; None when it was free."""


def answer_of(turn: Turn) -> Answer:
    """What a reward reads of a turn of a policy that reasons; an empty Answer where the turn holds no reasoning."""
    reasoning = turn.reasoning
    if reasoning is None:
        return Answer()
    return Answer(
        ranking=tuple(listed.title for listed in reasoning.ranking),
        preferences=tuple(wanted.value for wanted in reasoning.preferences),
        candidates=reasoning.candidates or None,
    )


def answers_of(dialogue: Dialogue, role: Role = Role.RECOMMENDER) -> tuple[Answer, ...]:
    """The answers of a policy that reasons in one conversation, one per step of its `Rollout`.

    An answer that could not be read, which ends a conversation, is an empty Answer.
    """
    answers = [answer_of(turn) for turn in dialogue.turns if turn.role is role]
    failure = dialogue.failure
    if dialogue.ending is Ending.FORMAT_FAILURE and failure is not None and failure.role is role:
        answers.append(Answer())
    return tuple(answers)


@dataclass(slots=True, frozen=True)
class Step:
    """One answer of the policy: what one action of reinforcement learning is."""

    place: int
    """Index of the turn in the dialogue; the number of turns when the answer could not be read."""
    turn: Turn | None
    """None when the answer could not be read as a turn."""
    answer: Answer | None
    """None when the policy does not reason."""


@dataclass(frozen=True)
class Rollout:
    """One conversation of the policy, with everything that its rewards may read.

    Raises:
        ValueError: the dialogue is of another scenario, or there is not one answer per step.
    """

    scenario: Scenario
    """Holds the hidden targets; no policy sees it."""
    dialogue: Dialogue
    catalog: Catalog
    role: Role = Role.RECOMMENDER
    """The policy's role."""
    answers: tuple[Answer, ...] | None = None
    """One per step, an empty Answer where it could not be read; None for a policy that neither reasons nor writes lists."""
    max_turns: int = 20
    """Turns of both sides after which the conversation would have been ended."""

    def __post_init__(self) -> None:
        if self.dialogue.scenario_key != self.scenario.key:
            raise ValueError(f"the dialogue is of scenario {self.dialogue.scenario_key}, not of {self.scenario.key}")
        if self.answers is not None and len(self.answers) != len(self._places):
            raise ValueError(f"{len(self.answers)} answers were given for {len(self._places)} steps of the {self.role}")

    @cached_property
    def _places(self) -> list[tuple[int, Turn | None]]:
        turns = self.dialogue.turns
        places: list[tuple[int, Turn | None]] = [(i, turn) for i, turn in enumerate(turns) if turn.role is self.role]
        failure = self.dialogue.failure
        if self.dialogue.ending is Ending.FORMAT_FAILURE and failure is not None and failure.role is self.role:
            places.append((len(turns), None))  # the answer that nobody could read is an action too, and has to be paid for
        return places

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The policy's answers, in order; the one that ended the conversation because it could not be read is the last."""
        return tuple(Step(i, t, None if self.answers is None else self.answers[n]) for n, (i, t) in enumerate(self._places))

    @property
    def is_faulty(self) -> bool:
        """Whether a fault ended the conversation: see `FAULTS`."""
        return self.dialogue.ending in FAULTS

    def before(self, step: Step) -> tuple[Turn, ...]:
        """The turns of both sides before a step."""
        return self.dialogue.turns[: step.place]

    def find(self, title: str, item_id: str | None = None) -> Item | None:
        """The catalog item that a mention means."""
        return self.catalog.get(item_id) or self.catalog.find(title)

    def shown(self, step: Step) -> tuple[tuple[str, str | None], ...] | None:
        """The titles that a step puts before the user, in order, with their item ids.

        Those of its list where the policy writes lists, as they stand: a repeated title keeps its place, so nothing behind
        it moves up. Else those in its words, each once. None when it shows nothing that could be read.
        """
        if step.answer is not None:
            return tuple((title, None) for title in step.answer.ranking or ()) or None
        if step.turn is None:
            return None
        named: dict[str, tuple[str, str | None]] = {}
        for title, mention in zip(step.turn.titles, step.turn.items, strict=True):
            item = self.find(title, mention.item_id)
            named.setdefault(f"title {title_key(title)}" if item is None else item.id, (title, mention.item_id))
        return tuple(named.values()) or None

    @cached_property
    def accepted(self) -> tuple[tuple[str, str | None], ...] | None:
        """Titles and item ids that the user accepted; empty for an accept with nothing on the table, None without accept."""
        turns = self.dialogue.turns
        if not turns or turns[-1].action is not Action.ACCEPT:
            return None
        named: list[tuple[str, str | None]] = []
        for mention in accepted_mentions(turns):
            # A mention knows its place but not its turn; the latest turn that holds this very object wrote it.
            turn = next(t for t in reversed(turns) if any(m is mention for m in t.items))
            named.append((turn.text[mention.start : mention.end], mention.item_id))
        return tuple(named)
