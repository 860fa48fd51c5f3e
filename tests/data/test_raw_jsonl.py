"""Raw tables of JSON lines: structures, good and bad."""

import gzip
import json
import lzma

import numpy as np
import pytest

from irnet_hpc.data.crystals import Crystal, Unsuitable, stack_crystals
from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_jsonl import parse_structure
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.pack.select import select
from tests.builders import load_table

CUBE = [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]
CSCL = {
    "material_id": "mine-1",
    "lattice": CUBE,
    "species": ["Cs", "Cl"],
    "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "targets": {"band_gap": 5.4, "formation_energy": -2.2},
}
IRON = {
    "lattice": [[2.87, 0, 0], [0, 2.87, 0], [0, 0, 2.87]],
    "species": ["Fe", "Fe"],
    "frac_coords": [[0, 0, 0], [0.5] * 3],
}


@pytest.fixture
def write(tmp_path):
    def write(*entries: dict | str, name: str = "mine.jsonl", end: str = "\n") -> str:
        lines = [
            entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
            for entry in entries
        ]
        content = ("\n".join(lines) + end).encode()
        if name.endswith(".gz"):
            content = gzip.compress(content)
        elif name.endswith(".xz"):
            content = lzma.compress(content)
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


def test_a_table_with_structures_is_read_packed_or_not(write):
    other = {**IRON, "targets": {"band_gap": None}, "formula": "Fe", "comment": "bcc"}
    for name in ("mine.jsonl", "mine.jsonl.gz", "mine.jsonl.xz"):
        loaded = load_table(write(CSCL, "", other, name=name), structures=True)
        table = loaded.table
        assert loaded.units == {"band_gap": "eV", "formation_energy": "eV/atom"}
        assert (table.formula, table.material_id) == (["CsCl", "Fe"], ["mine-1", "mine-2"])
        assert table.line.tolist() == [1, 3]  # the blank line counts
        np.testing.assert_array_equal(table.targets["band_gap"], [5.4, np.nan])
        np.testing.assert_array_equal(table.targets["formation_energy"], [-2.2, np.nan])
        assert table.ignored == ("comment",)
        cscl, iron = table.crystals[0], table.crystals[1]
        np.testing.assert_array_equal(cscl.lattice, 4 * np.eye(3))
        assert (cscl.number.tolist(), iron.number.tolist()) == ([55, 17], [26, 26])
        np.testing.assert_array_equal(cscl.position, [[0, 0, 0], [0.5, 0.5, 0.5]])
        assert table.crystals.problem.tolist() == [None, None]
    assert resolve_source("somewhere/mine.jsonl.xz").name == "mine"


def test_crystals_keep_their_sites_in_any_order_of_rows():
    one = Crystal(np.eye(3), np.array([11], np.int16), np.zeros((1, 3)))
    two = Crystal(2 * np.eye(3), np.array([17, 8], np.int16), np.array([[0, 0, 0.5], [0.25, 0, 0]]))
    crystals = stack_crystals([one, Unsuitable("no structure", ""), two]).take(
        np.array([2, 1, 0, 2])
    )
    assert crystals.n_sites.tolist() == [2, 0, 1, 2]
    assert crystals.problem.tolist() == [None, ("no structure", ""), None, None]
    for row in (0, 3):
        assert crystals[row].number.tolist() == [17, 8]
        np.testing.assert_array_equal(crystals[row].position, two.position)
    assert crystals[2].lattice[0, 0] == 1


@pytest.mark.parametrize(
    ("change", "reason", "detail", "formula"),
    [
        (
            {"species": ["Cs", {"Cl": 0.5, "Br": 0.5}]},
            "disordered site",
            '{"Cl": 0.5, "Br": 0.5}',
            "CsCl0.5Br0.5",
        ),
        ({"species": ["Cs", {"Cl": 0.9}]}, "disordered site", '{"Cl": 0.9}', "CsCl0.9"),
        ({"lattice": CUBE[:2]}, "structure not readable", "lattice must be 3 × 3 numbers", "CsCl"),
        (
            {"lattice": [["a", 0, 0], *CUBE[1:]]},
            "structure not readable",
            "lattice must be 3 × 3 numbers",
            "CsCl",
        ),
        (
            {"frac_coords": [[0, 0, 0]]},
            "structure not readable",
            "frac_coords must be 2 × 3 numbers",
            "CsCl",
        ),
        (
            {"frac_coords": None},
            "structure not readable",
            "frac_coords must be 2 × 3 numbers",
            "CsCl",
        ),
        (
            {"frac_coords": [[0, 0, 0], [0, 0, 10**400]]},
            "structure not readable",
            "frac_coords must be 2 × 3 numbers",
            "CsCl",
        ),
        ({"formula": "CsBr"}, "formula and structure disagree", "ClCs", "CsBr"),
        (
            {"formula": "Cs", "species": []},
            "structure not readable",
            "species must be a list of symbols",
            "Cs",
        ),
        (
            {"formula": "CsCl", "species": ["Cs", 17]},
            "structure not readable",
            "a site's species is 17",
            "CsCl",
        ),
        (
            {"formula": "CsCl", "species": ["Cs", {"Cl": 2}]},
            "structure not readable",
            "a site's species is {'Cl': 2}",
            "CsCl",
        ),
    ],
)
def test_a_structure_that_is_none_leaves_its_row_without_a_crystal(
    write, change, reason, detail, formula
):
    table = load_table(write(CSCL, {**CSCL, **change})).table
    assert table.crystals.problem.tolist() == [None, (reason, detail)]
    assert table.crystals.n_sites.tolist() == [2, 0]
    assert table.formula == ["CsCl", formula]


def test_charges_are_read_as_the_element_and_one_whole_atom_as_itself(write):
    table = load_table(
        write({**CSCL, "species": ["Cs+", "Cl1-"]}, {**CSCL, "species": [{"Cs": 1}, {"Cl-": 1.0}]})
    ).table
    assert table.formula == ["CsCl", "CsCl"]
    assert table.crystals.number.tolist() == [55, 17, 55, 17]


def test_the_formula_of_an_unknown_element_is_what_rejects_its_row(write):
    table = load_table(
        write(CSCL, {**CSCL, "species": ["Xx", "O"]}, {**CSCL, "species": ["D", "Cl"]})
    ).table
    materials, rejected, *_ = select(table, ["magpie"], Source("", ()))
    assert list(materials.formula) == ["CsCl"]
    assert [(row.line, row.reason) for row in rejected] == [
        (2, "formula not readable"),
        (3, "isotope, not an element"),
    ]


def test_wrong_species_are_the_reason_where_they_should_give_the_formula(write):
    table = load_table(
        write(
            CSCL,
            {**CSCL, "species": ["Cs", {"Cl": 2}]},
            {"formula": "", "targets": {"band_gap": 1}},
        )
    ).table
    _, rejected, *_ = select(table, ["magpie"], Source("", ()))
    assert [(row.line, row.reason, row.detail) for row in rejected] == [
        (2, "structure not readable", "a site's species is {'Cl': 2}"),
        (3, "formula is empty", ""),
    ]


@pytest.mark.parametrize("name", ["structure", "asph"])
def test_lattices_that_are_absurd_flat_or_skewed_are_judged_alike_and_not_warned_of(
    write, name, recwarn
):
    skewed = (
        np.array([[1, 0, 0], [1e5, 1, 0], [1e5, 0, 1]]) @ CUBE
    )  # digits enough; its vectors span 4e-10 of a box
    lattices = [
        CUBE,
        skewed,
        1e308 * np.eye(3),
        np.zeros((3, 3)),
        [[1, 0, 0], [0, 1, 0], [1, 1, 0]],
    ]
    iron = [
        {**IRON, "lattice": np.array(lattice).tolist(), "targets": {"band_gap": 0}}
        for lattice in lattices
    ]
    position = np.array(IRON["frac_coords"]) @ np.linalg.inv(skewed / 4)
    iron[1]["frac_coords"] = (position % 1).tolist()
    materials, rejected, *_ = select(
        load_table(write(*iron), structures=True).table, [name], Source("", ())
    )
    assert not rejected  # until someone asks for features
    found = features.describe([name], materials)
    np.testing.assert_allclose(found.x[1], found.x[0], rtol=1e-5, atol=1e-6)
    assert {row: reason for row, (reason, _) in found.unsuited.items()} == {
        2: "structure not readable",
        3: "lattice of no volume",
        4: "lattice of no volume",
    }
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_further_numbers_are_features_beside_those_of_the_structure(write):
    own = {
        "pressure": 1,
        "comment": "dry",
        "band_gap": 2.0,
        "mixed": 1,
        "targets": {"band_gap": 5.4, "hardness": 3},
    }
    rows = [
        {**CSCL, **own},
        {**CSCL, "mixed": "x"},
        {**CSCL, "pressure": None},
        {**CSCL, "pressure": 2.5, "mixed": "y"},
    ]
    table = load_table(write(*rows), columns=True, structures=True).table
    assert table.columns.keys() == {"pressure"}
    np.testing.assert_array_equal(table.columns["pressure"], [1, np.nan, np.nan, 2.5])
    assert table.ignored == (
        "band_gap",
        "comment",
        "hardness",
        "mixed",
    )  # a property stands among the targets, or nowhere
    materials, rejected, *_ = select(table, ["columns", "structure"], Source("", ()))
    assert [row.reason for row in rejected] == ["feature column empty"] * 2
    found = features.describe(["columns", "structure"], materials)
    assert found.x.shape == (2, 1 + 126)
    assert (found.x[:, 0].tolist(), found.unsuited) == ([1, 2.5], {})
    assert load_table(write(*rows), structures=True).table.columns == {}
    large = '{"formula": "CsCl", "pressure": 1e999, "targets": {}}'
    faults = load_table(write({**CSCL, "pressure": 1}, large), columns=True).table.faults
    assert [(row, fault.column, fault.reason) for row, fault in faults.items()] == [
        (1, "pressure", "not a finite number")
    ]


def test_polymorphs_of_one_formula_stay_where_the_source_keeps_them(write):
    other = {
        **CSCL,
        "material_id": "mine-2",
        "lattice": (6.9 * np.eye(3)).tolist(),
        "targets": {"formation_energy": -2.3},
    }
    table = load_table(write(CSCL, other)).table
    one, rejected, *_ = select(table, ["magpie"], SOURCES["mp"])
    assert (list(one.material_id), len(rejected)) == (["mine-2"], 1)  # the entry of lowest energy
    assert one.crystals[0].lattice[0, 0] == 6.9
    both, rejected, *_ = select(table, ["magpie"], SOURCES["mp"]._replace(polymorphs=True))
    assert (list(both.material_id), rejected) == (["mine-1", "mine-2"], [])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            [CSCL, json.dumps(CSCL)[:60]],
            r"line 2 is not a JSON object: .*is the file incomplete\?",
        ),
        ([json.dumps(CSCL)[:60], CSCL], r"line 1 is not a JSON object: .*$"),
        (["[1, 2]"], "line 1 is not an object with species or a formula"),
        ([{"lattice": CUBE, "targets": {}}], "line 1 is not an object with species or a formula"),
        (
            ['{"formula": "CsCl", "targets": {"band_gap": 1, "band_gap": 2}}'],
            "the key 'band_gap' appears twice",
        ),
        (
            ['{"formula": "CsCl", "targets": {"band_gap": NaN}}'],
            "NaN is not a JSON number; leave out values that are not reported",
        ),
        (
            [{**CSCL, "targets": {"band_gap": "5.4?"}}],
            "line 1: band_gap must be a finite number.*got '5.4\\?'",
        ),
        (
            [{**CSCL, "targets": {"band_gap": True}}],
            "line 1: band_gap must be a finite number.*got 'True'",
        ),
        ([{**CSCL, "targets": [5.4]}], "line 1: targets must map properties to numbers"),
        ([{**CSCL, "material_id": 7}], "line 1: material_id must be text, got 7"),
        (
            [{**CSCL, "split": "train"}, CSCL],
            r"have a split \(1 of 2\); give one to every line or to none",
        ),
        ([{**CSCL, "split": "dev"}], "line 1: split must be train, val, test, got 'dev'"),
        (
            [{**CSCL, "targets": {"band_gap": 10**400}}],
            "line 1: band_gap must be a finite number.*got '1000",
        ),
        (["[" * 100_000], "line 1 is not a JSON object: brackets are nested too deeply"),
        (
            [{**CSCL, "x": json.loads("[" * 500 + "]" * 500)}, {**CSCL, "material_id": 7}],
            "line 2: material_id must be text",
        ),
        (
            ['{"formula": "CsCl", "material_id": "\\udCff"}'],
            "line 1 is not a JSON object: .* surrogates not allowed",
        ),
        (
            [{**CSCL, "material_id": "mp-1\0"}],
            r"line 1: material_id must be text without NUL, got ",
        ),
        ([{**CSCL, "targets": {"hardness": 1}}], "no column named like a property"),
        ([{**CSCL, "targets": {}}], "no column named like a property"),
    ],
)
def test_a_table_that_is_not_sound_is_one_sentence(write, lines, sentence):
    with pytest.raises(UserError, match=sentence):
        load_table(write(*lines, end=""))


@pytest.mark.parametrize(
    "name",
    ["mine.jsonl", "mine.jsonl.gz", "mine.jsonl.xz", "mine.csv", "mine.csv.xz", "mine.csv.gz"],
)
def test_an_empty_file_is_one_sentence(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"is empty|cannot be unpacked, because it is incomplete"):
        load_table(str(tmp_path / name))


def test_a_table_of_formulas_has_no_structures(tmp_path):
    (tmp_path / "mine.csv").write_text("formula,band_gap\nCsCl,5.4\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"structures are needed, but .*mine\.csv has only formulas"
    ):
        load_table(str(tmp_path / "mine.csv"), structures=True)
    with pytest.raises(
        UserError,
        match=r"no raw table with structures of mp was found in .*for mp\.jsonl, mp\.jsonl\.gz",
    ):
        load_table("mp", tmp_path, structures=True)


# NaCl of JARVIS: the same crystal with fractional and with Cartesian coordinates.
NACL = {
    "lattice": [[3.4361, 0, 1.98383], [1.14537, 3.23958, 1.98383], [0, 0, 3.96766]],
    "species": ["Na", "Cl"],
    "targets": {"band_gap": 5.0},
}


@pytest.mark.parametrize(
    ("chlorine", "coordination"),
    [
        ([0.5, 0.5, 0.5], 6),
        ([-0.5, 0.5, 1.5], 6),  # beside the cell
        ([2.290735, 1.61979, 3.96766], None),  # in Å
        ([0.5, 0.5, -1.1], None),
        ([180, 180, 180], None),
    ],
)
def test_coordinates_in_angstrom_are_not_read_as_fractions(chlorine, coordination, write):
    table = load_table(write({**NACL, "frac_coords": [[0, 0, 0], chlorine]})).table
    assert table.formula == ["NaCl"]
    (problem,) = table.crystals.problem
    if coordination is None:
        wrong = next(number for number in chlorine if not -1 <= number <= 2)
        assert problem[0] == "coordinates not fractional" and f"{wrong:g}" in problem[1]
        return
    assert problem is None
    materials, _ = parse_materials(table)
    x = features.describe(["structure"], materials).x
    labels = features.feature_labels(["structure"], materials)
    assert x[0, labels.index("mean CN_VoronoiNN")] == pytest.approx(coordination, abs=1e-4)


@pytest.mark.parametrize(
    ("site", "formula", "problem"),
    [
        ({"Fe2+": 0.5, "Fe3+": 0.5}, "FeO", None),
        ({"Fe": 0.9999999999}, "FeO", None),
        ({"Cu+": 0.1, "Cu2+": 0.2, "Cu": 0.7}, "CuO", None),
        ({"Mn3+": 0.25, "Mn4+": 0.25, "Fe": 0.5}, "Mn0.5Fe0.5O", "disordered site"),
        ({"Li": 0.25, "Li+": 0.25}, "Li0.5O", "disordered site"),
        ({"Cd": 0.34, "Zn": 0.67}, "Cd0.34Zn0.67O", "disordered site"),
        ({"Co": 0.9, "Ni": 0.9}, "", "structure not readable"),
        ({"Fe2+": 0.6, "Fe3+": 0.6}, "", "structure not readable"),
    ],
)
def test_amounts_of_one_element_on_a_site_add_up(site, formula, problem):
    entry = {"species": [site, "O2-"], "lattice": CUBE, "frac_coords": [[0, 0, 0], [0.5] * 3]}
    crystal, found = parse_structure(entry)
    assert found == formula
    if problem:
        assert isinstance(crystal, Unsuitable) and crystal.args[0] == problem
    else:
        assert crystal.number.tolist() == [NUMBER[formula.removesuffix("O")], 8]


def test_a_site_of_mixed_valence_is_not_disordered_in_a_table(tmp_path):
    entry = {
        "material_id": "mixed",
        "lattice": CUBE,
        "species": [{"Fe2+": 0.5, "Fe3+": 0.5}, "O2-"],
        "frac_coords": [[0, 0, 0], [0.5] * 3],
        "targets": {"band_gap": 1.0},
    }
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(entry) + "\n")
    table = load_table(str(path), structures=True).table
    assert list(table.formula) == ["FeO"] and table.crystals.problem.tolist() == [None]
