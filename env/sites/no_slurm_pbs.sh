#!/usr/bin/env bash
# Template of a PBS job whose nodes fill themselves with workers. Not run under PBS. docs/without_slurm.md
#
#   qsub -v MATRIX=jobs/full.yaml env/sites/no_slurm_pbs.sh      # as many of these at once as the queue gives
#
#PBS -N irnet-work
#PBS -A my_project
#PBS -l select=2:ncpus=64:ngpus=4:mem=240gb
#PBS -l place=scatter:excl
#PBS -l walltime=12:00:00
#PBS -r y
set -euo pipefail

cd "$PBS_O_WORKDIR"
source env/activate.sh

# The workers ask qstat when the job ends, and save a minute before. Where the nodes have no qstat, `timeout` stops them five minutes
# before: PBS itself kills what is left within seconds.
n_nodes=$(sort -u "$PBS_NODEFILE" | wc -l)
exec timeout --signal=TERM --kill-after=240 $((12 * 3600 - 300)) \
  mpiexec -n "$n_nodes" --map-by ppr:1:node --bind-to none --mca orte_abort_on_non_zero_status 0 \
  -x PBS_JOBID \
  python -m irnet_hpc.sweep work "${MATRIX:-jobs/full.yaml}" --workers auto
