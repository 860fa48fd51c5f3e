"""Errors by element and the worst rows."""

import numpy as np
import pytest

from irnet_hpc.aggregate.diagnostics import errors_by_element
from tests.aggregate.results import findings_of, write_predicted


def test_where_a_model_errs_is_as_worked_out_by_hand(tmp_path):
    """Fe in rows 0 and 3: (0.1 + 0.4) / 2; O in 0, 2 and 3; the last formula cannot be read."""
    for seed in range(2):
        write_predicted(tmp_path, seed)
    (found,) = findings_of(tmp_path).diagnoses
    errors = {one.symbol: (one.n, one.mae, one.bias) for one in found.elements}
    assert list(errors) == ["O", "Na", "Mg", "Cl", "Fe"]  # by atomic number
    assert errors["Fe"] == (2, pytest.approx(0.25), pytest.approx(0.25))
    assert errors["O"] == (3, pytest.approx(0.8 / 3), pytest.approx(0.8 / 3))
    assert errors["Na"] == (1, pytest.approx(0.2), pytest.approx(-0.2))
    assert (found.n_unreadable, found.n_rows, found.n_runs) == (1, 5, 2)
    assert len(found.points.target) == 10
    assert found.n_worst == 1  # 5 % of 5 rows are less than one
    assert (found.mae, found.median, found.worst_share) == tuple(
        map(pytest.approx, (0.3, 0.3, 0.5 / 1.5))
    )
    assert [one.error for one in found.worst] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert (found.worst[1].material_id, found.worst[1].formula, found.worst[1].prediction) == (
        "d",
        "Fe2O3",
        pytest.approx(4.4),
    )


def test_no_readable_formula_is_no_element():
    assert errors_by_element(["?", ""], np.ones(2), np.ones(2)) == ((), 2)
