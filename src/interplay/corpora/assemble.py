"""The road that every corpus of logs takes: merge, tag, close, annotate, and count what falls by the wayside."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from interplay.corpora.acts import acts_of
from interplay.corpora.annotators import Annotation, Annotator, RuleAnnotator
from interplay.corpora.corpus import Counts
from interplay.corpora.endings import Closed, Wanted, close
from interplay.corpora.messages import Spoken, merge_messages
from interplay.corpora.scenarios import known_items, persona_of, request_for
from interplay.corpora.tagger import ActionTagger, is_acceptance
from interplay.types import (
    Catalog,
    Dialogue,
    Ending,
    Item,
    KnownItem,
    Persona,
    Role,
    Scenario,
    Split,
    Target,
    Turn,
)

MIN_TURNS = 2


@dataclass(slots=True)
class Conversation:
    """One conversation as a loader hands it on."""

    source_id: str
    user_id: str | None
    messages: list[Spoken]
    wanted: list[Wanted] | None = None
    """What may have been accepted, best first; empty when nothing was; None when the corpus does not tell."""
    lenient: bool = False
    """See `endings.close`."""
    open_end: bool = False
    """See `endings.close`."""
    drop_unlinked: bool = False
    """Whether it is left out when the user seems to accept but no accepted item could be linked: it is no giving up."""
    opinions: dict[str, bool] = field(default_factory=dict)
    """Whether the user likes an item, by id, where the corpus tells."""
    recommender_id: str | None = None
    recommender: str = "human"
    """Name of the system that recommends, where it is no person."""
    known_items: tuple[KnownItem, ...] | None = None
    """The persona's known items where the corpus brings its own."""
    general_preferences: str | None = None
    """The persona's summary where the corpus brings material for its own."""


@dataclass(slots=True)
class Loaded:
    """What a loader gives back; the scenarios have no split yet."""

    name: str
    dialogues: list[Dialogue]
    scenarios: list[Scenario]
    catalog: Catalog
    counts: Counts


@dataclass
class Tools:
    """What loaders share, made on first use."""

    given_tagger: ActionTagger | None
    make_tagger: Callable[[], ActionTagger]
    annotator: Annotator
    whole: bool = False
    """Whether the turns after the end are kept; the ending is then unknown."""

    @cached_property
    def tagger(self) -> ActionTagger:
        """The action tagger."""
        return self.given_tagger or self.make_tagger()


def assemble(name: str, conversations: Iterable[Conversation], catalog: Catalog, tools: Tools, counts: Counts) -> Loaded:
    """Conversations as dialogues with scenarios.

    Args:
        name: of the corpus.
        conversations: as read.
        catalog: their items.
        tools: tagger and annotator.
        counts: already holds what the loader dropped; `dialogues_read` too.
    """
    merged: list[tuple[Conversation, list[Spoken]]] = []
    for conversation in conversations:
        turns, num_empty, num_joined = merge_messages(conversation.messages)
        counts.note("empty messages removed", num_empty) if num_empty else None
        counts.note("messages joined to the one before", num_joined) if num_joined else None
        if not any(t.role is Role.USER for t in turns):
            counts.drop("no user turn")
        elif len(turns) < MIN_TURNS:
            counts.drop("fewer than 2 turns")
        else:
            merged.append((conversation, turns))
    tagger = tools.tagger
    counts.note(f"turns tagged by {tagger.name}", sum(len(turns) for _, turns in merged))
    tagged = tagger.tag([turns for _, turns in merged])

    kept: list[tuple[Conversation, Closed, Item | None]] = []
    for (conversation, turns), actions in zip(merged, tagged, strict=True):
        closed = close(turns, actions, conversation.wanted, lenient=conversation.lenient, open_end=conversation.open_end)
        if len(closed.turns) < MIN_TURNS:
            counts.drop("fewer than 2 turns once cut to its end")
            continue
        if (
            conversation.drop_unlinked
            and closed.ending is Ending.GAVE_UP
            and any(t.role is Role.USER and is_acceptance(t.text) for t in turns[1:])
        ):
            counts.drop("accepted item could not be linked")
            continue
        if tools.whole:
            closed = Closed(list(turns), list(actions), None, closed.target, 0)
        if closed.num_cut:
            counts.note("turns cut after the end", closed.num_cut)
        counts.note(f"ended {closed.ending.value if closed.ending else 'openly'}")
        kept.append((conversation, closed, catalog.get(closed.target)))

    dialogues, scenarios = [], []
    personas = _personas(kept, catalog, tools.annotator, counts)
    for (conversation, closed, target), persona in zip(kept, personas, strict=True):
        scenario = Scenario(
            corpus=name,
            domain=catalog.domain.name,
            split=Split.TRAIN,
            source_id=conversation.source_id,
            user_id=conversation.user_id,
            recommender_id=conversation.recommender_id,
            persona=persona,
            targets=() if target is None else (Target(item_id=target.id, title=target.label),),
        )
        if target is not None and len(persona.target_attributes) < 2:
            counts.note("scenarios with a target and fewer than 2 attributes")
        scenarios.append(scenario)
        dialogues.append(_dialogue(name, catalog, scenario, closed, conversation.recommender))
    counts.dialogues_kept = len(dialogues)
    return Loaded(name, dialogues, scenarios, catalog, counts)


def _personas(
    kept: list[tuple[Conversation, Closed, Item | None]], catalog: Catalog, annotator: Annotator, counts: Counts
) -> list[Persona]:
    requests, known = [], []
    for conversation, closed, target in kept:
        brought = known_items(closed.turns, target, conversation.opinions)
        known.append(brought)
        requests.append(request_for(closed.turns, brought, target, catalog))
    rules = RuleAnnotator()
    results = annotator.annotate(requests)
    out = []
    for (conversation, _, target), brought, request, result in zip(kept, known, requests, results, strict=True):
        if result is None:
            counts.note("annotations that failed, made by the rules instead")
        annotation = result or rules.one(request)
        if conversation.general_preferences is not None and annotator.name == rules.name:
            annotation = Annotation(conversation.general_preferences, annotation.target_attributes)
        persona = persona_of(brought, annotation, target)
        if conversation.known_items is not None:
            persona = persona.model_copy(update={"known_items": conversation.known_items})
            persona = persona if target is None else persona.without([target.label])
        out.append(persona)
    return out


def _dialogue(name: str, catalog: Catalog, scenario: Scenario, closed: Closed, recommender: str) -> Dialogue:
    return Dialogue(
        scenario_key=scenario.key,
        corpus=name,
        domain=catalog.domain.name,
        user="human",
        recommender=recommender,
        turns=tuple(
            Turn(role=t.role, action=a, acts=acts, text=t.text, items=t.mentions, strategies=t.strategies, raw=t.raw)
            for t, a, acts in zip(closed.turns, closed.actions, acts_of(closed.turns, closed.actions), strict=True)
        ),
        ending=closed.ending,
    )
