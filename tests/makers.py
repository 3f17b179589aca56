"""Hypothesis strategies and small hand-made records for the tests."""

import string

from hypothesis import strategies as st

from interplay.types import (
    ACTIONS,
    DOMAINS,
    Action,
    Catalog,
    Dialogue,
    Domain,
    Ending,
    Item,
    KnownItem,
    Mention,
    Persona,
    Role,
    Scenario,
    Split,
    Target,
    Turn,
)

MOVIE = DOMAINS["movie"]

HEAT = Item(id="heat", title="Heat", year=1995, attributes={"genre": ("crime", "thriller"), "decade": ("1990s",)})
ALIEN = Item(id="alien", title="Alien", year=1979, attributes={"genre": ("horror",), "decade": ("1970s",)})
UP = Item(id="up", title="Up", year=2009, attributes={"genre": ("animation",), "decade": ("2000s",)})
CATALOG = Catalog([HEAT, ALIEN, UP], MOVIE)


def turn(role: Role, action: Action, *parts: str | Item) -> Turn:
    """A turn from words and items: `turn(R, Action.RECOMMEND, "Try ", HEAT, ".")`."""
    text, items = "", []
    for part in parts:
        if isinstance(part, Item):
            items.append(Mention(start=len(text), end=len(text) + len(part.label), item_id=part.id))
            text += part.label
        else:
            text += part
    return Turn(role=role, action=action, text=text, items=tuple(items))


def user(action: Action, *parts: str | Item) -> Turn:
    """A user turn."""
    return turn(Role.USER, action, *parts)


def recommender(action: Action, *parts: str | Item) -> Turn:
    """A recommender turn."""
    return turn(Role.RECOMMENDER, action, *parts)


def scenario(
    target: Item | None = HEAT,
    *,
    attributes: tuple[str, ...] = ("crime", "1990s"),
    split: Split = Split.TEST,
    source_id: str = "1",
) -> Scenario:
    """A scenario of the movie domain."""
    return Scenario(
        corpus="made",
        domain="movie",
        split=split,
        source_id=source_id,
        user_id="u1",
        persona=Persona(
            general_preferences="likes slow films",
            known_items=(KnownItem(title=ALIEN.label, review="scared me to bits", item_id=ALIEN.id),),
            target_attributes=attributes,
        ),
        targets=(Target(item_id=target.id, title=target.label),) if target else (),
    )


TALK = (
    recommender(Action.GREETING, "Hello! What do you feel like?"),
    user(Action.DISCLOSE_GOAL, "something with crooks"),
    recommender(Action.RECOMMEND, "Maybe ", UP, "?"),
    user(Action.FEEDBACK, "nope, too sweet"),
    recommender(Action.RECOMMEND, "Then ", HEAT, ", a 1990s crime thriller."),
    user(Action.ACCEPT, "sounds good, thanks"),
)


def dialogue(
    start: Scenario, turns: tuple[Turn, ...] = TALK, *, ending: Ending | None = Ending.ACCEPTED, sample: int = 0
) -> Dialogue:
    """A logged dialogue of a scenario."""
    return Dialogue(
        scenario_key=start.key,
        sample=sample,
        corpus=start.corpus,
        domain=start.domain,
        user="human",
        recommender="human",
        turns=turns,
        ending=ending,
    )


texts = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40)
"""Any text without control characters, tags and emoji included."""

plain_words = st.text(alphabet=string.ascii_letters + string.digits + " .,!?'<>/_-éß漢😀", min_size=1, max_size=30)


@st.composite
def turns(draw: st.DrawFn, role: Role | None = None, words: st.SearchStrategy[str] = plain_words) -> Turn:
    """A turn whose text and mentions have no white space at their ends."""
    role = role or draw(st.sampled_from(Role))
    text, items = "", []
    for is_title in draw(st.lists(st.booleans(), min_size=1, max_size=4)):
        piece = draw(words)
        if is_title:
            piece = piece.strip() or "Heat"
            items.append(Mention(start=len(text), end=len(text) + len(piece)))
        text += piece
    shift = len(text) - len(text.lstrip())
    text = text.strip()
    fitting = [
        Mention(start=m.start - shift, end=m.end - shift) for m in items if m.end - shift <= len(text) and m.start >= shift
    ]
    if not text:
        text, fitting = "hm", []
    return Turn(role=role, action=draw(st.sampled_from(ACTIONS[role])), text=text, items=tuple(fitting))


@st.composite
def personas(draw: st.DrawFn, words: st.SearchStrategy[str] = plain_words) -> Persona:
    """Any persona."""
    return Persona(
        general_preferences=draw(words | st.just("")),
        known_items=tuple(KnownItem(title=draw(words), review=draw(words)) for _ in range(draw(st.integers(0, 3)))),
        target_attributes=tuple(draw(st.lists(words, max_size=3))),
    )


@st.composite
def scenarios(draw: st.DrawFn, domain: Domain | None = None) -> Scenario:
    """A scenario whose persona was cleaned of a random target, as loaders clean it."""
    title = draw(st.sampled_from(["Heat", "It", "Thriller", "The Matrix", "Up (2009)", "Ocean's Eleven (2001)"]) | plain_words)
    persona = draw(personas(words=plain_words | st.sampled_from([f"I loved {title}", title, f"{title} (1999) was ok"])))
    name = (domain or draw(st.sampled_from(list(DOMAINS.values())))).name
    return Scenario(
        corpus="made",
        domain=name,
        split=draw(st.sampled_from(Split)),
        source_id="1",
        persona=persona.without([title]),
        targets=(Target(item_id="t", title=title),),
    )
