#!/usr/bin/env bash
# From nothing to every test run: installs what is missing, brings up the local SLURM where root allows it, and takes it down.
#
#   bash env/test.sh                    # everything
#   bash env/test.sh -m "not slow" -x   # options go to pytest
#
# IRNET_DATA=<folder of raw tables> adds the tests on real data. IRNET_FAKE_GPU=1 fetches torch's build for CUDA (3 GB, once) where
# the environment's torch has none, for the tests on a stand-in for GPUs; they then fail where they would be skipped, unless there
# is no network to fetch it.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if ((EUID == 0)) && command -v apt-get >/dev/null; then
  bash "$HERE/setup.sh" --slurm
else
  bash "$HERE/setup.sh"
fi
# A browser for the tests of the report, and LaTeX for those of the tables. Where one is not to be had (Ubuntu has Chromium as
# a snap only), its tests are skipped and say so.
optional() {  # a program, its packages and what is without them
  local program=$1 packages=$2 what=$3
  command -v "$program" >/dev/null && return
  if ((EUID == 0)) && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086  # several packages
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $packages \
      >/dev/null 2>&1 && return
  fi
  echo "note: no $program (of $packages); $what are skipped"
}
optional chromedriver "chromium chromium-driver" "the tests of the report in a browser"
optional pdflatex "texlive-latex-base texlive-latex-recommended" "the tests that compile the LaTeX tables"
# shellcheck source=env/activate.sh
source "$HERE/activate.sh"
cd "$IRNET_HOME"

without_gpus=
if [[ ${IRNET_FAKE_GPU:-} == 1 && -z ${IRNET_CUDA_PYTHON:-} ]]; then
  cuda=$(python -c 'import torch; print(torch.version.cuda or "")')
  if [[ -z $cuda ]]; then
    fetched=0
    IRNET_CUDA_PYTHON=$(bash "$HERE/fake_gpu.sh") || fetched=$?
    if ((fetched == 3)); then
      without_gpus="WARNING: no network to fetch torch for CUDA: the tests on a stand-in for GPUs were SKIPPED"
      unset IRNET_FAKE_GPU IRNET_CUDA_PYTHON
    elif ((fetched)); then
      exit "$fetched"
    else
      export IRNET_CUDA_PYTHON
    fi
  fi
fi

# A cluster that was up before stays up after.
if bash "$HERE/local_slurm.sh" status >/dev/null 2>&1; then
  IRNET_TEST_SLURM=1
else
  # Quietly, so that pytest has the last word.
  trap 'bash "$HERE/local_slurm.sh" down >/dev/null 2>&1 || true' EXIT
  trap 'exit 130' INT TERM HUP
  if bash "$HERE/local_slurm.sh" up; then IRNET_TEST_SLURM=1; else echo "note: without the local SLURM; its tests are skipped"; fi
fi
if [[ ${IRNET_TEST_SLURM:-} == 1 ]]; then
  export IRNET_TEST_SLURM
  cluster=$(bash "$HERE/local_slurm.sh" env)
  eval "$cluster"
  unset IRNET_SITE                      # a test that wants the site says so
fi

status=0
python -m pytest "$@" || status=$?
[[ -z $without_gpus ]] || echo "$without_gpus" >&2
exit "$status"
