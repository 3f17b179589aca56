"""Rollouts: conversations of the policy with user simulators, and what the policy said in them, token by token.

They are held by the ordinary simulation (`simulation.batch.simulate`) with the ordinary agents; a `Recorder` between the
policy's agent and its engine keeps what went through. A `Row` is what a training pass reads: everything that the policy's
side read and said, and at which places the policy had a choice. The other side's words stand in it, but at none of these
places, so nothing can be learned from them; and they stand there as the policy's own tokenizer wrote them, so the user
simulator may have any other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interplay.backends.backend import Backend, Completion, Request, Scorer
from interplay.constraints import Allowed, Constraint
from interplay.errors import BackendError
from interplay.simulation.agents import Agent
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.dialogue import Limits, converse, ending_of
from interplay.types import Dialogue, Scenario, derive_seed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Sample:
    """One answer of the policy as its engine gave it."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each id at the request's temperature, before any constraint; see `backends.sampling.draw`."""
    constraint: Constraint | None
    max_new_tokens: int


@dataclass(slots=True, frozen=True)
class Row:
    """What a training pass reads of one conversation; all arrays (num_choices,)."""

    ids: tuple[int, ...]
    """Everything that the policy's side read and said."""
    places: Ints
    """Indices into `ids` of the tokens that the policy chose among several."""
    turns: Ints
    """Of which of the policy's turns each is, from 0."""
    allowed: tuple[Allowed | None, ...]
    """Which ids it could choose from; None: from all."""
    sampled: Floats
    """Log-probability of each that the engine gave, before the constraint."""


@dataclass(slots=True, frozen=True)
class Spoken:
    """One conversation with what the policy said in it."""

    dialogue: Dialogue
    rows: tuple[Row, ...]
    """One, as long as every prompt begins with the prompt and the answer before it."""


class Recorder:
    """A backend that passes everything on to another and keeps what it answered.

    Args:
        backend: an engine that tells the ids it drew and their log-probabilities.

    Attributes:
        is_on: whether answers are kept.
    """

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.is_on = False
        self._backend = backend
        self._kept: dict[str, list[Sample]] = {}

    async def complete(self, request: Request) -> Completion:
        """See Backend.

        Raises:
            BackendError: no answer could be had, or it tells no log-probabilities.
            ContextOverflow: the prompt does not fit.
        """
        completion = await self._backend.complete(request)
        if self.is_on:
            if completion.ids is None or completion.logprobs is None:
                raise BackendError(f"{self.name} tells no log-probabilities, which training needs")
            sample = Sample(
                prompt=tuple(i for i in request.prompt if isinstance(i, int)),
                ids=completion.ids,
                logprobs=completion.logprobs,
                constraint=request.constraint,
                max_new_tokens=request.sampling.max_new_tokens,
            )
            kept = self._kept.setdefault(request.session, [])
            if kept and kept[-1].prompt == sample.prompt:
                kept.pop()  # it could not be read and was asked for again
            kept.append(sample)
        return completion

    async def logprobs(self, ids: Sequence[int], places: Sequence[int]) -> tuple[float, ...]:
        """See `backends.backend.Scorer`."""
        if not isinstance(self._backend, Scorer):
            raise BackendError(f"{self.name} tells no log-probabilities of given tokens")
        return await self._backend.logprobs(ids, places)

    def take(self, session: str) -> list[Sample]:
        """What was kept of a conversation side, in order; it is forgotten here."""
        return self._kept.pop(session, [])

    def release(self, session: str) -> None:
        """See Backend."""
        self._backend.release(session)

    async def close(self) -> None:
        """See Backend."""
        await self._backend.close()


def choices(sample: Sample) -> list[Allowed | None]:
    """What each token of an answer could be chosen from: its constraint, replayed over the ids. None: from all.

    Raises:
        ValueError: an id was not allowed, so the answer was not drawn under this constraint.
    """
    if sample.constraint is None:
        return [None] * len(sample.ids)
    state = sample.constraint.start(sample.max_new_tokens)
    out: list[Allowed | None] = []
    for index in sample.ids:
        out.append(state.allowed())
        state.advance(index)
    return out


def rows_of(samples: Sequence[Sample]) -> tuple[Row, ...]:
    """The answers of one conversation as rows.

    Answers stand in one row as long as each prompt begins with the prompt and the answer before it, so every token goes
    through the model once. Tokens that had to be what they are (most of a turn's frame) are no choices: their probability is
    1 whatever the weights are.
    """
    out: list[Row] = []
    ids: tuple[int, ...] = ()
    places: list[int] = []
    turns: list[int] = []
    allowed: list[Allowed | None] = []
    sampled: list[float] = []

    def end() -> None:
        if places:
            out.append(Row(ids, np.array(places), np.array(turns), tuple(allowed), np.array(sampled)))
        for kept in (places, turns, allowed, sampled):
            kept.clear()

    for number, sample in enumerate(samples):
        if sample.prompt[: len(ids)] != ids:
            end()
        start = len(sample.prompt)
        for offset, (found, logprob) in enumerate(zip(choices(sample), sample.logprobs, strict=True)):
            if found is None or not found.only or len(found.ids) > 1:
                places.append(start + offset)
                turns.append(number)
                allowed.append(found)
                sampled.append(logprob)
        ids = sample.prompt + sample.ids
    end()
    return tuple(out)


async def roll_out(
    scenarios: Sequence[Scenario],
    user: Agent,
    policy: Agent,
    recorder: Recorder,
    plan: Plan,
    *,
    on_dialogue: Callable[[int], None] | None = None,
) -> list[list[Spoken]]:
    """Hold the conversations of one round.

    Args:
        scenarios: one group each, all different.
        user: whom the policy talks to.
        policy: the recommender that is trained, whose backend is `recorder`.
        recorder: keeps what it says.
        plan: with `num_samples` conversations per group.
        on_dialogue: called with how many are finished.

    Returns:
        Of each scenario, in their order, its conversations by sample: the same however they were scheduled.
    """
    found: dict[str, Dialogue] = {}

    def keep(dialogue: Dialogue) -> None:
        found[dialogue.key] = dialogue
        if on_dialogue is not None:
            on_dialogue(len(found))

    recorder.is_on = True
    try:
        await simulate(scenarios, user, policy, plan, on_dialogue=keep)
    finally:
        recorder.is_on = False
    groups = []
    for scenario in scenarios:
        keys = [f"{scenario.key}.{sample}" for sample in range(plan.num_samples)]
        groups.append([Spoken(found[key], rows_of(recorder.take(f"{key}/{policy.role}"))) for key in keys])
    return groups


async def sample_futures(
    scenario: Scenario,
    dialogue: Dialogue,
    user: Agent,
    policy: Agent,
    *,
    num: int,
    window: int,
    plan: Plan,
) -> list[list[Dialogue]]:
    """Continuations of a conversation from each of its places where the policy would speak next.

    Each begins after the user's answer to one turn of the policy, with both sides begun anew on what was said so far, and is
    ended after `window` further turns of the policy (each with the user's answer), or where conversations end.

    Args:
        scenario: of the dialogue.
        dialogue: held with these agents.
        user: the user.
        policy: whose turns are looked ahead from.
        num: futures for each place.
        window: turns of the policy that each has at most, >= 1.
        plan: of the dialogue; gives seed, limits and what the policy is shown.

    Returns:
        For each turn of the policy its futures: whole dialogues, what was said before included. No futures for a turn that
        nothing of the policy's follows: the last one of a conversation that came to its end.
    """
    places = [place for place, turn in enumerate(dialogue.turns) if turn.role is policy.role]
    jobs: list[list[Awaitable[Dialogue]]] = []
    for place in places:
        said = dialogue.turns[: place + 2]
        is_over = len(said) < place + 2 or ending_of(list(said), plan.limits) is not None
        ends_at = min(plan.limits.max_turns, len(said) + 2 * window)
        jobs.append(
            []
            if is_over
            else [
                converse(
                    scenario,
                    user,
                    policy,
                    seed=derive_seed(plan.seed, dialogue.key, "future", place, number),
                    sample=dialogue.sample,
                    limits=Limits(ends_at, plan.limits.max_repeats),
                    with_persona=plan.with_persona,
                    begun=said,
                    session=f"{dialogue.key}.{place}.{number}",
                )
                for number in range(num)
            ]
        )
    held = iter(await asyncio.gather(*(job for found in jobs for job in found)))
    return [[next(held) for _ in found] for found in jobs]
