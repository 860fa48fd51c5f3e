#!/usr/bin/env bash
# pymatgen 2026.10.24: the point before the water of a hydrate is read as a decimal point. `CuSO4.5H2O`, blue vitriol as many
# catalogues write it, becomes Cu S O5.5 H2: O4.5 and H2O instead of 4 oxygen and 5 water molecules. No error is raised, so the
# features of a table with hydrates are those of other compounds. The same formula with a raised point is refused.
#
# Seen: Cu1 H2 S1 O5.5 for CuSO4.5H2O, and a ValueError for CuSO4·5H2O.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pymatgen==2026.10.24
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

from pymatgen.core import Composition

read = dict(Composition("CuSO4.5H2O").get_el_amt_dict())
meant = dict(Composition("CuSO4(H2O)5").get_el_amt_dict())
try:
    raised = str(Composition("CuSO4·5H2O"))
except ValueError:
    raised = "ValueError"
print(version("pymatgen"), read, meant, raised, sep="\n")
assert read == {"Cu": 1, "S": 1, "O": 5.5, "H": 2}
assert meant == {"Cu": 1, "S": 1, "O": 9, "H": 10}
assert raised == "ValueError"
EOF
