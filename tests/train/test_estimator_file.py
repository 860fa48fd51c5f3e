"""Files of fitted estimators: the same predictions, and nothing foreign is run or followed."""

import functools
import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io

from irnet_hpc.errors import UserError
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.train import estimator_file
from irnet_hpc.train.classical import makers
from irnet_hpc.train.estimator_file import CLASSES, read_estimator, write_estimator
from tests.builders import make_grids_small

N_FEATURES = 4
RANDOM = np.random.default_rng(0)
X, OTHERS = RANDOM.normal(size=(120, N_FEATURES)), RANDOM.normal(size=(50, N_FEATURES))
Y = X @ [1, -2, 0.5, 0] + np.sin(3 * X[:, 3])


def made(architecture: str, place: int = 0):
    """Fit the model at one point of its grid."""
    grid = GRIDS[architecture]
    return makers(1, 2)[architecture](**grid.fixed, **grid.points[place]).fit(X, Y)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path, architecture: str = "decision_tree", n_features: int = N_FEATURES):
    """Read a file as one whose hash is right, as a tamperer of both would leave it."""
    return read_estimator(path, sha256(path), architecture, n_features)


def rewritten(path: Path, change) -> Path:
    """Write the file again with a change to its tree of types."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(content["schema.json"])
    change(schema)
    content["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize("architecture", CLASSES)
def test_an_estimator_read_again_predicts_the_same_to_the_bit(architecture, tmp_path, monkeypatch):
    make_grids_small(monkeypatch)
    path = tmp_path / "estimator.skops"
    for place in range(len(GRIDS[architecture].points)):
        fitted = made(architecture, place)
        assert write_estimator(path, fitted) == sha256(path)
        again = read(path, architecture)
        assert type(again) is type(fitted)
        if hasattr(fitted, "n_jobs"):
            fitted.n_jobs = 1
        np.testing.assert_array_equal(again.predict(OTHERS), fitted.predict(OTHERS))
    assert again.predict(OTHERS).std() > 0.1


def test_the_size_of_an_estimator_is_that_of_its_arrays():
    tree = made("decision_tree")
    # A node of scikit-learn 1.9 has 64 bytes, its value 8.
    assert estimator_file.array_bytes(tree) == tree.tree_.node_count * 72
    svr = made("svr")
    assert estimator_file.array_bytes(svr) == len(svr.support_) * (N_FEATURES + 1) * 8


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    path, marker = tmp_path / "estimator.skops", tmp_path / "marker"
    tree = made("decision_tree")
    # Of itself skops would call it: the file names os.system.
    tree.max_depth = functools.partial(os.system, f"touch {marker}")
    skops.io.dump(tree, path)
    with pytest.raises(UserError) as error:
        read(path)
    assert "\n" not in str(error.value) and "functools.partial" in str(error.value)
    assert not marker.exists()
    with pytest.raises(UserError):
        write_estimator(path, tree)


FOREIGN = [
    ("ObjectNode", "subprocess", "Popen"),
    ("FunctionNode", "builtins", "exec"),
    ("ConstructorFromReduceNode", "builtins", "eval"),
    ("OperatorFuncNode", "operator", "methodcaller"),
    ("NdArrayNode", "os", "system"),
    # Allowed names, but as another kind of node.
    ("ObjectNode", "sklearn.tree._tree", "Tree"),
    ("LossNode", "numpy", "ndarray"),
    # Estimators that skops trusts, but of none of our models.
    ("ObjectNode", "sklearn.preprocessing._function_transformer", "FunctionTransformer"),
]


@pytest.mark.parametrize(("loader", "module", "name"), FOREIGN)
def test_a_name_that_is_not_listed_is_refused_anywhere_in_a_file(loader, module, name, tmp_path):
    path = tmp_path / "estimator.skops"
    write_estimator(path, made("decision_tree"))

    def change(schema):
        node = next(iter(schema["content"]["content"].values()))
        node |= {"__loader__": loader, "__module__": module, "__class__": name}

    with pytest.raises(UserError, match=f"{module}.{name} as {loader}"):
        read(rewritten(path, change))


def test_a_format_with_weaker_checks_is_refused(tmp_path):
    path = tmp_path / "estimator.skops"
    write_estimator(path, made("decision_tree"))
    with pytest.raises(UserError, match="at least 2"):
        read(rewritten(path, lambda schema: schema.update(protocol=0)))


@pytest.mark.parametrize("how", ["missing", "cut", "a bit", "no archive", "no schema", "a list"])
def test_a_damaged_file_is_one_sentence(how, tmp_path):
    path = tmp_path / "estimator.skops"
    digest = write_estimator(path, made("decision_tree"))
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
        digest = sha256(path)
    elif how == "a bit":  # the hash shows it
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "no archive":
        path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")  # a pickle
        digest = sha256(path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other.txt" if how == "no schema" else "schema.json", "[]")
        digest = sha256(path)
    with pytest.raises(UserError) as error:
        read_estimator(path, digest, "decision_tree", N_FEATURES)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def spoilt(tree, field: str, value: int):
    """Change a number of a tree's first node, which has two children."""
    state = tree.tree_.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.tree_.__setstate__(state)
    return tree


WRONG_NODES = [
    ("left_child", 10**6),
    ("right_child", 10**6),
    ("left_child", 0),  # a circle
    ("right_child", -5),
    ("feature", N_FEATURES),
    ("feature", -3),
]


@pytest.mark.parametrize(("field", "value"), WRONG_NODES)
def test_a_node_that_leads_out_of_its_tree_is_refused(field, value, tmp_path):
    """Compiled code would follow it, read elsewhere in memory, or never end."""
    path = tmp_path / "estimator.skops"
    write_estimator(path, spoilt(made("decision_tree"), field, value))
    with pytest.raises(UserError, match="leads nowhere"):
        read(path)


def test_a_tree_that_counts_other_nodes_than_it_has_is_refused(tmp_path):
    """Of more nodes than there are, scikit-learn 1.9 itself counts those that there are."""
    path = tmp_path / "estimator.skops"
    write_estimator(path, made("decision_tree"))

    def change(schema):
        tree = schema["content"]["content"]["tree_"]["content"]["content"]
        tree["node_count"]["content"] = "1"

    with pytest.raises(UserError, match="counts other nodes"):
        read(rewritten(path, change))


@pytest.mark.parametrize(("field", "value"), [("left", 0), ("right", 9999), ("feature_idx", 99)])
def test_a_node_of_boosted_trees_that_leads_out_is_refused(field, value, tmp_path, monkeypatch):
    make_grids_small(monkeypatch)
    path, fitted = tmp_path / "estimator.skops", made("boosted_trees")
    fitted._predictors[3][0].nodes[field][0] = value
    write_estimator(path, fitted)
    with pytest.raises(UserError, match="leads nowhere"):
        read(path, "boosted_trees")


def test_support_vectors_that_do_not_fit_together_are_refused(tmp_path):
    path, fitted = tmp_path / "estimator.skops", made("svr")
    fitted.support_vectors_ = fitted.support_vectors_[:-1]
    write_estimator(path, fitted)
    with pytest.raises(UserError, match="support vectors"):
        read(path, "svr")


def test_an_estimator_of_another_model_or_of_other_features_is_refused(tmp_path):
    path = tmp_path / "estimator.skops"
    write_estimator(path, made("decision_tree"))
    with pytest.raises(UserError, match="SVR"):
        read(path, "svr")
    with pytest.raises(UserError, match="3 features"):
        read(path, n_features=3)


def test_a_file_whose_content_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "estimator.skops"
    write_estimator(path, made("decision_tree"))
    monkeypatch.setattr(estimator_file, "free_bytes", lambda: 1000)
    with pytest.raises(UserError, match="GiB"):
        read(path)
