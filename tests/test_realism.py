"""Realism: fingerprint, similarity, discriminators, diversity, coherence, the readers, and the command."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.cli import main
from interplay.cli.realism import read_source
from interplay.corpora.talks import Talks, read_talks
from interplay.errors import CheckpointError, DataError
from interplay.evaluation import realism
from interplay.evaluation.encoder_discriminator import EncoderDiscriminator
from interplay.evaluation.realism import Judgement, judge, realism_rows
from interplay.metrics import discriminators, similarity
from interplay.metrics.bootstrap import Estimate
from interplay.metrics.coherence import copied_share, exchanges, goal_followed, goal_kept, normal_form, stances
from interplay.metrics.discriminators import discriminate_by_behaviour, discriminate_by_words, folds, telling_ngrams
from interplay.metrics.diversity import distinct_share, mtld
from interplay.metrics.fingerprint import FEATURES, NAMES, fingerprint, identifiers
from interplay.metrics.lexicon import lexicon, named_aspects
from interplay.metrics.similarity import (
    KsTable,
    compare_features,
    coverage,
    dice,
    estimate_index,
    estimate_jensen_shannon,
    mean_ks,
    realism_index,
    small_sample_factor,
    split_halves,
)
from interplay.metrics.text import self_bleu
from interplay.types import Role

GENRES = ("comedy", "horror", "western", "fantasy", "mystery")
OPENINGS = ("hi there", "hello", "hey", "looking for a film", "i want something to watch tonight")
ASKS = ("I like {} a lot", "something {} please", "maybe {}, not sure", "any good {} from the 80s?", "{} would be great!")
ENDS = ("no, seen that one", "thanks, I'll watch it", "what is it about?", "ok cool", "who is in it?", "haha nice, thank you")


def people_talk(rng: random.Random) -> list[dict[str, str]]:
    """A conversation as people might have it; the same genre comes back, so turns depend on each other."""
    genre, other = rng.sample(GENRES, 2)
    return [
        {"role": "user", "text": rng.choice(OPENINGS)},
        {"role": "recommender", "text": f"Hello! Do you like {genre} or {other}?"},
        {"role": "user", "text": rng.choice(ASKS).format(genre)},
        {"role": "recommender", "text": rng.choice(("Have you seen Copper Sky?", f"Seven Lanterns is a {genre} film."))},
        {"role": "user", "text": rng.choice(ENDS)},
    ]


def caricature(rng: random.Random) -> list[dict[str, str]]:
    """A simulated user that nobody would take for human."""
    text = "As an AI language model I would appreciate a recommendation regarding cinematic experiences such as drama."
    return [
        {"role": "assistant", "text": "Hello!"},
        {"role": "user", "text": f"{text} {rng.choice(GENRES)}"},
        {"role": "assistant", "text": "Copper Sky."},
        {"role": "user", "text": text},
    ]


def write(path: Path, talks: list[list[dict[str, str]]]) -> Path:
    path.write_text("\n".join(json.dumps({"id": str(i), "turns": t}) for i, t in enumerate(talks)), encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Fewer trees and draws: the figures get coarser, nothing else changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discriminators, "NUM_TREES", 12)
        patch.setattr(discriminators, "NUM_FOLDS", 3)
        patch.setattr(discriminators, "NUM_RESAMPLES", 40)
        patch.setattr(similarity, "NUM_RESAMPLES", 40)
        patch.setattr(realism, "CEILING_HALVES", 10)
        patch.setattr(realism, "DISCRIMINATOR_HALVES", 1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("talks")
    rng = random.Random(0)
    write(path / "people.jsonl", [people_talk(rng) for _ in range(50)])
    write(path / "crowd.jsonl", [people_talk(rng) for _ in range(30)])
    write(path / "machine.jsonl", [caricature(rng) for _ in range(30)])
    return path


@pytest.fixture(scope="module")
def judgement(folder: Path) -> Judgement:
    people, crowd, machine = (read_talks(folder / f"{n}.jsonl") for n in ("people", "crowd", "machine"))
    return judge([machine], people, second=crowd, training=[people])


def turns(path: Path) -> list[list[str]]:
    return [talk.texts(Role.USER) for talk in read_talks(path).talks]


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_dialogues_of_other_tools_are_read_whatever_they_call_things(tmp_path: Path) -> None:
    forms = [
        [{"role": "USER", "utterance": "hi"}, {"role": "ASST", "utterance": "hello"}],
        {"conversation": [{"participant": "AGENT", "utterance": "hello"}, {"participant": "USER", "utterance": "hi"}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    ]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps(f) for f in forms), encoding="utf-8")
    whole = tmp_path / "b.json"
    whole.write_text(json.dumps(forms), encoding="utf-8")
    for path in (lines, whole):
        assert [t.texts(Role.USER) for t in read_talks(path).talks] == [["hi"]] * 3


def test_consecutive_messages_are_joined_and_empty_ones_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", [[{"role": "user", "text": "hi"}, {"role": "user", "text": " "}, {"role": "user", "text": "you"}]]
    )
    found = read_talks(path)
    assert found.talks[0].texts(Role.USER) == ["hi you"]
    assert found.empty_turns == 1


def test_conversations_without_a_user_turn_are_counted_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    silent = [{"role": "system", "text": "hello?"}]
    path = write(tmp_path / "a.jsonl", [silent, [{"role": "user", "text": "hi"}]])
    assert read_talks(path).dropped == {"no turn of the user": 1}
    with pytest.raises(DataError, match="no conversation with a turn of the user"):
        read_talks(write(tmp_path / "b.jsonl", [silent]))
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(DataError, match="nothing was read"):
        read_talks(tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"turns": 3}', "no list of turns"),
        ('{"text": "hi"}', "no list of turns"),
        ('[{"role": "narrator", "text": "once"}]', "a turn needs a role"),
        ('[{"role": "user"}]', "a turn needs a role"),
        ("{", "not a whole JSON value"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(DataError, match=said) as caught:
        read_talks(tmp_path / "a.jsonl")
    assert "line 1" in str(caught.value)


# ---- fingerprint -----------------------------------------------------------------------------------------------------


def profile(*conversation: str) -> dict[str, float]:
    return dict(zip(NAMES, fingerprint([conversation]).profile.tolist(), strict=True))


def test_features_by_hand() -> None:
    found = profile("Hi!", "maybe a comedy please", "maybe a comedy please", "no, something else from the 80s?")
    assert found["words_per_turn"] == (1 + 4 + 4 + 6) / 4
    assert found["short_utterance_rate"] == 1 / 4
    assert found["politeness_rate"] == 2 / 4
    assert found["repetition_rate"] == 1 / 4
    assert found["opening_length"] == 1
    assert found["pushback_rate"] == 1 / 4
    assert found["info_seeking_rate"] == 1 / 4
    assert found["strategy_pivot_rate"] == 1 / 3  # of the turns after the first
    assert found["identifiers_per_turn"] == 3 / 4
    assert found["front_loading_ratio"] == 0
    assert np.isnan(profile("hi")["verbosity_cv"])


def test_nineteen_features_in_four_dimensions() -> None:
    assert [sum(f.dimension == d for f in FEATURES) for d in ("D1", "D2", "D3", "D4")] == [8, 3, 5, 3]
    for name in ("politeness", "formality", "pushback", "accusation", "pivot", "emotion", "negation"):
        assert lexicon(name).pattern


def test_word_lists_know_missing_apostrophes_and_starts_of_turns() -> None:
    assert lexicon("pushback").search("i dont like it")
    assert lexicon("acknowledgment").search("  ok then")
    assert not lexicon("acknowledgment").search("is it ok")
    assert not lexicon("politeness").search("pleased")


def test_identifiers_are_aspects_decades_and_names() -> None:
    assert identifiers("sci-fi or rom coms from the 90s with Tom Hanks", "movie") == 3
    assert identifiers("inception (2010)", "movie") == 1
    assert identifiers("ok whatever", "movie") == 0
    assert named_aspects("some jazz", "song") == [(5, "jazz")]


@settings(max_examples=40)
@given(st.lists(st.lists(st.text(max_size=60).filter(str.strip), min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_text_has_a_fingerprint_within_bounds(conversations: list[list[str]]) -> None:
    made = fingerprint(conversations)
    assert made.numerators.shape == (len(conversations), 19)
    assert np.isfinite(made.numerators).all()
    rates = [i for i, f in enumerate(FEATURES) if f.name.endswith("_rate") or f.name == "front_loading_ratio"]
    values = made.values[:, rates]
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert float(realism_index(made.profile, made.profile)[0]) == pytest.approx(100)


# ---- similarity ------------------------------------------------------------------------------------------------------


def test_identical_samples_are_the_same_by_every_measure(folder: Path) -> None:
    made = fingerprint(turns(folder / "people.jsonl"))
    assert float(realism_index(made.profile, made.profile)[0]) == 100
    assert mean_ks(made, made) == 0
    assert all(f.ks == 0 and f.effect == pytest.approx(0) for f in compare_features(made, made) if f.ks is not None)
    labels = [["a", "b"], ["a"]]
    assert estimate_jensen_shannon(labels, labels, np.random.default_rng(0)).value == 0


def test_the_bootstrap_s_ks_is_scipy_s() -> None:
    rng = np.random.default_rng(0)
    words = ["a", "b c", "d e f g", "please tell me", "no!", "who?"]
    a, b = (fingerprint([[words[i] for i in rng.integers(6, size=rng.integers(1, 4))] for _ in range(30)]) for _ in range(2))
    ours = KsTable(a, b)(np.ones(30), np.ones(30))
    theirs = [np.nan if f.ks is None else f.ks for f in compare_features(a, b)]
    np.testing.assert_allclose(ours, theirs)


def test_dice_is_one_for_two_zeros_and_zero_for_one() -> None:
    assert dice(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 3.0])).tolist() == [1.0, 0.0, 0.5]


def test_intervals_hold_the_value_and_are_wider_for_few(folder: Path) -> None:
    made = fingerprint(turns(folder / "people.jsonl"))
    few, many = made.take(np.arange(10)), made
    widths = []
    for part in (few, many):
        found = estimate_index(part, made, np.random.default_rng(0))["index"]
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[0] > widths[1]
    assert small_sample_factor(10) > small_sample_factor(30) > small_sample_factor(400) > 1


def test_coverage_falls_when_one_side_says_one_thing_only(folder: Path) -> None:
    people = fingerprint(turns(folder / "people.jsonl"))
    one_voice = people.take(np.zeros(30, dtype=int))
    rng = np.random.default_rng(0)
    same, narrow = coverage(people, people, rng), coverage(one_voice, people, rng)
    assert same is not None
    assert narrow is not None
    assert same.both == same.human_covered == 1
    assert narrow.human_covered < 0.7
    assert narrow.simulated_covered == 1


# ---- discriminators --------------------------------------------------------------------------------------------------


def test_people_are_not_told_from_people_and_a_caricature_always_is(folder: Path) -> None:
    people, machine = turns(folder / "people.jsonl"), turns(folder / "machine.jsonl")
    halves = split_halves(len(people), np.random.default_rng(1))
    first, second = ([people[i] for i in half] for half in halves)
    rng = np.random.default_rng(0)
    same = discriminate_by_words(first, second, rng).auc.value
    assert same is not None
    assert 0.3 < same < 0.7
    found = discriminate_by_words(machine, people, rng)
    assert found.auc.value == pytest.approx(1)
    assert found.p_human.value is not None
    assert found.p_human.value < 0.2
    behaviour = discriminate_by_behaviour(fingerprint(machine).values, fingerprint(people).values, rng)
    assert behaviour.auc.value == pytest.approx(1)


def test_a_fine_tuned_encoder_tells_a_caricature_from_people(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    people, machine = turns(folder / "people.jsonl")[:12], turns(folder / "machine.jsonl")[:12]
    known = sorted({w for talk in people + machine for t in talk for w in t.split()})
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(vocabulary), **size)).save_pretrained(tmp_path)
    encoder = EncoderDiscriminator(str(tmp_path), epochs=6, learning_rate=2e-2)
    found = encoder(machine, people, np.random.default_rng(0))
    assert found.auc.value is not None
    assert found.auc.value > 0.9
    with pytest.raises(CheckpointError, match="not a text encoder"):
        EncoderDiscriminator(str(folder))


def test_folds_keep_conversations_whole_and_even() -> None:
    found = folds(13, np.random.default_rng(0))
    assert sorted(np.bincount(found).tolist()) == [2, 2, 3, 3, 3]


def test_telling_ngrams_name_what_only_one_side_says() -> None:
    ours, theirs = telling_ngrams(["kindly advise me"] * 9, ["yo whats up"] * 9)
    assert ours[0].z > 0 > theirs[0].z
    assert {g.text for g in ours} >= {"kindly", "kindly advise"}
    assert "yo" in {g.text for g in theirs}


# ---- diversity -------------------------------------------------------------------------------------------------------


def test_a_duplicated_corpus_is_less_diverse_by_every_measure(folder: Path) -> None:
    texts = [t for talk in turns(folder / "people.jsonl") for t in talk][:60]
    doubled = texts[:10] * 6
    repeated, varied = ([score for score in self_bleu(part) if score is not None] for part in (doubled, texts))
    assert sum(repeated) / len(repeated) > sum(varied) / len(varied)
    assert (distinct_share(doubled) or 1) < (distinct_share(texts) or 0)
    tokens, twice = ([w for t in part for w in t.split()] for part in (texts, ["a b a c"] * 40))
    assert (mtld(twice) or 99) < (mtld(tokens) or 0)
    assert mtld([]) is None


# ---- coherence -------------------------------------------------------------------------------------------------------


def test_stances_turn_round_after_a_negation_in_the_same_clause() -> None:
    assert dict(stances("I don't want horror, but comedies are great", "movie")) == {"horror": False, "comedy": True}


def test_a_goal_that_is_turned_round_is_not_kept() -> None:
    rng = np.random.default_rng(0)
    steady = [[(True, "I love horror"), (False, "ok"), (True, "more horror please")]]
    turned = [[(True, "I love horror"), (False, "ok"), (True, "I hate horror")]]
    assert goal_kept(steady, "movie", rng).value == 1
    assert goal_kept(turned, "movie", rng).value == 0
    assert goal_kept([[(True, "hi")]], "movie", rng).value is None
    assert goal_followed(steady + turned, [("horror",), ("comedy",)], "movie", rng).value == 0.5


def test_copies_count_among_long_turns_only() -> None:
    rng = np.random.default_rng(0)
    long, other = "one two three four five six seven eight", "a b c d e f g h i"
    pool = frozenset([normal_form(long + "!"), "hi"])
    found = copied_share([[(True, "hi"), (True, long.upper()), (True, other)]], pool, rng)
    assert (found.value, found.n) == (0.5, 2)


def test_an_exchange_needs_a_turn_to_answer() -> None:
    found = exchanges([[(True, "hi"), (False, "hello"), (True, "comedy"), (False, "ok"), (True, "bye")]])
    assert [(e.place, e.before, e.earlier, e.turn) for e in found] == [
        (1, "hello", "hi", "comedy"),
        (2, "ok", "hi comedy", "bye"),
    ]


# ---- the judgement ---------------------------------------------------------------------------------------------------


def value(estimates: dict[str, Estimate], name: str) -> float:
    found = estimates[f"realism.{name}"].value
    assert found is not None
    return found


def test_people_are_nearer_to_people_than_the_caricature_is(judgement: Judgement) -> None:
    machine, crowd = judgement.comparisons
    assert (machine.kind, crowd.kind) == ("simulated", "human")
    for name, higher in (("index", True), ("mean_ks", False), ("turn_auc", False), ("fingerprint_auc", False)):
        one, other, ceiling = (value(e, name) for e in (machine.estimates, crowd.estimates, judgement.ceiling))
        assert (other > one) is higher, name
        assert (ceiling > one) is higher, name
    assert value(judgement.human_estimates, "next_turn_consistency") > (judgement.glued.value or 1)


def test_every_figure_has_a_row_and_shares_stay_in_bounds(judgement: Judgement) -> None:
    found = realism_rows(judgement, 0)
    assert {r.subject for r in found} == {"machine.jsonl", "crowd.jsonl", "people.jsonl"}
    assert all(r.low <= r.value <= r.high for r in found if r.low is not None and r.high is not None and r.value is not None)


def test_few_conversations_are_said_and_one_is_refused(folder: Path, tmp_path: Path) -> None:
    people = read_talks(folder / "people.jsonl")
    few = Talks("few", people.talks[:8])
    found = judge([few], Talks("people", people.talks[8:40]))
    assert any("only 8 conversations" in note for note in found.notes)
    with pytest.raises(DataError, match="at least 2"):
        judge([Talks("one", people.talks[:1])], people)


def test_another_domain_drops_the_item_features_and_names_them(folder: Path) -> None:
    people, machine = read_talks(folder / "people.jsonl"), read_talks(folder / "machine.jsonl")
    people.domain, machine.domain = "movie", "book"
    found = judge([machine], people)
    assert found.dropped_features == ("front_loading_ratio", "identifiers_per_turn")
    assert "identifiers_per_turn" in found.notes[0]
    assert "another domain" in found.notes[0]
    assert "identifiers_per_turn" not in {f.name for f in found.comparisons[0].features}


def test_the_command_writes_scores_and_a_page_that_stands_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INTERPLAY_DATA", raising=False)  # actions by rules: the tagger would be trained first
    out = tmp_path / "out"
    args = [
        "evaluate",
        "realism",
        f"sim={folder / 'machine.jsonl'}",
        "--human",
        str(folder / "people.jsonl"),
        "--out",
        str(out),
    ]
    assert main(args) == 0
    assert "index" in capsys.readouterr().out
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<script" not in html
    assert "language model" in html  # a telling n-gram, and the least human conversation
    assert (out / "scores.jsonl").stat().st_size > 1000
    assert main(args) == 1  # not empty


def test_several_files_are_one_set_and_can_be_named(folder: Path) -> None:
    found = read_source(f"both={folder / 'people.jsonl'}+{folder / 'machine.jsonl'}", None)
    assert (found.name, len(found.talks)) == ("both", 80)
    assert read_source(str(folder / "people.jsonl"), "test").name == "people"


def test_a_source_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "realism", "nowhere", "--human", "redial", "--out", str(tmp_path / "o")]) == 1
    assert "interplay data redial" in capsys.readouterr().err


def test_real_people_have_the_published_statistics(shared_data: Path) -> None:
    """SPEC 5.1; a fifth of the people is held out here, so the levels are near, not equal."""
    for name, num_words, short in (("closed", 7.9, 0.169), ("open", 7.1, 0.25)):
        found = fingerprint(turns(shared_data / "crs_arena" / f"crs_arena_dial_{name}.json.gz")).profile
        assert found[NAMES.index("words_per_turn")] == pytest.approx(num_words, abs=0.2)
        assert found[NAMES.index("short_utterance_rate")] == pytest.approx(short, abs=0.02)


def test_two_crowds_of_real_people_reach_the_published_level_and_a_simulator_does_not(shared_data: Path) -> None:
    arena = shared_data / "crs_arena"
    closed, crowd = (fingerprint(turns(arena / f"crs_arena_dial_{n}.json.gz")) for n in ("closed", "open"))
    simulated = next((shared_data / "simulated_baselines" / "dialogues").glob("BARCOR_ReDial_ABUS_ReDial.json.gz"))
    assert float(realism_index(crowd.profile, closed.profile)[0]) > 80
    assert float(realism_index(fingerprint(turns(simulated)).profile, closed.profile)[0]) < 70
