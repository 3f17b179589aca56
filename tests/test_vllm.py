"""The vllm backend as far as it goes without vLLM: how a request is translated and how answers and errors are read.

vLLM runs on no machine that tests run on. The engine below is a stand-in; the classes that a request is translated into are
vLLM's own where it can be imported, and else stand-ins that take the fields of its 0.33 and no others.
"""

import asyncio
import doctest
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from interplay.backends import vllm
from interplay.backends.backend import Completion, Message, Request
from interplay.backends.vllm import VllmBackend, structural_tag
from interplay.cli import main
from interplay.config import Sampling
from interplay.errors import BackendError, ConfigError, ContextOverflow, MissingExtra
from interplay.formats.gbnf import gbnf
from interplay.formats.tags import END_OF_TURN
from interplay.types import Role
from makers import MOVIE

try:
    from vllm import TokensPrompt  # type: ignore[import-not-found,unused-ignore]
    from vllm.sampling_params import (  # type: ignore[import-not-found,unused-ignore]
        RequestOutputKind,
        SamplingParams,
        StructuredOutputsParams,
    )
except ImportError:

    class RequestOutputKind(Enum):  # type: ignore[no-redef]
        CUMULATIVE, DELTA, FINAL_ONLY = range(3)

    @dataclass
    class StructuredOutputsParams:  # type: ignore[no-redef]
        grammar: str | None = None
        structural_tag: str | None = None

    @dataclass
    class SamplingParams:  # type: ignore[no-redef]
        temperature: float = 1.0
        top_p: float = 1.0
        top_k: int = 0
        min_p: float = 0.0
        presence_penalty: float = 0.0
        frequency_penalty: float = 0.0
        repetition_penalty: float = 1.0
        max_tokens: int | None = 16
        seed: int | None = None
        stop_token_ids: list[int] | None = None
        logprobs: int | None = None
        detokenize: bool = True
        output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
        structured_outputs: StructuredOutputsParams | None = None

    class TokensPrompt(dict):  # type: ignore[no-redef,type-arg]
        pass


class Vllm:
    SamplingParams = SamplingParams
    StructuredOutputsParams = StructuredOutputsParams
    RequestOutputKind = RequestOutputKind
    TokensPrompt = TokensPrompt


@dataclass
class Logprob:
    logprob: float


@dataclass
class Output:
    token_ids: list[int]
    finish_reason: str = "stop"
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass
class RequestOutput:
    outputs: list[Output]


@dataclass
class StandInEngine:
    answer: Callable[[Any], Output]
    asked: list[tuple[Any, Any, str]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    is_down: bool = False

    async def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncIterator[RequestOutput]:
        self.asked.append((prompt, sampling_params, request_id))
        try:
            await asyncio.sleep(self.delay_s)
            yield RequestOutput([self.answer(sampling_params)])
        except asyncio.CancelledError:
            self.aborted.append(request_id)
            raise

    def shutdown(self) -> None:
        self.is_down = True


def backend_on(answer: Callable[[Any], Output] | Exception, **options: float) -> tuple[VllmBackend, StandInEngine]:
    def respond(params: Any) -> Output:
        if isinstance(answer, Exception):
            raise answer
        return answer(params)

    engine = StandInEngine(respond, **options)  # type: ignore[arg-type]
    return VllmBackend(engine, Vllm, "vllm:test", max_context=16, text_of=lambda i: f"<{i}>"), engine


def ask(request: Request, **changes: Any) -> Request:
    return Request(**({name: getattr(request, name) for name in request.__slots__} | changes))


PLAIN = Request((1, 2, 3), Sampling(max_new_tokens=5), 7, "s", stop_ids=(9,))


def test_a_request_becomes_sampling_params() -> None:
    backend, engine = backend_on(lambda params: Output([4, 9], logprobs=[{4: Logprob(-0.5)}, {9: Logprob(-0.25)}]))
    sampling = Sampling(temperature=0.7, top_p=0.9, min_p=0.1, presence_penalty=0.5, frequency_penalty=-0.5, max_new_tokens=5)
    completion = asyncio.run(backend.complete(ask(PLAIN, sampling=sampling)))
    assert completion == Completion("", (4, 9), (-0.5, -0.25), "stop")
    [(prompt, params, _)] = engine.asked
    assert prompt["prompt_token_ids"] == [1, 2, 3]
    assert (params.temperature, params.top_p, params.min_p, params.top_k) == (0.7, 0.9, 0.1, 0)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (0.5, -0.5, 1.0)
    assert (params.max_tokens, params.seed, list(params.stop_token_ids), params.logprobs) == (5, 7, [9], 0)
    assert (params.detokenize, params.output_kind) == (False, RequestOutputKind.FINAL_ONLY)
    assert params.structured_outputs is None


def test_seeds_stay_within_what_the_engine_reads() -> None:
    backend, _ = backend_on(lambda params: Output([9]))
    for seed in (-1, 2**63, 2**64 - 1):
        assert 0 <= backend.params_of(ask(PLAIN, seed=seed), with_grammar=False).seed < 2**63


def test_a_grammar_is_sent_so_that_it_may_ask_for_special_tokens_and_leaves_the_stop_to_the_stop_id() -> None:
    backend, engine = backend_on(lambda params: Output([9]))
    asyncio.run(backend.complete(ask(PLAIN, grammar='root ::= "<1>" word "<9>"\nword ::= [a-z]+')))
    [(_, params, _)] = engine.asked
    sent = json.loads(params.structured_outputs.structural_tag)
    assert sent == {
        "type": "structural_tag",
        "format": {"type": "grammar", "grammar": 'root ::= "<1>" word\nword ::= [a-z]+'},
    }
    assert backend.num_unconstrained == 0


def test_the_grammar_of_a_turn_loses_its_closing_tag_and_nothing_else() -> None:
    grammar = gbnf(Role.RECOMMENDER, MOVIE, ["Heat (1995)"])
    sent = json.loads(structural_tag(grammar, [END_OF_TURN]))["format"]["grammar"]
    assert sent != grammar
    first, rest = sent.split("\n", 1)
    assert first + f' "{END_OF_TURN}"\n' + rest == grammar


def test_a_grammar_that_the_engine_refuses_is_left_out_from_then_on_and_counted() -> None:
    def answer(params: Any) -> Output:
        if params.structured_outputs is not None:
            raise ValueError("Invalid structural tag")
        return Output([9])

    backend, engine = backend_on(answer)
    request = ask(PLAIN, grammar='root ::= "x"')
    for _ in range(2):
        assert asyncio.run(backend.complete(request)).ids == (9,)
    assert [params.structured_outputs is None for _, params, _ in engine.asked] == [False, True, True]
    assert backend.num_unconstrained == 2


def test_a_completion_cut_off_by_its_limit_says_so() -> None:
    backend, _ = backend_on(lambda params: Output([4] * params.max_tokens, "length"))
    assert asyncio.run(backend.complete(PLAIN)).finish == "length"


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ((1,) * 16, lambda params: Output([9])),
        ((1,) * 14, lambda params: Output([4, 4], "length")),  # the engine stopped at its context, before the limit
        ((1, 2), ValueError("The decoder prompt (length 20) is longer than the maximum model length of 16.")),
    ],
)
def test_what_does_not_fit_is_a_context_overflow(prompt: tuple[int, ...], answer: Any) -> None:
    backend, _ = backend_on(answer)
    with pytest.raises(ContextOverflow):
        asyncio.run(backend.complete(ask(PLAIN, prompt=prompt)))


@pytest.mark.parametrize(
    "answer",
    [RuntimeError("EngineCore encountered an issue"), lambda params: Output([], "abort"), lambda params: Output([], "error")],
)
def test_a_broken_engine_is_a_backend_error(answer: Any) -> None:
    backend, _ = backend_on(answer)
    with pytest.raises(BackendError, match="vllm:test"):
        asyncio.run(backend.complete(PLAIN))


def test_chat_messages_are_refused() -> None:
    backend, _ = backend_on(lambda params: Output([9]))
    with pytest.raises(BackendError, match="need an http backend"):
        asyncio.run(backend.complete(ask(PLAIN, prompt=(Message("user", "hello"),))))


def test_a_cancelled_request_is_taken_out_of_the_engine() -> None:
    backend, engine = backend_on(lambda params: Output([9]), delay_s=10)

    async def use() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.complete(PLAIN), 0.05)
        await backend.close()

    asyncio.run(use())
    assert engine.aborted == [engine.asked[0][2]]
    assert engine.is_down


def test_requests_of_one_session_have_distinct_names() -> None:
    backend, engine = backend_on(lambda params: Output([9]))

    async def use() -> None:
        await asyncio.gather(*(backend.complete(PLAIN) for _ in range(3)))

    asyncio.run(use())
    assert len({name for _, _, name in engine.asked}) == 3


def test_the_example_of_the_structural_tag_holds() -> None:
    assert doctest.testmod(vllm).failed == 0


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'interplay\[vllm\]'"):
        VllmBackend.load(Path("nowhere"))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory_fraction is 1\.5"):
        VllmBackend.load(Path("nowhere"), memory_fraction=1.5)


def test_a_path_that_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert main(["data", "agenda", "--out", str(data), "--num-dialogues", "20", "--num-items", "100"]) == 0
    capsys.readouterr()
    args = ["simulate", "--user", f"vllm:{tmp_path / 'none'}", "--recommender", "agenda", "--scenarios", str(data)]
    assert main([*args, "--out", str(tmp_path / "sim"), "--split", "train"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "expected a trained model" in err
