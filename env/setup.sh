#!/usr/bin/env bash
# Install everything irnet_hpc needs, and prove that Horovod's two ranks find each other. Run it as often as you like.
#
#   bash env/setup.sh [--cpu | --cuda] [--slurm]
#
#   --cpu, --cuda   which build of PyTorch; by default CUDA where nvidia-smi finds a GPU
#   --slurm         also what env/local_slurm.sh needs
#
#   IRNET_VENV      the virtual environment (default <repository>/.venv); a torch it already holds is kept
#   IRNET_PYTHON    the Python to make it with (default: the first 3.11 to 3.13 on PATH)
#   IRNET_SITE      reads env/sites/<name>.sh first, so that Horovod is built against the cluster's modules
#
# Horovod takes about two minutes to build (with NCCL seven), once: its wheel is kept in ${XDG_CACHE_HOME:-~/.cache}/irnet_hpc/wheels,
# by torch, Python, compiler and MPI. System packages are installed by root with apt only; others are told what is missing.
set -euo pipefail

HOROVOD_VERSION=0.28.1
HOROVOD_SHA256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
PATCH_VERSION=3                                    # raise with any change to patch_horovod or build_horovod

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(dirname "$HERE")
VENV=$(realpath -m "${IRNET_VENV:-$REPOSITORY/.venv}")
CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/irnet_hpc
STATE=$VENV/.irnet                                 # our stamps and log, gone with the environment
LOG=$STATE/setup.log

say() { printf '[setup %3ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# Run a command into the log; on failure show the first compiler errors and the end of the log.
logged() {
  printf '\n+ %s\n' "$*" >>"$LOG"
  "$@" >>"$LOG" 2>&1 </dev/null 9>&- || {
    { echo "error: failed: $*"
      grep -m 5 -E '(^|: )(fatal )?error: |CMake Error' "$LOG" || true
      echo "--- the end of $LOG"
      tail -n 20 "$LOG"; } >&2
    exit 1
  }
}

hash_of() { sha256sum | cut -c1-16; }

# ------------------------------------------------------------------------------------------------------------ arguments

accelerator=
with_slurm=
for argument in "$@"; do
  case $argument in
    --cpu | --cuda) accelerator=${argument#--} ;;
    --slurm) with_slurm=yes ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit ;;
    *) die "setup.sh takes --cpu, --cuda and --slurm, got '$argument'" ;;
  esac
done
if [[ -z $accelerator ]]; then
  if timeout 30 nvidia-smi -L >/dev/null 2>&1; then accelerator=cuda; else accelerator=cpu; fi
fi
[[ $(uname -s) == Linux ]] || die "setup.sh knows Linux only, got $(uname -s)"
if [[ -n ${IRNET_SITE:-} && -f $HERE/sites/$IRNET_SITE.sh ]]; then
  set +eu                                          # module systems read variables that may be unset, and return what they like
  if ! command -v module >/dev/null; then
    path=$PATH
    # shellcheck disable=SC1091
    source /etc/profile >/dev/null                 # defines it where there is one; some also begin PATH anew
    PATH=$path:$PATH
  fi
  # shellcheck disable=SC1090
  source "$HERE/sites/$IRNET_SITE.sh"
  set -eu
fi

mkdir -p "$STATE" "$CACHE" || die "IRNET_VENV=$VENV and $CACHE must be writable"
: >"$LOG"
exec 9>"$STATE/lock"
flock -n 9 || { say "another setup.sh is at work on $VENV; waiting for it"; flock 9; }

# ------------------------------------------------------------------------------------------------------ system packages

good_python() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {  # the environment's own, else the first suitable one, as the path of the real executable (not a shim)
  local candidate
  for candidate in "$VENV/bin/python" ${IRNET_PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if good_python "$candidate"; then
      # The environment's own is a link and must stay one: behind it is a Python without the packages.
      if [[ $candidate == "$VENV/bin/python" ]]; then echo "$candidate"; else "$candidate" -c 'import sys; print(sys.executable)'; fi
      return
    fi
  done
}

can_make_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
has_headers() { "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; }

list_missing() {  # Debian package | what it is for and where a cluster has it
  local command
  if [[ -z $python ]]; then
    echo "python3 | Python 3.11 to 3.13 (module: python); found: $(python3 --version 2>/dev/null || echo none)"
    echo "python3-venv | Python's venv (part of the module)"
    echo "python3-dev | Python's headers (part of the module)"
  else
    if [[ ! -x $VENV/bin/python ]] && ! can_make_environments "$python"; then echo "python3-venv | $python cannot make virtual environments (module: python)"; fi
    if ! has_headers "$python"; then echo "python3-dev | the headers of $python (module: python)"; fi
  fi
  command -v g++ >/dev/null || echo "g++ | the C++ compiler, g++ (module: gcc)"
  command -v make >/dev/null || echo "make | make (module: often part of the system)"
  command -v mpirun >/dev/null || echo "openmpi-bin | mpirun (module: openmpi)"
  command -v mpicxx >/dev/null || echo "libopenmpi-dev | mpicxx and MPI's headers (module: openmpi)"
  if [[ $with_slurm ]]; then
    for command in slurmctld:slurm-wlm slurmd:slurm-wlm slurmdbd:slurmdbd mariadbd:mariadb-server munged:munge ip:iproute2; do
      PATH=$PATH:/usr/sbin:/sbin command -v "${command%%:*}" >/dev/null || echo "${command##*:} | ${command%%:*}, for the local SLURM"
    done
  fi
}

install_packages() {  # $@: Debian packages
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  # A package's daemons must not start: a SLURM or a MariaDB of the machine's own is not what was asked for.
  local allow_daemons=:
  if [[ $with_slurm && ! -e /usr/sbin/policy-rc.d ]]; then
    allow_daemons="rm -f /usr/sbin/policy-rc.d"
    # shellcheck disable=SC2064  # as it is now
    trap "$allow_daemons" EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  logged "${apt[@]}" update
  logged "${apt[@]}" install -y --no-install-recommends "$@"
  $allow_daemons
  trap - EXIT
}

python=$(find_python)
mapfile -t missing < <(list_missing)
if ((${#missing[@]})); then
  mapfile -t packages < <(printf '%s\n' "${missing[@]%% |*}" | sort -u)
  if ((EUID == 0)) && command -v apt-get >/dev/null; then
    say "system packages: ${packages[*]}"
    install_packages "${packages[@]}"
    python=$(find_python)
    mapfile -t missing < <(list_missing)
  fi
fi
if ((${#missing[@]})); then
  { echo "missing on this machine:"
    printf '  %s\n' "${missing[@]##*| }"
    echo "Either load the modules named, or let root run: apt-get install -y ${packages[*]}"; } >&2
  # Without MPI there is still Gloo; without a Python or a compiler there is nothing.
  grep -qv -e '^openmpi-bin ' -e '^libopenmpi-dev ' <(printf '%s\n' "${missing[@]}") && exit 2
fi
command -v mpicxx >/dev/null && command -v mpirun >/dev/null && with_mpi=1 || with_mpi=

# ------------------------------------------------------------------------------------------------- virtual environment

# $1 as the environment's Python sees it: torch's version, or nothing; read from its file, since importing takes seconds.
torch_fact() {
  "$python" - "$1" <<'PYTHON' 2>/dev/null || true
import importlib.util, runpy, sys
from pathlib import Path
spec = importlib.util.find_spec("torch")
print(runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get(sys.argv[1]) or "")
PYTHON
}

if [[ ! -x $VENV/bin/python || ! -x $VENV/bin/pip ]]; then
  # A GPU site's own torch fits its driver: the environment is laid over it instead of bringing another.
  site_packages=()
  if [[ $accelerator == cuda && -n $(torch_fact __version__) ]]; then site_packages=(--system-site-packages); fi
  say "virtual environment: $VENV ($("$python" --version), $python)"
  logged "$python" -m venv "${site_packages[@]}" "$VENV"
fi
good_python "$VENV/bin/python" || die "the environment's Python must be 3.11 to 3.13, got $("$VENV/bin/python" --version) in $VENV"
python=$VENV/bin/python
export PATH=$VENV/bin:$PATH VIRTUAL_ENV=$VENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONHOME PYTHONPATH

requirements=$STATE/requirements.txt
cat "$HERE/requirements-cpu.txt" >"$requirements"
[[ $accelerator == cpu ]] || grep -v '^-r ' "$HERE/requirements-cuda.txt" >>"$requirements"
[[ -e $STATE/torch-is-ours || -n $(torch_fact __version__) ]] || touch "$STATE/torch-is-ours"
if [[ ! -e $STATE/torch-is-ours ]]; then sed -i '/^torch==/d' "$requirements"; fi

stamp=$({ grep -v '^#' "$requirements"; "$python" -VV; echo "$accelerator"; } | hash_of)
if [[ $(cat "$STATE/installed" 2>/dev/null) != "$stamp" ]]; then
  index=()
  whose="its pins"
  if [[ ! -e $STATE/torch-is-ours ]]; then
    whose="its pins, keeping torch $(torch_fact __version__)"
  elif [[ $accelerator == cpu ]]; then
    cpu_index=https://download.pytorch.org/whl/cpu
    if timeout 8 "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).read(1)' "$cpu_index/torch/" 2>/dev/null; then
      index=(--extra-index-url "$cpu_index")
      whose="its pins, torch from PyTorch's CPU index"
    else
      whose="its pins; PyTorch's CPU index does not answer, so pip's own configuration decides which torch"
    fi
  fi
  say "Python packages: $whose"
  logged pip install --progress-bar off "${index[@]}" -r "$requirements"
  echo "$stamp" >"$STATE/installed"
fi

# --------------------------------------------------------------------------------------------------------------- Horovod

# shellcheck source=env/cuda.sh
source "$HERE/cuda.sh"

# Horovod 0.28.1 is of June 2023. Each substitution must find its text: a silent miss would fail two minutes later.
replace() { grep -q -- "$2" "$1" || die "Horovod's $1 is not as expected: '$2' is missing"; sed -i "s/$2/$3/" "$1"; }

patch_horovod() {  # in the source folder
  # Current torch headers need C++17 (2.13) or C++20 (2.15).
  replace CMakeLists.txt 'set(CMAKE_CXX_STANDARD 14)' 'set(CMAKE_CXX_STANDARD 20)'
  replace horovod/torch/CMakeLists.txt 'set(CMAKE_CXX_STANDARD 14)' 'set(CMAKE_CXX_STANDARD 20)'
  # g++ 14 refuses the assignment to this member, in an operator that nothing calls.
  replace third_party/flatbuffers/include/flatbuffers/stl_emulation.h 'const size_type count_;' 'size_type count_;'
  # Containers and some packages of the driver have no libcuda.so without a version.
  replace horovod/torch/cuda_util.cc 'dlopen("libcuda.so",' 'dlopen("libcuda.so.1",'
  # Debug symbols are four fifths of the library and a good part of the compile time.
  replace setup.py "'RelWithDebInfo'" "'Release'"
  if [[ -z $cuda_home ]]; then
    # Else an nvcc found anywhere (even by CMake's own search) is compiled with, and a CUDA torch beside it forces CUDA.
    replace CMakeLists.txt '^check_language(CUDA)' 'set(CMAKE_CUDA_COMPILER "")'
    replace CMakeLists.txt '^    find_package(CUDAToolkit)$' '    set(CUDAToolkit_BIN_DIR "")'
    replace cmake/Modules/FindPytorch.cmake '(torch.version.cuda is not None) and (CUDA_HOME is not None)' 'False'
  fi
}

build_horovod() {  # $1: an empty folder; leaves the wheel in $1/wheel
  local sdist=$CACHE/horovod-$HOROVOD_VERSION.tar.gz source=$1/horovod-$HOROVOD_VERSION
  if ! echo "$HOROVOD_SHA256  $sdist" | sha256sum -c --status 2>/dev/null; then
    logged pip download --progress-bar off --no-deps --no-build-isolation --no-binary horovod -d "$1" "horovod==$HOROVOD_VERSION"
    echo "$HOROVOD_SHA256  $1/horovod-$HOROVOD_VERSION.tar.gz" | sha256sum -c --status || die "the downloaded horovod-$HOROVOD_VERSION.tar.gz does not have the expected SHA-256"
    mv "$1/horovod-$HOROVOD_VERSION.tar.gz" "$sdist"
  fi
  tar -xzf "$sdist" -C "$1"
  (cd "$source" && patch_horovod)

  export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
  export CMAKE_POLICY_VERSION_MINIMUM=3.5          # CMake 4 refuses the older minimum that Horovod and Gloo name
  export CXXFLAGS="${CXXFLAGS:-} -include string -include cstdint"   # taken for granted by the source, no longer by g++ 13 and 14
  MAKEFLAGS=-j$(nproc)
  export MAKEFLAGS
  if [[ $with_mpi ]]; then export HOROVOD_WITH_MPI=1; else export HOROVOD_WITHOUT_MPI=1; fi
  if [[ $cuda_home ]]; then
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED HOROVOD_CUDA_HOME=$cuda_home HOROVOD_BUILD_CUDA_CC_LIST=$capabilities
    export CUDA_HOME=$cuda_home
    [[ -n ${HOROVOD_NCCL_HOME:-} ]] || stage_nccl "$CACHE/nccl/$key"
  fi
  logged pip wheel --no-deps --no-build-isolation --no-cache-dir -w "$1/wheel" "$source"
}

check_driver
cuda_home=$(find_cuda)
capabilities='' minutes=2
if [[ $cuda_home ]]; then capabilities=$(compute_capabilities) minutes=7; fi
facts=$(
  echo "horovod $HOROVOD_VERSION patch $PATCH_VERSION, $("$python" -c 'import platform, sysconfig; print(sysconfig.get_config_var("SOABI"), platform.libc_ver()[1])')"
  echo "torch $(torch_fact __version__) $(torch_fact git_version), g++ $(g++ -dumpfullversion)"
  echo "mpi ${with_mpi:+$(mpirun --version | head -n 1) $(command -v mpicxx)}"
  echo "cuda $cuda_home $capabilities ${HOROVOD_NCCL_HOME:-}"
)
key=$(hash_of <<<"$facts")
shelf=$CACHE/wheels/$key
if [[ $(cat "$STATE/horovod" 2>/dev/null) != "$key" ]]; then
  mkdir -p "$CACHE/wheels"
  # Two environments with one cache: the second waits here and finds the wheel.
  exec 8>"$CACHE/wheels/.$key.lock"
  flock 8
  if ! compgen -G "$shelf/*.whl" >/dev/null; then
    say "Horovod $HOROVOD_VERSION: building with Gloo${with_mpi:+, MPI}${cuda_home:+, NCCL} against torch $(torch_fact __version__), once; about $minutes minutes"
    [[ $with_mpi ]] || say "note: no MPI compiler (module: openmpi), so without MPI: horovodrun and srun work, mpirun does not"
    workplace=$(mktemp -d "${TMPDIR:-/tmp}/irnet-horovod.XXXXXX")
    # Not `(build_horovod ...) || ...`: behind a || nothing in it would stop at an error.
    trap 'echo "the build is in $workplace" >&2' EXIT
    (build_horovod "$workplace") 8>&-
    trap - EXIT
    echo "$facts" >"$workplace/wheel/built-for.txt"
    # Whole or not at all: an interrupted copy must not be taken for a wheel.
    rm -rf "$shelf.part" && mv "$workplace/wheel" "$shelf.part" && mv -T "$shelf.part" "$shelf"
    rm -rf "$workplace"
  else
    say "Horovod $HOROVOD_VERSION: from the cache ($shelf)"
  fi
  logged pip install --no-deps --force-reinstall "$shelf"/*.whl
  exec 8>&-
  echo "$key" >"$STATE/horovod"
fi

# --------------------------------------------------------------------------------------------------- the package itself

project=$({ cat "$REPOSITORY/setup.cfg" "$REPOSITORY/pyproject.toml"; echo "$REPOSITORY"; "$python" -VV; } | hash_of)
if [[ $(cat "$STATE/project" 2>/dev/null) != "$project" ]]; then
  say "irnet_hpc itself, editable"
  logged pip install --no-deps --no-build-isolation -e "$REPOSITORY"
  echo "$project" >"$STATE/project"
fi

# ----------------------------------------------------------------------------------------------------------------- proof

# Inside a job the launchers would ask SLURM for its hosts; the proof is about this machine alone.
unset "${!SLURM_@}" "${!PMI@}" "${!OMPI_@}" "${!HOROVOD_@}"
export OMP_NUM_THREADS=1 HOROVOD_GLOO_TIMEOUT_SECONDS=30
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

prove() {
  say "proof: 2 ranks under $1"; shift
  logged timeout -k 5 90 "$@"
  grep -o 'allreduce over .*' "$LOG" | tail -n 1
}
prove horovodrun horovodrun --gloo -np 2 python "$HERE/proof.py" gloo
# Open MPI counts cores and refuses more ranks; MPICH does not, and does not know the option.
oversubscribe=()
if [[ $with_mpi ]] && mpirun --version 2>&1 | grep -q 'Open MPI\|OpenRTE'; then oversubscribe=(--oversubscribe); fi
[[ -z $with_mpi ]] || prove mpirun mpirun "${oversubscribe[@]}" -np 2 python "$HERE/proof.py" mpi

say "ready:  source $(realpath --relative-base="$PWD" "$HERE/activate.sh")"
