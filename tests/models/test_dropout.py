"""Dropout: the published generator, fair numbers, and masks that do not depend on ranks."""

import numpy as np
import pytest
import torch

from irnet_hpc.models.dropout import Dropout, dropout_noise, split_mix

CPU = torch.device("cpu")


def test_the_numbers_are_those_of_splitmix64():
    """Seeds 0 and 1234567 as published with the generator; 2**64 - 1 in Python's integers."""
    first = [int(value) % 2**64 for value in split_mix(1234567, torch.arange(3))]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert int(split_mix(0, torch.arange(1))) % 2**64 == 0xE220A8397B1DCDAF

    def by_python(state: int, index: int) -> int:
        z = (state + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    far = torch.tensor([0, 1, 5, 2**31, 2**40])
    expected = [by_python(2**64 - 1, int(index)) for index in far]
    assert [int(value) % 2**64 for value in split_mix(2**64 - 1, far)] == expected


@pytest.mark.parametrize("n_columns", [1, 3, 4, 10])
def test_a_rank_computes_its_own_rows_of_the_whole_batch(n_columns):
    whole = dropout_noise(3, 7, slice(0, 24), n_columns, CPU)
    assert whole.shape == (24, n_columns)
    parts = [
        dropout_noise(3, 7, slice(first, first + 6), n_columns, CPU) for first in range(0, 24, 6)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_numbers_are_a_function_of_seed_and_step_and_differ_between_rows_and_columns():
    first, same, step, seed = (
        dropout_noise(*key, slice(0, 64), 64, CPU).double()
        for key in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert torch.equal(first, same)
    table = torch.stack([first, step, seed, first.roll(1, 0), first.roll(1, 1)]).flatten(1)
    correlations = np.corrcoef(table.numpy()) - np.eye(5)
    assert np.abs(correlations).max() < 4 / 64  # 4,096 pairs: four standard deviations


def test_numbers_are_uniform():
    noise = dropout_noise(5, 2, slice(0, 1024), 256, CPU).numpy().astype(np.int64).ravel() + 2**15
    counts = np.bincount(noise // 256, minlength=256)
    n = noise.size / 256
    chi_squared = ((counts - n) ** 2 / n).sum()
    assert (
        255 - 4 * 510**0.5 < chi_squared < 255 + 4 * 510**0.5
    )  # 255 degrees of freedom, four standard deviations
    assert counts.size == 256


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.2, 0.3, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_of_rate_is_dropped_and_the_mean_stays(rate, dtype):
    n = 2048 * 256
    layer, noise = Dropout(rate, slice(0, 256)), dropout_noise(0, 0, slice(0, 2048), 256, CPU)
    y = layer(torch.ones(2048, 256, dtype=dtype), None, noise)
    assert float((y == 0).double().mean()) == pytest.approx(
        rate, abs=4 * (rate * (1 - rate) / n) ** 0.5
    )
    kept = float(y[y != 0].double().mean())
    assert kept == pytest.approx(
        1 / (1 - rate), rel=0.01
    )  # 0.999 is met to 1 in 65,536: 1 / 0.001 is 993


def test_what_is_dropped_has_no_gradient_and_what_is_kept_has_it_scaled():
    layer, noise = (
        Dropout(0.25, slice(1, 3)),
        torch.tensor([[0, -32768, 0], [0, 0, -32768]], dtype=torch.int16),
    )
    x = torch.ones(2, 2, requires_grad=True)
    layer(x, None, noise).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 4 / 3], [4 / 3, 0.0]]))
