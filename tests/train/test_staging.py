"""A node's copy of a pack: made once, whole, for its user alone, and only where there is room."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import open_pack
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.matrix.resources import Resources
from irnet_hpc.train import cli as train
from irnet_hpc.train import staging
from irnet_hpc.train.staging import stage
from tests import builders

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def pack(tmp_path):
    with open_pack(
        builders.write_pack(tmp_path / "packs", "mine-columns", {"band_gap": "eV"})
    ) as pack:
        yield pack


def test_the_copy_is_the_pack_and_is_made_once(pack, tmp_path):
    copy, why = stage(pack, str(tmp_path / "node"))
    assert why is None and copy.read_bytes() == pack.path.read_bytes()
    content = pack.identity["content_sha256"]
    assert copy == tmp_path / "node" / f"irnet-{os.getuid()}" / content[:16] / "mine-columns.h5"
    assert copy.parent.parent.stat().st_mode & 0o777 == 0o700
    before = copy.stat()
    assert stage(pack, str(tmp_path / "node")) == (copy, None)
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(p.name for p in copy.parent.iterdir()) == [".lock", "mine-columns.h5"]


def test_what_is_no_copy_of_the_pack_is_replaced(pack, tmp_path):
    copy, _ = stage(pack, str(tmp_path / "node"))
    whole = pack.path.read_bytes()
    leftover = copy.with_name(
        ".mine-columns.0123abcd.tmp.h5"
    )  # of a process that was killed as it copied
    for wrong in (whole[:-1], b"\0" * len(whole)):
        copy.write_bytes(wrong)
        leftover.write_bytes(whole[:10])
        assert stage(pack, str(tmp_path / "node")) == (copy, None)
        assert copy.read_bytes() == whole and not leftover.exists()


def test_packs_of_one_name_and_other_content_have_copies_of_their_own(pack, tmp_path):
    other = builders.write_pack(tmp_path / "others", "mine-columns", {"band_gap": "eV"}, rows=12)
    with open_pack(other) as second:
        copies = [stage(one, str(tmp_path / "node"))[0] for one in (pack, second)]
    assert [copy.read_bytes() for copy in copies] == [pack.path.read_bytes(), other.read_bytes()]


def test_without_room_the_pack_is_read_where_it_is_and_a_sentence_says_so(
    pack, tmp_path, monkeypatch
):
    n_bytes = pack.path.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, n_bytes - 1))
    path, why = stage(pack, str(tmp_path / "node"))
    assert path == pack.path
    assert (
        why.startswith(f"the pack is not copied to this node but read from {pack.path}: ")
        and "MiB free" in why
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, n_bytes))
    assert stage(pack, str(tmp_path / "node"))[1] is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_meanwhile_leaves_no_part_of_a_copy(pack, tmp_path, monkeypatch):
    def onto_a_full_disk(source, target):
        target.write_bytes(source.read_bytes()[:100])
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    monkeypatch.setattr(staging.shutil, "copyfile", onto_a_full_disk)
    path, why = stage(pack, str(tmp_path / "node"))
    assert path == pack.path and "MiB free" in why
    assert [p.name for p in (tmp_path / "node").rglob("*") if p.is_file()] == [".lock"]


def test_auto_is_the_scheduler_s_folder_then_the_user_s_and_none_where_there_is_none(
    pack, tmp_path
):
    of_job, of_user = str(tmp_path / "job"), str(tmp_path / "user")
    copy, _ = stage(pack, "auto", {"SLURM_TMPDIR": of_job, "TMPDIR": of_user})
    assert copy.is_relative_to(of_job)
    copy, _ = stage(pack, "auto", {"TMPDIR": of_user})
    assert copy.is_relative_to(of_user)
    path, why = stage(pack, "auto", {})
    assert path == pack.path and why.endswith("neither $SLURM_TMPDIR nor $TMPDIR is set")
    assert stage(pack, None, {"SLURM_TMPDIR": of_job}) == (
        pack.path,
        None,
    )  # only where it is asked for


def test_a_folder_in_which_others_can_write_is_not_trusted(pack, tmp_path):
    folder = tmp_path / f"irnet-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match="a folder that only its user can write"):
        stage(pack, str(tmp_path))
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(UserError, match="a folder that only its user can write"):
        stage(pack, str(tmp_path))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r".*file"):
        stage(pack, str(file))


def test_of_processes_that_start_together_one_copies(pack, tmp_path):
    code = (
        "import shutil, sys, time\n"
        "from irnet_hpc.train.staging import stage\n"
        "from irnet_hpc.pack.store import open_pack\n"
        "copyfile = shutil.copyfile\n"
        "def counted(*args):\n"
        "    print('copies', flush=True); time.sleep(0.5); return copyfile(*args)\n"
        "shutil.copyfile = counted\n"
        "with open_pack(sys.argv[1]) as pack: print(stage(pack, sys.argv[2])[0])\n"
    )
    line = [sys.executable, "-c", code, str(pack.path), str(tmp_path / "node")]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = "".join(process.communicate(timeout=600)[0] for process in processes).splitlines()
    assert said.count("copies") == 1 and len(set(said) - {"copies"}) == 1 and len(said) == 4


def test_a_training_reads_the_copy_and_says_so(alloys_pack, tmp_path, capsys):
    line = ["--pack", alloys_pack, "--property", "mixing_enthalpy"]
    line += [
        "--layers",
        "16A-1",
        "--results",
        tmp_path / "results",
        "--stage-dir",
        tmp_path / "node",
    ]
    line += [
        "--recipe",
        "{name: q, base: onecycle, epochs: 1, batch: 64, norm_group: 32}",
        "--data",
        "stream",
    ]
    assert train.main([*map(str, line)]) == 0
    assert "data: streamed from a copy on the node" in capsys.readouterr().out
    result = json.loads(next((tmp_path / "results").rglob("result.json")).read_text())
    assert result["attempts"][0]["data"] == "streamed from a copy on the node"
    assert (
        result["spec"]["pack"] == "alloys-small"
        and len(list((tmp_path / "node").rglob("alloys-small.h5"))) == 1
    )


# --------------------------------------------------------------------------------------------------
# ---------- a matrix


def matrix_of(folder: Path, more: str):
    path = folder / "m.yaml"
    text = (
        "packs: [{name: mine-columns, source: alloys}]\nproperties: [mixing_enthalpy]\n"
        f"models: [plain-17]\n{more}"
    )
    path.write_text(text)
    return read_matrix(path, folder / "packs")


def test_a_matrix_says_where_its_cells_keep_their_copies(tmp_path):
    matrix = matrix_of(tmp_path, "resources: {stage_dir: auto, minutes: 5}\n")
    (entry,) = read_ledger(matrix, tmp_path / "results").cells
    options = train_options(entry, tmp_path / "results", None)
    assert options[options.index("--stage-dir") + 1] == "auto"
    (entry,) = read_ledger(matrix_of(tmp_path, ""), tmp_path / "results").cells
    assert "--stage-dir" not in train_options(entry, tmp_path / "results", None)


def test_a_folder_of_a_node_is_stated_in_full_and_for_those_who_read_packs(tmp_path):
    assert Resources(stage_dir="/local/scratch").stage_dir == "/local/scratch"
    for wrong in ("scratch", 7, True):
        with pytest.raises(UserError, match="stage_dir"):
            Resources(stage_dir=wrong)
    with pytest.raises(UserError, match="pack_resources must not have stage_dir"):
        matrix_of(tmp_path, "pack_resources: {stage_dir: auto}\n")
