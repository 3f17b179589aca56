"""Facets as noun phrases: a wish ("a tense crime movie from the 90s"), and the facts of an item in canonical form."""

import random
from collections.abc import Iterable, Sequence

from interplay.simulation.facets import OTHER, Facet, by_kind
from interplay.simulation.wording import list_of, load_wording
from interplay.types import Item

_TRUE_STORY = "true story"
_BILLED = 2
"""How many of the cast are named."""


def value_as_said(facet: Facet, rng: random.Random) -> str:
    """One value as somebody types it: "crime", "the 90s", "a heist", "Michael Mann"."""
    words = load_wording("facets")
    if facet.kind == "decade":
        return f"the {decade_as_said(facet.value, rng)}"
    if facet.kind == "theme":
        return theme(facet.value)
    if facet.kind == "genre" and rng.random() < 0.2:
        return rng.choice(load_wording("user").get(f"noun.{facet.value}") or (facet.value,))
    if facet.kind in ("director", "cast"):
        return rng.choice(words.get(f"phrase.{facet.kind}.any")[:2]).format(want=facet.value)
    return facet.value


def decade_as_said(value: str, rng: random.Random) -> str:
    """A decade as "1990s", "90s" or "nineties". The short forms are used of the last century only."""
    draw = rng.random()
    if draw < 0.55 or not value.startswith("19"):
        return value
    return value[2:] if draw < 0.92 else rng.choice(load_wording("facets").get(f"decade.{value}") or (value,))


def theme(value: str) -> str:
    """A theme as it stands after "about"."""
    return (load_wording("facets").get(f"phrase.theme.{value}") or (value,))[0]


def about(themes: Sequence[str]) -> str:
    """Themes as a phrase after a noun: "about a heist and the police", "about war, based on a true story"."""
    told = [theme(value) for value in themes if value != _TRUE_STORY]
    parts = [f"about {list_of(told)}"] if told else []
    return ", ".join(parts + ["based on a true story"] * (_TRUE_STORY in themes))


def plural(genre: str) -> str:
    """Items of a genre: "comedies", "crime movies"."""
    return (load_wording("facets").get(f"phrase.plural.{genre}") or (f"{genre} movies",))[0]


def wish(facets: Iterable[Facet], rng: random.Random) -> str:
    """What is looked for, as a noun phrase with the article marker of `wording.tidy`; empty when there are no facets."""
    values = by_kind(facets)
    if not values:
        return ""
    words = load_wording("facets")
    before = list(values.get("mood", []))
    after: list[str] = []
    genres = values.get("genre", [])
    for value in values.get("decade", []):
        said = decade_as_said(value, rng)
        if genres and rng.random() < 0.45:
            before.append(said)
        else:
            after.append(f"{rng.choice(('from', 'from', 'made in'))} the {said}")
    after += [about([value]) for value in values.get("theme", [])]
    for kind in ("director", "cast"):
        after += [rng.choice(words.get(f"phrase.{kind}.any")).format(want=value) for value in values.get(kind, [])]
    known = {"genre", "decade", "mood", "theme", "director", "cast"}
    after += [f"in the way of {value}" for kind, vs in values.items() if kind not in known or kind == OTHER for value in vs]
    if genres:
        nouns = load_wording("user").get(f"noun.{genres[-1]}") or (f"{genres[-1]} movie",)
        head = " ".join(["a(n)", *before, *genres[:-1], rng.choice(nouns)])
    elif rng.random() < 0.3:
        head = " ".join(["a(n)", *before, rng.choice(("movie", "movie", "film"))])
    else:
        head = " ".join(["something", *before])
    return " ".join([head, *after])


def as_is(facet: Facet, rng: random.Random) -> str:
    """A facet after "it's": "a crime movie", "from the 90s", "tense", "about a heist", "by Michael Mann"."""
    if facet.kind == "mood":
        return facet.value
    phrase = wish([facet], rng)
    return (
        phrase
        if facet.kind == "genre"
        else phrase.removeprefix("something ").removeprefix("a(n) movie ").removeprefix("a(n) film ")
    )


def genre_noun(genres: Sequence[str], rng: random.Random) -> str:
    """All genres in one noun phrase, each in its canonical form: "crime thriller", "science fiction action movie"."""
    nouns = load_wording("facets").get("phrase.nouns")
    ordered = sorted(genres, key=lambda g: nouns.index(g) if g in nouns else -1)
    if not ordered:
        return "movie"
    tail = "" if ordered[-1] in nouns else rng.choice((" movie", " movie", " film"))
    return " ".join(ordered) + tail


def people(item: Item, rng: random.Random) -> str:
    """Director and the first of the cast; empty when neither is known."""
    director, cast = item.attributes.get("director", ()), item.attributes.get("cast", ())[:_BILLED]
    by = rng.choice(("by", "directed by")) + f" {list_of(director)}" if director else ""
    star = rng.choice(("with", "starring")) + f" {list_of(cast)}" if cast else ""
    if not (by and star):
        return by or star
    return (
        rng.choice((f"{by}, {star}", f"{by} and {star}", f"{star}, {by}"))
        if star.startswith("starring")
        else rng.choice((f"{by}, {star}", f"{by} {star}", f"{star}, {by}"))
    )


def facts(item: Item, rng: random.Random, *, with_story: bool = True, with_people: bool) -> str:
    """What decides whether the item fits, in canonical form and varied order: genres, moods, decade, themes, people.

    Args:
        item: whose attributes are told; kinds it lacks are left out.
        rng: draws order and wording.
        with_story: whether its themes are told.
        with_people: whether director and cast are told.
    """
    values = item.attributes
    moods = rng.choice((" and ", ", ")).join(rng.sample(values.get("mood", ()), len(values.get("mood", ()))))
    decade = "".join(values.get("decade", ()))
    noun = genre_noun(values.get("genre", ()), rng)
    story = about(rng.sample(values.get("theme", ()), len(values.get("theme", ())))) if with_story else ""
    who = people(item, rng) if with_people else ""
    form = rng.randrange(5)
    if form <= 1:
        head = f"a(n) {moods} {decade} {noun} {story}"
    elif form == 2:
        head = f"a(n) {moods} {noun} {f'from the {decade}' if decade else ''} {story}"
    elif form == 3 and moods and story:
        head = f"a(n) {decade} {noun} {story}, {moods}"
    else:
        head = f"a(n) {decade} {noun}, {moods} and {story}" if moods and story else f"a(n) {moods} {decade} {noun} {story}"
    head = " ".join(head.split())
    if not who:
        return head
    return f"{head}, {who}"
