"""Packs without rows of a role: said when packing, and the proposed command is one that works."""

import shlex

import pytest

from irnet_hpc.pack.cli import next_step
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import open_pack
from irnet_hpc.pack.summary import describe_empty_roles
from irnet_hpc.train.cli import parser as train_parser


def test_each_empty_role_of_each_property_is_one_sentence():
    counts = {
        "band_gap": {"train": 3, "val": 0, "test": 1},
        "density": {"train": 3, "val": 1, "test": 1},
        "volume": {"train": 0, "val": 1, "test": 0},
    }
    sentences = describe_empty_roles(counts)
    assert [sentence.partition(",")[0] for sentence in sentences] == [
        "no val row reports band_gap",
        "no train row reports volume",
        "no test row reports volume",
    ]
    assert "--protocol paper" in sentences[0]


@pytest.mark.parametrize(
    ("rows", "warned", "proposed", "protocol"),
    [
        # band_gap has no val row, density has; then none has one; then none can be trained.
        (
            ["GaAs,1,,train", "ZnO,2,,test", "Si,,3,train", "Ge,,4,val", "InP,,5,test"],
            ["band_gap"],
            "density",
            "honest",
        ),
        (["GaAs,1,,train", "ZnO,2,,test", "Si,1,,train"], ["band_gap"], "band_gap", "paper"),
        (["GaAs,1,2,train", "ZnO,2,3,train"], 2 * ["band_gap", "density"], None, None),
    ],
)
def test_a_pack_without_val_rows_says_so(tmp_path, caplog, rows, warned, proposed, protocol):
    table = tmp_path / "t.csv"
    table.write_text("formula,band_gap,density,split\n" + "".join(f"{row}\n" for row in rows))
    # In a notebook nothing is set up that shows the level INFO.
    path = pack_source(
        PackOptions(table, features="elements", pack_dir=tmp_path / "packs", workers=1)
    )
    lines = [line for line in caplog.messages if line.startswith("warning: no ")]
    found = [line.partition("reports ")[2].partition(",")[0] for line in lines]
    assert sorted(found) == sorted(warned)
    with open_pack(path) as pack:
        command = shlex.split(next_step(pack, pack.name, None))
    if proposed is None:
        assert command[2:] == ["irnet_hpc.pack", "--info", "t-elements"]
        return
    arguments = train_parser().parse_args(command[3:])
    assert arguments.property == proposed and arguments.protocol == protocol
