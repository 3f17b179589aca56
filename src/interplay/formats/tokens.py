"""The token rendering of a View, for trained models: ids and who spoke them, from one function.

Ids are concatenated piece by piece and a turn is never tokenised together with its neighbours, so the rendering of a
longer conversation has the shorter one as its prefix, and a cache of it stays valid. Text is encoded with the special
tokens split up: a title or message that contains "<movie_title>" can't forge structure. Knows nothing of backends.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from interplay.errors import CheckpointError
from interplay.formats.parsing import Event, parse_turn, pieces_of_turn
from interplay.formats.reasoning import parse_reasoned_turn, pieces_of_reasoning
from interplay.formats.tags import (
    CANDIDATE,
    END,
    END_OF_TURN,
    GOAL,
    HAS,
    PREFERENCES,
    RANKING,
    REASONING_CLOSE,
    SEEN,
    UNMET,
    candidate_tag,
    cue_tag,
    role_tag,
    structural_tags,
    title_tags,
)
from interplay.types import Action, Advice, Domain, Parts, Role, Turn, View

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
"""The label of a token that is not learned (the convention of torch's cross-entropy)."""


@dataclass(slots=True, frozen=True)
class Rendered:
    """A rendering. `spoken_by[i]` tells whose words `ids[i]` belongs to; None for tags that open turns and the persona."""

    ids: tuple[int, ...]
    spoken_by: tuple[Role | None, ...]

    def labels(self, role: Role) -> list[int]:
        """`ids` where `role` speaks, its end-of-turn token included, and IGNORED elsewhere. Shape (len(ids),)."""
        return [i if who is role else IGNORED for i, who in zip(self.ids, self.spoken_by, strict=True)]


def add_structural_tokens(
    tokenizer: "PreTrainedTokenizerFast",
    domain: Domain,
    *,
    notes: bool = False,
    candidates: bool = False,
    tasks: Collection[str] = (),
    cues: Sequence[str] = (),
    reasoning: bool = False,
) -> int:
    """Add the tags of `structural_tags` to a tokenizer, each as one token. Returns how many were new."""
    from tokenizers import AddedToken

    tags = structural_tags(domain, notes=notes, candidates=candidates, tasks=tasks, cues=cues, reasoning=reasoning)
    tokens = [AddedToken(tag, special=True, normalized=False) for tag in tags]
    return int(tokenizer.add_tokens(tokens, special_tokens=True))


class TokenFormat:
    """Renders Views to ids and reads sampled ids back, with one tokenizer.

    Args:
        tokenizer: a fast tokenizer that knows the structural tags (see `add_structural_tokens`).
        domain: whose title tags are used.
        notes: whether the user's view gets a note after each recommendation: which target attributes it did not name
            (`note_ids`). An aid for models too small to compare by themselves; ours, not the paper's.
        candidates: whether a recommender's view shows the candidates of its knowledge slot (`advice_ids`).
        tasks: what else a user was trained on (`tags.TASK_TAGS`). It changes no rendering of a View; with "flipped" a user
            may say END in place of a turn.
        cues: the kinds of cues that the role's own view shows (`cue_ids`); others are left out.
        reasoning: whether a recommender writes its reasoning and a ranked list before each turn (`formats.reasoning`); only
            its own view shows them, and its candidates come with their attributes.
        acts: whether turns of either role tell all of their acts, and not the action alone.

    Raises:
        CheckpointError: a tag is not one token of this tokenizer.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        domain: Domain,
        *,
        notes: bool = False,
        candidates: bool = False,
        tasks: Collection[str] = (),
        cues: Sequence[str] = (),
        reasoning: bool = False,
        acts: bool = False,
    ) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = tokenizer
        self.domain = domain
        self.notes = notes
        self.candidates = candidates
        self.cues = frozenset(cues)
        self.reasoning = reasoning
        self.acts = acts
        # A copy, so that splitting special tokens here does not change the caller's tokenizer.
        self._text = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._text.encode_special_tokens = True
        self._id_of: dict[str, int] = {}
        for tag in structural_tags(domain, notes=notes, candidates=candidates, tasks=tasks, cues=cues, reasoning=reasoning):
            index = tokenizer.convert_tokens_to_ids(tag)
            if not isinstance(index, int) or tokenizer.decode([index], skip_special_tokens=False) != tag:
                raise CheckpointError(
                    f"the tokenizer has no token {tag}; it was not trained for {domain.plural}: "
                    "train with interplay train, or choose another model"
                )
            self._id_of[tag] = index
        self._tag_of = {index: tag for tag, index in self._id_of.items()}

    @property
    def end_of_turn(self) -> int:
        """Id of the token that closes every turn: where decoding stops."""
        return self._id_of[END_OF_TURN]

    @property
    def end(self) -> int | None:
        """Id of the token that a user may say in place of a turn, to leave; None where it was not trained to."""
        return self._id_of.get(END)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which decoding stops."""
        return (self.end_of_turn,) if self.end is None else (self.end_of_turn, self.end)

    def encode_text(self, text: str) -> list[int]:
        """Ids of running text; tags in it are spelled out, not structure."""
        ids: list[int] = self._text.encode(text, add_special_tokens=False).ids
        return ids

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_text` of each, in one go."""
        return [encoding.ids for encoding in self._text.encode_batch_fast(list(texts), add_special_tokens=False)]

    def tag_id(self, tag: str) -> int:
        """Id of a structural tag.

        Raises:
            KeyError: it is not one of the domain's tags.
        """
        return self._id_of[tag]

    @cached_property
    def reserved_ids(self) -> frozenset[int]:
        """Ids that stand for no text: structural tags and the tokenizer's own special tokens (begin, end, padding, ...)."""
        added = self.tokenizer.added_tokens_decoder
        return frozenset({*self._tag_of, *self.tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)})

    def _encode(self, pieces: Iterable[Event]) -> list[int]:
        out: list[int] = []
        for piece in pieces:
            if piece.is_tag:
                out.append(self._id_of[piece.value])
            else:
                out += self.encode_text(piece.value)
        return out

    def turn_ids(self, turn: Turn) -> list[int]:
        """Ids of what the speaker says: from `<action>` to the end-of-turn token, or END of a user that leaves wordlessly."""
        if self.end is not None and turn.action is Action.GIVE_UP and not turn.text:
            return [self.end]
        return self._encode(pieces_of_turn(turn, self.domain, acts=self.acts))

    def reasoning_ids(self, turn: Turn) -> list[int]:
        """Ids of the reasoning before a turn, in the recommender's own view; empty without `reasoning` or where it has none."""
        if not self.reasoning or turn.reasoning is None:
            return []
        return self._encode(pieces_of_reasoning(turn.reasoning, self.domain, numbered=True))

    def opening_ids(self, role: Role) -> list[int]:
        """Ids that hand the floor to `role`."""
        return [self._id_of[role_tag(role)]]

    def persona_ids(self, view: View) -> list[int]:
        """Ids before the first turn: the model's own begin token if it has one, then what the View shows of the persona."""
        opening, closing = title_tags(self.domain)
        # A blank before each text: the words get the same ids that they have within a sentence.
        pieces: list[Event] = []
        if view.general_preferences:
            pieces += [Event(True, PREFERENCES), Event(False, f" {view.general_preferences}")]
        for known in view.known_items:
            pieces += [Event(True, SEEN), Event(True, opening), Event(False, known.title), Event(True, closing)]
            if known.review:
                pieces.append(Event(False, f" {known.review}"))
        if view.target_attributes:
            pieces += [Event(True, GOAL), Event(False, " " + ", ".join(view.target_attributes))]
        begin = self.tokenizer.bos_token_id
        return ([] if begin is None else [begin]) + self._encode(pieces) + self.cue_ids(view.traits)

    def note_ids(self, view: View, turn: Turn) -> list[int]:
        """Ids that stand behind a heard recommendation: the target attributes its words do not name; empty without `notes`.

        Only words count, not what is known about the item, so nothing reaches the view that was not said.
        """
        if not self.notes or turn.role is view.role or not turn.items:
            return []
        unmet = [a for a in view.target_attributes if not re.search(rf"(?<!\w){re.escape(a)}(?!\w)", turn.text, re.IGNORECASE)]
        return self._encode(event for a in unmet for event in (Event(True, UNMET), Event(False, f" {a}")))

    def advice_ids(self, advice: Advice | None) -> list[int]:
        """Ids that stand before a recommender is handed the floor: the candidates for its turn; empty without `candidates`.

        A title is encoded as between title tags, so that the model can copy it. An action that guidance asks for is not
        shown: it is the first thing of the turn itself (`formats.constraint`). With `reasoning` each candidate has its number
        before it and its attributes behind it.
        """
        if advice is None or not self.candidates:
            return []
        titles = self.encode_texts(advice.candidates)
        if not self.reasoning:
            return [i for title in titles for i in (self._id_of[CANDIDATE], *title)]
        ids: list[int] = []
        for place, title in enumerate(titles):
            ids += (self._id_of[candidate_tag(place + 1)], *title)
            values = advice.attributes[place] if advice.attributes else ()
            ids += self._encode(event for value in values for event in (Event(True, HAS), Event(False, f" {value}")))
        return ids

    def cue_ids(self, parts: Parts) -> list[int]:
        """Ids of cues, which stand before the role is handed the floor; those of kinds that `cues` lacks are left out."""
        shown = [(kind, text) for kind, text in parts if kind in self.cues]
        return self._encode(event for kind, text in shown for event in (Event(True, cue_tag(kind)), Event(False, f" {text}")))

    def render(self, view: View, *, unranked: Collection[int] = ()) -> Rendered:
        """Everything in the View: ids and who spoke them.

        Args:
            view: what is rendered.
            unranked: indexes of turns before which the list and the explanation are nobody's words: there is nothing to learn
                from them.
        """
        ids = self.persona_ids(view)
        spoken_by: list[Role | None] = [None] * len(ids)
        advice = {a.turn: a for a in view.advice}
        cues = {c.turn: c.parts for c in view.cues}

        def before(number: int) -> list[int]:
            return self.advice_ids(advice.get(number)) + self.cue_ids(cues.get(number, ()))

        for number, turn in enumerate(view.turns):
            opening = before(number) + self.opening_ids(turn.role)
            reasoning = self.reasoning_ids(turn) if turn.role is view.role else []
            said, note = self.turn_ids(turn), self.note_ids(view, turn)
            ids += opening + reasoning + said + note
            thought: list[Role | None] = [turn.role] * len(reasoning)
            if reasoning and number in unranked:
                first, end = reasoning.index(self._id_of[RANKING]) + 1, reasoning.index(self._id_of[REASONING_CLOSE])
                thought[first:end] = [None] * (end - first)
            spoken_by += [*[None] * len(opening), *thought, *[turn.role] * len(said), *[None] * len(note)]
        ids += (last := before(len(view.turns)))
        return Rendered(tuple(ids), (*spoken_by, *[None] * len(last)))

    def decode(self, ids: Sequence[int]) -> str:
        """The exact text of ids, tags included."""
        # The tokenizer beneath: transformers' own decode looks at every id in Python, a quarter of what a turn costs.
        return str(self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False))

    def parse(self, ids: Sequence[int], role: Role, advice: Advice | None = None) -> Turn:
        """The Turn that sampled ids spell. Only ids of tags are tags: text that looks like one stays text.

        Args:
            ids: of the whole answer.
            role: who spoke.
            advice: what a recommender that reasons was told for this turn: the candidates that its numbers mean.

        Raises:
            FormatError: see `parsing.parse_turn` and, of a recommender that reasons, `reasoning.parse_reasoning`.
        """
        events: list[Event] = []
        text: list[int] = []
        for index in ids:
            tag = self._tag_of.get(index)
            if tag is None:
                text.append(index)
                continue
            if text:
                events.append(Event(False, self.decode(text)))
                text = []
            events.append(Event(True, tag))
        if text:
            events.append(Event(False, self.decode(text)))
        raw = "".join([event.value for event in events])
        if self.reasoning and role is Role.RECOMMENDER:
            return parse_reasoned_turn(events, role, self.domain, raw, () if advice is None else advice.candidates)
        return parse_turn(events, role, self.domain, raw, acts=self.acts)
