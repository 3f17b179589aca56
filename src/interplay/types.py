"""The records: every noun of the toolkit that crosses disk or HTTP, frozen and versioned.

What one role may see of a Scenario is a View, and a View is built from a whitelist of fields in `view_of`; the hidden
target has no path into it. Derived values are properties, never stored. Knows nothing of files, models or prompts.
"""

import hashlib
import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from json.encoder import encode_basestring_ascii
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from interplay.titles import YEARS, is_title, names_title, remove_title, split_year, title_key

RECORD_VERSION = 1
"""Version of the JSON form of Dialogue and Scenario; raised when an older reader would misread a newer file."""


class Role(StrEnum):
    """Who speaks."""

    USER = "user"
    RECOMMENDER = "recommender"

    @property
    def other(self) -> "Role":
        """The role on the other side of the conversation."""
        return Role.RECOMMENDER if self is Role.USER else Role.USER


class Action(StrEnum):
    """The typed act of a turn (Interplay, section 3; `chat`, `answer` and `give-up` are ours)."""

    GREETING = "greeting"
    INQUIRE = "inquire"
    RECOMMEND = "recommend"
    CHAT = "chat"
    ANSWER = "answer"
    DISCLOSE_GOAL = "disclose-goal"
    FEEDBACK = "feedback"
    ACCEPT = "accept"
    GIVE_UP = "give-up"


ACTIONS: dict[Role, tuple[Action, ...]] = {
    Role.RECOMMENDER: (Action.GREETING, Action.INQUIRE, Action.RECOMMEND, Action.CHAT, Action.ANSWER),
    Role.USER: (
        Action.GREETING,
        Action.DISCLOSE_GOAL,
        Action.FEEDBACK,
        Action.ACCEPT,
        Action.INQUIRE,
        Action.CHAT,
        Action.GIVE_UP,
    ),
}
"""The actions each role may take."""

FURTHER_ACTS: dict[Role, tuple[Action, ...]] = {
    role: tuple(a for a in actions if a not in (Action.ACCEPT, Action.GIVE_UP)) for role, actions in ACTIONS.items()
}
"""What a turn may do beside its action; to accept or to give up decides a turn."""


class Ending(StrEnum):
    """Why a conversation ended: exactly one of these. The last two are faults, not outcomes, of the conversation's content."""

    ACCEPTED = "accepted"
    GAVE_UP = "gave-up"
    TURN_LIMIT = "turn-limit"
    LOOP = "loop"
    FORMAT_FAILURE = "format-failure"
    CONTEXT_OVERFLOW = "context-overflow"
    BACKEND_FAILURE = "backend-failure"


class Split(StrEnum):
    """The part of a corpus a conversation belongs to."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class Record(BaseModel):
    """Base of everything that is written to disk: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, cache_strings="keys")

    def to_json(self) -> str:
        """One line of JSON (no newline at the end); `model_validate_json` reads it back unchanged."""
        return self.model_dump_json()


def content_hash(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part, for example (run seed, scenario key, sample index)."""
    # The JSON array of the parts, as json.dumps writes it at four times the cost.
    text = ", ".join([encode_basestring_ascii(part) if isinstance(part, str) else int.__repr__(part) for part in parts])
    digest = hashlib.blake2b(f"[{text}]".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Domain(Record):
    """What the items are called and tagged as. A new domain is a new line of data, not a subclass."""

    name: str
    """For example "movie"."""
    noun: str
    """One item in running text, for example "movie"."""
    plural: str
    """Several items in running text, for example "movies"."""
    tag: str
    """Name of the structural tag around a title, for example "movie_title"."""


DOMAINS: dict[str, Domain] = {
    d.name: d
    for d in (
        Domain(name="movie", noun="movie", plural="movies", tag="movie_title"),
        Domain(name="book", noun="book", plural="books", tag="book_title"),
        Domain(name="song", noun="song", plural="songs", tag="song_title"),
        Domain(name="restaurant", noun="restaurant", plural="restaurants", tag="restaurant_name"),
        Domain(name="product", noun="product", plural="products", tag="product_name"),
    )
}
"""The domains known by name. The tag of movies is the one the Interplay paper prints."""


class Item(Record):
    """Something that can be recommended."""

    id: str
    title: str = Field(min_length=1)
    """Without the year."""
    year: int | None = None
    attributes: dict[str, tuple[str, ...]] = {}
    """For example {"genre": ("crime", "drama"), "director": ("Michael Mann",)}."""
    text: str = ""
    """Free description, may be empty."""

    @property
    def label(self) -> str:
        """How the item is written in a conversation: "Heat (1995)", or the title alone when the year is unknown or ancient."""
        return f"{self.title} ({self.year})" if self.year in YEARS else self.title


class Catalog:
    """The Items of one domain, found by id or by title.

    Args:
        items: the items; ids must be distinct.
        domain: their domain.

    Raises:
        ValueError: two items have one id.
    """

    def __init__(self, items: Iterable[Item], domain: Domain) -> None:
        self.domain = domain
        self._by_id: dict[str, Item] = {}
        self._by_key: dict[str, list[Item]] = {}
        for item in items:
            if item.id in self._by_id:
                raise ValueError(f"two items have the id {item.id!r}: {self._by_id[item.id].label} and {item.label}")
            self._by_id[item.id] = item
            self._by_key.setdefault(title_key(item.title), []).append(item)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._by_id.values())

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._by_id

    def __getitem__(self, item_id: str) -> Item:
        return self._by_id[item_id]

    def get(self, item_id: str | None) -> Item | None:
        """The item with this id, or None."""
        return None if item_id is None else self._by_id.get(item_id)

    def find(self, title: str, year_tolerance: int = 2) -> Item | None:
        """The item that a written title ("heat", "Matrix, The (1999)") means, or None.

        Spelling is compared by `titles.title_key`. A year, when written, must lie within `year_tolerance` of an item's
        (items without a year agree with any); the nearest year wins. Without a year, a title shared by several items
        means the one with the most recent year.
        """
        name, year = split_year(title)
        same = self._by_key.get(title_key(name), [])
        if year is None:
            return max(same, key=lambda i: i.year or 0, default=None)
        near = [i for i in same if i.year is None or abs(i.year - year) <= year_tolerance]
        return min(near, key=lambda i: abs((i.year or year) - year) + (i.year is None) * 0.5, default=None)

    @cached_property
    def digest(self) -> str:
        """Content hash over all items, in order."""
        return content_hash([item.model_dump(mode="json") for item in self])


class KnownItem(Record):
    """An item the user has seen before, with the user's own words about it."""

    title: str
    """As written in conversation (`Item.label`)."""
    review: str
    item_id: str | None = None


class Persona(Record):
    """Who the user is. Every field may be empty; none may name the target (checked by Scenario)."""

    general_preferences: str = ""
    """A summary of what the user likes and dislikes in general."""
    known_items: tuple[KnownItem, ...] = ()
    target_attributes: tuple[str, ...] = ()
    """What the user looks for today, for example ("crime", "1990s", "tense")."""

    def without(self, titles: Iterable[str]) -> "Persona":
        """This persona with every naming of the titles taken out; attributes and known items that name one are dropped."""

        def scrubbed(text: str, title: str) -> str:
            # A text that is nothing but the title names it, even where the title is an everyday word ("Up", "It").
            rest = remove_title(text, title)
            return "" if title_key(rest) == title_key(title) else rest

        persona = self
        for title in titles:
            persona = Persona(
                general_preferences=scrubbed(persona.general_preferences, title),
                known_items=tuple(
                    k.model_copy(update={"review": scrubbed(k.review, title)})
                    for k in persona.known_items
                    if not names_title(k.title, title) and title_key(k.title) != title_key(title)
                ),
                target_attributes=tuple(
                    a for a in persona.target_attributes if not names_title(a, title) and title_key(a) != title_key(title)
                ),
            )
        return persona

    def texts(self) -> Iterator[str]:
        """Every free text of the persona."""
        yield self.general_preferences
        for known in self.known_items:
            yield known.title
            yield known.review
        yield from self.target_attributes


class Target(Record):
    """The item a conversation leads to. It lives only in a Scenario."""

    item_id: str
    title: str
    """As written in conversation (`Item.label`)."""


class Scenario(Record):
    """What one conversation starts from.

    Raises:
        ValueError: the persona names a target.
    """

    version: int = RECORD_VERSION
    corpus: str
    """Name of the corpus it was derived from."""
    domain: str
    """Name of the Domain."""
    split: Split
    source_id: str
    """Identifies the conversation in its corpus."""
    user_id: str | None = None
    """The person who spoke as the user, where the corpus tells."""
    recommender_id: str | None = None
    """The person who spoke as the recommender in the log, where the corpus tells; not part of the key."""
    persona: Persona
    targets: tuple[Target, ...] = ()
    """Hidden from both roles. Empty when the source conversation ended without an accepted item."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but the copy does not inherit a key computed before the update."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("key", None)
        return copy

    @model_validator(mode="after")
    def _persona_does_not_name_a_target(self) -> Self:
        for target in self.targets:
            for text in self.persona.texts():
                if text and (names_title(text, target.title) or is_title(text, target.title)):
                    raise ValueError(f"the persona names the hidden target {target.title!r}: {text[:80]!r}")
        return self

    @cached_property
    def key(self) -> str:
        """Content hash: the identity of the scenario."""
        return content_hash(self.model_dump(mode="json", exclude={"recommender_id"}))


Parts = tuple[tuple[str, str], ...]
"""The parts of a cue: (kind, text) in the order in which they are shown: (("intent", "accept"), ("length", "8"))."""

SESSION_CUES = ("verbosity", "patience", "openness", "indecision", "expertise")
"""Cues of a whole conversation, which a user can be told: see `metrics.latents`."""
TURN_CUES: dict[Role, tuple[str, ...]] = {
    Role.USER: ("intent", "off-topic", "length"),
    Role.RECOMMENDER: ("strategy",),
}
"""Cues of a single turn, in the order in which they are shown."""
BELIEF = "belief"
"""Cue of a user that tells no turn how to be: what it holds before the turn (`simulation.beliefs`). Shown after the others."""
FIT = "fit"
"""Cue of a user that tells no turn how to be: whether what is on offer has what it looks for (`simulation.fit`). Shown last."""
STATE_CUES = (BELIEF, FIT)
"""Cues of what a user holds and knows, in the order in which they are shown; `training` has a flag for each."""


def cues_for(role: Role) -> tuple[str, ...]:
    """Every kind of cue that tells a role how to speak, in the order in which they are shown."""
    return (*(SESSION_CUES if role is Role.USER else ()), *TURN_CUES[role])


class Mention(Record):
    """A title inside a turn's text.

    `text[start:end]` is the title as written; offsets count characters.
    """

    start: int
    end: int
    item_id: str | None = None
    """The catalog item it was linked to; None when no item matched."""


class Preference(Record):
    """Something that is wanted: an attribute's value, and its kind."""

    kind: str = Field(min_length=1)
    """For example "genre"."""
    value: str = Field(min_length=1)
    """For example "crime"."""


class Match(Record):
    """What of the wanted one title has."""

    title: str = Field(min_length=1)
    values: tuple[str, ...] = ()
    """The wanted values that it has."""
    score: int = Field(ge=0)
    """How well it fits: in traces made by rules, the number of values, at most `formats.tags.MOST_SCORE`."""


class Listed(Record):
    """A place of a ranked list."""

    title: str = Field(min_length=1)
    """As written (`Item.label`)."""
    item_id: str | None = None
    """The catalog item that the title means; None when there is none, or nobody has looked."""


class Reasoning(Record):
    """What a recommender that reasons writes before its turn, in five stages. Nobody but itself ever sees it.

    Preference inference, attribute matching and scoring, ranking, explanation: the stages of SMTPO (arXiv 2604.03671).
    """

    preferences: tuple[Preference, ...] = ()
    """What the user is taken to want."""
    matches: tuple[Match, ...] = ()
    """Of the titles to choose from, those that have any of it."""
    ranking: tuple[Listed, ...] = ()
    """The ranked list, best first, as it was written: whether it is as long as asked for is for `formats.reasoning` to say."""
    explanation: str = ""
    """A few words on the first of the list; may be empty."""
    candidates: tuple[str, ...] = ()
    """Titles that it was told to choose from, best first by whoever found them; empty when it was free."""


class Turn(Record):
    """One speaker's contribution, all consecutive messages joined.

    Raises:
        ValueError: a mention lies outside the text, is empty, or overlaps its predecessor; the action is the other role's;
            an act is none of FURTHER_ACTS, is the action, or stands there twice.
    """

    role: Role
    action: Action
    text: str
    acts: tuple[Action, ...] = Field(default=(), exclude_if=operator.not_)
    """What the turn does beside its action, in the order of its sentences; left out of the JSON where empty."""
    items: tuple[Mention, ...] = ()
    """Titles in the text, in order."""
    strategies: tuple[str, ...] = ()
    """Sociable strategies of a recommender turn where the corpus labels them (INSPIRED)."""
    raw: tuple[str, ...] = ()
    """The source messages before merging, or the model's exact output."""
    reasoning: Reasoning | None = Field(default=None, exclude_if=operator.not_)
    """What a recommender that reasons wrote before it spoke; the user does not hear it. Left out of the JSON where None."""
    cues: Parts = Field(default=(), exclude_if=operator.not_)
    """What the speaker was told of this turn before it spoke: labels of what it says. Left out of the JSON where empty."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        end = 0
        for mention in self.items:
            if not end <= mention.start < mention.end <= len(self.text):
                raise ValueError(f"mention {mention.start}:{mention.end} does not fit a text of {len(self.text)} characters")
            end = mention.end
        if self.action not in ACTIONS[self.role]:
            accepted = ", ".join(ACTIONS[self.role])
            raise ValueError(f"{self.role} can't take the action {self.action.value!r}; accepted: {accepted}")
        if self.acts:
            left = [act for act in FURTHER_ACTS[self.role] if act is not self.action]
            if len(set(self.acts)) < len(self.acts) or not set(self.acts) <= set(left):
                given = ", ".join(self.acts)
                raise ValueError(f"beside {self.action.value} a {self.role} may do each of {', '.join(left)} once, not {given}")
        if self.reasoning is not None and self.role is not Role.RECOMMENDER:
            raise ValueError(f"only a recommender's turn holds reasoning, not a {self.role}'s")
        return self

    @property
    def heard(self) -> "Turn":
        """The turn as the other side has it: without the cues, and without the reasoning, which the exact output holds too."""
        if self.reasoning is not None:
            return self.model_copy(update={"reasoning": None, "cues": (), "raw": ()})
        return self.model_copy(update={"cues": ()}) if self.cues else self

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles as written, in order."""
        if not self.items:  # most turns
            return ()
        text = self.text
        return tuple([text[m.start : m.end] for m in self.items])

    @property
    def num_words(self) -> int:
        """Words of the text, split at white space."""
        return len(self.text.split())


class Failure(Record):
    """What broke, for dialogues that a fault ended."""

    boundary: str
    """One of "format", "context", "backend"."""
    role: Role
    reason: str
    raw: str = ""
    """The output that could not be read, if any."""
    kind: str | None = None
    """For "backend": one of `errors.BackendError.KINDS`, which are counted apart. None in records that do not tell."""


class Dialogue(Record):
    """The record of one conversation: one line of `dialogues.jsonl`."""

    version: int = RECORD_VERSION
    scenario_key: str
    sample: int = 0
    """0, 1, ... when one scenario is played several times."""
    corpus: str
    domain: str
    user: str
    """Name of the user agent, or "human"."""
    recommender: str
    """Name of the recommender agent, or "human"."""
    seed: int | None = None
    """Seed of this conversation; None for a log."""
    turns: tuple[Turn, ...]
    ending: Ending | None
    """None when a log does not tell."""
    failure: Failure | None = None
    traits: Parts = Field(default=(), exclude_if=operator.not_)
    """What the simulated user was told of itself before the first turn. Left out of the JSON where empty."""
    noisy_turns: tuple[int, ...] = Field(default=(), exclude_if=operator.not_)
    """Indexes of user turns whose verdict simulated noise has turned round (`simulation.noise`); no View holds this."""

    @property
    def key(self) -> str:
        """Identifies the dialogue within a Run."""
        return f"{self.scenario_key}.{self.sample}"

    @property
    def accepted_items(self) -> tuple[Mention, ...]:
        """The mentions that an `accept` turn takes; empty when nothing was accepted. See `accepted_mentions`."""
        return accepted_mentions(self.turns)


def accepted_mentions(turns: tuple[Turn, ...]) -> tuple[Mention, ...]:
    """What the last turn accepts, when it is an `accept`.

    The titles it names itself that the recommender has named before; else all titles of the recommender's latest turn
    that has any. Empty when the last turn is not an accept, or nothing was recommended.
    """
    if not turns or turns[-1].action is not Action.ACCEPT:
        return ()
    if turns[-1].items:
        offered: dict[str, Mention] = {}
        for turn in turns[:-1]:
            if turn.role is Role.RECOMMENDER:
                offered.update((title_key(title), m) for title, m in zip(turn.titles, turn.items, strict=True))
        named = [offered[title_key(t)] for t in turns[-1].titles if title_key(t) in offered]
        if named:
            return tuple(named)
    for turn in reversed(turns[:-1]):
        if turn.role is Role.RECOMMENDER and turn.items:
            return turn.items
    return ()


class ScoreRow(Record):
    """One measured number: one line of `scores.jsonl`."""

    metric: str
    """For example "replay.success_rate"."""
    value: float | None
    """None when it could not be measured; never a stand-in zero."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    n: int
    """What the value is a mean over (its denominator)."""
    num_skipped: int = 0
    """What could not be scored and is not in the denominator."""
    split: str
    subject: str
    """What was scored: a model path, an agent's name, a Run."""
    simulator: str | None = None
    """The user agent on the other side, where there was one."""
    condition: str = "standard"
    """The variant of the protocol, for example "shuffled-attributes"."""
    seed: int
    data_digest: str
    """Content hash of the scenarios scored."""
    package_version: str
    """With the commit once it is written: see `provenance.code_version`."""


class CheckKind(StrEnum):
    """What a recommender that is optimised is measured on."""

    TRAINING = "training"
    """A simulator that it is trained on."""
    HELD_OUT = "held-out"
    """A simulator that it is only measured with."""
    HUMAN = "human"
    """Logs of people."""


class Check(Record):
    """A score of the recommender after a step of its optimisation: one line of `logs/checks.jsonl`."""

    step: int
    simulator: str
    """The user simulator, or the data of people."""
    kind: CheckKind
    metric: str
    value: float | None
    """None when it could not be measured."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    n: int
    """What the value is a mean over."""


class Alarm(Record):
    """Something that drifts while a recommender is optimised: one line of `alarms.jsonl`. See `training.monitor`."""

    step: int
    alarm: str
    """Its name."""
    value: float
    """What was measured."""
    limit: float
    """What it should not have passed."""
    says: str
    """In words."""


@dataclass(slots=True, frozen=True)
class Advice:
    """What the slots of a recommender put before it for one turn; made of nothing but what its View shows."""

    turn: int
    """Index of the turn that it is for."""
    candidates: tuple[str, ...] = ()
    """Titles (`Item.label`) that the knowledge slot found, best first."""
    action: Action | None = None
    """What the guidance slot says to do."""
    attributes: tuple[tuple[str, ...], ...] = ()
    """Attribute values of each candidate, for recommenders that reason; empty where none are shown."""


@dataclass(slots=True, frozen=True)
class Cue:
    """What a role is told of one of its own turns before it speaks; the other role's View never shows it."""

    turn: int
    """Index of the turn that it is for."""
    parts: Parts


@dataclass(slots=True, frozen=True)
class View:
    """What one role may see of a Scenario and of the conversation so far. Made by `view_of` only."""

    role: Role
    domain: Domain
    general_preferences: str
    known_items: tuple[KnownItem, ...]
    target_attributes: tuple[str, ...]
    turns: tuple[Turn, ...] = ()
    told_targets: tuple[str, ...] = ()
    """Titles of the hidden targets: leakage by construction. Empty but for a user that says it must be told them
    (`simulation.agents.TOLD_TARGET`), which exists to rebuild iEvaLM; no trained model and no other prompt reads it."""
    advice: tuple[Advice, ...] = ()
    """For turns of a recommender that has slots, in order; empty where it has none."""
    traits: Parts = ()
    """Cues of the whole conversation: what the role is told of itself."""
    cues: tuple[Cue, ...] = ()
    """For turns of the role, in order; turns without one have none."""

    def after(self, *turns: Turn) -> "View":
        """The View once `turns` have been spoken; those of the other side as they are heard."""
        return replace(self, turns=self.turns + tuple(t if t.role is self.role else t.heard for t in turns))

    def advised(self, *advice: Advice) -> "View":
        """The View with advice for further turns."""
        return replace(self, advice=self.advice + advice)

    def cued(self, *cues: Cue) -> "View":
        """The View with cues for further turns."""
        return replace(self, cues=self.cues + cues)


def view_of(scenario: Scenario, role: Role, *, with_persona: bool, tell_target: bool = False) -> View:
    """What `role` may see of `scenario` before the first turn.

    This is the whitelist: of the Scenario, only its Persona's fields and its Domain are read here, and with `tell_target`
    the titles of its targets.

    Args:
        scenario: where the conversation starts from.
        role: who will look.
        with_persona: whether the persona is shown. The user always sees it; for the recommender it is a switch (SPEC
            2.1: the paper is ambiguous), and even then the target attributes are the user's alone.
        tell_target: tell the user the titles of the targets: see `View.told_targets`. Never for a recommender.

    Raises:
        ValueError: a recommender would be told the target.
    """
    if tell_target and role is Role.RECOMMENDER:
        raise ValueError("a recommender is never told the target")
    persona = scenario.persona
    shown = role is Role.USER or with_persona
    return View(
        role=role,
        domain=DOMAINS[scenario.domain],
        general_preferences=persona.general_preferences if shown else "",
        known_items=persona.known_items if shown else (),
        target_attributes=persona.target_attributes if role is Role.USER else (),
        told_targets=tuple(target.title for target in scenario.targets) if tell_target else (),
    )
