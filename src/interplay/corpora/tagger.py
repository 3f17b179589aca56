"""One Action per turn for corpora without such labels.

`TrainedTagger` is a linear model per role, fitted on IARD (Cai and Chen, UMAP 2020), whose several intents per turn are
first reduced to one of our Actions by `INTENT_PRIORITY`. `RuleTagger` needs no data and works by cue words. Both are
overruled by evidence (`act_on_evidence`): a recommender turn that names a new item recommends.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from interplay.corpora.messages import Spoken
from interplay.errors import DataError
from interplay.store import read_json
from interplay.titles import split_year
from interplay.types import ACTIONS, Action, Mention, Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

INTENT_PRIORITY: dict[Role, tuple[tuple[Action, tuple[str, ...]], ...]] = {
    Role.USER: (
        (Action.ACCEPT, ("ACC",)),
        (Action.FEEDBACK, ("REJ", "CRI-F", "CRI-A", "CRI-C", "SEE", "NRE")),
        (Action.INQUIRE, ("INQ", "ASK")),
        (Action.DISCLOSE_GOAL, ("IQU", "PRO", "ANS", "REF", "STO", "CON")),
        (Action.CHAT, ("OTH",)),
    ),
    Role.RECOMMENDER: (
        (Action.RECOMMEND, ("REC-S", "REC-E")),
        (Action.INQUIRE, ("REQ", "CLQ")),
        (Action.ANSWER, ("EXP-I", "EXP-P", "EXP-S", "R-ANS")),
        (Action.CHAT, ("RESP", "OTH")),
    ),
}
"""The first row with an intent of the turn gives its Action; `chat` in a role's first turn is `greeting`."""

IARD_FILE = "umap2020_IARD_Cai.json"

_GREETING = re.compile(
    r"^\W*(?:hi+|hello+|hey+|hiya|howdy|greetings|good (?:morning|afternoon|evening|day)|how(?:'s| is| are) (?:it|you|things)|"
    r"what'?s up|nice to meet)\b",
    re.IGNORECASE,
)
_WELL = r"(?:i'?m |i am |doing |pretty |very |just )*(?:fine|good|great|well|ok|okay)"
_ONLY_GREETING = re.compile(
    rf"^(?:\W*(?:hi+|hello+|hey+|hiya|howdy|greetings|there|good (?:morning|afternoon|evening|day)|how(?:'s| is| are) "
    rf"(?:it going|you|things|u)|(?:you )?(?:doing )?(?:today|tonight)|what'?s up|nice to (?:meet|chat with) you|{_WELL}|"
    rf"thank(?:s| you)|and you|you|doing|friend|my name is \w+|i'?m \w+))+\W*$",
    re.IGNORECASE,
)
_ACCEPT = re.compile(
    r"\b(?:i(?:'ll| will| would|'d|'m going to| am going to| think i(?:'ll| will)| might| may| can| should| must)"
    r"(?: \w+){0,3}? (?:watch|check|try|give|look|see|add|rent|stream|read|take|get|pick|buy)\b|"
    r"check (?:it|that|this|them|those|both) out|sounds? (?:\w+ )?(?:good|great|perfect|interesting|awesome|amazing|cool)|"
    r"i accept|accept your|(?:you'?ve )?sold|let'?s go with|perfect|i'?m (?:sold|in)\b|"
    r"(?:great|good) (?:suggestion|recommendation|idea)s?)",
    re.IGNORECASE,
)
_THANKS = re.compile(r"\bthank|\bthx\b|\bappreciate", re.IGNORECASE)
_REJECT = re.compile(
    r"\b(?:not (?:really )?(?:a |my |into|interested|in the mood|sure|for me|what)|(?:don'?t|do not|didn'?t|did not|never) "
    r"(?:really |think i |particularly )?(?:like|care|enjoy|want|feel)|hated?|dislike|no thanks?|nah|(?:some|any)thing else|"
    r"another|other (?:options|suggestions|movies?|books?)|too (?:scary|long|old|violent|sad|much))\b|"
    r"^\W*no\b(?!\W*(?:problem|but|i haven|i have not|never))",
    re.IGNORECASE,
)
_FEEDBACK = re.compile(
    r"\b(?:(?:have|'ve|already|just) (?:\w+ )?(?:seen|saw|watched|read|heard)|seen (?:it|that|them|both|all)|saw (?:it|that)|"
    r"(?:haven'?t|have not|never) (?:\w+ )?(?:seen|heard|watched|read)|loved|liked|enjoyed|watched|my favou?rites?)\b",
    re.IGNORECASE,
)
_GOAL = re.compile(
    r"\b(?:looking for|recommend|suggest|i (?:really |usually |mostly |also )?(?:like|love|enjoy|prefer|want|need|am into)|"
    r"i'?m (?:into|a fan|in the mood)|fan of|favou?rites?|in the mood|genre|similar to|something like|anything)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\?|^\W*(?:who|what|when|where|which|why|how|is|are|was|were|do|does|did|can|could|have you|would you)\b", re.IGNORECASE
)
_REQUEST = re.compile(
    r"\b(?:what|which)(?: \w+){0,3} (?:kinds?|types?|genres?|sorts?|movies?|films?|books?)|"
    r"\b(?:do you (?:like|prefer|enjoy|have)|are you (?:looking|into|in)|"
    r"(?:your|a) favou?rite|what (?:do|did|are|were|would) you|have you (?:seen|read|watched|heard))\b",
    re.IGNORECASE,
)


class ActionTagger(Protocol):
    """Gives each turn of whole conversations an Action."""

    name: str
    """Written into the corpus's notes."""

    def tag(self, dialogues: Sequence[Sequence[Spoken]]) -> list[list[Action]]:
        """One Action per turn, allowed for its role; `act_on_evidence` has been applied."""
        ...


def is_only_greeting(text: str) -> bool:
    """Whether a text greets and says nothing else.

    >>> is_only_greeting("Hi there! How are you?"), is_only_greeting("Hi, any good comedies?")
    (True, False)
    """
    return len(text) < 90 and _GREETING.search(text) is not None and _ONLY_GREETING.match(text) is not None


def is_rejection(text: str) -> bool:
    """Whether a user's text turns something down, by cue words."""
    return _REJECT.search(text) is not None


def is_acceptance(text: str) -> bool:
    """Whether a user's text takes something up, by cue words."""
    return _ACCEPT.search(text) is not None and not is_rejection(text)


def has_seen(text: str) -> bool:
    """Whether a user's text says that they know the thing already, by cue words."""
    return _FEEDBACK.search(text) is not None


def is_question(text: str) -> bool:
    """Whether a text asks something, by a question mark or the word that it begins with."""
    return _QUESTION.search(text) is not None


def tells_wish(text: str) -> bool:
    """Whether a user's text says what is wanted, by cue words."""
    return _GOAL.search(text) is not None


def has_thanks(text: str) -> bool:
    """Whether a text says thanks."""
    return _THANKS.search(text) is not None


def intents_to_action(role: Role, intents: Iterable[str], *, first: bool) -> Action:
    """Reduce the IARD labels of a turn to one Action by `INTENT_PRIORITY`.

    >>> intents_to_action(Role.USER, ["SEE", "PRO"], first=False)
    <Action.FEEDBACK: 'feedback'>
    """
    given = set(intents)
    for action, labels in INTENT_PRIORITY[role]:
        if given.intersection(labels):
            return Action.GREETING if action is Action.CHAT and first else action
    return Action.GREETING if first else Action.CHAT


def newly_named(turns: Sequence[Spoken]) -> list[int]:
    """For each turn, how many of its items nobody has mentioned before."""
    known: set[str] = set()
    out = []
    for turn in turns:
        new = set(turn.things) - known
        out.append(len(new))
        known |= new
    return out


def act_on_evidence(
    turns: Sequence[Spoken], index: int, action: Action, *, num_new: int, offered: bool, before: Action | None
) -> Action:
    """Overrule a guess where the turn itself shows what it is.

    Args:
        turns: the conversation.
        index: the turn in question.
        action: the guess.
        num_new: how many items it names that nobody has mentioned before.
        offered: whether the recommender has named an item in an earlier turn.
        before: the Action of the turn before.
    """
    turn = turns[index]
    opening = index < 2
    if turn.role is Role.RECOMMENDER:
        if num_new:
            return Action.RECOMMEND
        if action is Action.RECOMMEND and not turn.mentions:
            if turn.text.rstrip().endswith("?"):
                return Action.INQUIRE
            return Action.ANSWER if before is Action.INQUIRE else Action.CHAT
    elif action is Action.ACCEPT and not offered:
        action = Action.DISCLOSE_GOAL if _GOAL.search(turn.text) else Action.CHAT
    if opening and is_only_greeting(turn.text):
        return Action.GREETING
    greets = opening and (_GREETING.search(turn.text) is not None or before is Action.GREETING)
    if action is not Action.GREETING or greets:
        return action
    # Position alone makes a greeting likely; without its words it is something else.
    if turn.role is Role.RECOMMENDER:
        asked = before is Action.INQUIRE or (index > 0 and "?" in turns[index - 1].text)
        return Action.INQUIRE if turn.text.rstrip().endswith("?") else Action.ANSWER if asked else Action.CHAT
    return Action.DISCLOSE_GOAL if before is Action.INQUIRE or _GOAL.search(turn.text) else Action.CHAT


class RuleTagger:
    """Actions by cue words; needs no data."""

    name = "rules"

    def tag(self, dialogues: Sequence[Sequence[Spoken]]) -> list[list[Action]]:
        """See `ActionTagger`."""
        return [self._one(turns) for turns in dialogues]

    def _one(self, turns: Sequence[Spoken]) -> list[Action]:
        out: list[Action] = []
        offered = False
        for index, (turn, num_new) in enumerate(zip(turns, newly_named(turns), strict=True)):
            before = out[-1] if out else None
            guess = self._user(turn.text, before) if turn.role is Role.USER else self._recommender(turn.text, before)
            out.append(act_on_evidence(turns, index, guess, num_new=num_new, offered=offered, before=before))
            offered = offered or (turn.role is Role.RECOMMENDER and bool(turn.mentions))
        return out

    @staticmethod
    def _user(text: str, before: Action | None) -> Action:
        after_offer = before in (Action.RECOMMEND, Action.ANSWER)
        if _ACCEPT.search(text) and not _REJECT.search(text) and before is not None:
            return Action.ACCEPT
        if after_offer and (_REJECT.search(text) or _FEEDBACK.search(text)):
            return Action.FEEDBACK
        if _GOAL.search(text):
            return Action.DISCLOSE_GOAL
        if after_offer and _THANKS.search(text):
            return Action.ACCEPT
        if _QUESTION.search(text):
            return Action.INQUIRE
        if before is Action.INQUIRE:
            return Action.DISCLOSE_GOAL
        return Action.FEEDBACK if _FEEDBACK.search(text) else Action.CHAT

    @staticmethod
    def _recommender(text: str, before: Action | None) -> Action:
        if _REQUEST.search(text) or text.rstrip().endswith("?"):
            return Action.INQUIRE
        return Action.ANSWER if before is Action.INQUIRE else Action.CHAT


# Weight of the hand-made features beside tf-idf; a turn has a handful of them, all 0 or 1.
_PREVIOUS = (None, *Action)
_NUM_DENSE = 12 + len(_PREVIOUS)


def _dense(turns: Sequence[Spoken], index: int, num_new: int, offered: bool, before: Action | None) -> list[float]:
    """The hand-made features of a turn: `(12 + number of actions + 1,)`, each 0 or 1."""
    turn = turns[index]
    words = turn.text.split()
    last = turn.text.rstrip()
    return [
        float(num_new > 0),
        float(num_new > 1),
        float(len(turn.mentions) > num_new),
        float(offered),
        float(index == 0),
        float(index == 1),
        float(2 <= index < 5),
        float(index >= len(turns) - 2),
        float(last.endswith("?")),
        float("?" in last),
        float(len(words) < 5),
        float(len(words) > 20),
        *(float(before is p) for p in _PREVIOUS),
    ]


def _features_text(turn: Spoken) -> str:
    """A turn's text in lower case with each title replaced by one word, so that no title is learnt."""
    out, at = "", 0
    for mention in turn.mentions:
        out += turn.text[at : mention.start] + " xitemx "
        at = mention.end
    return (out + turn.text[at:]).casefold()


@dataclass(slots=True)
class _RoleModel:
    """Scores = tf-idf of the text times `text_weights` plus the dense features times `dense_weights` plus `bias`."""

    vectorizer: Any
    actions: tuple[Action, ...]
    text_weights: "Matrix"
    """`(vocabulary, num_actions)`."""
    dense_weights: "Matrix"
    """`(num_dense, num_actions)`."""
    bias: "Matrix"
    """`(num_actions,)`."""


class TrainedTagger:
    """A linear model per role. Make one with `fit`."""

    name = "iard"

    def __init__(self, models: dict[Role, _RoleModel]) -> None:
        self._models = models

    @classmethod
    def fit(cls, dialogues: Sequence[Sequence[Spoken]], actions: Sequence[Sequence[Action]]) -> "TrainedTagger":
        """Fit on labelled conversations.

        Word 1-2-grams and character 2-5-grams (tf-idf) plus hand-made features (new items named, position, question
        mark, the Action before), logistic regression with balanced class weights; no randomness.

        Args:
            dialogues: the turns.
            actions: their labels.
        """
        import numpy as np
        from scipy.sparse import csr_matrix, hstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import FeatureUnion

        models = {}
        for role in Role:
            texts, dense, labels = [], [], []
            for turns, gold in zip(dialogues, actions, strict=True):
                offered = False
                for index, (turn, num_new) in enumerate(zip(turns, newly_named(turns), strict=True)):
                    if turn.role is role:
                        texts.append(_features_text(turn))
                        dense.append(_dense(turns, index, num_new, offered, gold[index - 1] if index else None))
                        labels.append(gold[index].value)
                    offered = offered or (turn.role is Role.RECOMMENDER and bool(turn.mentions))
            vectorizer = FeatureUnion(
                [
                    (
                        "words",
                        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|\?"),
                    ),
                    ("chars", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=4, sublinear_tf=True)),
                ]
            )
            features = hstack([vectorizer.fit_transform(texts), csr_matrix(np.asarray(dense))]).tocsr()
            model = LogisticRegression(C=2.0, max_iter=400, class_weight="balanced")
            model.fit(features, labels)
            weights = np.asarray(model.coef_, dtype=np.float64).T
            models[role] = _RoleModel(
                vectorizer,
                tuple(Action(c) for c in model.classes_),
                weights[:-_NUM_DENSE],
                weights[-_NUM_DENSE:],
                np.asarray(model.intercept_, dtype=np.float64),
            )
        return cls(models)

    def tag(self, dialogues: Sequence[Sequence[Spoken]]) -> list[list[Action]]:
        """See `ActionTagger`. The text is scored at once, the turns then one by one, as each needs the Action before."""
        import numpy as np

        scores: dict[Role, Iterator[Any]] = {}
        for role, model in self._models.items():
            texts = [_features_text(t) for turns in dialogues for t in turns if t.role is role]
            scores[role] = iter(model.vectorizer.transform(texts) @ model.text_weights) if texts else iter(())
        out = []
        for turns in dialogues:
            actions: list[Action] = []
            offered = False
            for index, (turn, num_new) in enumerate(zip(turns, newly_named(turns), strict=True)):
                model = self._models[turn.role]
                before = actions[-1] if actions else None
                dense = np.asarray(_dense(turns, index, num_new, offered, before))
                total = next(scores[turn.role]) + dense @ model.dense_weights + model.bias
                guess = model.actions[int(np.argmax(total))]
                actions.append(act_on_evidence(turns, index, guess, num_new=num_new, offered=offered, before=before))
                offered = offered or (turn.role is Role.RECOMMENDER and bool(turn.mentions))
            out.append(actions)
        return out


_IARD_TITLE = re.compile(r"@(\d+)\s*<([^<>]*)>")


def iard_intents(path: Path) -> tuple[list[list[Spoken]], list[list[tuple[str, ...]]]]:
    """The IARD conversations with all intents of every turn.

    Args:
        path: the JSON file, plain or gzip, or the directory that holds it.

    Raises:
        DataError: missing, damaged, or of another shape.
    """
    if path.is_dir():
        path = next((p for p in (path / IARD_FILE, path / f"{IARD_FILE}.gz") if p.is_file()), path / IARD_FILE)
    data = read_json(path)
    dialogues, intents = [], []
    try:
        for record in data.values():
            turns, own = [], []
            for turn in record["dialogue_info"].values():
                role = Role.USER if turn["role"] == "seeker" else Role.RECOMMENDER
                own.append(tuple(turn["sub-intent/action"]))
                turns.append(_iard_turn(role, turn["utterance_text"]))
            dialogues.append(turns)
            intents.append(own)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the IARD file: expected a map of conversations with dialogue_info, role, utterance_text and "
            f"sub-intent/action ({type(error).__name__}: {error})"
        ) from None
    return dialogues, intents


def read_iard(path: Path) -> tuple[list[list[Spoken]], list[list[Action]]]:
    """The IARD conversations with one Action per turn. Arguments and errors as `iard_intents`."""
    dialogues, intents = iard_intents(path)
    return dialogues, [actions_of_intents(turns, own) for turns, own in zip(dialogues, intents, strict=True)]


def actions_of_intents(turns: Sequence[Spoken], intents: Sequence[Iterable[str]]) -> list[Action]:
    """The deciding Action of every turn of a conversation, by `intents_to_action`."""
    roles: set[Role] = set()
    actions = []
    for turn, own in zip(turns, intents, strict=True):
        actions.append(intents_to_action(turn.role, own, first=turn.role not in roles))
        roles.add(turn.role)
    return actions


def _iard_turn(role: Role, source: str) -> Spoken:
    text, mentions, at = "", [], 0
    source = html.unescape(source)
    for match in _IARD_TITLE.finditer(source):
        text += source[at : match.start()]
        name, year = split_year(match.group(2))
        label = (name if year is None else f"{name} ({year})") or match.group(1)
        mentions.append(Mention(start=len(text), end=len(text) + len(label), item_id=match.group(1)))
        text += label
        at = match.end()
    return Spoken(role, text + source[at:], tuple(mentions), (source,))


def load_tagger(iard: Path | None) -> "TrainedTagger | RuleTagger":
    """The tagger trained on IARD where its file is there, else the one by rules.

    Args:
        iard: the file or its directory; None when there is none.

    Raises:
        DataError: the file is damaged.
    """
    if iard is None or not (iard.is_file() or any((iard / f"{IARD_FILE}{end}").is_file() for end in ("", ".gz"))):
        return RuleTagger()
    return TrainedTagger.fit(*read_iard(iard))


@dataclass(slots=True, frozen=True)
class TaggerScore:
    """Cross-validated quality of the tagger for one role."""

    role: Role
    macro_f1: float
    """Unweighted mean over the actions that occur in the labels of the F1 of each, [0, 1]."""
    majority_macro_f1: float
    """The same for always guessing the most frequent action of the training folds."""
    accuracy: float
    """Share of turns with the right action, [0, 1]."""
    rules_macro_f1: float
    """The same macro-F1 for `RuleTagger`, which needs no training."""
    f1: dict[Action, tuple[float, int]]
    """F1 and number of labelled turns per action."""


def cross_validate(iard_path: Path, folds: int = 5, seed: int = 0) -> list[TaggerScore]:
    """How well the tagger predicts IARD's actions on conversations that it has not seen.

    Conversations, not turns, are put into folds. Predictions use the predicted Action before, never the labelled one, and
    are those after `act_on_evidence`, so the figure holds for what a corpus gets.

    Args:
        iard_path: the IARD file or its directory.
        folds: number of folds, at least 2.
        seed: shuffles the conversations.
    """
    import random

    from sklearn.metrics import accuracy_score, f1_score

    dialogues, actions = read_iard(iard_path)
    order = list(range(len(dialogues)))
    random.Random(seed).shuffle(order)
    predicted: dict[int, list[Action]] = {}
    majority: dict[int, dict[Role, Action]] = {}
    for fold in range(folds):
        held_out = order[fold::folds]
        train = [i for i in order if i not in set(held_out)]
        tagger = TrainedTagger.fit([dialogues[i] for i in train], [actions[i] for i in train])
        predicted.update(zip(held_out, tagger.tag([dialogues[i] for i in held_out]), strict=True))
        most = {role: _most_frequent(role, dialogues, actions, train) for role in Role}
        majority.update((i, most) for i in held_out)
    rules = dict(enumerate(RuleTagger().tag(dialogues)))
    out = []
    for role in Role:
        at = [(i, k) for i, turns in enumerate(dialogues) for k, turn in enumerate(turns) if turn.role is role]
        gold = [actions[i][k].value for i, k in at]
        labels = sorted(set(gold))

        def macro(guesses: list[str], gold: list[str] = gold, labels: list[str] = labels) -> float:
            return float(f1_score(gold, guesses, labels=labels, average="macro", zero_division=0.0))

        own = [predicted[i][k].value for i, k in at]
        each = f1_score(gold, own, labels=labels, average=None, zero_division=0.0)
        out.append(
            TaggerScore(
                role=role,
                macro_f1=macro(own),
                majority_macro_f1=macro([majority[i][role].value for i, _ in at]),
                accuracy=float(accuracy_score(gold, own)),
                rules_macro_f1=macro([rules[i][k].value for i, k in at]),
                f1={Action(a): (float(f), gold.count(a)) for a, f in zip(labels, each, strict=True)},
            )
        )
    return out


def _most_frequent(
    role: Role, dialogues: Sequence[Sequence[Spoken]], actions: Sequence[Sequence[Action]], rows: Sequence[int]
) -> Action:
    seen = [a for i in rows for t, a in zip(dialogues[i], actions[i], strict=True) if t.role is role]
    return max(ACTIONS[role], key=seen.count)
