"""Conformal intervals: by hand, and on draws of one population."""

import numpy as np
import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.predict.intervals import calibrate, calibrate_steps, coverage


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


def test_each_step_of_predictions_has_the_width_that_its_own_rows_need():
    random = np.random.default_rng(0)
    floor = np.zeros(3000)  # predicted at the floor, and nearly always right
    above = np.sort(random.uniform(1, 5, 1000))
    prediction = np.concatenate([floor, above])
    error = np.concatenate([np.where(random.random(3000) < 0.05, -1.0, 0.0), above * 0.1])
    interval = calibrate_steps(error, prediction, 0.9)
    assert interval.half_width_at(np.array([0.0])).tolist() == [0.0]
    low, high = interval.half_width_at(np.array([1.1, 4.9]))
    assert 0.1 < low < 0.25 and 0.45 < high <= 0.5
    assert coverage(interval, error[3000:], np.zeros(1000), above) >= 0.9
    # One width for all holds 90 % of all rows, and hardly a row above the floor.
    one = calibrate(error, np.zeros(4000), 0.9)
    assert coverage(one, error, np.zeros(4000)) >= 0.9
    assert coverage(one, error[3000:], np.zeros(1000)) < coverage(
        interval, error[3000:], np.zeros(1000), above
    )


def test_few_rows_are_one_step():
    prediction, error = np.arange(30.0), np.linspace(0, 1, 30)
    interval = calibrate_steps(error, prediction, 0.9)
    assert len(interval.width) == 1 and interval.n_rows == 30
    expected = calibrate(error, np.zeros(30), 0.9).half_width(np.zeros(1))
    assert interval.half_width_at(np.array([-5.0, 50.0])).tolist() == [*expected, *expected]
