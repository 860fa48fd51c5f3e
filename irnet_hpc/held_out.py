"""Held out: what members predict for the rows of their packs that none of them was trained on, and the values there.

Val predictions are recomputed from the pack, for a run keeps only those of its test rows. Members of several packs (other
features, of the same source) have the rows in common that are val, or test, in all of them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from irnet_hpc.errors import UserError
from irnet_hpc.grouping import one_a_property
from irnet_hpc.members import Member
from irnet_hpc.origin import reporting
from irnet_hpc.predictions import read_predictions
from irnet_hpc.results import Run
from irnet_hpc.store import Pack, open_pack, pack_path

Predictor = Callable[[np.ndarray], np.ndarray]
Rows = dict[tuple[str, str], tuple[float, float]]  # (material_id, formula) -> value and prediction, in the unit


@dataclasses.dataclass(frozen=True)
class HeldOut:
    value: np.ndarray  # (n_rows,) in the property's unit
    prediction: np.ndarray  # (n_members, n_rows)


def own_pack(member: Member, pack_dir: Path | str | None) -> Pack:
    """The pack that a member was trained on, open. Raises UserError where it is not at hand, or another has its name.

    As in a run's key, the content's hash does not count: features may differ in the last bit between machines.
    """
    path = pack_path(member.spec.pack, pack_dir)
    if not path.exists():
        raise UserError(f"pack {path} is not at hand")
    pack, theirs = open_pack(path), member.result.pack_identity
    differ = [name for name, value in pack.identity.items() if name != "content_sha256" and theirs.get(name) != value]
    if differ:
        pack.close()
        raise UserError(
            f"{path} is another pack than the one {member.folder} was trained on: {', '.join(differ)} differ"
        )
    return pack


def val_rows(member: Member, name: str, predict: Predictor, pack: Pack) -> Rows:
    """What a member predicts for its val rows. Raises UserError where it was trained on them."""
    if member.spec.protocol != "honest":
        raise UserError(f"{member.folder} was trained with protocol {member.spec.protocol}, on its val rows too")
    rows = pack.rows("val")
    places = reporting(pack, name, rows) - rows.start
    predicted = predict(pack.x(rows)[places])[:, list(member.units).index(name)]
    ids, formulas, value = pack.material_ids(rows), pack.formulas(rows), pack.y(name, rows)[places]
    keys = [(ids[place], formulas[place]) for place in places]
    return dict(zip(keys, zip(value.tolist(), predicted.tolist(), strict=True), strict=True))


def test_rows(member: Member, name: str) -> Rows:
    """What a member predicted for its test rows, as it has stored it. Raises UserError where that is not there."""
    runs = one_a_property(Run(member.folder, member.spec, member.result))
    arrays = read_predictions(next(run for run in runs if run.spec.property == name))
    keys = zip(arrays["material_id"].tolist(), arrays["formula"].tolist(), strict=True)
    values = zip(arrays["target"].tolist(), arrays["prediction"].tolist(), strict=True)
    return dict(zip(keys, values, strict=True))


def in_common(of_members: Sequence[Rows]) -> HeldOut:
    """The rows that all members have, with the same value. Raises UserError where there are none."""
    first, *others = of_members
    keys = [key for key in first if all(key in rows and rows[key][0] == first[key][0] for rows in others)]
    if not keys:
        raise UserError("the runs have no such rows in common: their packs are of other sources, or split otherwise")
    return HeldOut(
        np.array([first[key][0] for key in keys]),
        np.array([[rows[key][1] for key in keys] for rows in of_members]),
    )
