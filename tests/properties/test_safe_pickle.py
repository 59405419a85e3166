"""Whatever bytes come, nothing but arrays and plain values is made of them."""

import io
import pickle

from hypothesis import given
from hypothesis import strategies as st

from iou_balanced.formats.safe_pickle import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data):
    return load_pickle(io.BytesIO(data))


@given(st.binary(max_size=200))
def test_no_bytes_run_anything(data):
    try:
        read(data)
    except Exception as e:
        assert not isinstance(e, (SystemExit, KeyboardInterrupt))


nested = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(nested, st.sampled_from(PROTOCOLS))
def test_any_plain_value_comes_back(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value
