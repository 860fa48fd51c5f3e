#!/usr/bin/env bash
# A real SLURM of two hosts on one machine, for tests and for trying a matrix before a cluster is asked for it.
#
#   sudo bash env/local_slurm.sh up        # a few seconds: munge, MariaDB, slurmdbd, slurmctld, two slurmd; proves itself with srun
#   eval "$(bash env/local_slurm.sh env)"  # SLURM_CONF and IRNET_SITE: from here on sinfo, sbatch and sacct mean this cluster
#   sbatch slurm/sweep_all.sh jobs/smoke.yaml
#   sudo bash env/local_slurm.sh down      # leaves nothing
#
#   sudo bash env/local_slurm.sh lose n2            # kill -9 of all that runs on a node; or slurmctld, stopped as for an update
#   sudo bash env/local_slurm.sh lose n2 silently   # its network first, so that nobody hears of its end, as when its power fails
#   sudo bash env/local_slurm.sh mend               # starts again what was lost
#
# Each node is a `slurmd` in a network, host-name and mount namespace of its own, joined by a bridge: the two really have two
# names, two addresses and no shared loopback, so what runs here has found its peers the way it must on a cluster.
# They share the machine's processors, memory and file system. Everything lives in $IRNET_SLURM_DIR (default
# /var/lib/irnet_slurm); a SLURM that is already on the machine is not touched. One such cluster a machine.
set -euo pipefail

STATE=${IRNET_SLURM_DIR:-/var/lib/irnet_slurm}      # on a file system that allows execution: job scripts run from it
CPUS=${IRNET_SLURM_CPUS:-2}                         # per node; may exceed what the machine has (config_overrides)
GPUS=${IRNET_SLURM_GPUS:-2}                         # per node: SLURM counts them, though there are no devices
PIN=${IRNET_SLURM_PIN:-0}                           # 1: SLURM binds tasks to processors; both nodes have the same ones
SUBNET=${IRNET_SLURM_SUBNET:-10.213.77}             # /24; .1 is this machine, .11 and .12 the nodes
NODES=(n1 n2)
BRIDGE=irnetbr0
PACKAGES=(slurm-wlm slurmdbd mariadb-server munge iproute2)
export PATH=$PATH:/usr/sbin:/sbin                   # daemons live there, and not every root has it on its PATH
unset "${!SLURM_@}" "${!SLURMD_@}"                  # called from inside a job, or with another cluster's SLURM_CONF
export SLURM_CONF=$STATE/slurm.conf

say() { printf '[local_slurm %3ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# nsenter, and not `ip netns exec` or `ip -n`: these remount /sys, and slurmd then misses /sys/fs/cgroup.
in_node() { nsenter --net="/run/netns/irnet-$1" "${@:2}"; }

node_address() { echo "$SUBNET.1${1#n}"; }          # n1 -> .11

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# Daemons must hold neither our lock (descriptor 9) nor the caller's pipe.
start() { local log=$1; shift; setsid "$@" >>"$STATE/log/$log" 2>&1 </dev/null 9>&- & }

free_port() {  # the first port from $1 on that nothing on this machine listens on
  local port=$1
  while [[ -n $(ss -Hltn "sport = :$port") ]]; do port=$((port + 1)); done
  echo "$port"
}

# ------------------------------------------------------------------------------------------------------------------ up

check_machine() {
  ((EUID == 0)) || die "local_slurm.sh $1 makes network namespaces and must run as root, got user $(id -un)"
  [[ $1 == down ]] && return
  local missing=() tool
  for tool in slurmctld slurmd slurmdbd sinfo mariadbd mariadb-install-db munged ip ss nsenter unshare setsid; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  ((${#missing[@]} == 0)) || die "missing commands: ${missing[*]}; Debian packages: ${PACKAGES[*]} (bash env/setup.sh --slurm installs them)"
  [[ ! -e /etc/slurm/slurm.conf ]] || die "this machine already belongs to a SLURM cluster (/etc/slurm/slurm.conf); use that one"
  if [[ -d $STATE && ! -e $STATE/.irnet_slurm && -n $(ls -A "$STATE") ]]; then
    die "IRNET_SLURM_DIR=$STATE exists and is not one of ours"
  fi
}

write_configuration() {
  local memory_mb controller_port dbd_port
  memory_mb=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024))
  controller_port=$(free_port 6817)
  dbd_port=$(free_port 6819)

  cat >"$STATE/slurm.conf" <<END
ClusterName=irnet
SlurmctldHost=$(hostname -s)($SUBNET.1)
SlurmctldPort=$controller_port
SlurmUser=root
AuthType=auth/munge
# The life of a credential is also how long a requeued job waits before it starts again: two minutes by default.
AuthInfo=socket=$STATE/munge/socket,cred_expire=20
StateSaveLocation=$STATE/ctld
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdPidFile=$STATE/slurmd-%n.pid
SlurmdLogFile=$STATE/log/slurmd-%n.log
SlurmdSpoolDir=$STATE/spool-%n
# With one /tmp for both nodes the PMIx folders of a step that spans them collide.
TmpFS=$STATE/tmp-%n

# Processes are tracked by parentage: no cgroup is needed, so a container will do.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/$( ((PIN)) && echo affinity || echo none)
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
GresTypes=gpu

# submitit asks sacct.
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$SUBNET.1
AccountingStoragePort=$dbd_port
AccountingStoragePass=$STATE/munge/socket

# Everything quick: schedule at once, and give a cancelled job 5 s between SIGTERM and SIGKILL.
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
KillWait=5
JobRequeue=1
ReturnToService=2
SlurmdTimeout=30

$(for node in "${NODES[@]}"; do
    echo "NodeName=$node NodeAddr=$(node_address "$node") CPUs=$CPUS RealMemory=$memory_mb $( ((GPUS)) && echo "Gres=gpu:$GPUS ")State=UNKNOWN"
  done)
PartitionName=main Nodes=$(IFS=,; echo "${NODES[*]}") Default=YES MaxTime=INFINITE State=UP
END

  # A GPU here is a null device: SLURM (22.05) wants a character device whose name ends with a number, and never opens it. It gives
  # each to one task at a time and sets CUDA_VISIBLE_DEVICES.
  : >"$STATE/gres.conf"
  local gpu
  for ((gpu = 0; gpu < GPUS; gpu++)); do
    mknod "$STATE/gpu$gpu" c 1 3 || die "this machine does not let root make a device; bring it up with IRNET_SLURM_GPUS=0"
    echo "NodeName=$(IFS=,; echo "${NODES[*]}") Name=gpu File=$STATE/gpu$gpu" >>"$STATE/gres.conf"
  done

  # slurmdbd and the database meet over a socket and know each other by the user: no password exists.
  cat >"$STATE/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$STATE/munge/socket
DbdHost=localhost
DbdPort=$dbd_port
SlurmUser=root
PidFile=$STATE/slurmdbd.pid
LogFile=$STATE/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=irnet_slurm
END
  chmod 600 "$STATE/slurmdbd.conf"

  { echo "127.0.0.1 localhost"
    echo "$SUBNET.1 $(hostname) $(hostname -s)"
    for node in "${NODES[@]}"; do echo "$(node_address "$node") $node"; done
  } >"$STATE/hosts"

  # Nothing here asks for cgroups, yet slurmd prepares those it detects, and stops where systemd does not answer. From 24.05 on
  # they can be left out; before, the plugin for version 1 does nothing until it is asked, whatever the machine has.
  local version
  version=$(slurmctld -V | sed 's/[^0-9]*\([0-9]*\)\.0*\([0-9]*\).*/\1 * 100 + \2/')
  if ((version < 2405)); then echo "CgroupPlugin=cgroup/v1"; else echo "CgroupPlugin=disabled"; fi >"$STATE/cgroup.conf"
}

start_network() {
  ip link add "$BRIDGE" type bridge 2>/dev/null || die "this machine does not let root make a network bridge (a container without NET_ADMIN?)"
  ip link set "$BRIDGE" alias "$STATE"            # whose it is: another state folder must not take it down
  ip addr add "$SUBNET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  local node
  for node in "${NODES[@]}"; do
    ip netns add "irnet-$node" || die "this machine does not let root make a network namespace (a container without SYS_ADMIN?)"
    ip link add "irnet-$node" type veth peer name eth0 netns "irnet-$node"
    ip link set "irnet-$node" master "$BRIDGE" up
    in_node "$node" ip addr add "$(node_address "$node")/24" dev eth0
    in_node "$node" ip link set lo up
    in_node "$node" ip link set eth0 up
  done
}

start_munge() {
  install -d -m 755 "$STATE/munge"
  (umask 077; head -c 1024 /dev/urandom >"$STATE/munge/key")
  start munged.log munged --foreground --key-file="$STATE/munge/key" --socket="$STATE/munge/socket" \
    --pid-file="$STATE/munge/pid" --log-file="$STATE/log/munge.log" --seed-file="$STATE/munge/seed"
}

start_database() {
  install -d -m 755 -o mysql -g mysql "$STATE/db"
  # The data are thrown away at `down`: nothing is worth a sync to disk.
  local options=(--no-defaults --user=mysql --datadir="$STATE/db/data" --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0)
  mariadb-install-db "${options[@]}" --skip-test-db >>"$STATE/log/mariadb.log" 2>&1
  start mariadb.log mariadbd "${options[@]}" --skip-networking --socket="$STATE/db/socket" --pid-file="$STATE/db/pid" \
    --innodb-buffer-pool-size=64M --sync-binlog=0
}

start_accounting() {
  wait_for 20 mariadb-admin --no-defaults --socket="$STATE/db/socket" ping
  wait_for 5 munge --socket="$STATE/munge/socket" --no-input
  SLURM_CONF=$STATE/slurmdbd.conf MYSQL_UNIX_PORT=$STATE/db/socket start slurmdbd.out slurmdbd -D
  wait_for 20 sacctmgr -n list cluster
  sacctmgr -i add cluster irnet >/dev/null
}

start_controller() {
  install -d -m 755 "$STATE/ctld"
  start slurmctld.out slurmctld -D -f "$SLURM_CONF"
}

start_node() {
  install -d -m 755 "$STATE/spool-$1"
  install -d -m 1777 "$STATE/tmp-$1"
  # The mount namespace gives the node an /etc/hosts of its own and sees what the machine mounts later.
  # shellcheck disable=SC2016
  start "slurmd-$1.out" nsenter --net="/run/netns/irnet-$1" unshare --uts --mount --propagation slave sh -c \
    'hostname "$1"; mount --bind "$2/hosts" /etc/hosts; exec slurmd -D -N "$1" -f "$2/slurm.conf"' sh "$1" "$STATE"
}

nodes_idle() { [[ $(sinfo -h -N -o %T | sort | uniq -c | xargs) == "${#NODES[@]} idle" ]]; }

is_up() { [[ -e $STATE/up ]] && timeout 5 sinfo -h -o %T 2>/dev/null | grep -qE '^(idle|alloc|mixed|compl)'; }

up() {
  check_machine up
  if is_up; then
    say "already up: $(sinfo -h -o '%D nodes %N, %T' | xargs)"
    return
  fi
  take_down                                        # whatever a killed `up` or a restart of the machine left
  install -d -m 755 "$STATE" "$STATE/log"
  touch "$STATE/.irnet_slurm"
  trap 'failed_up' EXIT

  say "network: bridge $BRIDGE, nodes ${NODES[*]} at $SUBNET.0/24"
  start_network
  write_configuration
  say "munge and MariaDB"
  start_munge
  start_database
  say "slurmdbd"
  start_accounting
  say "slurmctld and slurmd"
  start_controller
  local node
  for node in "${NODES[@]}"; do start_node "$node"; done
  wait_for 30 nodes_idle
  say "proof: srun on both nodes"
  local names
  names=$(cd / && timeout 20 srun -N2 --ntasks-per-node=1 hostname | sort | xargs)
  [[ $names == "${NODES[*]}" ]] || { echo "srun -N2 hostname gave '$names'" >&2; exit 1; }

  trap - EXIT
  touch "$STATE/up"
  say "up: 2 nodes of $CPUS processors; now run   eval \"\$(bash env/local_slurm.sh env)\""
}

failed_up() {
  local log
  echo "error: the local SLURM did not come up; the ends of its logs:" >&2
  for log in "$STATE"/log/*; do
    [[ -s $log ]] && { echo "--- ${log##*/}"; tail -n 8 "$log"; } >&2
  done
  take_down
  exit 1
}

# ---------------------------------------------------------------------------------------------------------------- down

# Processes that are ours beyond doubt: those inside the nodes' namespaces, and the daemons that name our state folder.
our_processes() {
  local node
  for node in "${NODES[@]}"; do ip netns pids "irnet-$node" 2>/dev/null || true; done
  our_daemons slurmctld slurmdbd mariadbd munged
}

our_daemons() {
  local pid
  for pid in $(pidof "$@" || true); do
    if tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qF "$STATE/" || tr '\0' '\n' <"/proc/$pid/environ" | grep -qF "=$STATE/"; then
      echo "$pid"
    fi
  done 2>/dev/null
}

all_gone() { [[ -z $(our_processes) ]]; }

take_down() {
  local signal pids owner
  owner=$(ip -d link show "$BRIDGE" 2>/dev/null | sed -n 's/^ *alias //p' || true)
  [[ ${owner:-$STATE} == "$STATE" ]] || die "the local SLURM in $owner is up; take that down first: IRNET_SLURM_DIR=$owner"
  for signal in TERM KILL; do
    mapfile -t pids < <(our_processes)
    ((${#pids[@]})) || break
    kill -s "$signal" "${pids[@]}" 2>/dev/null || true
    wait_for 5 all_gone || true
  done
  local node
  for node in "${NODES[@]}"; do
    ip link del "irnet-$node" 2>/dev/null || true
    ip netns del "irnet-$node" 2>/dev/null || true
  done
  ip link del "$BRIDGE" 2>/dev/null || true
  if [[ -e $STATE/.irnet_slurm ]]; then rm -rf -- "$STATE"; fi
}

down() {
  check_machine down
  take_down
  say "down"
}

# ------------------------------------------------------------------------------------------------------------- lose and mend

check_loss() {
  check_machine "$1"
  [[ -e $STATE/up ]] || die "the local SLURM is not up; start it with: bash env/local_slurm.sh up"
  [[ $1 == mend || " ${NODES[*]} slurmctld " == *" ${2:-} "* ]] || die "lose takes ${NODES[*]} or slurmctld, got '${2:-}'"
  [[ ${3:-silently} == silently && "${2:-} ${3:-}" != "slurmctld silently" ]] || die "lose takes a node, and silently, got '${2:-} ${3:-}'"
}

# Processes of one node, or of the controller.
processes_of() {
  if [[ $1 == slurmctld ]]; then our_daemons slurmctld; else ip netns pids "irnet-$1"; fi
}

is_gone() { [[ -z $(processes_of "$1") ]]; }

lose() {
  check_loss lose "$@"
  if [[ ${2:-} == silently ]]; then ip link set "irnet-$1" down; fi
  local pids signal=KILL
  # Killed outright it forgets what it has started since it last wrote its state, up to 5 s ago: it would start that a second
  # time, find it running, and drain the node.
  if [[ $1 == slurmctld ]]; then signal=TERM; fi
  mapfile -t pids < <(processes_of "$1")
  if ((${#pids[@]})); then kill -s "$signal" "${pids[@]}" 2>/dev/null || true; fi
  wait_for 60 is_gone "$1"
  say "lost $1: ${#pids[@]} processes"
}

mend() {
  check_loss mend
  local node
  if is_gone slurmctld; then start_controller; fi
  for node in "${NODES[@]}"; do
    ip link set "irnet-$node" up
    if is_gone "$node"; then start_node "$node"; fi
  done
  wait_for 60 nodes_answer
  say "mended: $(sinfo -h -o '%D nodes %N, %T' | xargs)"
}

nodes_answer() { [[ $(timeout 5 sinfo -h -N -o %T | grep -cE '^(idle|alloc|mixed|compl)[a-z]*$') == "${#NODES[@]}" ]]; }

# ------------------------------------------------------------------------------------------------------- status and env

status() {
  is_up || { echo "down"; return 1; }
  sinfo -N -o '%10N %10T %5c %8m'
  squeue
}

environment() {
  [[ -e $STATE/up ]] || die "the local SLURM is not up; start it with: bash env/local_slurm.sh up"
  printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
  echo "export IRNET_SITE=local_slurm"
}

case ${1:-} in
  up | down | lose | mend)
    # One at a time; the second waits for the first and then finds its work done.
    if ((EUID == 0)); then exec 9>"/run/irnet_slurm.lock"; flock -w 120 9 || die "another local_slurm.sh has been at work for 2 minutes"; fi
    "$@" ;;
  status) status ;;
  env) environment ;;
  -h | --help | help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" ;;
  *) die "local_slurm.sh takes up, down, lose, mend, status or env, got '${1:-}'" ;;
esac
