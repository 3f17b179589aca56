"""Scenarios for the agenda-based user: a catalog item as the hidden target, and the facets by which it is looked for.

The scheme is the classical entity-level one of agenda-based simulation (Schatzmann et al., 2007; for conversational
recommendation Zhang and Balog, 2020): the goal is a set of attribute values, not an item.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from interplay.errors import DataError
from interplay.simulation.facets import Facet, FacetIndex
from interplay.simulation.phrases import plural, theme
from interplay.simulation.wording import list_of, load_wording, tidy
from interplay.types import Catalog, Item, KnownItem, Persona, Scenario, Split, Target

CORPUS = "agenda"
"""Name of the corpus these scenarios belong to."""

_MAX_FITTING = 40
"""Most catalog items that may fit all target attributes; more would make any recommendation a success."""
_FACET_RATES = {"decade": 0.95, "mood": 0.2, "theme": 0.02, "person": 0.02}
"""How often each kind is drawn beside the genre; combinations that fit too many items are drawn again. Mostly the three
kinds that every proposal states, so that models of under a million parameters can learn to judge by them in minutes."""
_NUM_KNOWN = 3
_TRIES = 400


@dataclass(slots=True)
class _User:
    id: str
    likes: tuple[str, ...]
    dislikes: str
    mood: str
    scenarios_left: int


def agenda_scenarios(
    catalog: Catalog,
    num: int,
    *,
    seed: int,
    split_fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> list[Scenario]:
    """Scenarios whose targets come from a catalog.

    Target attributes are 2 or 3 plain values: a genre, and of decade, mood, theme, director and actor some, so that
    between 1 and 40 items of the catalog fit. About three scenarios in a row belong to one user, in any split.

    Args:
        catalog: items with the attributes genre, decade, mood, theme, director and cast.
        num: how many.
        seed: of all random choices.
        split_fractions: of train, valid, test; each split has its own targets, which are no targets elsewhere.

    Raises:
        DataError: the catalog is too small, or its items lack the attributes.
        ValueError: the fractions do not sum to 1.
    """
    if abs(sum(split_fractions) - 1) > 1e-6 or min(split_fractions) < 0:
        raise ValueError(f"split_fractions must be three shares that sum to 1, not {split_fractions}")
    rng = random.Random(f"{seed}|agenda-scenarios")
    index = FacetIndex(catalog)
    genres = index.values("genre")
    usable = [i for i in index.items if i.attributes.get("genre")]
    if len(usable) < 2 * _NUM_KNOWN or len(genres) < 2:
        raise DataError(
            f"the catalog has {len(usable)} items with a genre and {len(genres)} genres; agenda scenarios need "
            f"{2 * _NUM_KNOWN} and 2 at least: give a catalog with the attribute 'genre'"
        )
    rng.shuffle(usable)
    pools: dict[Split, list[Item]] = {}
    for split, size in zip(Split, _sizes(len(usable), split_fractions), strict=True):
        pools[split] = [usable.pop() for _ in range(size)]
    splits = [s for s, size in zip(Split, _sizes(num, split_fractions), strict=True) for _ in range(size)]
    rng.shuffle(splits)
    user = _User("", (), "", "", 0)
    scenarios: list[Scenario] = []
    for i, split in enumerate(splits):
        if user.scenarios_left == 0:
            user = _new_user(index, rng, number=int(user.id[5:] or -1) + 1)
        user.scenarios_left -= 1
        scenarios.append(_scenario(index, pools[split], user, rng, split=split, source_id=f"{CORPUS}-{i:05d}"))
    return scenarios


def _sizes(total: int, fractions: tuple[float, float, float]) -> tuple[int, int, int]:
    """`total` in three whole parts, so that a split without a share gets nothing."""
    ends = [round(total * sum(fractions[:i])) for i in range(4)]
    return ends[1], ends[2] - ends[1], ends[3] - ends[2]


def _new_user(index: FacetIndex, rng: random.Random, number: int) -> _User:
    genres = index.values("genre")
    first = rng.choice(rng.choice(index.items).attributes.get("genre") or genres)
    second = rng.choice([g for g in genres if g != first])
    dislikes = rng.choice([g for g in genres if g not in (first, second)] or [second])
    mood = rng.choice(index.values("mood") or ("good",))
    return _User(f"user-{number:04d}", (first, second), dislikes, mood, rng.choice((2, 3, 3, 4)))


def _scenario(
    index: FacetIndex, pool: Sequence[Item], user: _User, rng: random.Random, *, split: Split, source_id: str
) -> Scenario:
    if not pool:
        raise DataError(f"the catalog of {len(index.items)} items is too small for targets of the {split} split")
    for attempt in range(_TRIES):
        target = rng.choice(pool)
        genres = target.attributes["genre"]
        # After half of the tries any item will do: a small split may hold nothing to this user's taste.
        strict = attempt < _TRIES // 2
        if strict and (user.dislikes in genres or (rng.random() < 0.85 and not set(user.likes) & set(genres))):
            continue
        goals = _goals(index, target, user, rng)
        if goals is None:
            continue
        persona = Persona(
            general_preferences=_general(user, rng),
            known_items=_known_items(index, target, user, rng),
            target_attributes=tuple(goal.value for goal in goals),
        )
        if persona.without([target.label]) == persona:
            return Scenario(
                corpus=CORPUS,
                domain=index.catalog.domain.name,
                split=split,
                source_id=source_id,
                user_id=user.id,
                persona=persona,
                targets=(Target(item_id=target.id, title=target.label),),
            )
    raise DataError(
        f"found no target with 2 or 3 facets that at most {_MAX_FITTING} items share among the {len(pool)} items of the "
        f"{split} split: the items need the attributes decade, mood or theme, and the split more items"
    )


def _goals(index: FacetIndex, target: Item, user: _User, rng: random.Random) -> list[Facet] | None:
    """A genre and one or two more facets of the target, or None when the draw fits too many items."""
    genres = target.attributes["genre"]
    liked = [g for g in genres if g in user.likes]
    goals = [Facet("genre", rng.choice(liked or genres))]
    for name, rate in _FACET_RATES.items():
        drawn = rng.random() < rate
        kind = rng.choice(("director", "cast")) if name == "person" else name
        values = target.attributes.get(kind, ())[:2] if kind == "cast" else target.attributes.get(kind, ())
        # A value that another kind has too ("war" is a genre and a theme) would be read as that one.
        plain = [v for v in values if index.facet(v) == Facet(kind, v) and index.sayable(Facet(kind, v))]
        if drawn and plain:
            goals.append(Facet(kind, rng.choice(plain)))
    if not 2 <= len(goals) <= 3 or len(index.having(goals)) > _MAX_FITTING:
        return None
    return goals


def _general(user: _User, rng: random.Random) -> str:
    return load_wording("scenario").pick(
        rng, "general", likes=list_of([plural(g) for g in user.likes]), dislikes=plural(user.dislikes), mood=user.mood
    )


def _known_items(index: FacetIndex, target: Item, user: _User, rng: random.Random) -> tuple[KnownItem, ...]:
    words = load_wording("scenario")
    favourite = [i for genre in user.likes for i in sorted(index.having([Facet("genre", genre)]))]
    known: dict[str, Item] = {}
    while len(known) < _NUM_KNOWN:
        item = index.items[rng.choice(favourite)] if favourite and rng.random() < 0.8 else rng.choice(index.items)
        if item.id != target.id and item.title != target.title:
            known[item.id] = item
    out = []
    for item in known.values():
        liked = rng.random() < (0.85 if set(user.likes) & set(item.attributes.get("genre", ())) else 0.4)
        slots = {
            "mood": rng.choice(item.attributes.get("mood") or ("good",)),
            "theme": theme(rng.choice(item.attributes.get("theme") or ("life",))),
            "cast": rng.choice(item.attributes.get("cast") or ("The lead",)),
            "director": rng.choice(item.attributes.get("director") or ("The director",)),
        }
        review = words.pick(rng, "liked" if liked else "disliked", **slots)
        out.append(KnownItem(title=item.label, review=tidy(review), item_id=item.id))
    return tuple(out)
