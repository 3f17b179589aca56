"""The in-process backend: exact against transformers' generate, the same answers in any batch."""

import asyncio

import pytest
import torch

from interplay.backends.backend import Message, Request
from interplay.backends.local import LocalBackend
from interplay.config import Sampling
from interplay.errors import BackendError, CheckpointError, ContextOverflow
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.simulation.model_agents import TokenAgent
from interplay.training.backbone import train_tokenizer
from interplay.types import Role, view_of
from makers import CATALOG, MOVIE, TALK, scenario

GREEDY = Sampling(temperature=0, max_new_tokens=12)
WARM = Sampling(temperature=1.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def model():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=96,
        max_position_embeddings=128,
        eos_token_id=None,
        pad_token_id=0,
        initializer_range=0.2,
    )
    return Qwen3ForCausalLM(config).eval()


def prompts(num: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 60, (num,), generator=generator).tolist()
    return [tuple(torch.randint(1, 300, (n,), generator=generator).tolist()) for n in lengths]


def ask(model, requests, max_batch=64):
    async def run():
        backend = LocalBackend(model, "tiny", max_batch=max_batch)
        try:
            return await asyncio.gather(*(backend.complete(r) for r in requests), return_exceptions=True)
        finally:
            await backend.close()

    return asyncio.run(run())


def request(prompt, seed=0, sampling=GREEDY, **options):
    return Request(prompt=prompt, sampling=sampling, seed=seed, session="s", **options)


def test_greedy_answers_equal_generate_on_each_prompt_alone(model):
    answers = ask(model, [request(p) for p in prompts(9)])
    for prompt, answer in zip(prompts(9), answers, strict=True):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
        assert list(answer.ids) == expected.tolist()


def test_sampled_answers_do_not_depend_on_the_batch(model):
    requests = [request(p, seed=k, sampling=WARM) for k, p in enumerate(prompts(20))]
    assert [a.ids for a in ask(model, requests, max_batch=1)] == [a.ids for a in ask(model, requests, max_batch=7)]
    assert [a.ids for a in ask(model, requests)] == [a.ids for a in reversed(ask(model, requests[::-1]))]


def test_another_seed_gives_another_answer(model):
    (prompt,) = prompts(1)
    answers = ask(model, [request(prompt, seed=k, sampling=WARM) for k in range(5)])
    assert len({a.ids for a in answers}) > 1


def test_log_probabilities_are_those_of_the_model_at_the_temperature(model):
    (prompt,) = prompts(1)
    sampling = Sampling(temperature=0.7, max_new_tokens=5)
    (answer,) = ask(model, [request(prompt, sampling=sampling)])
    ids = torch.tensor([[*prompt, *answer.ids]])
    with torch.no_grad():
        log_probs = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1].double() / 0.7, -1)
    expected = log_probs.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_frequencies_of_samples_follow_the_model(model):
    (prompt,) = prompts(1)
    sampling = Sampling(temperature=1.0, max_new_tokens=1)
    answers = ask(model, [request(prompt, seed=k, sampling=sampling) for k in range(3000)], max_batch=512)
    with torch.no_grad():
        probs = torch.softmax(model(torch.tensor([prompt])).logits[0, -1], -1)
    seen = torch.bincount(torch.tensor([a.ids[0] for a in answers]), minlength=300) / 3000
    assert (seen - probs).abs().max() < 0.03


def test_top_p_leaves_the_unlikely_out(model):
    (prompt,) = prompts(1)
    sampling = Sampling(temperature=1.0, top_p=1e-6, max_new_tokens=6)
    answers = ask(model, [request(prompt, seed=k, sampling=sampling) for k in range(5)])
    (greedy,) = ask(model, [request(prompt, sampling=Sampling(temperature=0, max_new_tokens=6))])
    assert {a.ids for a in answers} == {greedy.ids}


def test_an_answer_stops_at_and_includes_the_stop_id(model):
    (prompt,) = prompts(1)
    (free,) = ask(model, [request(prompt)])
    stop = free.ids[4]
    (stopped,) = ask(model, [request(prompt, stop_ids=(stop,))])
    assert stopped.ids == free.ids[: free.ids.index(stop) + 1]
    assert (stopped.finish, free.finish) == ("stop", "length")


def test_a_prompt_beyond_the_context_overflows_and_the_others_are_answered(model):
    answers = ask(model, [request((1,) * 200), request((1, 2, 3)), request((1,) * 124)])
    assert isinstance(answers[0], ContextOverflow)
    assert len(answers[1].ids) == 12
    assert isinstance(answers[2], ContextOverflow)


def test_chat_messages_are_refused_with_a_hint(model):
    (answer,) = ask(model, [request((Message("user", "hi"),))])
    assert isinstance(answer, BackendError)
    assert "http backend" in str(answer)


def test_nan_logits_are_an_error_that_names_the_model(model):
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    (answer,) = ask(broken, [request((1, 2, 3))])
    assert isinstance(answer, BackendError)
    assert "tiny: the model's logits are NaN" in str(answer)


def test_a_path_without_a_model_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model that can be loaded"):
        LocalBackend.load(tmp_path)


def test_a_speaker_s_prompt_only_ever_grows_and_keeps_the_ids_it_sampled(model):
    seen = []

    class Backend:
        name = "watch"

        async def complete(self, r):
            seen.append(r)
            from interplay.backends.backend import Completion

            # "hello" spelled letter by letter: not the ids the tokenizer would give.
            letters = [i for c in "hello" for i in form.encode_text(c)]
            frame = form.turn_ids(TALK[1])
            return Completion("", (*frame[:4], *letters, frame[-1]), None, "stop")

        def release(self, session):
            seen.append(session)

        async def close(self):
            pass

    tokenizer = train_tokenizer(["hello hello hello crime thriller"] * 3, 400)
    add_structural_tokens(tokenizer, MOVIE)
    form = TokenFormat(tokenizer, MOVIE)
    agent = TokenAgent(Role.USER, "u", form, Backend(), GREEDY, CATALOG)
    speaker = agent.begin(view_of(scenario(), Role.USER, with_persona=False), 0, "session")

    async def talk():
        speaker.hear(TALK[0])
        first = await speaker.speak()
        speaker.hear(TALK[2])
        await speaker.speak()
        speaker.end()
        return first

    first = asyncio.run(talk())
    assert first.text == "hello"
    one, two, session = seen
    sampled = [i for c in "hello" for i in form.encode_text(c)]
    assert two.prompt[: len(one.prompt)] == one.prompt
    assert list(two.prompt[len(one.prompt) + 4 : len(one.prompt) + 4 + len(sampled)]) == sampled
    assert one.seed != two.seed
    assert one.stop_ids == (form.end_of_turn,)
    assert session == "session"
