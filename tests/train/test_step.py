"""Pieces of a batch give the gradients of the whole."""

import pytest
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network
from irnet_hpc.models.normalisation import Groups, rank_groups
from irnet_hpc.train.step import pieces

ALONE = Groups(16, 16)


def test_pieces_are_whole_groups_and_no_larger_than_asked():
    assert pieces(ALONE, slice(0, 80), None) == [slice(0, 80)]
    assert pieces(ALONE, slice(0, 80), 80) == [slice(0, 80)]
    # 47 rows are 2 groups of 16 and a rest; the second rank of two begins at row 80 of the global
    # batch.
    assert pieces(ALONE, slice(80, 160), 47) == [slice(80, 112), slice(112, 144), slice(144, 160)]


def test_pieces_that_cannot_be_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="15"):
        pieces(ALONE, slice(0, 80), 15)
    spanning = rank_groups(
        32, 48, rank=0, size=2, all_sum=lambda sums: sums, device="cpu"
    )  # 24 rows a rank
    with pytest.raises(UserError, match="norm_group 32 and 24 rows"):
        pieces(spanning, slice(0, 24), 8)


@pytest.mark.parametrize("layers", ["24BARx2-16BAx2R-1", "24L0.3Rx2+1D0.2-16BAD0.1x2-1"])
@pytest.mark.parametrize("most", [16, 40])
def test_gradients_of_pieces_add_up_to_those_of_the_whole(layers, most):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 7, generator=random).double(), torch.randn(96, generator=random).double()
    mine = slice(96, 192)  # the second rank's

    def gradients(most: int | None) -> tuple[torch.Tensor, int]:
        network = Network(7, parse_layers(layers)).double()
        network.initialise(5)
        flat, found = FlatParameters([network]), pieces(ALONE, mine, most)  # a stack of one
        flat.overwrite(len(found) == 1)
        for rows in found:
            here = slice(rows.start - mine.start, rows.stop - mine.start)
            noise = network.noise(3, 11, rows)
            error = (
                network(x[None, here], ALONE, noise if noise is None else noise[None]).flatten()
                - y[here]
            )
            (error.abs().sum() / 192).backward()
            flat.reduced[-2] += error.detach().abs().sum()
        return flat.reduced, len(found)

    whole, one = gradients(None)
    parts, several = gradients(most)
    assert (one, several) == (1, {16: 6, 40: 3}[most])
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)
