"""How much an ONNX graph holds, counted in its bytes before a library makes objects of them.

A node of two bytes becomes an object of two thousand; a file of some megabytes could so take all
memory. The numbers of messages are those of onnx.proto; what is in a message that is not listed
here is a leaf: a text, or a list of numbers. Only a tensor's raw data may be long.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Mapping

from phiquant.host.wire import fields

MOST_FIELDS = 500_000
"""Of all messages together; Phi-4-mini's graph has 60,000."""
MOST_MESSAGES = 100_000
MOST_LEAVES = 8 << 20
"""Bytes of all texts and lists of numbers together."""
DEEPEST = 12
"""Messages within one another: a graph in an attribute of a node of a graph, and its own."""

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, VALUE, TYPE, TENSOR_TYPE, SHAPE, LEAVES = (
    "model", "graph", "node", "attribute", "tensor", "value", "type", "tensor type", "shape", "",
)  # fmt: skip

MESSAGES: Mapping[str, Mapping[int, str]] = {
    MODEL: {7: GRAPH, 8: LEAVES, 14: LEAVES},
    GRAPH: {1: NODE, 5: TENSOR, 11: VALUE, 12: VALUE, 13: VALUE, 14: LEAVES, 16: LEAVES},
    NODE: {5: ATTRIBUTE, 9: LEAVES},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 14: TYPE, 15: TYPE},
    TENSOR: {3: LEAVES, 13: LEAVES, 16: LEAVES},
    VALUE: {2: TYPE, 4: LEAVES},
    TYPE: {1: TENSOR_TYPE, 8: TENSOR_TYPE},
    TENSOR_TYPE: {2: SHAPE},
    SHAPE: {1: LEAVES},
    LEAVES: {},
}
"""Message → field → the message that it holds."""
TEXTS: Mapping[str, tuple[int, ...]] = {
    GRAPH: (2, 10),
    NODE: (1, 2, 3, 4, 6, 7, 8),
    ATTRIBUTE: (1, 13, 21),
    TENSOR: (8, 12),
    VALUE: (1, 3),
    LEAVES: (1, 2),
}
"""Message → the leaves that are texts, names among them, and so UTF-8."""
REFUSED: Mapping[str, Mapping[int, str]] = {
    MODEL: {20: "training information", 25: "functions of its own"},
    GRAPH: {15: "sparse tensors"},
    ATTRIBUTE: {22: "sparse tensors", 23: "sparse tensors"},
}
"""What no decoder has."""
RAW_DATA = (TENSOR, 9)


def check_size(model: memoryview) -> None:
    """Raise ValueError for a serialized ModelProto that is none, or that holds too much."""
    _Count().take(model, MODEL, DEEPEST)


class _Count:
    def __init__(self) -> None:
        self._fields = MOST_FIELDS
        self._messages = MOST_MESSAGES
        self._leaves = MOST_LEAVES

    def take(self, message: memoryview, kind: str, depth: int) -> None:
        """Take what `message` holds from what may be held."""
        if depth == 0:
            raise ValueError(f"messages within one another, more than {DEEPEST} deep")
        if self._messages == 0:
            raise ValueError(f"more than {MOST_MESSAGES:,} nodes, tensors and values")
        self._messages -= 1
        inner, refused, texts = MESSAGES[kind], REFUSED.get(kind, {}), TEXTS.get(kind, ())
        for number, value in fields(message, MOST_FIELDS):
            self._fields -= 1
            if self._fields < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            if number in refused:
                raise ValueError(f"{refused[number]}, which no decoder has")
            if isinstance(value, int) or (kind, number) == RAW_DATA:
                continue
            if number in inner:
                self.take(value, inner[number], depth - 1)
                continue
            if number in texts:
                value.tobytes().decode()
            self._leaves -= len(value)
            if self._leaves < 0:
                raise ValueError(f"texts and lists of more than {MOST_LEAVES:,} bytes")
