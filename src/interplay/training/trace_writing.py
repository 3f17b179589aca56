"""Reasoning that a language model writes for a recommender to learn, by rejection.

For each turn whose gold item is a candidate, the model sees what the recommender saw, the candidates and their attributes.
A trace is kept only if its list begins with a gold item; the model is never told which that is.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import Field, ValidationError

from interplay.backends.backend import Backend, Message, Request
from interplay.config import Sampling, TrainConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import BackendError, ConfigError, ContextOverflow, DataError, FormatError
from interplay.formats.chat import ChatFormat
from interplay.formats.reasoning import keeps_form, parse_reasoning, reasoned_events_of_text
from interplay.formats.tags import ACTION_OPEN, REASONING_CLOSE
from interplay.simulation.slots import Knowledge
from interplay.simulation.specs import split_server
from interplay.store import first_problem
from interplay.training.rows import RowCounts, with_candidates
from interplay.training.traces import Traces, trace_key
from interplay.types import Advice, Reasoning, Record, Role, Split, View, derive_seed, view_of

RULES = "rules"
"""In place of URL#MODEL: the rules write the traces."""
MOST_TOKENS = 700
"""Of a model's trace."""


class Written(Record):
    """What came of asking a model for one trace: one line of `traces.jsonl`."""

    key: str
    """See `trace_key`."""
    reasoning: Reasoning | None
    """None: every attempt was rejected, and the rules' trace stands in."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """Attempts that were rejected, by reason: a `FormatError.reason`, "list" (not the form that was asked for), "other-first"
    (the list begins with another title), "no-answer"."""


def require_reasoning(config: TrainConfig) -> None:
    """Make sure that what is asked for with --reasoning can be had.

    Raises:
        ConfigError: it is for another role, there are no candidates, or fewer than the list is long; or traces are to be
            written by something else than the rules or a server's model.
    """
    if not config.reasoning:
        return
    if config.role != "recommender":
        raise ConfigError(f"--reasoning is for a recommender, not for a {config.role}")
    if config.knowledge is None:
        raise ConfigError("--reasoning ranks the candidates of a ranker: pass --knowledge ranker:PATH with it")
    if config.trace.list_length > config.num_candidates:
        raise ConfigError(
            f"--trace.list-length {config.trace.list_length} asks for more titles than there are candidates: "
            f"raise --num-candidates {config.num_candidates}, or shorten the list"
        )
    if config.trace.source != RULES and "://" not in config.trace.source:
        raise ConfigError(f"--trace.source takes {RULES} or URL#MODEL; got {config.trace.source}")


def traces_of(config: TrainConfig, corpora: list[Corpus], knowledge: Knowledge | None) -> tuple[Traces | None, dict[str, int]]:
    """The reasoning that is learned, and how often a model's was rejected, by reason; None without `config.reasoning`.

    A model's traces are kept in `traces.jsonl` as they come, so that nothing is asked twice.

    Raises:
        BackendError: the server can't be reached.
        InputError: see `require_reasoning`.
    """
    require_reasoning(config)
    if knowledge is None or knowledge.reasoner is None:
        return None, {}
    traces = Traces(knowledge.reasoner, config.trace.outside, config.trace.distractors, config.seed)
    if config.trace.source == RULES:
        return traces, {}
    from interplay.backends.http import HttpBackend

    async def write() -> dict[str, Written]:
        backend = HttpBackend(*split_server(config.trace.source))
        await backend.check()
        try:
            pairs = (pair for corpus in corpora for split in (Split.TRAIN, Split.VALID) for pair in corpus.pairs(split))
            views = (view_of(s, Role.RECOMMENDER, with_persona=config.with_persona).after(*d.turns) for s, d in pairs)
            advised = with_candidates(views, knowledge, RowCounts())
            path = config.out / "traces.jsonl"
            return await write_traces(advised, traces, backend, path, tries=config.trace.tries, seed=config.seed)
        finally:
            await backend.close()

    written = asyncio.run(write())
    rejected = Counter[str]()
    for one in written.values():
        rejected.update(one.rejected)
    kept = {key: one.reasoning for key, one in written.items() if one.reasoning is not None}
    return replace(traces, written=kept), dict(rejected)


def read_written(path: Path) -> dict[str, Written]:
    """What a model has written so far, by key; empty when there is no such file.

    Raises:
        DataError: a line can't be read. A last line that was cut off is passed over.
    """
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found: dict[str, Written] = {}
    for number, line in enumerate(lines, 1):
        try:
            one = Written.model_validate_json(line)
        except ValidationError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise DataError(f"{path}, line {number}: {first_problem(error)}") from None
        found[one.key] = one
    return found


async def write_traces(
    views: Iterable[View],
    traces: Traces,
    backend: Backend,
    path: Path,
    *,
    tries: int = 3,
    seed: int = 0,
    concurrency: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Written]:
    """Let a language model write the traces of turns whose gold item is a candidate; what is there already is not asked again.

    Args:
        views: of a recommender, with advice for each of its turns.
        traces: tells the gold items.
        backend: takes chat messages.
        path: `traces.jsonl`; a line is added as soon as it is known.
        tries: attempts per trace, each with another seed.
        seed: of the attempts.
        concurrency: traces asked for at once.
        on_progress: called with (finished, total).

    Returns:
        Everything in the file, by key.

    Raises:
        DataError: the file is damaged.
    """
    found = read_written(path)
    jobs: dict[str, tuple[View, Advice, tuple[str, ...]]] = {}
    for view in views:
        for advice in view.advice:
            own = traces.candidates(view, advice)
            gold = traces.gold(view, advice.turn)
            key = trace_key(view, own, gold)
            if set(gold) & set(own.candidates) and key not in found:
                jobs[key] = (view, own, gold)
    slots = asyncio.Semaphore(concurrency)
    done = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:

        async def one(key: str, view: View, advice: Advice, gold: tuple[str, ...]) -> None:
            nonlocal done
            async with slots:
                written = await ask_for_trace(
                    backend, view, advice, gold, key=key, list_length=traces.reasoner.list_length, tries=tries, seed=seed
                )
            found[key] = written
            file.write(written.to_json() + "\n")
            file.flush()
            done += 1
            if on_progress is not None:
                on_progress(done, len(jobs))

        work: list[Awaitable[None]] = [one(key, *job) for key, job in jobs.items()]
        await asyncio.gather(*work)
    return found


async def ask_for_trace(
    backend: Backend,
    view: View,
    advice: Advice,
    gold: tuple[str, ...],
    *,
    key: str,
    list_length: int,
    tries: int,
    seed: int,
) -> Written:
    """Ask for one trace until its list begins with a gold item.

    The model sees what the recommender saw, the candidates and their attributes; it does not see the gold items.
    """
    form = ChatFormat(view.domain, "reasoning", list_length=list_length)
    shown = replace(view, turns=tuple(turn.heard for turn in view.turns[: advice.turn]), advice=(advice,))
    messages = tuple(Message(m.role, m.content) for m in form.messages(shown))
    rejected: Counter[str] = Counter()
    for attempt in range(tries):
        request = Request(
            prompt=messages,
            sampling=Sampling(temperature=0.7, max_new_tokens=MOST_TOKENS),
            seed=derive_seed(seed, "trace", key, attempt),
            session=f"trace.{key}.{attempt}",
            stop_text=(ACTION_OPEN,),
        )
        try:
            text = (await backend.complete(request)).text
            closed = text if REASONING_CLOSE in text else text + REASONING_CLOSE
            events = reasoned_events_of_text(closed, view.domain)
            reasoning, _ = parse_reasoning(events, view.domain, advice.candidates, text)
        except FormatError as error:
            rejected[error.reason] += 1
        except (BackendError, ContextOverflow):
            rejected["no-answer"] += 1
        else:
            if not keeps_form(reasoning, list_length):
                rejected["list"] += 1
            elif not reasoning.ranking or reasoning.ranking[0].title not in gold:
                rejected["other-first"] += 1
            else:
                return Written(key=key, reasoning=reasoning, rejected=dict(rejected))
    return Written(key=key, reasoning=None, rejected=dict(rejected))
