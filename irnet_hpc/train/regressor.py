"""Provide IRNetRegressor: networks of the IRNet family with scikit-learn's fit and predict.

    from irnet_hpc import IRNetRegressor
    model = IRNetRegressor(architecture="irnet", depth=17).fit(X, y)
    model.predict(X_new)

"IRNet: A General Purpose Deep Residual Regression Framework" (Jha et al., KDD 2019) applies to any
vectors, and so does this class. It runs the loop of loop.py in one process, on arrays in memory,
without a pack or a run folder.
"""

import contextlib
import copy
import dataclasses
import logging
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.distributed.gpus import device_of
from irnet_hpc.errors import UserError
from irnet_hpc.models.modes import own_modes
from irnet_hpc.models.network import Network, n_parameters
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import Recipe, fitted_to, resolve, states_batch
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import Dataset, arrange
from irnet_hpc.train.evaluation import take_statistics
from irnet_hpc.train.loop import Ended, train
from irnet_hpc.train.run import Run, TrainOptions
from irnet_hpc.train.stack import Replica
from irnet_hpc.train.stopping import NeverStop
from irnet_hpc.train.warm_start import check_start

PREDICTED_ROWS = 4096  # at once
MAX_FEATURE = float(np.finfo(np.float32).max)


class IRNetRegressor(RegressorMixin, BaseEstimator):
    """A network of the IRNet family as a scikit-learn regressor.

    Args:
        architecture: An architecture as for `python -m irnet_hpc.train`, e.g. `irnet`.
        depth: The number of layers, e.g. 17.
        recipe: The name of a recipe, or a dict of its fields, such as `{"name": "mine", "base":
            "onecycle", "epochs": 100}`. For small tables, the batch and the group of rows that are
            normalised together shrink to a sixteenth of the training rows, unless the dict states
            one of them. Then there is a warning, and `recipe_` is the recipe that was used.
        layers: A layer string in place of architecture and depth, e.g. `64BARx2-32BARx1-1`.
        validation_fraction: The share of rows that select the best epoch. These rows are not used
            for training.
        random_state: The seed of the weights, of the order of rows and of the choice of validation
            rows.
        verbose: Whether to print a line per epoch, at most one per second, or on a terminal a bar.

    Attributes:
        network_: The torch module, in float64 on the CPU.
        scaling_: The scaling of features and target.
        history_: Rows of (epoch, step, learning rate, train MAE, validation MAE, seconds).
        best_epoch_: The epoch whose weights were kept.
        best_mae_: The MAE of that epoch on the validation rows, in the unit of y.
        n_parameters_: The number of weights and biases.
        recipe_: The recipe that was used.
        n_features_in_: The number of columns of X.
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
        """Train on a table.

        Args:
            X: Features (n_rows, n_features), all finite.
            y: Targets (n_rows,), all finite.

        Raises:
            ValueError: If the data cannot be trained on.
            UserError: If a parameter is not allowed, or the training diverges.
        """
        shape = np.asarray(y).shape
        if len(shape) == 2 and shape[1] > 1:
            raise ValueError(
                f"y must be (n_rows,), one output, got {shape}; to train a network with several "
                "outputs, make a pack and use python -m irnet_hpc.train --property a,b"
            )
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64, ensure_min_samples=4)
        seed = self._seed()
        train_rows, val_rows = self._split(len(y), seed)
        recipe = shrunk(resolve(self.recipe), len(train_rows), states_batch(self.recipe))
        if recipe.floor != "none":
            raise UserError(
                f"floor of recipe {recipe.name!r} must be none, since the floor of y is not "
                f"known, got {recipe.floor}"
            )
        spec = self._spec(recipe, seed)
        check_start(spec, recipe, None)
        device = device_of(0)
        no_rows = val_rows[:0]
        roles = [
            (rows, _representable(X[rows]), y[rows].astype(np.float64))
            for rows in (train_rows, val_rows, no_rows)
        ]
        with own_modes():
            data = arrange(roles, recipe, device)
            ended = self._train(spec, recipe, data, device)
            if ended.error:
                raise ended.error
            assert ended.network is not None
            # In float64 the prediction of a row does not depend on the other rows. In float32 it
            # may, since other kernels are used for another number of rows.
            self.network_ = _in_float64(ended.network, data, recipe)
        self.scaling_, self.recipe_ = data.scaling, recipe
        self.history_ = ended.state.history
        self.best_epoch_, self.best_mae_ = ended.state.best_epoch, ended.state.best_mae
        self.n_parameters_ = n_parameters(ended.network)
        return self

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _split(self, n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the training rows and the validation rows, both ascending."""
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must be between 0 and 1, got {self.validation_fraction}"
            )
        n_val = min(n_rows - 2, max(1, round(self.validation_fraction * n_rows)))
        order = np.random.Generator(np.random.Philox(key=[seed, 2**33])).permutation(n_rows)
        return np.sort(order[n_val:]), np.sort(order[:n_val])

    def _spec(self, recipe: Recipe, seed: int) -> RunSpec:
        model: dict[str, Any] = {"architecture": self.architecture, "depth": self.depth}
        if self.layers is not None:
            model = model_of(self.layers)
        return RunSpec("estimator", "y", recipe=recipe.name, seed=seed, **model)

    def _train(self, spec: RunSpec, recipe: Recipe, data: Dataset, device: torch.device) -> Ended:
        """Run the loop in a temporary folder."""
        options = TrainOptions(progress_bar=self.verbose, epoch_lines=self.verbose)
        output = _epoch_lines_on_stdout() if self.verbose else contextlib.nullcontext()
        with tempfile.TemporaryDirectory() as folder, output:
            replica = Replica(Run(spec, recipe, "", RunFolder(folder)), data)
            (ended,) = train([replica], Alone(), device, NeverStop(), options)
        return ended

    @own_modes()
    def predict(self, X) -> np.ndarray:
        """Predict the target of each row.

        Args:
            X: Features (n_rows, n_features), all finite.

        Returns:
            The predictions, (n_rows,) float64, in the unit of y.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        out = np.empty(len(X))
        with torch.no_grad():
            for start in range(0, len(X), PREDICTED_ROWS):
                rows = slice(start, start + PREDICTED_ROWS)
                scaled = torch.from_numpy(self.scaling_.features(_representable(X[rows]))).double()
                out[rows] = self.network_(scaled)[:, 0].numpy()
        return self.scaling_.in_unit(out)


def _in_float64(network: Network, data: Dataset, recipe: Recipe) -> Network:
    """Copy a network to float64 on the CPU, with statistics that fit this precision.

    If rows differ little in a layer, statistics of bf16 rows do not fit: the next layer would take
    rounding for a difference between rows, and each further layer would multiply it.
    """
    as_trained = copy.deepcopy(network).to("cpu", torch.float64)
    retaken = copy.deepcopy(as_trained)
    train = dataclasses.replace(
        data.train, x=data.train.resident.double().cpu(), y=data.train.y.double().cpu()
    )
    exact = dataclasses.replace(recipe, precision="fp64", allreduce="full")
    is_unusual = take_statistics(retaken, train, exact, Alone())
    return retaken if is_unusual else as_trained


def shrunk(recipe: Recipe, n_rows: int, keeps_batch: bool = False) -> Recipe:
    """Return the recipe with batch and norm_group reduced to suit `n_rows` training rows.

    Args:
        recipe: The recipe.
        n_rows: The number of training rows.
        keeps_batch: True if the recipe states its batch, which is then used as it is.

    Raises:
        UserError: If a stated batch has more rows than there are.
    """
    if keeps_batch and recipe.batch > n_rows:
        raise UserError(
            f"batch of recipe {recipe.name!r} must be at most the {n_rows} training rows, got "
            f"{recipe.batch}; leave batch and norm_group out, so that they are fitted to the rows"
        )
    smaller = recipe if keeps_batch else fitted_to(recipe, n_rows)
    if smaller is recipe:
        return recipe
    warnings.warn(
        f"{n_rows} training rows are few for a batch of {recipe.batch}: training with batch "
        f"{smaller.batch} and norm_group {smaller.norm_group}",
        UserWarning,
        stacklevel=3,
    )
    return smaller


def _representable(X: np.ndarray) -> np.ndarray:
    """Convert features to float32, the type in which networks are trained.

    Raises ValueError for numbers that float32 cannot hold.
    """
    if np.abs(X).max(initial=0) > MAX_FEATURE:
        raise ValueError(
            f"features must be at most {MAX_FEATURE:.3g} in size, since float32 "
            "cannot hold larger numbers"
        )
    return X.astype(np.float32)


_printing_threads: list[tuple[int, bool]] = []  # per fit that prints: the logger's state before all
_printing_lock = threading.Lock()


@contextlib.contextmanager
def _epoch_lines_on_stdout() -> Iterator[None]:
    """Print the log lines of the training loop on stdout, where scikit-learn's `verbose` prints.

    Fits in several threads share the logger: the last one that ends restores it.
    """
    logger, handler = logging.getLogger("irnet_hpc.train.loop"), logging.StreamHandler(sys.stdout)
    thread = threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    with _printing_lock:
        before = _printing_threads[0] if _printing_threads else (logger.level, logger.propagate)
        _printing_threads.append(before)
        logger.propagate = False
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        with _printing_lock:
            logger.removeHandler(handler)
            _printing_threads.remove(before)
            if not _printing_threads:
                logger.setLevel(before[0])
                logger.propagate = before[1]
