"""The packs of all folds, made together, are those that are made one by one."""

import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.pack import cli
from irnet_hpc.pack.store import open_pack


@pytest.fixture
def table(tmp_path):
    lines = [f"Al{n}Ni{n + 1},{n / 9:.3f}" for n in range(1, 41)]
    (tmp_path / "mine.csv").write_text("\n".join(["formula,hardness", *lines, "Al2Ni4,0.7"]))
    return tmp_path / "mine.csv"


def pack(table, folder, *options) -> int:
    command = ["--source", str(table), "--features", "elements", "--unit", "hardness=GPa"]
    command += ["--workers", "1", "--pack-dir", str(folder), *options]
    return exit_status(lambda: cli.main(command))


def test_folds_made_together_are_those_made_one_by_one(table, tmp_path, capsys):
    assert pack(table, tmp_path / "a", "--folds", "3", "--name", "mine") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: python -m irnet_hpc.train")
    for fold in range(3):
        rule = ["--split", "folds:3", "--split-seed", str(fold)]
        assert pack(table, tmp_path / "b", *rule, "--name", f"mine-folds3-fold{fold}") == 0
        name = f"mine-folds3-fold{fold}.h5"
        with open_pack(tmp_path / "a" / name) as one, open_pack(tmp_path / "b" / name) as other:
            assert one.identity == other.identity
            assert (one.n_train, one.n_val) == (other.n_train, other.n_val)
    assert len(list((tmp_path / "a").glob("*.rejected.csv"))) == 3


def test_a_table_with_a_split_of_its_own_takes_no_folds(tmp_path, capsys):
    lines = [f"Al{n}Ni{n + 1},{n},{'train' if n > 5 else 'test'}" for n in range(1, 20)]
    (tmp_path / "own.csv").write_text("\n".join(["formula,hardness,split", *lines]))
    assert pack(tmp_path / "own.csv", tmp_path, "--folds", "3") == 2
    assert "column named split" in capsys.readouterr().err
