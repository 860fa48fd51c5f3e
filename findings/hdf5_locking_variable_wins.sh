#!/usr/bin/env bash
# HDF5 2.0.0 (h5py 3.16.0): the environment variable HDF5_USE_FILE_LOCKING overrules the argument `locking` of h5py.File, in both
# directions. Clusters set the variable to TRUE or FALSE in a module. With TRUE, `locking=False` locks nevertheless, so that a
# program which asks for no locks still fails where another process has the file open, or where the file system has no locks.
#
# Seen: with TRUE, a second process cannot open the file even if both ask for no locks (BlockingIOError); with FALSE, it can
# even if both ask for locks.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check h5py==3.16.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import os
import subprocess
import sys

import h5py

ASK = """
import h5py
try:
    h5py.File("table.h5", "r", locking={locking}).close()
    print("opened")
except BlockingIOError:
    print("BlockingIOError")
"""
HOLD = """
import subprocess, sys
import h5py
with h5py.File("table.h5", "w", locking={locking}) as file:
    file.flush()
    print(subprocess.run([sys.executable, "-c", {ask!r}], capture_output=True, text=True).stdout)
"""
seen = {}
for variable in (None, "TRUE", "FALSE"):
    environment = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
    if variable:
        environment["HDF5_USE_FILE_LOCKING"] = variable
    for locking in (True, False):
        code = HOLD.format(locking=locking, ask=ASK.format(locking=locking))
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        seen[variable, locking] = done.stdout.strip()
        print(f"HDF5_USE_FILE_LOCKING={variable} locking={locking}: {done.stdout.strip()}")
print(h5py.__version__, h5py.version.hdf5_version)
assert seen == {
    (None, True): "BlockingIOError",
    (None, False): "opened",
    ("TRUE", True): "BlockingIOError",
    ("TRUE", False): "BlockingIOError",
    ("FALSE", True): "opened",
    ("FALSE", False): "opened",
}
EOF
