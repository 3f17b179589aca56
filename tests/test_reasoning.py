"""The recommender that reasons: what it writes, what it may write, how it is taught, and who sees it."""

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, grammar_from

from chat_server import ChatServer
from interplay.backends.http import HttpBackend
from interplay.cli import main
from interplay.config import TrainConfig
from interplay.corpora.corpus import Corpus, Counts
from interplay.errors import ConfigError, FormatError
from interplay.formats.chat import ChatFormat
from interplay.formats.gbnf import gbnf
from interplay.formats.reasoning import (
    keeps_form,
    parse_reasoned_turn,
    pieces_of_reasoning,
    reasoned_events_of_text,
    text_of_reasoned_turn,
)
from interplay.formats.reasoning_constraint import ReasonedGrammar
from interplay.formats.tags import structural_tags
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.formats.trie import load_trie
from interplay.items.ranker import ItemRanker, TrainingLog
from interplay.simulation.checkpoint import read_card
from interplay.simulation.facets import Facet
from interplay.simulation.reasoning import Reasoner, Wish, shown_values
from interplay.simulation.slots import Knowledge, Slots
from interplay.training.backbone import train_tokenizer
from interplay.training.rewards.rollouts import Answer, Rollout, answers_of
from interplay.training.rewards.terms import format_reward, preference_reward, recommend_reward
from interplay.training.sft import knowledge_of, read_corpora
from interplay.training.trace_writing import read_written, require_reasoning, traces_of, write_traces
from interplay.training.traces import Traces
from interplay.types import (
    Action,
    Advice,
    Catalog,
    Ending,
    Item,
    Listed,
    Match,
    Preference,
    Reasoning,
    Role,
    Scenario,
    Split,
    Turn,
    View,
    view_of,
)
from makers import ALIEN, CATALOG, HEAT, MOVIE, UP, dialogue, plain_words, recommender, scenario, user

TITLES = (UP.label, HEAT.label, ALIEN.label, "Heat")
GENRES = ("crime", "horror", "comedy")
FILMS = [
    Item(
        id=f"f{n}", title=f"Film {n}", year=1990 + n, attributes={"genre": (GENRES[n % 3],), "decade": (f"{199 + n // 10}0s",)}
    )
    for n in range(12)
]
FILM_CATALOG = Catalog(FILMS, MOVIE)


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    tokenizer = train_tokenizer(["try Heat (1995), a crime movie of the 1990s; genre, decade", *TITLES], 380)
    add_structural_tokens(tokenizer, MOVIE, candidates=True, reasoning=True)
    return TokenFormat(tokenizer, MOVIE, candidates=True, reasoning=True)


@pytest.fixture(scope="module")
def grammar(form: TokenFormat, tmp_path_factory: pytest.TempPathFactory) -> ReasonedGrammar:
    return ReasonedGrammar(form, load_trie(form, TITLES, cache=tmp_path_factory.mktemp("titles")), list_length=3)


EXAMPLE = Reasoning(
    preferences=(Preference(kind="genre", value="crime"),),
    matches=(Match(title=HEAT.label, values=("crime",), score=1),),
    ranking=(Listed(title=HEAT.label), Listed(title=UP.label)),
    explanation="crime",
    candidates=(UP.label, HEAT.label),
)
OFFER = recommender(Action.RECOMMEND, "Try ", HEAT).model_copy(update={"reasoning": EXAMPLE})
SPELT = (
    "<reasoning><wants> genre<is> crime<match><candidate-2><has> crime<score-1><ranking><candidate-2><candidate-1>"
    "<because> crime</reasoning><action><recommend></action><response>Try <movie_title>Heat (1995)</movie_title></response>"
)


def ids_of(form: TokenFormat, turn: Turn) -> list[int]:
    return form.reasoning_ids(turn) + form.turn_ids(turn)


def draw(grammar: ReasonedGrammar, seed: int, room: int, **limits) -> list[int]:
    """An answer of at most `room` tokens, each drawn from those that are allowed."""
    rng = np.random.default_rng(seed)
    state = grammar.constraint(**limits).start(room)
    out: list[int] = []
    while not out or out[-1] != grammar.end:
        allowed = state.allowed()
        choices = allowed.ids if allowed.only else np.setdiff1d(np.arange(grammar.vocab_size), allowed.ids)
        out.append(int(rng.choice(choices)))
        state.advance(out[-1])
        assert len(out) <= room
    return out


# ---- form ------------------------------------------------------------------------------------------------------------


def test_candidates_are_told_by_their_number_to_a_trained_model_and_by_title_to_a_chat_model(form: TokenFormat) -> None:
    assert form.decode(ids_of(form, OFFER)) == SPELT
    assert "<ranking><movie_title>Heat (1995)</movie_title><movie_title>Up (2009)</movie_title>" in text_of_reasoned_turn(
        OFFER, MOVIE
    )


texts = plain_words.map(str.strip).filter(lambda text: bool(text) and "<" not in text)
refs = st.sampled_from(TITLES) | texts


@st.composite
def reasonings(draw: st.DrawFn) -> Reasoning:
    """Any reasoning that can be written."""
    return Reasoning(
        preferences=tuple(draw(st.lists(st.builds(Preference, kind=texts, value=texts), max_size=3))),
        matches=tuple(
            draw(
                st.lists(
                    st.builds(Match, title=refs, values=st.tuples(texts) | st.just(()), score=st.integers(0, 10)), max_size=3
                )
            )
        ),
        ranking=tuple(Listed(title=title) for title in draw(st.lists(refs, max_size=4))),
        explanation=draw(texts | st.just("")),
        candidates=draw(st.sampled_from([(), TITLES])),
    )


@settings(max_examples=25)
@given(reasonings())
def test_any_reasoning_reads_back_as_it_was_written(form: TokenFormat, reasoning: Reasoning) -> None:
    turn = OFFER.model_copy(update={"reasoning": reasoning})
    assert form.parse(ids_of(form, turn), Role.RECOMMENDER, Advice(0, reasoning.candidates)).reasoning == reasoning
    text = text_of_reasoned_turn(turn, MOVIE)
    read = parse_reasoned_turn(reasoned_events_of_text(text, MOVIE), Role.RECOMMENDER, MOVIE, text, reasoning.candidates)
    assert (read.reasoning, read.text) == (reasoning, turn.text)


TAGS = structural_tags(MOVIE, reasoning=True)
pieces = st.sampled_from(
    [*TAGS[:30], "<candidate-1>", "<candidate-9>", "<score-3>", "crime", " ", "Heat (1995)", "<", "\n", "```"]
)


@settings(max_examples=60)
@given(st.lists(pieces, max_size=14), st.booleans())
def test_no_output_crashes_the_reader_and_what_it_takes_reads_back(parts: list[str], is_begun: bool) -> None:
    text = "".join(["<reasoning><ranking>" if is_begun else "", *parts])
    try:
        turn = parse_reasoned_turn(reasoned_events_of_text(text, MOVIE), Role.RECOMMENDER, MOVIE, text, TITLES)
    except FormatError as error:
        assert error.reason in FormatError.REASONS
        return
    assert turn.reasoning is not None
    again = (
        "".join(e.value for e in pieces_of_reasoning(turn.reasoning, MOVIE, numbered=True)) + SPELT[SPELT.index("<action>") :]
    )
    read = parse_reasoned_turn(reasoned_events_of_text(again, MOVIE), Role.RECOMMENDER, MOVIE, again, TITLES)
    assert read.reasoning == turn.reasoning


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("", "no-reasoning"),
        ("<reasoning>", "cut-off"),
        ("<reasoning><wants> genre<is>", "empty-text"),
        ("<reasoning><wants> genre<ranking></reasoning>", "stray-tag"),
        ("<reasoning>so<ranking></reasoning>", "stray-text"),
        ("<reasoning></reasoning>", "no-ranking"),
        ("<reasoning><match><candidate-1><ranking></reasoning>", "no-score"),
        ("<reasoning><ranking><candidate-7></reasoning>", "unknown-candidate"),
        ("<reasoning><ranking><movie_title></movie_title></reasoning>", "empty-title"),
        ("<reasoning><ranking><movie_title>Heat<candidate-1></reasoning>", "unclosed-title"),
    ],
)
def test_what_is_wrong_with_an_answer_has_a_name(head: str, reason: str) -> None:
    text = head + "<action><chat></action><response>hm</response>" if reason != "cut-off" else head
    with pytest.raises(FormatError) as caught:
        parse_reasoned_turn(reasoned_events_of_text(text, MOVIE), Role.RECOMMENDER, MOVIE, text, TITLES)
    assert caught.value.reason == reason


@pytest.mark.parametrize("candidates", [TITLES, TITLES[:2], ()])
def test_whatever_is_drawn_under_the_grammar_reads_and_lists_as_many_distinct_titles_as_asked_for(
    form: TokenFormat, grammar: ReasonedGrammar, candidates: tuple[str, ...]
) -> None:
    shortest = grammar.constraint(candidates=candidates).shortest
    for seed in range(24):
        ids = draw(grammar, seed, shortest + (0, 1, 2, 5, 30, 120)[seed % 6], candidates=candidates)
        reasoning = form.parse(ids, Role.RECOMMENDER, Advice(0, candidates)).reasoning
        assert reasoning is not None
        assert keeps_form(reasoning, 3)
        assert all(listed.title in (candidates or TITLES) for listed in reasoning.ranking)


def test_without_a_catalog_a_list_is_of_any_texts_and_without_titles_it_is_empty(form: TokenFormat, tmp_path: Path) -> None:
    free = form.parse(draw(ReasonedGrammar(form, None, list_length=2), 0, 90), Role.RECOMMENDER).reasoning
    assert free is not None
    assert len(free.ranking) == 2
    one = ReasonedGrammar(form, load_trie(form, [UP.label], cache=tmp_path), list_length=2)
    left = form.parse(draw(one, 0, 90, excluding=[UP.label]), Role.RECOMMENDER).reasoning
    assert left is not None
    assert left.ranking == ()


def test_the_words_can_be_held_to_the_first_of_the_list(form: TokenFormat, grammar: ReasonedGrammar) -> None:
    named = 0
    for seed in range(30):
        ids = draw(grammar, seed, 400, candidates=TITLES, only_first=True)
        turn = form.parse(ids, Role.RECOMMENDER, Advice(0, TITLES))
        assert turn.reasoning is not None
        assert set(turn.titles) <= {turn.reasoning.ranking[0].title}
        named += len(turn.titles)
    assert named


def test_a_list_that_does_not_fit_is_refused(grammar: ReasonedGrammar) -> None:
    constraint = grammar.constraint(candidates=TITLES)
    with pytest.raises(ConfigError, match="raise it"):
        constraint.start(constraint.shortest - 1)
    with pytest.raises(ValueError, match="51 candidates"):
        grammar.constraint(candidates=[str(n) for n in range(51)])


def test_what_is_not_allowed_is_noticed(grammar: ReasonedGrammar) -> None:
    for ids in ([grammar.close], [grammar.open, grammar.numbers[0]], [grammar.open, grammar.ranking, grammar.numbers[3]]):
        state = grammar.constraint(candidates=TITLES[:2]).start(100)
        for index in ids[:-1]:
            state.advance(index)
        with pytest.raises(ValueError, match="can't stand"):
            state.advance(ids[-1])


def test_servers_get_the_same_form_as_a_grammar() -> None:
    def takes(text: str) -> bool:
        rules = gbnf(Role.RECOMMENDER, MOVIE, TITLES, list_length=2, candidates=EXAMPLE.candidates)
        matcher = LLMatcher(LLTokenizer("byte"), grammar_from("gbnf", rules))
        assert not matcher.is_error(), matcher.get_error()
        tokens = list(text.encode())
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    text = text_of_reasoned_turn(OFFER, MOVIE)
    assert takes(text)
    assert takes(text.replace("<wants> genre<is> crime", "").replace("<because> crime", ""))
    assert not takes(text.replace("<ranking>", "<ranking><movie_title>Up (2009)</movie_title>"))
    assert not takes(text.replace("Up (2009)", "Alien (1979)"))
    assert not takes(text[text.index("<action>") :])


# ---- who sees it -----------------------------------------------------------------------------------------------------


def test_nobody_but_the_recommender_sees_its_reasoning(form: TokenFormat) -> None:
    start = scenario()
    heard = view_of(start, Role.USER, with_persona=True).after(OFFER)
    own = view_of(start, Role.RECOMMENDER, with_persona=False).after(OFFER)
    assert heard.turns[0].reasoning is None
    assert "<reasoning>" not in form.decode(form.render(heard).ids)
    assert "<reasoning>" in form.decode(form.render(own).ids)
    assert OFFER.text == "Try Heat (1995)"
    shown = [m.content for m in ChatFormat(MOVIE).messages(heard)]
    assert not any("<ranking>" in text for text in shown)
    with pytest.raises(ValueError, match="only a recommender's turn"):
        Turn(role=Role.USER, action=Action.CHAT, text="hm", reasoning=EXAMPLE)
    assert "reasoning" not in json.loads(user(Action.CHAT, "hm").to_json())
    assert Turn.model_validate_json(OFFER.to_json()) == OFFER


def test_candidates_stand_in_the_view_with_their_numbers_and_attributes(form: TokenFormat) -> None:
    advice = Advice(0, (UP.label, HEAT.label), attributes=(("animation",), ("crime", "1990s")))
    shown = "<candidate-1>Up (2009)<has> animation<candidate-2>Heat (1995)<has> crime<has> 1990s"
    assert form.decode(form.advice_ids(advice)) == shown
    asked = view_of(scenario(), Role.RECOMMENDER, with_persona=False).advised(advice)
    prompt = ChatFormat(MOVIE, "reasoning", list_length=4).messages(asked)
    assert "The best 4 movies" in prompt[0].content
    assert "- Heat (1995): crime, 1990s" in prompt[-1].content


def test_a_list_that_is_not_to_be_learned_has_no_labels(form: TokenFormat) -> None:
    view = view_of(scenario(), Role.RECOMMENDER, with_persona=False).after(OFFER)
    plain, masked = form.render(view), form.render(view, unranked=[0])
    assert plain.ids == masked.ids
    differing = [i for i, a, b in zip(plain.ids, plain.spoken_by, masked.spoken_by, strict=True) if a is not b]
    assert form.decode(differing) == "<candidate-2><candidate-1><because> crime"


# ---- traces ----------------------------------------------------------------------------------------------------------

TALK = (
    recommender(Action.INQUIRE, "What do you like?"),
    user(Action.DISCLOSE_GOAL, "a crime movie from the 1990s"),
    recommender(Action.RECOMMEND, "Try ", UP),
    user(Action.FEEDBACK, "no, nothing from the 1990s, rather a horror movie of the 1970s"),
    recommender(Action.RECOMMEND, "Then ", ALIEN),
)


def test_wishes_are_what_the_user_said_last_with_the_turn_that_says_so() -> None:
    reasoner = Reasoner(CATALOG)
    assert reasoner.wishes(TALK[:2]) == (Wish(Facet("genre", "crime"), 1), Wish(Facet("decade", "1990s"), 1))
    assert reasoner.wishes(TALK) == (
        Wish(Facet("genre", "crime"), 1),
        Wish(Facet("genre", "horror"), 3),
        Wish(Facet("decade", "1970s"), 3),
    )
    liked = (user(Action.DISCLOSE_GOAL, "I loved ", UP),)
    assert reasoner.wishes(liked) == (Wish(Facet("genre", "animation"), 0),)
    assert reasoner.wishes((recommender(Action.RECOMMEND, "See ", UP), *liked)) == ()


def test_the_rules_match_score_and_rank_by_what_the_view_shows() -> None:
    reasoner = Reasoner(CATALOG, ("genre", "decade"), list_length=2)
    titles = (UP.label, ALIEN.label, HEAT.label)
    advice = Advice(2, titles, attributes=reasoner.attributes(titles))
    wishes = reasoner.wishes(TALK[:2])
    made = reasoner.reason(wishes, advice)
    assert made.matches == (Match(title=HEAT.label, values=("crime", "1990s"), score=2),)
    assert made.ranking == (Listed(title=HEAT.label, item_id="heat"), Listed(title=UP.label, item_id="up"))
    assert made.explanation == "crime, 1990s"
    assert [one.title for one in reasoner.reason(wishes, advice, (ALIEN.label, "Nothing")).ranking] == [ALIEN.label, HEAT.label]
    assert shown_values(HEAT.model_copy(update={"attributes": {}}), ("genre", "decade")) == ("1990s",)


class InOrder:
    """A ranker whose order is that of the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def top(self, contexts, k, *, excluded=None):
        named = [{m.item_id for turn in turns for m in turn.items} for turns in contexts]
        return [[i.id for i in self._catalog if i.id not in gone][:k] for gone in named]

    def top_held_out(self, contexts, k, *, excluded=None):
        return self.top(contexts, k), 0


def advised(catalog: Catalog, turns: tuple[Turn, ...], k: int, reasoner: Reasoner) -> View:
    view = view_of(scenario(), Role.RECOMMENDER, with_persona=False).after(*turns)
    return view.advised(*Knowledge(InOrder(catalog), catalog, k, reasoner).logged_advice([view])[0][0])


def test_lists_begin_with_the_gold_item_and_are_learned_only_where_it_is_a_candidate() -> None:
    reasoner = Reasoner(CATALOG)
    talk = (*TALK[:2], recommender(Action.RECOMMEND, "Try ", HEAT), TALK[3], TALK[2])
    traces = Traces(reasoner)
    view, unranked = traces.label(advised(CATALOG, talk, 2, reasoner))
    assert [turn.reasoning is not None for turn in view.turns] == [True, False, True, False, True]
    assert view.turns[2].reasoning is not None
    assert view.turns[2].reasoning.ranking[0].title == HEAT.label
    assert unranked == {0}
    assert (traces.counts.traces, traces.counts.gold_first, traces.counts.no_gold) == (3, 2, 1)

    outside = (recommender(Action.RECOMMEND, "Try ", UP),)
    kept = Traces(reasoner)
    assert kept.label(advised(CATALOG, outside, 2, reasoner))[1] == {0}
    assert kept.counts.gold_outside == 1
    inserted = Traces(reasoner, "insert")
    view, unranked = inserted.label(advised(CATALOG, outside, 2, reasoner))
    assert unranked == frozenset()
    assert UP.label in view.advice[0].candidates
    assert len(view.advice[0].candidates) == 2
    assert view.turns[0].reasoning is not None
    assert view.turns[0].reasoning.ranking[0] == Listed(title=UP.label, item_id="up")
    assert inserted.counts.gold_outside == 1


def test_distractors_take_the_place_of_candidates_but_not_of_gold_items() -> None:
    reasoner = Reasoner(FILM_CATALOG)
    talk = (user(Action.DISCLOSE_GOAL, "like ", FILMS[0]), recommender(Action.RECOMMEND, "Try ", FILMS[2]))
    plain = advised(FILM_CATALOG, talk, 4, reasoner)
    view, unranked = Traces(reasoner, distractors=1.0, seed=3).label(plain)
    told = view.advice[0].candidates
    assert told != plain.advice[0].candidates
    assert told[1] == FILMS[2].label
    assert len(set(told)) == 4
    assert FILMS[0].label not in told
    assert view.advice[0].attributes == reasoner.attributes(told)
    assert unranked == frozenset()
    assert Traces(reasoner, distractors=1.0, seed=3).label(plain) == (view, unranked)


def test_turns_of_a_log_get_the_reasoning_that_training_would_have_shown() -> None:
    reasoner = Reasoner(CATALOG)
    knowledge = Knowledge(InOrder(CATALOG), CATALOG, 3, reasoner)
    plain = view_of(scenario(), Role.RECOMMENDER, with_persona=False).after(*TALK)
    learned, _ = Traces(reasoner).label(advised(CATALOG, TALK, 3, reasoner))
    assert Slots(knowledge, in_view=True).advise_past(plain) == learned


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    started = ChatServer(tmp_path_factory.mktemp("server") / "served.jsonl", delay_s=0).start().wait()
    yield started
    started.kill()


def test_a_language_model_writes_traces_and_those_that_do_not_begin_with_the_gold_item_are_rejected(
    server: ChatServer, tmp_path: Path
) -> None:
    reasoner = Reasoner(CATALOG, list_length=2)
    views = [advised(CATALOG, (*TALK[:2], recommender(Action.RECOMMEND, "Try ", item)), 3, reasoner) for item in (HEAT, ALIEN)]

    async def write(model: str, name: str) -> dict:
        backend = HttpBackend(server.url, model)
        try:
            return await write_traces(views, Traces(reasoner), backend, tmp_path / name, tries=6)
        finally:
            await backend.close()

    written = asyncio.run(write("reasoner", "traces.jsonl"))
    assert len(written) == 2
    rejected = sum(one.rejected.get("other-first", 0) for one in written.values())
    kept = {key: one.reasoning for key, one in written.items() if one.reasoning is not None}
    assert len(server.served()) == rejected + len(kept)
    assert kept
    traces = Traces(reasoner, written=kept)
    labelled = [traces.label(view)[0] for view in views]
    gold = [HEAT.label, ALIEN.label]
    assert all(v.turns[2].reasoning.ranking[0].title == g for v, g in zip(labelled, gold, strict=True))  # type: ignore[union-attr]
    assert traces.counts.written == len(kept)
    # What is there is not asked again; and a last line that was cut off is.
    asyncio.run(write("reasoner", "traces.jsonl"))
    assert len(server.served()) == rejected + len(kept)
    assert read_written(tmp_path / "traces.jsonl") == written
    answers = asyncio.run(write("recommender", "others.jsonl"))
    assert [one.rejected for one in answers.values()] == [{"no-reasoning": 6}] * 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"role": "user"}, "is for a recommender"),
        ({"knowledge": None}, "pass --knowledge"),
        ({"num_candidates": 5}, "more titles than there are candidates"),
        ({"trace": {"source": "gpt"}}, "takes rules or URL#MODEL"),
    ],
)
def test_reasoning_that_can_not_be_had_is_refused(changed: dict, says: str, tmp_path: Path) -> None:
    given = {"role": "recommender", "knowledge": "ranker:r", "reasoning": True, "data": [tmp_path], "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match=says):
        require_reasoning(TrainConfig.model_validate(given | changed))


# ---- rewards ---------------------------------------------------------------------------------------------------------


def test_rewards_read_the_list_and_the_inferred_preferences() -> None:
    start = scenario()
    short = OFFER.model_copy(update={"reasoning": EXAMPLE.model_copy(update={"ranking": EXAMPLE.ranking[:1]})})
    talk = dialogue(start, (OFFER, user(Action.FEEDBACK, "no"), short), ending=Ending.TURN_LIMIT)
    answers = answers_of(talk)
    assert answers[0] == Answer((HEAT.label, UP.label), ("crime",), (UP.label, HEAT.label))
    rollout = Rollout(start, talk, CATALOG, answers=answers)
    assert format_reward(rollout, list_length=2) == (1.0, 0.0)
    assert recommend_reward(rollout) == (1.0, 1.0)
    assert preference_reward(rollout, ("genre", "decade")) == pytest.approx((0.5, 0.5))
    from interplay.types import Failure

    failed = talk.model_copy(
        update={
            "ending": Ending.FORMAT_FAILURE,
            "failure": Failure(boundary="format", role=Role.RECOMMENDER, reason="cut-off"),
        }
    )
    assert answers_of(failed)[-1] == Answer()


# ---- the whole -------------------------------------------------------------------------------------------------------


def talk(rng: random.Random) -> tuple[Turn, ...]:
    genre = rng.choice(GENRES)
    first, second = rng.sample([film for film in FILMS if genre in film.attributes["genre"]], 2)
    return (
        recommender(Action.INQUIRE, "what do you like?"),
        user(Action.DISCLOSE_GOAL, f"a {genre} movie"),
        recommender(Action.RECOMMEND, "try ", first),
        user(Action.FEEDBACK, "no"),
        recommender(Action.RECOMMEND, "then ", second),
        user(Action.ACCEPT, "yes"),
    )


def begin(n: int, split: Split, target: Item) -> Scenario:
    return scenario(target, split=split, source_id=str(n), attributes=())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory, a ranker and a recommender that reasons, from two steps of training."""
    folder = tmp_path_factory.mktemp("reasoned")
    rng = random.Random(0)
    talks = [talk(rng) for _ in range(16)]
    starts = [
        begin(n, Split.TEST if n % 4 == 3 else Split.TRAIN, FILM_CATALOG[t[4].items[0].item_id or ""])
        for n, t in enumerate(talks)
    ]
    corpus = Corpus("made", [dialogue(s, t) for s, t in zip(starts, talks, strict=True)], starts, FILM_CATALOG, Counts(16, 16))
    corpus.write(folder / "data")
    logs = [TrainingLog(d, s.recommender_id) for s, d in corpus.pairs(Split.TRAIN)]
    (folder / "ranker").mkdir()
    ItemRanker.fit(FILM_CATALOG, logs, epochs=1).write(folder / "ranker")
    command = ["train", "recommender", "--data", str(folder / "data"), "--knowledge", f"ranker:{folder / 'ranker'}"]
    command += ["--reasoning", "--num-candidates", "5", "--trace.list-length", "4", "--trace.attributes", '["genre"]']
    command += [
        "--tiny.layers",
        "1",
        "--tiny.width",
        "32",
        "--tiny.vocab-size",
        "400",
        "--max-length",
        "700",
        "--max-steps",
        "2",
    ]
    assert main([*command, "--out", str(folder / "model")]) == 0
    return folder


def test_a_trained_recommender_says_that_it_reasons_and_what_it_was_taught(trained: Path) -> None:
    card = read_card(trained / "model")
    assert (card.reasoning, card.list_length) == (True, 4)
    assert card.knowledge is not None
    assert card.knowledge.attributes == ("genre",)
    summary = json.loads((trained / "model" / "logs" / "summary.json").read_text())
    counts = summary["traces"]
    assert counts["traces"] == 3 * 12
    assert counts["no_gold"] == 12
    assert counts["gold_first"] + counts["gold_outside"] + counts["no_gold"] == counts["traces"]


def test_it_is_simulated_unchanged_and_its_reasoning_is_in_the_record_alone(trained: Path) -> None:
    from interplay.store import Run

    command = ["simulate", "--user", "stub:accept-last", "--recommender", str(trained / "model"), "--max-turns", "4"]
    command += ["--scenarios", str(trained / "data"), "--out", str(trained / "run")]
    assert main([*command, "--sampling.max-new-tokens", "70"]) in (0, 2)
    spoken = [t for d in Run.read(trained / "run").dialogues() for t in d.turns if t.role is Role.RECOMMENDER]
    assert spoken
    for turn in spoken:
        assert turn.reasoning is not None
        assert keeps_form(turn.reasoning, 4)
        assert all(listed.item_id is not None for listed in turn.reasoning.ranking)
        assert "reasoning>" not in turn.text


def test_its_list_is_measured_beside_the_candidates(trained: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["evaluate", "recommendation", "--recommender", str(trained / "model"), "--data", str(trained / "data")]
    assert main([*command, "--sampling.max-new-tokens", "70", "--out", str(trained / "scores")]) == 0
    rows = [json.loads(line) for line in (trained / "scores" / "scores.jsonl").read_text().splitlines()]
    value = {r["metric"]: r["value"] for r in rows}
    assert value["recommendation.format_failure_rate"] == 0
    for k in (1, 5, 10):
        assert value[f"recommendation.list_recall@{k}"] is not None
    assert value["recommendation.list_recall@10"] <= value["recommendation.candidates_recall@10"]
    assert 0 <= value["recommendation.list_mrr"] <= 1


def test_every_list_is_measured_beside_the_ranker(trained: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["evaluate", "recommendation", "--ranker", str(trained / "ranker"), "--recommender", str(trained / "model")]
    command += ["--data", str(trained / "data"), "--sampling.max-new-tokens", "70", "--out", str(trained / "table")]
    assert main(command) == 0
    rows = [json.loads(line) for line in (trained / "table" / "scores.jsonl").read_text().splitlines()]
    value = {(r["subject"].split(" ")[-1], r["condition"], r["metric"]): r["value"] for r in rows}
    assert value["list", "standard", "ranking.list_valid"] == 1.0
    assert value["list", "standard", "ranking.readable"] == 1.0
    assert 0 <= value["told", "standard", "ranking.wishes_met"] <= 1
    told, listed = (value[method, "new, seen removed", "ranking.recall@50"] for method in ("told", "list"))
    assert listed <= told
    assert "\ntold " in capsys.readouterr().out


def test_training_asks_the_model_that_is_named_for_traces(trained: Path, server: ChatServer, tmp_path: Path) -> None:
    given = {"role": "recommender", "knowledge": f"ranker:{trained / 'ranker'}", "reasoning": True, "num_candidates": 5}
    trace = {"source": f"{server.url}#reasoner", "list_length": 2, "tries": 1}
    config = TrainConfig.model_validate(given | {"trace": trace, "data": [trained / "data"], "out": tmp_path})
    corpora = read_corpora(config.data)
    traces, rejected = traces_of(config, corpora, knowledge_of(config, corpora)[0])
    assert traces is not None
    kept = read_written(tmp_path / "traces.jsonl")
    assert set(traces.written) == {key for key, one in kept.items() if one.reasoning is not None}
    assert rejected.get("other-first", 0) == len(kept) - len(traces.written) > 0
