"""The element functions of `elements` in Triton, and the kernel over rows. Needs triton."""

import triton
import triton.language as tl


@triton.jit
def _softplus_and_sigmoid(x):
    # softplus, log p, p and 1 - p
    e = tl.exp(-tl.abs(x))
    # log1p(e) = log(u) + (e - (u - 1)) / u with u = 1 + e, exact where e is small.
    u = 1.0 + e
    rest = tl.log(u) + (e - (u - 1.0)) / u
    p, q = tl.where(x >= 0, 1.0 / u, e / u), tl.where(x >= 0, e / u, 1.0 / u)
    return rest + tl.maximum(x, 0.0), -(rest + tl.maximum(-x, 0.0)), p, q


@triton.jit
def rows_kernel(
    logits,
    labels,
    row_weights,
    other,
    background,
    gammas,
    grad_rest,
    grad_own,
    out,
    numel,
    image_size,
    gamma,
    NUM_CLASSES: tl.constexpr,
    HAS_TABLES: tl.constexpr,
    GAMMA_TABLE: tl.constexpr,
    DETACHED: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """p^g softplus(x), weighted: the sum of a block, or the gradient of its elements.

    Elements of (N, R, K) `logits` in a row; `labels`, `row_weights` and `grad_own` are (N, R),
    `other` and `background` (N, K), `gammas` (K,), `grad_rest` a scalar.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < numel
    row, column = index // NUM_CLASSES, index % NUM_CLASSES
    x = tl.load(logits + index, mask=inside, other=0.0).to(tl.float32)
    label = tl.load(labels + row, mask=inside, other=-1)
    weight = tl.load(row_weights + row, mask=inside, other=0.0)
    if HAS_TABLES:
        place = (index // image_size) * NUM_CLASSES + column
        positive_row = (label >= 0) & (label < NUM_CLASSES)
        of_other = tl.load(other + place, mask=inside, other=0.0)
        of_background = tl.load(background + place, mask=inside, other=0.0)
        weight = weight * tl.where(positive_row, of_other, of_background)
    g = gamma
    if GAMMA_TABLE:
        g = tl.load(gammas + column, mask=inside, other=0.0)
    softplus, log_p, p, q = _softplus_and_sigmoid(x)
    modulation = tl.where(g == 0, 1.0, tl.exp(g * log_p))  # p^g
    own = label == column
    counts = inside & (label >= 0) & (label != column)
    if GRADIENT:
        slope = p * modulation
        if not DETACHED:
            slope = (g * q * softplus + p) * modulation
        slope = tl.where(counts, slope * weight, 0.0) * tl.load(grad_rest)
        slope = tl.where(own & inside, tl.load(grad_own + row, mask=inside, other=0.0), slope)
        tl.store(out + index, slope.to(out.dtype.element_ty), mask=inside)
    else:
        value = tl.where(counts, softplus * modulation * weight, 0.0)
        tl.store(out + tl.program_id(0), tl.sum(value, axis=0))
