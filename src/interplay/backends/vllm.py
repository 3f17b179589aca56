"""Completions from vLLM's engine inside this process's program: token ids in, ids and log-probabilities out.

Written against vLLM 0.33 (`vllm.v1.engine.async_llm.AsyncLLM`). The engine batches continuously and caches prefixes, so a
conversation's earlier turns are not read again; it works in a process of its own, so the event loop is never held up.
"""

import itertools
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from interplay.backends.backend import Completion, Request
from interplay.errors import BackendError, ConfigError, ContextOverflow, MissingExtra

MEMORY_FRACTION = 0.45
"""Share of a GPU's memory that an engine takes by default: room for two, a user and a recommender, on one GPU."""

_LOG = logging.getLogger(__name__)
# "The decoder prompt (length 600) is longer than the maximum model length of 512", "This model's maximum context length is".
_OVERFLOW = re.compile(r"maximum model length|maximum context length", re.IGNORECASE)
_BROKEN_OFF = frozenset({"abort", "error"})


class Engine(Protocol):
    """What is used of vLLM's AsyncLLM."""

    def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncIterator[Any]:
        """The outputs of one request; it is aborted when the iteration is cancelled."""
        ...

    def shutdown(self) -> None:
        """Stop the engine's process."""
        ...


class Types(Protocol):
    """The classes of vLLM that a request is translated into."""

    SamplingParams: Any
    StructuredOutputsParams: Any
    RequestOutputKind: Any
    TokensPrompt: Any


class VllmBackend:
    """A model in vLLM's engine. Belongs to one event loop. Make one with `load`.

    Args:
        engine: a running AsyncLLM.
        types: vLLM's own classes.
        name: the backend's name.
        max_context: tokens that a prompt and its completion may have together.
        text_of: the text of one token id, for ids that a grammar names by their text.

    Attributes:
        num_requests: completions asked for.
        num_unconstrained: completions that came back without the grammar they asked for, since the engine refused it.
    """

    def __init__(self, engine: Engine, types: Types, name: str, *, max_context: int, text_of: Callable[[int], str]) -> None:
        self.name = name
        self.max_context = max_context
        self.num_requests = 0
        self.num_unconstrained = 0
        self._engine = engine
        self._types = types
        self._text_of = text_of
        self._numbers = itertools.count()
        self._takes_grammars = True

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        max_batch: int = 256,
        memory_fraction: float = MEMORY_FRACTION,
        max_context: int | None = None,
    ) -> "VllmBackend":
        """Start an engine.

        Args:
            path: a model directory that transformers can read (a checkpoint without adapters).
            max_batch: conversations decoded together at most, >= 1.
            memory_fraction: share of the GPU's memory for weights and cache, (0, 1].
            max_context: tokens of a conversation at most; None: what the model was made for.

        Raises:
            MissingExtra: vLLM is not installed.
            ConfigError: a number is out of range.
            BackendError: the engine does not start, for example because there is no GPU.
        """
        if not (0 < memory_fraction <= 1 and max_batch >= 1):
            raise ConfigError(f"memory_fraction is {memory_fraction}, max_batch {max_batch}; accepted: (0, 1], from 1")
        # Read when vLLM is imported: nothing is reported to anyone, and its log does not bury ours.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            import vllm
        except ImportError as error:
            if error.name != "vllm":
                raise BackendError(f"vllm is installed but can't be imported ({error}); reinstall it") from None
            raise MissingExtra("vllm", "vllm", "A model in vLLM's engine") from None
        try:
            from vllm import sampling_params
            from vllm.v1.engine.async_llm import AsyncLLM

            engine = AsyncLLM.from_engine_args(
                vllm.AsyncEngineArgs(
                    model=str(path),
                    max_num_seqs=max_batch,
                    max_model_len=max_context,
                    gpu_memory_utilization=memory_fraction,
                    enable_prefix_caching=True,
                    # Else the model's own generation_config.json would change how tokens are drawn.
                    generation_config="vllm",
                    disable_log_stats=True,
                )
            )
            tokenizer = engine.get_tokenizer()
        except (
            Exception
        ) as error:  # whatever is missing (GPU, driver, memory, kernels), vLLM has an exception of its own for it
            reason = (str(error).strip().splitlines() or [""])[0]
            raise BackendError(
                f"vllm could not start {path} ({type(error).__name__}: {reason[:200]}); "
                "it needs a GPU that it supports with enough free memory; without one use the path alone"
            ) from None

        class Vllm:
            SamplingParams = sampling_params.SamplingParams
            StructuredOutputsParams = sampling_params.StructuredOutputsParams
            RequestOutputKind = sampling_params.RequestOutputKind
            TokensPrompt = vllm.TokensPrompt

        context = int(engine.model_config.max_model_len)
        return cls(engine, Vllm, f"vllm:{path}", max_context=context, text_of=tokenizer.convert_ids_to_tokens)

    async def complete(self, request: Request) -> Completion:
        """Answer one request. Cancelling it takes it out of the engine.

        Raises:
            BackendError: the engine failed or died, or the prompt is of chat messages.
            ContextOverflow: the prompt, or the prompt with the completion so far, exceeds `max_context`.
        """
        self.num_requests += 1
        ids = [i for i in request.prompt if isinstance(i, int)]
        if not ids or len(ids) < len(request.prompt):
            raise BackendError(f"{self.name} answers token-id prompts only; chat messages need an http backend")
        if len(ids) >= self.max_context:
            raise ContextOverflow(f"{len(ids)} tokens of prompt; {self.name} can hold {self.max_context} with the completion")
        if request.grammar is not None and self._takes_grammars:
            try:
                return await self._generate(ids, request, with_grammar=True)
            except _Refused as refusal:
                words = str(refusal)
            # Only when it works without is the grammar at fault, and not the request.
            completion = await self._generate(ids, request, with_grammar=False)
            _LOG.warning("%s refuses the grammar (%s); from here on it is asked without", self.name, words)
            self._takes_grammars = False
        else:
            completion = await self._generate(ids, request, with_grammar=False)
        self.num_unconstrained += request.grammar is not None
        return completion

    def release(self, session: str) -> None:
        """Nothing to do: the engine drops the least recently used prefixes itself."""

    async def close(self) -> None:
        """Stop the engine."""
        self._engine.shutdown()

    def params_of(self, request: Request, *, with_grammar: bool) -> Any:
        """The request as vLLM's SamplingParams."""
        sampling = request.sampling
        structured = None
        if with_grammar and request.grammar is not None:
            stops = [self._text_of(i) for i in request.stop_ids]
            structured = self._types.StructuredOutputsParams(structural_tag=structural_tag(request.grammar, stops))
        return self._types.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            max_tokens=sampling.max_new_tokens,
            # vLLM draws with a generator per request; it takes -1 as "no seed", and 64 signed bits.
            seed=request.seed % 2**63,
            stop_token_ids=list(request.stop_ids),
            logprobs=0,  # that of the sampled token alone
            detokenize=False,
            output_kind=self._types.RequestOutputKind.FINAL_ONLY,
            structured_outputs=structured,
        )

    async def _generate(self, ids: list[int], request: Request, *, with_grammar: bool) -> Completion:
        prompt = self._types.TokensPrompt(prompt_token_ids=ids)
        outputs = []
        try:
            params = self.params_of(request, with_grammar=with_grammar)
            name = f"{request.session}#{next(self._numbers)}"
            outputs = [output async for output in self._engine.generate(prompt, params, request_id=name)]
        except Exception as error:  # the classes of vLLM's exceptions have changed with almost every version
            words = " ".join(f"{error} {error.__cause__ or ''}".split())[:300]
            if _OVERFLOW.search(words):
                raise ContextOverflow(f"{self.name}: {words}") from None
            if with_grammar and "Dead" not in type(error).__name__:
                raise _Refused(f"{type(error).__name__}: {words}") from None
            raise BackendError(f"{self.name} failed ({type(error).__name__}: {words}); look at its log, then resume") from None
        if not outputs or not outputs[-1].outputs:
            raise BackendError(f"{self.name} gave no output; look at its log, then resume")
        return self._read(outputs[-1].outputs[0], len(ids), request)

    def _read(self, output: Any, num_prompt: int, request: Request) -> Completion:
        if output.finish_reason in _BROKEN_OFF:
            raise BackendError(f"{self.name} broke off a completion ({output.finish_reason}); look at its log, then resume")
        ids = tuple(output.token_ids)
        logprobs = None
        if output.logprobs is not None:
            if len(output.logprobs) != len(ids):
                raise BackendError(f"{self.name} gave {len(output.logprobs)} log-probabilities for {len(ids)} tokens")
            logprobs = tuple(float(at[token].logprob) for at, token in zip(output.logprobs, ids, strict=True))
        end = next((i + 1 for i, token in enumerate(ids) if token in request.stop_ids), None)
        if end is not None:
            return Completion("", ids[:end], logprobs and logprobs[:end], "stop")
        is_cut_off = output.finish_reason == "length"
        if is_cut_off and len(ids) < request.sampling.max_new_tokens and num_prompt + len(ids) >= self.max_context:
            raise ContextOverflow(f"{self.name}: the conversation and its next turn exceed the model's context")
        return Completion("", ids, logprobs, "length" if is_cut_off else "stop")


class _Refused(Exception):
    """The engine does not take the request as it is; it may take it without its grammar."""


def structural_tag(grammar: str, stops: list[str]) -> str:
    r"""A GBNF grammar in the form in which vLLM lets it speak of special tokens.

    In a plain `grammar` vLLM allows no special token, and a trained model's tags are special tokens: they would have to be
    spelled out piece by piece. A stop id is taken by vLLM only where the grammar may end, so a stop's text at the end of the
    root rule is left to the stop id.

    >>> print(structural_tag('root ::= "<a>" word "</a>"', ["</a>"]))
    {"type": "structural_tag", "format": {"type": "grammar", "grammar": "root ::= \"<a>\" word"}}
    """
    lines = grammar.split("\n")
    for index, line in enumerate(lines):
        if re.match(r"root\s*::=", line):
            for stop in stops:
                lines[index] = lines[index].rstrip().removesuffix(" " + json.dumps(stop, ensure_ascii=False))
    tag = {"type": "structural_tag", "format": {"type": "grammar", "grammar": "\n".join(lines)}}
    return json.dumps(tag, ensure_ascii=False)
