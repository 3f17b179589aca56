"""An output of `interplay optimize`, made up: for tests of what is read from it."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from interplay.store import CODE_VERSIONS, write_lines, write_records
from interplay.types import Action, Alarm, Check, CheckKind, Dialogue, Ending, Mention, Role, Scenario, Turn
from makers import ALIEN, CATALOG, HEAT, UP, scenario

SCENARIOS = [scenario(source_id=str(n), attributes=("crime", "tense")) for n in range(8)]
STEPS = 40


def offer(*titles: str) -> Turn:
    text, items = "How about ", []
    for place, title in enumerate(titles):
        text += " or " * bool(place)
        items.append(Mention(start=len(text), end=len(text) + len(title), item_id=CATALOG.find(title).id))
        text += title
    return Turn(role=Role.RECOMMENDER, action=Action.RECOMMEND, text=text + "? It has <b>crooks</b>.", items=tuple(items))


def talk(start: Scenario, user: str, *, good: bool) -> Dialogue:
    turns = [Turn(role=Role.RECOMMENDER, action=Action.GREETING, text="Hello! What would you like to watch?")]
    turns.append(Turn(role=Role.USER, action=Action.DISCLOSE_GOAL, text="Something tense with crooks & a heist, please."))
    noisy: tuple[int, ...] = ()
    if not good:
        for title in (UP.label, ALIEN.label):
            turns += [offer(title), Turn(role=Role.USER, action=Action.FEEDBACK, text="No, that is not what I meant at all.")]
        noisy = (3,)
    turns.append(offer(HEAT.label))
    turns.append(Turn(role=Role.USER, action=Action.ACCEPT, text="Oh yes, that sounds right. Thanks!"))
    return Dialogue(
        scenario_key=start.key,
        corpus="made",
        domain="movie",
        user=user,
        recommender="runs/recommender",
        seed=1,
        turns=tuple(turns),
        ending=Ending.ACCEPTED,
        noisy_turns=noisy,
    )


def made_output(
    path: Path,
    seed: int = 0,
    *,
    held_out: Sequence[str] = ("agenda", "runs/other-user"),
    human: bool = True,
    last: int = STEPS,
    drift: bool = False,
    few: bool = False,
) -> Path:
    """The directory of one seed; with `drift` it learns its simulator and nothing else, with `few` its steps log little."""
    rng = random.Random(seed)
    path.mkdir(parents=True)
    weights = {"format": 1.0, "recommend": 1.0, "success": 1.0, "acceptance": 0.0}
    config = {"recommender": "runs/recommender", "users": ["runs/user"], "held_out": list(held_out), "data": "data/made"}
    config |= {
        "algorithm": "turn",
        "noise": 0.1,
        "seed": seed,
        "rewards": {"weights": weights},
        CODE_VERSIONS: ["1.0+g1234567"],
    }
    write_lines(path / "optimize.json", [json.dumps(config, indent=1)])
    records = []
    for step in range(1, last + 1):
        learned = 1 - math.exp(-step / 15)
        terms = {
            "format": {"mean": 1.0, "paid": 1.0, "share": 0.5, "n": 64, "num_undefined": 0},
            "recommend": {"mean": 0.2 + 0.4 * learned, "paid": 0.2 + 0.4 * learned + rng.gauss(0, 0.03), "share": 0.3},
            "success": {"mean": 0.25 + 0.4 * learned, "paid": 0.25 + 0.4 * learned + rng.gauss(0, 0.04), "share": 0.2},
        }
        records.append(
            {
                "step": step,
                "reward": sum(term["paid"] for term in terms.values()),
                "terms": terms,
                "success": 0.25 + 0.4 * learned + rng.gauss(0, 0.05),
                "acceptance": min(1.0, 0.5 + 0.4 * learned + rng.gauss(0, 0.04)),
                "turns": 9 - 3 * learned + rng.gauss(0, 0.3),
                "words": 11 + rng.gauss(0, 0.4),
                "title_rate": 0.5 + 0.1 * learned,
                "repetition": 0.1,
                "mean_popularity_rank": 0.4 - 0.05 * learned,
                "off_catalog": 0.0,
                "format_valid": 1.0,
                "kl": None if step == 1 else 0.06 * learned,
                "num_flat": 1,
                "num_missing": 0,
                "num_conversations": 64,
                "seconds_generating": 2.0,
                "seconds_training": 1.0,
            }
        )
    if few:
        records = [{name: record[name] for name in ("step", "reward", "terms", "success", "kl")} for record in records]
    write_lines(path / "logs" / "steps.jsonl", [json.dumps(record) for record in records])
    checks = []
    for step in range(0, last + 1, 10):
        learned = 1 - math.exp(-step / 15)
        for kind, name, gain in (
            (CheckKind.TRAINING, "runs/user", 0.4),
            *((CheckKind.HELD_OUT, name, -0.15 if drift else 0.25) for name in held_out),
        ):
            value = 0.3 + gain * learned + rng.gauss(0, 0.02)
            low, high = value - 0.08, value + 0.08
            said = {"step": step, "simulator": name, "kind": kind, "n": 50}
            checks.append(Check(metric="simulation.success_rate", value=value, low=low, high=high, **said))
            turns = 9.0 if few else 9 - 3 * learned * (gain > 0)
            checks.append(Check(metric="simulation.turns_per_dialogue", value=turns, low=turns - 0.5, high=turns + 0.5, **said))
        if human:
            value = 0.15 + rng.gauss(0, 0.01)
            said = {"step": step, "simulator": "human", "kind": CheckKind.HUMAN, "metric": "recommendation.recall@10", "n": 90}
            checks.append(Check(value=value, low=value - 0.05, high=value + 0.05, **said))
    write_records(path / "logs" / "checks.jsonl", checks)
    says = "agenda, held out: simulation.success_rate 0.310 at step 0, now 0.190, while runs/user moved by +0.250"
    alarms = [Alarm(step=20, alarm="held-out-falls", value=0.12, limit=0.1, says=says)] if drift else []
    write_records(path / "alarms.jsonl", alarms)
    user = held_out[0] if held_out else "nobody"
    write_records(path / "before.jsonl", [talk(one, user, good=False) for one in SCENARIOS])
    write_records(path / "after.jsonl", [talk(one, user, good=not drift) for one in SCENARIOS])
    write_records(path / "scenarios.jsonl", SCENARIOS)
    return path
