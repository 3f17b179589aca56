"""Training rows, the tiny backbone, bases of other architectures, SFT, adapters, resume."""

import json
from pathlib import Path

import pytest
import torch

from interplay.config import LoraSettings, Sampling, TinyConfig, TrainConfig
from interplay.corpora.corpus import Corpus, Counts
from interplay.errors import CheckpointError, ConfigError, DataError, MissingExtra, RunError
from interplay.formats.tokens import IGNORED, TokenFormat
from interplay.simulation.checkpoint import CARD, load_agent, load_tokenizer, read_card
from interplay.training import sft
from interplay.training.backbone import build_tiny, load_base
from interplay.training.rows import training_rows
from interplay.types import Catalog, Role, Split
from makers import CATALOG, MOVIE, TALK, dialogue, scenario

SHAPE = TinyConfig(layers=1, width=64, vocab_size=320, context=128)


def make_corpus(num: int = 12) -> Corpus:
    scenarios = [scenario(split=Split.VALID if k % 6 == 5 else Split.TRAIN, source_id=str(k)) for k in range(num)]
    return Corpus("made", [dialogue(s) for s in scenarios], scenarios, CATALOG, Counts(num, num))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "data"
    make_corpus().save(path)
    return path


def config(corpus: Path, out: Path, **options) -> TrainConfig:
    settings: dict = {
        "role": "user",
        "data": [corpus],
        "out": out,
        "max_steps": 4,
        "max_length": 128,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "eval_every": 2,
        "save_every": 2,
        "tiny": SHAPE,
    }
    return TrainConfig(**(settings | options))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "user"
    steps: list[tuple[int, int]] = []
    summary = sft.train(config(data, out), on_progress=lambda step, total, latest: steps.append((step, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert summary["steps"] == 4
    assert summary["rows"] == 10
    return out


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    return TokenFormat(build_tiny([make_corpus()], MOVIE, SHAPE, 0)[1], MOVIE)


def test_one_conversation_is_one_row_with_labels_on_the_role_s_words(form):
    pairs = list(make_corpus().pairs())[:2]
    rows, counts = training_rows(pairs, Role.USER, form, with_persona=False, max_length=512)
    assert counts.rows == len(rows) == 2
    expected = [i for turn in TALK if turn.role is Role.USER for i in form.turn_ids(turn)]
    assert [i for i in rows[0]["labels"] if i != IGNORED] == expected
    assert counts.labelled_tokens == 2 * len(expected)


def test_turns_that_do_not_fit_are_left_out_whole_and_counted(form):
    pairs = list(make_corpus().pairs())[:1]
    whole, _ = training_rows(pairs, Role.USER, form, with_persona=False, max_length=512)
    length = len(whole[0]["input_ids"])
    rows, counts = training_rows(pairs, Role.USER, form, with_persona=False, max_length=length - 1)
    assert (counts.shortened, counts.dropped) == (1, 0)
    short = rows[0]["input_ids"]
    assert whole[0]["input_ids"][: len(short)] == short


def test_a_conversation_without_room_for_one_labelled_turn_is_dropped_and_counted(form):
    rows, counts = training_rows(make_corpus().pairs(), Role.USER, form, with_persona=False, max_length=10)
    assert (rows, counts.dropped) == ([], 12)


def test_the_persona_is_in_the_recommender_s_row_only_when_asked(form):
    pairs = list(make_corpus().pairs())[:1]
    texts = [
        form.decode(training_rows(pairs, Role.RECOMMENDER, form, with_persona=p, max_length=512)[0][0]["input_ids"])
        for p in (False, True)
    ]
    assert ["likes slow films" in t for t in texts] == [False, True]


def test_training_lowers_the_validation_loss_and_moves_every_weight(data, trained):
    history = [json.loads(line) for line in (trained / "logs" / "train.jsonl").read_text().splitlines()]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    from transformers import AutoModelForCausalLM

    corpora = sft.read_corpora([data])
    start, _ = sft.starting_point(config(data, trained), corpora)
    after = dict(AutoModelForCausalLM.from_pretrained(trained).named_parameters())
    assert all(not torch.equal(weight, after[name]) for name, weight in start.named_parameters())


def test_a_checkpoint_says_what_it_is_and_has_its_curves(trained):
    card = read_card(trained)
    assert (card.role, card.domain, card.with_persona, card.base_model) == (Role.USER, "movie", True, "tiny")
    assert (trained / "report" / "curves.png").stat().st_size > 1000
    assert not (trained / "checkpoints").exists()


def test_a_checkpoint_becomes_an_agent_of_its_role_only(trained):
    agent, _ = load_agent(trained, Role.USER, sampling=Sampling(), catalog=CATALOG)
    assert (agent.role, agent.name) == (Role.USER, "user")
    with pytest.raises(CheckpointError, match="is a user, not a recommender; train one with: interplay train recommender"):
        load_agent(trained, Role.RECOMMENDER, sampling=Sampling())


@pytest.mark.parametrize(("content", "message"), [(None, "is not a directory"), ("", "holds no interplay.json")])
def test_a_path_that_is_no_checkpoint_is_one_line(tmp_path, content, message):
    path = tmp_path / "model"
    if content is not None:
        path.mkdir()
    with pytest.raises(CheckpointError, match=message):
        read_card(path)


def test_a_damaged_card_is_one_line(tmp_path):
    (tmp_path / CARD).write_text('{"role": "king"}')
    with pytest.raises(CheckpointError, match="role"):
        read_card(tmp_path)


def test_the_same_seed_trains_the_same_model(data, trained, tmp_path):
    sft.train(config(data, tmp_path / "again"))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_an_interrupted_training_resumes_from_its_checkpoint_to_the_same_model(data, trained, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(step, total, latest):
        if step == 3:
            raise Interrupted

    out = tmp_path / "user"
    with pytest.raises(Interrupted):
        sft.train(config(data, out), on_progress=stop)
    assert not (out / CARD).exists()
    with pytest.raises(RunError, match=r"learning_rate: 0.01 -> 0.1"):
        sft.train(config(data, out, resume=True, learning_rate=0.1))
    seen = []
    sft.train(config(data, out, resume=True), on_progress=lambda step, total, latest: seen.append(step))
    assert seen == [3, 4]
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    again = sft.train(config(data, out, resume=True))
    assert again["steps"] == 4


def test_a_base_learns_both_roles_and_speaks_for_neither(data, tmp_path):
    summary = sft.train(config(data, tmp_path / "base", role="base", max_steps=1))
    assert summary["rows"] == 20
    assert read_card(tmp_path / "base").role is None
    with pytest.raises(CheckpointError, match="a base model of both roles"):
        load_agent(tmp_path / "base", Role.USER, sampling=Sampling())
    sft.train(config(data, tmp_path / "user", model=str(tmp_path / "base"), max_steps=1))
    assert read_card(tmp_path / "user").base_model == str(tmp_path / "base")


def save_base(path: Path, architecture: str) -> Path:
    """A base checkpoint as a hub holds it: random weights, a tokenizer without our tags."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    from interplay.training.backbone import train_tokenizer

    tokenizer = train_tokenizer(["hello there crime thriller movies"] * 3, 330)
    shape = {
        "vocab_size": 384,  # padded beyond the tokenizer, as many are: spare rows are not initialised by a resize
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    torch.manual_seed(0)
    if architecture == "llama-untied":
        model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("architecture", ["llama-untied", "qwen2-tied"])
def test_the_new_tags_of_a_base_checkpoint_start_near_the_mean_of_its_embeddings(tmp_path, architecture):
    path = save_base(tmp_path / "base", architecture)
    model, tokenizer = load_base(str(path), MOVIE, dtype=torch.float32)
    added = len(tokenizer) - len(load_tokenizer(path))
    assert added > 15
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = embedding.weight.detach()
        old, new = weight[: len(tokenizer) - added], weight[len(tokenizer) - added : len(tokenizer)]
        assert (new - old.mean(0)).abs().max() < 5 * 0.1 * old.std()
        assert torch.unique(new, dim=0).shape[0] == added


@pytest.mark.parametrize("architecture", ["llama-untied", "qwen2-tied"])
def test_adapters_are_merged_into_a_model_that_speaks(data, tmp_path, architecture):
    base = save_base(tmp_path / "base", architecture)
    out = tmp_path / "user"
    sft.train(config(data, out, model=str(base), tuning="lora", max_steps=3, lora=LoraSettings(rank=2, alpha=4)))
    assert (out / "adapter" / "adapter_config.json").is_file()
    agent, card = load_agent(out, Role.USER, sampling=Sampling(), catalog=CATALOG)
    assert card.base_model == str(base)
    before, tokenizer = load_base(str(base), MOVIE, dtype=torch.float32)
    after = agent.backend.model
    tag = tokenizer.convert_tokens_to_ids("<recommender>")
    word = tokenizer.encode("hello", add_special_tokens=False)[0]
    moved = (after.get_input_embeddings().weight - before.get_input_embeddings().weight).abs().sum(1)
    assert moved[tag] > 0  # the rows of our tags are trained ...
    assert moved[word] == 0  # ... and no others


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "no/such-model"}, CheckpointError, "no/such-model holds no tokenizer"),
        ({"tuning": "lora"}, ConfigError, "--model tiny starts from nothing"),
        ({"max_length": 4096}, ConfigError, "exceeds the tiny model's context"),
        ({"data": []}, DataError, "no data directory"),
        ({"max_length": 32}, DataError, "no conversation of the training split has a labelled turn"),
    ],
)
def test_each_impossible_training_is_one_line(data, tmp_path, options, error, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(error, match=message) as caught:
        sft.train(config(data, tmp_path / "out", **options))
    assert "\n" not in str(caught.value)


def test_qlora_without_its_package_names_the_extra(data, tmp_path):
    base = save_base(tmp_path / "base", "qwen2-tied")
    with pytest.raises(MissingExtra, match=r"pip install 'interplay\[qlora\]'"):
        sft.train(config(data, tmp_path / "out", model=str(base), tuning="qlora"))


def test_data_of_two_domains_is_refused(data, tmp_path):
    book = Catalog(CATALOG, MOVIE.model_copy(update={"name": "book"}))
    Corpus("books", [], [], book, Counts()).save(tmp_path / "books")
    with pytest.raises(DataError, match="several domains"):
        sft.read_corpora([data, tmp_path / "books"])


def test_the_loss_is_the_mean_over_labelled_tokens_alone(data, tmp_path):
    corpus = Corpus.read(data)
    asked = config(data, tmp_path / "out", max_steps=1)
    summary = sft.train(asked)
    model, tokenizer = sft.starting_point(asked, [corpus])
    rows, _ = training_rows(
        corpus.pairs(Split.VALID), Role.USER, TokenFormat(tokenizer, MOVIE), with_persona=False, max_length=asked.max_length
    )
    total, num = 0.0, 0
    with torch.no_grad():
        for row in rows:
            labels = torch.tensor(row["labels"])[1:]
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
            num += int((labels != IGNORED).sum())
    # Rows with as many labels each: the mean over rows is the mean over tokens.
    assert len({sum(label != IGNORED for label in row["labels"]) for row in rows}) == 1
    assert summary["valid_loss_first"] == pytest.approx(total / num, abs=1e-4)


def test_packed_conversations_do_not_see_each_other(trained):
    # The collator of TRL marks documents by their positions; changing the first must not move the second's logits.
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(trained).eval()
    first, second = torch.randint(5, 300, (1, 20)), torch.randint(5, 300, (1, 15))
    positions = torch.cat([torch.arange(20), torch.arange(15)])[None]
    with torch.no_grad():
        packed = model(torch.cat([first, second], 1), position_ids=positions).logits[:, 20:]
        other = model(torch.cat([torch.randint(5, 300, (1, 20)), second], 1), position_ids=positions).logits[:, 20:]
        alone = model(second).logits
    assert torch.allclose(packed, other, atol=1e-5)
    assert torch.allclose(packed, alone, atol=1e-4)


def test_after_a_turn_that_is_not_the_last_the_user_does_not_end_the_talk(trained, data):
    # The trap of an end token without a negative class: here the only thing after </response> is never learned.
    corpus = Corpus.read(data)
    form = TokenFormat(load_tokenizer(trained), MOVIE)
    rows, _ = training_rows(corpus.pairs(), Role.USER, form, with_persona=False, max_length=512)
    for row in rows:
        after = [row["labels"][k + 1] for k, i in enumerate(row["input_ids"][:-1]) if i == form.end_of_turn]
        assert set(after) == {IGNORED}
