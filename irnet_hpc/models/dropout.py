"""Compute dropout as a pure function of seed, step, position in the global batch, and column.

torch's own dropout draws from one stream of random numbers per process. Two ranks would then drop
different values from one rank, and a resumed run would drop different values from an uninterrupted
one. Here each random number is computed from its index. Each rank computes only the numbers of its
own rows, a checkpoint need not store any, and every device gets the same numbers.
"""

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 2**16  # values of a random number, so a rate is exact to 1 in 65,536


def split_mix(state: int | Tensor, index: Tensor) -> Tensor:
    """Compute the outputs of SplitMix64 at the positions `index` (int64, from 0), as int64.

    This is the generator of Steele, Lea and Flood (2014), started from the uint64 `state`, or from
    a tensor of such states as int64. int64 wraps around as uint64 does; its >> copies the sign,
    which is masked off.
    """
    begin = state if isinstance(state, Tensor) else _signed(state)
    z = (index + 1).mul_(_signed(0x9E3779B97F4A7C15)) + begin
    z.bitwise_xor_((z >> 30).bitwise_and_((1 << 34) - 1)).mul_(_signed(0xBF58476D1CE4E5B9))
    z.bitwise_xor_((z >> 27).bitwise_and_((1 << 37) - 1)).mul_(_signed(0x94D049BB133111EB))
    return z.bitwise_xor_((z >> 31).bitwise_and_((1 << 33) - 1))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def noise_state(seed: int, step: int) -> int:
    """Return the state, as a signed integer, from which the noise of a training step is drawn."""
    return _signed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))


def drawn_noise(states: Tensor, rows: slice, n_columns: int) -> Tensor:
    """Draw the random numbers of a training step from the states of K replicas.

    The states are a tensor, so that a CUDA graph can be replayed with other states.

    Args:
        states: (K,) int64, see `noise_state`.
        rows: the rows of the global batch.
        n_columns: the numbers per row.

    Returns:
        (K, n_rows, n_columns) int16, uniform over all 65,536 values.
    """
    n_words = -(-n_columns // 4)  # a row: each word holds four numbers
    index = torch.arange(rows.start * n_words, rows.stop * n_words, device=states.device)
    words = split_mix(states.unsqueeze(1), index)
    return words.view(torch.int16).view(len(states), -1, 4 * n_words)[..., :n_columns]


def dropout_noise(
    seed: int, step: int, rows: slice, n_columns: int, device: torch.device
) -> Tensor:
    """Compute the random numbers of a training step.

    Args:
        seed: the seed of the run.
        step: the number of the step.
        rows: the rows of the global batch.
        n_columns: the numbers per row.
        device: where to compute.

    Returns:
        (n_rows, n_columns) int16, uniform over all 65,536 values.
    """
    return drawn_noise(torch.tensor([noise_state(seed, step)], device=device), rows, n_columns)[0]


class Dropout(nn.Module):
    """Set values to 0 with probability `rate`, and scale up the others (Srivastava et al. 2014).

    Without noise, the values stay unchanged.
    """

    def __init__(self, rate: float, columns: slice) -> None:
        super().__init__()
        n_dropped = round(rate * LEVELS)
        self.columns = columns  # those of the noise
        self.lowest_kept = n_dropped - LEVELS // 2
        self.scale = LEVELS / (LEVELS - n_dropped)

    def forward(self, x: Tensor, _groups: object, noise: Tensor | None) -> Tensor:
        """Drop values of x (..., n_rows, width), given noise (..., n_rows, n_noise)."""
        if noise is None:
            return x
        kept = noise[..., self.columns] >= self.lowest_kept
        # A third of the time of torch.where, forward and backward.
        return x * kept.to(x.dtype) * self.scale
