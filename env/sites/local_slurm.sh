# shellcheck shell=bash
# The two nodes on one machine that env/local_slurm.sh brings up: there are no modules, but its configuration is not at /etc/slurm.
export SLURM_CONF=${SLURM_CONF:-${IRNET_SLURM_DIR:-/var/lib/irnet_slurm}/slurm.conf}
