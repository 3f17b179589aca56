"""The slots of a recommender: candidates of a ranker in its View or as its only titles, and the action of its turn."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from interplay.backends.backend import Completion, Request
from interplay.cli import main
from interplay.config import Sampling, SlotFlags
from interplay.corpora.corpus import Corpus, Counts
from interplay.errors import CheckpointError, ConfigError
from interplay.evaluation import title_ranking
from interplay.evaluation.ranking import joined, place_lists
from interplay.evaluation.title_ranking import KnownTitles, TitleRanker
from interplay.formats.chat import ChatFormat
from interplay.formats.constraint import TurnGrammar
from interplay.formats.gbnf import gbnf
from interplay.formats.tokens import TokenFormat
from interplay.formats.trie import load_trie
from interplay.items.contexts import Case
from interplay.items.held_out import HeldOut, context_key
from interplay.items.ranker import ItemRanker, TrainingLog
from interplay.simulation.checkpoint import CheckpointCard, read_card
from interplay.simulation.facets import FacetIndex
from interplay.simulation.guidance import AskFirst, LoggedPolicy
from interplay.simulation.model_agents import ChatAgent, TokenAgent
from interplay.simulation.slots import Knowledge, Slots
from interplay.simulation.specs import guidance_of, load_from_spec, slots_of
from interplay.simulation.wishes_first import WishesFirst
from interplay.training.backbone import train_tokenizer
from interplay.training.rows import training_rows
from interplay.types import Action, Advice, Catalog, Item, Role, Scenario, Split, Turn, View, view_of
from makers import HEAT, MOVIE, UP, dialogue, recommender, scenario, user

ITEMS = [Item(id=f"i{n}", title=f"Story {n}", year=1980 + n) for n in range(12)]
CATALOG = Catalog(ITEMS, MOVIE)
SEEN = ITEMS[3]


class Likes:
    """A ranker that always likes the items in the order of the catalog, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Turn, ...]] = []

    def top(self, contexts, k, *, excluded=None):
        self.asked += [tuple(c) for c in contexts]
        out = []
        for n, turns in enumerate(contexts):
            gone = {m.item_id for t in turns for m in t.items} | set(excluded[n] if excluded else ())
            out.append([i.id for i in ITEMS if i.id not in gone][:k])
        return out

    def top_held_out(self, contexts, k, *, excluded=None):
        return self.top(contexts, k, excluded=excluded), 0


class Echo:
    """A backend that says what it is told and keeps the requests."""

    name = "echo"

    def __init__(self, form: TokenFormat, turn: Turn) -> None:
        self.requests: list[Request] = []
        self._form, self._turn = form, turn

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        if isinstance(request.prompt[0], int):
            return Completion("", tuple(self._form.turn_ids(self._turn)), None, "stop")
        return Completion("<action><chat></action><response>hm</response>", None, None, "stop")

    def release(self, session: str) -> None:
        pass

    async def close(self) -> None:
        pass


def talk(rng: random.Random) -> tuple[Turn, ...]:
    first, second = rng.sample(ITEMS, 2)
    return (
        recommender(Action.INQUIRE, "what do you like?"),
        user(Action.DISCLOSE_GOAL, "films like ", first),
        recommender(Action.RECOMMEND, "try ", second),
        user(Action.FEEDBACK, "no"),
        recommender(Action.RECOMMEND, "then ", ITEMS[0]),
        user(Action.ACCEPT, "yes"),
    )


def start(n: int, split: Split) -> Scenario:
    return scenario(None, split=split, source_id=str(n)).model_copy(update={"recommender_id": f"w{n % 4}"})


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = random.Random(0)
    starts = [start(n, Split.TEST if n % 8 == 7 else Split.TRAIN) for n in range(24)]
    return Corpus("made", [dialogue(s, talk(rng)) for s in starts], starts, CATALOG, Counts(24, 24))


@pytest.fixture(scope="module")
def ranker(corpus: Corpus) -> ItemRanker:
    logs = [TrainingLog(d, s.recommender_id) for s, d in corpus.pairs(Split.TRAIN)]
    return ItemRanker.fit(CATALOG, logs, epochs=1)


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    from interplay.formats.tokens import add_structural_tokens

    tokenizer = train_tokenizer(["what do you like? try then films like Story", *(i.label for i in ITEMS)], 400)
    add_structural_tokens(tokenizer, MOVIE, candidates=True)
    return TokenFormat(tokenizer, MOVIE, candidates=True)


@pytest.fixture
def view() -> View:
    seen = view_of(scenario(None), Role.RECOMMENDER, with_persona=False)
    return seen.after(*talk(random.Random(1))[:2])


def test_candidates_leave_out_what_was_named_and_what_the_view_says_is_known() -> None:
    bare = view_of(scenario(None), Role.RECOMMENDER, with_persona=True).after(user(Action.DISCLOSE_GOAL, "like ", ITEMS[0]))
    known = bare.known_items[0].model_copy(update={"item_id": SEEN.id})
    from dataclasses import replace

    found = Knowledge(Likes(), CATALOG, 3).candidates(replace(bare, known_items=(known,)))
    assert found == tuple(i.label for i in (ITEMS[1], ITEMS[2], ITEMS[4]))


def test_candidates_of_a_logged_turn_depend_on_the_turns_before_it_alone(view: View) -> None:
    turns = talk(random.Random(2))
    ranker = Likes()
    ((advice,), num, _) = Knowledge(ranker, CATALOG, 2).logged_advice(
        [view_of(scenario(), view.role, with_persona=False).after(*turns)]
    )
    assert [a.turn for a in advice] == [0, 2, 4]
    assert num == 3
    assert ranker.asked == [turns[:0], turns[:2], turns[:4]]


def test_a_rendering_with_candidates_grows_at_its_end_only(form: TokenFormat, view: View) -> None:
    slots = Slots(Knowledge(Likes(), CATALOG, 2), in_view=True)
    now = slots.advise_past(view)
    later = now.advised(slots.advise(now, 0))
    assert form.render(later).ids[: len(form.render(now).ids)] == form.render(now).ids
    spoken = later.after(recommender(Action.CHAT, "hm"))
    assert form.render(spoken).ids[: len(form.render(later).ids)] == form.render(later).ids
    text = form.decode(form.render(later).ids)
    assert text.count("<candidate>") == 4
    assert text.endswith(f"<candidate>{later.advice[-1].candidates[0]}<candidate>{later.advice[-1].candidates[1]}")


def test_candidates_are_never_learned_and_no_view_without_them_changes(form: TokenFormat, view: View) -> None:
    advised = Slots(Knowledge(Likes(), CATALOG, 2), in_view=True).advise_past(view)
    labels = form.render(advised).labels(Role.RECOMMENDER)
    plain = form.render(view).labels(Role.RECOMMENDER)
    assert [i for i in labels if i >= 0] == [i for i in plain if i >= 0]
    assert len(labels) > len(plain)


async def test_a_token_agent_is_shown_candidates_before_each_of_its_turns(form: TokenFormat) -> None:
    backend = Echo(form, recommender(Action.CHAT, "hm"))
    slots = Slots(Knowledge(Likes(), CATALOG, 2), in_view=True)
    agent = TokenAgent(Role.RECOMMENDER, "m", form, backend, Sampling(), CATALOG, slots=slots)
    speaker = agent.begin(view_of(scenario(None), Role.RECOMMENDER, with_persona=False), 0, "s")
    await speaker.speak()
    speaker.hear(user(Action.DISCLOSE_GOAL, "like ", ITEMS[0]))
    await speaker.speak()
    first, second = (form.decode(r.prompt) for r in backend.requests)
    assert first == f"<candidate>{ITEMS[0].label}<candidate>{ITEMS[1].label}<recommender>"
    assert second.startswith(first)
    assert second.endswith(f"<candidate>{ITEMS[1].label}<candidate>{ITEMS[2].label}<recommender>")


async def test_a_log_gets_candidates_before_the_turns_that_were_spoken_by_someone_else(form: TokenFormat, view: View) -> None:
    backend = Echo(form, recommender(Action.CHAT, "hm"))
    slots = Slots(Knowledge(Likes(), CATALOG, 1), in_view=True)
    await TokenAgent(Role.RECOMMENDER, "m", form, backend, Sampling(), CATALOG, slots=slots).begin(view, 0, "s").speak()
    trained_on = slots.advise_past(view)
    advice = slots.advise(trained_on, 0)
    whole = form.render(trained_on.advised(advice)).ids
    assert backend.requests[0].prompt == (*whole, *form.opening_ids(Role.RECOMMENDER))


def allowed_titles(constraint, form: TokenFormat) -> set[str]:
    """Every title that a constraint lets be written, by walking all ways."""
    out: set[str] = set()
    trie = constraint.titles
    todo = [(0, ())]
    while todo:
        node, ids = todo.pop()
        for index in trie.next_ids(node, 99).tolist():
            if index == constraint.grammar.closing:
                out.add(form.decode(ids))
            else:
                todo.append((trie.trie.child(node, index), (*ids, index)))
    return out


async def test_titles_are_limited_to_the_candidates_of_the_turn(form: TokenFormat, tmp_path: Path) -> None:
    grammar = TurnGrammar(form, Role.RECOMMENDER, load_trie(form, [i.label for i in ITEMS], cache=tmp_path))
    backend = Echo(form, recommender(Action.RECOMMEND, "try ", ITEMS[0]))
    slots = Slots(Knowledge(Likes(), CATALOG, 2), only_candidates=True)
    agent = TokenAgent(Role.RECOMMENDER, "m", form, backend, Sampling(), CATALOG, turn_grammar=grammar, slots=slots)
    speaker = agent.begin(view_of(scenario(None), Role.RECOMMENDER, with_persona=False), 0, "s")
    await speaker.speak()
    speaker.hear(user(Action.FEEDBACK, "no"))
    await speaker.speak()
    found = [allowed_titles(r.constraint, form) for r in backend.requests]
    assert found == [{ITEMS[0].label, ITEMS[1].label}, {ITEMS[1].label, ITEMS[2].label}]
    assert "<candidate>" not in form.decode(backend.requests[1].prompt)
    assert ITEMS[3].label not in backend.requests[0].grammar


async def test_guidance_holds_the_turn_to_an_action(form: TokenFormat) -> None:
    grammar = TurnGrammar(form, Role.RECOMMENDER)
    backend = Echo(form, recommender(Action.CHAT, "hm"))
    slots = Slots(guidance=AskFirst(1))
    agent = TokenAgent(Role.RECOMMENDER, "m", form, backend, Sampling(), CATALOG, turn_grammar=grammar, slots=slots)
    speaker = agent.begin(view_of(scenario(None), Role.RECOMMENDER, with_persona=False), 0, "s")
    for _ in range(2):
        await speaker.speak()
        speaker.hear(user(Action.DISCLOSE_GOAL, "crime"))
    for request, action in zip(backend.requests, (Action.GREETING, Action.INQUIRE), strict=True):
        state = request.constraint.start(20)
        state.advance(int(state.allowed().ids[0]))
        assert state.allowed().ids.tolist() == [form.tag_id(f"<{action.value}>")]
        with pytest.raises(ValueError, match="can't be number 1"):
            state.advance(form.tag_id("<recommend>"))
        assert request.grammar == gbnf(Role.RECOMMENDER, MOVIE, [i.label for i in ITEMS], action)
    with pytest.raises(ValueError, match="can't take"):
        grammar.constraint(action=Action.ACCEPT)


async def test_a_chat_model_reads_candidates_and_action_behind_what_was_said_last(view: View, form: TokenFormat) -> None:
    backend = Echo(form, recommender(Action.CHAT, "hm"))
    slots = Slots(Knowledge(Likes(), CATALOG, 2), in_view=True, guidance=AskFirst(0))
    agent = ChatAgent(Role.RECOMMENDER, "m", ChatFormat(MOVIE), backend, Sampling(), CATALOG, slots=slots)
    speaker = agent.begin(view, 0, "s")
    await speaker.speak()
    speaker.hear(user(Action.FEEDBACK, "no"))
    await speaker.speak()
    first, second = (r.prompt for r in backend.requests)
    assert [m.role for m in second] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert first[-1].content.startswith(view.turns[-1].text)
    assert "- Story" in first[-1].content
    assert "recommend" in first[-1].content
    assert second[3].content == view.turns[-1].text


def test_ask_first_greets_asks_answers_and_recommends() -> None:
    empty = view_of(scenario(None), Role.RECOMMENDER, with_persona=False)
    rule = AskFirst(1)
    assert rule.action(empty, 0) is Action.GREETING
    heard = empty.after(recommender(Action.GREETING, "hi"), user(Action.DISCLOSE_GOAL, "crime"))
    assert rule.action(heard, 0) is Action.INQUIRE
    asked = heard.after(recommender(Action.INQUIRE, "old?"), user(Action.FEEDBACK, "yes"))
    assert rule.action(asked, 0) is Action.RECOMMEND
    assert rule.action(asked.after(user(Action.INQUIRE, "who plays?")), 0) is Action.ANSWER


def test_a_logged_policy_does_what_the_logs_did_after_the_same_history() -> None:
    logs = [dialogue(scenario(), talk(random.Random(n))) for n in range(200)]
    policy = LoggedPolicy(logs)
    view = view_of(scenario(None), Role.RECOMMENDER, with_persona=False)
    first = policy.probabilities(())
    assert sum(first.values()) == pytest.approx(1)
    assert max(first, key=first.get) is Action.INQUIRE
    later = policy.probabilities(logs[0].turns[:2])
    assert later[Action.RECOMMEND] > 0.9
    assert policy.action(view, 7) is policy.action(view, 7)
    unseen = policy.probabilities((recommender(Action.ANSWER, "no"), user(Action.INQUIRE, "why?")))
    assert unseen[Action.RECOMMEND] > unseen[Action.INQUIRE] > unseen[Action.CHAT] > 0


def test_a_ranker_proposes_in_its_training_conversations_as_if_it_had_not_seen_them(
    ranker: ItemRanker, corpus: Corpus, tmp_path: Path
) -> None:
    train = next(iter(corpus.pairs(Split.TRAIN)))[1]
    other = (user(Action.DISCLOSE_GOAL, "nobody said this in training, ", ITEMS[5]),)
    contexts = [train.turns[:2], train.turns[:4], other]
    found, num = ranker.top_held_out(contexts, 3)
    assert num == 2
    assert found[2] == ranker.top([other], 3)[0]
    for ids, turns in zip(found, contexts, strict=True):
        assert len(ids) == 3
        assert not set(ids) & {m.item_id for t in turns for m in t.items}
    without, _ = ranker.top_held_out(contexts, 3, excluded=[found[0][:1], (), ()])
    assert without[0][:2] == found[0][1:]
    ranker.write(tmp_path)
    assert ItemRanker.read(tmp_path, CATALOG).top_held_out(contexts, 3) == (found, 2)
    with pytest.raises(ValueError, match="were kept"):
        ranker.top_held_out(contexts, 51)


def test_held_out_candidates_are_found_by_what_was_said() -> None:
    turns = talk(random.Random(3))
    rows = np.full((2, 50), -1, np.int32)
    rows[0, :2], rows[1, 0] = (4, 5), 6
    held = HeldOut.of([context_key(turns[:2]), context_key(turns[:4])], rows)
    assert (held.find(turns[:2]), held.find(turns[:4]), held.find(turns)) == ([4, 5], [6], None)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, ranker: ItemRanker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory, a ranker of it, and a tiny recommender that was trained with its candidates."""
    path = tmp_path_factory.mktemp("slots")
    corpus.save(path / "data")
    (path / "ranker").mkdir()
    ranker.write(path / "ranker")
    shape = ["--tiny.layers", "1", "--tiny.width", "64", "--tiny.vocab-size", "400", "--tiny.context", "512"]
    train = ["train", "recommender", "--data", str(path / "data"), "--max-length", "512", "--max-steps", "1", *shape]
    slots = ["--knowledge", f"ranker:{path / 'ranker'}", "--num-candidates", "3"]
    assert main([*train, *slots, "--out", str(path / "with")]) == 0
    return path


def test_training_with_knowledge_records_the_ranker_and_counts_held_out_turns(trained: Path) -> None:
    card = read_card(trained / "with")
    assert card.knowledge is not None
    assert (card.knowledge.ranker, card.knowledge.num_candidates) == (trained / "ranker", 3)
    summary = json.loads((trained / "with" / "logs" / "summary.json").read_text())
    assert summary["advised"] == summary["advised_held_out"] == 3 * 21


def test_a_training_row_with_candidates_learns_the_same_words(corpus: Corpus, form: TokenFormat) -> None:
    pairs = list(corpus.pairs())[:3]
    options = {"with_persona": False, "max_length": 512}
    bare, plain = training_rows(pairs, Role.RECOMMENDER, form, **options)
    rows, counts = training_rows(pairs, Role.RECOMMENDER, form, knowledge=Knowledge(Likes(), CATALOG, 2), **options)
    learned = [[[i for i in row["labels"] if i >= 0] for row in some] for some in (bare, rows)]
    assert learned[0] == learned[1]
    assert (counts.advised, counts.held_out, plain.advised) == (9, 0, 0)
    assert [row["input_ids"].count(form.tag_id("<candidate>")) for row in rows] == [6, 6, 6]
    length = len(rows[0]["input_ids"]) - 1
    short, cut = training_rows(
        pairs[:1], Role.RECOMMENDER, form, knowledge=Knowledge(Likes(), CATALOG, 2), with_persona=False, max_length=length
    )
    assert cut.shortened == 1
    assert rows[0]["input_ids"][: len(short[0]["input_ids"])] == short[0]["input_ids"]


def bare_card(trained: Path) -> CheckpointCard:
    """As if it had been trained without candidates."""
    return read_card(trained / "with").model_copy(update={"knowledge": None})


def test_a_recommender_trained_with_candidates_takes_its_ranker_from_its_card(trained: Path) -> None:
    options = {"sampling": Sampling(), "catalog": CATALOG, "max_batch": 1}
    found = load_from_spec(str(trained / "with"), Role.RECOMMENDER, **options)
    assert found.agent.slots.in_view
    assert found.agent.slots.knowledge.num_candidates == 3
    assert "knowledge" in found.fingerprint
    limited = SlotFlags(knowledge=f"ranker:{trained / 'ranker'}", knowledge_form="titles")
    slots, _ = slots_of(limited, bare_card(trained), CATALOG, constrained=True)
    assert (slots.in_view, slots.only_candidates, slots.knowledge.num_candidates) == (False, True, 10)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"knowledge": "ranker:{ranker}"}, "trained without candidates"),
        ({"knowledge": "{ranker}", "knowledge_form": "titles"}, "takes ranker:PATH"),
        ({"knowledge_form": "titles"}, "pass --knowledge"),
        ({"num_candidates": 3}, "pass --knowledge"),
        ({"guidance": "often"}, "takes ask:N"),
        ({"guidance": "ask:1", "constrained": False}, "leave out --no-constrained"),
    ],
)
def test_slots_that_a_recommender_can_not_have_are_refused_in_one_line(trained: Path, flags: dict, message: str) -> None:
    constrained = flags.pop("constrained", True) if "constrained" in flags else True
    flags = {n: v.format(ranker=trained / "ranker") if isinstance(v, str) else v for n, v in flags.items()}
    with pytest.raises(ConfigError, match=message) as caught:
        slots_of(SlotFlags(**flags), bare_card(trained), CATALOG, constrained=constrained)
    assert "\n" not in str(caught.value)


def test_slots_are_for_models_that_recommend(trained: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match="are for models"):
        load_from_spec(
            "agenda",
            Role.RECOMMENDER,
            sampling=Sampling(),
            catalog=CATALOG,
            max_batch=1,
            slots=SlotFlags(guidance="ask:1"),
        )
    data = ["--data", str(trained / "data")]
    assert main(["train", "user", "--knowledge", "ranker:x", *data, "--out", str(trained / "none")]) == 1
    assert "not to a user" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--guidance", "ask:1"], ["--match-wishes", "9"], ["--num-candidates", "5"]])
def test_slots_without_a_recommender_are_refused(trained: Path, capsys: pytest.CaptureFixture, flags: list[str]) -> None:
    data = ["--data", str(trained / "data")]
    assert main(["evaluate", "replay", "--user", "agenda", *flags, *data, "--out", str(trained / "no")]) == 1
    assert main(["chat", "--user", "agenda", *flags, *data]) == 1
    assert capsys.readouterr().err.count("are slots of a recommender: pass --recommender with them") == 2


def test_logs_are_a_guidance(trained: Path) -> None:
    policy = guidance_of(f"logs:{trained / 'data'}")
    assert policy.probabilities(())[Action.INQUIRE] > 0.5


def test_all_slots_hold_in_a_simulation(trained: Path) -> None:
    from interplay.corpora.corpus import read_catalog
    from interplay.store import Run

    command = ["simulate", "--user", "stub:accept-last", "--recommender", str(trained / "with")]
    command += ["--scenarios", str(trained / "data"), "--num-dialogues", "2", "--max-turns", "6", "--out", str(trained / "run")]
    assert main([*command, "--knowledge-form", "titles", "--guidance", "ask:0", "--sampling.max-new-tokens", "24"]) in (0, 2)
    run = Run.read(trained / "run")
    spoken = [t for d in run.dialogues() for t in d.turns if t.role is Role.RECOMMENDER]
    assert spoken[0].action is Action.GREETING
    assert {t.action for t in spoken} <= {Action.GREETING, Action.RECOMMEND, Action.ANSWER}
    catalog = read_catalog(trained / "data")
    assert all(catalog.find(title) for t in spoken for title in t.titles)


def test_lists_give_ranks_with_and_without_what_was_named() -> None:
    case = Case("d", 1, (), gold=("b", "x"), mentioned=frozenset({"a"}))
    ((b, x), (again,)) = (
        place_lists([case], [{"m": ["a", None, "b"]}]),
        place_lists([Case("d", 3, (), gold=("a",), mentioned=frozenset({"a"}))], [{"m": ["a"]}]),
    )
    assert (b.ranks["m"], b.filtered_ranks["m"]) == (3, 2)
    assert (x.ranks["m"], x.filtered_ranks["m"]) == (None, None)
    assert (again.repeated, again.ranks["m"], again.filtered_ranks["m"]) == (True, 1, None)
    assert joined([b], place_lists([case], [{"n": ["b"]}])[:1])[0].ranks == {"m": 3, "n": 1}


def test_titles_are_ranked_as_the_model_scores_each_of_them_alone(
    trained: Path, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(title_ranking, "MOST_NODES", 300)
    import torch
    from transformers import AutoModelForCausalLM

    from interplay.formats.tags import title_tags
    from interplay.simulation.checkpoint import load_tokenizer

    form = TokenFormat(load_tokenizer(trained / "with"), MOVIE, candidates=True)
    model = AutoModelForCausalLM.from_pretrained(trained / "with")
    titles = TitleRanker(model, form, CATALOG)
    views = [view, view.after(recommender(Action.CHAT, "hm"), user(Action.FEEDBACK, "and yet another longer thing"))]
    prompts = [form.render(v).ids for v in views]
    some = titles.candidates([ITEMS[2].label, ITEMS[5].label])
    found = titles.rank(prompts, [{"all": titles.known, "some": some, "free": titles.free}] * 2)
    opening, closing = (form.tag_id(tag) for tag in title_tags(MOVIE))
    for prompt, own in zip(prompts, found, strict=True):
        assert [n.item_id for n in own.lists["all"]] != [i.id for i in ITEMS]
        assert sorted(n.item_id for n in own.lists["all"]) == sorted(i.id for i in ITEMS)
        assert [n.item_id for n in own.lists["some"]] == [n.item_id for n in own.lists["all"] if n.item_id in ("i2", "i5")]
        for named in own.lists["all"]:
            title = [*form.encode_text(named.title), closing]
            before = [*prompt, *titles._frame, *own.words, opening]
            logits = model(torch.tensor([[*before, *title]])).logits[0, len(before) - 1 : -1]
            alone = torch.log_softmax(logits, -1)[torch.arange(len(title)), torch.tensor(title)].sum().item()
            assert named.logprob == pytest.approx(alone, abs=1e-3)
        logprobs = [n.logprob for n in own.lists["free"]]
        assert logprobs == sorted(logprobs, reverse=True)
        assert "all" not in own.cut
        assert all((n.item_id is None) == (CATALOG.find(n.title) is None) for n in own.lists["free"] if n.title)


def test_of_two_items_with_one_title_the_first_is_ranked(form: TokenFormat) -> None:
    assert set(KnownTitles(form, {HEAT.label: HEAT.id, UP.label: UP.id}).item_of.values()) == {"heat", "up"}


def test_the_recommender_stands_in_the_table_of_the_ranker(
    trained: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model that has learned nothing finds all texts about as likely, and would look at thousands of beginnings.
    monkeypatch.setattr(title_ranking, "MOST_NODES", 300)
    command = ["evaluate", "recommendation", "--ranker", str(trained / "ranker"), "--data", str(trained / "data")]
    assert main([*command, "--recommender", str(trained / "with"), "--out", str(trained / "table")]) == 0
    out = capsys.readouterr().out
    for method in ("popularity", "trees", "lm free", "lm titles", "lm candidates"):
        assert f"\n{method} " in out
    rows = [json.loads(line) for line in (trained / "table" / "scores.jsonl").read_text().splitlines()]
    value = {(r["subject"], r["condition"], r["metric"]): r for r in rows}
    subject = str(trained / "with")
    assert value[f"{subject} lm titles", "all", "ranking.recall@50"]["value"] == 1.0
    assert value[f"{subject} lm titles", "all", "ranking.recall@50"]["n"] == 6
    assert 0 <= value[f"{subject} lm free", "standard", "ranking.off_catalog@10"]["value"] <= 1
    for wrong in ("agenda", "http://localhost:1#m"):
        assert main([*command, "--recommender", wrong, "--out", str(trained / "other")]) == 1
    assert "pass the directory of one" in capsys.readouterr().err


def test_a_card_without_its_ranker_says_what_to_do(trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained / "with", tmp_path / "moved")
    card = json.loads((tmp_path / "moved" / "interplay.json").read_text())
    card["knowledge"]["ranker"] = str(tmp_path / "gone")
    (tmp_path / "moved" / "interplay.json").write_text(json.dumps(card))
    with pytest.raises((CheckpointError, ConfigError), match="pass --knowledge"):
        slots_of(None, read_card(tmp_path / "moved"), CATALOG, constrained=True)


def test_advice_is_of_one_turn() -> None:
    view = view_of(scenario(None), Role.RECOMMENDER, with_persona=False)
    assert view.advised(Advice(0), Advice(2)).advice == (Advice(0), Advice(2))


GENRES = Catalog(
    [i.model_copy(update={"attributes": {"genre": ("crime",) if n % 3 else ("comedy",)}}) for n, i in enumerate(ITEMS)], MOVIE
)


def test_what_was_asked_for_comes_before_what_was_not_and_the_ranker_orders_equals() -> None:
    asked = (user(Action.DISCLOSE_GOAL, "I would like a comedy"),)
    (found,) = WishesFirst(Likes(), FacetIndex(GENRES), 7).top([asked], 5)
    assert found == ["i0", "i3", "i6", "i1", "i2"]


def test_only_so_many_of_the_rankers_best_are_looked_at_for_what_was_asked_for() -> None:
    asked = (user(Action.DISCLOSE_GOAL, "I would like a comedy"),)
    assert WishesFirst(Likes(), FacetIndex(GENRES), 4).top([asked], 4) == [["i0", "i3", "i1", "i2"]]
    assert WishesFirst(Likes(), FacetIndex(GENRES), 1).top([asked], 3) == [["i0", "i1", "i2"]]


def test_where_nothing_was_asked_for_the_order_is_the_rankers() -> None:
    ranker = WishesFirst(Likes(), FacetIndex(GENRES), 12)
    assert ranker.top([(), (user(Action.INQUIRE, "is it a comedy?"),)], 4) == [["i0", "i1", "i2", "i3"]] * 2


def test_what_the_user_has_taken_back_no_longer_comes_first() -> None:
    turns = (
        user(Action.DISCLOSE_GOAL, "I would like a comedy"),
        recommender(Action.RECOMMEND, "try ", ITEMS[0]),
        user(Action.FEEDBACK, "no comedy please, a crime movie"),
    )
    assert WishesFirst(Likes(), FacetIndex(GENRES), 12).top([turns], 3) == [["i1", "i2", "i4"]]


def test_training_conversations_are_ordered_by_wishes_among_what_was_kept_of_them() -> None:
    asked = (user(Action.DISCLOSE_GOAL, "I would like a comedy"),)
    assert WishesFirst(Likes(), FacetIndex(GENRES), 12).top_held_out([asked], 4) == ([["i0", "i3", "i1", "i2"]], 0)


def test_wishes_without_a_ranker_to_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="--match-wishes orders the candidates of a ranker"):
        slots_of(SlotFlags(match_wishes=9), None, CATALOG, constrained=True)


def test_settings_that_come_from_a_file_ask_for_no_slot(tmp_path: Path) -> None:
    asked = SlotFlags(config=tmp_path / "s.toml", dry_run=True)
    loaded = load_from_spec("agenda", Role.RECOMMENDER, sampling=Sampling(), catalog=CATALOG, max_batch=1, slots=asked)
    assert loaded.fingerprint == "agenda"


@pytest.mark.parametrize("flags", [{"match_wishes": 9}, {"num_candidates": 5}, {"knowledge_form": "titles"}])
@pytest.mark.parametrize("spec", ["agenda", "degraded:random", "degraded:random:agenda"])
def test_an_agent_without_slots_refuses_what_is_for_the_candidates_of_a_model(spec: str, flags: dict) -> None:
    asked = {"sampling": Sampling(), "catalog": CATALOG, "max_batch": 1, "slots": SlotFlags(**flags)}
    with pytest.raises(ConfigError, match=r"--match-wishes.* are for models; .* is none"):
        load_from_spec(spec, Role.RECOMMENDER, **asked)


def test_a_strategy_is_refused_where_a_server_speaks() -> None:
    asked = {"sampling": Sampling(), "catalog": CATALOG, "max_batch": 1, "slots": SlotFlags(strategy="random")}
    with pytest.raises(ConfigError, match="--strategy is for recommenders trained with --cues strategy"):
        load_from_spec("http://127.0.0.1:9/v1#m", Role.RECOMMENDER, **asked)


def test_a_ranker_is_told_to_put_wishes_first_and_the_fingerprint_says_so(ranker: ItemRanker, tmp_path: Path) -> None:
    ranker.write(tmp_path)
    flags = SlotFlags(knowledge=f"ranker:{tmp_path}", knowledge_form="titles", match_wishes=9)
    slots, prints = slots_of(flags, None, CATALOG, constrained=True)
    plain = slots_of(flags.model_copy(update={"match_wishes": None}), None, CATALOG, constrained=True)[1]
    assert slots is not None
    assert slots.knowledge is not None
    assert isinstance(slots.knowledge.ranker, WishesFirst)
    assert prints == f"{plain} wishes among 9"
