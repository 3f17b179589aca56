"""From what a person writes to an Agent.

- `agenda`: the rules; `agenda?several=0.3&small_talk=0.2&off_topic=0.1`: a user that talks more as people do
- `stub:accept-last`, `stub:accept-first`, `stub:never-accept`: users that read nothing
- `noise:P:SPEC`: a user whose verdicts are turned round with probability P
- `ranker:PATH`: a trained ranker as a recommender
- `degraded:random`, `degraded:ignores-user`, `degraded:repeats`: recommenders that are bad on purpose; `degraded:random:SPEC`:
  with the turns of another
- `PATH`: a trained model in this process
- `vllm:PATH`: a trained model in vLLM's engine
- `URL#MODEL`: a model behind an OpenAI-compatible server
- `URL,URL#MODEL`: the same model behind several servers
- `URL#MODEL?prompt=NAME&examples=DATA&k=3`: with another prompt, and with k moments of logs as examples
- `retrieval:DATA`: what was said at the most similar moment of the logs
- `scripted:FILE`: the turns of a file, one after the other
- `python:MODULE:FUNCTION`, `python:FILE.py:FUNCTION`: somebody's function
- `service:URL`, `service:URL#timeout=10`: somebody's HTTP service; `ievalm:URL`: a server of CRS Arena's iEvaLM

docs/agents.md has them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from pydantic import ValidationError

from interplay.config import AgendaTalk, ControlFlags, KvCache, Sampling, SlotFlags
from interplay.errors import ConfigError, InputError
from interplay.simulation.agents import Agent
from interplay.simulation.baselines import BASELINES, chat_options, load_baseline, read_moments
from interplay.simulation.cues import LENGTH
from interplay.simulation.degraded import DEGRADED, DegradedAgent, Fault, WrongChoice, read_spec
from interplay.simulation.noise import NOISE, NoisyUser
from interplay.simulation.noise import read_spec as read_noise
from interplay.store import first_problem
from interplay.types import BELIEF, FIT, SESSION_CUES, TURN_CUES, Catalog, Role, Split, content_hash

if TYPE_CHECKING:
    from interplay.items.ranker import ItemRanker
    from interplay.simulation.checkpoint import CheckpointCard
    from interplay.simulation.cues import CueSource
    from interplay.simulation.guidance import Guidance
    from interplay.simulation.slots import Slots

AGENDA = "agenda"
"""The rules of either role."""
VLLM = "vllm:"
"""Before a trained model's path: it runs in vLLM's engine."""
RANKER = "ranker:"
"""Before a trained ranker's path."""
ASK, LOGS = "ask:", "logs:"
"""Before the number of questions, and before a data directory, in --guidance."""
STUB = "stub:"
"""Before the rule of a user that reads nothing."""


@dataclass(slots=True, frozen=True)
class LoadedAgent:
    """An Agent and what it needs to be shown."""

    agent: Agent
    with_persona: bool | None
    """Whether a trained recommender must be shown the persona; None for agents that work either way."""
    fingerprint: str
    """Changes when the agent changes: for a trained model its card's hash, otherwise the spec itself."""
    prompt: str | None = None
    """Name of the prompt of a chat model (`formats.chat.PROMPTS`)."""


def load_from_spec(
    spec: str,
    role: Role,
    *,
    sampling: Sampling,
    catalog: Catalog,
    max_batch: int,
    memory_gib: float | None = None,
    kv_cache: KvCache = "model",
    constrained: bool = True,
    exclude_rejected: bool = False,
    slots: SlotFlags | None = None,
    control: ControlFlags | None = None,
    any_domain: bool = False,
) -> LoadedAgent:
    """The Agent that `spec` names.

    Args:
        spec: see the module.
        role: whom it speaks for.
        sampling: how tokens are drawn; not used by agenda agents.
        catalog: the items that can be recommended and linked.
        max_batch: conversations decoded together, or requests under way at a server, at most.
        memory_gib: for the caches of a model in this process; see LocalBackend.
        kv_cache: their type; see LocalBackend.
        constrained: hold models to the format of a turn and to titles of the catalog; see docs/backends.md for who can.
        exclude_rejected: whether a constrained recommender may not name again what the user has turned down.
        slots: what a model that recommends gets beside its backbone; not used for users.
        control: what a user that was trained with cues is told; not used for recommenders.
        any_domain: let a model that was trained on one domain talk about another: titles then stand between the tags of the
            domain that it knows.

    Raises:
        InputError: there is no such agent, it is of the other role or another domain, or it can't have such slots.
    """

    def load_inner(inner_spec: str) -> LoadedAgent:
        """The agent that another one is made around, under the same terms."""
        return load_from_spec(
            inner_spec,
            role,
            sampling=sampling,
            catalog=catalog,
            max_batch=max_batch,
            memory_gib=memory_gib,
            kv_cache=kv_cache,
            constrained=constrained,
            exclude_rejected=exclude_rejected,
            slots=slots,
            control=control,
            any_domain=any_domain,
        )

    flags = slots if role is Role.RECOMMENDER and slots is not None else None
    speaks_by_itself = spec == AGENDA or spec.startswith((RANKER, *BASELINES))
    if spec.startswith(DEGRADED) and role is Role.RECOMMENDER:
        speaks_by_itself = read_spec(spec)[1] is None
    if flags is not None and flags.is_set and speaks_by_itself:
        raise ConfigError(
            f"--knowledge with --num-candidates and --match-wishes, --guidance and --strategy are for models; {spec} is none"
        )
    asked = control if role is Role.USER and control is not None else ControlFlags()
    if asked.is_set and (spec == AGENDA or spec.startswith((f"{AGENDA}?", STUB, "http://", "https://", *BASELINES))):
        raise ConfigError(
            f"--control is for users that were trained with cues (interplay train user --cues all); {spec} is none"
        )
    if spec == AGENDA or spec.startswith(f"{AGENDA}?"):
        from interplay.simulation.agenda_user import AgendaRates, AgendaUser
        from interplay.simulation.rule_recommender import RuleRecommender

        if catalog.domain.name != "movie":
            raise InputError(f"the agenda agents talk about movies; these scenarios are about {catalog.domain.plural}")
        if role is Role.RECOMMENDER and spec != AGENDA:
            raise ConfigError(f"{spec}: how holistic it talks is for the user to say; the recommender is {AGENDA}")
        rates = AgendaRates(**agenda_talk(spec).model_dump())
        agent: Agent = AgendaUser(catalog, rates, spec) if role is Role.USER else RuleRecommender(catalog)
        return LoadedAgent(agent, None, spec)
    if spec.startswith(DEGRADED):
        if role is not Role.RECOMMENDER:
            raise InputError(f"{spec} is a recommender, which can't be the user")
        fault, inner_spec = read_spec(spec)
        return degrade(None if inner_spec is None else load_inner(inner_spec), fault, catalog)
    if spec.startswith(NOISE):
        if role is not Role.USER:
            raise InputError(f"{spec} is a user, which can't be the recommender")
        rate, inner_spec = read_noise(spec)
        return with_noise(load_inner(inner_spec), rate)
    if spec.startswith(STUB):
        from interplay.simulation.stubs import StubUser

        if role is not Role.USER:
            raise InputError(f"{spec} is a user, which can't be the recommender")
        return LoadedAgent(StubUser(spec.removeprefix(STUB)), None, spec)
    if spec.startswith(RANKER):
        from interplay.items.ranker import ItemRanker
        from interplay.simulation.ranker_agent import RankerAgent

        if role is not Role.RECOMMENDER:
            raise InputError(f"{spec} is a ranker, which can only be the recommender")
        path = Path(spec.removeprefix(RANKER))
        ranker = ItemRanker.read(path, catalog)
        return LoadedAgent(RankerAgent(ranker, catalog, path.name), None, f"{spec} {content_hash(ranker.card)}")
    if spec.startswith(("http://", "https://")):
        from interplay.backends.http import MAX_CONCURRENCY, HttpBackend
        from interplay.formats.chat import ChatFormat, default_prompt, prompts_digest
        from interplay.simulation.model_agents import ChatAgent

        if flags is not None and flags.strategy is not None:
            raise ConfigError(f"--strategy is for recommenders trained with --cues strategy; {spec} is a server's")
        url, model = split_server(spec)
        model, options = chat_options(model, role)
        manner = [options.prompt] if options.prompt != default_prompt(role) else []
        examples, print_of_examples = None, ""
        if options.examples is not None:
            moments, digest = read_moments(options.examples, role, catalog)
            examples = partial(moments.examples, num=options.num_examples)
            print_of_examples = f" examples {digest}"
            manner.append(f"{options.num_examples} examples")
        form = ChatFormat(catalog.domain, options.prompt, examples=examples)
        filled, print_of = slots_of(flags, None, catalog, constrained=constrained, reasons=form.reasoning)
        backend = HttpBackend(url, model, max_concurrency=min(max_batch, MAX_CONCURRENCY))
        chat = ChatAgent(
            role,
            f"{model} ({', '.join(manner)})" if manner else model,
            form,
            backend,
            sampling,
            catalog,
            constrained=constrained,
            exclude_rejected=exclude_rejected,
            slots=filled,
        )
        fingerprint = f"{spec} prompts {prompts_digest()}{print_of_examples}{print_of}"
        return LoadedAgent(chat, None, fingerprint, options.prompt)
    if (baseline := load_baseline(spec, role, catalog, max_concurrency=max_batch)) is not None:
        agent, fingerprint = baseline
        return LoadedAgent(agent, None, fingerprint)
    from interplay.simulation.checkpoint import load_agent, require_role

    model_path = spec.removeprefix(VLLM)
    card = require_role(Path(model_path), role)
    if card.domain != catalog.domain.name and not any_domain:
        raise InputError(
            f"{spec} was trained on the {card.domain} domain; these scenarios are of the {catalog.domain.name} domain"
        )
    filled, print_of = slots_of(flags, card, catalog, constrained=constrained)
    if flags is None or flags.strategy is None:
        cues, print_of_cues = cues_of(
            asked, card, Path(model_path), catalog, constrained=constrained, in_process=model_path == spec
        )
    else:
        cues, print_of_cues = strategies_of(flags.strategy, card, Path(model_path))
    trained, _ = load_agent(
        Path(model_path),
        role,
        sampling=sampling,
        catalog=catalog,
        max_batch=max_batch,
        memory_gib=memory_gib,
        kv_cache=kv_cache,
        constrained=constrained,
        exclude_rejected=exclude_rejected,
        slots=filled,
        cues=cues,
        length_tolerance=asked.tolerance,
        engine="local" if model_path == spec else "vllm",
    )
    return LoadedAgent(
        trained, card.with_persona, f"{spec} {content_hash(card.model_dump(mode='json'))}{print_of}{print_of_cues}"
    )


def degrade(good: LoadedAgent | None, fault: Fault, catalog: Catalog) -> LoadedAgent:
    """A recommender with a fault and the turns of a good one, which it shares with it.

    Args:
        good: whose turns; None: its own.
        fault: what is wrong with it.
        catalog: what it recommends from.
    """
    from interplay.simulation.rule_recommender import RuleRecommender

    spec = f"{DEGRADED}{fault.value}"
    if good is None:
        return LoadedAgent(DegradedAgent(fault, catalog), None, spec)
    if isinstance(good.agent, RuleRecommender):
        rules = RuleRecommender(catalog, name=f"{spec}:{good.agent.name}", choice=WrongChoice(fault, catalog))
        return LoadedAgent(rules, good.with_persona, f"{spec}:{good.fingerprint}", good.prompt)
    agent = DegradedAgent(fault, catalog, good.agent)
    return LoadedAgent(agent, good.with_persona, f"{spec}:{good.fingerprint}", good.prompt)


def with_noise(user: LoadedAgent, rate: float) -> LoadedAgent:
    """A user simulator whose verdicts are turned round at a rate: see `noise.NoisyUser`.

    Raises:
        ConfigError: the rate is no share.
    """
    return LoadedAgent(NoisyUser(user.agent, rate), user.with_persona, f"{NOISE}{rate:g}:{user.fingerprint}", user.prompt)


def ensemble_of(users: Sequence[LoadedAgent]) -> LoadedAgent:
    """Several user simulators as one, of which each conversation draws one: see `ensemble.Ensemble`. One is left as it is.

    Raises:
        ConfigError: two have one name, or some are told the target and others are not.
    """
    from interplay.simulation.ensemble import Ensemble

    if len(users) == 1:
        return users[0]
    agent = Ensemble([user.agent for user in users])
    return LoadedAgent(agent, None, f"ensemble of {', '.join(user.fingerprint for user in users)}")


def ranker_at(spec: str, catalog: Catalog) -> "tuple[Path, ItemRanker]":
    """The ranker that ranker:PATH names, and its path.

    Raises:
        InputError: it is written otherwise, there is none, or it ranks another catalog.
    """
    from interplay.items.ranker import ItemRanker

    if not spec.startswith(RANKER):
        raise ConfigError(f"--knowledge takes ranker:PATH, a ranker made by interplay items train-ranker; got {spec}")
    path = Path(spec.removeprefix(RANKER))
    return path, ItemRanker.read(path, catalog)


def slots_of(
    flags: SlotFlags | None,
    card: "CheckpointCard | None",
    catalog: Catalog,
    *,
    constrained: bool,
    reasons: bool = False,
) -> "tuple[Slots | None, str]":
    """The slots that flags and a trained model's card ask for.

    Args:
        flags: what was asked for.
        card: of a trained model; None for a server's.
        catalog: what is recommended.
        constrained: whether the model is held to a format.
        reasons: whether a server's model reasons; a trained one's card says so.

    Returns:
        The slots, None where all are empty; and what to add to the agent's fingerprint.

    Raises:
        InputError: they can't be had, or the model was not trained for them.
    """
    from interplay.simulation.facets import FacetIndex
    from interplay.simulation.slots import NUM_CANDIDATES, Knowledge, Retriever, Slots
    from interplay.simulation.wishes_first import WishesFirst

    flags = flags or SlotFlags()
    trained = card.knowledge if card is not None else None
    spec = flags.knowledge or (f"{RANKER}{trained.ranker}" if trained is not None else None)
    only_candidates, only_first = flags.knowledge_form == "titles", flags.knowledge_form == "first"
    if only_first and (card is None or not card.reasoning):
        raise ConfigError(
            "--knowledge-form first lets a recommender name the first of its own list, and this one writes none: "
            "train one with interplay train recommender --reasoning"
        )
    if only_candidates and spec is None:
        raise ConfigError("--knowledge-form titles limits titles to candidates: pass --knowledge ranker:PATH with it")
    if flags.num_candidates and spec is None:
        raise ConfigError("--num-candidates are candidates of a ranker: pass --knowledge ranker:PATH with it")
    if flags.match_wishes and spec is None:
        raise ConfigError("--match-wishes orders the candidates of a ranker: pass --knowledge ranker:PATH with it")
    if not constrained and (only_candidates or only_first or (flags.guidance and card is not None)):
        raise ConfigError("titles and actions are limited by constrained decoding: leave out --no-constrained")
    if spec is not None and card is not None and trained is None and not only_candidates:
        raise ConfigError(
            "this recommender was trained without candidates and would not know what they are: pass --knowledge-form titles, "
            "or train one with interplay train recommender --knowledge"
        )
    knowledge, prints = None, ""
    if flags.knowledge is None and trained is not None and not trained.ranker.is_dir():
        raise ConfigError(
            f"this recommender was trained with candidates of {trained.ranker}, where no ranker is now: "
            "pass --knowledge ranker:PATH"
        )
    if spec is not None:
        path, ranker = ranker_at(spec, catalog)
        number = flags.num_candidates or (trained.num_candidates if trained is not None else NUM_CANDIDATES)
        reasoner = None
        if reasons or (card is not None and card.reasoning):
            from interplay.simulation.reasoning import KINDS, Reasoner

            reasoner = (
                Reasoner(catalog, KINDS)
                if card is None or trained is None
                else Reasoner(catalog, trained.attributes, card.list_length)
            )
        retriever: Retriever = ranker
        if flags.match_wishes:
            index = FacetIndex(catalog) if reasoner is None else reasoner.index
            retriever = WishesFirst(ranker, index, flags.match_wishes)
        knowledge = Knowledge(retriever, catalog, number, reasoner)
        prints += f" knowledge {path} {content_hash(ranker.card)} {number} {flags.knowledge_form}"
        prints += f" wishes among {flags.match_wishes}" if flags.match_wishes else ""
    guidance = None if flags.guidance is None else guidance_of(flags.guidance)
    prints += f" guidance {flags.guidance}" if flags.guidance else ""
    if knowledge is None and guidance is None:
        return None, ""
    in_view = knowledge is not None and (trained is not None if card is not None else not only_candidates)
    return Slots(knowledge, in_view, only_candidates, guidance, only_first), prints


def require_recommender_for(flags: SlotFlags, role: Role) -> None:
    """Raises ConfigError where slots are asked for and the only agent is a user."""
    if role is Role.USER and flags.is_set:
        raise ConfigError(
            "--knowledge with its form, --num-candidates and --match-wishes, --guidance and --strategy are slots of a "
            "recommender: pass --recommender with them"
        )


def agenda_talk(spec: str) -> AgendaTalk:
    """How holistic the user of `agenda?several=0.3&small_talk=0.2&off_topic=0.1` talks.

    Raises:
        ConfigError: it is written otherwise, or a share is none.
    """
    given = dict(parse_qsl(spec.partition("?")[2], keep_blank_values=True))
    try:
        return AgendaTalk.model_validate(given)
    except ValidationError as error:
        accepted = ", ".join(AgendaTalk.model_fields)
        raise ConfigError(f"{spec}: {first_problem(error)}; shares of {accepted} are accepted, each 0 to 1") from None


def strategies_of(spec: str, card: "CheckpointCard", path: Path) -> "tuple[tuple[CueSource, ...], str]":
    """What tells a trained recommender which strategy to use, and what to add to the agent's fingerprint.

    Raises:
        InputError: it was trained without, or `spec` is written otherwise.
    """
    from interplay.simulation.strategy_cues import STRATEGY, strategy_cues

    if STRATEGY not in card.cues:
        raise ConfigError(
            f"{path} was trained without strategies, so nothing tells it of them: leave out --strategy, or train one with "
            "interplay train recommender --cues strategy on a corpus with labels"
        )
    source, seen = strategy_cues(spec)
    return (source,), f" strategy {seen}"


def cues_of(
    flags: ControlFlags, card: "CheckpointCard", path: Path, catalog: Catalog, *, constrained: bool, in_process: bool
) -> "tuple[tuple[CueSource, ...], str]":
    """What tells a trained model of itself and of its turns.

    Args:
        flags: what was asked for; of a user.
        card: the model's.
        path: where it lies, with what people were like beside it.
        catalog: what is talked about.
        constrained: whether it is held to a format.
        in_process: whether it runs in this process; other engines know the format's grammar, which counts no words.

    Returns:
        The sources, none for a model that was trained without cues; and what to add to the agent's fingerprint.

    Raises:
        InputError: it was trained without a cue that is fixed, or what people were like is missing.
    """
    from interplay.simulation.beliefs import BeliefCues
    from interplay.simulation.control import Control, read_counts
    from interplay.simulation.facets import FacetIndex
    from interplay.simulation.fit import FitCues

    lengths = [LENGTH] if flags.length or flags.tolerance is not None else []
    unknown = [kind for kind in (*flags.fixed, *lengths) if kind not in card.cues]
    if unknown:
        raise ConfigError(
            f"{path} was trained {'with ' + ', '.join(card.cues) if card.cues else 'without cues'}, so nothing tells it of "
            f"{' or '.join(unknown)}: leave out --control.{unknown[0]}, or train one with interplay train user --cues all"
        )
    if flags.tolerance is not None and not constrained:
        raise ConfigError("--control.tolerance holds turns to a length by constrained decoding: leave out --no-constrained")
    if flags.tolerance is not None and not in_process:
        raise ConfigError(f"--control.tolerance is for models in this process: pass --user {path}, without {VLLM}")
    state: tuple[CueSource, ...] = ()
    if card.role is Role.USER:
        beliefs = [BeliefCues(FacetIndex(catalog))] if BELIEF in card.cues else []
        state = (*beliefs, *([FitCues(catalog)] if FIT in card.cues else []))
    if card.role is not Role.USER or not set(card.cues) & {*SESSION_CUES, *TURN_CUES[Role.USER]}:
        return state, ""
    counts = read_counts(path) if flags.policy == "learned" else None
    seen = None if counts is None else counts.model_dump(mode="json")
    return (Control(card.cues, flags, counts), *state), f" control {content_hash([flags.model_dump(mode='json'), seen])}"


def guidance_of(spec: str) -> "Guidance":
    """The policy that --guidance names.

    Raises:
        InputError: it is written otherwise, or there is no such data directory.
    """
    from interplay.simulation.guidance import AskFirst, LoggedPolicy

    if spec.startswith(ASK) and spec.removeprefix(ASK).isdecimal():
        return AskFirst(int(spec.removeprefix(ASK)))
    if spec.startswith(LOGS):
        from interplay.corpora.corpus import Corpus

        corpus = Corpus.read(Path(spec.removeprefix(LOGS)))
        return LoggedPolicy(dialogue for _, dialogue in corpus.pairs(Split.TRAIN))
    raise ConfigError(f"--guidance takes ask:N (a number of questions) or logs:DATA (a data directory); got {spec}")


def split_server(spec: str) -> tuple[str, str]:
    """The base URL (or several, with commas between them) and the model's name of URL#MODEL.

    Raises:
        InputError: it names no model. The URL is not repeated: a password may stand in it.
    """
    url, _, model = spec.partition("#")
    if not model:
        raise InputError("a server is given without a model; write URL#MODEL, for example http://localhost:8000/v1#my-model")
    return url, model
