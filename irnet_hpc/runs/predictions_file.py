"""Read test_predictions.npz with size limits and without pickles: its author is unknown."""

import io
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ARRAYS = ("material_id", "formula", "target", "prediction")
# Our own files are not compressed; numpy's compression would shrink them to a fifth.
MAX_UNPACKED = 50  # times the size of the file
FREELY_UNPACKED = 2**26  # bytes, whatever the size of the file
# The exceptions that zipfile and numpy raise for a damaged or foreign file.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError),
    *(MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_arrays(path: Path, property_name: str | None = None) -> dict[str, "np.ndarray"]:
    """Read the arrays of a run's test rows.

    Args:
        path: The file.
        property_name: The property to read, for a network of several; None if it has only one.

    Returns:
        `material_id`, `formula`, `target` and `prediction`, each (n_rows,), of the rows that report
        the property. Targets and predictions are in its unit.

    Raises:
        UserError: If the file is missing or damaged, unpacks to too much, or holds other arrays.
    """
    import numpy as np

    try:
        names = ARRAYS if property_name is None else (*ARRAYS, "property")
        members = read_members(path, names)
        arrays = {name: members[name] for name in ARRAYS}
        if property_name is not None:
            arrays = _one_property(arrays, members["property"], property_name)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or any(array.ndim != 1 for array in arrays.values()):
        raise UserError(
            f"{path} must hold one-dimensional arrays of equal length, got {sorted(shapes)}"
        )
    for name in ("target", "prediction"):
        array = arrays[name]
        if array.dtype.kind != "f" or not len(array) or not np.isfinite(array).all():
            raise UserError(f"{path} must hold finite targets and predictions")
    return arrays


def read_members(path: Path, names: Collection[str]) -> dict[str, "np.ndarray"]:
    """Read the named arrays of an archive.

    Each member is first read to its end, where `zipfile` compares it with its checksum; only then
    does numpy parse it. Members of other names are read too, so that any damage is found.

    Args:
        path: The archive.
        names: The names of the arrays; those that the archive lacks are left out.

    Raises:
        ValueError: If the file unpacks to too much, or a member is not an array.
        BadZipFile: If a checksum fails.
    """
    import numpy as np

    arrays = {}
    with zipfile.ZipFile(path) as archive:
        n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > max(FREELY_UNPACKED, MAX_UNPACKED * path.stat().st_size):
            raise ValueError(
                f"it unpacks to {n_bytes / 2**20:,.0f} MiB, more than {MAX_UNPACKED} times its size"
            )
        for member in archive.infolist():
            content = archive.read(member)
            name = member.filename.removesuffix(".npy")
            if name in names:
                arrays[name] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return arrays


def _one_property(
    arrays: dict[str, "np.ndarray"], names: "np.ndarray", name: str
) -> dict[str, "np.ndarray"]:
    """Select one property from arrays whose targets and predictions are (n_rows, n_properties)."""
    import numpy as np

    column = names.tolist().index(name)
    arrays = arrays | {label: arrays[label][:, column] for label in ("target", "prediction")}
    reported = ~np.isnan(arrays["target"])
    return {label: array[reported] for label, array in arrays.items()}
