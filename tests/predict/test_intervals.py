"""Conformal intervals: by hand, and on draws of one population."""

import numpy as np
import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.predict.intervals import calibrate, coverage


def test_calibration_by_hand():
    interval = calibrate(
        np.arange(1.0, 10.0), np.zeros(9), 0.9
    )  # the ninth of nine is the (9 + 1) * 0.9-th
    assert interval.half_width(np.zeros(1)) == 9
    scaled = calibrate(
        np.array([1.0, -2, 6] * 9), np.array([1.0, 1, 2] * 9), 0.9
    )  # softened by the median, 1
    assert (scaled.softening, scaled.factor) == (1, 2)  # errors by sd + 1: 0.5, 1, 2
    with pytest.raises(UserError, match="at least 9 val rows, got 8"):
        calibrate(np.ones(8), np.zeros(8), 0.9)


def test_an_interval_holds_what_it_says_on_rows_of_the_same_population():
    random = np.random.default_rng(0)

    def draw(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        sd = random.gamma(2, size=n_rows)
        return random.standard_t(3, size=n_rows) * sd, sd  # tails that no normal distribution has

    held = [coverage(calibrate(*draw(200), 0.9), *draw(2000)) for _ in range(100)]
    assert abs(np.mean(held) - 0.9) < 0.01
