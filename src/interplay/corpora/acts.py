"""Several acts in one turn: what each sentence does, by the cue words of `tagger`. The turn's action stays the deciding one.

    "Haha, same here! I've seen that one. Do you know anything newer?"    chat, feedback, inquire

An act has to be shown by words of the sentence; a sentence without a cue is none, so acts are rather missed than made up.
`agreement` measures that on IARD, whose people gave every turn all of its intents.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interplay.corpora.messages import Spoken, sentences
from interplay.corpora.tagger import (
    INTENT_PRIORITY,
    actions_of_intents,
    has_seen,
    has_thanks,
    iard_intents,
    is_acceptance,
    is_only_greeting,
    is_question,
    is_rejection,
    tells_wish,
)
from interplay.types import FURTHER_ACTS, Action, Dialogue, Role


def _any_of(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE)


_SMALL_TALK = _any_of(
    r"how(?:'s| is| are| was| have)? (?:it going|things|life|you(?:r)?(?: (?:day|night|evening|weekend|been|doing))?)",
    r"what'?s up|nice to (?:meet|chat|talk)|(?:nice|great|good|lovely|fun) (?:meeting|talking|chatting)",
    r"have a (?:\w+ )?(?:day|night|evening|one|weekend|time)|enjoy (?:your|the) (?:day|night|evening|weekend)",
    r"(?:good ?)?bye|see you|take care|you too|my name is|where (?:are you from|do you live)|i live in|i'?m from",
    r"weather|raining|snowing|sunny|(?:my|this|last|the) (?:weekend|holidays?|vacation)|day off|popcorn|homework",
    r"(?:at|from|my) work|my job|my sofa|(?:some|my) (?:tea|coffee|dinner)|(?:long|busy|hard|rough) (?:day|week)",
    r"movie night|date night|same here",
    r"my (?:wife|husband|kids?|sons?|daughters?|mom|mum|dad|sister|brother|girlfriend|boyfriend|friends?|partner|dog|cat)",
    r"l(?:ol|mao)|(?:ha){2,}h?|he(?:he)+",
)
_LIKES_IT = _any_of(
    r"(?:i|we) (?:really |also |do |absolutely |did )*(?:like|love|enjoy)d? (?:that|this|it|them|those|both)",
    r"(?:that|it)(?:'s| is| was) (?:\w+ )?(?:good|great|awesome|amazing|a classic|one of my)",
)
_ASKS_FOR_MORE = _any_of(
    r"(?:do|would|can|could|have|got|will) (?:you|i|we)(?: (?:possibly|please|maybe|also))?"
    r" (?:have|get|got|help|think of|find|give|name|show|know of|know any|point|tell me (?:a|some|another))",
    r"(?:any|some|an)(?:thing)? (?:\w+ )?(?:else|others?|ideas?|suggestions?|recommendations?|tips|like (?:that|this)|along)",
    r"(?:how|what) about|what (?:else|do you (?:have|suggest))|recommendations?",
)
_ASKS_ABOUT_OFFER = _any_of(
    r"have you (?:ever )?(?:seen|read|watched|heard)|did you (?:see|like|watch|enjoy)|what do you think|interested",
    r"(?:do|does) (?:that|it|this|these|those|either|any)(?: of (?:those|these))? (?:sound|interest|work|help|appeal)",
    r"sounds? good|would (?:you|that|it)|do you (?:think|know|like (?:it|that|this))|how (?:about|does)|what about",
    r"want to (?:try|give|see|watch)|shall we|could that",
)
_IS = r"(?:'s| is| was| are| were) (?:\w+ ){0,3}?"
_EXPLAINS = _any_of(
    r"star(?:s|red|ring|rs)|directed|the cast|based on|plot|story|sequel|prequel|remake|set in|came out|reviews?|rated|won",
    rf"(?:it|that|this|one|they|movie|film)?{_IS}(?:a|an|another|about|really|very|pretty|so|super|great|good|funny|amazing)",
    rf"(?:it|that|this|one|they|movie|film)?{_IS}(?:awesome|hilarious|excellent|classic|scary|cute|sad|nice|popular|fun|best)",
    rf"(?:it|that|this|one|they|movie|film)?{_IS}(?:interesting|favou?rite)|(?:it|he|she) has|about (?:a|an|the|two|how|this)",
    r"(?:you|they|kids) (?:will|would|might|may|'ll) (?:\w+ )?(?:like|love|enjoy|laugh|cry)|oscars?",
)
"""What is said of an item with an offer."""


def acts_of(turns: Sequence[Spoken], actions: Sequence[Action]) -> list[tuple[Action, ...]]:
    """What every turn does beside its action, in the order of its sentences.

    Args:
        turns: the conversation; of a turn nothing is looked at but itself and what came before.
        actions: of each turn, the deciding one.

    Returns:
        For each turn acts of `FURTHER_ACTS`, never its action and none twice.
    """
    found = sentence_acts(turns, actions)
    return [
        tuple(act for act in acts if act is not action and act in FURTHER_ACTS[turn.role])
        for turn, action, acts in zip(turns, actions, found, strict=True)
    ]


def sentence_acts(turns: Sequence[Spoken], actions: Sequence[Action]) -> list[tuple[Action, ...]]:
    """What the sentences of every turn show, its action among it or not. Arguments as `acts_of`."""
    out: list[tuple[Action, ...]] = []
    offered = asked = False
    known: set[str] = set()
    for index, (turn, action) in enumerate(zip(turns, actions, strict=True)):
        found: dict[Action, None] = {}
        named: list[tuple[int, str]] = [(m.start, thing) for m, thing in zip(turn.mentions, turn.things, strict=True)]
        for number, (start, end) in enumerate(sentences(turn.text, turn.mentions, turn.breaks)):
            text = turn.text[start:end]
            new = {thing for at, thing in named if start <= at < end} - known
            if index < 2 and is_only_greeting(text):
                acts: tuple[Action, ...] = (Action.GREETING,)
            elif _SMALL_TALK.search(text) and not new and not tells_wish(text):
                acts = (Action.CHAT,)
            elif turn.role is Role.USER:
                acts = _user(text, action, offered=offered, by_name=bool(new))
            else:
                acts = _recommender(text, action, names_new=bool(new), answers=asked and not number)
            known |= new
            found |= dict.fromkeys(acts)
        out.append(tuple(found))
        if turn.role is Role.USER:
            asked = Action.INQUIRE in (action, *found)
        else:
            offered = offered or bool(turn.mentions)
    return out


def _user(text: str, action: Action, *, offered: bool, by_name: bool) -> tuple[Action, ...]:
    if is_question(text) and _ASKS_FOR_MORE.search(text):
        return (Action.DISCLOSE_GOAL,)
    # To accept is the verdict: what is said for it is no feedback beside it.
    verdict = (Action.FEEDBACK,) if offered and action is not Action.ACCEPT else ()
    if offered and (is_rejection(text) or _LIKES_IT.search(text)):
        return verdict
    if tells_wish(text):
        return verdict if not by_name and has_seen(text) and verdict else (Action.DISCLOSE_GOAL,)
    if text.rstrip().endswith("?"):
        return (Action.INQUIRE,)
    return verdict if not by_name and (has_seen(text) or is_acceptance(text)) else ()


def _recommender(text: str, action: Action, *, names_new: bool, answers: bool) -> tuple[Action, ...]:
    explains = (Action.ANSWER,) if action is Action.RECOMMEND and _EXPLAINS.search(text) else ()
    if names_new:
        return (Action.RECOMMEND, *explains)
    if "?" in text:
        about_offer = action is Action.RECOMMEND and _ASKS_ABOUT_OFFER.search(text)
        return () if about_offer else (Action.INQUIRE,)
    return (Action.ANSWER,) if explains or (answers and len(text.split()) > 2 and not has_thanks(text)) else ()


def with_acts(dialogue: Dialogue) -> Dialogue:
    """The conversation with the acts of all turns; those of turns that bring acts already are kept."""
    turns = dialogue.turns
    found = acts_of([Spoken(t.role, t.text, t.items) for t in turns], [t.action for t in turns])
    if not any(acts and not turn.acts for turn, acts in zip(turns, found, strict=True)):
        return dialogue
    marked = tuple(
        turn if turn.acts or not acts else turn.model_copy(update={"acts": acts})
        for turn, acts in zip(turns, found, strict=True)
    )
    return dialogue.model_copy(update={"turns": marked})


@dataclass(slots=True, frozen=True)
class ActsAgreement:
    """How the rules agree with the people who labelled IARD, for one role."""

    role: Role
    num_turns: int
    labelled_several: float
    """Share of turns to which people gave intents of two or more of our actions, [0, 1]."""
    found_several: float
    """Share of turns in which the rules find an act beside the action."""
    precision: float | None
    """Of the acts found, the share that people saw too; None where none was found."""
    recall: float | None
    """Of the acts that people saw beside the deciding one, the share found; None where they saw none."""


def agreement(path: Path) -> list[ActsAgreement]:
    """The acts that the rules find in IARD's turns, beside those that its intents tell; the action is the labelled one.

    IARD's intent OTH holds greetings, thanks and all else, so `chat` and `greeting` are left out on both sides.

    Args:
        path: the IARD file or its directory.

    Raises:
        DataError: as `tagger.read_iard`.
    """
    ignored = {Action.CHAT, Action.GREETING}
    rows: dict[Role, list[tuple[set[Action], set[Action]]]] = {role: [] for role in Role}
    for turns, intents in zip(*iard_intents(path), strict=True):
        actions = actions_of_intents(turns, intents)
        for turn, own, action, found in zip(turns, intents, actions, acts_of(turns, actions), strict=True):
            labelled = {act for act, names in INTENT_PRIORITY[turn.role] if set(own).intersection(names)}
            rows[turn.role].append((labelled - ignored - {action}, set(found) - ignored))
    out = []
    for role, pairs in rows.items():
        both = sum(len(labelled & found) for labelled, found in pairs)
        num_labelled, num_found = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
        out.append(
            ActsAgreement(
                role=role,
                num_turns=len(pairs),
                labelled_several=sum(bool(labelled) for labelled, _ in pairs) / len(pairs),
                found_several=sum(bool(found) for _, found in pairs) / len(pairs),
                precision=both / num_found if num_found else None,
                recall=both / num_labelled if num_labelled else None,
            )
        )
    return out
