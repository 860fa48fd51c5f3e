"""Read packs: HDF5 files of features and targets in the format `irnet-pack/1`.

    /x (n_rows, n_features) float32, finite     /y/<property> (n_rows,) float64, NaN = not reported
    /material_id /formula (n_rows,) utf-8       /feature_label (n_features,) utf-8
    rows [0, n_train) are train, the next n_val val, the last n_test test

Only this module and writer.py know the layout, or use HDF5. Text has a fixed length, so that it is
covered by the checksums of chunks, which are verified at each read. (HDF5 would keep text of
varying length in a heap that has no checksums.) The unit of a property is an attribute of its
dataset. Attributes that are not in TEXT are JSON. `format` is written last, so a file without it is
unfinished.

HDF5 gets files that Python has opened, and so never locks them: a pack does not change once it has
its name, and parallel file systems often lack locks. h5py's argument `locking=False` is not enough.
In HDF5 2.0.0 the variable HDF5_USE_FILE_LOCKING, which many sites set, outranks it, and a process
that has the file open with locks cannot open it without them. Reading takes the same time.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError, check_choice

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "irnet-pack/1"
# The attributes that decide a pack's content, and so the key of a run. All others only describe.
IDENTITY = (
    *("format", "source", "source_sha256", "rules", "n_source_rows", "properties", "features"),
    *("feature_versions", "filters", "split", "content_sha256"),
)
# Present only if the table was not read by the defaults, so that older packs are still the same.
OPTIONAL = ("reading",)
TEXT = (
    *(
        "format",
        "source",
        "source_sha256",
        "features",
        "content_sha256",
        "unit",
        "licence",
        "duplicates",
    ),
    *("citation", "created"),
)
# Rows that are read at once to hash the content; fewer if rows are wide.
SLAB_ROWS = 65536
SLAB_BYTES = 2**28
# Anybody may have made a pack. Our packs unpack to a few times their size. A file that unpacks to
# more than this ratio is refused, since it may be made to fill the memory. Below the second limit,
# in bytes, any ratio is allowed.
MAX_UNPACKED_RATIO = 200
ALWAYS_UNPACKED = 2**27


def pack_path(name: Path | str, pack_dir: Path | str | None = None) -> Path:
    """Return the path of a pack.

    Args:
        name: A path that ends in .h5, which is returned as it is, or the name of a pack.
        pack_dir: The folder of packs; None: $IRNET_PACKS, else packs/.
    """
    if str(name).endswith(".h5"):
        return Path(name)
    return Path(pack_dir or os.environ.get("IRNET_PACKS") or "packs") / f"{name}.h5"


REMEDY = "make the pack again, with python -m irnet_hpc.pack --overwrite"


class Pack:
    """An open pack. Close it, or use `with open_pack(path) as pack`.

    Rows are numbered as in the file: train first, then val, then test. All methods that read raise
    UserError if the file is damaged.

    Attributes:
        path: The path of the file.
        name: The name of the file without its ending.
        identity: The attributes that decide the content, listed in IDENTITY and OPTIONAL.
        attrs: Attributes that only describe: licence, citation, counts of rejected rows, versions.
        features: The feature sets, joined by +.
        feature_labels: (n_features,) names of the columns of x.
        units: Property -> unit.
    """

    def __init__(self, path: Path | str) -> None:
        import h5py  # here, since --help and planning read no pack

        self.path = Path(path)
        self.name = self.path.stem
        with _sound(self.path):
            self._stream = self.path.open("rb")
        try:
            with _sound(self.path):
                self._file = h5py.File(self._stream, "r")
                self._read_attributes()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return (
            f"<Pack {self.name}: {self.n_train:,} train, {self.n_val:,} val, {self.n_test:,} test "
            f"rows; {', '.join(self.units)}; {self.features}>"
        )

    def _read_attributes(self) -> None:
        if "format" not in self._file.attrs or _get("format", self._file.attrs["format"]) != FORMAT:
            raise UserError(f"{self.path} is HDF5, but not a finished pack of format {FORMAT}")
        attrs: dict[str, Any] = {
            name: _get(name, value) for name, value in self._file.attrs.items()
        }
        self.identity: dict[str, Any] = {name: attrs.pop(name) for name in IDENTITY}
        self.identity |= {name: attrs.pop(name) for name in OPTIONAL if name in attrs}
        self.attrs = attrs
        self.features: str = self.identity["features"]
        self.units: dict[str, str] = self.identity["properties"]
        self.n_train, self.n_val, self.n_test = (int(attrs[f"n_{split}"]) for split in ROLES)
        self.n_rows, self.n_features = self._file["x"].shape
        _check_layout(self)
        self.feature_labels: list[str] = _decode(self._file["feature_label"][:])

    def rows(self, role: str) -> slice:
        """Return the rows of a role (train, val or test) as a slice."""
        counts = {"train": self.n_train, "val": self.n_val, "test": self.n_test}
        role = check_choice("role", role, ROLES)
        start = sum(counts[name] for name in ROLES[: ROLES.index(role)])
        return slice(start, start + counts[role])

    def x(self, rows: slice) -> np.ndarray:
        """Read the features of some rows, (n, n_features) float32."""
        return self._finite(self.read("x", rows))

    def x_into(self, out: np.ndarray, rows: slice) -> np.ndarray:
        """Read the features of n rows into the first n rows of `out`, a float32 array.

        This takes half the time of reading into newly allocated memory.

        Returns:
            The rows of `out` that were written, (n, n_features).
        """
        out = out[: rows.stop - rows.start]
        with _sound(self.path):
            self._file["x"].read_direct(out, np.s_[rows.start : rows.stop])
        return self._finite(out)

    def _finite(self, x: np.ndarray) -> np.ndarray:
        """Return features unchanged. Raises UserError if one is not finite, which shows damage.

        The checksum of a chunk, Fletcher-32 of HDF5 2.0, adds words of 16 bits modulo 65,535. So it
        does not notice if 0x0000 becomes 0xFFFF, which turns a zero into NaN.
        """
        if not np.isfinite(x).all():
            raise UserError(f"{self.path} is damaged: features are not finite; {REMEDY}")
        return x

    def y(self, property: str, rows: slice) -> np.ndarray:
        """Read a property of some rows, (n,) float64 in its unit; NaN means not reported.

        Raises:
            UserError: If the pack does not have the property.
        """
        name = check_choice(f"property of pack {self.name}", property, self.units)
        values = self.read(f"y/{name}", rows)
        recorded = self.attrs.get("reported", {}).get(name, {})
        for role, n_recorded in recorded.items():
            span = self.rows(role)
            if not (rows.start <= span.start and span.stop <= rows.stop):
                continue
            here = values[span.start - rows.start : span.stop - rows.start]
            # A zero may have become NaN, which means not reported; see _finite.
            if (n_reported := int((~np.isnan(here)).sum())) != n_recorded:
                raise UserError(
                    f"{self.path} is damaged: {n_reported:,} {role} rows report {name}, but "
                    f"{n_recorded:,} are recorded; {REMEDY}"
                )
        return values

    def formulas(self, rows: slice) -> list[str]:
        """Read the formulas of some rows, spelled as in the source."""
        return _decode(self.read("formula", rows))

    def material_ids(self, rows: slice) -> list[str]:
        """Read the material identifiers of some rows."""
        return _decode(self.read("material_id", rows))

    def to_frame(self, part: str | None = None, features: bool = True) -> "pd.DataFrame":
        """Read rows into a DataFrame, indexed by the number of each row in the pack.

        Args:
            part: train, val or test; None: all rows.
            features: True to read the features too, which may need much memory.

        Returns:
            A DataFrame with the columns formula, material_id and part, a column for each property
            in its unit (NaN: not reported), and a column for each feature. The units are in
            `frame.attrs["units"]`.
        """
        import pandas as pd

        parts = ROLES if part is None else (check_choice("part", part, ROLES),)
        rows = slice(self.rows(parts[0]).start, self.rows(parts[-1]).stop)
        roles = np.repeat(ROLES, (self.n_train, self.n_val, self.n_test))[rows]
        index = pd.RangeIndex(rows.start, rows.stop, name="row")
        columns = {
            "formula": self.formulas(rows),
            "material_id": self.material_ids(rows),
            "part": roles.astype(object),
            **{name: self.y(name, rows) for name in self.units},
        }
        frame = pd.DataFrame(columns, index=index)
        if features:
            x = pd.DataFrame(self.x(rows), index=index, columns=self.feature_labels)
            frame = pd.concat([frame, x], axis=1)
        frame.attrs["units"] = dict(self.units)
        return frame

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Read rows of the dataset that has this name in the file; text is not decoded."""
        with _sound(self.path):
            return self._file[name][rows]

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()
        self._stream.close()

    def __enter__(self) -> "Pack":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_pack(path: Path | str) -> Pack:
    """Open a pack by its path.

    Raises:
        UserError: If the file is missing, cut short, damaged, not HDF5 or not a pack.
    """
    return Pack(path)


def load_pack(pack: Path | str, pack_dir: Path | str | None = None) -> Pack:
    """Open a pack by its name or path.

    Args:
        pack: A path that ends in .h5, or the name of a pack.
        pack_dir: The folder of packs; None: $IRNET_PACKS, else packs/.

    Returns:
        The open pack; close it, or use it in a `with` statement.

    Raises:
        UserError: If the pack is missing or damaged, or the file is not a pack.
    """
    return Pack(pack_path(pack, pack_dir))


def verify(path: Path | str) -> str:
    """Read a whole pack, check the SHA-256 of its content, and return it.

    Raises:
        UserError: If the file is damaged, or the hash is not the recorded one.
    """
    with open_pack(path) as pack:
        hashes = {name: hashlib.sha256() for name in ("x", *(f"y/{name}" for name in pack.units))}
        step = max(1, min(SLAB_ROWS, SLAB_BYTES // (4 * pack.n_features)))
        for start in range(0, pack.n_rows, step):
            rows = slice(start, min(start + step, pack.n_rows))
            for name, digest in hashes.items():
                digest.update(np.ascontiguousarray(pack.read(name, rows)).data)
        all_rows = slice(0, pack.n_rows)
        hex_digests = {name: digest.hexdigest() for name, digest in hashes.items()} | {
            "feature_label": hash_text(pack.feature_labels),
            "formula": hash_text(pack.formulas(all_rows)),
            "material_id": hash_text(pack.material_ids(all_rows)),
        }
        counts = {f"n_{split}": pack.attrs[f"n_{split}"] for split in ROLES}
        content = content_hash(hex_digests, pack.identity, counts)
        recorded = pack.identity["content_sha256"]
    if content != recorded:
        raise UserError(
            f"{path} is damaged: the hash of its content is {content[:12]}, but {recorded[:12]} is "
            "recorded"
        )
    return content


def can_be_locked(path: Path | str) -> bool:
    """Return True if HDF5's file locks work on the file system of a file.

    We open packs without locks, but other programs may need them. HDF5 2.0.0 takes them by flock,
    unless HDF5_USE_FILE_LOCKING says otherwise; so the same is tried here without HDF5.
    """
    try:
        with Path(path).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # another program holds it, so it works
        return True
    except OSError:
        return False
    return True


def reported_rows(pack: Pack, properties: str, rows: slice) -> np.ndarray:
    """Return the numbers of the rows that report the given properties, (n,) int64, ascending.

    Args:
        pack: The pack.
        properties: One property, or several joined by commas: then rows that report at least one.
        rows: The rows to search.
    """
    reported = [~np.isnan(pack.y(name, rows)) for name in properties.split(",")]
    return rows.start + np.flatnonzero(np.any(reported, axis=0))


def _check_layout(pack: Pack) -> None:
    """Check that an open pack has the layout of this module, since anybody may have made it.

    Raises:
        UserError: If the file unpacks to too much.
        ValueError: If anything else is wrong.
    """
    identity, counts = pack.identity, (pack.n_train, pack.n_val, pack.n_test)
    types = {"properties": dict, "feature_versions": dict, "filters": list, "split": dict}
    for name, kind in (types | {name: dict for name in OPTIONAL if name in identity}).items():
        if not isinstance(identity[name], kind):
            raise ValueError(
                f"attribute {name} must be of type {kind.__name__}, got {identity[name]!r:.80}"
            )
    if not isinstance(identity["n_source_rows"], int) or not re.fullmatch(
        "[0-9a-f]{64}", identity["content_sha256"]
    ):
        raise ValueError("n_source_rows must be a whole number, content_sha256 a SHA-256")
    # Not all packs have these attributes; `y` and the description of a pack count on their form.
    n_reported = pack.attrs.get("reported", {})
    if not isinstance(n_reported, dict) or not all(map(_is_count_by_role, n_reported.values())):
        raise ValueError(
            f"attribute reported must count the {', '.join(ROLES)} rows, got {n_reported!r:.80}"
        )
    if not all(isinstance(unit, str) for unit in pack.units.values()):
        raise ValueError(f"units must be text, got {pack.units!r:.80}")
    if not pack.n_rows or not pack.n_features or pack.n_rows != sum(counts):
        raise ValueError(
            f"n_train, n_val and n_test must add up to the number of rows, got {counts} and "
            f"{pack.n_rows} rows of {pack.n_features} features"
        )
    if min(counts) < 0:
        raise ValueError(f"n_train, n_val and n_test must not be negative, got {counts}")
    n_bytes = _check_datasets(pack)
    if n_bytes > max(ALWAYS_UNPACKED, MAX_UNPACKED_RATIO * pack.path.stat().st_size):
        raise UserError(
            f"{pack.path} unpacks to {n_bytes / 2**20:,.0f} MiB, "
            f"more than {MAX_UNPACKED_RATIO} times its size, which no real pack does"
        )


def _is_count_by_role(counts: object) -> bool:
    return (
        isinstance(counts, dict)
        and counts.keys() == set(ROLES)
        and all(isinstance(count, int) for count in counts.values())
    )


def _check_datasets(pack: Pack) -> int:
    """Check the type and shape of every dataset; return how many bytes all of them unpack to."""
    import h5py

    per_row = (pack.n_rows,)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "x": ("f", (pack.n_rows, pack.n_features)),
        "formula": ("S", per_row),
        "material_id": ("S", per_row),
        "feature_label": ("S", (pack.n_features,)),
        **{f"y/{name}": ("f", per_row) for name in pack.units},
    }
    n_bytes = 0
    for name, (kind, shape) in expected.items():
        dataset = pack._file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise ValueError(f"{name} must be a dataset within the file")
        is_wide = kind == "f" and dataset.dtype.itemsize > 8
        if (dataset.dtype.kind, dataset.shape) != (kind, shape) or is_wide:
            raise ValueError(
                f"{name} must have shape {shape} and kind {kind}, got {dataset.shape} and "
                f"{dataset.dtype}"
            )
        n_bytes += dataset.dtype.itemsize * max(dataset.size, math.prod(dataset.chunks or (1,)))
    return n_bytes


def content_hash(hashes: dict[str, str], identity: dict, counts: dict[str, int]) -> str:
    """Hash a pack's content and identity; chunk sizes and describing attributes do not count."""
    identity = {name: value for name, value in identity.items() if name != "content_sha256"}
    text = json.dumps([hashes, identity, counts], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_text(values: list[str]) -> str:
    """Hash a column of text."""
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()


def _decode(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values.tolist()]


def _get(name: str, value: object) -> Any:
    """Decode the value of an attribute."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text if name in TEXT else json.loads(text)


# The exceptions that h5py, numpy and Python raise if a file is damaged or was never a pack.
DAMAGED = (
    *(OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError),
    OverflowError,
)


@contextlib.contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Convert exceptions about an unreadable file into UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"there is no pack {path}; python -m irnet_hpc.pack makes one") from None
    except DAMAGED as error:
        # On a network file system, a removed file can no longer be read, even if it is open.
        if not path.exists():
            raise UserError(f"pack {path} was removed while it was being read") from None
        # Messages of HDF5 may have several lines.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read as a pack; it is damaged, cut short or not HDF5: {reason}"
        ) from None
