#!/usr/bin/env bash
# optimade 1.5.0 (pymatgen 2026.10.24): the adapter to pymatgen leaves out atoms that are attached to a site. In the standard's
# own example, a species with `"chemical_symbols": ["C"], "attached": ["H"], "nattached": [3]` is a methyl group, CH3; as_pymatgen
# makes a carbon atom of it. Neither an error nor a warning says so, and the entry itself is valid and states the formula with
# hydrogen.
#
# Seen: an entry of CH3 gives a structure with the formula C1.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check optimade==1.5.0 pymatgen==2026.10.24
cd "$folder"
"$folder/venv/bin/python" -W error::UserWarning - <<'EOF'
from importlib.metadata import version

from optimade.adapters import Structure

group = {
    "name": "CH3",
    "chemical_symbols": ["C"],
    "concentration": [1.0],
    "attached": ["H"],
    "nattached": [3],
}
attributes = {
    "last_modified": None,
    "elements": ["C", "H"],
    "nelements": 2,
    "elements_ratios": [0.25, 0.75],
    "chemical_formula_reduced": "CH3",
    "chemical_formula_anonymous": "A3B",
    "dimension_types": [1, 1, 1],
    "nperiodic_dimensions": 3,
    "lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
    "cartesian_site_positions": [[0.0, 0.0, 0.0]],
    "nsites": 1,
    "species": [group],
    "species_at_sites": ["CH3"],
    "structure_features": ["site_attachments"],
}
entry = Structure({"id": "a", "type": "structures", "attributes": attributes})
found = entry.as_pymatgen
print(version("optimade"), entry.chemical_formula_reduced, found.composition)
assert entry.chemical_formula_reduced == "CH3"
assert found.composition.formula == "C1" and len(found) == 1
EOF
