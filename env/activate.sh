# shellcheck shell=bash
# Sourced, not run: the site's modules, the virtual environment, and what MPI needs to start.
#   source env/activate.sh          # IRNET_SITE=<name> reads env/sites/<name>.sh first; IRNET_VENV names another environment,
#                                   # a virtual one or conda's

IRNET_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export IRNET_HOME
export IRNET_VENV=${IRNET_VENV:-$IRNET_HOME/.venv}

# Modules come before the environment: they put compilers, MPI and CUDA where Horovod found them when it was built.
if [[ -n ${IRNET_SITE:-} && -f $IRNET_HOME/env/sites/$IRNET_SITE.sh ]]; then
  # Module systems read variables that may be unset, and return what they like: not the caller's -e and -u.
  irnet_options=$-
  set +eu
  if ! command -v module >/dev/null; then
    irnet_path=$PATH
    # shellcheck disable=SC1091
    source /etc/profile >/dev/null     # defines it where there is one; some also begin PATH anew
    PATH=$irnet_path:$PATH
    unset irnet_path
  fi
  # shellcheck disable=SC1090
  source "$IRNET_HOME/env/sites/$IRNET_SITE.sh"
  set +eu
  [[ $irnet_options != *e* ]] || set -e
  [[ $irnet_options != *u* ]] || set -u
  unset irnet_options
fi

if [[ -f $IRNET_VENV/bin/activate && ! -d $IRNET_VENV/conda-meta ]]; then
  # shellcheck disable=SC1091
  source "$IRNET_VENV/bin/activate"
elif [[ -x $IRNET_VENV/bin/python ]]; then
  PATH=$(cd "$IRNET_VENV/bin" && pwd):$PATH
  export PATH
else
  echo "error: no environment at $IRNET_VENV; make it with: bash $IRNET_HOME/env/setup.sh" >&2
  # `return` where this was sourced, as it should be; `exit` where it was run.
  # shellcheck disable=SC2317
  return 2 2>/dev/null || exit 2
fi

# Open MPI refuses to start as root, which is what one is in a container.
if ((EUID == 0)); then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
