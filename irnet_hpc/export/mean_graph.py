"""Join the graphs of several models into one, whose output is the mean that `predict` gives.

The runs of a model on folds are averaged first; then the means of the models, with the weights of
a committee if there are any. With several models a second output, `sd`, is their standard
deviation, from which the width of an interval follows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irnet_hpc.export.graph import OPSET
from irnet_hpc.predict.screening import ROUNDING, Ensemble, Spread, spread_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def mean_of_members(ensemble: Ensemble, predictions: Sequence[np.ndarray]) -> Spread:
    """Return the mean and the standard deviation of an ensemble, each (n_rows, n_properties).

    Args:
        ensemble: The models, all of the same properties.
        predictions: The predictions (n_rows, n_properties) of each member.
    """
    groups = np.stack(
        [np.mean([predictions[place] for place in group], axis=0) for group in ensemble.all_groups]
    )
    spreads = [
        spread_of(groups[..., column], ensemble.weights[name] if ensemble.weights else None)
        for column, name in enumerate(ensemble.properties)
    ]
    mean, sd = (np.stack(columns, axis=1) for columns in zip(*spreads, strict=True))
    return Spread(mean, sd)


def mean_graph(
    ensemble: Ensemble, graphs: Sequence["ModelProto"], metadata: dict[str, str]
) -> "ModelProto":
    """Join the graphs of the members of an ensemble.

    Args:
        ensemble: The models, all of the same properties.
        graphs: The graph of each member, from `features` to `prediction`.
        metadata: The metadata of the joined graph.

    Returns:
        A graph from `features` (n_rows, n_features), those of all members side by side as the
        ensemble's layout has them, to `prediction` and, for several groups, `sd`.
    """
    from onnx import TensorProto, compose, helper

    n_features = 1 + max(int(pick.max()) for pick in ensemble.layout.picks)
    n_properties = len(ensemble.properties)
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    for place, (model, pick) in enumerate(zip(graphs, ensemble.layout.picks, strict=True)):
        # torch 2.13 puts no functions into a model of this opset.
        assert not model.functions
        part = compose.add_prefix_graph(model.graph, f"m{place}_")
        if np.array_equal(pick, np.arange(n_features)):
            nodes.append(helper.make_node("Identity", ["features"], [f"m{place}_features"]))
        else:
            constants.append(_tensor(f"irnet_pick_{place}", pick.astype(np.int64)))
            inputs = ["features", f"irnet_pick_{place}"]
            nodes.append(helper.make_node("Gather", inputs, [f"m{place}_features"], axis=1))
        nodes += part.node
        constants += part.initializer
    mean_nodes, mean_constants = _mean_nodes(ensemble)
    outputs = ["prediction", *(["sd"] if len(ensemble.all_groups) > 1 else [])]
    graph = helper.make_graph(
        [*nodes, *mean_nodes],
        "mean",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n_rows", n_features])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n_rows", n_properties])
            for name in outputs
        ],
        [*constants, *mean_constants],
    )
    versions = {one.domain: one.version for model in graphs for one in model.opset_import}
    versions[""] = OPSET
    domains = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    joined = helper.make_model(graph, opset_imports=domains, ir_version=10)
    helper.set_model_props(joined, metadata)
    return joined


def _mean_nodes(ensemble: Ensemble) -> tuple[list["NodeProto"], list["TensorProto"]]:
    """Make the nodes from the members' predictions to the mean and the standard deviation."""
    from onnx.helper import make_node

    groups = ensemble.all_groups
    if len(groups) == 1:
        inputs = [f"m{place}_prediction" for place in groups[0]]
        return [make_node("Mean", inputs, ["prediction"])], []
    nodes, constants = [], []
    weights = _weights(ensemble)
    # The unbiased variance, as in `spread_of`.
    freedom = 1 - (weights**2).sum(0)
    counts = freedom >= ROUNDING
    spread = np.where(counts, weights / np.where(counts, freedom, 1), 0)
    for number, group in enumerate(groups):
        group_mean = f"irnet_group_{number}"
        nodes += [
            make_node("Mean", [f"m{place}_prediction" for place in group], [group_mean]),
            make_node("Mul", [group_mean, f"irnet_weight_{number}"], [f"irnet_share_{number}"]),
        ]
        constants.append(_tensor(f"irnet_weight_{number}", weights[[number]].astype(np.float32)))
        constants.append(_tensor(f"irnet_spread_{number}", spread[[number]].astype(np.float32)))
    nodes.append(make_node("Sum", [f"irnet_share_{n}" for n in range(len(groups))], ["prediction"]))
    for number in range(len(groups)):
        deviation = f"irnet_deviation_{number}"
        square, term = f"irnet_square_{number}", f"irnet_term_{number}"
        nodes += [
            make_node("Sub", [f"irnet_group_{number}", "prediction"], [deviation]),
            make_node("Mul", [deviation, deviation], [square]),
            make_node("Mul", [square, f"irnet_spread_{number}"], [term]),
        ]
    terms = [f"irnet_term_{number}" for number in range(len(groups))]
    return [
        *nodes,
        make_node("Sum", terms, ["irnet_variance"]),
        make_node("Sqrt", ["irnet_variance"], ["sd"]),
    ], constants


def _weights(ensemble: Ensemble) -> np.ndarray:
    """Return the weight of each group in the mean of each property, (n_groups, n_properties)."""
    n_groups, names = len(ensemble.all_groups), ensemble.properties
    if ensemble.weights:
        return np.stack([ensemble.weights[name] for name in names], axis=1)
    return np.full((n_groups, len(names)), 1 / n_groups)


def member_weights(ensemble: Ensemble) -> list[dict[str, float]]:
    """Return for each member the share that it has in the mean of each property."""
    shares: list[dict[str, float]] = [{} for _ in ensemble.members]
    for group, weights in zip(ensemble.all_groups, _weights(ensemble).tolist(), strict=True):
        own = [weight / len(group) for weight in weights]
        for place in group:
            shares[place] = dict(zip(ensemble.properties, own, strict=True))
    return shares


def _tensor(name: str, value: Any) -> "TensorProto":
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(value), name)
