"""Batch normalisation in fixed groups, in pieces and over ranks."""

import pytest
import torch
from torch.nn.functional import batch_norm

from irnet_hpc.models import normalisation
from irnet_hpc.models.normalisation import (
    GroupNormalise,
    Groups,
    Normalise,
    membership,
    one_kernel_a_group,
    rank_groups,
)


def test_group_normalisation_has_the_right_gradient():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((12, 3), 3, 3)
    )
    assert torch.autograd.gradcheck(
        lambda *a: GroupNormalise.apply(*a, Groups(4, 4)), (x, weight, bias)
    )


def test_a_group_in_pieces_is_normalised_like_a_whole_one():
    """Two segments a group, summed by the index alone: as a rank does, without the other."""
    x = torch.randn(
        16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    weight, bias = torch.full((3,), 1.5, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    pieces = Groups(4, 8, torch.tensor([0, 0, 1, 1]), 2, lambda sums: sums)
    loss = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outcomes = []
    for groups in (Groups(8, 8), pieces):
        y = GroupNormalise.apply(x, weight, bias, groups)
        outcomes.append((y, *torch.autograd.grad((y * loss).sum(), x)))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "segment"), [(1, 32), (2, 32), (4, 32), (8, 16), (16, 8)])
def test_a_rank_cuts_its_rows_where_groups_begin(size, segment):
    groups = [rank_groups(32, 128, rank, size, lambda t: t, "cpu") for rank in range(size)]
    assert {g.segment for g in groups} == {segment}
    if segment < 32:
        assert torch.cat([g.group_of_segment for g in groups]).tolist() == [
            row // 32 for row in range(0, 128, segment)
        ]


def test_groups_that_neither_divide_nor_hold_a_ranks_rows_are_cut_at_both_bounds():
    """Batch 96 in groups of 32 over 2 ranks: each has a whole group and half of the middle one."""
    groups = [rank_groups(32, 96, rank, 2, lambda t: t, "cpu") for rank in (0, 1)]
    assert [(g.segment, g.group_of_segment.tolist(), g.n_groups) for g in groups] == [
        (16, [0, 0, 1], 3),
        (16, [1, 2, 2], 3),
    ]


def test_rows_far_from_zero_keep_their_variance():
    """In fp32, E[x²] - mean² of values around 10,000 with deviation 1 would be rounding alone."""
    x = 10_000 + torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    expected = batch_norm(x.double(), None, None, training=True)
    for groups in (Groups(32, 32), Groups(16, 32, torch.tensor([0, 0]), 1, lambda sums: sums)):
        y = GroupNormalise.apply(x, torch.ones(4), torch.zeros(4), groups)
        assert (y - expected).abs().max() < 0.01


@pytest.mark.parametrize("segment", [24, 8])
def test_torchs_kernel_normalises_groups_as_the_lines_that_ranks_need_do(monkeypatch, segment):
    generator = torch.Generator().manual_seed(3)
    x, loss = (
        50 + 3 * torch.randn(24, 5, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    weight, bias = (
        torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(2)
    )
    x.requires_grad_()
    outcomes = []
    for by_kernel in (True, False):
        monkeypatch.setattr(
            normalisation, "one_kernel_a_group", lambda *_, answer=by_kernel: answer
        )
        y = GroupNormalise.apply(x, weight, bias, Groups(segment, segment))
        outcomes.append((y, *torch.autograd.grad(y, (x, weight, bias), loss)))
    torch.testing.assert_close(*outcomes, rtol=1e-11, atol=1e-11)


def test_torchs_kernel_is_for_whole_groups_of_bf16_rows_that_are_few_or_large():
    whole, spanning = Groups(32, 32), Groups(16, 32, torch.tensor([0, 0]), 1, lambda sums: sums)
    few, large, many = (
        torch.empty(shape, dtype=torch.bfloat16) for shape in ((256, 8), (4096, 256), (288, 8))
    )
    assert one_kernel_a_group(few, whole) and one_kernel_a_group(large, whole)
    assert not one_kernel_a_group(many, whole) and not one_kernel_a_group(few, spanning)
    assert not one_kernel_a_group(few.float(), whole)


@pytest.mark.parametrize("n_rows", [32, 96])
def test_torchs_kernel_keeps_the_variance_and_the_gradient_of_bf16_rows(n_rows):
    """Beside torch's batch_norm in fp64 only the rounding of the outcome to 8 bits is left."""
    generator = torch.Generator().manual_seed(4)
    x, loss = ((20 + torch.randn(n_rows, 6, generator=generator)).bfloat16() for _ in range(2))
    norm, x = Normalise(6), x.requires_grad_()
    y = norm(x, Groups(32, 32))
    wide = x.detach().double().requires_grad_()
    expected = torch.cat([batch_norm(part, None, None, training=True) for part in wide.split(32)])
    torch.testing.assert_close(y.double(), expected, rtol=0.005, atol=0.005)
    (grad,), (right,) = (
        torch.autograd.grad(y, x, loss),
        torch.autograd.grad(expected, wide, loss.double()),
    )
    torch.testing.assert_close(grad.double(), right, rtol=0.005, atol=0.005)


def test_bf16_keeps_the_sums_of_a_group_wide():
    """32 rows around 100: a mean taken in bf16 would be off by up to 0.25."""
    x = (100 + torch.arange(32.0)).unsqueeze(1).bfloat16()
    norm = Normalise(1)
    y = norm(x, Groups(32, 32)).float()
    expected = (x.float() - x.float().mean()) / x.float().std(unbiased=False)
    assert (y - expected).abs().max() < 0.05


def test_a_matrix_of_zeros_and_ones_adds_segments_up_as_index_add_does():
    group_of_segment = torch.tensor([0, 0, 2, 0, 2])  # of group 1 this rank has no row
    sums = torch.arange(2 * 5 * 3, dtype=torch.float64).view(2, 5, 3)
    added = Groups(4, 12, group_of_segment, 3, lambda total: total)
    multiplied = added._replace(members=membership(group_of_segment, 3))
    # Group 0 of the first replica: rows 0, 1 and 3, which begin with 0, 3 and 9.
    assert multiplied.total(sums)[0, 0].tolist() == [12, 15, 18]
    assert torch.equal(multiplied.total(sums), added.total(sums))
