"""`GraphBuilder`: a thin layer over onnx-ir to write a graph as one writes a formula.

Values are the nodes' outputs; `builder("Mul", a, b)` adds a node and returns its first output.
Weights are references into the external data; only a handful of small integers are stored in the
graph itself.

Every value gets a type and a shape. ONNX's own inference works most of them out (`typed`); what it
cannot know is stated with `known`: the results of contrib operators, which are not its own, and
extents that depend on data.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from phiquant.targets.onnx.external import Entry

CONTRIB = "com.microsoft"
OPSET = 21
IR_VERSION = 10
"""The IR version that opset 21 came with; runtimes refuse later ones than they know."""

DATA_TYPES: Mapping[str, ir.DataType] = {
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
}

Pair = tuple[ir.Value, ir.Value]
"""Keys and values, or two other results of one operator."""


class GraphBuilder:
    """Collects the nodes, inputs, outputs and initializers of one graph."""

    def __init__(self, entries: Mapping[str, Entry], activations: ir.DataType) -> None:
        self.activations = activations
        self._entries = entries
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """A graph input; strings name free dimensions."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    def output(
        self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]
    ) -> None:
        """Make `value` the graph output `name`."""
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self._outputs.append(value)

    def order_outputs(self) -> None:
        """Put the last output (the logits) first."""
        self._outputs.insert(0, self._outputs.pop())

    def __call__(
        self,
        op: str,
        *inputs: ir.Value | None,
        name: str | None = None,
        domain: str = "",
        **attributes: int | float | Sequence[int],
    ) -> ir.Value:
        """Add a node and return its first output."""
        return self.several(1, op, *inputs, name=name, domain=domain, **attributes)[0]

    def several(
        self,
        count: int,
        op: str,
        *inputs: ir.Value | None,
        name: str | None = None,
        domain: str = "",
        **attributes: int | float | Sequence[int],
    ) -> tuple[ir.Value, ...]:
        """Add a node with `count` outputs and return them."""
        name = name or f"{op}_{len(self._nodes)}"
        node = ir.node(
            op, list(inputs), attributes=attributes, domain=domain, num_outputs=count, name=name
        )
        for index, value in enumerate(node.outputs):
            value.name = f"{name}/output_{index}"
        self._nodes.append(node)
        return tuple(node.outputs)

    def known(
        self, value: ir.Value, *shape: int | str, dtype: ir.DataType | None = None
    ) -> ir.Value:
        """`value`, of the activations' type unless `dtype` is given, stated to have `shape`.

        Strings name free dimensions.
        """
        value.type, value.shape = ir.TensorType(dtype or self.activations), ir.Shape(shape)
        return value

    def add(self, node: ir.Node) -> None:
        """Add a node made elsewhere (one with subgraphs)."""
        self._nodes.append(node)

    def integers(self, *numbers: int) -> ir.Value:
        """A constant vector of int64."""
        return self.constant(np.array(numbers, np.int64), "_".join(map(str, numbers)))

    def integer(self, number: int) -> ir.Value:
        """A constant scalar of int64."""
        return self.constant(np.array(number, np.int64), f"scalar_{number}")

    def real(self, number: float) -> ir.Value:
        """A constant scalar of the activations' type."""
        array = np.array(number, self.activations.numpy())
        return self.constant(array, f"scalar_{number!r}")

    def constant(self, array: npt.NDArray[np.generic], label: str) -> ir.Value:
        """A small constant, stored in the graph once."""
        name = f"constants/{array.dtype}/{label}"
        return self._initializer(name, ir.tensor(array, name=name))

    def weight(self, name: str) -> ir.Value:
        """The tensor `name` of the external data."""
        return self._initializer(name, self._entries[name].tensor())

    def alias(self, name: str, alias: str, shape: tuple[int, ...] | None = None) -> ir.Value:
        """The same bytes of the external data under another name, and perhaps another shape."""
        tensor = self._entries[name].tensor(shape)
        tensor.name = alias
        return self._initializer(alias, tensor)

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        if name not in self._initializers:
            self._initializers[name] = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tuple(tensor.shape.numpy())),
                const_value=tensor,
            )
        return self._initializers[name]

    def model(self, metadata: Mapping[str, str]) -> ir.Model:
        """The finished model."""
        from phiquant import __version__

        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": OPSET, CONTRIB: 1},
            name="decoder",
        )
        return ir.Model(
            graph,
            ir_version=IR_VERSION,
            producer_name="phiquant",
            producer_version=__version__,
            metadata_props=dict(metadata),
        )


def typed(model: ir.Model) -> onnx.ModelProto:
    """The model as it is stored, with the type and the shape of every value.

    Readers that know no contrib operators need them: tools that infer shapes, and ONNX Runtime's
    own quantizer.
    """
    return onnx.shape_inference.infer_shapes(
        ir.to_proto(model), check_type=True, strict_mode=True, data_prop=True
    )
