"""Hold the time left that the bar of a sweep shows."""

from types import SimpleNamespace

from irnet_hpc.sweep.progress import CellsBar


def bar_of(seconds: dict[str, float]) -> CellsBar:
    return CellsBar(SimpleNamespace(update=lambda n: None, total=4), "abcd", seconds)


def test_the_time_left_is_the_estimates_corrected_by_what_cells_took():
    cells = bar_of({"a": 100.0, "b": 100.0, "c": 50.0})
    # d counts as the median.
    assert cells.seconds_left(30) == 100 + 100 + 50 + 100 - 30
    # Twice as slow as estimated.
    cells.advance(["a"], 200)
    assert cells.seconds_left(40) == 2 * (100 + 50 + 100) - 40


def test_without_estimates_the_time_left_is_known_once_a_cell_has_finished():
    cells = bar_of({})
    assert cells.seconds_left(5) is None
    cells.advance(["a", "b"], 60)
    assert cells.seconds_left(5) == 55


def test_cells_that_are_tried_again_count_as_left():
    cells = bar_of({})
    cells.advance([*"abcd"], 40)
    cells.add(["b"])
    assert cells.seconds_left(0) == 10 and cells.bar.total == 5
