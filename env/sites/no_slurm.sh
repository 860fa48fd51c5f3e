# shellcheck shell=bash
# Template: a cluster without SLURM (PBS, LSF, Grid Engine). Not run on such a cluster: no part of it was available. Run: mpiexec of
# Open MPI starting workers on one machine (tests/slurm needs no part of this file). docs/without_slurm.md
# Copy to <site>.sh and set IRNET_SITE=<site>: env/setup.sh and env/activate.sh read it. There is no <site>.yaml: its keys are options
# of SLURM's jobs, and here the job script has them, such as no_slurm_pbs.sh and no_slurm_lsf.sh.

module load gcc/12 openmpi/4.1 cuda/12.4
