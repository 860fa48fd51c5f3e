"""Write a run's network as ONNX, compare it with torch, and write its model card."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.export.graph import largest_differences, write_graph
from irnet_hpc.export.model_card import ExportedModel, model_card, source_facts
from irnet_hpc.files import followed, replacing, write_text
from irnet_hpc.models.modes import own_modes
from irnet_hpc.predict.committee import calibrate_ensemble, load_ensemble, own_pack
from irnet_hpc.predict.members import Member
from irnet_hpc.predict.screening import training_elements

# Number of rows on which the graph and the network are compared.
CHECKED_ROWS = 2000
# Allowed difference, in units of the target's scale. Graph and network differ in rounding, since
# they add float32 numbers in different orders.
TOLERANCE = 1e-4
# Level of the intervals that the card describes.
LEVEL = 0.9


class _Data(NamedTuple):
    """Rows to check a model on, with the licence and citation of the training data."""

    x: np.ndarray  # (n_rows, n_features) float32, features as packed
    licence: str
    citation: str


@own_modes()
def export_model(
    run: str | Path, model: str | Path, pack_dir: str | Path | None = None
) -> tuple[Path, Path, ExportedModel]:
    """Export the network of a finished run as ONNX, with a model card beside it.

    Args:
        run: The folder of the run.
        model: The file to write. Its name must end in .onnx; the card gets the same name with .md.
        pack_dir: Folder of the run's pack, whose test rows verify the graph; None: $IRNET_PACKS,
            else packs/. If the pack is missing, random rows verify the graph.

    Returns:
        The path of the graph, the path of the card, and the facts that the card states.

    Raises:
        UserError: If the name has another ending, the run cannot be read, a library is missing, or
            the graph and the network predict different numbers.
    """
    path = Path(model)
    if path.suffix != ".onnx":
        raise UserError(f"the model's name must end in .onnx, got {path}")
    _require("onnx", "onnxscript")
    ensemble, evidence = load_ensemble([run], pack_dir, torch.device("cpu"))
    ensemble, reports = calibrate_ensemble(ensemble, evidence, LEVEL)
    (member,) = ensemble.members
    data = _data(member, pack_dir)
    with replacing(followed(path)) as temporary:
        write_graph(temporary, member)
        differences, evaluator = largest_differences(temporary, member, data.x)
        relative = float((differences / member.scaling.target_scale).max())
        if not relative <= TOLERANCE:
            raise UserError(
                f"the graph's predictions differ from torch's by {relative:.2g} standard "
                f"deviations, more than {TOLERANCE:g}; {path} is not written"
            )
    units = zip(differences, member.units.values(), strict=True)
    agreement = ", ".join(f"{difference:.2g} {unit}" for difference, unit in units)
    floors = np.broadcast_to(member.scaling.floor, len(member.units))
    exported = ExportedModel(
        file=path.name,
        units=member.units,
        feature_labels=member.feature_labels,
        floors={n: float(f) for n, f in zip(member.units, floors, strict=True) if np.isfinite(f)},
        elements=training_elements(ensemble),
        licence=data.licence,
        citation=data.citation,
        verified=f"On {len(data.x):,} rows {evaluator} gives what torch gives, to {agreement}.",
        reports=reports,
    )
    card = path.with_suffix(".md")
    write_text(followed(card), model_card(member.spec, member.result, exported))
    return path, card, exported


def _require(*names: str) -> None:
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f"export needs {' and '.join(missing)}: pip install 'irnet_hpc[onnx]'")


def _data(member: Member, pack_dir: str | Path | None) -> _Data:
    """Return test rows of the member's pack, or random rows if the pack is missing."""
    source = source_facts(member.result.pack_identity)
    try:
        with own_pack(member, pack_dir) as pack:
            test = pack.rows("test")
            x = pack.x(slice(test.start, min(test.stop, test.start + CHECKED_ROWS)))
            licence = pack.attrs.get("licence") or source.licence
            return _Data(x, licence, pack.attrs.get("citation") or source.citation)
    except UserError:
        drawn = np.random.default_rng(0).normal(size=(CHECKED_ROWS, len(member.feature_labels)))
        x = drawn * member.scaling.feature_scale + member.scaling.feature_mean
        return _Data(x.astype(np.float32), source.licence, source.citation)
