"""OpenVINO's operators, as far as a decoder needs them beyond opset's own functions."""

from typing import Any

import numpy as np

from phiquant.errors import MissingDependency
from phiquant.quantization.grid import Floats

Node = Any
"""An openvino.Node."""


def openvino() -> Any:  # noqa: ANN401 (the package ships no types)
    """The openvino package; MissingDependency if it is not installed."""
    try:
        import openvino as package
    except ImportError as error:
        raise MissingDependency("openvino", "making an OpenVINO artifact") from error
    return package


class Operators:
    """Makes nodes, and keeps the model's states."""

    def __init__(self) -> None:
        package = openvino()
        from openvino import opset15

        self.ops: Any = opset15
        self.package: Any = package
        self.sinks: list[Any] = []
        self._variables: dict[str, Any] = {}

    def parameter(self, shape: list[int], element_type: str, name: str) -> Node:
        """An input of the model; -1 for a dimension that is open."""
        package = self.package
        made = package.op.Parameter(
            getattr(package.Type, element_type), package.PartialShape(shape)
        )
        made.set_friendly_name(name)
        return made

    def integer(self, value: int) -> Node:
        """A constant scalar."""
        return self.ops.constant(np.array(value, np.int64))

    def integers(self, values: list[int]) -> Node:
        """A constant vector."""
        return self.ops.constant(np.array(values, np.int64))

    def floats(self, values: Floats) -> Node:
        """A constant of any shape."""
        return self.ops.constant(np.asarray(values, np.float32))

    def shape_of(self, node: Node) -> Node:
        """The dimensions of a node's output."""
        return self.ops.shape_of(node, "i64")

    def gather(self, data: Node, indices: Node, axis: Node) -> Node:
        """opset8's Gather."""
        return self.ops.gather(data, indices, axis)

    def slice(self, data: Node, first: int, last: int) -> Node:
        """Values `first` to `last` of the last of four axes."""
        axis = self.integers([3])
        return self.ops.slice(
            data, self.integers([first]), self.integers([last]), self.integers([1]), axis
        )

    def read_state(self, name: str, shape: list[int], initial: Node) -> Node:
        """The state `name` of `shape` (-1 for any), `initial` before the first step."""
        from openvino.op.util import Variable, VariableInfo

        info = VariableInfo()
        info.data_shape = self.package.PartialShape(shape)
        info.data_type = self.package.Type.f32
        info.variable_id = name
        self._variables[name] = Variable(info)
        return self.ops.read_value(initial, self._variables[name])

    def write_state(self, name: str, value: Node) -> None:
        """What the state `name` is after the step."""
        self.sinks.append(self.ops.assign(value, self._variables[name]))
