#!/usr/bin/env bash
# pymatgen 2026.10.24: a Composition with deuterium equals the one with hydrogen, but has another hash and another weight. So
# `D2O == H2O` is true while a set or a dict of both has two entries, and a table that is grouped by `==` merges rows that one
# grouped by hash keeps apart. Both print the same reduced formula, H2O.
#
# Seen: equal, two entries in a set, weights of 20.03 and 18.02, reduced formula H2O for both.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pymatgen==2026.10.24
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

from pymatgen.core import Composition

heavy, light = Composition("D2O"), Composition("H2O")
weights = [round(float(each.weight), 2) for each in (heavy, light)]
formulas = [heavy.reduced_formula, light.reduced_formula]
print(version("pymatgen"), heavy == light, len({heavy, light}), weights, formulas, sep="\n")
assert heavy == light
assert len({heavy, light}) == 2
assert weights == [20.03, 18.02]
assert formulas == ["H2O", "H2O"]
EOF
