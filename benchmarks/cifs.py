"""Compare packing a folder of CIF files with packing the JSON lines of the same structures.

python benchmarks/cifs.py              600 structures of data/mp_structures.jsonl.xz
python benchmarks/cifs.py --rows 200

pymatgen writes the files, every third with the symmetry that it finds, so that the cell is another
one. Times are processor time of the command and its workers, which other jobs on the machine hardly
change. Features are compared row by row: they do not depend on the cell.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from features import machine
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from irnet_hpc.data.resolve import data_folder
from irnet_hpc.data.xz import open_xz
from irnet_hpc.pack.store import open_pack

PROPERTY = "formation_energy"
MAX_SITES = 30


def main() -> None:
    arguments = parser().parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.rows)
        frames, seconds = [], []
        for source in (folder / "cifs", folder / "lines.jsonl"):
            seconds.append(pack(source, folder / "packs"))
            with open_pack(folder / "packs" / f"{source.stem}.h5") as opened:
                frames.append(opened.to_frame().set_index("material_id").sort_index())
    ours, theirs = frames
    assert list(ours.index) == list(theirs.index) and (ours["part"] == theirs["part"]).all()
    numbers = [column for column in ours.columns if column not in ("formula", "part")]
    x, y = (frame[numbers].to_numpy(float) for frame in (ours, theirs))
    differ = np.nanmax(np.abs(x - y) / np.maximum(1, np.abs(y)), axis=1)
    print(machine())
    print(f"{len(ours):,} rows packed of {arguments.rows:,} structures")
    print(f"{seconds[0]:.1f} s of processor time from CIF, {seconds[1]:.1f} s from JSON lines")
    for limit in (1e-2, 1e-3, 1e-4, 1e-5):
        print(f"{(differ > limit).sum():,} rows differ by more than {limit:g} of 1 or the value")


def write(folder: Path, n_rows: int) -> None:
    """Write structures as a folder of CIF files with a table, and as JSON lines."""
    (folder / "cifs").mkdir()
    lines, rows = [], []
    with open_xz(data_folder() / "mp_structures.jsonl.xz") as stream:
        for line in stream:
            entry = json.loads(line)
            if PROPERTY not in entry["targets"] or len(entry["species"]) > MAX_SITES:
                continue
            structure = Structure(entry["lattice"], entry["species"], entry["frac_coords"])
            symprec = None if len(rows) % 3 else 0.01
            name = entry["material_id"]
            text = str(CifWriter(structure, symprec=symprec))
            (folder / "cifs" / f"{name}.cif").write_text(text)
            rows.append((name, entry["targets"][PROPERTY]))
            lines.append(line.decode())
            if len(rows) == n_rows:
                break
    with (folder / "cifs/properties.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", PROPERTY), *rows])
    (folder / "lines.jsonl").write_text("".join(lines))


def pack(source: Path, pack_dir: Path) -> float:
    """Pack a source by the command; return the processor time in seconds."""
    options = ["--features", "structure", "--property", PROPERTY, "--name", source.stem]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "irnet_hpc.pack",
            "--source",
            source,
            "--pack-dir",
            pack_dir,
            *options,
        ],
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=600, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    main()
