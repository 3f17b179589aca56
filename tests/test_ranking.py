"""Rankers of items and the protocol that measures them, on conversations made here."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.cli import main
from interplay.config import Sampling
from interplay.corpora.corpus import Corpus, Counts
from interplay.corpora.splits import split_by_worker
from interplay.errors import DataError, InputError
from interplay.evaluation.ranking import place_cases, ranking_rows
from interplay.evaluation.scoring import About
from interplay.items.contexts import MAX_ITEMS, MAX_WORDS, Reader, cases_of, document, enriched, known_words
from interplay.items.index import top_k
from interplay.items.lexical import Cooccurrence, copy_scores
from interplay.items.ranker import ItemRanker, TrainingLog
from interplay.items.reranking import FEATURES, VIEWS, LinearReranker, fused_scores
from interplay.metrics.ranking import discounted_gain, mean_reciprocal_rank, ndcg_at_k
from interplay.simulation.ranker_agent import RankerAgent
from interplay.simulation.specs import load_from_spec
from interplay.types import Action, Catalog, Dialogue, Item, Persona, Role, Scenario, Split, view_of
from makers import HEAT, MOVIE, recommender, user

GENRES = ("horror", "comedy", "western")
ITEMS = [
    Item(id=f"{genre}-{n}", title=f"{genre.title()} Story {n}", year=1980 + n, attributes={"genre": (genre,)})
    for genre in GENRES
    for n in range(8)
]
CATALOG = Catalog(ITEMS, MOVIE)
ASKED = {"horror": "something scary please", "comedy": "something funny please", "western": "cowboys please"}


def conversation(seed: int) -> Dialogue:
    """A user who asks for a genre and names a film of it gets two others of that genre."""
    rng = random.Random(seed)
    genre = rng.choice(GENRES)
    first, second, third = rng.sample([i for i in ITEMS if i.id.startswith(genre)], 3)
    turns = (
        user(Action.DISCLOSE_GOAL, f"{ASKED[genre]}, I liked ", first),
        recommender(Action.RECOMMEND, "Try ", second),
        user(Action.FEEDBACK, "Seen it."),
        recommender(Action.RECOMMEND, "Then ", third, " or again ", second),
    )
    return Dialogue(
        scenario_key=f"k{seed}", corpus="made", domain="movie", user="human", recommender="human", turns=turns, ending=None
    )


LOGS = [TrainingLog(conversation(seed), recommender_id=str(seed % 12)) for seed in range(60)]


@pytest.fixture(scope="module")
def ranker() -> ItemRanker:
    return ItemRanker.fit(CATALOG, LOGS, seed=1, epochs=3)


@pytest.fixture(scope="module")
def contexts() -> list[tuple]:
    return [c.context for seed in range(100, 120) for c in cases_of(conversation(seed), str(seed))]


def test_a_case_is_a_recommender_turn_with_items_and_what_was_said_before_it() -> None:
    dialogue = conversation(0)
    first, second = cases_of(dialogue, "d")
    assert (first.turn, second.turn) == (1, 3)
    assert first.context == dialogue.turns[:1]
    assert first.gold[0] in second.mentioned
    assert first.gold[0] in second.gold
    assert first.gold[0] not in first.mentioned


def test_a_reader_knows_items_in_the_order_they_were_named_last() -> None:
    reader = Reader(ITEMS, known_words(ITEMS, [c.context for c in cases_of(conversation(0), "d")], min_count=1))
    dialogue = conversation(0)
    read = reader.read([dialogue.turns])
    third, second = (m.item_id for m in dialogue.turns[3].items)
    assert [ITEMS[i].id for i in read.items[0] if i < len(ITEMS)][:2] == [second, third]
    assert read.ages[0, :2].tolist() == [1, 1]
    assert read.counts[0, 0] == 2
    assert read.speakers[0, :3].tolist() == [2, 2, 1]


def test_a_reader_passes_over_items_of_another_catalog() -> None:
    reader = Reader(ITEMS, [])
    assert (reader.read([(user(Action.CHAT, "I like ", HEAT),)]).items == len(ITEMS)).all()


def test_a_long_conversation_is_cut_to_its_latest_words_and_items() -> None:
    reader = Reader(ITEMS, ["old", "new"])
    turns = [user(Action.CHAT, "old " * 500), *(user(Action.CHAT, i) for i in ITEMS), user(Action.CHAT, "new " * MAX_WORDS)]
    read = reader.read([turns])
    assert read.words.shape == (1, MAX_WORDS)
    assert read.items.shape == (1, MAX_ITEMS)
    assert set(read.words[0].tolist()) == {reader.number["new"]}


def test_a_document_holds_what_another_catalog_knows() -> None:
    other = ITEMS[0].model_copy(update={"text": "A haunted lighthouse", "attributes": {"tag": ("fog",)}})
    words = document(enriched(CATALOG, {ITEMS[0].id: other})[0])
    assert {"haunted", "fog", "genre=horror"} <= set(words)


def test_cooccurrence_counts_conversations() -> None:
    view = Cooccurrence.fit([[0, 1], [0, 1], [0, 2, 2]], 4)
    assert view.together.toarray()[0].tolist() == pytest.approx([0, 2 / 4, 1 / 4, 0])


def test_copying_ranks_the_latest_first() -> None:
    reader = Reader(ITEMS, [])
    scores = copy_scores(reader.read([(user(Action.CHAT, ITEMS[3]), recommender(Action.RECOMMEND, ITEMS[7]))]), len(ITEMS))
    assert top_k(scores, 2).rows.tolist() == [[7, 3]]


def test_scores_have_a_row_per_context_and_a_column_per_item(ranker: ItemRanker, contexts: list[tuple]) -> None:
    for scores in ranker.scores_by(contexts, ranker.methods).values():
        assert scores.shape == (len(contexts), len(ITEMS))
        assert np.isfinite(scores).all()
    assert ranker.scores([]).shape == (0, len(ITEMS))


def test_a_ranker_learns_the_genre_that_was_asked_for(ranker: ItemRanker, contexts: list[tuple]) -> None:
    for turns, best in zip(contexts, ranker.top(contexts, 1), strict=True):
        asked = next(g for g, words in ASKED.items() if words in turns[0].text)
        assert best[0].startswith(asked)


def test_the_top_holds_nothing_named_and_nothing_excluded(ranker: ItemRanker, contexts: list[tuple]) -> None:
    gone = [{ITEMS[0].id}] * len(contexts)
    for turns, best in zip(contexts, ranker.top(contexts, 30, excluded=gone), strict=True):
        named = {m.item_id for t in turns for m in t.items}
        assert set(best) == {i.id for i in ITEMS} - named - gone[0]
        assert len(best) == len(set(best))


@pytest.mark.parametrize("method", ["text", "collaborative", "cross-attention", "fusion"])
def test_a_search_by_vectors_finds_what_the_scores_say(
    ranker: ItemRanker, contexts: list[tuple], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranker, "method", method)
    scores = ranker.scores(contexts)
    for own, turns, best in zip(scores, contexts, ranker.top(contexts, 5), strict=True):
        free = [n for n, i in enumerate(ITEMS) if i.id not in {m.item_id for t in turns for m in t.items}]
        found = [own[ranker.item_ids.index(i)] for i in best]
        np.testing.assert_allclose(found, np.sort(own[free])[::-1][:5], rtol=1e-4, atol=1e-4)


def test_what_was_named_may_come_first_where_it_is_not_left_out(ranker: ItemRanker, contexts: list[tuple]) -> None:
    every = ranker.top(contexts, len(ITEMS), without_named=False)
    assert {len(best) for best in every} == {len(ITEMS)}


def test_scores_do_not_depend_on_the_batch(ranker: ItemRanker, contexts: list[tuple]) -> None:
    together = ranker.scores(contexts)
    alone = np.concatenate([ranker.scores([c]) for c in contexts])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_the_fusion_is_of_the_views_as_they_were_trained_on(ranker: ItemRanker) -> None:
    nothing_named = [(user(Action.CHAT, "Hello"),)]
    expected = fused_scores(ranker.view_scores(nothing_named))
    np.testing.assert_array_equal(ranker.scores_by(nothing_named, ["fusion"])["fusion"], expected)


def test_one_seed_gives_one_ranker(ranker: ItemRanker, contexts: list[tuple]) -> None:
    again = ItemRanker.fit(CATALOG, LOGS, seed=1, epochs=3)
    np.testing.assert_array_equal(ranker.scores(contexts), again.scores(contexts))


def test_a_ranker_comes_back_from_disk(ranker: ItemRanker, contexts: list[tuple], tmp_path: Path) -> None:
    ranker.write(tmp_path)
    back = ItemRanker.read(tmp_path, CATALOG)
    old, new = (r.scores_by(contexts, ranker.methods) for r in (ranker, back))
    for method in ranker.methods:
        np.testing.assert_allclose(old[method], new[method], rtol=1e-5, atol=1e-5)


def test_a_ranker_of_another_catalog_is_refused(ranker: ItemRanker, tmp_path: Path) -> None:
    ranker.write(tmp_path)
    with pytest.raises(DataError, match="was trained on the catalog"):
        ItemRanker.read(tmp_path, Catalog(ITEMS[:-1], MOVIE))


def test_a_damaged_ranker_is_named(ranker: ItemRanker, tmp_path: Path) -> None:
    ranker.write(tmp_path)
    (tmp_path / "views.npz").write_bytes((tmp_path / "views.npz").read_bytes()[:2000])
    with pytest.raises(DataError, match="is damaged"):
        ItemRanker.read(tmp_path)
    with pytest.raises(DataError, match="train-ranker"):
        ItemRanker.read(tmp_path / "nowhere")


def test_conversations_without_items_teach_nothing() -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        ItemRanker.fit(Catalog([HEAT], MOVIE), LOGS)


def test_a_linear_reranker_finds_the_feature_that_decides() -> None:
    rng = np.random.default_rng(0)
    x = np.zeros((200, 10, len(FEATURES)), np.float32)
    x[..., : len(VIEWS)] = rng.standard_normal((200, 10, len(VIEWS)))
    gold = x[..., 0] == x[..., 0].max(axis=1, keepdims=True)
    found = LinearReranker.fit(x, gold).scores(x)
    assert (found.argmax(axis=1) == gold.argmax(axis=1)).mean() > 0.9


class FixedRanker:
    """Ranks the items in the order of the catalog, or backwards."""

    def __init__(self) -> None:
        self.item_ids = [i.id for i in ITEMS]

    def scores_by(self, contexts, methods):
        order = -np.arange(len(ITEMS), dtype=np.float32)
        return {m: np.tile(order if m == "forwards" else -order, (len(contexts), 1)) for m in methods}


def test_a_rank_counts_what_stands_before_and_the_filter_takes_out_what_was_named() -> None:
    turns = (user(Action.CHAT, ITEMS[0], " and ", ITEMS[5]), recommender(Action.RECOMMEND, ITEMS[2], " or ", ITEMS[5]))
    dialogue = conversation(0).model_copy(update={"turns": turns})
    written: list[dict] = []
    placed = place_cases(FixedRanker(), cases_of(dialogue, "d"), ["backwards", "forwards"], predictions=written.append)
    assert [p.repeated for p in placed] == [False, True]
    assert [p.ranks["forwards"] for p in placed] == [3, 6]
    assert [p.filtered_ranks["forwards"] for p in placed] == [2, None]
    assert placed[0].ranks["backwards"] == len(ITEMS) - 2
    assert written == [
        {
            "case": "d:1",
            "gold": [ITEMS[2].id, ITEMS[5].id],
            "mentioned": sorted([ITEMS[0].id, ITEMS[5].id]),
            "items": [i.id for i in ITEMS],
        }
    ]


def test_rows_tell_new_from_repeated_and_skip_nothing() -> None:
    placed = place_cases(FixedRanker(), [c for s in range(9) for c in cases_of(conversation(s), str(s))], ["forwards"])
    rows = {(r.metric, r.condition): r for r in ranking_rows(placed, ["forwards"], About("r", "test", 0, "digest"))}
    n = {k: rows["ranking.recall@10", k].n for k in ("all", "new", "repeated", "all, seen removed")}
    assert n == {"all": 27, "new": 18, "repeated": 9, "all, seen removed": 27}
    assert rows["ranking.recall@50", "all"].value == 1
    assert rows["ranking.recall@50", "all, seen removed"].value == pytest.approx(18 / 27)
    assert ("ranking.mrr", "repeated, seen removed") not in rows


def test_nothing_to_rank_is_none_and_not_zero() -> None:
    rows = ranking_rows([], ["forwards"], About("r", "test", 0, "digest"))
    assert {r.value for r in rows} == {None}
    assert ndcg_at_k([], 10) is None
    assert mean_reciprocal_rank([]) is None


@given(st.integers(1, 200), st.integers(1, 50))
def test_the_gain_falls_with_the_rank_and_lies_between_0_and_1(rank: int, k: int) -> None:
    assert 0 <= discounted_gain(rank + 1, k) <= discounted_gain(rank, k) <= 1


def people(seed: int, num: int) -> list[Scenario]:
    rng = random.Random(seed)
    return [
        Scenario(
            corpus="made",
            domain="movie",
            split=Split.TRAIN,
            source_id=str(n),
            user_id=str(rng.randrange(20)),
            recommender_id=str(rng.randrange(20)),
            persona=Persona(),
        )
        for n in range(num)
    ]


@given(st.integers(0, 1000), st.integers(1, 60))
def test_nobody_speaks_in_two_splits(seed: int, num: int) -> None:
    scenarios = people(seed, num)
    seen: dict[str, Split] = {}
    for scenario, split in zip(scenarios, split_by_worker(scenarios, seed=seed), strict=True):
        for name in (scenario.user_id, scenario.recommender_id) if split else ():
            assert seen.setdefault(str(name), split) is split


def test_the_test_split_does_not_depend_on_the_validation_split() -> None:
    scenarios = people(1, 300)
    for fraction in (0.0, 0.1, 0.3):
        splits = split_by_worker(scenarios, fraction, 0.1)
        assert [s is Split.TEST for s in splits] == [s is Split.TEST for s in split_by_worker(scenarios, 0.1, 0.1)]


def test_who_recommended_does_not_change_the_key_of_a_scenario() -> None:
    scenario = people(0, 1)[0]
    assert scenario.key == scenario.model_copy(update={"recommender_id": None}).key


async def test_a_ranker_recommends_in_conversation_and_never_twice(ranker: ItemRanker) -> None:
    agent = RankerAgent(ranker, CATALOG)
    view = view_of(people(0, 1)[0], Role.RECOMMENDER, with_persona=False)
    speaker = agent.begin(view, 0, "s")
    assert (await speaker.speak()).action is Action.INQUIRE
    named = []
    for _ in range(len(ITEMS)):
        speaker.hear(user(Action.DISCLOSE_GOAL, ASKED["horror"]))
        spoken = await speaker.speak()
        assert spoken.titles[0] == CATALOG[spoken.items[0].item_id].label
        named.append(spoken.items[0].item_id)
    assert len(set(named)) == len(ITEMS)
    assert (await speaker.speak()).action is Action.CHAT


def test_a_ranker_is_an_agent_by_its_spec(ranker: ItemRanker, tmp_path: Path) -> None:
    ranker.write(tmp_path)
    options = {"sampling": Sampling(), "catalog": CATALOG, "max_batch": 1}
    assert load_from_spec(f"ranker:{tmp_path}", Role.RECOMMENDER, **options).agent.name == tmp_path.name
    with pytest.raises(InputError, match="only be the recommender"):
        load_from_spec(f"ranker:{tmp_path}", Role.USER, **options)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    scenarios = [s.model_copy(update={"split": Split.TEST if n % 6 == 0 else Split.TRAIN}) for n, s in enumerate(people(0, 60))]
    dialogues = [g.dialogue.model_copy(update={"scenario_key": s.key}) for g, s in zip(LOGS, scenarios, strict=True)]
    Corpus("made", dialogues, scenarios, CATALOG, Counts(60, 60)).save(tmp_path / "data")
    return tmp_path / "data"


def test_a_ranker_is_trained_and_measured_by_two_commands(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = ["items", "train-ranker", "--data", str(data), "--out", str(tmp_path / "ranker"), "--epochs", "2"]
    assert main([*train, "--num-dialogues", "40"]) == 0
    run, file = tmp_path / "run", tmp_path / "predictions.jsonl"
    measure = ["evaluate", "recommendation", "--ranker", str(tmp_path / "ranker"), "--data", str(data), "--out", str(run)]
    assert main([*measure, "--predictions", str(file)]) == 0
    assert "popularity" in capsys.readouterr().out
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 20
    assert len(set(lines[0]["items"])) == len(ITEMS)
    assert (run / "scores.jsonl").is_file()


def test_a_ranker_is_measured_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--data", str(data), "--out", str(tmp_path / "run")]
    assert main(["evaluate", "replay", "--ranker", "r", *out]) == 1
    assert main(["evaluate", "recommendation", "--ranker", "r", "--recommender", "agenda", *out]) == 1
    assert main(["evaluate", "recommendation", "--recommender", "agenda", "--predictions", "p", *out]) == 1
    assert main(["evaluate", "recommendation", "--ranker", "r", "--strategy", "random", *out]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert "--ranker" in errors[0]
    assert "--predictions" in errors[2]
    assert "leave out --knowledge, its form, --match-wishes, --guidance and --strategy" in errors[3]
