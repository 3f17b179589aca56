"""How likely a model finds what the policy chose, under the constraint that it chose under.

Constrained decoding changes the distribution: a token is drawn from

    pi(a | h) = exp(z_a / T) / sum over allowed b of exp(z_b / T)

and not from the model's softmax over everything. A loss over the latter has the wrong gradient (it would teach the model the
grammar, which is enforced anyway, and have a ratio other than 1 at the old policy), so the logits of what was not allowed
are taken out here too. A token with a single allowed id has log-probability 0 and no gradient; it is no place of a Row.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from interplay.constraints import Allowed
from interplay.training.rollouts import Row

if TYPE_CHECKING:
    from torch import Tensor


class LogProbs(NamedTuple):
    """Natural log-probabilities at the places of some rows; both of shape (num_rows, most places), 0 where a row has fewer."""

    chosen: "Tensor"
    """Of the chosen ids, among those that were allowed."""
    free: "Tensor"
    """Of the same ids among all ids, as the sampler tells them; without gradient."""


def log_probs(model: Any, rows: Sequence[Row], *, temperature: float, padding: int) -> LogProbs:
    """One forward pass over some rows.

    Args:
        model: a causal language model, wrapped for training or not.
        rows: at least one.
        temperature: logits are divided by it, as in sampling; > 0.
        padding: an id to fill shorter rows with; what it is does not matter.
    """
    device = next(model.parameters()).device
    length = max(int(row.places[-1]) for row in rows)  # nothing is predicted from the last token
    ids = torch.full((len(rows), length), padding)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        read = min(len(row.ids), length)
        ids[index, :read] = torch.tensor(row.ids[:read])
        mask[index, :read] = 1
    before = [row.places - 1 for row in rows]
    wanted = np.unique(np.concatenate(before))  # a large vocabulary makes the logits the largest tensor by far
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        use_cache=False,
        logits_to_keep=torch.from_numpy(wanted).to(device),
    ).logits
    of_row = np.repeat(np.arange(len(rows)), [len(places) for places in before])
    column = np.searchsorted(wanted, np.concatenate(before))
    found = logits[torch.from_numpy(of_row).to(device), torch.from_numpy(column).to(device)].float() / temperature
    chosen_ids = torch.tensor([row.ids[place] for row in rows for place in row.places], device=device)[:, None]
    own = found.gather(-1, chosen_ids)[:, 0]
    with torch.no_grad():
        free = own - found.logsumexp(-1)
    forbidden = _forbidden([allowed for row in rows for allowed in row.allowed], found.shape[-1])
    limited = own - found.masked_fill(forbidden.to(device), float("-inf")).logsumexp(-1)
    within = np.concatenate([np.arange(len(places)) for places in before])
    where = torch.from_numpy(of_row).to(device), torch.from_numpy(within).to(device)
    zeros = torch.zeros((len(rows), max(len(places) for places in before)), device=device)
    return LogProbs(zeros.index_put(where, limited), zeros.index_put(where, free))


def _forbidden(allowed: Sequence[Allowed | None], vocab_size: int) -> "Tensor":
    """What may not be chosen: (num_choices, vocabulary), bool."""
    out = np.zeros((len(allowed), vocab_size), dtype=bool)
    for row, found in zip(out, allowed, strict=True):
        if found is None:
            continue
        if found.only:
            row[:] = True
        row[found.ids] = not found.only
    return torch.from_numpy(out)
