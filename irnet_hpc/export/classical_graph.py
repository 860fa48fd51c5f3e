"""Convert a fitted classical model to an ONNX graph with the same input and output as a network's.

skl2onnx converts the estimator. The nodes around it scale the features, convert the output to the
property's unit, and raise it to the floor.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from irnet_hpc.distributed.processes import no_warnings
from irnet_hpc.errors import UserError
from irnet_hpc.export.graph import OPSET, metadata_of_one
from irnet_hpc.predict.members import ClassicalMember

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

# Version 3 of the trees' operators is the last that takes all numbers as attributes.
OPSET_ML = 3


def classical_graph(member: ClassicalMember) -> "ModelProto":
    """Return the model of a classical run as an ONNX model.

    Raises:
        UserError: If skl2onnx cannot convert the model.
    """
    from onnx import TensorProto, helper
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    n_features = len(member.feature_labels)
    with no_warnings():
        # What skl2onnx raises for a model that it cannot convert is not documented.
        try:
            inner = convert_sklearn(
                member.estimator,
                initial_types=[("scaled", FloatTensorType([None, n_features]))],
                target_opset={"": OPSET, "ai.onnx.ml": OPSET_ML},
            ).graph
        except Exception as error:
            raise UserError(
                f"skl2onnx cannot convert {member.spec.architecture}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None
    before, after = _nodes_around(member, inner.output[0].name)
    constants = list(_constants(member).items())
    graph = helper.make_graph(
        [*before, *inner.node, *after],
        member.spec.architecture,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n_rows", n_features])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n_rows", 1])],
        [*inner.initializer, *(_tensor(name, value) for name, value in constants)],
    )
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
    # IR version 10 is the one that torch's graphs of this opset have.
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    helper.set_model_props(model, metadata_of_one(member))
    return model


def _constants(member: ClassicalMember) -> dict[str, Any]:
    """Return the numbers of the nodes around the estimator."""
    scaling = member.scaling
    mean, rest = scaling.feature_means()
    limits = {"irnet_low": np.float32(-scaling.clip), "irnet_high": np.float32(scaling.clip)}
    return {
        "irnet_mean": mean,
        "irnet_mean_rest": rest,
        "irnet_scale": scaling.feature_scale.astype(np.float32),
        **(limits if scaling.clip else {}),
        "irnet_target_scale": np.asarray(scaling.target_scale, np.float32).reshape(1, 1),
        "irnet_target_mean": np.asarray(scaling.target_mean, np.float32).reshape(1, 1),
        "irnet_floor": np.asarray(scaling.floor, np.float32).reshape(1, 1),
        "irnet_columns": np.array([1], np.int64),
        "irnet_zero": np.float32(0),
        "irnet_nan": np.float32(np.nan),
    }


def _nodes_around(
    member: ClassicalMember, output: str
) -> tuple[list["NodeProto"], list["NodeProto"]]:
    """Make the nodes that scale the features, and those that convert the output.

    A row with a feature that is not finite gets NaN, as in the graph of a network.
    """
    from onnx import TensorProto
    from onnx.helper import make_node

    last = "scaled" if not member.scaling.clip else "irnet_unclipped"
    before = [
        make_node("Sub", ["features", "irnet_mean"], ["irnet_near"]),
        make_node("Sub", ["irnet_near", "irnet_mean_rest"], ["irnet_centred"]),
        make_node("Div", ["irnet_centred", "irnet_scale"], [last]),
    ]
    if member.scaling.clip:
        before.append(make_node("Clip", [last, "irnet_low", "irnet_high"], ["scaled"]))
    after = [
        make_node("IsNaN", ["features"], ["irnet_is_nan"]),
        make_node("IsInf", ["features"], ["irnet_is_inf"]),
        make_node("Or", ["irnet_is_nan", "irnet_is_inf"], ["irnet_is_bad"]),
        make_node("Cast", ["irnet_is_bad"], ["irnet_bad"], to=TensorProto.FLOAT),
        make_node("ReduceMax", ["irnet_bad", "irnet_columns"], ["irnet_worst"], keepdims=1),
        make_node("Greater", ["irnet_worst", "irnet_zero"], ["irnet_row_is_bad"]),
        make_node("Mul", [output, "irnet_target_scale"], ["irnet_scaled_back"]),
        make_node("Add", ["irnet_scaled_back", "irnet_target_mean"], ["irnet_in_unit"]),
        make_node("Max", ["irnet_in_unit", "irnet_floor"], ["irnet_at_floor"]),
        make_node("Where", ["irnet_row_is_bad", "irnet_nan", "irnet_at_floor"], ["prediction"]),
    ]
    return before, after


def _tensor(name: str, value: Any) -> "TensorProto":
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(value), name)
