# shellcheck shell=bash
# What env/setup.sh does where there is a GPU: an nvcc that fits torch, NCCL as a linker wants it, a look at the driver.
# Sourced; it needs say, logged, torch_fact, python and CACHE of setup.sh.

# nvidia-smi waits for ever where a driver is broken.
smi() { timeout 30 nvidia-smi "$@" 2>/dev/null; }

nvcc_release() { "$1" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p'; }  # such as 13.0

# nvcc of pip's packages, where the machine has none that fits; prints its folder, or nothing where pip cannot get it. The
# packages of CUDA 13 install one tree, nvidia/cu13 (bin, include, lib, nvvm); those of CUDA 12 bring no nvcc.
nvcc_from_pip() {  # $1: torch's CUDA, such as 13.0
  local release=$1 folder=$CACHE/nvcc-$1 package packages=()
  (("${release%%.*}" >= 13)) || return 0
  if [[ ! -e $folder/complete ]]; then
    for package in nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl; do
      packages+=("$package==$release.*")
    done
    say "nvcc $release: from pip, once" >&2
    rm -rf "$folder"
    "$python" -m pip install --progress-bar off --no-deps --target "$folder" "${packages[@]}" >>"$LOG" 2>&1 </dev/null 9>&- ||
      return 0
    # Where compilers and CMake look for what the packages call otherwise.
    ln -sfn lib "$folder/nvidia/cu${release%%.*}/lib64"
    ln -sf "libcudart.so.${release%%.*}" "$folder/nvidia/cu${release%%.*}/lib/libcudart.so"
    [[ $(nvcc_release "$folder/nvidia/cu${release%%.*}/bin/nvcc") == "$release" ]] || return 0
    touch "$folder/complete"
  fi
  echo "$folder/nvidia/cu${release%%.*}"
}

# NCCL where torch has CUDA and a compiler of the same CUDA is to be had; a CPU torch needs neither, whatever nvcc is on PATH.
# Prints the folder of CUDA, or nothing.
find_cuda() {
  [[ $accelerator == cuda ]] || return 0
  local nvcc=${HOROVOD_CUDA_HOME:-${CUDA_HOME:-/nowhere}}/bin/nvcc torch_cuda release home why
  [[ -x $nvcc ]] || nvcc=$(command -v nvcc) || nvcc=${DEFAULT_CUDA:-/usr/local/cuda}/bin/nvcc
  torch_cuda=$(torch_fact cuda)
  if [[ -z $torch_cuda ]]; then
    say "note: this torch has no CUDA; Horovod is built without NCCL" >&2
    return 0
  fi
  why="no nvcc"
  if [[ -x $nvcc ]]; then
    release=$(nvcc_release "$nvcc")
    if [[ ${release%%.*} == "${torch_cuda%%.*}" ]]; then
      # nvcc's own word for where it lives: the command may be a link or a wrapper.
      home=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
      realpath "${home:-$(dirname "$nvcc")/..}"
      return
    fi
    why="nvcc is of CUDA ${release:-unknown}"
  fi
  home=$(nvcc_from_pip "$torch_cuda")
  if [[ -z $home ]]; then
    say "note: torch is built for CUDA $torch_cuda, and there is $why (module: cuda/$torch_cuda), nor could pip bring one;" \
      "Horovod is built without NCCL and sums the gradients of several GPUs through the CPU, which is slow; --engine torch has NCCL" >&2
  fi
  echo "$home"
}

compute_capabilities() {  # "90" or "80,90"; without a GPU in sight those of A100 and H100
  local list
  list=$(smi --query-gpu=compute_cap --format=csv,noheader | tr -d . | grep -x '[0-9]*' | sort -un | paste -sd,) || true
  echo "${HOROVOD_BUILD_CUDA_CC_LIST:-${list:-80,90}}"
}

# torch's wheel carries NCCL without the unversioned name a linker looks for. The folder stays, since the linker writes its name
# into Horovod (RUNPATH): in a folder that is gone, anybody could later put a library.
stage_nccl() {  # $1: a folder
  local folder
  folder=$("$python" -c 'import nvidia.nccl as nccl; print(list(nccl.__path__)[0])' 2>/dev/null) || return 0  # the system's, then
  mkdir -p "$1/lib"
  ln -sfn "$folder/include" "$1/include"
  ln -sf "$folder/lib/libnccl.so.2" "$1/lib/libnccl.so.2"
  ln -sf libnccl.so.2 "$1/lib/libnccl.so"
  export HOROVOD_NCCL_HOME=$1
}

# A driver that knows only an older CUDA runs no kernel of torch; within a major version it does.
check_driver() {
  [[ $accelerator == cuda ]] || return 0
  local driver torch_cuda
  torch_cuda=$(torch_fact cuda)
  driver=$(smi | sed -n 's/.*CUDA[A-Z a-z]* Version: *\([0-9.]*\).*/\1/p' | head -n 1) || true
  [[ $driver && $torch_cuda ]] || return 0
  if ((${driver%%.*} < ${torch_cuda%%.*})); then
    say "note: the driver of this machine knows CUDA $driver, and torch $(torch_fact __version__) needs one for CUDA ${torch_cuda%%.*}:" \
      "no training can use the GPU before the driver is newer, or IRNET_VENV holds a torch for CUDA ${driver%%.*}"
  fi
}
