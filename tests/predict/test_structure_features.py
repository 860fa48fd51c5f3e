"""Features of structures without a pack are those that a pack has."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from irnet_hpc import UserError, featurize, featurize_structures, pack_table
from tests.data.structures.files import cif, folder

PAIRS = (("Al", "Ni"), ("Fe", "Co"), ("Ti", "Cu"))


def crystals() -> list[Structure]:
    return [Structure(Lattice.cubic(3), pair, [[0] * 3, [0.5] * 3]) for pair in PAIRS]


def test_a_list_of_structures_has_the_features_of_its_pack(tmp_path):
    import pandas as pd

    several = [
        Structure(Lattice.cubic(3 + n / 10), pair, [[0] * 3, [0.5] * 3])
        for n in range(8)
        for pair in PAIRS
    ]
    ids = [f"s{place}" for place in range(len(several))]
    frame = pd.DataFrame({"structure": several, "material_id": ids, "score": range(len(ids))})
    features = {"features": "magpie+structure", "units": {"score": "1"}}
    with pack_table(frame, **features, pack_dir=tmp_path, name="p", workers=1) as pack:
        rows = slice(0, pack.n_rows)
        places = [int(one[1:]) for one in pack.material_ids(rows)]
        x, labels = pack.x(rows), pack.feature_labels
    ours = featurize_structures(several)
    assert ours.columns.tolist() == list(labels)
    np.testing.assert_array_equal(ours.to_numpy()[places], x)


def test_a_folder_names_its_rows_and_an_unusable_file_is_refused_or_nan(tmp_path):
    files = {
        f"{first}.cif": cif(f"{first}1 {first} 0 0 0 1", f"{second}1 {second} .5 .5 .5 1")
        for first, second in PAIRS
    }
    new = folder(tmp_path / "new", files | {"empty.cif": "data_x\n"})
    with pytest.raises(UserError, match="empty"):
        featurize_structures(new)
    frame = featurize_structures(new, "magpie", errors="nan")
    assert frame.index.tolist() == ["Al", "Fe", "Ti", "empty"]
    assert np.isnan(frame.loc["empty"]).all()
    expected = featurize(["".join(pair) for pair in PAIRS], "magpie").to_numpy()
    np.testing.assert_array_equal(frame.to_numpy()[:3], expected)


@pytest.mark.parametrize("given", ["absent", 3, ["NaCl"]])
def test_what_is_no_structure_is_refused(given):
    with pytest.raises(UserError):
        featurize_structures(given)
    with pytest.raises(UserError):
        featurize_structures(crystals(), "magpie+columns")
