"""Materials in columns."""

import numpy as np

from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import RawTable


def materials(
    formulas: list[str], split: list[str] | None = None, **targets: list[float]
) -> Materials:
    line = np.arange(2, len(formulas) + 2)
    ids = [f"id-{number}" for number in line]
    found, rejected = parse_materials(
        RawTable(
            line,
            formulas,
            ids,
            role=split,
            targets={name: np.array(v, float) for name, v in targets.items()},
        )
    )
    assert not rejected
    return found


def test_a_row_that_cannot_be_read_is_rejected_and_the_others_keep_their_values():
    found, rejected = parse_materials(
        RawTable(
            np.array([2, 3, 4]),
            ["FeO", "Xx", "Na2O"],
            ["a", "b", "c"],
            targets={"band_gap": np.array([1.0, 2.0, 3.0])},
        )
    )
    assert [row[:4] for row in rejected] == [(3, "b", "Xx", "formula not readable")]
    assert list(found.material_id) == ["a", "c"]
    assert list(found.targets["band_gap"]) == [1, 3]
    assert found.number.tolist() == [26, 8, 11, 8]
    assert found.amount.tolist() == [1, 1, 2, 1]
    backwards = found.take(np.array([1, 0]))
    assert backwards.number.tolist() == [11, 8, 26, 8]
    assert backwards.start.tolist() == [0, 2, 4]
