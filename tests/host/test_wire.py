"""Protocol buffers on the wire, against the library that onnx uses."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from phiquant.host.wire import fields


@given(st.integers(0, 2**63 - 1), st.binary(max_size=300), st.floats(width=32, allow_nan=False))
def test_fields_are_those_of_the_library(number, data, real):
    attribute = onnx.AttributeProto(name="name", i=number, s=data, f=real)
    values = dict(fields(memoryview(attribute.SerializeToString()), 10))
    assert values[1].tobytes() == b"name"
    assert values[3] == number
    assert values[4].tobytes() == data
    assert len(values[2]) == 4


def test_a_message_within_a_message():
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", [], [])
    )
    (graph,) = (v for n, v in fields(memoryview(model.SerializeToString()), 100) if n == 7)
    (node,) = (v for n, v in fields(graph, 100) if n == 1)
    assert [v.tobytes() for n, v in fields(node, 100) if n == 1] == [b"a", b"b"]


@pytest.mark.parametrize(
    "data, words",
    [
        (b"\x08", "without an end at byte 1"),
        (b"\xff" * 20, "without an end at byte 0"),
        (b"\x0a\x05abc", "5 bytes expected at byte 2, 3 left"),
        (b"\x09\0\0\0", "8 bytes expected"),
        (b"\x0d\0\0", "4 bytes expected"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01" * 4, "more than 3 fields"),
    ],
)
def test_what_is_no_message(data, words):
    with pytest.raises(ValueError, match=words):
        list(fields(memoryview(data), 3))
