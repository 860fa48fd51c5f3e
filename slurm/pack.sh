#!/usr/bin/env bash
# Build one pack in a job: features are computed in parallel on one node.
#
#   sbatch slurm/pack.sh --source oqmd --features magpie+elements
#   sbatch --cpus-per-task=32 slurm/pack.sh --source oqmd
#
# All options go to `python -m irnet_hpc.pack`.
#SBATCH --job-name=irnet-pack
#SBATCH --output=slurm-%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
set -euo pipefail

# sbatch runs a copy of this file: then the repository is where the job was submitted from, or what env/activate.sh exported.
for home in "$(dirname "$0")/.." "${SLURM_SUBMIT_DIR:-.}" "${IRNET_HOME:-}"; do [[ -e $home/env/activate.sh ]] && break; done
[[ -e $home/env/activate.sh ]] || { echo "error: submit from the repository's folder, however: $PWD" >&2; exit 2; }
source "$home/env/activate.sh"

exec python -m irnet_hpc.pack "$@"
