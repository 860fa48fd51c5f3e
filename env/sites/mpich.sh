# shellcheck shell=bash
# The same cluster for the shell: read by env/setup.sh, env/activate.sh and so by every slurm/*.sh, when IRNET_SITE=<site>.
# Load here what mpich.yaml loads, so that Horovod is built with what it will run with.

module load gcc/12 mpich/4.1

export MPI4PY_MPIABI=mpich
# sbatch reads these where its command line names no account: what mpich.yaml does for the sweep's own jobs, for slurm/*.sh.
export SBATCH_ACCOUNT=my_project SBATCH_PARTITION=main
export IRNET_SRUN_ARGS=--mpi=pmi2
