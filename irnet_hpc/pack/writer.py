"""Write packs, in the layout that store.py describes."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError
from irnet_hpc.files import replacing
from irnet_hpc.pack.store import FORMAT, content_hash, hash_text, verify

if TYPE_CHECKING:
    import h5py

CHUNK_ROWS = 4096
# The wider the rows, the fewer rows per chunk.
MAX_CHUNK_BYTES = 2**24
# The file format of HDF5 1.10, in which metadata have checksums too.
HDF5_VERSIONS = ("v110", "v110")


class Writer:
    """Writes a pack: first the features, block by block in the order of rows, then the rest."""

    def __init__(
        self, file: "h5py.File", path: Path, feature_labels: list[str], n_rows: int
    ) -> None:
        self._file, self._path = file, path
        self._hashes = {"feature_label": hash_text(feature_labels)}
        self._x_hash = hashlib.sha256()
        n_features = len(feature_labels)
        chunk_rows = max(1, min(CHUNK_ROWS, n_rows, MAX_CHUNK_BYTES // (4 * n_features)))
        self._n_bytes = 4 * n_features * chunk_rows * -(-n_rows // chunk_rows)
        _reserve(path, self._n_bytes)
        _write_text(file, "feature_label", feature_labels)
        self._x = file.create_dataset(
            "x",
            shape=(0, n_features),
            maxshape=(None, n_features),
            dtype="<f4",
            chunks=(chunk_rows, n_features),
            fletcher32=True,
        )

    def append(self, x: np.ndarray) -> None:
        """Append features of rows, (n, n_features); all must be finite in float32."""
        x = np.ascontiguousarray(x, "<f4")
        assert np.isfinite(x).all()
        n_rows = len(self._x)
        self._x.resize(n_rows + len(x), axis=0)
        self._x[n_rows:] = x
        self._x_hash.update(x.data)

    def finish(
        self,
        formula: list[str],
        material_id: list[str],
        targets: dict[str, np.ndarray],
        counts: dict[str, int],
        identity: dict,
        attrs: dict,
    ) -> None:
        """Write everything but the features; call it once, after all rows are appended.

        Args:
            formula: (n_rows,) formulas.
            material_id: (n_rows,) identifiers.
            targets: Property -> (n_rows,) float64 in its unit; NaN means not reported.
            counts: The number of rows of train, val and test.
            identity: The attributes in store.IDENTITY except format and content_sha256.
            attrs: Attributes that only describe the pack.
        """
        n_rows = len(self._x)
        assert n_rows == len(formula) == len(material_id) == sum(counts.values())
        longest = max(len(text.encode()) for text in (*formula, *material_id))
        row_bytes = 8 * len(targets) + 2 * longest
        _reserve(self._path, self._n_bytes + (n_rows + CHUNK_ROWS) * row_bytes)
        _write_text(self._file, "formula", formula)
        _write_text(self._file, "material_id", material_id)
        self._hashes |= {"formula": hash_text(formula), "material_id": hash_text(material_id)}
        for name, values in targets.items():
            values = np.ascontiguousarray(values, "<f8")
            chunk = (max(1, min(CHUNK_ROWS, n_rows)),)
            y = self._file.create_dataset(f"y/{name}", data=values, chunks=chunk, fletcher32=True)
            _set(y, "unit", identity["properties"][name])
            self._hashes[f"y/{name}"] = hashlib.sha256(values.data).hexdigest()
        self._hashes["x"] = self._x_hash.hexdigest()
        counts = {f"n_{split}": counts[split] for split in ROLES}
        identity = {**identity, "format": FORMAT}
        identity["content_sha256"] = content_hash(self._hashes, identity, counts)
        for name, value in {**identity, **attrs, **counts}.items():
            if name != "format":
                _set(self._file, name, value)
        self._file.flush()
        _set(self._file, "format", FORMAT)


@contextlib.contextmanager
def create_pack(path: Path, feature_labels: list[str], n_rows: int) -> Iterator[Writer]:
    """Write a pack under a temporary name, read it back to verify it, and rename it.

    Args:
        path: The pack to make.
        feature_labels: (n_features,) names of the columns of x.
        n_rows: The largest possible number of rows, for which disk space is reserved.

    Raises:
        UserError: If the disk has no room for the pack.
    """
    import h5py  # here, since --help writes no pack

    with replacing(path) as temporary:
        # HDF5 locks no file that Python has opened; see store.py.
        with (
            temporary.open("w+b") as stream,
            h5py.File(stream, "w", libver=HDF5_VERSIONS, rdcc_nbytes=4 * MAX_CHUNK_BYTES) as file,
        ):
            yield Writer(file, temporary, feature_labels, n_rows)
            file.flush()
            n_bytes = file.id.get_filesize()
        # Release the reserved space that was not used.
        os.truncate(temporary, n_bytes)
        verify(temporary)


def _write_text(file: "h5py.File", name: str, values: list[str]) -> None:
    import h5py

    encoded = [value.encode() for value in values]
    dtype = h5py.string_dtype("utf-8", max(1, *map(len, encoded)))
    chunk = (max(1, min(CHUNK_ROWS, len(values))),)
    file.create_dataset(
        name,
        data=np.array(encoded, dtype),
        dtype=dtype,
        chunks=chunk,
        shuffle=True,
        compression="gzip",
        fletcher32=True,
    )


def _set(item: "h5py.File | h5py.Dataset", name: str, value: object) -> None:
    """Write an attribute; a value that is not text is written as JSON."""
    import h5py

    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False)
    encoded = value.encode()
    item.attrs.create(name, np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded)))))


def _reserve(path: Path, n_bytes: int) -> None:
    """Reserve disk space for a file of `n_bytes` and its metadata.

    HDF5 crashes if the disk fills up while HDF5 writes, so the space is reserved beforehand.

    Raises:
        UserError: If the disk has too little space.
    """
    n_bytes += n_bytes // 64 + 2**20
    try:
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, n_bytes)
    except OSError as error:
        raise UserError(
            f"{path.parent} has no room for a pack of {n_bytes / 2**20:,.0f} MiB: {error.strerror}"
        ) from None
