"""From a finished conversation to the Scenario it started from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interplay.corpora.annotators import Annotation, AnnotationRequest, is_negative, is_positive
from interplay.corpora.messages import Spoken, sentences
from interplay.titles import names_title, remove_title, title_key
from interplay.types import Catalog, Item, KnownItem, Persona, Role

MAX_KNOWN_ITEMS = 6
_FACTS = ("genre", "mood", "theme", "decade", "director", "cast", "writer")


@dataclass(slots=True, frozen=True)
class Known:
    """An item the user brought up."""

    item: KnownItem
    liked: bool | None
    """None when neither the corpus nor the user's words tell."""


def known_items(
    turns: Sequence[Spoken], target: Item | None, opinions: Mapping[str, bool], limit: int = MAX_KNOWN_ITEMS
) -> list[Known]:
    """The items that the user brings up, with the sentences that name them.

    An item counts when the user names it before the recommender does, and it is not the target. The first `limit` are kept.

    Args:
        turns: the conversation.
        target: the accepted item.
        opinions: whether the user likes an item, by id, where the corpus tells.
        limit: the most that are kept.
    """
    offered: set[str] = set()
    reviews: dict[str, list[str]] = {}
    labels: dict[str, tuple[str, str | None]] = {}
    for turn in turns:
        if turn.role is Role.RECOMMENDER:
            offered.update(turn.things)
            continue
        cuts = sentences(turn.text, turn.mentions, turn.breaks)
        for mention, thing, title in zip(turn.mentions, turn.things, turn.titles, strict=True):
            if thing in offered or (target is not None and title_key(title) == title_key(target.title)):
                continue
            # A sentence can end inside brackets' neighbourhood, never inside a mention, so exactly one holds it.
            said = next((turn.text[a:b] for a, b in cuts if a <= mention.start < b), turn.text)
            labels.setdefault(thing, (title, mention.item_id))
            if said not in reviews.setdefault(thing, []):
                reviews[thing].append(said)
    out = []
    for thing, (title, item_id) in labels.items():
        review = " ".join(reviews[thing][:3])
        liked = opinions.get(thing)
        if liked is None:
            liked = False if is_negative(review) else (True if is_positive(review) else None)
        out.append(Known(KnownItem(title=title, review=review, item_id=item_id), liked))
    return out[:limit]


def request_for(turns: Sequence[Spoken], known: Sequence[Known], target: Item | None, catalog: Catalog) -> AnnotationRequest:
    """What an annotator is told about a conversation; the target's title is taken out of every string."""
    user_turns, num_before, recommended = [], 0, False
    for turn in turns:
        if turn.role is Role.USER:
            lines = [turn.text[a:b] for a, b in sentences(turn.text, turn.mentions, turn.breaks)] or [turn.text]
            user_turns.append(_scrubbed("\n".join(lines), target))
            num_before += not recommended
        elif target is not None and target.id in turn.things:
            recommended = True
    genres: dict[bool, list[str]] = {True: [], False: []}
    for k in known:
        item = catalog.get(k.item.item_id)
        if item is not None:
            # What a user brings up without a word against it is, in these corpora, nearly always liked.
            genres[k.liked is not False].extend(item.attributes.get("genre", ()))
    shown = _shown(known, target)
    return AnnotationRequest(
        noun=catalog.domain.noun,
        plural=catalog.domain.plural,
        user_turns=tuple(user_turns),
        num_before_target=num_before,
        known_items=tuple((k.title, k.review) for k in shown),
        liked_genres=tuple(genres[True]),
        disliked_genres=tuple(genres[False]),
        target_facts=facts_of(target),
    )


def facts_of(item: Item | None) -> tuple[tuple[str, str], ...]:
    """An item's attributes as (kind, value), without those that name its title."""
    if item is None:
        return ()
    return tuple(
        (kind, value)
        for kind in _FACTS
        for value in item.attributes.get(kind, ())
        if not names_title(value, item.title) and title_key(value) != title_key(item.title)
    )


def persona_of(known: Sequence[Known], annotation: Annotation, target: Item | None) -> Persona:
    """The Persona of an annotated conversation; it never names the target."""
    persona = Persona(
        general_preferences=annotation.general_preferences,
        known_items=tuple(k.item for k in known),
        target_attributes=annotation.target_attributes,
    )
    return persona if target is None else persona.without([target.label])


def _shown(known: Sequence[Known], target: Item | None) -> tuple[KnownItem, ...]:
    persona = Persona(known_items=tuple(k.item for k in known))
    return (persona if target is None else persona.without([target.label])).known_items


def _scrubbed(text: str, target: Item | None) -> str:
    return text if target is None else remove_title(text, target.label)
