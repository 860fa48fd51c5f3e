#!/usr/bin/env bash
# HDF5 2.0.0 (h5py 3.16.0): the Fletcher-32 checksum of a chunk does not change if a 16-bit word of zeros becomes a word of
# ones. Its sums are modulo 65,535, where 0x0000 and 0xFFFF are the same number. So a float32 that was 0.0 may come back as a NaN
# from a dataset that was made with fletcher32=True, and reading raises no error; any other change of a word is noticed.
#
# Seen: the values 1 0 2 3 are read as 1 65535 2 3 after one word was overwritten, and as an OSError after another value was
# written there.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check h5py==3.16.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import h5py
import numpy as np

PLACE = 1  # of the value 0


def overwrite(word: bytes) -> None:
    """Replace the 16-bit value at PLACE in the file, behind the back of HDF5."""
    with h5py.File("table.h5") as file:
        start = file["x"].id.get_chunk_info(0).byte_offset
    with open("table.h5", "r+b") as file:
        file.seek(start + 2 * PLACE)
        file.write(word)


def values() -> object:
    try:
        with h5py.File("table.h5") as file:
            return file["x"][:].tolist()
    except OSError:
        return "OSError"


with h5py.File("table.h5", "w") as file:
    file.create_dataset("x", data=np.array([1, 0, 2, 3], "<u2"), chunks=(4,), fletcher32=True)
seen = [values()]
for word in (b"\xff\xff", b"\x01\x00"):
    overwrite(word)
    seen.append(values())
print(h5py.__version__, h5py.version.hdf5_version, *seen, sep="\n")
assert seen == [[1, 0, 2, 3], [1, 65535, 2, 3], "OSError"]
EOF
