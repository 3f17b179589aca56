"""`interplay optimize`: a trained recommender is improved against user simulators and measured with others."""

import random
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from interplay.cli.matrix import agent_names
from interplay.cli.pipeline import check_servers, close, empty_split
from interplay.cli.progress import Progress
from interplay.config import OptimizeConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError, DataError
from interplay.simulation.agents import is_told_target
from interplay.simulation.noise import without_noise
from interplay.simulation.specs import LoadedAgent, ensemble_of, load_from_spec, with_noise
from interplay.types import Catalog, Dialogue, Role, Scenario, Split, Turn, content_hash, derive_seed

if TYPE_CHECKING:
    from interplay.evaluation.strategies import StrategyClassifier

HUMAN = "human"
"""Name of a speaker of logs who is a person."""


def require_held_out(config: OptimizeConfig) -> None:
    """Make sure that what is claimed can be proved: at least two simulators that are not trained against.

    Raises:
        ConfigError: there are fewer, one is given twice, or one is trained against.
    """
    trained = {without_noise(spec) for spec in config.users}
    both = [spec for spec in config.held_out if without_noise(spec) in trained]
    if both:
        raise ConfigError(f"{both[0]} is among --users and --held-out; a simulator that is trained against proves nothing")
    twice = [spec for spec, number in Counter(map(without_noise, config.held_out)).items() if number > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice with --held-out")
    if len(config.held_out) < 2:
        raise ConfigError(
            f"{len(config.held_out)} held-out simulators were given; give at least two with --held-out, none of them among "
            "--users: a reward that rises with the simulators it is trained against may be nothing but their weakness"
        )


def load_user(spec: str, config: OptimizeConfig, catalog: Catalog) -> LoadedAgent:
    """A user simulator.

    Raises:
        InputError: as `load_from_spec`.
    """
    return load_from_spec(
        spec,
        Role.USER,
        sampling=config.user_sampling,
        catalog=catalog,
        max_batch=config.concurrency,
        memory_gib=config.memory_gib,
        constrained=config.constrained,
    )


def logs_of_people(corpus: Corpus, split: Split, num: int) -> list[tuple[Scenario, Dialogue]]:
    """The first logs of a split in which two people speak."""
    pairs = (pair for pair in corpus.pairs(split) if pair[1].user == HUMAN and pair[1].recommender == HUMAN)
    return list(islice(pairs, num))


def turns_of_people(corpus: Corpus, config: OptimizeConfig) -> list[str]:
    """What recommenders who are people said in some logs of the training split, drawn by the seed.

    Raises:
        DataError: there is none.
    """
    talks = [dialogue for _, dialogue in corpus.pairs(Split.TRAIN) if dialogue.recommender == HUMAN]
    if len(talks) > config.realism_dialogues:
        talks = random.Random(derive_seed(config.seed, "people")).sample(talks, config.realism_dialogues)
    found = [turn.text for dialogue in talks for turn in dialogue.turns if turn.role is Role.RECOMMENDER]
    if not found:
        raise DataError(
            f"the reward realism learns what people say, and the train split of {config.human or config.data} has no turn of a "
            "recommender who is a person; give logs of people with --human, or set rewards.weights.realism to 0"
        )
    return found


def read_classifier(config: OptimizeConfig) -> "StrategyClassifier | None":
    """The judge of `sociability`, where that is rewarded.

    Raises:
        ConfigError: it is rewarded and has no judge, or the reverse.
        DataError: there is no such classifier.
    """
    if config.strategies is None:
        if config.rewards.weights.sociability:
            raise ConfigError(
                "the reward sociability needs a classifier of strategies: give one with --strategies DIR, made by interplay "
                "evaluate train-strategies --out DIR, or set rewards.weights.sociability to 0"
            )
        return None
    if not config.rewards.weights.sociability:
        raise ConfigError("--strategies is asked by the reward sociability alone; give --rewards.weights.sociability too")
    from interplay.evaluation.strategies import StrategyClassifier

    return StrategyClassifier.read(config.strategies)


def latest_strategies(classifier: "StrategyClassifier", turns: tuple[Turn, ...]) -> Collection[str]:
    """The strategies of the last turn, a recommender's."""
    return classifier.predict([turns])[0][-1]


def optimize(config: OptimizeConfig) -> int:
    """`interplay optimize`.

    Raises:
        InputError: see `policy_gradient.optimise`; or the simulators prove nothing, a split is empty, or a reward has no judge.
    """
    require_held_out(config)
    from interplay.evaluation.exposure import recommended_counts
    from interplay.evaluation.held_out_users import Bench, measure
    from interplay.metrics.exposure import popularity_ranks
    from interplay.simulation.batch import Plan
    from interplay.simulation.dialogue import Limits
    from interplay.training.policy_gradient import Environment, Measured, optimise
    from interplay.training.rewards.judges import PolicyDiscriminator
    from interplay.training.rewards.scoring import Judges, Rewards

    classifier = read_classifier(config)
    corpus = Corpus.read(config.data)
    catalog = corpus.catalog
    scenarios = [s for s in corpus.scenarios if s.split is Split(config.split)]
    measured_on = [s for s in corpus.scenarios if s.split is Split(config.check_split)][: config.check_dialogues]
    if not scenarios:
        raise empty_split(config.split, config.data)
    if not measured_on:
        raise DataError(f"the {config.check_split} split of {config.data} holds no scenario; choose another with --check-split")
    logs = corpus if config.human is None else Corpus.read(config.human)
    human = logs_of_people(logs, Split(config.check_split), config.check_dialogues)
    people = turns_of_people(logs, config) if config.rewards.weights.realism else []
    realism = PolicyDiscriminator(people) if people else None
    judges = Judges(p_human=realism)
    if classifier is not None:
        judges = Judges(p_human=realism, strategies=partial(latest_strategies, classifier))
    rewards = Rewards(config.rewards, judges=judges)
    counts = recommended_counts((dialogue for _, dialogue in corpus.pairs(Split.TRAIN)), catalog)
    popularity = None if counts is None else popularity_ranks(counts).tolist()
    users = [load_user(spec, config, catalog) for spec in config.users]
    held_out = [load_user(spec, config, catalog) for spec in config.held_out]
    told = [loaded.agent.name for loaded in (*users, *held_out) if is_told_target(loaded.agent)]
    if told:
        raise ConfigError(f"{told[0]} is told its target, so what it accepts says little; choose another simulator")
    user = ensemble_of([with_noise(loaded, config.noise) if config.noise else loaded for loaded in users])
    bench = Bench(
        training=(user.agent.name, user.agent),
        held_out=[(name, loaded.agent) for name, loaded in zip(agent_names(config.held_out), held_out, strict=True)],
        scenarios=measured_on,
        human=human,
        human_name=logs.name,
        catalog=catalog,
        plan=Plan(
            seed=derive_seed(config.seed, "check"),
            concurrency=config.concurrency,
            limits=Limits(config.max_turns, config.max_repeats),
        ),
    )
    names = ", ".join(name for name, _ in bench.held_out)
    logged = f"{len(human)} logs of people" if human else "no logs of people (--human)"
    print(
        f"{len(scenarios)} scenarios to train on, with {user.agent.name}; measured on {len(measured_on)} with {names}; {logged}"
    )

    async def check(step: int, policy: Any, with_persona: bool) -> Measured:
        if step == 0:
            await check_servers(user, *users, *held_out)
        checks, dialogues = await measure(step, policy, bench, with_persona=with_persona)
        return Measured(tuple(checks), tuple(dialogues))

    environment = Environment(
        scenarios=scenarios,
        catalog=catalog,
        user=user.agent,
        rewards=rewards,
        check=check,
        record={
            "agents": {"users": [u.fingerprint for u in users], "held_out": [u.fingerprint for u in held_out]},
            "data_digest": corpus.digest,
            "judges": {
                "people": content_hash(people) if people else None,
                "strategies": None if classifier is None else classifier.card.fingerprint,
            },
        },
        close=partial(close, *users, *held_out),
        popularity=None if popularity is None else dict(zip((item.id for item in catalog), popularity, strict=True)),
        realism=realism,
    )
    with Progress("optimize", config.steps, "rounds") as progress:
        summary = optimise(config, environment, on_progress=partial(_show, progress))
    _print_summary(config, summary)
    return 0


def _show(progress: Progress, step: int, steps: int, line: Mapping[str, Any]) -> None:
    shown = ("reward", "success", "acceptance", "turns", "kl")
    progress.update(step, "  ".join(f"{name} {line[name]:.3g}" for name in shown if line[name] is not None))


def _print_summary(config: OptimizeConfig, summary: Mapping[str, Any]) -> None:
    generating, training = summary["seconds_generating"], summary["seconds_training"]
    print(
        f"{summary['rounds']} rounds, {summary['conversations']} conversations, {generating + training:.0f} s: "
        f"{generating / max(generating + training, 1e-9):.0%} generating, the rest training"
    )
    if summary["num_flat"] or summary["num_missing"]:
        print(
            f"  {summary['num_flat']} of {summary['num_groups']} groups had equal rewards and taught nothing; "
            f"{summary['num_missing']} conversations have no reward"
        )
    print(f"written to {config.out}")
