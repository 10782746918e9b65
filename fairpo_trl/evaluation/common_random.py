"""Common random numbers for sampling text: noise that depends on *what* is drawn, never on *when*.

Two models are compared with less noise if they share their random numbers. A generator's state depends on how many
numbers were drawn before, hence on batch composition and on when other rows ended. Here every number is a hash of
(seed, prompt index, sample index, position, token id), so it is the same for every model, batch size and device.
"""

import numpy as np
from numpy.typing import NDArray


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit integers with full avalanche."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _absorb(state: NDArray[np.uint64], values: NDArray[np.integer]) -> NDArray[np.uint64]:
    return _mix(state ^ _mix(np.asarray(values).astype(np.uint64)))


def row_keys(
    seed: int, prompt_indices: NDArray[np.integer], sample_indices: NDArray[np.integer]
) -> NDArray[np.uint64]:
    """
    One 64-bit key per row, `[rows]`, the identity of that row's stream of random numbers.

    Args:
        seed (`int`):
            Any integer (taken modulo 2**64).
        prompt_indices, sample_indices (`NDArray[np.integer]`):
            `[rows]`, index of the prompt in the list given by the user, and which sample of it.
    """
    state = _mix(np.full(np.shape(prompt_indices), seed % 2**64, dtype=np.uint64))
    return _absorb(_absorb(state, prompt_indices), sample_indices)


def gumbel_noise(keys: NDArray[np.uint64], position: int, token_ids: NDArray[np.integer]) -> NDArray[np.float64]:
    """
    Standard Gumbel noise for candidate tokens: the argmax of logits plus this noise is a draw from the softmax.

    A token's noise does not depend on its rank or on the other candidates, so two similar models, which rank similar
    candidates, mostly pick the same token.

    Args:
        keys (`NDArray[np.uint64]`):
            `[rows]` from [`row_keys`].
        position (`int`):
            Index of the token within the completion, from 0.
        token_ids (`NDArray[np.integer]`):
            `[rows, candidates]`, the shape of the noise, which is finite.
    """
    state = _absorb(keys, np.full(keys.shape, position))
    bits = _absorb(state[:, None], token_ids) >> np.uint64(11)  # 53 bits, what a double holds
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
    return -np.log(-np.log(uniform))
