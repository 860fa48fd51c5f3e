"""Spoil raw tables, compressed and not."""

import gzip
import json
import lzma
from pathlib import Path

from tests import builders
from tests.robustness import mutants
from tests.robustness.kinds import Kind, make_nothing

TABLE = "material_id,formula,band_gap,density,note,mine\n" + "".join(
    f'id-{n},{formula},{n / 7},{"" if n % 3 else n},"a, ""word""",{n}\n'
    for n, formula in enumerate(("NaN", "Fe2O3", "MgO", "Ag(AuS)2", "C", "Si", "GaAs", "H2O"))
)
LINES = "".join(
    json.dumps(
        {
            "material_id": f"m{n}",
            "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, n + 2.5]],
            "species": ["Na", {"Cl": 0.5, "Br": 0.5}][: n % 2 + 1],
            "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]][: n % 2 + 1],
            "targets": {"band_gap": n / 3},
            "mine": n,
            "split": "train",
        }
    )
    + "\n"
    for n in range(6)
)
TABLES = {
    "t.csv": (TABLE, lambda text: text),
    "t.jsonl": (LINES, lambda text: text),
    "t.csv.gz": (TABLE, lambda text: gzip.compress(text, mtime=0)),
    "t.csv.xz": (TABLE, lzma.compress),
    "t.jsonl.xz": (LINES, lzma.compress),
}


def spoil_table(folder: Path, number: int) -> None:
    """Spoil the text or the compressed bytes of a table, of each kind in turn."""
    for name in TABLES:
        (folder / name).unlink(missing_ok=True)
    name = list(TABLES)[number % len(TABLES)]
    text, packed = TABLES[name]
    if number % 2:
        (folder / name).write_bytes(packed(mutants.spoil_text(text, number)))
    else:
        (folder / name).write_bytes(mutants.spoil_bytes(packed(text.encode()), number))


def read_table(folder: Path) -> object:
    for path in (folder / name for name in TABLES):
        if path.exists():
            builders.load_table(str(path), columns=True, structures=path.name.startswith("t.jsonl"))
    return None


KINDS = {"table": Kind(make_nothing, spoil_table, read_table, False)}
