#!/usr/bin/env bash
# Make the MAE tables and the figure from what a sweep has finished so far.
#
#   sbatch slurm/aggregate.sh                          # results/
#   sbatch slurm/aggregate.sh /scratch/me/results      # further options go to `python -m irnet_hpc.aggregate`
#
# A sweep submits its own aggregation; this is for looking in between.
#SBATCH --job-name=irnet-aggregate
#SBATCH --output=slurm-%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
set -euo pipefail

# sbatch runs a copy of this file: then the repository is where the job was submitted from, or what env/activate.sh exported.
for home in "$(dirname "$0")/.." "${SLURM_SUBMIT_DIR:-.}" "${IRNET_HOME:-}"; do [[ -e $home/env/activate.sh ]] && break; done
[[ -e $home/env/activate.sh ]] || { echo "error: submit from the repository's folder, got $PWD" >&2; exit 2; }
source "$home/env/activate.sh"

results=results/
if (($#)) && [[ $1 != -* ]]; then results=$1; shift; fi
exec python -m irnet_hpc.aggregate "$results" "$@"
