"""Random draws that depend on what is drawn, never on when: the same for every split of a batch, and on resume."""

from __future__ import annotations

import torch


def _mix(values: torch.Tensor) -> torch.Tensor:
    """An integer hash with full avalanche (the lowbias constants of C. Wellons), on 32-bit values held in int64."""
    values = (values ^ (values >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    values = (values ^ (values >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return values ^ (values >> 16)


def keyed_uniform(seed: int, step: int, rows: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    """
    Uniform numbers in [0, 1), each a hash of (seed, step, row, stream): float32, multiples of 2**-24.

    A generator's state depends on how many numbers were drawn before, so on micro-batches, processes and
    interruptions. These numbers do not: the paper's draws of confusing labels become part of no checkpoint, and one
    global batch gives the same step however it is split.

    `rows` are indices of examples in the training data; `streams`, of a shape that broadcasts with them, say what is
    drawn: the index of a label whose confuser is drawn, or T for the drawing of a label itself.
    """
    key = _mix(torch.tensor([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, step], dtype=torch.int64))
    key = _mix(key[0] ^ _mix(key[1] ^ _mix(key[2] + 0x9E3779B9 & 0xFFFFFFFF)))
    key = key.to(rows.device)
    bits = _mix(_mix(streams + 0x9E3779B9 & 0xFFFFFFFF) ^ _mix(rows ^ key)) >> 8  # 24 bits, what a float32 holds
    return bits.to(torch.float32) * 2.0**-24
