"""Wheels that contain data: fetched by pip from an index on loopback, with its faults."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from irnet_hpc.data.download import pip, wheels
from irnet_hpc.data.download.obtain import ensure, fetch
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from tests.builders import load_table
from tests.conftest import ROOT
from tests.data.download.wheel_index import Index, crabnet_wheel, make_wheel
from tests.data.http_server import Oqmd, some_rows

TABLES = {
    "OQMD_Formation_Enthalpy": {
        "train": {"Cl1Cs1": "-2.05", "Fe2O3": "-1.50"},
        "val": {"Mg1O1": "-3.000"},
        "test": {"Na1N1": "0.25"},
    },
    "OQMD_Bandgap": {"train": {"Na1N1": "0.0", "Mg1O1": "4.5"}, "test": {"Cl1Cs1": "5.25"}},
    "OQMD_Volume_per_atom": {"val": {"Fe2O3": "10.1"}},
    "OQMD_Energy_per_atom": {"test": {"Fe2O3": "-6.70"}},
}
PIP = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_CERT": ""}


@pytest.fixture
def crabnet(monkeypatch, tmp_path):
    """Make a small wheel of CrabNet the one that is expected; keep it in a cache of the test."""
    made = crabnet_wheel(TABLES, {})
    monkeypatch.setattr(wheels, "CRABNET", made.wheel)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PIP_CERT", raising=False)
    for name, value in PIP.items():
        if value or name in os.environ:
            monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def index(serve, monkeypatch):
    """Start an index that pip asks and no other."""

    def start(*made):
        server = serve(Index(*made))
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
        return server

    return start


def oqmd(tmp_path: Path):
    return resolve_source("oqmd", tmp_path / "data")


def test_oqmd_comes_from_the_wheel_with_its_four_tables_joined(crabnet, index, tmp_path):
    index(crabnet)
    ensure(oqmd(tmp_path))
    loaded = load_table("oqmd", tmp_path / "data")
    assert list(loaded.table.formula) == ["Cl1Cs1", "Fe2O3", "Mg1O1", "Na1N1"]
    values = {name: column.tolist() for name, column in loaded.table.targets.items()}
    assert values["formation_energy"] == [-2.05, -1.5, -3.0, 0.25]
    gaps, volumes, energies = (
        values[name] for name in ("band_gap", "volume_per_atom", "energy_per_atom")
    )
    assert [gap for gap in gaps if gap == gap] == [5.25, 4.5, 0.0]
    assert volumes[1] == 10.1 and energies[1] == -6.7
    assert loaded.table.role is None  # the published parts are not ours
    assert loaded.source.licence == "CC BY 4.0" and loaded.notes


def test_a_wheel_is_fetched_once_and_a_damaged_one_again(crabnet, index, tmp_path):
    server = index(crabnet)
    (path,) = wheels.obtain_wheels([crabnet.wheel]).values()
    assert path.read_bytes() == crabnet.body
    n_requests = len(server.requests)
    wheels.obtain_wheels([crabnet.wheel])
    assert len(server.requests) == n_requests
    path.write_bytes(crabnet.body[:-1])
    wheels.obtain_wheels([crabnet.wheel])
    assert path.read_bytes() == crabnet.body and len(server.requests) > n_requests
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_given_wheel_needs_no_network_and_must_be_the_right_one(crabnet, monkeypatch, tmp_path):
    monkeypatch.setenv("IRNET_OFFLINE", "1")
    own = tmp_path / "renamed.whl"
    own.write_bytes(crabnet.body)
    fetch(oqmd(tmp_path), wheels=[own])
    assert len(load_table("oqmd", tmp_path / "data").table) == 4
    own.write_bytes(crabnet.body + b" ")
    with pytest.raises(UserError, match=crabnet.wheel.sha256):
        fetch(resolve_source("oqmd", tmp_path / "other"), wheels=[own])
    with pytest.raises(UserError, match="does not exist"):
        fetch(resolve_source("oqmd", tmp_path / "other"), wheels=[tmp_path / "none.whl"])
    with pytest.raises(UserError, match="IRNET_OFFLINE"):
        fetch(resolve_source("oqmd", tmp_path / "other"))
    with pytest.raises(UserError, match="--wheel is for oqmd"):
        ensure(resolve_source("alloys", tmp_path), wheels=[own])


def test_an_index_without_the_wheel_is_one_sentence(crabnet, index, tmp_path):
    index(make_wheel("other", "1", {}))
    with pytest.raises(UserError, match=r"the index that pip uses lacks crabnet==2\.0\.8"):
        fetch(oqmd(tmp_path))
    index(make_wheel("crabnet", "2.0.7", {}))
    with pytest.raises(UserError, match=r"the index that pip uses lacks crabnet==2\.0\.8"):
        fetch(oqmd(tmp_path))


def test_another_file_of_the_same_name_is_refused(crabnet, index, tmp_path):
    other = crabnet_wheel(TABLES | {"OQMD_Bandgap": {"train": {"Mg1O1": "9.9"}}}, {"more": []})
    assert len(other.body) > len(crabnet.body)
    index(other)
    with pytest.raises(
        UserError, match=f"{crabnet.wheel.sha256}, got {other.wheel.sha256}.*--wheel"
    ):
        fetch(oqmd(tmp_path))
    assert not wheels.is_cached(crabnet.wheel)
    assert not (tmp_path / "data" / "oqmd.csv.xz").exists()


def test_a_torn_download_is_one_sentence_and_leaves_nothing(crabnet, index, tmp_path):
    index(crabnet._replace(body=crabnet.body[:700]))
    with pytest.raises(UserError, match=r"crabnet==2\.0\.8 was not fetched: it came damaged"):
        fetch(oqmd(tmp_path))
    server = index(crabnet)
    server.faults = {
        n: lambda answer: answer._replace(cut=len(answer.body) // 2) for n in range(1, 99)
    }
    with pytest.raises(UserError, match=r"crabnet==2\.0\.8 was not fetched"):
        fetch(oqmd(tmp_path))
    assert not any(wheels.cache_folder().glob("*.whl"))
    server.faults = {}
    fetch(oqmd(tmp_path))


def test_without_a_network_a_job_says_that_the_login_node_has_one(crabnet, monkeypatch, tmp_path):
    monkeypatch.setenv("IRNET_OFFLINE", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="pip reaches no index; you can also"):
        fetch(oqmd(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(UserError, match="pip reaches no index; this is a job"):
        fetch(oqmd(tmp_path))


def test_a_disk_without_room_is_one_sentence(crabnet, index, tmp_path):
    index(crabnet)
    # A limit on the size of files: the child's writes fail as on a full disk.
    program = (
        "import resource, sys; from irnet_hpc.data.download import wheels; "
        "from irnet_hpc.errors import UserError; "
        f"wheel = wheels.Wheel('crabnet', '2.0.8', '{crabnet.wheel.sha256}', 1000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "try:\n    wheels.obtain_wheels([wheel])\n"
        "except UserError as error:\n    print(error)\n    sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert "there is no room in" in done.stdout and "XDG_CACHE_HOME" in done.stdout


def test_a_cache_that_cannot_be_written_is_one_sentence(crabnet, monkeypatch, tmp_path):
    monkeypatch.setenv("IRNET_OFFLINE", "")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        fetch(oqmd(tmp_path))


def test_a_python_without_pip_is_one_sentence(crabnet, monkeypatch, tmp_path):
    monkeypatch.setenv("IRNET_OFFLINE", "")
    monkeypatch.setattr(pip.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip is needed"):
        fetch(oqmd(tmp_path))


def test_the_service_is_asked_only_live_or_by_its_address(crabnet, serve, tmp_path, caplog):
    address = serve(Oqmd(some_rows(3))).url + "/oqmdapi"
    fetch(oqmd(tmp_path), address, live=True)
    assert len(load_table("oqmd", tmp_path / "data").table) == 3
    caplog.set_level("INFO")
    ensure(oqmd(tmp_path))  # a table of the service is used further, and named
    assert address in caplog.text and "stale" in caplog.text
    own = tmp_path / "own.whl"
    own.write_bytes(crabnet.body)
    shutil.rmtree(tmp_path / "data")
    ensure(oqmd(tmp_path), wheels=[own])
    with pytest.raises(UserError, match="not from the service"):
        ensure(oqmd(tmp_path), live=True)
    with pytest.raises(UserError, match="--url is not for crabnet:OQMD_Bandgap"):
        ensure(resolve_source("crabnet:OQMD_Bandgap", tmp_path), address)
    with pytest.raises(UserError, match="--live is for"):
        ensure(resolve_source("crabnet:OQMD_Bandgap", tmp_path), live=True)
