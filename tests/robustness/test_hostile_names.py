"""Names from files and archives are text everywhere, also in a page and in its charts' data."""

import json

import numpy as np

from irnet_hpc.console import exit_status
from irnet_hpc.pack import pack_table
from irnet_hpc.train import cli as train
from tests.aggregate.results import aggregate
from tests.data.structures.files import PYMATGEN

MARK = "<img src=x onerror=alert(1)>"
HOSTILE = f"</script><script>alert(1)</script>{MARK}<!--"
METALS = ("Li", "Na", "K", "Rb", "Cs", "Ag", "Cu", "Mg", "Ca", "Sr", "Ba", "Zn", "Ti", "Fe", "Ni")


def test_ids_of_structures_are_escaped_in_the_page_of_a_report(tmp_path):
    generator = np.random.default_rng(0)
    records = []
    for number, metal in enumerate(METALS * 6):
        sites = [
            {"species": [{"element": symbol}], "abc": abc}
            for symbol, abc in ((metal, [0, 0, 0]), ("Cl", [0.5] * 3), ("O", [0.5, 0, 0]))
        ]
        side = 3.4 + number / 50
        structure = PYMATGEN | {"sites": sites, "lattice": {"matrix": (np.eye(3) * side).tolist()}}
        records.append(
            {
                "jid": f"{HOSTILE}{number}",
                "atoms": structure,
                "optb88vdw_bandgap": float(generator.random()),
            }
        )
    (tmp_path / "dump.json").write_text(json.dumps(records))
    with pack_table(
        tmp_path / "dump.json", features="structure", pack_dir=tmp_path / "packs"
    ) as pack:
        assert pack.n_rows == len(records)
        assert all(name.startswith(HOSTILE) for name in pack.material_ids(pack.rows("test")))
    results, page = tmp_path / "results", tmp_path / "report.html"
    options = ["--property", "band_gap", "--architecture", "linear", "--results", str(results)]
    assert exit_status(lambda: train.main(["--pack", str(pack.path), *options])) == 0
    assert aggregate(results, "--html", page).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "band_gap" in text
    assert "<script>alert(1)" not in text and MARK not in text
