#!/usr/bin/env bash
# Make the MAE tables and the figure from what a sweep has finished so far.
#
#   sbatch slurm/aggregate.sh                          # results/
#   sbatch slurm/aggregate.sh /scratch/me/results      # further options go to `python -m irnet_hpc.aggregate`
#
# A sweep submits its own aggregation; this is for looking in between.
#SBATCH --job-name=irnet-aggregate
#SBATCH --output=slurm-%x-%j.out
# Without this a requeue would empty the log of what came before it.
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
set -euo pipefail

# sbatch runs a copy of this file: then its home is the folder where the job was submitted, or what
# env/activate.sh exported. Without env/activate.sh the package must be installed in the environment
# that was active at submission; the site's shell lines are read here.
for home in "$(dirname "$0")/.." "${SLURM_SUBMIT_DIR:-.}" "${IRNET_HOME:-}"; do [[ -d $home/slurm ]] && break; done
if [[ -e $home/env/activate.sh ]]; then
  source "$home/env/activate.sh"
else
  site=$home/env/sites/${IRNET_SITE:-}.sh
  if [[ -f $site ]]; then set +eu; source /etc/profile >/dev/null; source "$site"; set -eu; fi
  python -c 'import irnet_hpc' || {
    echo "error: activate the environment of irnet_hpc, or submit from the folder that holds slurm/, got $PWD" >&2
    exit 2
  }
fi

results=results/
if (($#)) && [[ $1 != -* ]]; then results=$1; shift; fi
exec python -m irnet_hpc.aggregate "$results" "$@"
