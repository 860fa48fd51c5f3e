"""Keep a fitted scikit-learn estimator in a file that holds no code, and read it again.

A file of skops is a zip archive: a tree of type names and values in JSON, and arrays. skops makes
objects of the types that the file names. So before skops reads a file, every name in it is looked
up in ALLOWED, which never changes with a file. Afterwards, the numbers that compiled code will use
as places in memory are checked.
"""

import copy
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from irnet_hpc.distributed.memory import free_bytes
from irnet_hpc.distributed.processes import no_warnings
from irnet_hpc.errors import UserError

# Model of GRIDS -> the class of its estimator. Linear models and TabM are kept as plain numbers.
CLASSES = {
    "svr": "sklearn.svm._classes.SVR",
    "decision_tree": "sklearn.tree._classes.DecisionTreeRegressor",
    "adaboost": "sklearn.ensemble._weight_boosting.AdaBoostRegressor",
    "bagging": "sklearn.ensemble._bagging.BaggingRegressor",
    "extra_trees": "sklearn.ensemble._forest.ExtraTreesRegressor",
    "random_forest": "sklearn.ensemble._forest.RandomForestRegressor",
    "boosted_trees": (
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor"
    ),
}
# What a file may hold: skops' kind of node -> the types that such a node may name. This is all that
# the models of CLASSES need, as skops 0.16.0 writes the estimators of scikit-learn 1.9.1.
ALLOWED = {
    "JsonNode": {"builtins.str"},  # a number, a text, True, False or None
    "TypeNode": {"builtins.str"},  # the type of the keys of a mapping
    "DictNode": {"builtins.dict"},
    "ListNode": {"builtins.list"},
    "TupleNode": {"builtins.tuple"},
    "NdArrayNode": {"numpy.ndarray", "numpy.uint64", "numpy.float64"},
    "TreeNode": {"sklearn.tree._tree.Tree"},
    "LossNode": {"sklearn._loss._loss.CyHalfSquaredError", "sklearn._loss._loss.CyAbsoluteError"},
    "ObjectNode": {
        *CLASSES.values(),
        "sklearn.tree._classes.ExtraTreeRegressor",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss.loss.AbsoluteError",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
    },
}
# The version of skops' format. Earlier ones have kinds of nodes with weaker checks.
PROTOCOL = 2
SCHEMA = "schema.json"
# Level 6 of deflate, zlib's own default.
COMPRESSION = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 6}


def array_bytes(estimator: Any) -> int:
    """Return the bytes that the arrays of a fitted estimator of CLASSES take in memory."""
    if hasattr(estimator, "support_vectors_"):
        return estimator.support_vectors_.nbytes + estimator.dual_coef_.nbytes
    return sum(nodes.nbytes + values.nbytes for nodes, values in _tree_arrays(estimator))


def write_estimator(path: Path, estimator: Any) -> str:
    """Write a fitted estimator of CLASSES.

    Args:
        path: The file to write; the caller makes it atomic.
        estimator: The estimator.

    Returns:
        The sha256 of the file.

    Raises:
        UserError: If the estimator holds a type that ALLOWED lacks, as another version of
            scikit-learn may do.
    """
    from skops import io

    light = copy.copy(estimator)
    # Only a fit draws from this generator, whose class a file would name.
    vars(light).pop("_feature_subsample_rng", None)
    io.dump(light, path, **COMPRESSION)
    with path.open("rb") as file:
        check_content(file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_estimator(path: Path, sha256: str, architecture: str, n_features: int) -> Any:
    """Read an estimator that `write_estimator` wrote.

    Args:
        path: The file.
        sha256: The hash of the file, as its run recorded it.
        architecture: The model of GRIDS that it must be.
        n_features: The number of features that it must take.

    Raises:
        UserError: If the file is missing, has another hash, holds something that ALLOWED lacks, or
            is no fitted estimator of that model.
    """
    from skops import io

    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise UserError("it is not the file that the run wrote: its hash is another")
            file.seek(0)
            check_content(file)
            file.seek(0)
            with no_warnings():  # of another version of scikit-learn, which the caller judges
                estimator = io.load(file, trusted=sorted(set().union(*ALLOWED.values())))  # type: ignore[arg-type]
        _check_estimator(estimator, architecture, n_features)
    except FileNotFoundError:
        raise UserError(f"{path}: it is missing") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    # What a wrong file makes skops, numpy and scikit-learn raise is not documented.
    except Exception as error:
        raise UserError(f"{path}: it is damaged: {_one_line(error)}") from None
    if hasattr(estimator, "n_jobs"):
        # One thread, so that the trees are added in one order and predictions are equal to the bit.
        estimator.n_jobs = 1
    return estimator


def check_content(file: BinaryIO) -> None:
    """Check what a file of skops names and how large it is, without making any object of it.

    Raises:
        UserError: If it is no such file, does not fit in memory, or names something that ALLOWED
            lacks.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            size, free = sum(entry.file_size for entry in archive.infolist()), free_bytes()
            # skops holds the bytes of all arrays while it makes the arrays.
            if 2 * size > free:
                raise UserError(
                    f"its content takes {2 * size / 2**30:.3g} GiB of memory while it is read, "
                    f"of which {free / 2**30:.3g} GiB are free"
                )
            schema = json.loads(archive.read(SCHEMA))
        named = set(_named(schema))
        protocol = schema["protocol"]
    except (
        *(zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, RecursionError),
        *(MemoryError, NotImplementedError, RuntimeError, OSError),
    ) as error:
        raise UserError(f"it is damaged: {_one_line(error)}") from None
    if not isinstance(protocol, int) or protocol < PROTOCOL:
        raise UserError(f"its format must be at least {PROTOCOL} of skops, got {protocol!r:.50}")
    wrong = sorted(f"{name} as {kind}" for kind, name in named if name not in ALLOWED.get(kind, ()))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"it may hold only the types that this program lists, got {', '.join(wrong[:3])}{more};"
            " nothing in it was run"
        )


def _named(schema: object) -> Iterator[tuple[str, str]]:
    """Yield the kind of each node of a tree of skops, and the type that it names."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if {"__loader__", "__module__", "__class__"} & node.keys():
                yield f"{node['__loader__']}", f"{node['__module__']}.{node['__class__']}"
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _check_estimator(estimator: Any, architecture: str, n_features: int) -> None:
    """Check that an estimator is of the right model, and that its numbers are places within it.

    Compiled code of scikit-learn follows these numbers without a check of its own.
    """
    kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    if kind != CLASSES[architecture]:
        raise UserError(f"it must hold {CLASSES[architecture]}, got {kind}")
    if estimator.n_features_in_ != n_features:
        raise UserError(f"it must take {n_features} features, got {estimator.n_features_in_}")
    if architecture == "svr":
        n_vectors = len(estimator.support_)
        shapes = (
            (estimator.support_vectors_.shape, (n_vectors, n_features)),
            (estimator._dual_coef_.shape, (1, n_vectors)),
            (estimator._intercept_.shape, (1,)),
        )
        if any(got != wanted for got, wanted in shapes) or estimator.kernel != "rbf":
            raise UserError("its support vectors do not fit together")
        return
    for tree in _trees(estimator):
        if (tree.n_features, tree.n_outputs, tree.max_n_classes) != (n_features, 1, 1):
            raise UserError("one of its trees takes other features, or predicts something else")
        if tree.node_count != tree.capacity:  # before its arrays are read
            raise UserError("one of its trees counts other nodes than it has")
    for nodes, _ in _tree_arrays(estimator):
        _check_nodes(nodes, n_features)


def _check_nodes(nodes: np.ndarray, n_features: int) -> None:
    """Check that each node of a tree leads to later nodes of it, by a feature that exists."""
    names = nodes.dtype.names or ()
    left, right, feature = (
        ("left", "right", "feature_idx")
        if "left" in names
        else ("left_child", "right_child", "feature")
    )
    is_leaf = nodes["is_leaf"] != 0 if "is_leaf" in names else nodes[left] == -1
    inner = np.flatnonzero(~is_leaf)
    places = [nodes[side][inner].astype(np.int64) for side in (left, right)]
    sound = len(nodes) > 0 and all(((p > inner) & (p < len(nodes))).all() for p in places)
    used = nodes[feature][inner]
    if not sound or not ((used >= 0) & (used < n_features)).all():
        raise UserError("one of its trees has a node that leads nowhere")
    if "is_categorical" in names and nodes["is_categorical"].any():
        raise UserError("one of its trees has a category, got from numbers")


def _trees(estimator: Any) -> list[Any]:
    """Return the trees of scikit-learn's tree module in an estimator; boosted trees have none."""
    if hasattr(estimator, "_predictors"):
        return []
    return [member.tree_ for member in getattr(estimator, "estimators_", [estimator])]


def _tree_arrays(estimator: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the nodes and values of each tree; boosted trees have the values in their nodes."""
    for tree in _trees(estimator):
        state = tree.__getstate__()
        nodes, values = state["nodes"], state["values"]
        yield nodes, values
    for step in getattr(estimator, "_predictors", ()):
        for predictor in step:
            yield predictor.nodes, predictor.nodes[:0]


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
