# shellcheck shell=bash
# The same cluster for the shell: read by env/setup.sh, env/activate.sh and so by every slurm/*.sh, when IRNET_SITE=<site>.
# Load here what whole_nodes.yaml loads.

module load gcc/12 cuda/12.4

# sbatch reads these where its command line names no account: what whole_nodes.yaml does for the sweep's own jobs, for slurm/*.sh.
export SBATCH_ACCOUNT=my_project SBATCH_PARTITION=gpu
