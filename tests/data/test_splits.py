"""Split rules: the roles they give, names and identities, and rules that are refused."""

import csv
import dataclasses

import numpy as np
import pytest
from pymatgen.core import Composition, Element

from irnet_hpc.data import alloys
from irnet_hpc.data.elements import FAMILIES
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.data.splits import (
    RANDOM,
    ROLES,
    SplitRule,
    describe_held_out,
    pack_order,
    parse_split_rule,
    role_of,
    roles_around,
    roles_of,
    rule_of_identity,
    sample,
    split_identity,
    split_suffix,
    split_suffix_in,
    uniform,
)
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import ELEMENTS
from irnet_hpc.pack import store
from irnet_hpc.pack.select import split_and_order

OXIDES = """\
formula,band_gap
Fe2O3,2.1
FeO,0
NaCl,8
LiF,13.6
GaAs,1.4
SiC,2.4
BaTiO3,3.2
Ca(ClO)2,3
ZnS,3.5
AlN,6
MgF2,10
KBr,7
"""


def materials(formulas: list[str]) -> Materials:
    line = np.arange(2, len(formulas) + 2)
    found, rejected = parse_materials(
        RawTable(
            line, formulas, [f"id-{n}" for n in line], targets={"band_gap": np.ones(len(line))}
        )
    )
    assert not rejected
    return found


def test_test_is_what_contains_the_element_whatever_the_formula_looks_like():
    formulas = [
        "Fe2O3",
        "FeO",
        "Os",
        "OsO4",
        "Po",
        "CoNi",
        "CO",
        "Ca(ClO)2",
        "NaCl",
        "Fe0.99O0.01",
        "Al99Ni",
    ]
    with_oxygen = [True, True, False, True, False, False, True, True, False, True, False]
    assert materials(formulas).contains(["O"]).tolist() == with_oxygen
    halides = [formula in ("Ca(ClO)2", "NaCl") for formula in formulas]
    assert materials(formulas).contains(FAMILIES["halogens"]).tolist() == halides
    assert not materials(formulas).contains(["F", "Br"]).any()


def _agrees_with_pymatgen(formulas: list[str]) -> None:
    elements = [{element.symbol for element in Composition(formula)} for formula in formulas]
    found = materials(formulas)
    for of in [("O",), ("C", "Si"), *FAMILIES.values()]:
        assert found.contains(of).tolist() == [not there.isdisjoint(of) for there in elements]


def test_what_contains_an_element_is_what_pymatgen_says_of_alloys():
    _agrees_with_pymatgen(alloys.compute_alloys(500).formula)


def test_what_contains_an_element_is_what_pymatgen_says_of_real_formulas(real_formulas):
    _agrees_with_pymatgen([formula for formula in real_formulas if formula.strip()][::20])


def test_every_element_is_in_one_family_and_pymatgen_knows_the_families():
    members = [symbol for family in FAMILIES.values() for symbol in family]
    assert sorted(members) == sorted(Element.from_Z(number).symbol for number in range(1, 104))
    assert set(ELEMENTS) <= set(members)
    assert len(ELEMENTS) == 86
    for family, judge in {
        "alkali": lambda element: element.is_alkali,
        "alkaline_earth": lambda element: element.is_alkaline,
        "lanthanides": lambda element: element.is_lanthanoid,
        "actinides": lambda element: element.is_actinoid,
        "chalcogens": lambda element: element.is_chalcogen,
        "halogens": lambda element: element.is_halogen,
        "noble_gases": lambda element: element.is_noble_gas,
        "triels": lambda element: element.group == 13,
        "tetrels": lambda element: element.group == 14,
        "pnictogens": lambda element: element.group == 15,
        "3d": lambda element: element.row == 4 and 3 <= element.group <= 12,
        "4d": lambda element: element.row == 5 and 3 <= element.group <= 12,
        "5d": lambda element: (
            element.row == 6 and 4 <= element.group <= 12 and not element.is_lanthanoid
        ),
    }.items():
        assert set(FAMILIES[family]) == {symbol for symbol in members if judge(Element(symbol))}, (
            family
        )


def test_rows_beside_held_out_chemistry_keep_their_place_of_the_random_split():
    formulas = [f"Fe{i}O{j}" for i in range(1, 201) for j in range(1, 101)]
    held_out = np.array([formula.startswith("Fe1") for formula in formulas])
    split = roles_around(formulas, held_out)
    assert set(split[held_out]) == {"test"}
    left = split[~held_out]
    # 8,800 rows: three standard errors are 0.01
    assert [np.mean(left == name) for name in ROLES] == pytest.approx([8 / 9, 1 / 9, 0], abs=0.01)
    random = roles_of(formulas)
    assert set(left[random[~held_out] == "train"]) == {"train"}
    # Other rows held out move nobody else, and fewer rows neither: a row's place is its own.
    other = np.array([formula.endswith("O7") for formula in formulas])
    both = ~held_out & ~other
    assert (roles_around(formulas, other)[both] == split[both]).all()
    assert roles_around(formulas[::7], held_out[::7]).tolist() == split[::7].tolist()
    assert (roles_around(formulas, held_out, seed=1) != split).mean() == pytest.approx(
        0.44 * 2 * 8 / 81, abs=0.01
    )


def test_where_a_formula_goes_beside_what_is_held_out_never_changes():
    # Written down once. CSi, test of the random split, has a place above 9/10; O2Ti, val of it, one
    # below 8/9.
    written_down = {"Fe2O3": "train", "O2Ti": "train", "MgO": "train", "CSi": "val", "GaN": "train"}
    split = roles_around(written_down, np.zeros(5, bool))
    assert dict(zip(written_down, split, strict=True)) == written_down
    assert (role_of("CSi"), role_of("O2Ti")) == ("test", "val")
    assert 0.8 < uniform("split", 0, "O2Ti") < 8 / 9 < 0.9 < uniform("split", 0, "CSi")


def test_a_seed_moves_train_and_val_and_never_what_is_held_out():
    found = materials(
        [
            f"Fe{i}{other}{j}"
            for i in range(1, 30)
            for j in range(30, 40)
            for other in ("O", "S", "F")
        ]
    )
    sides = []
    for seed in (0, 1):
        ordered = split_and_order(found, parse_split_rule("element:F", seed))
        side = dict(zip(ordered.formula, ordered.role, strict=True))
        assert {f for f, of in side.items() if of == "test"} == {
            f for f in found.formula if "F" in f.replace("Fe", "")
        }
        sides.append(side)
    assert sides[0] != sides[1]


@pytest.mark.parametrize(
    ("text", "split", "identity", "words"),
    [
        ("random", RANDOM, {"by": "reduced formula", "seed": 0}, ""),
        (
            "element:O",
            SplitRule("element", "O"),
            {"by": "element", "elements": ["O"], "seed": 0},
            "every one that contains O",
        ),
        (
            "element:Cl+F+Cl",
            SplitRule("element", "F+Cl"),
            {"by": "element", "elements": ["F", "Cl"], "seed": 0},
            "every one that contains F or Cl",
        ),
        (
            "family:halogens",
            SplitRule("family", "halogens"),
            {
                "by": "family",
                "family": "halogens",
                "elements": ["F", "Cl", "Br", "I", "At"],
                "seed": 0,
            },
            "every one that contains F, Cl, Br, I or At (halogens)",
        ),
    ],
)
def test_a_split_has_one_identity_and_one_suffix_and_comes_back_from_both(
    text, split, identity, words
):
    assert parse_split_rule(text) == split
    assert split_identity(split) == identity
    assert describe_held_out(identity) == words
    for seed in (0, 1, 12):
        seeded = split._replace(seed=seed)
        assert parse_split_rule(str(seeded), seed) == seeded
        assert rule_of_identity(split_identity(seeded)) == seeded
        for base in ("oqmd-magpie", "mine-n100", "split-3d"):
            assert split_suffix_in(base + split_suffix(seeded)) == split_suffix(seeded)
            assert split_suffix_in(base + split_suffix(seeded) + "-nofilters") == split_suffix(
                seeded
            )


def test_suffixes_are_those_of_the_pages():
    assert split_suffix(RANDOM) == ""
    assert split_suffix(SplitRule(seed=3)) == "-split3"
    assert split_suffix(SplitRule("element", "F+Cl")) == "-element_F+Cl"
    assert split_suffix(SplitRule("family", "alkaline_earth", 2)) == "-family_alkaline_earth-split2"
    assert [
        split_suffix_in(name) for name in ("split1", "a-split0", "a-split1b", "a-split1-c")
    ] == [
        "",
        "",
        "",
        "",
    ]
    assert rule_of_identity({"by": "column"}) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "elment:O",
            "unknown kind of split 'elment' (did you mean 'element'?)",
        ),
        ("element:Ox", "unknown element 'Ox' (did you mean 'O'?); known: Ac, Ag, Al,"),
        ("element:O+", "unknown element ''; known: Ac,"),
        (
            "family:halogen",
            "unknown family of elements 'halogen' (did you mean 'halogens'?)",
        ),
        (
            "element",
            "a split must be random, element:SYMBOL[+SYMBOL...], family:NAME, folds:NUMBER, "
            "got 'element'",
        ),
        (
            "family:",
            "a split must be random, element:SYMBOL[+SYMBOL...], family:NAME, folds:NUMBER, "
            "got 'family:'",
        ),
        (
            "random:5",
            "a split must be random, element:SYMBOL[+SYMBOL...], family:NAME, folds:NUMBER, "
            "got 'random:5'",
        ),
    ],
)
def test_a_split_that_there_is_not_is_refused_with_the_choices(text, sentence):
    with pytest.raises(UserError) as error:
        parse_split_rule(text)
    assert str(error.value).startswith(sentence)


def test_holding_out_nothing_or_everything_is_refused():
    found = materials(["Fe2O3", "FeO", "NaClO"])
    with pytest.raises(UserError) as nothing:
        split_and_order(found, SplitRule("element", "S"))
    assert str(nothing.value) == (
        "split element:S holds out no row: none of 3 rows contains S; known: Cl, Fe, Na, O"
    )
    with pytest.raises(
        UserError, match=r"contains Li, Na, K, Rb, Cs or Fr; known: 3d, chalcogens$"
    ):
        split_and_order(found.take(np.arange(2)), SplitRule("family", "alkali"))
    with pytest.raises(UserError) as everything:
        split_and_order(found, SplitRule("element", "O"))
    assert str(everything.value) == (
        "split element:O leaves no row to train on: all 3 rows contain O"
    )


def test_a_split_of_the_tables_own_is_left_as_it_stands():
    found = dataclasses.replace(materials(["FeO", "FeS"]), role=np.array(["val", "train"], object))
    assert split_and_order(found, RANDOM).role.tolist() == ["train", "val"]


def test_a_pack_holds_out_an_element_says_so_and_is_named_for_it(pack_command, tmp_path):
    (tmp_path / "mine.csv").write_text(OXIDES)
    options = ["--source", "mine.csv", "--features", "elements", "--workers", "1"]
    done = pack_command(*options, "--split", "element:O", "--split-seed", "1")
    assert done.returncode == 0, done.stderr
    assert "         4 held out as test: every one that contains O\n" in done.stdout
    path = tmp_path / "packs/mine-elements-element_O-split1.h5"
    with store.open_pack(path) as pack:
        assert sorted(pack.formulas(pack.rows("test"))) == ["BaTiO3", "Ca(ClO)2", "Fe2O3", "FeO"]
        assert pack.identity["split"] == {"by": "element", "elements": ["O"], "seed": 1}
        assert pack.n_train + pack.n_val == 8
        oxygen = pack.feature_labels.index("O")
        assert (pack.x(pack.rows("test"))[:, oxygen] > 0).all()
        assert not pack.x(slice(0, pack.n_train + pack.n_val))[:, oxygen].any()
    shown = pack_command("--info", path).stdout
    assert "split     by element, elements O, seed 1\n" in shown
    assert "         4 held out as test: every one that contains O\n" in shown
    assert (
        "the pack exists already"
        in pack_command(*options, "--split", "element:O", "--split-seed", "1").stdout
    )
    other = pack_command(*options, "--split", "family:halogens", "--name", path.stem)
    assert other.returncode == 2
    assert "is a different pack, which differs in split;" in other.stderr


def test_a_series_over_families_has_every_row_in_test_as_often_as_it_has_families(
    pack_command, tmp_path
):
    (tmp_path / "mine.csv").write_text(OXIDES)
    tested = []
    for family in ("halogens", "chalcogens", "3d"):
        done = pack_command(
            "--source", "mine.csv", "--features", "elements", "--split", f"family:{family}"
        )
        assert done.returncode == 0, done.stderr
        with store.open_pack(tmp_path / f"packs/mine-elements-family_{family}.h5") as pack:
            tested += pack.formulas(pack.rows("test"))
    formulas = [row["formula"] for row in csv.DictReader(OXIDES.splitlines())]
    count = {formula: tested.count(formula) for formula in formulas}
    assert [count[f] for f in ("Fe2O3", "NaCl", "Ca(ClO)2", "ZnS", "GaAs")] == [2, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--source mine.csv --split element:Fo", "unknown element 'Fo'"),
        (
            "--source mine.csv --split family:halogen",
            "unknown family of elements 'halogen' (did you mean 'halogens'?)",
        ),
        (
            "--source mine.csv --split metals",
            "unknown kind of split 'metals'; known: element, family, folds, random",
        ),
        (
            "--source mine.csv --split element:Xe",
            "split element:Xe holds out no row: none of 12 rows contains Xe;",
        ),
        (
            "--source oxides.csv --split element:O",
            "split element:O leaves no row to train on: all 2 rows contain O",
        ),
        (
            "--source own.csv --split element:O",
            "cannot split by element:O with seed 0: the table has a column named split",
        ),
        (
            "--source own.csv --split-seed 1",
            "cannot split by random with seed 1: the table has a column named split",
        ),
    ],
)
def test_a_mistake_in_a_split_is_one_sentence_and_status_2(
    arguments, sentence, pack_command, tmp_path
):
    (tmp_path / "mine.csv").write_text(OXIDES)
    (tmp_path / "oxides.csv").write_text("formula,band_gap\nFeO,1\nMgO,2\n")
    (tmp_path / "own.csv").write_text("formula,band_gap,split\nFeO,1,train\nMgO,2,val\nAl,0,test\n")
    done = pack_command(*arguments.split(), "--features", "elements")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("packs/*.h5"))


def test_splits_are_near_80_10_10_and_another_seed_gives_others():
    formulas = [f"Fe{i}O{j}" for i in range(1, 201) for j in range(1, 101)]
    split = roles_of(formulas)
    shares = [np.mean(split == name) for name in ROLES]
    assert shares == pytest.approx(
        [0.8, 0.1, 0.1], abs=0.01
    )  # 20,000 rows: three standard errors are 0.0085
    assert np.mean(split == roles_of(formulas, seed=1)) == pytest.approx(
        0.66, abs=0.02
    )  # 0.8² + 2 × 0.1²


def test_the_split_of_a_formula_never_changes():
    # Written down once: results of different versions are comparable only while these stand.
    written_down = {
        "Fe2O3": "train",
        "NaN": "train",
        "O2Ti": "val",
        "MgO": "train",
        "BaO3Ti": "train",
        "CSi": "test",
        "GaN": "train",
    }
    assert {formula: role_of(formula) for formula in written_down} == written_down


def test_rows_of_a_pack_are_train_val_test_in_an_order_that_fewer_rows_keep():
    split = roles_of([f"Fe{i}O{j}" for i in range(1, 31) for j in range(1, 11)])
    line = np.arange(300)
    order = pack_order(line, split)
    assert sorted(order) == list(range(300))
    assert list(split[order]) == sorted(split, key=ROLES.index)
    assert list(order[:50]) != sorted(order[:50])
    fewer = np.flatnonzero(line % 3)
    assert line[fewer][pack_order(line[fewer], split[fewer])].tolist() == [
        row for row in order if row % 3
    ]


def test_a_smaller_sample_is_part_of_a_larger_one():
    small, large = sample(1000, 10), sample(1000, 100)
    assert len(small) == 10
    assert set(small) < set(large)
    assert list(large) == sorted(large)
