"""Small services, tables and a packing process for the tests of downloads."""

import csv
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

from irnet_hpc.data.download import oqmd
from irnet_hpc.data.download.registry import DOWNLOADS
from tests.data.http_server import FAST

ROOT = Path(__file__).parents[3]

# The first is an entry that AFLOW gave to the authors of the client `aflow`, in their tests;
# numbers are text there.
ENTRIES = [
    {
        "auid": "aflow:db1f17a6f945c29b",
        "compound": "Be1O1",
        "aurl": "aflowlib.duke.edu:AFLOWDATA/ICSD_WEB/FCC/Be1O1_ICSD_163467",
        "Egap": "6.8531",
        "enthalpy_formation_atom": "-2.97",
        "energy_atom": -7.1,
        "volume_cell": 14.2,
        "density": None,
        "ael_bulk_modulus_vrh": "208.3",
        "ael_shear_modulus_vrh": "",
    },
    *(
        {
            "auid": f"aflow:{n:016x}",
            "compound": f"{metal}1O1",
            "Egap": n,
            "enthalpy_formation_atom": -n / 10,
        }
        for n, metal in enumerate(("Mg", "Ca", "Sr", "Ba", "Zn", "Cd"), start=1)
    ),
]
GAPS = {"formula": ["Fe2O3", "NaN", " ", "GaAs"], "gap expt": [2.1, None, 1.0, 1.424]}


def read(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table that was downloaded."""
    with lzma.open(table, "rt", newline="") as file:
        return list(csv.DictReader(file))


def in_pages_of(monkeypatch: pytest.MonkeyPatch, n_rows: int) -> None:
    """Ask OQMD for this many rows per page."""
    small = oqmd.COMPOSITIONS._replace(n_rows=n_rows)
    monkeypatch.setitem(DOWNLOADS, "oqmd", DOWNLOADS["oqmd"]._replace(service=small))


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    """Start the command `pack` in a folder, in a process of its own."""
    own = {
        "PYTHONPATH": str(ROOT),
        "IRNET_TIMEOUT_S": "60",
        "IRNET_DATA": "data",
        "IRNET_PACKS": "packs",
    }
    environment = os.environ | FAST | own
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        "--features",
        "elements",
        "--workers",
        "1",
        *arguments,
    ]
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
