"""The agenda-based user, the rule-based recommender, and the scenarios they talk about."""

import asyncio
import gc
import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.corpora.bundled import bundled_movies
from interplay.errors import DataError
from interplay.simulation.agenda import agenda_scenarios
from interplay.simulation.agenda_user import AgendaRates, AgendaUser, AgendaUserSpeaker
from interplay.simulation.facets import Facet, FacetIndex, asked_fact, asked_kind
from interplay.simulation.phrases import facts, wish
from interplay.simulation.rule_recommender import RuleRecommender, RuleRecommenderSpeaker
from interplay.simulation.wording import TITLE, join, load_wording, make_turn, plainly, tidy, with_typos
from interplay.titles import names_title
from interplay.types import (
    DOMAINS,
    Action,
    Catalog,
    Item,
    Mention,
    Role,
    Scenario,
    Split,
    Target,
    Turn,
    View,
    accepted_mentions,
    view_of,
)

CATALOG = bundled_movies()
INDEX = FacetIndex(CATALOG)
USER = AgendaUser(CATALOG)
RECOMMENDER = RuleRecommender(CATALOG)
SCENARIOS = agenda_scenarios(CATALOG, 500, seed=5)
HEAT = Item(
    id="heat",
    title="Heat",
    year=1995,
    attributes={
        "genre": ("crime", "thriller"),
        "director": ("Michael Mann",),
        "cast": ("Al Pacino", "Robert De Niro"),
        "theme": ("heist", "police"),
        "mood": ("tense",),
        "decade": ("1990s",),
    },
)


def begin(scenario: Scenario, seed: int, turns: tuple[Turn, ...] = ()) -> tuple[AgendaUserSpeaker, RuleRecommenderSpeaker]:
    """Both speakers of a conversation."""
    return (
        USER.begin(view_of(scenario, Role.USER, with_persona=False).after(*turns), seed, "u"),
        RECOMMENDER.begin(view_of(scenario, Role.RECOMMENDER, with_persona=False).after(*turns), seed, "r"),
    )


async def talk(user: AgendaUserSpeaker, recommender: RuleRecommenderSpeaker, turns: tuple[Turn, ...] = ()) -> list[Turn]:
    """A conversation to its end, or to turn 40."""
    out = list(turns)
    while len(out) < 40 and not (out and out[-1].action in (Action.ACCEPT, Action.GIVE_UP)):
        if len(out) % 2 == 0:
            out.append(await recommender.speak())
            user.hear(out[-1])
        else:
            out.append(await user.speak())
            recommender.hear(out[-1])
    return out


@pytest.fixture(scope="module")
def dialogues() -> list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]]:
    """500 conversations, each with the user's Speaker at its end."""
    out = []
    for i, scenario in enumerate(SCENARIOS):
        user, recommender = begin(scenario, i)
        out.append((scenario, user, asyncio.run(talk(user, recommender))))
    return out


def user_turns(dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]]) -> list[Turn]:
    return [t for _, _, turns in dialogues for t in turns if t.role is Role.USER]


def says(user: AgendaUserSpeaker, *heard: Turn) -> Turn:
    for turn in heard:
        user.hear(turn)
    return asyncio.run(user.speak())


@lru_cache
def agent(rates: AgendaRates | None, catalog: Catalog) -> AgendaUser:
    return AgendaUser(catalog, rates)


def user_of(*attributes: str, seed: int = 0, rates: AgendaRates | None = None, catalog: Catalog = CATALOG) -> AgendaUserSpeaker:
    view = View(Role.USER, DOMAINS["movie"], "", (), attributes)
    return agent(rates, catalog).begin(view, seed, "s")


CERTAIN = AgendaRates(ask=0, chat=0, change_mind=0, patience=(8,))


def offer(*items: Item) -> Turn:
    return make_turn(Role.RECOMMENDER, Action.RECOMMEND, "How about " + " or ".join([TITLE] * len(items)) + "?", items)


# Scenarios


def test_target_attributes_are_two_or_three_facets_that_1_to_40_items_share_the_target_among_them() -> None:
    for scenario in SCENARIOS:
        goals = [INDEX.facet(a) for a in scenario.persona.target_attributes]
        assert 2 <= len(goals) <= 3
        assert goals[0].kind == "genre"
        assert 1 <= len(INDEX.having(goals)) <= 40
        target = CATALOG[scenario.targets[0].item_id]
        assert all(INDEX.has(target, goal) for goal in goals)


def test_every_kind_of_facet_is_a_target_attribute_at_its_rate() -> None:
    kinds = Counter(INDEX.facet(a).kind for s in SCENARIOS for a in s.persona.target_attributes)
    share = {kind: n / len(SCENARIOS) for kind, n in kinds.items()}
    assert share["genre"] == 1
    assert share["decade"] > 0.9
    assert 0.1 < share["mood"] < 0.35
    assert 0 < share["theme"] < 0.1
    assert 0 < share["director"] + share["cast"] < 0.1


def test_a_target_of_one_split_is_no_target_of_another() -> None:
    targets = {split: {s.targets[0].item_id for s in SCENARIOS if s.split is split} for split in Split}
    assert Counter(s.split for s in SCENARIOS) == {Split.TRAIN: 400, Split.VALID: 50, Split.TEST: 50}
    assert not targets[Split.TRAIN] & targets[Split.TEST]
    assert not targets[Split.TRAIN] & targets[Split.VALID]
    assert not targets[Split.VALID] & targets[Split.TEST]


def test_scenarios_have_three_known_items_distinct_sources_and_users_with_a_few_each() -> None:
    assert all(len({k.item_id for k in s.persona.known_items}) == 3 for s in SCENARIOS)
    assert all(s.targets[0].item_id not in {k.item_id for k in s.persona.known_items} for s in SCENARIOS)
    assert all(k.review for s in SCENARIOS for k in s.persona.known_items)
    assert len({s.source_id for s in SCENARIOS}) == len(SCENARIOS)
    assert 2.5 < len(SCENARIOS) / len({s.user_id for s in SCENARIOS}) < 3.5


def test_the_same_seed_gives_the_same_scenarios_and_another_seed_others() -> None:
    assert agenda_scenarios(CATALOG, 20, seed=1) == agenda_scenarios(CATALOG, 20, seed=1)
    assert agenda_scenarios(CATALOG, 20, seed=1) != agenda_scenarios(CATALOG, 20, seed=2)


def test_targets_spread_over_the_whole_catalog() -> None:
    scenarios = agenda_scenarios(CATALOG, 1500, seed=3, split_fractions=(1.0, 0.0, 0.0))
    assert len({s.targets[0].item_id for s in scenarios}) > 0.6 * len(CATALOG)


def test_a_catalog_without_attributes_or_too_few_items_is_refused_in_one_line() -> None:
    domain = DOMAINS["movie"]
    with pytest.raises(DataError, match="attribute 'genre'"):
        agenda_scenarios(Catalog([HEAT], domain), 1, seed=0)
    same = [HEAT.model_copy(update={"id": str(i), "title": f"Film{i}"}) for i in range(60)]
    other = HEAT.model_copy(update={"id": "x", "title": "Filmx", "attributes": {"genre": ("comedy",)}})
    with pytest.raises(DataError, match="found no target"):
        agenda_scenarios(Catalog([*same, other], domain), 1, seed=0, split_fractions=(1.0, 0.0, 0.0))
    with pytest.raises(DataError, match="split"):
        agenda_scenarios(Catalog(list(CATALOG)[:6], domain), 200, seed=0, split_fractions=(0.0, 0.02, 0.98))
    with pytest.raises(ValueError, match="sum to 1"):
        agenda_scenarios(CATALOG, 1, seed=0, split_fractions=(0.5, 0.1, 0.1))


# Conversations


def test_every_conversation_ends_by_accept_or_give_up_within_twenty_turns(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    for _, _, turns in dialogues:
        assert turns[-1].action in (Action.ACCEPT, Action.GIVE_UP)
        assert len(turns) <= 20
        assert [t.role for t in turns] == [(Role.RECOMMENDER, Role.USER)[i % 2] for i in range(len(turns))]


def test_a_proposal_is_accepted_if_and_only_if_it_fits_all_wishes_and_is_not_known(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    num_judged = 0
    for scenario, user, turns in dialogues:
        if user.has_changed_its_mind:
            continue
        known = {k.item_id for k in scenario.persona.known_items}
        goals = [INDEX.facet(a) for a in scenario.persona.target_attributes]
        last: Item | None = None
        for turn in turns:
            if turn.role is Role.RECOMMENDER and turn.items:
                last = CATALOG.get(turn.items[0].item_id)
            if turn.role is Role.USER and turn.action in (Action.ACCEPT, Action.FEEDBACK) and last is not None:
                fits = last.id not in known and all(INDEX.has(last, g) for g in goals)
                assert fits is (turn.action is Action.ACCEPT), (turn.text, last.label, goals)
                num_judged += 1
        if turns[-1].action is Action.ACCEPT:
            assert last is not None
            assert [m.item_id for m in accepted_mentions(tuple(turns))] == [last.id]
    assert num_judged > 600


def test_those_who_changed_their_mind_accept_by_the_new_wish(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    changed = [(s, u, t) for s, u, t in dialogues if u.has_changed_its_mind]
    assert 0.03 < len(changed) / len(dialogues) < 0.1
    for scenario, user, turns in changed:
        before = {INDEX.facet(a) for a in scenario.persona.target_attributes}
        assert len(before - set(user.goals)) == 1
        assert len(before) == len(user.goals)
        if turns[-1].action is Action.ACCEPT:
            item = CATALOG[accepted_mentions(tuple(turns))[0].item_id or ""]
            assert all(INDEX.has(item, g) for g in user.goals)


def test_the_rates_of_500_conversations_are_those_of_the_docs(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    said = user_turns(dialogues)
    all_turns = [turns for _, _, turns in dialogues]
    accepted = [t for t in all_turns if t[-1].action is Action.ACCEPT]
    words = [t.num_words for t in said]
    assert 7 <= sum(words) / len(words) <= 12
    assert 0.12 < sum(w <= 3 for w in words) / len(words) < 0.2
    assert 0.1 < sum(bool(re.search("please|thank|appreciate|sorry", t.text.lower())) for t in said) / len(said) < 0.2
    assert 0.03 < sum(t.action is Action.CHAT for t in said) / len(said) < 0.07
    assert 0.1 <= 1 - len(accepted) / len(dialogues) <= 0.25
    assert 6 <= sum(map(len, all_turns)) / len(dialogues) <= 11
    assert 1.5 <= sum(sum(t.action is Action.RECOMMEND for t in ts) for ts in accepted) / len(accepted) <= 2.5
    offers = sum(t.action is Action.RECOMMEND for ts in all_turns for t in ts)
    assert 0.1 < sum(t.action is Action.INQUIRE for t in said) / offers < 0.2
    plain = sum(not re.search("[A-Z]", "".join(without_titles(t) for t in ts if t.role is Role.USER)) for ts in all_turns)
    assert 0.18 < plain / len(dialogues) < 0.32


def test_the_wording_is_varied(dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]]) -> None:
    said = user_turns(dialogues)
    bigrams = [pair for t in said for pair in zip(t.text.lower().split(), t.text.lower().split()[1:], strict=False)]
    assert len(set(bigrams)) / len(bigrams) > 0.15  # of words alone: users of the default rates write no titles
    assert len({t.text for t in said}) / len(said) > 0.6
    offers = [t for _, _, ts in dialogues for t in ts if t.action is Action.RECOMMEND]
    assert len({re.sub(r"\W.*", "", without_titles(t)) for t in offers}) > 10


def test_nobody_says_the_same_sentence_three_times_in_a_row(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    for _, _, turns in dialogues:
        for role in Role:
            own = [t.text.casefold() for t in turns if t.role is role]
            assert all(len(set(own[i : i + 3])) > 1 for i in range(len(own) - 2))


def test_mentions_hold_the_label_of_their_item(dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]]) -> None:
    for _, _, turns in dialogues:
        for turn in turns:
            assert TITLE not in turn.text
            assert "a(n)" not in turn.text
            assert "{" not in turn.text
            assert "  " not in turn.text
            for mention, title in zip(turn.items, turn.titles, strict=True):
                assert mention.item_id is not None
                assert title == CATALOG[mention.item_id].label
            if turn.action is Action.RECOMMEND:
                assert len(turn.items) == 1


def test_a_recommending_turn_states_genres_moods_and_decade_and_sometimes_story_and_people_in_canonical_form(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    with_people, with_story = [], []
    for _, _, turns in dialogues:
        for turn in turns:
            if turn.action is Action.RECOMMEND:
                item = CATALOG[turn.items[0].item_id or ""]
                with_story.append(all(value in turn.text for value in item.attributes["theme"]))
                for kind in ("genre", "mood", "decade"):
                    assert all(value in turn.text for value in item.attributes[kind]), (turn.text, item)
                told = [*item.attributes["director"], *item.attributes["cast"][:2]]
                with_people.append(all(name in turn.text for name in told))
    assert 0.1 < sum(with_people) / len(with_people) < 0.35
    assert 0.2 < sum(with_story) / len(with_story) < 0.5


def test_a_recommending_turn_states_no_genre_mood_or_decade_that_the_item_lacks(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    for _, _, turns in dialogues[:200]:
        for turn in turns:
            if turn.action is Action.RECOMMEND:
                item = CATALOG[turn.items[0].item_id or ""]
                said = INDEX.read(turn.text, turn.items).wants
                wrong = [f for f in said if f.kind in ("genre", "mood", "decade") and not INDEX.has(item, f)]
                # Themes may hold such a word: "family feud".
                assert not [f for f in wrong if not any(f.value in t for t in item.attributes["theme"])], turn.text


def test_nothing_is_proposed_twice_and_the_user_names_no_target_before_it_is_proposed(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    for scenario, _, turns in dialogues:
        offered = [m.item_id for t in turns if t.action is Action.RECOMMEND for m in t.items]
        assert len(set(offered)) == len(offered)
        target = scenario.targets[0]
        offered_titles: set[str] = set()
        for turn in turns:
            if turn.role is Role.RECOMMENDER:
                offered_titles.update(turn.titles)
            else:
                assert not any(names_title(t, target.title) for t in turn.titles if t not in offered_titles)


def test_the_same_seed_gives_the_same_conversation_and_another_seed_another() -> None:
    first = [asyncio.run(talk(*begin(SCENARIOS[3], 7))) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] != asyncio.run(talk(*begin(SCENARIOS[3], 8)))


def test_speakers_begun_in_the_middle_go_on_as_if_they_had_spoken_from_the_start(
    dialogues: list[tuple[Scenario, AgendaUserSpeaker, list[Turn]]],
) -> None:
    for i, (scenario, _, turns) in list(enumerate(dialogues))[:30]:
        for cut in range(1, len(turns)):
            begun = tuple(turns[:cut])
            assert asyncio.run(talk(*begin(scenario, i, begun), begun)) == turns


def reachable(root: object) -> Iterator[object]:
    """Everything that an object holds, directly or not, modules and classes left out."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        thing = todo.pop()
        if (
            id(thing) in seen
            or isinstance(thing, type)
            or type(thing).__name__ in ("module", "function", "builtin_function_or_method")
        ):
            continue
        seen.add(id(thing))
        yield thing
        todo.extend(gc.get_referents(thing))


def test_neither_speaker_holds_a_scenario_or_a_target() -> None:
    scenario = SCENARIOS[0]
    user, recommender = begin(scenario, 0)
    asyncio.run(talk(user, recommender))
    for speaker in (user, recommender):
        held = list(reachable(speaker))
        assert any(isinstance(thing, Item) for thing in held)
        assert not any(isinstance(thing, Scenario | Target) for thing in held)
        assert not any(thing is scenario.targets[0].title for thing in held)
    assert not any(thing is scenario.persona.target_attributes for thing in reachable(recommender))


# The user


def test_a_rejection_names_a_facet_that_the_proposal_violates() -> None:
    texts = []
    for seed in range(60):
        user = user_of("comedy", "1980s", seed=seed, rates=CERTAIN)
        turn = says(user, offer(CATALOG.find("Heat (1995)") or HEAT))
        assert turn.action is Action.FEEDBACK
        texts.append(turn.text.lower())
    told = sum(
        "comed" in t
        or "too new" in t
        or "recent" in t
        or "older" in t
        or "80s" in t
        or "eighties" in t
        or "crime" in t
        or "thriller" in t
        for t in texts
    )
    assert told / len(texts) > 0.75


def test_a_known_item_is_rejected_as_seen_even_where_it_fits() -> None:
    scenario = SCENARIOS[0]
    known = CATALOG[scenario.persona.known_items[0].item_id or ""]
    view = view_of(scenario, Role.USER, with_persona=False)
    for seed in range(10):
        user = AgendaUser(CATALOG, CERTAIN).begin(
            View(Role.USER, view.domain, "", view.known_items, known.attributes["genre"]), seed, "s"
        )
        turn = says(user, offer(known))
        assert turn.action is Action.FEEDBACK
        assert re.search(r"se+n|sa+w|watch|know", with_letters(turn.text)) or len(turn.text) > 8


def with_letters(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower())


def test_of_several_proposals_the_fitting_one_is_named_in_the_accept() -> None:
    heat, other = (CATALOG.find(t) for t in ("Heat (1995)", "Toy Story (1995)"))
    assert heat is not None
    assert other is not None
    turn = says(user_of("crime", "1990s", rates=CERTAIN), offer(heat, other))
    assert turn.action is Action.ACCEPT
    assert turn.titles == (heat.label,)
    assert turn.items[0].item_id == heat.id


def test_a_user_without_patience_gives_up() -> None:
    user = user_of("comedy", rates=AgendaRates(ask=0, chat=0, patience=(1,)))
    assert says(user, offer(CATALOG.find("Heat (1995)") or HEAT)).action is Action.GIVE_UP


def test_a_recommender_that_only_talks_is_given_up_on() -> None:
    user = user_of("comedy")
    small_talk = Turn(role=Role.RECOMMENDER, action=Action.CHAT, text="I see.")
    turns = [says(user, small_talk) for _ in range(9)]
    assert turns[-1].action is Action.GIVE_UP
    assert all(t.action is not Action.GIVE_UP for t in turns[:-1])


def test_an_item_that_no_catalog_holds_is_never_accepted_and_a_repeated_one_is_pointed_out() -> None:
    user = user_of("comedy", rates=CERTAIN)
    unknown = Turn(
        role=Role.RECOMMENDER, action=Action.RECOMMEND, text="Try Zzyzx Nights (1901)!", items=(Mention(start=4, end=23),)
    )
    assert says(user, unknown).action is Action.FEEDBACK
    heat = CATALOG.find("Heat (1995)") or HEAT
    user = user_of("comedy", rates=AgendaRates(ask=0, chat=0, short=0, slips=0, change_mind=0, patience=(8,)))
    says(user, offer(heat))
    assert says(user, offer(heat)).text in {tidy(t) for t in load_wording("user").get("reject.again")} | {
        plainly(t, random.Random(i)) for t in load_wording("user").get("reject.again") for i in range(9)
    }


def test_wishes_that_are_no_catalog_values_are_told_but_not_judged_by() -> None:
    user = user_of("crime", "a twist at the end", rates=CERTAIN)
    question = Turn(role=Role.RECOMMENDER, action=Action.INQUIRE, text="What are you looking for?")
    said = " ".join(says(user, question).text.lower() for _ in range(3))
    assert "twist at the end" in said
    assert says(user, offer(CATALOG.find("Heat (1995)") or HEAT)).action is Action.ACCEPT


def test_a_user_without_any_wish_talks_on_and_takes_the_first_proposal() -> None:
    user = user_of(rates=CERTAIN)
    assert says(user, Turn(role=Role.RECOMMENDER, action=Action.INQUIRE, text="Which genre?")).role is Role.USER
    assert says(user, Turn(role=Role.RECOMMENDER, action=Action.CHAT, text="Fine.")).role is Role.USER
    assert says(user, offer(HEAT if "heat" in CATALOG else next(iter(CATALOG)))).action is Action.ACCEPT


# The recommender


def recommends(*user_texts: str, seed: int = 0) -> tuple[RuleRecommenderSpeaker, Turn]:
    speaker = RECOMMENDER.begin(View(Role.RECOMMENDER, DOMAINS["movie"], "", (), ()), seed, "s")
    for text in user_texts:
        turn = asyncio.run(speaker.speak())
        speaker.hear(Turn(role=Role.USER, action=Action.FEEDBACK if turn.items else Action.DISCLOSE_GOAL, text=text))
    return speaker, asyncio.run(speaker.speak())


def test_preferences_are_read_from_the_users_words() -> None:
    speaker, _ = recommends("hey, any good sci-fi from the 90's?", "not too scary, something tense")
    assert set(speaker.heard) == {Facet("genre", "science fiction"), Facet("decade", "1990s"), Facet("mood", "tense")}


def test_after_too_old_something_newer_is_proposed() -> None:
    speaker = RECOMMENDER.begin(View(Role.RECOMMENDER, DOMAINS["movie"], "", (), ()), 0, "s")
    old = CATALOG.find("The Maltese Falcon") or next(i for i in CATALOG if (i.year or 0) < 1950)
    speaker.hear(Turn(role=Role.USER, action=Action.DISCLOSE_GOAL, text="a crime movie"))
    view = View(
        Role.RECOMMENDER,
        DOMAINS["movie"],
        "",
        (),
        (),
        (offer(old), Turn(role=Role.USER, action=Action.FEEDBACK, text="too old")),
    )
    for seed in range(10):
        turn = asyncio.run(RECOMMENDER.begin(view, seed, "s").speak())
        if turn.items:
            assert (CATALOG[turn.items[0].item_id or ""].year or 0) >= (old.year or 0) // 10 * 10 + 10


def test_a_question_about_a_proposal_is_answered_from_its_facts() -> None:
    heat = CATALOG.find("Heat (1995)") or HEAT
    for question, fact in (
        ("Who directed it?", "Michael Mann"),
        ("who's in it", "Al Pacino"),
        ("When was it made?", "1995"),
        ("is it violent?", "crime"),
    ):
        asked = Turn(role=Role.USER, action=Action.INQUIRE, text=question)
        view = View(Role.RECOMMENDER, DOMAINS["movie"], "", (), (), (offer(heat), asked))
        turn = asyncio.run(RECOMMENDER.begin(view, 1, "s").speak())
        assert turn.action is Action.ANSWER
        assert fact in turn.text
        assert not turn.items


def test_facts_that_are_missing_are_admitted() -> None:
    bare = Item(id="b", title="Bare", attributes={"genre": ("crime",)})
    catalog = Catalog([bare, HEAT], DOMAINS["movie"])
    asked = Turn(role=Role.USER, action=Action.INQUIRE, text="Who directed it?")
    view = View(Role.RECOMMENDER, DOMAINS["movie"], "", (), (), (offer(bare), asked))
    turn = asyncio.run(RuleRecommender(catalog).begin(view, 1, "s").speak())
    assert any(t in turn.text for t in load_wording("recommender").get("fact.unknown"))


def test_when_nothing_matches_it_says_so_and_proposes_something_close() -> None:
    closest = {tidy(t)[:12] for t in load_wording("recommender").get("before.closest")}
    texts = [
        recommends("a western from the 2020s about time travel", "you choose", "anything", "whatever", seed=s)[1].text
        for s in range(12)
    ]
    assert any(text[:12] in closest for text in texts)


# Reading and wording


@pytest.mark.parametrize(
    ("text", "wants", "dislikes"),
    [
        ("I'd love a funny western from the fifties", {"funny", "western", "1950s"}, set()),
        ("not really in the mood for horror, more like comedy", {"comedy"}, {"horror"}),
        ("not really in the mood for horror more like comedy", {"comedy"}, {"horror"}),
        ("a comedy instead of a war movie", {"comedy"}, {"war"}),
        ("I love my work and my school", set(), set()),
        ("something about work", {"work"}, set()),
        ("something by michael mann with al pacino", {"Michael Mann", "Al Pacino"}, set()),
        ("crime isn't my thing", set(), {"crime"}),
        ("crime isn\u2019t my thing today, I'd prefer drama", {"drama"}, {"crime"}),
        ("a drama please, crime isn't for me", {"drama"}, {"crime"}),
        ("crime movies really aren't my cup of tea but a western is", {"western"}, {"crime"}),
        ("crime and horror aren't my thing", set(), {"crime", "horror"}),
        ("Crime, horror and war are not for me.", set(), {"crime", "horror", "war"}),
        ("crime isn't what I want I need a drama", {"drama"}, {"crime"}),
        ("horror doesn't do it for me, something funny", {"funny"}, {"horror"}),
        ("horror I can't stand, crime is fine", {"crime"}, {"horror"}),
        ("I want a crime movie I don't like horror", {"crime"}, {"horror"}),
        ("crime isn't my only interest", {"crime"}, set()),
        ("too dark, I want it feel good", {"feel-good"}, {"dark"}),
        ("an animated one, based on a true story", {"animation", "true story"}, set()),
    ],
)
def test_facets_are_read_from_text(text: str, wants: set[str], dislikes: set[str]) -> None:
    heard = INDEX.read(text)
    assert ({f.value for f in heard.wants}, {f.value for f in heard.dislikes}) == (wants, dislikes)


def test_somebody_who_directs_and_acts_is_read_by_the_word_before_the_name() -> None:
    assert INDEX.read("by Clint Eastwood").wants == (Facet("director", "Clint Eastwood"),)
    assert INDEX.read("with Clint Eastwood").wants == (Facet("cast", "Clint Eastwood"),)


def test_a_user_who_turns_a_genre_down_behind_its_name_has_not_changed_its_mind() -> None:
    view = view_of(SCENARIOS[0], Role.USER, with_persona=True)
    goals = USER.begin(view, 1, "s").goals
    other = next(v for v in INDEX.values("genre") if Facet("genre", v) not in goals)
    offer = next(i for i in CATALOG if other in i.attributes["genre"])
    wanted = next(g.value for g in goals if g.kind == "genre")
    said = make_turn(Role.USER, Action.FEEDBACK, f"{other} isn't my thing today, I'd prefer {wanted}")
    view = view.after(make_turn(Role.RECOMMENDER, Action.RECOMMEND, f"Try {TITLE}.", [offer]), said)
    begun = USER.begin(view, 1, "s")
    assert begun.goals == goals
    assert not begun.has_changed_its_mind


def test_words_inside_a_title_are_not_read() -> None:
    text = "I liked Mystery Road (2013), do you have a comedy?"
    assert {f.value for f in INDEX.read(text, [Mention(start=8, end=27)]).wants} == {"comedy"}


def test_no_phrasing_of_the_user_holds_a_facet_of_its_own() -> None:
    skipped = ("noun.",)
    for key, templates in load_wording("user").phrasings.items():
        for template in templates:
            if not key.startswith(skipped):
                text = re.sub(r"\{\w+\}", ";", template)
                assert not INDEX.read(text).wants, (key, template)


@given(st.integers(0, 10**6), st.sampled_from(sorted(i.id for i in CATALOG)))
@settings(max_examples=150)
def test_a_wish_in_words_is_read_as_that_wish(seed: int, item_id: str) -> None:
    rng = random.Random(seed)
    item = CATALOG[item_id]
    kinds = rng.sample(["genre", "decade", "mood", "theme"], 2)
    facets = [f for kind in kinds for f in [Facet(kind, rng.choice(item.attributes[kind]))] if INDEX.sayable(f)]
    assert set(INDEX.read(tidy(wish(facets, rng))).wants) == set(facets)


@given(st.integers(0, 10**6), st.sampled_from(sorted(i.id for i in CATALOG)))
@settings(max_examples=100)
def test_typos_and_plain_typing_never_touch_titles(seed: int, item_id: str) -> None:
    rng = random.Random(seed)
    item = CATALOG[item_id]
    text = plainly(with_typos(f"I watched {TITLE} yesterday evening, wonderful.", rng, 1.0, ()), rng)
    turn = make_turn(Role.USER, Action.FEEDBACK, text, [item])
    assert turn.titles == (item.label,)
    assert "yesterday" not in turn.text


def test_typos_come_at_their_rate_and_spare_the_words_that_reading_depends_on() -> None:
    rng = random.Random(1)
    words = "yesterday evening wonderful comedy instead".split()
    slips = Counter(
        w
        for _ in range(2000)
        for w, t in zip(words, with_typos(" ".join(words), rng, 0.04, INDEX.careful).split(), strict=True)
        if w != t
    )
    assert set(slips) == {"yesterday", "evening", "wonderful"}
    assert 0.03 < sum(slips.values()) / 6000 < 0.05


def test_questions_are_understood_by_their_cues() -> None:
    for kind in ("genre", "decade", "mood", "theme"):
        for text in load_wording("recommender").get(f"ask.{kind}"):
            assert asked_kind(f"A movie about nature, nice. {text}") == kind, text
    for text in (*load_wording("recommender").get("ask.open"), *load_wording("recommender").get("ask.more")):
        assert asked_kind(text) is None, text
    for fact in ("director", "cast", "plot", "good"):
        for text in load_wording("user").get(f"ask.{fact}"):
            assert asked_fact(text.lower()) == fact, text


def test_facts_leave_out_what_an_item_lacks() -> None:
    assert tidy(facts(Item(id="a", title="A"), random.Random(0), with_people=True)).strip() == "A movie"


def test_a_text_with_fewer_titles_than_items_is_refused() -> None:
    with pytest.raises(ValueError, match="places for titles"):
        make_turn(Role.USER, Action.FEEDBACK, "no title", [HEAT])


def test_articles_and_capitals_are_put_right() -> None:
    assert tidy("a(n) 80s film. a(n) 1980s film , a(n) eerie one") == "An 80s film. A 1980s film, an eerie one"
    assert join("Hey,", "Could you?") == "Hey, could you?"
    assert join("Hey,", "I do") == "Hey, I do"


def without_titles(turn: Turn) -> str:
    text = turn.text
    for mention in reversed(turn.items):
        text = text[: mention.start] + text[mention.end :]
    return text
