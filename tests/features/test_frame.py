"""Features of formulas as a DataFrame."""

import numpy as np
import pandas
import pytest
from pymatgen.core import Composition

from irnet_hpc.errors import UserError
from irnet_hpc.features import featurize
from irnet_hpc.pack.store import open_pack

FORMULAS = ["Fe2O3", "NaCl", "Ag0.5Ge1Pb1.75S4", "NaN", "C60"]


@pytest.mark.parametrize("features", ["magpie", "elements", "magpie+ordered+classes"])
def test_numbers_are_those_of_a_pack_bit_for_bit(features, pack_command, tmp_path):
    table = pandas.DataFrame({"formula": FORMULAS * 3, "band_gap": np.arange(15.0)})
    table.to_csv(tmp_path / "t.csv", index=False)
    done = pack_command("--source", "t.csv", "--features", features, "--name", "t")
    assert done.returncode == 0, done.stderr
    with open_pack(tmp_path / "packs/t.h5") as pack:
        rows = slice(0, pack.n_rows)
        frame = featurize(pack.formulas(rows), features)
        assert frame.to_numpy().dtype == np.float32
        assert frame.to_numpy().tobytes() == np.ascontiguousarray(pack.x(rows)).tobytes()
        assert frame.columns.tolist() == pack.feature_labels
        assert frame.index.tolist() == list(pack.formulas(rows))


def test_rows_keep_their_order_over_blocks():
    formulas = [f"Fe{i}O{j}" for i in range(1, 41) for j in range(1, 41)]
    frame = featurize(formulas, "elements")
    assert frame.index.tolist() == formulas
    assert frame.loc["Fe1O3", "O"].item() == np.float32(0.75)


def test_what_has_no_features_is_listed_or_nan():
    formulas = pandas.Series(["Fe2O3", "Xx", None, "HeO", "NaCl"])
    with pytest.raises(UserError) as refused:
        featurize(formulas, "elements")
    assert all(text in str(refused.value) for text in ("'Xx'", "None", "'HeO'"))
    frame = featurize(formulas, "elements", errors="nan")
    assert frame.isna().all(axis=1).tolist() == [False, True, True, True, False]
    assert frame.iloc[[0, 4]].equals(featurize(["Fe2O3", "NaCl"], "elements"))
    assert featurize(["Xx"], errors="nan").shape == (1, 145)
    assert featurize([]).shape == (0, 145)


@pytest.mark.parametrize("features", ["structure", "magpie+columns", "asph", "magpi"])
def test_only_sets_of_formulas(features):
    with pytest.raises(UserError):
        featurize(["Fe2O3"], features)


@pytest.mark.parametrize("formulas", ["TiC", pandas.DataFrame({"formula": ["TiC"]})])
def test_neither_a_text_nor_a_table_is_a_list_of_formulas(formulas):
    with pytest.raises(UserError, match="must be a list or a column"):
        featurize(formulas)


def test_errors_is_one_of_two_words():
    with pytest.raises(UserError):
        featurize(["Fe2O3"], errors="ignore")


def test_compositions_are_read_and_missing_values_are_not():
    composition = Composition("Fe2O3")
    values = featurize([composition, None, float("nan"), pandas.NA, 5], "elements", errors="nan")
    iron = values["Fe"].tolist()
    assert iron[0] == pytest.approx(0.4) and np.isnan(iron[1:]).all()
    assert values.index[0] is composition


@pytest.mark.parametrize(("formulas", "features"), [(5, "elements"), (None, "magpie"), (["Fe"], 5)])
def test_arguments_of_another_type_are_a_users_mistake(formulas, features):
    with pytest.raises(UserError):
        featurize(formulas, features)
