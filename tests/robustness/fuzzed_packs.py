"""Spoil packs, also under checksums that are sound."""

import contextlib
import hashlib
import json
import random
from pathlib import Path

import h5py
import numpy as np

from tests import builders
from tests.robustness import mutants
from tests.robustness.kinds import PROPERTIES, Kind, keep_sound, spoil_bytes


def make_pack(folder: Path) -> None:
    builders.write_pack(
        folder, "alloys-elements", PROPERTIES, rows=40, feature_versions={"elements": 1}
    )
    keep_sound(folder, "alloys-elements.h5")


def spoil_pack(folder: Path, number: int) -> None:
    """Spoil the bytes, or, at odd numbers, the content under checksums that are sound."""
    path = folder / "alloys-elements.h5"
    spoil_bytes(path.name)(folder, number)
    if number % 2:
        path.write_bytes((folder / f"{path.name}.sound").read_bytes())
        rewrite_pack(path, number)


def rewrite_pack(path: Path, number: int) -> None:
    chance = random.Random(number)
    with h5py.File(path, "r+") as file:
        names = [
            "x",
            "formula",
            "material_id",
            "feature_label",
            "y",
            *(f"y/{name}" for name in PROPERTIES),
        ]
        name = chance.choice(names)
        change = chance.randrange(6)
        if change == 0:
            del file[name]
        elif change == 1:
            del file[name]
            shape = chance.choice(
                ((), (0,), (40,), (39,), (40, 2), (10**12,), (10**9, 10**3), (3, 3, 3))
            )
            kind = chance.choice(
                ("f4", "f8", "i8", "S9", h5py.string_dtype(), "S2000000", [("a", "f4")])
            )
            chunks = tuple(min(n, 64) for n in shape) if shape and all(shape) else None
            file.create_dataset(name, shape, kind, chunks=chunks)
        elif change == 2 and name != "y":
            data = file[name][...].copy()
            data[chance.randrange(len(data))] = data[chance.randrange(len(data))]
            if data.dtype.kind == "f":
                data[chance.randrange(len(data))] += 1
            file[name][...] = data
        else:
            key = chance.choice(list(file.attrs))
            odd = chance.choice(mutants.ODD)
            if change == 3:
                del file.attrs[key]
            elif change == 4:
                file.attrs[key] = (
                    json.dumps(odd)[:60000]
                    if not isinstance(odd, str)
                    else odd[:60000].replace("\0", "")
                )
            else:
                file.attrs[key] = chance.choice(
                    (
                        1,
                        2.5,
                        np.arange(3),
                        np.bytes_(b"\xff\xfe"),
                        np.bytes_(b"{}"),
                        np.bytes_(b"[]"),
                    )
                )


def read_pack(folder: Path) -> object:
    from irnet_hpc.pack import store
    from irnet_hpc.pack.summary import describe_pack

    path = folder / "alloys-elements.h5"
    with store.open_pack(path) as pack:
        rows = slice(0, pack.n_rows)
        read = [pack.x(rows).tobytes(), *(pack.y(name, rows).tobytes() for name in pack.units)]
        read += [pack.formulas(rows), pack.material_ids(rows), pack.feature_labels, pack.identity]
        with contextlib.suppress(
            KeyError, TypeError, AttributeError, ValueError
        ):  # attributes that only describe
            describe_pack(pack)
    return [store.verify(path), hashlib.sha256(repr(read).encode()).hexdigest()]


KINDS = {"pack": Kind(make_pack, spoil_pack, read_pack, True)}
