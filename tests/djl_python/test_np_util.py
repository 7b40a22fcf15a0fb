from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from djl_python.np_util import from_nd_list, to_nd_list

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8"]
arrays = st.sampled_from(DTYPES).flatmap(lambda code: npst.arrays(code, npst.array_shapes(min_dims=0, min_side=0)))


@given(st.lists(arrays, max_size=4))
def test_arrays_survive_the_wire(values: list[np.ndarray]) -> None:
    decoded = from_nd_list(to_nd_list(values))
    assert [value.dtype for value in decoded] == [value.dtype for value in values]
    for ours, theirs in zip(decoded, values, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_big_endian_arrays_are_sent_by_value() -> None:
    array = np.array([1, 2], dtype=">i4")
    np.testing.assert_array_equal(from_nd_list(to_nd_list(array))[0], array)


def test_data_in_the_other_byte_order_is_read_by_value() -> None:
    encoded = to_nd_list(np.array([1], dtype="<i4"))
    swapped = encoded[:-9] + b">" + encoded[-8:-4] + encoded[-4:][::-1]
    np.testing.assert_array_equal(from_nd_list(swapped)[0], [1])


def test_arrays_that_were_read_can_be_written_to() -> None:
    (array,) = from_nd_list(to_nd_list(np.zeros(2)))
    array[0] = 1


def test_a_single_array_needs_no_list() -> None:
    assert len(from_nd_list(to_nd_list(np.zeros(2)))) == 1


def test_text_arrays_are_refused_with_the_types_there_are() -> None:
    with pytest.raises(ValueError, match="<U1; it has FLOAT32"):
        to_nd_list([np.array(["x"])])


@given(st.data())
def test_a_truncated_list_is_a_value_error(data: st.DataObject) -> None:
    encoded = to_nd_list([np.ones((2, 3), "f4")])
    with pytest.raises(ValueError):
        from_nd_list(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_a_value_error_or_an_empty_list(data: bytes) -> None:
    try:
        assert from_nd_list(b"\0\0\0\1" + data) == []
    except ValueError:
        pass
