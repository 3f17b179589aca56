"""Whether a trained user tells the gold item from another: `python benchmarks/telling_apart.py MODEL DATA [--num 300]`.

For each conversation with a gold item, the history up to a turn of the recommender, then an offer of the gold item or, in its
place, of the gold item of another conversation (`training.user_tasks`: nothing that has all the user looks for). Printed is the
share of conversations in which the model finds an accept likelier after the gold item than after the other (AUC by pairs; .5 is
chance), and how likely an accept is after each, with the tag of the feedback task before the offer, without it, which is how
simulation asks, and without it for a user with the wishes of somebody else.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from interplay.config import UserTasks
from interplay.corpora.corpus import Corpus
from interplay.formats.tags import ACTION_OPEN, TASK_TAGS, action_tag
from interplay.formats.tokens import TokenFormat
from interplay.simulation.checkpoint import load_form, read_card
from interplay.training.user_tasks import RowMaker, TaskCounts, gold_conversations, shown_turn
from interplay.types import ACTIONS, Action, Role, Split, Turn, View


@torch.no_grad()
def accept(model: Any, form: TokenFormat, view: View, offer: Turn, *, tagged: bool) -> tuple[float, float]:
    """The log-odds of an accept among the user's actions after an offer, and its probability."""
    ids = [*form.render(view).ids, *([form.tag_id(TASK_TAGS["feedback"])] if tagged else [])]
    ids += form.opening_ids(Role.RECOMMENDER) + form.turn_ids(offer) + form.note_ids(view, offer)
    ids += [*form.opening_ids(Role.USER), form.tag_id(ACTION_OPEN)]
    logits = model(torch.tensor([ids])).logits[0, -1].float()
    actions = ACTIONS[Role.USER]
    shares = torch.log_softmax(logits[[form.tag_id(action_tag(action)) for action in actions]], -1)
    likely = float(shares[actions.index(Action.ACCEPT)].exp())
    return float(torch.logit(torch.tensor(likely), eps=1e-6)), likely


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--num", type=int, default=300, help="conversations")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--described", action="store_true", help="offers tell genres, decade and more beside the title")
    args = parser.parse_args()
    form = load_form(args.model, card := read_card(args.model))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    golds = gold_conversations([Corpus.read(args.data)], Split(args.split), TaskCounts())
    rng = random.Random(args.seed)
    maker = RowMaker(form, UserTasks(), golds, TaskCounts())
    cases: list[tuple[View, Turn, Turn]] = []
    for gold in rng.sample(golds, len(golds)):
        view = gold.view(rng.choice(gold.cuts))
        others = maker.others(gold, view, 1, rng)
        if others and len(cases) < args.num:
            noun, state = gold.catalog.domain.noun, rng.random()
            offers = (
                shown_turn([item], noun, random.Random(state), is_described=args.described) for item in (gold.item, others[0])
            )
            cases.append((view, *offers))
    wishes = [view.target_attributes for view, _, _ in cases]
    forms = [("without the tag", False, False), ("without it, wishes of another", False, True)]
    if "feedback" in card.tasks:
        forms.insert(0, ("with the tag", True, False))
    for name, tagged, is_swapped in forms:
        wins, first, second = 0.0, [], []
        for place, (view, *offers) in enumerate(cases):
            seen = replace(view, target_attributes=wishes[place - 1]) if is_swapped else view
            (right, likely), (wrong, unlikely) = (accept(model, form, seen, offer, tagged=tagged) for offer in offers)
            wins += (right > wrong) + 0.5 * (right == wrong)
            first.append(likely)
            second.append(unlikely)
        n = len(cases)
        print(f"{name}: AUC {wins / n:.3f}, P(accept) gold {sum(first) / n:.3f}, other {sum(second) / n:.3f}, n {n}")


if __name__ == "__main__":
    main()
