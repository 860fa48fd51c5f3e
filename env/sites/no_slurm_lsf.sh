#!/usr/bin/env bash
# Template of an LSF job whose nodes fill themselves with workers. Not run under LSF. docs/without_slurm.md
#
#   bsub < env/sites/no_slurm_lsf.sh                             # as many of these at once as the queue gives
#
#BSUB -J irnet-work
#BSUB -P my_project
#BSUB -n 2 -R "span[ptile=1]"
#BSUB -x
#BSUB -gpu "num=4:mode=shared"
#BSUB -W 12:00
#BSUB -wt 5 -wa TERM
#BSUB -r
set -euo pipefail

cd "$LS_SUBCWD"
source env/activate.sh

# One slot a node, and the node for ourselves (-x): each task takes all cores and GPUs that it sees.
exec mpiexec -n 2 --map-by ppr:1:node --bind-to none --mca orte_abort_on_non_zero_status 0 \
  -x LSB_JOBID -x LSB_JOBINDEX \
  python -m irnet_hpc.sweep work "${MATRIX:-jobs/full.yaml}" --workers auto
