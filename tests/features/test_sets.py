"""Feature sets: sums, blocks, workers, numbers worked out by hand."""

import itertools
import json

import numpy as np
import pytest
from matminer.featurizers.composition import (
    ElementFraction,
)
from pymatgen.core import Composition

from irnet_hpc.console import ExitStatus
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import ELEMENTS, FEATURE_SETS
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import open_pack
from tests.test_layout import run_without

WRITTEN = """
    Fe2O3 O3Fe2 Fe3O4 Ag(AuS)2 NaN NaCl U H2O Ac2AgIr K2NaNb2Fe7Si8H4O31 Gd2Ti2O7
    [Co(NH3)6]Cl3 Ag0.5Ge1Pb1.75S4
    LaCePrNdSmEuGdTbO12 AlCoCrFeNi PuO2 XeF6 C60 CsHg Ba0.33K0.67 Hg2Mn65N5Rb26Tm2 YBa2Cu3O6.93
"""
FORMULAS = WRITTEN.split()


def materials(formulas: list[str], columns: dict[str, list[float]] | None = None) -> Materials:
    columns = {name: np.array(values, float) for name, values in (columns or {}).items()}
    found, rejected = parse_materials(formula_table(formulas, columns))
    assert not rejected
    return found


def test_elements_are_matminers_fractions_of_86_elements():
    formulas = [formula for formula in FORMULAS if "Xe" not in formula] + ["XeF6"]
    expected = np.array([ElementFraction().featurize(Composition(formula)) for formula in formulas])
    found = features.describe(["elements"], materials(formulas)).x
    assert found.shape == (len(formulas), 86)
    places = [number - 1 for number in ELEMENTS.values()]
    np.testing.assert_allclose(found, expected[:, places], atol=1e-7)
    labels = ElementFraction().feature_labels()
    assert features.feature_labels(["elements"], materials(formulas)) == [
        labels[place] for place in places
    ]


def test_worked_out_by_hand():
    x = features.describe(["elements"], materials(["Fe2O3"])).x[0]
    labels = list(ELEMENTS)
    assert x[labels.index("Fe")] == pytest.approx(0.4)
    assert x[labels.index("O")] == pytest.approx(0.6)
    assert x.sum() == pytest.approx(1)
    found = dict(
        zip(
            features.feature_labels(["magpie"], materials(["Fe2O3"])),
            features.describe(["magpie"], materials(["Fe2O3"])).x[0],
            strict=True,
        )
    )
    assert found["0-norm"] == 2
    assert found["2-norm"] == pytest.approx(np.hypot(0.4, 0.6))
    assert found["MagpieData mean Number"] == pytest.approx(0.4 * 26 + 0.6 * 8)
    assert found["MagpieData range Number"] == 18
    assert found["compound possible"] == 1


def test_the_86_elements_leave_out_eight():
    assert len(ELEMENTS) == 86
    assert set(range(1, 95)) - set(ELEMENTS.values()) == {
        2,
        10,
        18,
        84,
        85,
        86,
        87,
        88,
    }  # He Ne Ar Po At Rn Fr Ra
    assert features.unknown_elements(
        ["magpie", "elements"], materials(["FeO", "HeNe2O", "AmO2"])
    ) == {
        1: "He, Ne",
        2: "Am",
    }
    assert features.unknown_elements(["magpie"], materials(["HeNe2O"])) == {}


def test_a_sum_stands_side_by_side():
    found = materials(["FeO", "MgO"], {"temperature": [300, 350], "pressure": [1, 2]})
    x = features.describe(features.parse_feature_sets("elements+columns"), found).x
    assert x.shape == (2, 88)
    assert x[:, 86:].tolist() == [[300, 1], [350, 2]]
    assert features.feature_labels(["elements", "columns"], found)[86:] == [
        "temperature",
        "pressure",
    ]
    with pytest.raises(UserError, match="feature labels must differ, got Fe twice"):
        features.feature_labels(["elements", "columns"], materials(["FeO"], {"Fe": [1]}))


def test_wrong_sums_are_one_sentence():
    with pytest.raises(
        UserError,
        match=r"unknown feature set 'magpi' \(did you mean 'magpie'\?\); known: asph, classes",
    ):
        features.parse_feature_sets("magpi")
    with pytest.raises(UserError, match="may occur only once in a sum, got 'magpie\\+magpie'"):
        features.parse_feature_sets("magpie+magpie")
    with pytest.raises(UserError, match="unknown feature set ''"):
        features.parse_feature_sets("magpie+")
    with pytest.raises(
        UserError, match="feature set 'columns' is the table's own numeric columns, but this table"
    ):
        features.feature_labels(["columns"], materials(["FeO"]))


def test_blocks_come_in_order_and_are_the_same_for_any_number_of_workers():
    found = materials([f"{a}{i}{b}" for a, b in itertools.pairwise(ELEMENTS) for i in (1, 2)])
    batches = [found.take(np.arange(start, min(start + 7, 170))) for start in range(0, 170, 7)]
    one = [block.x for block in features.describe_batches(["elements"], batches, workers=1)]
    two = [block.x for block in features.describe_batches(["elements"], batches, workers=2)]
    assert [len(block) for block in one] == [7] * 24 + [2]
    np.testing.assert_array_equal(np.concatenate(one), features.describe(["elements"], found).x)
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))


def test_the_version_of_a_feature_set_enters_a_packs_identity(alloys_pack, monkeypatch):
    with open_pack(alloys_pack) as found:
        assert found.identity["feature_versions"] == {"elements": FEATURE_SETS["elements"].version}
    options = PackOptions(
        "alloys", "elements", name="alloys-small", rows=600, pack_dir=alloys_pack.parent
    )
    before = alloys_pack.read_bytes()
    assert pack_source(options) == alloys_pack  # it is there, and nothing is done
    monkeypatch.setitem(FEATURE_SETS, "elements", FEATURE_SETS["elements"]._replace(version=99))
    with pytest.raises(UserError, match=r"is a different pack, which differs in feature_versions;"):
        pack_source(options)
    assert alloys_pack.read_bytes() == before


def test_a_block_is_about_three_seconds_of_work_and_never_more_than_1024_rows(monkeypatch):
    monkeypatch.setitem(FEATURE_SETS, "slow", FEATURE_SETS["elements"]._replace(row_s=0.03))
    monkeypatch.setitem(FEATURE_SETS, "slowest", FEATURE_SETS["elements"]._replace(row_s=20))
    rows = {name: features.block_rows([name]) for name in ("slow", "slowest", "magpie", "columns")}
    assert rows == {"slow": 100, "slowest": 1, "magpie": 1024, "columns": 1024}


def test_rows_that_are_left_out_keep_their_place():
    found = materials(["FeO", "MgO", "CaO", "ZnO"])
    all_rows, three = (
        features.describe(["elements"], found),
        features.describe(["elements"], found, {1: ("why", "how")}),
    )
    assert (three.unsuited, three.x.dtype) == ({1: ("why", "how")}, np.float32)
    np.testing.assert_array_equal(three.x[[0, 2, 3]], all_rows.x[[0, 2, 3]])
    assert np.isnan(three.x[1]).all()


def test_processes_are_started_only_for_work_that_is_longer_than_their_start():
    assert features.worthwhile_workers(["magpie"], 300_000, 8) == 1
    assert features.worthwhile_workers(["magpie", "elements"], 10**8, 8) == 8
    assert features.worthwhile_workers(["columns"], 10**9, 8) == 1


def test_an_optional_set_without_its_library_says_how_to_install_it(tmp_path):
    entry = {"formula": "Po", "targets": {"band_gap": 1.0}}
    (tmp_path / "t.jsonl").write_text(json.dumps(entry) + "\n")
    options = ("--source", "t.jsonl", "--features", "asph")
    done = run_without({"gudhi"}, "pack", *options, cwd=tmp_path)
    assert done.returncode == ExitStatus.USER_ERROR
    assert "irnet_hpc[homology]" in done.stderr and done.stderr.count("\n") == 1
    assert run_without({"gudhi"}, "pack", "--list", cwd=tmp_path).returncode == ExitStatus.OK
