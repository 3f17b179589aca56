"""The tasks of a user simulator beside its next turn: rows, mixture, the end token, and that no View knows of them."""

import json
import random
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.backends.scripted import ScriptedBackend
from interplay.cli.pipeline import train as train_verb
from interplay.config import Sampling, TinyConfig, TrainConfig, UserTasks, parse_config
from interplay.corpora.corpus import Corpus, Counts
from interplay.errors import ConfigError, DataError
from interplay.evaluation.scoring import About
from interplay.evaluation.turn_scores import score_turns
from interplay.evaluation.turns import TurnPrediction
from interplay.formats.constraint import TurnGrammar
from interplay.formats.tags import TASK_TAGS
from interplay.formats.tokens import IGNORED, TokenFormat, add_structural_tokens
from interplay.simulation.checkpoint import load_form, load_tokenizer, read_card
from interplay.simulation.dialogue import converse
from interplay.simulation.model_agents import TokenAgent
from interplay.training.backbone import train_tokenizer
from interplay.training.rows import training_rows
from interplay.training.user_tasks import (
    RowMaker,
    TaskCounts,
    answer_to,
    facts_of_gold,
    flipped_rows,
    gold_conversations,
    mixture,
    noun_phrase,
    quotas,
    revealed,
    shown_turn,
    trained_tasks,
)
from interplay.types import Action, Catalog, Ending, Item, Persona, Role, Scenario, Split, Target, Turn, view_of
from makers import ALIEN, CATALOG, HEAT, MOVIE, TALK, UP, dialogue, recommender, scenario, scenarios, turns, user

ALL = UserTasks(flipped=1, feedback=1, attributes=1, target=1, from_log=0, described=0, num_lists=1)
SHAPE = TinyConfig(layers=1, width=32, vocab_size=320, context=256)
SECRET = Item(
    id="secret",
    title="Zyzzyva Quagmire",
    year=1931,
    attributes={"genre": ("qwertygenre",), "decade": ("1930s",), "director": ("Xavier Wumpus",)},
)


def make_form(**options) -> TokenFormat:
    tokenizer = train_tokenizer(["Try Heat (1995) or Up (2009)? no, something from the 1990s, a crime thriller"] * 3, 330)
    add_structural_tokens(tokenizer, MOVIE, **options)
    return TokenFormat(tokenizer, MOVIE, **options)


FORM = make_form(tasks=TASK_TAGS)
PLAIN = make_form()


def start_of(item: Item | None, k: int) -> Scenario:
    """A scenario whose persona tells the decade that is looked for, and nothing else of the item."""
    persona = Persona(
        general_preferences="likes slow films", target_attributes=item.attributes["decade"] if item is not None else ()
    )
    return scenario(None, source_id=str(k), split=Split.TRAIN).model_copy(
        update={"persona": persona, "targets": (Target(item_id=item.id, title=item.label),) if item is not None else ()}
    )


def make_corpus(num: int = 24) -> Corpus:
    """Conversations that lead to Heat, Alien and Up in turn; every sixth leads nowhere."""
    golds = [HEAT, ALIEN, UP]
    starts = [start_of(None if k % 6 == 5 else golds[k % 3], k) for k in range(num)]
    talks = [dialogue(start, talk_to(golds[k % 3])) for k, start in enumerate(starts)]
    return Corpus("made", talks, starts, CATALOG, Counts(num, num))


def talk_to(item: Item) -> tuple[Turn, ...]:
    """TALK, with another item at its end."""
    other = UP if item is not UP else HEAT
    return (
        *TALK[:2],
        recommender(Action.RECOMMEND, "Maybe ", other, "?"),
        TALK[3],
        recommender(Action.RECOMMEND, "Then ", item, "."),
        TALK[5],
    )


CORPUS = make_corpus()


def golds_of(corpus: Corpus = CORPUS):
    return gold_conversations([corpus], Split.TRAIN, TaskCounts())


def parts(row) -> tuple[str, str]:
    """What a row shows, and what is learned of it."""
    read = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]
    return FORM.decode(read), FORM.decode([label for label in row["labels"] if label != IGNORED])


# ---- flipped ---------------------------------------------------------------------------------------------------------


@given(st.lists(turns(), max_size=6))
@settings(max_examples=25)
def test_a_conversation_of_k_user_turns_is_k_plus_1_samples_and_the_last_is_the_end_token(talk):
    start = scenario()
    log = dialogue(start, tuple(talk), ending=None)
    rows = flipped_rows(start, log, FORM)
    own = [turn for turn in talk if turn.role is Role.USER]
    learned = [[i for i in row["labels"] if i != IGNORED] for row in rows]
    assert learned == [*(FORM.turn_ids(turn) for turn in own), [FORM.end]]


def test_a_flipped_sample_shows_the_ordinary_view_before_its_turn_and_no_tag_of_a_task():
    start = scenario()
    second = flipped_rows(start, dialogue(start), FORM)[1]
    view = view_of(start, Role.USER, with_persona=True).after(*TALK[:3])
    expected = [*FORM.render(view).ids, *FORM.opening_ids(Role.USER), *FORM.turn_ids(TALK[3])]
    assert second["input_ids"] == expected


def test_a_user_that_says_the_end_token_leaves_without_a_word():
    left = FORM.parse([FORM.end], Role.USER)
    assert (left.action, left.text) == (Action.GIVE_UP, "")
    assert FORM.turn_ids(left) == [FORM.end]
    assert PLAIN.end is None


def test_an_end_token_is_an_ending_for_the_single_turn_protocol():
    left = FORM.parse([FORM.end], Role.USER)
    asked = [TurnPrediction("s", 1, user(Action.GIVE_UP, "bye"), left), TurnPrediction("s", 3, TALK[1], TALK[1])]
    scored, _ = score_turns(asked, About(subject="m", split="test", seed=0, data_digest="d"))
    assert {row.value for row in scored if row.metric == "turns.end_f1"} == {1.0}


def test_only_a_user_that_was_trained_to_leave_may_do_so_under_the_grammar():
    for form, role, may in ((FORM, Role.USER, True), (FORM, Role.RECOMMENDER, False), (PLAIN, Role.USER, False)):
        state = TurnGrammar(form, role).constraint().start(20)
        assert (form.end in state.allowed().ids.tolist()) is may
        if may:
            state.advance(form.end)
            assert state.allowed().ids.tolist() == [form.end_of_turn]


async def test_an_end_token_ends_the_conversation_as_gave_up():
    def agent(role, says):
        grammar = TurnGrammar(FORM, role)
        return TokenAgent(role, "m", FORM, ScriptedBackend(lambda request: says), Sampling(), CATALOG, turn_grammar=grammar)

    speaker = agent(Role.RECOMMENDER, tuple(FORM.turn_ids(recommender(Action.CHAT, "hi"))))
    leaver = agent(Role.USER, (FORM.end,))
    held = await converse(scenario(), leaver, speaker, seed=0)
    assert (held.ending, len(held.turns)) == (Ending.GAVE_UP, 2)
    assert leaver.backend.requests[0].stop_ids == (FORM.end_of_turn, FORM.end)


# ---- feedback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_accepts_if_and_only_if_the_gold_item_is_listed(seed):
    rng = random.Random(seed)
    golds = golds_of()
    gold = rng.choice(golds)
    shown, learned = parts(RowMaker(FORM, ALL, golds, TaskCounts()).feedback(gold, rng))
    list_of_titles = shown.split(TASK_TAGS["feedback"])[1]
    assert (gold.item.label in list_of_titles) == learned.startswith("<action><accept>")
    assert learned.startswith("<action><accept>") or learned.startswith("<action><feedback>")
    assert gold.item.label not in shown.split(TASK_TAGS["feedback"])[0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_gold_item_is_on_as_many_lists_as_asked(share):
    counts = TaskCounts()
    maker = RowMaker(FORM, ALL.model_copy(update={"gold_shown": share}), golds_of(), counts)
    for seed in range(10):
        maker.feedback(golds_of()[0], random.Random(seed))
    assert counts.gold_listed == 10 * share


def test_lists_follow_each_other_until_one_is_accepted():
    golds = golds_of()
    counts = TaskCounts()
    maker = RowMaker(FORM, ALL.model_copy(update={"num_lists": 2}), golds, counts)
    learned = [parts(maker.feedback(gold, random.Random(seed)))[1] for seed, gold in enumerate(golds * 3)]
    assert {text.count("</response>") for text in learned} == {1, 2}
    for text in learned:
        assert "<accept>" not in text[: text.rindex("<action>")]
    assert counts.lists == sum(text.count("</response>") for text in learned)
    assert counts.gold_listed == sum("<accept>" in text for text in learned)


def test_a_rejection_asks_for_what_the_view_has_told_and_the_list_lacks():
    gold = next(g for g in golds_of() if g.item is HEAT)
    view = gold.view(2)
    for seed in range(30):
        said, differs = answer_to([UP, ALIEN], None, gold, view, random.Random(seed))
        assert differs
        assert said.action is Action.FEEDBACK
        assert ("1990s" in said.text, "crime" in said.text) == (True, False)  # nobody has spoken of crime


def test_a_rejection_of_a_list_without_known_differences_names_none():
    bare = Item(id="bare", title="Bare")
    gold = next(g for g in golds_of() if g.item is HEAT)
    twin = bare.model_copy(update={"attributes": HEAT.attributes})
    said, differs = answer_to([twin], None, gold, gold.view(0), random.Random(0))
    assert not differs
    assert said.action is Action.FEEDBACK


def test_a_described_list_tells_what_each_title_is_and_another_list_does_not():
    for seed in range(10):
        told = shown_turn([HEAT, ALIEN], "movie", random.Random(seed), is_described=True)
        assert all(word in told.text for word in ("crime thriller movie from the 1990s", "horror movie from the 1970s"))
        bare = shown_turn([HEAT, ALIEN], "movie", random.Random(seed), is_described=False)
        assert "movie" not in bare.text
        assert told.titles == bare.titles == (HEAT.label, ALIEN.label)


def test_an_accept_names_the_gold_item_as_a_title_linked_to_it():
    gold = next(g for g in golds_of() if g.item is HEAT)
    for seed in range(10):
        said, _ = answer_to([UP, HEAT], HEAT, gold, gold.view(0), random.Random(seed))
        assert (said.titles, said.items[0].item_id) == ((HEAT.label,), "heat")


def test_a_list_of_the_log_is_answered_in_the_person_s_own_words():
    counts = TaskCounts()
    golds = golds_of()
    maker = RowMaker(FORM, ALL.model_copy(update={"from_log": 1.0}), golds, counts)
    said = {parts(maker.feedback(golds[0], random.Random(seed)))[1] for seed in range(20)}
    assert said == {FORM.decode(FORM.turn_ids(TALK[3])), FORM.decode(FORM.turn_ids(TALK[5]))}
    assert counts.from_log == 20


def test_nothing_is_shown_that_has_all_that_the_user_looks_for():
    also = Item(id="also", title="Also Right", year=1996, attributes={"decade": ("1990s",)})
    corpus = make_corpus(12)
    corpus.catalog = Catalog([*CATALOG, also], MOVIE)
    corpus.scenarios[2] = start_of(also, 2)
    golds = golds_of(corpus)
    maker = RowMaker(FORM, ALL, golds, TaskCounts())
    shown = [parts(maker.target(next(g for g in golds if g.item is HEAT), random.Random(seed)))[0] for seed in range(15)]
    assert not any("Also Right" in text for text in shown)


def test_what_was_revealed_is_what_the_persona_or_somebody_has_named():
    gold = next(g for g in golds_of() if g.item is HEAT)
    facts = facts_of_gold(HEAT)
    assert [f.value for f in revealed(facts, gold.view(0))] == ["1990s"]
    spoken = gold.view(0).after(user(Action.DISCLOSE_GOAL, "some gangsters please"))
    assert {f.value for f in revealed(facts, spoken)} == {"1990s", "crime"}


@given(st.lists(st.sampled_from(facts_of_gold(HEAT) + facts_of_gold(SECRET)), max_size=4, unique=True))
def test_a_phrase_holds_every_value_of_its_attributes(facts):
    phrase = noun_phrase(facts, "book")
    assert all(fact.value in phrase for fact in facts)


# ---- attributes and target -------------------------------------------------------------------------------------------


def test_the_attribute_task_learns_the_attributes_of_the_gold_item_from_the_view():
    gold = next(g for g in golds_of() if g.item is HEAT)
    shown, learned = parts(RowMaker(FORM, ALL, golds_of(), TaskCounts()).attributes(gold, random.Random(1)))
    assert learned == " crime, thriller, 1990s</response>"
    assert shown.endswith(f"{TASK_TAGS['attributes']}<response>")
    assert "Heat" not in shown


def test_the_target_task_learns_the_gold_title_out_of_titles_in_any_order():
    golds = golds_of()
    gold = next(g for g in golds if g.item is HEAT)
    maker = RowMaker(FORM, ALL.model_copy(update={"num_candidates": 2}), golds, TaskCounts())
    places = set()
    for seed in range(12):
        shown, learned = parts(maker.target(gold, random.Random(seed)))
        assert learned == "<movie_title>Heat (1995)</movie_title></response>"
        choice = shown.split(TASK_TAGS["target"])[1]
        assert choice.count("<movie_title>") == 2
        places.add(choice.index("Heat"))
    assert len(places) > 1


def test_histories_end_before_anybody_names_the_gold_item():
    for gold in golds_of():
        assert all(gold.item.title not in turn.text for turn in gold.view(max(gold.cuts)).turns)
    late = next(g for g in golds_of() if g.item is HEAT)
    assert late.cuts == [0, 2, 4]


# ---- mixture ---------------------------------------------------------------------------------------------------------

weights = st.floats(0.3, 2, allow_nan=False)


@given(st.tuples(weights, weights, weights, weights, weights))
@settings(max_examples=3)
def test_the_realised_shares_are_within_1_percent_of_those_asked(given_weights):
    names = ("next_turn", *TASK_TAGS)
    tasks = UserTasks(**dict(zip(names, given_weights, strict=True)))
    next_turn = [{"input_ids": [1], "labels": [1]}] * 150
    rows, counts = mixture(tasks, [make_corpus(6)], FORM, next_turn, max_length=512, seed=0)
    total = sum(given_weights)
    assert sum(counts.rows.values()) == len(rows)
    for name, weight in zip(names, given_weights, strict=True):
        assert counts.shares[name] == pytest.approx(weight / total, abs=0.01)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (UserTasks(feedback=1), {"next_turn": 7, "feedback": 7}),
        (UserTasks(next_turn=0, flipped=1), {"flipped": 24 * 4}),
        (UserTasks(next_turn=0, attributes=2, target=1), {"attributes": 20, "target": 10}),
    ],
    ids=["next turn whole", "flipped whole", "one row per conversation with a gold item"],
)
def test_what_a_mixture_is_measured_by(tasks, expected):
    next_turn = [{"input_ids": [1], "labels": [1]}] * 7
    _, counts = mixture(tasks, [CORPUS], FORM, next_turn, max_length=512, seed=0)
    assert counts.rows == expected


def test_conversations_without_a_gold_item_are_counted_and_left_out():
    corpus = make_corpus(12)
    corpus.scenarios[0] = start_of(SECRET, 0)
    counts = TaskCounts()
    found = gold_conversations([corpus], Split.TRAIN, counts)
    assert counts.skipped == {"no gold item": 2, "gold item not in the catalog": 1}
    assert counts.conversations == len(found) == 9


def test_the_same_seed_makes_the_same_rows_and_another_seed_others():
    tasks = ALL.model_copy(update={"next_turn": 0.0})
    made = [mixture(tasks, [CORPUS], FORM, [], max_length=512, seed=seed)[0] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_a_task_without_one_row_is_one_line():
    nowhere = make_corpus(2)
    nowhere.scenarios = [scenario(None, source_id=str(k), split=Split.TRAIN) for k in range(2)]
    with pytest.raises(DataError, match=r"gives a row of the task feedback .* leave it out with --tasks.feedback 0") as caught:
        mixture(UserTasks(feedback=1), [nowhere], FORM, [{"input_ids": [1], "labels": [1]}], max_length=512, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tasks", "role", "message"),
    [
        (ALL, "recommender", "not of a recommender"),
        (ALL, "base", "not of a base"),
        (UserTasks(next_turn=0), "user", "weight 0"),
    ],
)
def test_each_impossible_mixture_is_one_line(tasks, role, message):
    with pytest.raises(ConfigError, match=message):
        trained_tasks(tasks, role)


@given(st.integers(1, 10_000), weights)
def test_the_quota_of_a_task_is_its_weight_in_rows_of_the_whole_one(num, weight):
    assert quotas(UserTasks(target=weight), "next_turn", num) == {"next_turn": num, "target": round(num * weight)}


# ---- no View knows ---------------------------------------------------------------------------------------------------


@given(scenarios(domain=MOVIE), st.lists(turns(), max_size=4))
@settings(max_examples=40)
def test_a_view_is_rendered_the_same_with_and_without_the_tasks(start, talk):
    view = view_of(start, Role.USER, with_persona=True).after(*talk)
    with_tasks, without = FORM.render(view), PLAIN.render(view)
    assert FORM.decode(with_tasks.ids) == PLAIN.decode(without.ids)
    assert not {FORM.tag_id(tag) for tag in TASK_TAGS.values()} & set(with_tasks.ids)


@pytest.mark.parametrize("task", TASK_TAGS)
async def test_nothing_of_the_target_reaches_a_prompt_at_simulation_time(task):
    start = start_of(SECRET, 0)
    form = make_form(tasks=(task,))
    said = tuple(form.turn_ids(user(Action.DISCLOSE_GOAL, "something old")))
    catalog = Catalog([*CATALOG, SECRET], MOVIE)
    agent = TokenAgent(Role.USER, "m", form, ScriptedBackend(lambda request: said), Sampling(), catalog)
    other = ScriptedBackend(lambda request: tuple(form.turn_ids(TALK[2])))
    await converse(start, agent, TokenAgent(Role.RECOMMENDER, "r", form, other, Sampling(), CATALOG), seed=0)
    prompts = [form.decode(request.prompt) for request in agent.backend.requests]
    assert len(prompts) == 2
    for prompt in prompts:
        assert "1930s" in prompt  # its persona has told so much
        assert not any(word in prompt for word in ("Zyzzyva", "Quagmire", "1931", "qwertygenre", "Wumpus", "task", "<end>"))


def test_the_sentinel_is_in_the_rows_that_are_trained_on():
    corpus = make_corpus(4)
    corpus.catalog = Catalog([*CATALOG, SECRET], MOVIE)
    start = start_of(SECRET, 0)
    corpus.scenarios[0], corpus.dialogues[0] = start, dialogue(start)
    gold = golds_of(corpus)[0]
    maker = RowMaker(FORM, ALL, golds_of(corpus), TaskCounts())
    shown, learned = parts(maker.attributes(gold, random.Random(0)))
    assert "qwertygenre" in learned
    assert "qwertygenre" not in shown


# ---- training --------------------------------------------------------------------------------------------------------


def options(data: Path, out: Path, **more) -> TrainConfig:
    asked: dict = {"role": "user", "data": [data], "out": out, "max_steps": 1, "max_length": 256, "tiny": SHAPE}
    return TrainConfig(**(asked | more))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "data"
    make_corpus(12).save(path)
    return path


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tasks") / "user"
    with redirect_stdout(StringIO()) as told:
        assert train_verb(options(data, out, tasks=ALL.model_copy(update={"feedback": 0.5}))) == 0
    (out / "told").write_text(told.getvalue())
    return out


def test_a_checkpoint_says_what_it_was_trained_on_and_has_the_tags_of_that(trained):
    assert read_card(trained).tasks == ("feedback", "attributes", "target", "flipped")
    assert set(TASK_TAGS.values()) <= set(load_tokenizer(trained).get_vocab())
    summary = json.loads((trained / "logs" / "summary.json").read_text())
    assert summary["mixture"]["rows"] == dict.fromkeys(("next_turn", *TASK_TAGS), 12) | {"feedback": 6}
    assert summary["mixture"]["skipped"] == {"no gold item": 2}


def test_the_tokenizer_has_the_tags_of_the_trained_tasks_alone():
    vocabulary = make_form(tasks=("attributes",)).tokenizer.get_vocab()
    assert [tag in vocabulary for tag in TASK_TAGS.values()] == [False, True, False, False]


def test_a_checkpoint_is_read_with_the_tags_of_its_tasks(trained):
    form = load_form(trained, read_card(trained))
    assert form.stop_ids == (form.end_of_turn, form.end)


def test_the_mixture_is_told(trained):
    told = (trained / "told").read_text()
    assert "mixture: next_turn 12 rows (22.2%), feedback 6 rows (11.1%), attributes 12 rows (22.2%)" in told
    assert "10 conversations with a gold item; 2 left out: no gold item" in told
    assert "6 lists, " in told


def test_next_turn_rows_of_a_mixture_are_those_of_a_training_without_one(data):
    corpus = Corpus.read(data)
    plain, _ = training_rows(corpus.pairs(Split.TRAIN), Role.USER, FORM, with_persona=False, max_length=256)
    rows, _ = mixture(ALL, [corpus], FORM, plain, max_length=256, seed=0)
    assert rows[: len(plain)] == plain


def test_the_recipe_trains_the_tasks_of_a_user():
    args = ["user", "--config", "recipes/tiny-multitask.toml", "--data", "d", "--out", "o", "--tasks.target", "0"]
    config = parse_config(TrainConfig, args, "interplay train")
    assert trained_tasks(config.tasks, "user") == ("feedback", "attributes")
