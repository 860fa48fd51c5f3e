"""Keep beside a model what its pack tells about it, so that the model can travel without its pack.

    evidence.safetensors
        formulas.train, formulas.val     (n,) int64     hashes of the formulas that it has seen
        error.val.P, error.test.P        (n,) float32   errors of property P, in its unit
        prediction.val.P, .test.P        (n,) float32   their predictions, if P has a floor
        domain.rows                      (n, 12) float16   components of training rows
        domain.mean, .scale, .axes, .constant_place, .constant_value

With it, `load_portable` gives the intervals, the distances and the flags that the pack would give.
Only the training rows that distances are measured to are rounded, to float16.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.known_formulas import KnownFormulas, hash_formulas
from irnet_hpc.data.properties import floor_of
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack, reported_rows
from irnet_hpc.predict.domain import Constants, Domain, Projection, domain_of
from irnet_hpc.predict.held_out import Evidence, HeldOut
from irnet_hpc.predict.members import Member, make_predictor, read_member
from irnet_hpc.predict.screening import Ensemble, feature_layout
from irnet_hpc.runs.portable import EVIDENCE, name_of
from irnet_hpc.train.model_file import read_tensors, write_tensors

logger = logging.getLogger(__name__)

FORMAT = "irnet-portable/1"


def write_evidence(folder: Path, member: Member, pack: Pack) -> None:
    """Write the evidence of a model from the pack that it was trained on.

    Args:
        folder: The folder to write into.
        member: The model as it will be read, so that its errors are those of the written weights.
        pack: The pack of its run.

    Raises:
        UserError: If the run selected on test or started from another run, whose formulas are not
            known here.
    """
    if member.spec.protocol != "honest":
        raise UserError(
            f"a portable model must have protocol honest, got {member.spec.protocol} in "
            f"{member.folder}: no val rows are left that could calibrate its intervals"
        )
    if member.spec.start_from:
        raise UserError(
            f"a portable model must not have started from another run, got {member.folder}: which "
            "formulas trained that run is not known"
        )
    domain = domain_of(pack, member.fitted_spec)
    known = _formulas_seen(member, pack)
    arrays: dict[str, np.ndarray] = {
        "formulas.train": known.train,
        "formulas.val": known.val,
        "domain.rows": np.asarray(domain.tree.data).astype(np.float16),
        "domain.constant_place": domain.constants.place,
        "domain.constant_value": domain.constants.value,
        **{f"domain.{name}": values for name, values in domain.projection._asdict().items()},
        **_errors(member, pack),
    }
    facts = {
        "format": FORMAT,
        "key": member.result.key,
        "limit": domain.limit,
        "elements": sorted(domain.elements),
        "licence": pack.attrs.get("licence") or "",
        "citation": pack.attrs.get("citation") or "",
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in arrays.items()}
    write_tensors(folder / EVIDENCE, tensors, facts)


def _formulas_seen(member: Member, pack: Pack) -> KnownFormulas:
    """Hash the reduced formulas of the training rows and of the val rows of a run."""
    formulas = pack.formulas(slice(0, pack.n_rows))
    train, val = (
        reported_rows(pack, member.spec.property, pack.rows(role)) for role in ("train", "val")
    )
    return hash_formulas(
        *(
            {reduced_formula(parse_formula(formulas[row])) for row in rows}
            for rows in (train[: member.fitted_spec.train_rows], val)
        )
    )


def _errors(member: Member, pack: Pack) -> dict[str, np.ndarray]:
    """Predict the val and the test rows. Returns the errors, float32 in the property's unit.

    Of a property with a floor the predictions are kept, too: most band gaps are 0 and predicted so,
    and an interval that holds these would hold few of the others.
    """
    predict = make_predictor(member, torch.device("cpu"))
    arrays: dict[str, np.ndarray] = {}
    for role in ("val", "test"):
        rows = pack.rows(role)
        predicted = predict(pack.x(rows))
        for place, name in enumerate(member.units):
            value = pack.y(name, rows)
            prediction = predicted[~np.isnan(value), place]
            arrays[f"error.{role}.{name}"] = prediction - value[~np.isnan(value)]
            if np.isfinite(floor_of(name)):
                arrays[f"prediction.{role}.{name}"] = prediction
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def load_portable(folder: Path, device: torch.device) -> tuple[Ensemble, dict[str, Evidence]]:
    """Load a portable model, as `load_ensemble` loads a run and its pack.

    Args:
        folder: The folder of the model.
        device: The device on which the network computes.

    Returns:
        The ensemble of this model, not yet calibrated; and the held-out rows of each property.

    Raises:
        UserError: If a file is missing or damaged, or belongs to another model.
    """
    member = read_member(folder, device)
    path = folder / EVIDENCE
    tensors, facts = read_tensors(path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    if facts.get("format") != FORMAT or facts.get("key") != member.result.key:
        raise UserError(
            f"{path} must have format {FORMAT} and belong to the model beside it, got format "
            f"{facts.get('format')!r:.50}; export the model again"
        )
    try:
        domain = _domain(arrays, facts)
        known = KnownFormulas(arrays["formulas.train"], arrays["formulas.val"])
        evidence = {
            name: Evidence(
                _held_out(arrays, "val", name),
                _held_out(arrays, "test", name),
            )
            for name in member.units
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: it is damaged: {error}") from None
    ensemble = Ensemble(
        (member,),
        (make_predictor(member, device),),
        (domain,),
        feature_layout([member]),
        dict.fromkeys(member.units),
        known=known,
    )
    return ensemble, evidence


def source_line(folder: Path, ensemble: Ensemble) -> str:
    """Say in a line what trained a portable model, under which licence, and whom to cite."""
    result = ensemble.members[0].result
    licence, citation = licence_of(folder)
    return (
        f"{name_of(folder)}: {ensemble.members[0].spec.model}, trained on {result.n_train:,} rows "
        f"of {result.pack_identity['source']}; licence of the data: {licence or 'not stated'}; "
        f"please cite: {citation or 'not stated'}"
    )


def licence_of(folder: Path) -> tuple[str, str]:
    """Return the licence and the citation of the data that trained a portable model."""
    _, facts = read_tensors(folder / EVIDENCE)
    return str(facts.get("licence", "")), str(facts.get("citation", ""))


def _domain(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Domain:
    from scipy.spatial import cKDTree

    return Domain(
        frozenset(facts["elements"]),
        Constants(arrays["domain.constant_place"], arrays["domain.constant_value"]),
        Projection(*(arrays[f"domain.{name}"] for name in Projection._fields)),
        cKDTree(arrays["domain.rows"].astype(np.float32)),
        float(facts["limit"]),
    )


def _held_out(arrays: dict[str, np.ndarray], role: str, name: str) -> HeldOut:
    error = arrays[f"error.{role}.{name}"].astype(np.float64)
    prediction = None
    if np.isfinite(floor_of(name)):
        prediction = arrays[f"prediction.{role}.{name}"].astype(np.float64)
        if len(prediction) != len(error):
            raise ValueError(f"{len(prediction)} predictions for {len(error)} errors of {name}")
    return HeldOut(error, np.zeros_like(error), error[None], prediction=prediction)
