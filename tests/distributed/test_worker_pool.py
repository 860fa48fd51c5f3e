"""Worker processes: the order of results, blocks in flight, and what a worker raises."""

import time

import pytest

from irnet_hpc.distributed import worker_pool as workers
from irnet_hpc.errors import UserError


def double(block: list[int], left_out: workers.LeftOut) -> list[int]:
    time.sleep(0.05 * (3 - block[0] % 4))  # later blocks are done first
    if -1 in block:
        raise UserError(f"no block may hold -1, however: {block}")
    if -2 in block:
        raise ZeroDivisionError("a bug")
    return [2 * value for value in block]


def test_results_come_in_the_order_of_the_blocks_and_few_blocks_are_in_flight():
    taken = []
    blocks = ([number] for number in range(12) if not taken.append(number))
    found = []
    for result in workers.in_order(double, blocks, workers=2):
        found += result
        assert len(taken) <= len(found) + workers.AHEAD * 2
    assert found == [2 * number for number in range(12)]


def test_what_a_worker_raises_is_raised_with_where_it_came_from():
    with pytest.raises(UserError, match=r"no block may hold -1, however: \[-1\]"):
        list(workers.in_order(double, [[0], [-1], [2]], workers=2))
    with pytest.raises(ZeroDivisionError) as caught:
        list(workers.in_order(double, [[-2]], workers=1, limit_s=60))
    assert "in double" in caught.value.__notes__[0]
