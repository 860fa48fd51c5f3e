"""Keep the fitted model of a classical run in its folder, and read it to predict other rows.

`parameters.safetensors` holds the scaling, the labels of the features and other facts, with a hash
of its content. Linear models have their coefficients there, and TabM its weights. Trees and support
vectors are in `estimator.skops`, whose hash is in the result (estimator_file.py).

A file of another version of scikit-learn may load and yet predict other numbers. So a few training
rows are kept with their predictions, and the model is refused unless it predicts them again.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.classical_grids import AS_NUMBERS, Grid
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.spec import RunSpec, read_recipe
from irnet_hpc.train.dataset import Dataset
from irnet_hpc.train.estimator_file import CLASSES, array_bytes, read_estimator, write_estimator
from irnet_hpc.train.model_file import (
    KeptRun,
    finished_spec,
    model_facts,
    network_tensors,
    read_kept,
    write_tensors,
)
from irnet_hpc.train.provenance import package_versions
from irnet_hpc.train.run import Run
from irnet_hpc.train.tabm import TabM

LINEAR = tuple(name for name in AS_NUMBERS if name != "tabm")
# The memory of the arrays of the largest estimator that is kept unless the user asks for more. The
# file is about a quarter of it (docs/training.md).
KEPT_BYTES = 2**31
# Training rows that are kept with their predictions, and the share by which a prediction may differ
# when they are predicted again: processors round sums differently.
N_CHECKED = 32
CHECK_TOLERANCE = 1e-6

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FinishedClassical(KeptRun):
    """A finished run of a classical model, with the fitted model."""

    estimator: Any  # has predict(x): scaled features (n_rows, n_features) -> scaled (n_rows,)


def write_classical(
    run: Run, pack: Pack, data: Dataset, estimator: Any, facts: dict[str, Any], keep: str
) -> tuple[int, str | None]:
    """Write the files of a fitted model.

    Args:
        run: The run.
        pack: Its pack.
        data: The rows of the training.
        estimator: The fitted model.
        facts: Further facts to record.
        keep: One of KEEPING: whether to write the estimator if it cannot be kept as numbers.

    Returns:
        How many numbers the model has learnt, 0 if that is not meaningful; and the hash of its
        estimator.skops, None if there is none.
    """
    run.folder.check()
    run.folder.parameters.unlink(missing_ok=True)
    run.folder.estimator.unlink(missing_ok=True)
    learnt, sha256 = parameters(run.spec, estimator), None
    tensors, scaling = dict(learnt), data.scaling
    if run.spec.architecture in CLASSES:
        sha256 = _write_estimator(run, estimator, keep)
        if sha256:
            x = data.train.resident[:N_CHECKED]
            tensors["checked_features"] = x.float()
            tensors["checked_output"] = torch.from_numpy(_output(estimator, x.numpy()))
    tensors["feature_mean"] = torch.from_numpy(scaling.feature_mean)
    tensors["feature_scale"] = torch.from_numpy(scaling.feature_scale)
    assert isinstance(run.recipe, Grid)
    n_fitted = run.recipe.fitted_rows(len(data.train))
    with run.folder.replacing(run.folder.parameters) as temporary:
        write_tensors(temporary, tensors, model_facts(run, pack, data, n_fitted) | facts)
    return sum(tensor.numel() for tensor in learnt.values()), sha256


def _write_estimator(run: Run, estimator: Any, keep: str) -> str | None:
    """Write estimator.skops, unless it is too large or not wanted; return its hash."""
    n_bytes = array_bytes(estimator)
    if keep == "never" or (keep == "auto" and n_bytes > KEPT_BYTES):
        if keep == "auto":
            logger.warning(
                f"warning: {run.spec.model} is not kept, so it cannot predict: it takes "
                f"{n_bytes / 2**30:.3g} GiB of memory, more than {KEPT_BYTES / 2**30:g}; "
                "--keep-model always keeps it"
            )
        return None
    try:
        with run.folder.replacing(run.folder.estimator) as temporary:
            return write_estimator(temporary, estimator)
    # A model that cannot be written must not lose the result.
    except (UserError, ImportError) as error:
        version = package_versions()["scikit-learn"]
        logger.warning(
            f"warning: {run.spec.model} of scikit-learn {version} is not kept, so it cannot "
            f"predict: {error}"
        )
        return None


def parameters(spec: RunSpec, estimator: Any) -> dict[str, Tensor]:
    """Return the parameters that a model has learnt, if they are plain numbers.

    Returns:
        For linear models coef (n_features,) and intercept (1,), which apply to scaled features; for
        TabM its weights; an empty dict for trees and support vectors.
    """
    if isinstance(estimator, TabM):
        return {
            f"network.{name}": tensor.detach().cpu().contiguous()
            for name, tensor in estimator.network.state_dict().items()
        }
    if spec.architecture not in LINEAR:
        return {}
    return {
        "coef": torch.from_numpy(np.array(estimator.coef_, np.float64)),
        "intercept": torch.from_numpy(np.array(estimator.intercept_, np.float64).reshape(1)),
    }


def read_classical(
    folder: Path | str, device: torch.device, who: str = "a run"
) -> FinishedClassical:
    """Read the fitted model of a finished run of a classical model.

    Args:
        folder: The run folder.
        device: The device of TabM; the other models compute on the CPU.
        who: The name of the run in error messages.

    Raises:
        UserError: If there is no run, or it has not finished, has not kept its model, or is
            damaged, or if this version of scikit-learn predicts other numbers with it.
    """
    folder, spec, result = finished_spec(folder, who)
    assert spec.is_classical
    files, again = RunFolder(folder), f"to keep it, delete {folder} and train it again"
    if spec.architecture in CLASSES and result.estimator_sha256 is None:
        raise UserError(
            f"{who} must have its model, got {folder}, which has kept none: it is older than "
            f"models that are kept, or the model was too large or not wanted; {again} with "
            "--keep-model always"
        )
    grid = read_recipe(spec, result.recipe)
    assert isinstance(grid, Grid)
    run = read_kept(KeptRun(folder, spec, result, {}, {}, who), grid)
    n_features = len(run.facts["feature_labels"])
    try:
        if spec.architecture in LINEAR:
            return FinishedClassical(**vars(run), estimator=_linear(run.tensors, n_features))
        if spec.architecture == "tabm":
            model = TabM(spec.seed % 2**32, device, **grid.fixed, **run.facts["point"])
            model.restore(network_tensors(run.tensors), n_features)
            return FinishedClassical(**vars(run), estimator=model)
        checked = tuple(run.tensors[f"checked_{name}"].numpy() for name in ("features", "output"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise run.damaged(" ".join(str(error).split())[:200]) from None
    assert result.estimator_sha256 is not None
    fitted_by, version = result.versions.get("scikit-learn"), package_versions()["scikit-learn"]
    other = f" (fitted by scikit-learn {fitted_by}, here is {version})" * (fitted_by != version)
    try:
        estimator = read_estimator(
            files.estimator, result.estimator_sha256, spec.architecture, n_features
        )
    except UserError as error:
        raise UserError(f"{who} must have its model, got {error}{other}") from None
    _check_predictions(run, estimator, checked, other)
    return FinishedClassical(**vars(run), estimator=estimator)


def _check_predictions(
    run: KeptRun, estimator: Any, checked: tuple[np.ndarray, ...], other: str
) -> None:
    """Check that an estimator predicts the kept rows as it did after its training.

    Args:
        run: The run.
        estimator: The estimator.
        checked: The features and outputs of the kept rows, both scaled.
        other: Which versions of scikit-learn differ; empty if none do.
    """
    features, output = checked
    # What wrong arrays make an estimator raise is not documented.
    try:
        predicted = _output(estimator, features.astype(np.float64))
        is_same = predicted.shape == output.shape and np.allclose(
            predicted, output, rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE * np.abs(output).max()
        )
    except Exception as error:
        raise run.damaged(f"{type(error).__name__}: {error}"[:200] + other) from None
    if not is_same:
        raise UserError(
            f"{run.who} must predict the training rows that it keeps as before, got other numbers "
            f"from {run.folder}{other}"
        )
    if other:
        logger.warning(
            f"warning: {run.folder}{other}; its predictions of {len(output)} kept rows are the same"
        )


def _linear(tensors: dict[str, Tensor], n_features: int) -> Any:
    """Make the linear model that has these coefficients."""
    from sklearn.linear_model import LinearRegression

    coef, intercept = tensors["coef"].numpy(), tensors["intercept"].numpy()
    if coef.shape != (n_features,) or intercept.shape != (1,):
        raise ValueError(f"coefficients must be ({n_features},), got {coef.shape}")
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = coef, float(intercept[0]), n_features
    return model


def _output(estimator: Any, x: np.ndarray) -> np.ndarray:
    """Return the outputs (n_rows,) of an estimator for scaled features (n_rows, n_features)."""
    return np.asarray(estimator.predict(x), np.float64)
