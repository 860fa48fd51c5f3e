#!/usr/bin/env bash
# pymatgen 2026.10.24: for amounts that were rounded, two methods of one Composition disagree about its reduced formula.
# `reduced_formula` keeps Fe0.3333O0.6667 as it is, so that it differs from that of FeO2, while get_integer_formula_and_factor
# finds FeO2. Which of the two a program takes as a key decides whether the rows are duplicates, and whether a split by formula
# puts one of them into training and the other into test.
#
# Seen: Fe0.3333O0.6667 and FeO2.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pymatgen==2026.10.24
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

from pymatgen.core import Composition

rounded = Composition("Fe0.3333O0.6667")
integer, factor = rounded.get_integer_formula_and_factor()
print(version("pymatgen"), rounded.reduced_formula, integer, factor, sep="\n")
assert rounded.reduced_formula == "Fe0.3333O0.6667"
assert integer == Composition("FeO2").reduced_formula == "FeO2"
EOF
