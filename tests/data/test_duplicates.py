"""Which row stands for a composition, and which values it has; worked out by hand."""

import itertools

import numpy as np
import pytest

from irnet_hpc.data.duplicates import MERGED, one_per_formula
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.data.splits import count_on_two_sides

NAN = np.nan


def materials(
    formulas: list[str],
    ids: list[str] | None = None,
    split: list[str] | None = None,
    **targets: list[float],
) -> Materials:
    """Return materials; a row without an id is one whose table states none."""
    ids = ids or [""] * len(formulas)
    found, rejected = parse_materials(
        RawTable(
            np.arange(2, len(formulas) + 2),
            formulas,
            [own or f"t-{row}" for row, own in enumerate(ids)],
            role=split,
            targets={name: np.array(values, float) for name, values in targets.items()},
            has_id=np.array([bool(own) for own in ids]),
        )
    )
    assert not rejected
    return found


def packed(one: Materials) -> dict[str, dict[str, float]]:
    """Map each composition to the values it is packed with; values not reported are left out."""
    return {
        formula: {
            name: values[row] for name, values in one.targets.items() if not np.isnan(values[row])
        }
        for row, formula in enumerate(one.reduced)
    }


def test_the_row_of_lowest_formation_energy_stands_for_its_composition():
    found, rejected, *_ = one_per_formula(
        materials(
            ["TiO2", "Ti2O4", "FeO", "O2Ti"],
            formation_energy=[-1, -3, 0, -2],
            band_gap=[1, 2, 0, 3],
        )
    )
    assert list(found.formula) == ["Ti2O4", "FeO"]
    assert list(found.targets["band_gap"]) == [2, 0]
    assert sorted((row.line, row.reason, row.detail) for row in rejected) == [
        (2, "duplicate formula", "line 3"),
        (5, "duplicate formula", "line 3"),
    ]


# Rows: formula, id, formation energy, energy above hull, gap, modulus. Values: what is packed.
TABLES = {
    "four polymorph pairs of different sources": (
        [
            ("KN3", "aflow-0a", 0.62, NAN, 0.0, NAN),
            ("KN3", "aflow-9f", -0.43, NAN, 4.16, NAN),
            ("Ho2O3", "aflow-1b", -1.92, NAN, 0.0, NAN),
            ("Ho2O3", "aflow-7c", -4.05, NAN, 3.95, NAN),
        ],
        {
            "KN3": {"formation_energy": -0.43, "band_gap": 4.16},
            "Ho2O3": {"formation_energy": -4.05, "band_gap": 3.95},
        },
    ),
    "the ground state reports no gap: no other phase lends one": (
        [
            ("C", "graphite", 0.0, NAN, NAN, 38),
            ("C", "diamond", 0.1, NAN, 4.1, NAN),
            ("C", "lonsdaleite", 0.12, NAN, 3.4, 430),
        ],
        {"C": {"formation_energy": 0.0, "bulk_modulus": 38}},
    ),
    "only the distance from the hull ranks the phases": (
        [
            ("SiO2", "stishovite", NAN, 0.2, 5.3, 310),
            ("SiO2", "quartz", NAN, 0.01, 5.7, 38),
            ("SiO2", "cristobalite", NAN, 0.02, 5.5, 16),
        ],
        {"O2Si": {"energy_above_hull": 0.01, "band_gap": 5.7, "bulk_modulus": 38}},
    ),
    "no energy at all: the id that reports most, then the lowest id": (
        [
            ("ZnS", "mp-1000", NAN, NAN, 3.7, 77),
            ("ZnS", "mp-22", NAN, NAN, 3.6, 76),
            ("ZnS", "mp-3", NAN, NAN, 3.5, NAN),
            ("SZn", "mp-101", NAN, NAN, 3.4, 75),
        ],
        {"SZn": {"band_gap": 3.6, "bulk_modulus": 76}},
    ),
    "one id in several rows, collected property by property": (
        [
            ("TiO2", "rutile", -3.5, NAN, NAN, NAN),
            ("TiO2", "rutile", NAN, NAN, 1.8, NAN),
            ("Ti2O4", "rutile", NAN, NAN, NAN, 210),
            ("TiO2", "brookite", NAN, NAN, 2.0, 420),
        ],
        {"O2Ti": {"formation_energy": -3.5, "band_gap": 1.8, "bulk_modulus": 210}},
    ),
    "rows without ids that disagree": (
        [
            ("GaAs", "", NAN, NAN, 1.4, NAN),
            ("GaAs", "", NAN, NAN, 3.0, NAN),
            ("AsGa", "", NAN, NAN, 2.0, 75),
        ],
        {"AsGa": {"band_gap": 2.0, "bulk_modulus": 75}},
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_choice_depends_on_neither_the_order_of_rows_nor_what_is_packed(case):
    rows, expected = TABLES[case]
    names = ("formation_energy", "energy_above_hull", "band_gap", "bulk_modulus")
    for order in itertools.permutations(rows):
        formulas, ids, *columns = (list(column) for column in zip(*order, strict=True))
        found, *_ = one_per_formula(
            materials(formulas, ids, **dict(zip(names, columns, strict=True)))
        )
        assert packed(found) == expected


def test_values_of_two_ids_never_meet_in_one_row():
    found, rejected, *_ = one_per_formula(
        materials(
            ["TiO2", "TiO2", "C", "C", "MgO", "MgO"],
            ["rutile", "brookite", "diamond", "graphite", "periclase", ""],
            formation_energy=[-3.5, NAN, 0.1, NAN, -3, NAN],
            band_gap=[1.8, NAN, 4.1, NAN, 4.4, NAN],
            # A row without an id may be any phase.
            bulk_modulus=[NAN, 420, NAN, 38, NAN, 155],
        )
    )
    assert list(found.material_id) == ["rutile", "diamond", "periclase"]
    assert np.isnan(found.targets["bulk_modulus"]).all()
    assert [row.reason for row in rejected] == ["duplicate formula"] * 3


def test_an_id_that_reports_nothing_does_not_displace_one_that_reports_a_property_of_the_user():
    found, rejected, *_ = one_per_formula(
        materials(
            ["TiC", "TiC", "TiC", "WC", "WC"],
            ["s1", "s2", "s10", "s3", "s4"],
            hardness=[NAN, 30, 28, 24, 22],
            band_gap=[NAN, NAN, NAN, NAN, 0],
        )
    )
    # Every pack of this table knows the gap, so the gap decides before the hardness does.
    assert packed(found) == {"CTi": {"hardness": 30}, "CW": {"hardness": 22, "band_gap": 0}}
    assert list(found.material_id) == ["s2", "s4"]
    assert [row.reason for row in rejected] == ["duplicate formula"] * 3


def test_values_of_one_material_reported_in_several_rows_are_brought_together():
    found, rejected, replaced, combined = one_per_formula(
        materials(
            ["Al2O3", "Al4O6", "Al6O9", "AlO1.5"],
            formation_energy=[NAN, -3, -3, NAN],
            band_gap=[6, NAN, NAN, 5],
            bulk_modulus=[NAN, NAN, 250, NAN],
        )
    )
    assert packed(found) == {
        "Al2O3": {"formation_energy": -3, "band_gap": 5.5, "bulk_modulus": 250}
    }
    assert len(rejected) == 3 and {row.reason for row in rejected} == {MERGED}
    # 6 and 5 disagree, so their median is used, counted and listed.
    assert sorted((row.line, row.property, row.value) for row in replaced) == [
        (2, "band_gap", 6),
        (5, "band_gap", 5),
    ]
    assert combined == {"band_gap": [3]}


def test_a_row_that_contradicts_the_kept_one_lends_it_nothing():
    found, rejected, replaced, _ = one_per_formula(
        materials(
            ["SiO2", "SiO2"],
            formation_energy=[-3.2, NAN],
            band_gap=[5.7, 5.3],
            bulk_modulus=[NAN, 310],
        )
    )
    assert packed(found) == {"O2Si": {"formation_energy": -3.2, "band_gap": 5.7}}
    assert [row.reason for row in rejected] == ["duplicate formula"]
    assert replaced == []


def test_duplicates_on_two_sides_of_a_given_split_both_stay():
    found, rejected, *_ = one_per_formula(
        materials(["FeO", "Fe2O2"], split=["train", "test"], band_gap=[1, 2])
    )
    assert len(found) == 2
    assert not rejected
    assert count_on_two_sides(found.reduced, found.role) == 1
