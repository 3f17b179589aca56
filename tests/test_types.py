"""Records, views, titles, catalogs."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from interplay.titles import is_title, loosely_spelt, names_title, remove_title, split_year, title_key, title_spans
from interplay.types import (
    ACTIONS,
    DOMAINS,
    Action,
    Catalog,
    Dialogue,
    Item,
    Mention,
    Persona,
    Role,
    Scenario,
    Turn,
    View,
    derive_seed,
    view_of,
)
from makers import (
    CATALOG,
    HEAT,
    MOVIE,
    TALK,
    UP,
    dialogue,
    personas,
    plain_words,
    recommender,
    scenario,
    scenarios,
    turns,
    user,
)


@given(scenarios())
def test_a_scenario_round_trips_through_json_with_its_key(start):
    again = Scenario.model_validate_json(start.to_json())
    assert again == start
    assert again.key == start.key


@given(st.lists(turns(), max_size=4))
def test_a_dialogue_round_trips_through_json(talk):
    made = dialogue(scenario(), tuple(talk))
    assert Dialogue.model_validate_json(made.to_json()) == made


def test_the_key_of_a_scenario_changes_with_its_content():
    assert scenario().key == scenario().key
    assert scenario().key != scenario(attributes=("war",)).key


def test_records_can_not_be_changed():
    with pytest.raises(ValidationError):
        scenario().split = "train"


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="extra"):
        Item.model_validate({"id": "a", "title": "A", "colour": "red"})


def test_a_persona_that_names_the_target_makes_no_scenario():
    with pytest.raises(ValidationError, match="names the hidden target"):
        scenario(attributes=("something like Heat (1995)",))


@given(personas(words=plain_words | st.sampled_from(["I saw the matrix twice", "Matrix, The (1999)"])))
def test_a_persona_cleaned_of_a_title_does_not_name_it(persona):
    cleaned = persona.without(["The Matrix (1999)"])
    assert not any(names_title(text, "The Matrix (1999)") for text in cleaned.texts())


@pytest.mark.parametrize(("role", "shown"), [(Role.USER, True), (Role.RECOMMENDER, False)])
def test_only_the_user_sees_the_target_attributes(role, shown):
    assert bool(view_of(scenario(), role, with_persona=True).target_attributes) is shown


@pytest.mark.parametrize("role", Role)
def test_a_view_holds_no_reference_to_the_scenario_or_its_target(role):
    start = scenario()
    view = view_of(start, role, with_persona=True)
    seen, queue = set(), [view]
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        assert thing is not start
        assert thing is not start.targets[0]
        queue += [r for r in gc.get_referents(thing) if isinstance(r, (View, tuple, list, dict)) or hasattr(r, "model_fields")]


@pytest.mark.parametrize("mention", [(0, 0), (3, 99), (5, 2)])
def test_a_mention_outside_the_text_is_refused(mention):
    with pytest.raises(ValidationError):
        Turn(role=Role.USER, action=Action.CHAT, text="hello", items=({"start": mention[0], "end": mention[1]},))


def test_overlapping_mentions_are_refused():
    with pytest.raises(ValidationError, match="does not fit"):
        Turn(role=Role.USER, action=Action.CHAT, text="hello", items=(Mention(start=0, end=3), Mention(start=2, end=4)))


@pytest.mark.parametrize("role", Role)
def test_an_action_of_the_other_role_is_refused(role):
    for action in set(Action) - set(ACTIONS[role]):
        with pytest.raises(ValidationError, match="can't take the action"):
            Turn(role=role, action=action, text="x")


def test_what_an_accept_takes_is_the_latest_recommendation():
    assert [m.item_id for m in dialogue(scenario()).accepted_items] == [HEAT.id]


def test_what_an_accept_names_among_earlier_recommendations_goes_first():
    talk = (*TALK[:5], user(Action.ACCEPT, "then ", UP, " after all"))
    assert [m.item_id for m in dialogue(scenario(), talk).accepted_items] == [UP.id]


def test_an_accept_with_nothing_recommended_takes_nothing():
    talk = (recommender(Action.GREETING, "hi"), user(Action.ACCEPT, "great"))
    assert dialogue(scenario(), talk).accepted_items == ()


def test_a_dialogue_that_does_not_end_in_an_accept_takes_nothing():
    assert dialogue(scenario(), TALK[:5], ending=None).accepted_items == ()


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("The Matrix (1999)", "matrix"),
        ("Matrix, The", "matrix"),
        ("  the   MATRIX ", "matrix"),
        ("Amélie", "amelie"),
        ("Fast & Furious", "fast and furious"),
        ("Ocean's Eleven", "oceans eleven"),
        ("WALL·E", "wall e"),
        ("The The", "the"),
        ("A", "a"),
    ],
)
def test_spellings_of_a_title_compare_equal(written, key):
    assert title_key(written) == key


@given(plain_words)
def test_a_title_key_is_a_fixed_point(title):
    assert title_key(title_key(title)) == title_key(title)


SPELLINGS = st.lists(
    st.sampled_from(["The", "an", "Heat,", "it's", "its", "Lilo", "&", "and", "-", "(1995)", "a_b", "`", "Amélie", "amelie"]),
    max_size=5,
).map(" ".join)


@given(SPELLINGS, SPELLINGS)
def test_a_text_is_a_title_exactly_if_their_keys_are_the_same(text, title):
    assert is_title(text, title) == (title_key(text) == title_key(title))
    loose = loosely_spelt(text)
    assert loose is None or all(word in loose for word in title_key(text).split())


@given(plain_words, plain_words)
def test_a_removed_title_is_no_longer_named(text, title):
    assert not names_title(remove_title(f"{text} {title} (1999) {text}", title), title)


@pytest.mark.parametrize(
    ("text", "title", "named"),
    [
        ("I like it a lot", "It (2017)", False),
        ("I saw It (2017) yesterday", "It (2017)", True),
        ("the matrix was fun", "The Matrix (1999)", True),
        ("Oceans 11 vs ocean's eleven", "Ocean's Eleven", True),
        ("a heated talk", "Heat", False),
        ("anything", "", False),
        ("I like star wars: a new hope", "Star Wars", True),
    ],
)
def test_titles_are_found_in_text_but_everyday_words_are_not_titles(text, title, named):
    assert names_title(text, title) is named


def test_a_year_is_split_off_only_at_the_end():
    assert split_year("1917 (2019)") == ("1917", 2019)
    assert split_year("2012") == ("2012", None)


def test_a_catalog_tells_remakes_apart_by_year_and_prefers_the_latest():
    films = Catalog([Item(id="a", title="It", year=1990), Item(id="b", title="It", year=2017)], MOVIE)
    assert [films.find(t).id for t in ("It (1990)", "It (1991)", "It (2016)", "it")] == ["a", "a", "b", "b"]
    assert films.find("It (2005)") is None


@given(st.none() | st.integers(-800, 2200))
def test_an_item_is_found_by_its_label_whatever_its_age(year):
    play = Item(id="b1", title="The Winter's Tale", year=year)
    assert Catalog([play, Item(id="b2", title="Emma", year=1815)], DOMAINS["book"]).find(play.label) is play


def test_a_catalog_refuses_two_items_with_one_id():
    with pytest.raises(ValueError, match="two items have the id"):
        Catalog([HEAT, HEAT], MOVIE)


def test_the_digest_of_a_catalog_changes_with_its_items():
    assert CATALOG.digest != Catalog([HEAT], MOVIE).digest


def test_seeds_depend_on_every_part_and_are_stable():
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert len({derive_seed(a, b) for a in range(10) for b in range(10)}) == 100


def test_a_persona_without_titles_is_unchanged():
    persona = Persona(general_preferences="likes slow films", target_attributes=("crime",))
    assert persona.without(["Some Other Film"]) == persona


def test_a_year_before_films_is_part_of_how_a_title_is_named() -> None:
    assert title_spans("I read The Winter's Tale (1600) twice", "The Winter's Tale") == [(7, 31)]
    assert remove_title("I read The Winter's Tale (1600) twice", "The Winter's Tale (1600)") == "I read it twice"
    assert names_title("Is that Up (1715)?", "Up")
