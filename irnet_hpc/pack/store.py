"""Packs: `irnet-pack/1`, one HDF5 file of features and targets. The only module that knows the layout, or HDF5.

    /x (n_rows, n_features) float32, finite     /y/<property> (n_rows,) float64, NaN = not reported, unit in attrs
    /material_id /formula (n_rows,) utf-8       /feature_label (n_features,) utf-8
    rows [0, n_train) are train, the next n_val val, the last n_test test

Text has a fixed length, so that the chunk checksums, verified at each read, cover it; HDF5 keeps text of varying length
in a heap without any. Attributes not in TEXT are JSON. `format` is written last: a file without it is unfinished.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import replacing

FORMAT = "irnet-pack/1"
# What decides a pack's content, and with it the key of a run. All other attributes only describe.
IDENTITY = (
    "format",
    "source",
    "source_sha256",
    "rules",
    "n_source_rows",
    "properties",
    "features",
    "feature_versions",
    "filters",
    "split",
    "content_sha256",
)
TEXT = (
    "format",
    "source",
    "source_sha256",
    "features",
    "content_sha256",
    "unit",
    "licence",
    "citation",
    "created",
)
CHUNK_ROWS = 4096
CHUNK_BYTES = 2**24  # at most; wide rows get fewer rows a chunk
SLAB_ROWS = 65536  # read at once when the content is hashed, fewer of wide rows
SLAB_BYTES = 2**28
# A pack may come from anybody. What ours unpack to is a few times their file: beyond this a file is made to fill the memory.
MOST_UNPACKED = 200
FREELY_UNPACKED = 2**27  # bytes, whatever the file's size
LIBRARY = ("v110", "v110")  # HDF5 >= 1.10, whose metadata have checksums too


def pack_path(name: Path | str, pack_dir: Path | str | None = None) -> Path:
    """Where a pack is: a path to an .h5 file stands for itself, a name is looked for in the folder of packs.

    That folder is `pack_dir`, else $IRNET_PACKS, else packs/.
    """
    if str(name).endswith(".h5"):
        return Path(name)
    return Path(pack_dir or os.environ.get("IRNET_PACKS") or "packs") / f"{name}.h5"


class Pack:
    """An open pack. Close it, or use `with open_pack(path) as pack`. Reads raise UserError where the file is damaged."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        with _sound(self.path):
            # A pack never changes once it has its name, and parallel file systems often have no locks.
            self._file = h5py.File(self.path, "r", locking=False)
        try:
            with _sound(self.path):
                self._describe()
        except BaseException:
            self._file.close()
            raise

    def _describe(self) -> None:
        if "format" not in self._file.attrs or _get("format", self._file.attrs["format"]) != FORMAT:
            raise UserError(f"{self.path} is HDF5, but not a finished pack of format {FORMAT}")
        attrs = {name: _get(name, value) for name, value in self._file.attrs.items()}
        self.identity: dict = {name: attrs.pop(name) for name in IDENTITY}
        self.attrs: dict = attrs
        self.features: str = self.identity["features"]
        self.units: dict[str, str] = self.identity["properties"]
        self.n_train, self.n_val, self.n_test = (int(attrs[f"n_{split}"]) for split in ROLES)
        self.n_rows, self.n_features = self._file["x"].shape
        _check_layout(self)
        self.feature_labels: list[str] = _text(self._file["feature_label"][:])

    def rows(self, split: str) -> slice:
        """The rows of train, val or test."""
        start = {"train": 0, "val": self.n_train, "test": self.n_train + self.n_val}[
            check_choice("split", split, ROLES)
        ]
        return slice(
            start, start + {"train": self.n_train, "val": self.n_val, "test": self.n_test}[split]
        )

    def x(self, rows: slice) -> np.ndarray:
        """(n, n_features) float32."""
        return self.read("x", rows)

    def x_into(self, out: np.ndarray, rows: slice) -> np.ndarray:
        """The same into the first rows of `out`, float32 and as wide: memory that is there already is read into in half the time."""
        out = out[: rows.stop - rows.start]
        with _sound(self.path):
            self._file["x"].read_direct(out, np.s_[rows.start : rows.stop])
        return out

    def y(self, property: str, rows: slice) -> np.ndarray:
        """(n,) float64 in the property's unit, NaN = not reported. Raises UserError for a property that is not there."""
        return self.read(
            f"y/{check_choice(f'property of pack {self.name}', property, self.units)}", rows
        )

    def formulas(self, rows: slice) -> list[str]:
        """The formulas as the source wrote them."""
        return _text(self.read("formula", rows))

    def material_ids(self, rows: slice) -> list[str]:
        return _text(self.read("material_id", rows))

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Rows of the dataset of that name, as HDF5 has them."""
        with _sound(self.path):
            return self._file[name][rows]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Pack":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_pack(path: Path | str) -> Pack:
    """Open a pack to read. Raises UserError where it is missing, cut short, not HDF5 or not a pack."""
    return Pack(path)


class Writer:
    """A pack being written: blocks of features first, in the order of the rows, then all the rest at once."""

    def __init__(self, file: h5py.File, feature_labels: list[str], n_rows: int) -> None:
        self._file = file
        self._hashes = {"feature_label": _hash_text(feature_labels)}
        self._x_hash = hashlib.sha256()
        n_features = len(feature_labels)
        chunk_rows = max(1, min(CHUNK_ROWS, n_rows, CHUNK_BYTES // (4 * n_features)))
        self._n_bytes = 4 * n_features * chunk_rows * -(-n_rows // chunk_rows)
        _reserve(file, self._n_bytes)
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
        """Add rows (n, n_features), finite in float32."""
        x = np.ascontiguousarray(x, "<f4")
        assert np.isfinite(x).all()
        n_rows = len(self._x)
        self._x.resize(n_rows + len(x), axis=0)
        self._x[n_rows:] = x
        self._x_hash.update(x)

    def finish(
        self,
        formula: list[str],
        material_id: list[str],
        targets: dict[str, np.ndarray],
        counts: dict[str, int],
        identity: dict,
        attrs: dict,
    ) -> None:
        """Add what goes with the rows appended.

        `targets`: property -> (n_rows,) float64; `counts`: split -> rows; `identity`: IDENTITY without format and hash.
        """
        n_rows = len(self._x)
        assert n_rows == len(formula) == len(material_id) == sum(counts.values())
        longest = max(len(text.encode()) for text in (*formula, *material_id))
        _reserve(
            self._file, self._n_bytes + (n_rows + CHUNK_ROWS) * (8 * len(targets) + 2 * longest)
        )
        _write_text(self._file, "formula", formula)
        _write_text(self._file, "material_id", material_id)
        self._hashes |= {"formula": _hash_text(formula), "material_id": _hash_text(material_id)}
        for name, values in targets.items():
            values = np.ascontiguousarray(values, "<f8")
            chunk = (max(1, min(CHUNK_ROWS, n_rows)),)
            y = self._file.create_dataset(f"y/{name}", data=values, chunks=chunk, fletcher32=True)
            _set(y, "unit", identity["properties"][name])
            self._hashes[f"y/{name}"] = hashlib.sha256(values).hexdigest()
        self._hashes["x"] = self._x_hash.hexdigest()
        counts = {f"n_{split}": counts[split] for split in ROLES}
        identity = {**identity, "format": FORMAT}
        identity["content_sha256"] = _content_hash(self._hashes, identity, counts)
        for name, value in {**identity, **attrs, **counts}.items():
            if name != "format":
                _set(self._file, name, value)
        self._file.flush()
        _set(self._file, "format", FORMAT)


@contextlib.contextmanager
def create(path: Path, feature_labels: list[str], n_rows: int) -> Iterator[Writer]:
    """Write a pack of about `n_rows` rows under a temporary name; it gets its own once it has been read back and found sound."""
    with replacing(path) as temporary:
        with h5py.File(
            temporary, "w", libver=LIBRARY, locking=False, rdcc_nbytes=4 * CHUNK_BYTES
        ) as file:
            yield Writer(file, feature_labels, n_rows)
            file.flush()
            n_bytes = file.id.get_filesize()
        os.truncate(temporary, n_bytes)  # gives back what was reserved and not used
        verify(temporary)


def verify(path: Path | str) -> str:
    """Read all of a pack; return its content hash. Raises UserError where it is not the one recorded."""
    with open_pack(path) as pack:
        hashes = {name: hashlib.sha256() for name in ("x", *(f"y/{name}" for name in pack.units))}
        step = max(1, min(SLAB_ROWS, SLAB_BYTES // (4 * pack.n_features)))
        for start in range(0, pack.n_rows, step):
            for name, digest in hashes.items():
                digest.update(
                    np.ascontiguousarray(
                        pack.read(name, slice(start, min(start + step, pack.n_rows)))
                    )
                )
        found = {name: digest.hexdigest() for name, digest in hashes.items()}
        everything = slice(0, pack.n_rows)
        found["feature_label"] = _hash_text(pack.feature_labels)
        found["formula"], found["material_id"] = map(
            _hash_text, (pack.formulas(everything), pack.material_ids(everything))
        )
        counts = {f"n_{split}": pack.attrs[f"n_{split}"] for split in ROLES}
        content, recorded = (
            _content_hash(found, pack.identity, counts),
            pack.identity["content_sha256"],
        )
    if content != recorded:
        raise UserError(
            f"{path} is damaged: its content hashes to {content[:12]}, not to the {recorded[:12]} it was written with"
        )
    return content


def can_be_locked(path: Path | str) -> bool:
    """Whether HDF5's own locks work on a file. Packs are opened without them; other programs may not be."""
    try:
        with h5py.File(path, "r", locking=True):
            return True
    except OSError:
        return False


def _check_layout(pack: Pack) -> None:
    """Raises UserError, or ValueError, where an open pack is not laid out as this module does it, whoever made it."""
    file, identity = pack._file, pack.identity
    for name, kind in (
        ("properties", dict),
        ("feature_versions", dict),
        ("filters", list),
        ("split", dict),
    ):
        if not isinstance(identity[name], kind):
            raise ValueError(
                f"attribute {name} must be of type {kind.__name__}, however: {identity[name]!r:.80}"
            )
    if not isinstance(identity["n_source_rows"], int) or not re.fullmatch(
        "[0-9a-f]{64}", identity["content_sha256"]
    ):
        raise ValueError(
            "attributes n_source_rows and content_sha256 must be a whole number and a sha256"
        )
    if not all(isinstance(unit, str) for unit in pack.units.values()):
        raise ValueError(f"units must be text, however: {pack.units!r:.80}")
    if (
        not pack.n_rows
        or not pack.n_features
        or pack.n_rows != pack.n_train + pack.n_val + pack.n_test
    ):
        raise ValueError(
            f"{pack.n_rows} rows of {pack.n_features} features are not train, val and test together"
        )
    if min(pack.n_train, pack.n_val, pack.n_test) < 0:
        raise ValueError("attributes n_train, n_val and n_test must not be negative")
    of_rows = (pack.n_rows,)
    shapes = {
        "x": ("f", (pack.n_rows, pack.n_features)),
        "formula": ("S", of_rows),
        "material_id": ("S", of_rows),
    }
    shapes |= {"feature_label": ("S", (pack.n_features,))} | {
        f"y/{name}": ("f", of_rows) for name in pack.units
    }
    n_bytes = 0
    for name, (kind, shape) in shapes.items():
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise ValueError(f"{name} must be a dataset within the file")
        if (dataset.dtype.kind, dataset.shape) != (kind, shape) or (
            kind == "f" and dataset.dtype.itemsize > 8
        ):
            raise ValueError(
                f"{name} must be of {shape} {kind}, however: {dataset.shape} {dataset.dtype}"
            )
        n_bytes += dataset.dtype.itemsize * max(dataset.size, math.prod(dataset.chunks or (1,)))
    if n_bytes > max(FREELY_UNPACKED, MOST_UNPACKED * pack.path.stat().st_size):
        raise UserError(
            f"{pack.path} unpacks to {n_bytes / 2**20:,.0f} MiB, more than {MOST_UNPACKED} times its size, which no pack does"
        )


def _content_hash(hashes: dict[str, str], identity: dict, counts: dict[str, int]) -> str:
    """Of all that a pack holds except the attributes that only describe, whatever its chunks and its compression."""
    identity = {name: value for name, value in identity.items() if name != "content_sha256"}
    return hashlib.sha256(
        json.dumps([hashes, identity, counts], sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()


def _hash_text(values: list[str]) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()


def _write_text(file: h5py.File, name: str, values: list[str]) -> None:
    encoded = [value.encode() for value in values]
    dtype = h5py.string_dtype("utf-8", max(1, *map(len, encoded)))
    chunk = (max(1, min(CHUNK_ROWS, len(values))),)
    data = np.array(encoded, dtype)
    file.create_dataset(
        name,
        data=data,
        dtype=dtype,
        chunks=chunk,
        shuffle=True,
        compression="gzip",
        fletcher32=True,
    )


def _text(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values.tolist()]


def _set(item: h5py.File | h5py.Dataset, name: str, value: object) -> None:
    """An attribute: text as it is, all else as JSON."""
    text = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    )
    encoded = text.encode()
    item.attrs.create(name, np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded)))))


def _get(name: str, value: object) -> object:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text if name in TEXT else json.loads(text)


def _reserve(file: h5py.File, n_bytes: int) -> None:
    """Take room on the disk for a file of `n_bytes` and its metadata. Raises UserError where there is none.

    HDF5 crashes where a disk fills up under it, so the disk is filled up before.
    """
    n_bytes += n_bytes // 64 + 2**20
    try:
        with Path(file.filename).open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, n_bytes)
    except OSError as error:
        folder = Path(file.filename).parent
        raise UserError(
            f"{folder} has no room for a pack of {n_bytes / 2**20:,.0f} MiB: {error.strerror}"
        ) from None


# What h5py, numpy and Python raise of a file that is none of ours, or no longer.
DAMAGED = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
)


@contextlib.contextmanager
def _sound(path: Path) -> Iterator[None]:
    """What HDF5 says of a file that it cannot read, as a sentence."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"there is no pack {path}; python -m irnet_hpc.pack makes one") from None
    except DAMAGED as error:
        if not path.exists():  # of a file that was open: a file system that is not local forgets it
            raise UserError(f"pack {path} has gone while it was being read") from None
        said = " ".join(str(error).split())  # HDF5's own may run over lines
        raise UserError(
            f"{path} cannot be read as a pack, it is damaged, cut short or not HDF5: {said}"
        ) from None


def reporting(pack: Pack, names: str, rows: slice) -> np.ndarray:
    """Numbers of the rows (n,) that report the property, or one of several whose names are joined by commas."""
    reported = [~np.isnan(pack.y(name, rows)) for name in names.split(",")]
    return rows.start + np.flatnonzero(np.any(reported, axis=0))
