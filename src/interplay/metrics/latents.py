"""What kind of user a conversation shows: latents of the whole conversation and of each user turn, read off what was said.

RecLLM (arXiv 2305.07961) conditions a simulated user on one variable of the session and one of each turn, which then are the
labels of what it says. Here they are derived from conversations that exist, so that a model can be trained on them and its
output be measured with the same rules. Word lists are files of `lexicons`; the cut points are constants below.
"""

from typing import Literal

from interplay.metrics.fingerprint import proper_names
from interplay.metrics.lexicon import lexicon, named_aspects, plain
from interplay.titles import title_key
from interplay.types import ACTIONS, Action, Dialogue, Ending, Record, Role, Turn

Verbosity = Literal["terse", "medium", "wordy"]
Patience = Literal["quick", "medium", "patient"]
Openness = Literal["open", "particular"]
Indecision = Literal["undecided", "decided"]
Expertise = Literal["none", "some", "many"]
Length = Literal["1-3", "4-8", "9-15", "16+"]

TERSE_BELOW, WORDY_FROM = 8.0, 13.0
"""Words per user turn: a fifth of ReDial's users lie below, a third above. Users of a system write 7 to 8."""
QUICK_UP_TO, PATIENT_FROM = 3, 7
"""User turns up to the one that accepts or gives up: a fifth of ReDial's users need 3 or fewer, a fifth 7 or more."""
MANY_NAMED = 3
"""Different items and names in a user's turns from which on expertise is "many"."""
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 19, 22, 26, 30, 36, 44, 60)
"""Words of a user turn as a model is told them: the nearest of these by ratio. Above 8 the steps are a sixth to a third."""
_LONGEST: tuple[tuple[int, Length], ...] = ((3, "1-3"), (8, "4-8"), (15, "9-15"))
_ENDING = (Action.ACCEPT, Action.GIVE_UP)


class SessionLatents(Record):
    """What holds for a user throughout a conversation."""

    verbosity: Verbosity
    words_per_turn: float
    """Mean words of a user turn, split at white space."""
    patience: Patience | None
    """None where the conversation stopped before this could be told."""
    num_turns_to_end: int | None
    """User turns up to and with the first that accepts or gives up; None where none does."""
    openness: Openness
    """"open": a phrase of openness.txt ("I'm open to anything") in one of the turns."""
    indecision: Indecision
    """"undecided": a phrase of indecision.txt in one of the turns."""
    expertise: Expertise
    num_named: int
    """Different items and capitalised names in the user's turns."""


class TurnLatents(Record):
    """What holds for one user turn."""

    turn: int
    """Index in the dialogue."""
    intent: Action
    """The turn's action."""
    length: Length
    """Words."""
    num_words: int
    off_topic: bool
    """A phrase of small_talk.txt, and no item, no aspect of the domain and no word of topics/DOMAIN.txt; greetings excepted."""


class DialogueLatents(Record):
    """The latents of one conversation: one line of `latents.jsonl`."""

    scenario_key: str
    sample: int = 0
    session: SessionLatents
    turns: tuple[TurnLatents, ...]
    """Of the user's turns, in order."""


SESSION_LATENTS: dict[str, tuple[str, ...]] = {
    "verbosity": ("terse", "medium", "wordy"),
    "patience": ("quick", "medium", "patient"),
    "openness": ("particular", "open"),
    "indecision": ("decided", "undecided"),
    "expertise": ("none", "some", "many"),
}
"""The latents of a conversation with their values, in order."""

TURN_LATENTS: dict[str, tuple[str, ...]] = {
    "length": ("1-3", "4-8", "9-15", "16+"),
    "intent": tuple(action.value for action in ACTIONS[Role.USER]),
    "off_topic": ("no", "yes"),
}
"""The latents of a turn with their values, in order."""


def derive_latents(dialogue: Dialogue) -> DialogueLatents:
    """The latents of a conversation, from its user's turns alone.

    Raises:
        ValueError: the user says nothing.
    """
    own = [(index, turn) for index, turn in enumerate(dialogue.turns) if turn.role is Role.USER]
    if not own:
        raise ValueError(f"the dialogue {dialogue.key} has no turn of the user")
    texts = [plain(turn.text) for _, turn in own]
    mean = sum(turn.num_words for _, turn in own) / len(own)
    ends = next((number for number, (_, turn) in enumerate(own, start=1) if turn.action in _ENDING), None)
    if ends is None and dialogue.ending in (Ending.ACCEPTED, Ending.GAVE_UP):
        ends = len(own)
    named = {name for _, turn in own for name in _named(turn, dialogue.domain)}
    session = SessionLatents(
        verbosity=verbosity_of(mean),
        words_per_turn=mean,
        patience=_patience(ends, len(own)),
        num_turns_to_end=ends,
        openness="open" if any(lexicon("openness").search(text) for text in texts) else "particular",
        indecision="undecided" if any(lexicon("indecision").search(text) for text in texts) else "decided",
        expertise="none" if not named else "many" if len(named) >= MANY_NAMED else "some",
        num_named=len(named),
    )
    turns = tuple(
        TurnLatents(
            turn=index,
            intent=turn.action,
            length=length_of(turn.num_words),
            num_words=turn.num_words,
            off_topic=is_off_topic(turn, dialogue.domain),
        )
        for index, turn in own
    )
    return DialogueLatents(scenario_key=dialogue.scenario_key, sample=dialogue.sample, session=session, turns=turns)


def verbosity_of(words_per_turn: float) -> Verbosity:
    """How much somebody says who says so many words per turn."""
    return "terse" if words_per_turn < TERSE_BELOW else "wordy" if words_per_turn >= WORDY_FROM else "medium"


def length_of(num_words: int) -> Length:
    """The bucket of a number of words.

    >>> length_of(3), length_of(4), length_of(40)
    ('1-3', '4-8', '16+')
    """
    for longest, name in _LONGEST:
        if num_words <= longest:
            return name
    return "16+"


def nearest_length(num_words: int) -> int:
    """The one of LENGTHS that is nearest by ratio; of two equally near the longer.

    >>> nearest_length(8), nearest_length(9), nearest_length(17), nearest_length(400)
    (8, 10, 16, 60)
    """
    return min(reversed(LENGTHS), key=lambda length: max(length, num_words) / max(min(length, num_words), 1))


def is_off_topic(turn: Turn, domain: str) -> bool:
    """Whether a user turn is small talk and nothing of what is recommended."""
    text = plain(turn.text)
    return (
        turn.action is not Action.GREETING
        and lexicon("small_talk").search(text) is not None
        and not turn.items
        and lexicon(f"topics/{domain}").search(text) is None
        and not named_aspects(turn.text, domain)
    )


def _patience(ends: int | None, num_turns: int) -> Patience | None:
    if ends is None:
        # Who was still there after so many turns is patient, however it would have ended.
        return "patient" if num_turns >= PATIENT_FROM else None
    return "quick" if ends <= QUICK_UP_TO else "patient" if ends >= PATIENT_FROM else "medium"


def _named(turn: Turn, domain: str) -> set[str]:
    """Items and other names in a turn, comparable across turns; genres written with a capital are none."""
    rest, at = "", 0
    for mention in turn.items:
        rest += turn.text[at : mention.start] + " , "
        at = mention.end
    names = {name.casefold() for name in proper_names(rest + turn.text[at:]) if not named_aspects(name, domain)}
    return names | {title_key(title) for title in turn.titles}
