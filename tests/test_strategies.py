"""Strategies of recommender turns: the classifier and its card, shares and acceptance by hand, and the commands."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from interplay.cli import main
from interplay.cli.sources import read_dialogues
from interplay.corpora.corpus import Corpus, Counts
from interplay.corpora.inspired import ELICITATION, SOCIABLE, labelled_messages
from interplay.corpora.messages import Spoken
from interplay.errors import DataError
from interplay.evaluation.scoring import About
from interplay.evaluation.strategies import STRATEGIES, StrategyClassifier, opening_hash
from interplay.evaluation.strategy_scores import DEFINITIONS, MarkedTurn, marked_turns, pooled_difference, strategy_rows
from interplay.store import Run
from interplay.types import Action, Dialogue, Ending, Mention, Role, Turn
from makers import CATALOG, HEAT, UP, dialogue, recommender, scenario, user

ABOUT = About(subject="made", split="all", seed=0, data_digest="d")
SAID = {
    "opinion_inquiry": ("What kind of film do you like?", "Do you like comedies?", "Which genre do you prefer?"),
    "experience_inquiry": ("Have you seen any good one lately?", "Have you seen Copper Sky?", "Did you see it before?"),
    "encouragement": ("You should watch it tonight.", "You should give it a try!", "You would enjoy it, watch it."),
    "credibility": ("It stars Ada Finch.", "It was directed by Bo Reed.", "It stars two brothers and was made in Rome."),
    "no_strategy": ("Hello.", "Good day to you.", "Bye then."),
}


def labelled(num: int, seed: int = 0) -> list[list[Spoken]]:
    """Conversations in which the words tell the strategies, but for `similarity`, which is drawn."""
    rng = random.Random(seed)
    talks = []
    for _ in range(num):
        talk = []
        for k in range(6):
            for name in rng.sample(sorted(SAID), 2):
                drawn = ("similarity",) if rng.random() < 0.3 else ()
                talk.append(Spoken(Role.RECOMMENDER, rng.choice(SAID[name]), strategies=(name, *drawn)))
            talk.append(Spoken(Role.USER, rng.choice(("I like comedies", "no, is it good?", "ok")) + f" {k}"))
        talks.append(talk)
    return talks


@pytest.fixture(scope="module")
def classifier() -> StrategyClassifier:
    return StrategyClassifier.fit("made", labelled(14), num_folds=3, penalties=(4.0,))


def strategies_of(classifier: StrategyClassifier, *turns: Turn) -> list[set[str]]:
    return [set(found) - {"similarity"} for found in classifier.predict([turns])[0]]


def test_the_ten_strategies_are_eight_sociable_and_two_of_elicitation() -> None:
    assert (len(SOCIABLE), len(ELICITATION), len(set(STRATEGIES))) == (8, 2, 10)


def test_strategies_that_words_tell_are_found_in_conversations_not_seen(classifier: StrategyClassifier) -> None:
    found = {s.strategy: s for s in classifier.card.scores}
    for name in ("opinion_inquiry", "experience_inquiry", "encouragement", "credibility"):
        score = found[name]
        assert score.f1 is not None
        assert score.random_f1 is not None
        assert score.f1 > 0.8 > score.random_f1
        assert score.low is not None
        assert score.low <= score.f1


def test_a_strategy_that_words_do_not_tell_is_no_better_than_its_baselines(classifier: StrategyClassifier) -> None:
    drawn = next(s for s in classifier.card.scores if s.strategy == "similarity")
    assert drawn.f1 is not None
    assert drawn.always_f1 is not None
    assert drawn.f1 < drawn.always_f1 + 0.1


def test_strategies_that_never_occur_have_no_score_and_are_not_in_the_mean(classifier: StrategyClassifier) -> None:
    card = classifier.card
    absent = [s for s in card.scores if not s.num_turns]
    assert {s.f1 for s in absent} == {None}
    assert card.macro_f1 == pytest.approx(np.mean([s.f1 for s in card.scores if s.f1 is not None]))
    assert card.majority_macro_f1 <= card.random_macro_f1 < card.macro_f1


def test_about_as_many_turns_are_predicted_as_are_labelled(classifier: StrategyClassifier) -> None:
    for score in classifier.card.scores:
        assert abs(score.num_predicted - score.num_turns) <= 0.25 * classifier.card.num_turns


def test_a_turn_has_the_strategies_of_all_its_sentences(classifier: StrategyClassifier) -> None:
    said = recommender(Action.RECOMMEND, "It stars Ada Finch. You should watch it tonight.")
    assert {"credibility", "encouragement"} <= strategies_of(classifier, said)[0]


def test_what_is_said_later_changes_nothing(classifier: StrategyClassifier) -> None:
    turns = [recommender(Action.INQUIRE, "Do you like comedies?"), user(Action.CHAT, "yes"), recommender(Action.CHAT, "Hello.")]
    whole = classifier.predict([turns, turns])
    assert whole[0] == whole[1]
    assert classifier.predict([turns[:1]])[0] == whole[0][:1]


def test_which_title_is_named_changes_nothing(classifier: StrategyClassifier) -> None:
    said = [recommender(Action.RECOMMEND, "You should watch ", item, ", it stars Ada Finch.") for item in (HEAT, UP)]
    assert classifier.predict([said[:1]]) == classifier.predict([said[1:]])


def test_no_conversation_and_no_recommender_give_nothing(classifier: StrategyClassifier) -> None:
    assert classifier.predict([]) == []
    assert classifier.predict([[user(Action.CHAT, "hi")]]) == [[]]


def test_what_was_written_is_read_back_and_says_the_same(classifier: StrategyClassifier, tmp_path: Path) -> None:
    classifier.write(tmp_path)
    again = StrategyClassifier.read(tmp_path)
    said = [[recommender(Action.CHAT, text) for texts in SAID.values() for text in texts]]
    assert again.predict(said) == classifier.predict(said)
    assert again.card == classifier.card


def test_the_same_seed_gives_the_same_classifier() -> None:
    made = [StrategyClassifier.fit("made", labelled(10), num_folds=2, penalties=(4.0,)).card for _ in range(2)]
    assert made[0] == made[1]


def test_a_directory_that_is_no_classifier_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-strategies"):
        StrategyClassifier.read(tmp_path)
    for name in ("card.json", "strategies.json"):
        (tmp_path / name).write_text('{"a": 1}')
    with pytest.raises(DataError, match="train it again"):
        StrategyClassifier.read(tmp_path)


def test_too_few_labels_and_labels_of_other_things_are_refused() -> None:
    with pytest.raises(DataError, match="9 conversations have strategy labels"):
        StrategyClassifier.fit("made", labelled(9))
    strange = [[Spoken(Role.RECOMMENDER, "hm", strategies=("acknowledgment",))] for _ in range(12)]
    with pytest.raises(DataError, match="none of the ten"):
        StrategyClassifier.fit("made", strange)


def test_a_log_that_was_cut_is_known_again(classifier: StrategyClassifier) -> None:
    talk = labelled(1)[0]
    turns = [Spoken(Role.RECOMMENDER, " ".join(m.text for m in talk[:2])), *[talk[2]]]
    assert opening_hash(turns * 3) == opening_hash(turns * 2)
    assert opening_hash(turns) != opening_hash(turns[:1])


# ---- shares and acceptance -------------------------------------------------------------------------------------------


def test_a_turn_is_marked_with_what_is_on_offer_and_what_the_user_does_next() -> None:
    log = dialogue(scenario(), turns=(
        recommender(Action.INQUIRE, "What do you like?"),
        user(Action.DISCLOSE_GOAL, "crooks"),
        recommender(Action.RECOMMEND, HEAT, "?"),
        user(Action.FEEDBACK, "hm"),
        recommender(Action.CHAT, "You should watch it"),
        user(Action.ACCEPT, "ok"),
        recommender(Action.CHAT, "bye"),
    ))  # fmt: skip
    marked = marked_turns([log], [[("opinion_inquiry",), (), ("encouragement", "acknowledgment"), ()]])
    assert [(t.names_item, t.offered, t.accepted) for t in marked] == [
        (False, False, False),
        (True, True, False),
        (False, True, True),
        (False, True, None),
    ]
    assert marked[2].strategies == {"encouragement"}


def made(key: str, *, has: bool, accepted: bool | None, named: bool = True, offered: bool = True) -> MarkedTurn:
    return MarkedTurn(key, frozenset(["similarity"] if has else []), named, offered, accepted)


def test_shares_and_differences_are_those_worked_out_by_hand() -> None:
    turns = [
        made("a", has=True, accepted=True),
        made("a", has=False, accepted=False),
        made("b", has=True, accepted=True),
        made("b", has=True, accepted=False),
        made("c", has=False, accepted=True),
        made("c", has=False, accepted=False, named=False, offered=False),
        made("d", has=False, accepted=None),
    ]
    found = {r.metric.removeprefix("strategies."): r for r in strategy_rows(turns, ABOUT, min_turns=1)}
    assert {f"strategies.{metric.split('.')[0]}" for metric in found} == set(DEFINITIONS)
    assert found["share.similarity"].value == pytest.approx(3 / 7)
    assert found["any"].value == pytest.approx(3 / 7)
    assert found["accept_with.similarity"].value == pytest.approx(2 / 3)
    assert found["accept_without.similarity"].value == pytest.approx(1 / 2)
    difference = found["accept_difference.similarity"]
    assert difference.value == pytest.approx(2 / 3 - 1 / 2)
    assert (difference.n, difference.num_skipped) == (3, 2)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low <= 2 / 3 - 1 / 2 <= difference.high


def test_a_strategy_nobody_uses_has_a_share_of_zero_and_no_difference() -> None:
    found = {r.metric: r for r in strategy_rows([made("a", has=False, accepted=True)], ABOUT)}
    assert found["strategies.share.similarity"].value == 0
    assert found["strategies.accept_with.similarity"].value is None
    assert found["strategies.accept_difference.similarity"].value is None


def test_a_difference_that_comes_from_naming_items_vanishes_within_strata() -> None:
    # Turns that name an item are accepted half the time, others never; the strategy goes with naming items.
    turns = [made(str(k), has=k < 8, accepted=k % 2 == 0, named=True) for k in range(10)]
    turns += [made(str(k), has=k < 2, accepted=False, named=False) for k in range(10)]
    found = {r.metric: r.value for r in strategy_rows(turns, ABOUT, min_turns=1)}
    raw = found["strategies.accept_difference.similarity"]
    assert raw is not None
    assert raw > 0.25
    assert found["strategies.accept_difference_stratified.similarity"] == pytest.approx(0)


def test_one_stratum_pools_to_the_plain_difference() -> None:
    columns = [np.array([float(x)]) for x in (3, 5, 1, 4)]
    assert float(pooled_difference(*columns, axis=-1)) == pytest.approx(3 / 5 - 1 / 4)


# ---- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strategies") / "data"
    pairs = []
    for number in range(12):
        start = scenario(source_id=str(number))
        said = Turn(
            role=Role.RECOMMENDER,
            action=Action.RECOMMEND,
            text="You should watch Heat (1995)",
            items=(Mention(start=17, end=28, item_id="heat"),),
            strategies=("encouragement",) if number % 2 else ("credibility",),
        )
        pairs.append((start, dialogue(start, turns=(said, user(Action.ACCEPT if number % 2 else Action.FEEDBACK, "hm")))))
    Corpus("made", [d for _, d in pairs], [s for s, _ in pairs], CATALOG, Counts(12, 12)).save(path)
    return path


def test_labels_of_a_corpus_are_counted_without_a_classifier(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "strategies", str(data), "--out", str(tmp_path / "out")]) == 0
    found = {r.metric: r for r in Run.read(tmp_path / "out").scores()}
    assert found["strategies.share.encouragement"].value == 0.5
    assert found["strategies.accept_with.encouragement"].n == 6
    assert found["strategies.accept_difference.encouragement"].value is None  # of 12 turns nothing is said
    assert found["strategies.share.encouragement"].condition == "labels of the corpus"
    assert "a correlation, not an effect" in " ".join(capsys.readouterr().out.split())


def test_a_classifier_counts_where_there_are_no_labels(
    classifier: StrategyClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = scenario()
    run = Run.create(tmp_path / "run", {"verb": "simulate"})
    run.append(dialogue(start))
    (tmp_path / "model").mkdir()
    classifier.write(tmp_path / "model")
    assert main(["evaluate", "strategies", str(tmp_path / "run"), "--out", str(tmp_path / "a")]) == 1
    assert "has no strategy labels" in capsys.readouterr().err
    model = str(tmp_path / "model")
    assert main(["evaluate", "strategies", str(tmp_path / "run"), "--model", model, "--out", str(tmp_path / "b")]) == 0
    rows = Run.read(tmp_path / "b").scores()
    assert {r.condition for r in rows} == {"by made"}
    assert {r.n for r in rows if r.metric.startswith("strategies.share")} == {3}
    assert "F1 of the model" in capsys.readouterr().out


def test_conversations_that_a_fault_ended_are_left_out_and_counted(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"verb": "simulate"})
    run.append(dialogue(scenario()))
    run.append(dialogue(scenario(), ending=Ending.BACKEND_FAILURE, sample=1))
    source = read_dialogues(run.path)
    assert (len(source.dialogues), source.num_faults) == (1, 1)
    assert (source.user, source.recommender) == ("human", "human")
    with pytest.raises(DataError, match="holds no conversation"):
        read_dialogues(Run.create(tmp_path / "empty", {}).path)


def test_training_from_the_command_line_takes_the_files_of_inspired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("dialog_id", "utt_id", "speaker", "text", "movies", "expert_label", "second_label")
    lines = ["\t".join(columns)]
    for number, talk in enumerate(labelled(10)):
        for place, m in enumerate(talk):
            speaker = "SEEKER" if m.role is Role.USER else "RECOMMENDER"
            labels = [*m.strategies, "", ""][:2]
            lines.append("\t".join((f"t{number}", str(place), speaker, m.text, "", *labels)))
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n")
    out = str(tmp_path / "model")
    assert main(["evaluate", "train-strategies", "--source", str(tmp_path), "--num-folds", "2", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "macro-F1" in said
    assert "majority" in said
    assert StrategyClassifier.read(tmp_path / "model").card.num_dialogues == 10


def test_files_without_labels_and_other_directories_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "train-strategies", "--source", str(tmp_path), "--out", str(tmp_path / "model")]) == 1
    assert "inspired" in capsys.readouterr().err
    assert main(["evaluate", "strategies", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "neither a Run" in capsys.readouterr().err


def test_the_labels_of_inspired_are_those_its_description_counts(shared_data: Path) -> None:
    talks = labelled_messages(shared_data / "inspired")
    found = Counter(s for talk in talks for m in talk for s in m.strategies)
    counted = {"credibility": 284, "personal_opinion": 245, "opinion_inquiry": 212, "encouragement": 206, "offer_help": 82}
    assert len(talks) == 99
    assert {name: found[name] for name in counted} == counted
    assert found["no_strategy"] / sum(found.values()) == pytest.approx(0.149, abs=0.01)


def test_a_dialogue_without_recommender_has_nothing_to_mark() -> None:
    alone = Dialogue(
        scenario_key="a",
        corpus="made",
        domain="movie",
        user="u",
        recommender="r",
        turns=(user(Action.CHAT, "hi"),),
        ending=None,
    )
    assert marked_turns([alone], [[]]) == []
