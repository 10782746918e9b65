"""Where the tokens of preference pairs go when every pair is one sequence: `shared prefix | chosen | rejected`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch


# Attention over a whole row costs row^2, padding at the end of rows costs tokens: at this length of a row the mask
# costs about as much as the linear layers (a CPU, SmolLM2-135M; longer for larger models). Only speed depends on it.
_EVEN_ROW = 1500


class PackedPairs(NamedTuple):
    """
    Layout of `P` pairs in `R` rows of `T` tokens; what is not a token of a pair is padding.

    Attributes:
        source (`torch.Tensor`): Which token of the flattened batch `[2B * W]` lies here, `[R, T]`.
        positions (`torch.Tensor`): Position of the token in its own sequence, `[R, T]`: both completions go on from
            the end of the prefix.
        pair (`torch.Tensor`): Number of the pair, `[R, T]`; -1 for padding.
        branch (`torch.Tensor`): 0 for the shared prefix, 1 for chosen, 2 for rejected, `[R, T]`.
        head (`torch.Tensor`): Places in the flattened rows `[R * T]` that predict a completion token, `[M]`.
        predicted (`torch.Tensor`): For each of them the place of its prediction in the flattened plain layout
            `[2B * (W - 1)]`, `[M]`.
    """

    source: torch.Tensor
    positions: torch.Tensor
    pair: torch.Tensor
    branch: torch.Tensor
    head: torch.Tensor
    predicted: torch.Tensor

    def to(self, device: torch.device) -> PackedPairs:
        """The same on another device."""
        return PackedPairs(*(tensor.to(device, non_blocking=True) for tensor in self))


def pair_spans(batch: Mapping[str, Any]) -> list[list[int]] | None:
    """
    The lengths that a layout needs, as plain numbers: they are taken in the collator, on the CPU, so that a device is
    never waited for.

    The prefix is what both sequences begin with: the prompt and the first words of the completions that are equal, or
    less where `truncation_mode="keep_end"` cut the two prompts differently.

    Args:
        batch (`Mapping[str, Any]`):
            `input_ids`, `attention_mask`, `completion_mask`, each `[2B, W]`, chosen first.

    Returns:
        `list[list[int]]` or `None`: for each pair the length of the prefix, then length of the sequence and of its
        completion for chosen, and both for rejected; `None` if the rows are padded elsewhere than at their end.
    """
    ids, attended = batch["input_ids"], batch["attention_mask"].bool()
    completion = batch["completion_mask"].bool()
    lengths, tails = attended.sum(dim=1), completion.sum(dim=1)  # [2B]
    places = torch.arange(ids.size(1), device=ids.device)
    at_end = completion == ((places >= (lengths - tails).unsqueeze(1)) & (places < lengths.unsqueeze(1)))
    if not (bool((attended == (places < lengths.unsqueeze(1))).all()) and bool(at_end.all())):
        return None
    (chosen, rejected), (chosen_mask, rejected_mask) = ids.chunk(2), attended.chunk(2)
    same = (chosen == rejected) & chosen_mask & rejected_mask  # [B, W]
    shared = same.long().cumprod(dim=1).sum(dim=1)  # [B]
    columns = (shared, *(x for both in zip(lengths.chunk(2), tails.chunk(2), strict=True) for x in both))
    return torch.stack(columns, dim=1).tolist()


def pack_pairs(spans: Sequence[Sequence[int]], width: int, pairs: Sequence[int]) -> PackedPairs:
    """
    Lays out some pairs of a batch, on the CPU.

    Args:
        spans (`Sequence[Sequence[int]]`):
            [`pair_spans`] of the whole batch of `B` pairs.
        width (`int`):
            W, tokens in a row of the plain layout.
        pairs (`Sequence[int]`):
            Which pairs of the batch to lay out.

    Returns:
        `PackedPairs`
    """
    sizes = {pair: spans[pair][1] + spans[pair][3] - spans[pair][0] for pair in pairs}
    rows = _fill_rows(sizes)
    size = max(sum(sizes[pair] for pair in row) for row in rows)
    source = torch.zeros(len(rows), size, dtype=torch.long)
    positions, branch, owner = torch.zeros_like(source), torch.zeros_like(source), torch.full_like(source, -1)
    head, predicted = [], []
    for r, row in enumerate(rows):
        start = 0
        for pair in row:
            shared, chosen, chosen_tail, rejected, rejected_tail = spans[pair]
            owner[r, start : start + sizes[pair]] = pair
            own = start + shared  # where the first token of this completion lies
            for which, (length, tail) in enumerate(((chosen, chosen_tail), (rejected, rejected_tail))):
                line = pair + which * len(spans)  # row of the plain layout
                sequence = torch.arange(length)
                # Places of the whole sequence: the prefix, which both write alike, then this completion.
                places = torch.cat([sequence[:shared] + start, sequence[shared:] - shared + own])
                source[r, places], positions[r, places] = line * width + sequence, sequence
                branch[r, own : own + length - shared] = which + 1
                first = max(length - tail, 1)  # nothing predicts the first token of a sequence
                head.append(r * size + places[first - 1 : length - 1])
                predicted.append(line * (width - 1) + sequence[first - 1 : length - 1])
                own += length - shared
            start += sizes[pair]
    return PackedPairs(source, positions, owner, branch, torch.cat(head), torch.cat(predicted))


def _fill_rows(sizes: Mapping[int, int]) -> list[list[int]]:
    """Pairs by row: as many rows as make padding plus attention cheapest, the longest pairs placed first."""
    order = sorted(sizes, key=lambda pair: -sizes[pair])  # stable: ties keep the order of the batch
    best: tuple[float, list[list[int]]] = (float("inf"), [])
    for count in range(1, len(order) + 1):
        rows: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for pair in order:
            least = loads.index(min(loads))
            rows[least].append(pair)
            loads[least] += sizes[pair]
        longest = max(loads)
        cost = count * longest * (1 + longest / _EVEN_ROW)
        if cost < best[0]:
            best = (cost, [sorted(row) for row in rows])
    return best[1]


def attends(packed: PackedPairs, window: int | None = None) -> Callable[..., torch.Tensor]:
    """
    Whether a query sees a key: of the same pair, not later, and never of the other completion. In a layer with sliding
    attention (`window`) keys are at most that many positions back, the token itself included.

    Returns:
        `Callable`: (row, head, query, key) -> bool, of numbers or tensors that broadcast; as FlexAttention asks.
    """
    pair, branch, positions = packed.pair, packed.branch, packed.positions

    def mask_mod(row: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        allowed = (pair[row, query] == pair[row, key]) & (query >= key)
        allowed = allowed & ((branch[row, key] == 0) | (branch[row, key] == branch[row, query]))
        if window is not None:
            allowed = allowed & (positions[row, query] - positions[row, key] < window)
        return allowed

    return mask_mod


def may_attend(packed: PackedPairs, window: int | None = None) -> torch.Tensor:
    """[`attends`] of every token and every other, bool `[R, 1, T, T]` (query, key)."""
    rows, places = (torch.arange(length, device=packed.pair.device) for length in packed.pair.shape)
    return attends(packed, window)(rows.view(-1, 1, 1), 0, places.view(-1, 1), places).unsqueeze(1)
