#!/usr/bin/env bash
# Get what tests/fake_gpu needs where this environment's torch has no CUDA: torch's build for CUDA, beside the environment.
#
#   bash env/fake_gpu.sh     # prints a Python whose torch has CUDA, for IRNET_CUDA_PYTHON; its own messages go to stderr
#
# torch and NVIDIA's libraries (6 GB) go to ${XDG_CACHE_HOME:-~/.cache}/irnet_hpc/cuda-torch-*, once; all other packages are
# those of the environment. Exit status 0: printed; 3: no network to fetch it; anything else: an error.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VENV=$(realpath -m "${IRNET_VENV:-$(dirname "$HERE")/.venv}")
CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/irnet_hpc
ROOM_GB=12                                         # the packages and their download
python=$VENV/bin/python

say() { printf '[fake_gpu %3ds] %s\n' "$SECONDS" "$*" >&2; }

release=$(sed -n 's/^torch==//p' "$HERE/requirements-cpu.txt")
abi=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')
folder=$CACHE/cuda-torch-$release-$abi
mkdir -p "$CACHE" "$VENV/.irnet"
exec 9>"$folder.lock"
flock 9                                            # two test runs at once: the second finds what the first has fetched

# By === the release of the public index alone, which is the build for CUDA: 2.13.0+cpu of elsewhere would count as newer.
torch=torch===$release

if [[ ! -e $folder/complete ]]; then
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
  if ! timeout 300 "$python" -m pip install -q --dry-run --no-deps --ignore-installed "$torch" >/dev/null 2>&1; then
    say "no network to fetch torch $release for CUDA: no index that pip knows has it"
    exit 3
  fi
  free_gb=$(($(df --output=avail -k "$CACHE" | tail -n 1) / 1000000))
  ((free_gb >= ROOM_GB)) || { say "error: $CACHE must have $ROOM_GB GB free for torch's build for CUDA, got $free_gb"; exit 1; }
  say "torch $release for CUDA: fetching about 3 GB, once"
  rm -rf "$folder"
  # The environment's versions of what torch needs besides.
  "$python" -m pip list --format=freeze --exclude torch 2>/dev/null | grep -E '^[A-Za-z0-9._-]+==[0-9.]+$' >"$folder.pins"
  if ! "$python" -m pip install -q --progress-bar off --no-cache-dir --target "$folder" -c "$folder.pins" "$torch" >&2; then
    say "no network that lasts: torch $release for CUDA was not fetched; pip says why above"
    exit 3
  fi
  touch "$folder/complete"
fi
cuda=$(PYTHONPATH=$folder "$python" -c 'import runpy, sys; print(runpy.run_path(sys.argv[1])["cuda"])' "$folder/torch/version.py")
[[ $cuda != None ]] || { say "error: pip brought torch's build for CPUs; see pip config list"; exit 1; }

# A folder in PYTHONPATH comes before the environment's own packages.
wrapper=$VENV/.irnet/cuda-python
printf '#!/bin/sh\nPYTHONPATH=%q${PYTHONPATH:+:$PYTHONPATH} exec %q "$@"\n' "$folder" "$python" >"$wrapper.part"
chmod +x "$wrapper.part"
mv "$wrapper.part" "$wrapper"
echo "$wrapper"
