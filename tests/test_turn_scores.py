"""Single turns as numbers: repetition, actions and their confusion, endings, and how likely a model finds the logged turn."""

import asyncio
import math

import numpy as np
import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.backends.backend import Scorer
from interplay.backends.local import LocalBackend
from interplay.backends.scripted import ScriptedBackend
from interplay.cli.pipeline import print_rows
from interplay.config import Sampling
from interplay.errors import ContextOverflow
from interplay.evaluation.scoring import About
from interplay.evaluation.turn_scores import UNREADABLE, confusion_of, num_turns, score_turns, turn_rows
from interplay.evaluation.turns import TurnPrediction, predict_turns
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.metrics.text import Texts, _numbered, dist_n, self_bleu
from interplay.simulation.model_agents import TokenAgent
from interplay.training.backbone import train_tokenizer
from interplay.types import Action, Failure, Role, Turn, view_of
from makers import MOVIE, TALK, dialogue, recommender, scenario, user

ABOUT = About(subject="fake", split="test", seed=5, data_digest="d")
ASK = user(Action.DISCLOSE_GOAL, "something with crooks")
NO = user(Action.FEEDBACK, "not that one please")
YES = user(Action.ACCEPT, "yes I take it")
BYE = user(Action.GIVE_UP, "forget about it")
WORDS = st.lists(st.sampled_from("a b c d".split()), max_size=7).map(" ".join)


def predicted(logged: Turn, said: Turn | None, key: str = "s", boundary: str = "format", **options: object) -> TurnPrediction:
    failure = None if said is not None else Failure(boundary=boundary, role=logged.role, reason="why")
    return TurnPrediction(key, 1, logged, said, failure, **options)  # type: ignore[arg-type]


def by_metric(*predictions: TurnPrediction) -> dict[str, float | None]:
    return {row.metric: row.value for row in turn_rows(predictions, ABOUT) if row.subject == "fake"}


@settings(max_examples=60)
@given(st.lists(WORDS, min_size=2, max_size=6))
def test_self_bleu_is_sacrebleus_with_all_other_texts_as_references(texts: list[str]) -> None:
    for place, (text, score) in enumerate(zip(texts, self_bleu(texts), strict=True)):
        others = [other for n, other in enumerate(texts) if n != place and other]
        if text and others:
            assert score == pytest.approx(sacrebleu.sentence_bleu(text, others, tokenize="none").score / 100, abs=1e-9)
        else:
            assert score is None


@given(st.lists(WORDS, min_size=1, max_size=6), st.permutations([1, 2, 3, 4]))
def test_ngrams_of_any_length_are_told_apart_in_any_order_of_asking(texts: list[str], orders: list[int]) -> None:
    coded = Texts([texts])
    for n in orders:
        spelled = [tuple(words[i : i + n]) for text in texts for words in [text.split()] for i in range(len(words) - n + 1)]
        ids, _ = coded.ngrams(n)
        assert len(set(zip(ids.tolist(), spelled, strict=True))) == len(set(spelled)) == len(set(ids.tolist()))
        assert dist_n(texts, n) == (len(set(spelled)) / len(spelled) if spelled else None)


def test_the_confusion_counts_every_turn_once() -> None:
    pairs = [(ASK, NO), (NO, NO), (NO, YES), (NO, None), (YES, YES)]
    rows = turn_rows([*(predicted(a, b) for a, b in pairs), predicted(NO, None, boundary="backend")], ABOUT)
    matrix = confusion_of(rows)
    told = {(a, b): num_turns(cell) for a, row in matrix.items() for b, cell in row.items() if num_turns(cell)}
    assert told == {
        ("disclose-goal", "feedback"): 1,
        ("feedback", "feedback"): 1,
        ("feedback", "accept"): 1,
        ("feedback", UNREADABLE): 1,
        ("accept", "accept"): 1,
    }
    assert sum(cell.value or 0 for cell in matrix["feedback"].values()) == pytest.approx(1)
    assert {(cell.n, cell.num_skipped) for cell in matrix["feedback"].values()} == {(3, 1)}


def test_an_action_that_only_faults_were_logged_with_is_none_and_not_zero() -> None:
    matrix = confusion_of(turn_rows([predicted(NO, None, boundary="backend")], ABOUT))
    assert {(cell.value, cell.n, cell.num_skipped) for cell in matrix["feedback"].values()} == {(None, 0, 1)}


def test_the_confusion_is_printed_as_a_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(turn_rows([predicted(NO, YES), predicted(NO, NO), predicted(YES, YES)], ABOUT))
    printed = capsys.readouterr().out.splitlines()
    head = next(line for line in printed if line.startswith("logged")).split()
    line = next(line for line in printed if line.startswith("feedback")).split()
    assert dict(zip(head, line, strict=True)) | {"logged": ""} == dict.fromkeys(head, ".") | {
        "logged": "",
        "feedback": "1",
        "accept": "1",
    }
    assert not any("turns.confusion" in line for line in printed)


def test_endings_are_recognised_by_precision_and_recall() -> None:
    scores = by_metric(predicted(ASK, BYE), predicted(NO, YES), predicted(YES, YES), predicted(BYE, YES), predicted(YES, None))
    assert scores["turns.end_precision"] == pytest.approx(2 / 4)
    assert scores["turns.end_recall"] == pytest.approx(2 / 3)
    assert scores["turns.end_f1"] == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))


def test_a_recommender_can_not_end_a_conversation_and_has_no_such_score() -> None:
    said = recommender(Action.CHAT, "hello")
    assert "turns.end_f1" not in by_metric(predicted(said, said))


def test_perplexity_is_over_tokens_and_surprise_over_turns() -> None:
    half, quarter = math.log(1 / 2), math.log(1 / 4)
    predictions = [
        predicted(ASK, None, logprobs=(half, quarter)),
        predicted(NO, NO, key="t", logprobs=(half,)),
        predicted(YES, YES, key="t"),
    ]
    rows = {row.metric: row for row in turn_rows(predictions, ABOUT) if row.subject == "fake"}
    assert rows["turns.perplexity"].value == pytest.approx(2 ** (4 / 3))
    assert (rows["turns.perplexity"].n, rows["turns.perplexity"].num_skipped) == (3, 1)
    assert rows["turns.nats_per_turn"].value == pytest.approx(4 * math.log(2) / 2)
    assert rows["turns.nats_per_turn"].n == 2


def test_an_agent_that_does_not_tell_has_no_perplexity() -> None:
    scores = by_metric(predicted(ASK, NO))
    assert scores["turns.perplexity"] is scores["turns.nats_per_turn"] is None


def test_what_scenarios_add_sums_to_the_score() -> None:
    predictions = [predicted(NO, YES, key=key, logprobs=(-1.0,)) for key in "aab"] + [predicted(YES, YES, key="b")]
    rows, values = score_turns(predictions, ABOUT)
    for row in rows:
        if row.metric in values and row.subject == "fake" and row.value is not None:
            sums = values[row.metric].values()
            assert sum(v.total for v in sums) / sum(v.units for v in sums) == pytest.approx(row.value), row.metric
    assert set(values["turns.end_f1"]) == {"a", "b"}


# ---- a model in this process ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    tokenizer = train_tokenizer(["Try Heat (1995) or Up (2009)? no, too loud"] * 3, 320)
    add_structural_tokens(tokenizer, MOVIE)
    return TokenFormat(tokenizer, MOVIE)


def tiny_backend(form: TokenFormat, context: int = 512) -> LocalBackend:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=len(form.tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=32,
            intermediate_size=32,
            max_position_embeddings=context,
            eos_token_id=None,
            initializer_range=0.3,
        )
        return LocalBackend(Qwen3ForCausalLM(config).eval(), "tiny")


def agent_of(form: TokenFormat, backend: LocalBackend | ScriptedBackend, role: Role = Role.USER) -> TokenAgent:
    return TokenAgent(role, "tiny", form, backend, Sampling(max_new_tokens=8), None)


@pytest.mark.parametrize("role", list(Role))
def test_the_logged_turns_are_as_likely_as_the_model_says_token_by_token(form: TokenFormat, role: Role) -> None:
    backend = tiny_backend(form)
    view = view_of(scenario(), role, with_persona=True).after(*TALK)
    told = asyncio.run(agent_of(form, backend, role).logprobs(view))
    own = [index for index, turn in enumerate(TALK) if turn.role is role]
    assert len(told) == len(own)
    for index, found in zip(own, told, strict=True):
        before = form.render(view_of(scenario(), role, with_persona=True).after(*TALK[:index])).ids
        ids = [*before, *form.opening_ids(role), *form.turn_ids(TALK[index])]
        first = len(ids) - len(form.turn_ids(TALK[index]))
        with torch.inference_mode():
            logs = torch.log_softmax(backend.model(torch.tensor([ids])).logits[0], -1)
        expected = [float(logs[place - 1, ids[place]]) for place in range(first, len(ids))]
        assert found == pytest.approx(expected, abs=1e-4)


def test_turns_beyond_the_context_are_not_told_and_the_others_are(form: TokenFormat) -> None:
    view = view_of(scenario(), Role.USER, with_persona=True).after(*TALK)
    whole = form.render(view)
    backend = tiny_backend(form, context=len(whole.ids) - 1)
    told = asyncio.run(agent_of(form, backend).logprobs(view))
    assert [found is None for found in told] == [False, False, True]
    with pytest.raises(ContextOverflow):
        asyncio.run(backend.logprobs(whole.ids, [1]))


def test_a_backend_that_does_not_tell_gives_none_for_every_turn(form: TokenFormat) -> None:
    backend = ScriptedBackend(lambda request: ())
    assert not isinstance(backend, Scorer)
    view = view_of(scenario(), Role.USER, with_persona=True).after(*TALK)
    assert asyncio.run(agent_of(form, backend).logprobs(view)) == [None, None, None]


def test_the_single_turn_protocol_asks_a_model_for_both_its_turn_and_the_logged_one(form: TokenFormat) -> None:
    backend = tiny_backend(form)

    async def play() -> list[TurnPrediction]:
        start = scenario()
        try:
            return await predict_turns([(start, dialogue(start))], agent_of(form, backend), seed=0)
        finally:
            await backend.close()

    predictions = asyncio.run(play())
    assert [len(p.logprobs or ()) for p in predictions] == [len(form.turn_ids(t)) for t in TALK if t.role is Role.USER]
    scores = {row.metric: row for row in turn_rows(predictions, ABOUT)}
    assert (scores["turns.perplexity"].value or 0) > 1


@given(st.lists(st.integers(0, 6) | st.integers(0, 2**62)))
def test_numbering_is_that_of_sorted_distinct_keys_however_large_they_are(keys: list[int]) -> None:
    order = sorted(set(keys))
    assert _numbered(np.array(keys, np.int64)).tolist() == [order.index(key) for key in keys]
