"""The structural tags of a turn, as strings. Which of them exist depends on the domain alone.

    <recommender><action><recommend></action><response>Try <movie_title>Heat (1995)</movie_title>.</response>

`<action>`, `<response>`, the names of the actions and `<movie_title>` are the Interplay paper's (section 3); the role
tags that open a turn and the three tags that head the persona's parts are ours.
"""

from collections.abc import Collection, Sequence

from interplay.types import Action, Domain, Role

ACTION_OPEN, ACTION_CLOSE = "<action>", "</action>"
RESPONSE_OPEN, END_OF_TURN = "<response>", "</response>"
"""`</response>` closes every turn: it is the end-of-turn token, labelled in training and the stop token in decoding."""

PREFERENCES, SEEN, GOAL = "<preferences>", "<seen>", "<goal>"
UNMET = "<unmet>"
"""Heads a user's note to itself: a target attribute that the recommendation just heard did not name."""
CANDIDATE = "<candidate>"
"""Heads a title that a recommender's knowledge slot found for the turn to come."""
END = "<end>"
"""Stands where a user's turn would begin: the user has nothing more to say and leaves."""
TASK_TAGS: dict[str, str] = {
    "feedback": "<task-feedback>",
    "attributes": "<task-attributes>",
    "target": "<task-target>",
    "flipped": END,
}
"""The tag of each task that a user is trained on beside its next turn (`training.user_tasks`). No View is rendered with one."""

REASONING_OPEN, REASONING_CLOSE = "<reasoning>", "</reasoning>"
"""Around what a recommender that reasons writes before its turn; `formats.reasoning` has the grammar."""
WANTS, IS, MATCH, HAS, RANKING, BECAUSE = "<wants>", "<is>", "<match>", "<has>", "<ranking>", "<because>"
MOST_CANDIDATES = 50
"""Candidates that can be told by their number."""
MOST_SCORE = 10
SCORES = tuple(f"<score-{score}>" for score in range(MOST_SCORE + 1))
"""How well a candidate fits, by score."""


def role_tag(role: Role) -> str:
    """The tag that hands the floor to `role`. The environment writes it, never a model."""
    return f"<{role.value}>"


def action_tag(action: Action) -> str:
    """The tag of an action, for example "<disclose-goal>"."""
    return f"<{action.value}>"


def cue_tag(kind: str) -> str:
    """The tag that heads a cue of a kind, for example "<length>"."""
    return f"<{kind}>"


def title_tags(domain: Domain) -> tuple[str, str]:
    """The tags around a title, for example ("<movie_title>", "</movie_title>")."""
    return f"<{domain.tag}>", f"</{domain.tag}>"


def candidate_tag(number: int) -> str:
    """The tag of a recommender's n-th candidate, from 1 to MOST_CANDIDATES, where it reasons."""
    return f"<candidate-{number}>"


def reasoning_tags() -> tuple[str, ...]:
    """Every tag of reasoning, in a fixed order."""
    numbers = (candidate_tag(n) for n in range(1, MOST_CANDIDATES + 1))
    return (REASONING_OPEN, WANTS, IS, MATCH, HAS, RANKING, BECAUSE, REASONING_CLOSE, *SCORES, *numbers)


def structural_tags(
    domain: Domain,
    *,
    notes: bool = False,
    candidates: bool = False,
    tasks: Collection[str] = (),
    cues: Sequence[str] = (),
    reasoning: bool = False,
) -> tuple[str, ...]:
    """Every tag that must be one token, in a fixed order.

    Args:
        domain: names the title tags.
        notes: with that of notes.
        candidates: with that of candidates.
        tasks: with those of the tasks of `TASK_TAGS` that are trained.
        cues: with those of these kinds of cues.
        reasoning: with those of reasoning.
    """
    return (
        *(role_tag(role) for role in Role),
        ACTION_OPEN,
        ACTION_CLOSE,
        *(action_tag(action) for action in Action),
        RESPONSE_OPEN,
        END_OF_TURN,
        PREFERENCES,
        SEEN,
        GOAL,
        *title_tags(domain),
        *([UNMET] if notes else []),
        *([CANDIDATE] if candidates else []),
        *(tag for task, tag in TASK_TAGS.items() if task in tasks),
        *(cue_tag(kind) for kind in cues),
        *(reasoning_tags() if reasoning else []),
    )
