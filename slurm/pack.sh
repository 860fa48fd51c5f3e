#!/usr/bin/env bash
# Build one pack in a job: features are computed by the processors of one task, or over MPI by the tasks of several nodes.
#
#   sbatch slurm/pack.sh --source oqmd --features magpie+elements
#   sbatch --cpus-per-task=32 slurm/pack.sh --source oqmd
#   sbatch --nodes=2 --ntasks-per-node=16 --cpus-per-task=1 slurm/pack.sh --source oqmd
#
# All options go to `python -m irnet_hpc.pack`; the folder of packs must be one that every node sees. A job that was killed or
# ran out of time goes on when it is submitted again. Several tasks need an MPI that srun knows: IRNET_SRUN_ARGS says which,
# such as --mpi=pmix, which is also taken where it is offered and nothing is said.
#SBATCH --job-name=irnet-pack
#SBATCH --output=slurm-%x-%j.out
# Without this a requeue would empty the log of what came before it.
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
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

((${SLURM_NTASKS:-1} > 1)) || exec python -m irnet_hpc.pack "$@"

srun_args=${IRNET_SRUN_ARGS:-}
if [[ $srun_args != *--mpi* ]] && srun --mpi=list 2>&1 | grep -qw pmix; then srun_args+=" --mpi=pmix"; fi
# Since SLURM 22.05 srun no longer takes over the job's --cpus-per-task: without this a rank would get one processor.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# shellcheck disable=SC2086  # several options in one variable
exec srun --kill-on-bad-exit=1 --export=ALL $srun_args python -m irnet_hpc.pack "$@"
