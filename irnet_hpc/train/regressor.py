"""IRNetRegressor: the same training behind scikit-learn's fit and predict, for any numeric vectors.

    from irnet_hpc import IRNetRegressor
    model = IRNetRegressor(architecture="irnet", depth=17).fit(X, y)
    model.predict(X_new)

"IRNet: A General Purpose Deep Residual Regression Framework" (Jha et al., KDD 2019) takes any vector; so does this. It runs
the loop of `training.py` in one process, and nothing else: a table in memory, no pack, no run folder.
"""

import contextlib
import copy
import dataclasses
import io
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from irnet_hpc.distributed.engines import Alone, device_of
from irnet_hpc.distributed.processes import StopSignals
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import n_parameters
from irnet_hpc.runs.recipes import Recipe, fitting_batch, resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import arrange
from irnet_hpc.train.loop import train
from irnet_hpc.train.stack import DTYPES, Replica
from irnet_hpc.train.warm_start import check_start

PREDICTED_ROWS = 4096  # at once
NOTED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LARGEST = float(np.finfo(np.float32).max)


class IRNetRegressor(RegressorMixin, BaseEstimator):
    """A network of the IRNet family as a scikit-learn regressor.

    Parameters
    ----------
    architecture, depth : as in `python -m irnet_hpc.train`, e.g. "irnet" and 17.
    layers : a layer string instead of the two, e.g. "64BARx2-32BARx1-1".
    recipe : the name of a recipe, or an inline one, {"name": "mine", "base": "onecycle", "epochs": 100}. The batch shrinks to
        a sixteenth of the training rows where the table is small, and the group of rows that are normalised together with
        it; a warning says so, and `recipe_` is what was used.
    validation_fraction : of the rows, on which the best epoch is selected; they are not trained on.
    random_state : seed of the weights, of the order of rows and of the rows held back.
    verbose : whether a line an epoch is printed, at most one a second; on a terminal, a bar.

    Attributes
    ----------
    network_ : the torch module, in float64 on the CPU;  scaling_ : of features and target
    history_ : rows of (epoch, step, learning rate, train MAE, validation MAE, seconds)
    best_epoch_, best_mae_ : which epoch was kept, and its MAE on the validation rows, in the target's unit
    n_parameters_, recipe_, n_features_in_
    """

    def __init__(
        self,
        architecture: str = "irnet",
        depth: int = 17,
        recipe: str | dict = "onecycle",
        *,
        layers: str | None = None,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.architecture = architecture
        self.depth = depth
        self.recipe = recipe
        self.layers = layers
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y) -> "IRNetRegressor":
        """Train on X (n_rows, n_features) and y (n_rows,), all finite. Raises ValueError, or UserError for parameters."""
        shape = np.asarray(y).shape  # of whatever can be made an array
        if len(shape) == 2 and shape[1] > 1:
            raise ValueError(
                f"y must be (n_rows,), one output, however: {shape}; a pack's properties can share a network: "
                "python -m irnet_hpc.train --property a,b"
            )
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64, ensure_min_samples=4)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must be between 0 and 1, however: {self.validation_fraction}"
            )
        model = (
            {"architecture": self.architecture, "depth": self.depth}
            if self.layers is None
            else model_of(self.layers)
        )
        n_val = min(len(y) - 2, max(1, round(self.validation_fraction * len(y))))
        place = np.random.Generator(np.random.Philox(key=[int(seed), 2**33])).permutation(len(y))
        val, rows = np.sort(place[:n_val]), np.sort(place[n_val:])
        recipe = shrunk(resolve(self.recipe), len(rows))
        if recipe.floor != "none":
            raise UserError(
                f"floor of recipe {recipe.name!r} must be none, for y is no property whose floor is known, however: "
                f"{recipe.floor}"
            )
        spec = RunSpec("estimator", "y", recipe=recipe.name, seed=int(seed), **model)
        check_start(spec, recipe, None)
        device = device_of(0)
        parts = [
            (part, _representable(X[part]), y[part].astype(np.float64))
            for part in (rows, val, val[:0])
        ]
        data = arrange(*parts, recipe=recipe, device=device, dtype=DTYPES[recipe.precision])
        with tempfile.TemporaryDirectory() as folder, _signals(), _printing(self.verbose):
            (ended,) = train(
                [Replica(spec, recipe, "", data, Path(folder))],
                Alone(),
                device,
                StopSignals(),
                show=self.verbose,
            )
        if ended.error:
            raise UserError(ended.error)
        network, state = ended.network, ended.state
        # In float64, a row's prediction does not depend on the rows beside it: kernels differ with the number of rows.
        self.network_ = copy.deepcopy(network).to("cpu", torch.float64)
        self.scaling_, self.recipe_ = data.scaling, recipe
        self.history_, self.best_epoch_, self.best_mae_ = (
            state.history,
            state.best_epoch,
            state.best_mae,
        )
        self.n_parameters_ = n_parameters(network)
        return self

    def predict(self, X) -> np.ndarray:
        """(n_rows,) float64, in the unit of y."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        out = np.empty(len(X))
        with torch.no_grad():
            for start in range(0, len(X), PREDICTED_ROWS):
                rows = slice(start, start + PREDICTED_ROWS)
                scaled = torch.from_numpy(self.scaling_.features(_representable(X[rows]))).double()
                out[rows] = self.network_(scaled)[:, 0].numpy()
        return out * self.scaling_.target_scale + self.scaling_.target_mean


def shrunk(recipe: Recipe, n_rows: int) -> Recipe:
    """The recipe with a batch, and a group, that a table of so few training rows can take."""
    most = fitting_batch(n_rows)
    if recipe.batch <= most:
        return recipe
    smaller = dataclasses.replace(recipe, batch=most, norm_group=min(most, recipe.norm_group))
    warnings.warn(
        f"{n_rows} training rows are few for a batch of {recipe.batch}: training with batch {smaller.batch} and norm_group "
        f"{smaller.norm_group}",
        UserWarning,
        stacklevel=3,
    )
    return smaller


def _representable(X: np.ndarray) -> np.ndarray:
    """Features as float32 can hold them, which is what the networks are trained in."""
    if np.abs(X).max(initial=0) > LARGEST:
        raise ValueError(
            f"features must be at most {LARGEST:.3g} in size, what float32 can hold; X has infinity otherwise"
        )
    return X.astype(np.float32)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Signals do what they did before: the loop notes those that nobody handles, which is for jobs, not for a program."""

    def as_ever(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    unhandled = [number for number in NOTED if signal.getsignal(number) == signal.SIG_DFL]
    with contextlib.suppress(ValueError):  # not in the main thread, where the loop sets none either
        for number in unhandled:
            signal.signal(number, as_ever)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            for number in unhandled:
                signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _printing(verbose: bool) -> Iterator[None]:
    with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()):
        yield
