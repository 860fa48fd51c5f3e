# shellcheck shell=bash
# The same cluster for the shell: read by env/setup.sh, env/activate.sh and so by every slurm/*.sh, when IRNET_SITE=<site>.
# Load here what openmpi_pmix.yaml loads, so that Horovod is built with what it will run with.

module load gcc/12 openmpi/4.1 cuda/13.0

# sbatch reads these where its command line names no account: what openmpi_pmix.yaml does for the sweep's own jobs, for slurm/*.sh.
export SBATCH_ACCOUNT=my_project SBATCH_PARTITION=gpu
export IRNET_SRUN_ARGS=--mpi=pmix
