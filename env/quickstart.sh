#!/usr/bin/env bash
# From nothing to a table of test errors, on a bare Debian or Ubuntu machine (elsewhere env/setup.sh says what is missing).
#
#   bash env/quickstart.sh
#
# Installs what is missing, packs the embedded `alloys` source, trains plain and IRNet networks on 2 Horovod ranks, prints the
# MAE table, looks at what a larger matrix would need, and predicts ten known compounds with the network in the package. On 2
# cores: 4 to 6 minutes the first time, 2 of them downloads and the build of Horovod; 10 s the second time (measured before the
# ten compounds were added), for only what is missing is done again.
# Packs, results and tables are written to $IRNET_QUICKSTART_DIR (default <repository>/quickstart); options go to env/setup.sh.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ACTIVATE=$(realpath --relative-base="$PWD" "$HERE/activate.sh")
FOLDER=$(realpath -m "${IRNET_QUICKSTART_DIR:-$HERE/../quickstart}")
say() { printf '\n[quickstart %3ds] %s\n' "$SECONDS" "$*"; }

say "1/6 environment: bash env/setup.sh $*"
bash "$HERE/setup.sh" "$@"
# shellcheck source=env/activate.sh
source "$HERE/activate.sh"
mkdir -p "$FOLDER"
cd "$FOLDER"
# The user's own folders are not for a first try.
unset IRNET_PACKS IRNET_DATA
# This one runs here, even where SLURM would answer.
matrix=$IRNET_HOME/jobs/quickstart.yaml

say "2/6 pack: python -m irnet_hpc.pack --source alloys"
python -m irnet_hpc.pack --source alloys

say "3/6 train: python -m irnet_hpc.sweep run jobs/quickstart.yaml"
python -m irnet_hpc.sweep run "$matrix"

say "4/6 tables: python -m irnet_hpc.aggregate results/ --html results/tables/report.html"
python -m irnet_hpc.aggregate results/ --html results/tables/report.html

# What setup.sh and the training have just proved, ranks and libraries, is not proved again.
say "5/6 doctor: python -m irnet_hpc.doctor --only machine results slurm"
python -m irnet_hpc.doctor --only machine results slurm || say "a larger matrix would not run as it is; see the failures above"

say "6/6 ten known compounds: python -m irnet_hpc.predict --pretrained oqmd env/ten_compounds.csv"
python -m irnet_hpc.predict --pretrained oqmd "$IRNET_HOME/env/ten_compounds.csv" -o ten_compounds.csv
# Formula, OQMD's formation energy (eV/atom) and band gap (eV), the row's part, then both predictions with their intervals.
cut -d, -f1,3-11 ten_compounds.csv

say "done; written to $FOLDER:"
find results -maxdepth 2 -path '*/tables/*' -type f | sort | sed 's/^/  /'
say "the page of the results:  $FOLDER/results/tables/report.html"
say "to go on by hand:  source $ACTIVATE, then docs/tutorial.md"
