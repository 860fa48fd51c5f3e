#!/usr/bin/env bash
# Train one model over the ranks of a job, one rank a task.
#
#   sbatch slurm/train.sh --pack oqmd-magpie --property formation_energy --architecture irnet --depth 17
#   sbatch --nodes=4 --ntasks-per-node=4 --gpus-per-node=4 slurm/train.sh --device cuda --pack ...
#
# Not --gpus-per-task: it hides from each rank the GPUs of the others, so that NCCL connects them through the host instead of NVLink
# (NVIDIA/nccl issue 1066). Each rank takes the GPU of its number on the node.
#
# All options go to `python -m irnet_hpc.train`. IRNET_SRUN_ARGS adds srun options, such as --mpi=pmix, where Horovod is to run
# over MPI; without one its ranks meet over TCP.
#SBATCH --job-name=irnet-train
#SBATCH --output=slurm-%x-%j.out
# Without this a requeue would empty the log of what came before it.
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
# The trainer writes a checkpoint at this signal, two minutes before its time is up; the same command goes on from it.
#SBATCH --signal=USR1@120
set -euo pipefail
: "${SLURM_JOB_ID:?train.sh runs under sbatch; without SLURM: horovodrun -np 2 python -m irnet_hpc.train ...}"

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

# Since SLURM 22.05 srun no longer takes over the job's --cpus-per-task: without this a rank would get one processor.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# SLURM looks at its jobs every 30 s and may signal a minute early, a short job in its first second: Python would die of it before the
# trainer can handle it. Ignored until then, the signal is lost, and the trainer stops by its own clock a minute before the end.
# shellcheck disable=SC2016,SC2086  # expanded by the ranks; several options in one variable
exec srun --kill-on-bad-exit=1 --export=ALL ${IRNET_SRUN_ARGS:-} \
  bash -c 'trap "" USR1; exec python -m irnet_hpc.train "$@"' irnet-train "$@"
