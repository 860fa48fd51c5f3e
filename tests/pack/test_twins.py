"""Columns that order the rows as the property does, by hand and through the command."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from irnet_hpc import pack_table
from irnet_hpc.pack.twins import rank_correlation

N_ROWS = 30
PROPERTY = np.random.default_rng(0).permutation(np.linspace(1, 400, N_ROWS))


def test_the_correlation_of_ranks_is_that_by_hand():
    # Two neighbours of four change places: 1 - 6 * (1 + 1) / (4 * 15)
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 9, 5, 100])) == pytest.approx(0.8)
    assert rank_correlation(np.array([1, 2, 3]), np.array([-1, -10, -100])) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([7, 7, 7])) == 0
    a, b = np.random.default_rng(1).integers(0, 5, (2, 40))
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)


@pytest.mark.parametrize(
    ("column", "is_twin"),
    [
        (PROPERTY * 0.145, True),  # another unit
        (np.log10(PROPERTY), True),
        (-PROPERTY, True),
        (PROPERTY.argsort().argsort() * 2 + 7, True),  # from its rank
        (np.where(np.arange(N_ROWS) < 25, PROPERTY, np.nan), True),  # not reported everywhere
        (np.arange(N_ROWS) * 2 + 7, False),  # from the row's number in a table in no order
        (np.where(PROPERTY > 200, 1, 0), False),
        (np.full(N_ROWS, 300), False),
    ],
)
def test_a_column_that_comes_from_the_property_is_named(column, is_twin, tmp_path, caplog):
    formulas = [f"Al{n}Ni" for n in range(1, N_ROWS + 1)]
    frame = pd.DataFrame({"formula": formulas, "K": PROPERTY, "other": column})
    frame["noise"] = np.random.default_rng(2).normal(size=N_ROWS)
    options = {"features": "columns", "units": {"K": "GPa"}, "workers": 1}
    with pack_table(frame, pack_dir=tmp_path, **options) as pack:
        assert pack.feature_labels == ["other", "noise"]
    named = [record for record in caplog.records if "column other" in record.getMessage()]
    assert len(named) == is_twin
    assert not any("column noise" in record.getMessage() for record in caplog.records)


def test_few_rows_say_nothing(tmp_path, caplog):
    frame = pd.DataFrame({"formula": ["AlNi", "CuZn", "FeO"], "K": [1, 2, 3], "T": [4, 5, 6]})
    options = {"features": "columns", "units": {"K": "GPa"}, "workers": 1}
    pack_table(frame, pack_dir=tmp_path, **options).close()
    assert "column T" not in caplog.text
