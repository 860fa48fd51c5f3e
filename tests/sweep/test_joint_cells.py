"""Cells of a matrix with several properties in one network."""

import textwrap

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.train import cli as train
from irnet_hpc.train.options import read_request
from irnet_hpc.train.request import specify
from tests.builders import write_pack, write_result


@pytest.fixture
def matrix_of(tmp_path):
    write_pack(
        tmp_path / "packs",
        "alloys-magpie",
        {"mixing_enthalpy": "eV/atom", "size_mismatch": "%", "glow": "lm"},
    )

    def read(properties: str, models: str = "[irnet-17]"):
        path = tmp_path / "mine.yaml"
        path.write_text(
            textwrap.dedent(f"""
            packs: [alloys-magpie]
            properties: {properties}
            models: {models}
            seeds: [0, 1]
        """)
        )
        return read_matrix(path, tmp_path / "packs")

    return read


def test_names_joined_by_commas_are_one_cell_of_a_matrix_and_what_train_is_given(
    matrix_of, tmp_path
):
    matrix = matrix_of('[glow, "size_mismatch,glow"]')
    assert [(cell.spec.property, cell.spec.seed) for cell in matrix.cells] == [
        *(("glow", 0), ("size_mismatch,glow", 0), ("glow", 1), ("size_mismatch,glow", 1)),
    ]
    entry = read_ledger(matrix, tmp_path / "results").cells[1]
    options = train_options(entry, tmp_path / "results", tmp_path / "packs")
    request, spec = read_request(train.parser().parse_args(options)), matrix.cells[1].spec
    assert [cell for cell, _ in specify(request, spec.pack, None)] == [spec]
    write_result(matrix, matrix.cells[1], tmp_path / "results")
    found = [entry.state for entry in read_ledger(matrix, tmp_path / "results").cells]
    assert found == ["missing", "done", "missing", "missing"]


def test_all_and_a_joint_cell_stand_side_by_side(matrix_of):
    cells = matrix_of('[all, "glow,size_mismatch"]').cells
    assert len({cell.spec.property for cell in cells}) == 4


def test_what_cannot_be_trained_together_is_dropped_with_the_reason(matrix_of):
    matrix = matrix_of(
        '["glow,band_gap", "glow,size_mismatch", glow]', "[irnet-17, ridge, random_forest]"
    )
    assert [(d.product, d.n_cells) for d in matrix.dropped] == [
        ("alloys-magpie × glow,band_gap", 2),
        ("alloys-magpie × glow,size_mismatch × grid", 4),
    ]
    assert matrix.dropped[0].reason == "the pack has glow, mixing_enthalpy, size_mismatch"
    assert matrix.dropped[1].reason == "classical models predict one property each"
    assert [(c.spec.property, c.spec.model) for c in matrix.cells if c.spec.seed == 0] == [
        *(
            ("glow,size_mismatch", "irnet-17"),
            ("glow", "irnet-17"),
            ("glow", "ridge"),
            ("glow", "random_forest"),
        ),
    ]


@pytest.mark.parametrize(
    ("properties", "sentence"),
    [
        (
            '["glow,sise_mismatch"]',
            r"unknown property 'sise_mismatch' \(did you mean 'size_mismatch'\?\)",
        ),
        ('["glow,glow"]', "property .*once.* glow"),
        ('["glow,"]', "commas.* 'glow,'"),
        ('["glow,all"]', "unknown property 'all'"),
    ],
)
def test_a_list_that_is_none_is_refused_with_the_file(matrix_of, properties, sentence):
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{sentence}"):
        matrix_of(properties)
