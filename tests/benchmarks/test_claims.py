"""Hold that the measurement of claims counts each cell once, whoever took it."""

from benchmarks.claims import NAME, claims


def test_three_workers_take_each_of_fifty_cells_once(tmp_path):
    taken, seconds = claims(tmp_path, 3, 50)
    assert sorted(taken) == sorted(NAME.format(i) for i in range(50))
    assert seconds > 0
