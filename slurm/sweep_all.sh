#!/usr/bin/env bash
# Plan a matrix, say what it will cost, and submit what is missing; its trainings and its tables follow as jobs of their own.
#
#   sbatch slurm/sweep_all.sh                          # jobs/full.yaml
#   sbatch slurm/sweep_all.sh jobs/smoke.yaml          # any matrix; further options go to `python -m irnet_hpc.sweep submit`
#   bash   slurm/sweep_all.sh jobs/smoke.yaml          # the same from a login node, or without SLURM, where the cells run here
#
# IRNET_SITE=<name> adds what this cluster wants (env/sites/<name>.yaml). If its site says whole_nodes, the trainings are jobs of workers
# that fill whole nodes (docs/whole_nodes.md).
#SBATCH --job-name=irnet-sweep
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

matrix=$home/jobs/full.yaml
if (($#)) && [[ $1 != -* ]]; then matrix=$1; shift; fi
exec python -m irnet_hpc.sweep submit "$matrix" "$@"
