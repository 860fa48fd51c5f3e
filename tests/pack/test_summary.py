"""Which packed values are named as doubtful."""

import numpy as np
import pytest

from irnet_hpc import pack_table
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.pack.summary import describe_doubts, describe_pack


def doubts(name: str, values: list[float]) -> list[str]:
    n = len(values)
    materials, rejected = parse_materials(
        RawTable(
            np.arange(2, n + 2),
            [f"Ti{row + 1}C" for row in range(n)],
            [f"t-{row}" for row in range(n)],
            targets={name: np.array(values, float)},
        )
    )
    assert not rejected
    return describe_doubts(materials, {name: "GPa"})


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([20, -1, 18.5, -1, 21], "line 3 (Ti2C) -1, line 5 (Ti4C) -1"),
        ([20, -1, 18, -1, np.nan], "line 3 (Ti2C) -1, line 5 (Ti4C) -1"),
        ([20, -9999, 18.5, 999, 21], "line 3 (Ti2C) -9999, line 5 (Ti4C) 999"),
    ],
)
def test_codes_for_not_reported_are_named_with_their_lines(values, lines):
    assert doubts("hardness", values) == [
        "2 values of hardness look like a code for a value that is not reported: "
        f"{lines}; --limit hardness=LOW:HIGH removes values"
    ]


@pytest.mark.parametrize("value", [1.7976931348623157e308, -3.3e200, 5000])
def test_a_value_far_from_all_others_is_named_however_large_it_is(value):
    """The largest float is what some programs write for "not reported"; its square overflows."""
    (doubt,) = doubts("hardness", [*np.arange(200) / 7, value])
    place = f"line 202 (Ti201C) {value:.6g};"
    assert doubt.startswith(f"1 values of hardness are far from all others: {place}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("charge", [-1, 0, 1, 2, -1, 3]),  # small whole numbers
        ("sign", [-1, 1, -1, 1]),
        ("shift", [-1, -1, -0.5, 0.3, 20]),  # other negative values
        ("shift", [-1, 0.5, 0.3, 20]),  # once
        ("hardness", [9999, 100, 250, 999, 6000]),  # among numbers of their size
        ("formation_energy", [-1, -1, 0.5, 0.3, 2, 1]),  # a property that may be negative
    ],
)
def test_honest_numbers_are_not_called_codes(name, values):
    assert doubts(name, values) == []


def test_a_median_is_said_without_any_set_up_of_logging(tmp_path, caplog):
    """As in a notebook, where Python shows warnings and not the level INFO."""
    (tmp_path / "t.csv").write_text("formula,band_gap\nFe2O3,1\nFe4O6,3\nZnO,3\n")
    with pack_table(tmp_path / "t.csv", features="elements", pack_dir=tmp_path, workers=1) as pack:
        values = dict(zip(pack.to_frame()["formula"], pack.to_frame()["band_gap"], strict=True))
        medians = "warning: 1 values of band_gap are medians of rows of one formula that disagree"
        assert describe_pack(pack).endswith(medians)
    assert values == {"Fe2O3": 2, "ZnO": 3}
    assert medians in caplog.messages
