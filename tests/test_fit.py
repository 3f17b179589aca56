"""What a user knows of what it is offered, as a cue."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.config import TrainConfig
from interplay.errors import ConfigError
from interplay.simulation.facets import FacetIndex
from interplay.simulation.fit import FitCues, fit_text
from interplay.training.cue_labels import LoggedCues, trained_cues
from interplay.types import Action, Catalog, Item, Role, view_of
from makers import CATALOG, HEAT, TALK, UP, dialogue, recommender, scenario, turns, user

WANTED = ("crime", "1990s")


def offered(*items: Item):
    return recommender(Action.RECOMMEND, *(part for item in items for part in ("how about ", item)))


@pytest.mark.parametrize(
    ("items", "text"), [((HEAT,), "all"), ((UP,), "none"), ((UP, HEAT), "all"), ((Item(id="x", title="Nowhere"),), None)]
)
def test_the_best_item_on_offer_counts_and_one_that_nothing_is_known_of_tells_nothing(items, text):
    assert fit_text(CATALOG, WANTED, [offered(*items)]) == text


def test_some_is_neither_all_nor_none():
    assert fit_text(CATALOG, ("crime", "2000s"), [offered(HEAT)]) == "some"


def test_an_offer_stays_on_the_table_until_the_next_one():
    talk = [offered(HEAT), user(Action.INQUIRE, "what is it about?"), recommender(Action.ANSWER, "a heist")]
    assert fit_text(CATALOG, WANTED, talk) == "all"
    assert fit_text(CATALOG, WANTED, [*talk, user(Action.FEEDBACK, "no"), offered(UP)]) == "none"


def test_what_the_user_names_itself_is_no_offer():
    assert fit_text(CATALOG, WANTED, [user(Action.DISCLOSE_GOAL, "like ", HEAT)]) is None


def test_who_looks_for_nothing_is_told_nothing():
    assert fit_text(CATALOG, (), [offered(HEAT)]) is None


def test_the_decade_of_an_item_is_known_from_its_year():
    old = Item(id="m", title="M", year=1931, attributes={"genre": ("Crime",)})
    catalog = Catalog([old], CATALOG.domain)
    assert fit_text(catalog, ("1930s", "crime"), [offered(old)]) == "all"
    assert fit_text(catalog, ("1930s", "war"), [offered(old)]) == "some"


@given(st.lists(turns(), min_size=1, max_size=6))
@settings(max_examples=40)
def test_while_it_talks_a_user_is_told_what_training_would_have_told_it(talk):
    view = view_of(scenario(attributes=WANTED), Role.USER, with_persona=True)
    labelled = LoggedCues(("fit",), index=FacetIndex(CATALOG)).label(view.after(*talk), dialogue(scenario(), tuple(talk)))
    learned = {cue.turn: cue.parts for cue in labelled.cues}
    for place, turn in enumerate(talk):
        if turn.role is Role.USER:
            assert FitCues(CATALOG).parts(view.after(*talk[:place]), 0) == learned.get(place, ())


def test_the_cue_does_not_depend_on_the_hidden_target():
    told = set()
    for target in (None, UP, HEAT):
        start = scenario(target, attributes=WANTED)
        view = view_of(start, Role.USER, with_persona=True).after(*TALK)
        told.add(LoggedCues(("fit",), index=FacetIndex(CATALOG)).label(view, dialogue(start)).cues)
    assert len(told) == 1
    assert told != {()}


def test_the_recommender_has_no_such_cue():
    assert trained_cues(TrainConfig(role="user", data=["data"], out="out", fit=True, beliefs=True)) == ("belief", "fit")
    assert "fit" not in trained_cues(TrainConfig(role="user", data=["data"], out="out", cues=["all"]))
    with pytest.raises(ConfigError, match="--fit is what a user knows; a recommender has nothing of the kind"):
        trained_cues(TrainConfig(role="recommender", data=["data"], out="out", fit=True))
