"""Triton's kernels: a layer's normalisation, activation and shortcut in one, and the update in one.

They load numbers of any dtype, compute in fp32, and round once, when they store. (The interpreter
of Triton 3.7.1, in which they are tested without a GPU, computes wrongly in bf16.) Importing this
file needs Triton, and the first launch a C compiler; fused.py says when they are used.

A stack has K replicas of n_rows rows each, whose groups of `group` rows follow each other. The
parameters of replica k begin at k * n_params.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from irnet_hpc.models.normalisation import EPSILON

# Rows that are added (K, n_rows, width), and their bias (K, width).
Shortcut = tuple[Tensor | None, Tensor | None]

# Numbers that a program holds at once: of the rows of a group, of the parameters in an update, and
# of the sums of groups.
TILE, UPDATE_BLOCK, SUM_COLUMNS, SUM_GROUPS = 4096, 1024, 64, 32
# Programs that keep a large GPU busy (two for each of 132 multiprocessors); with fewer, each takes
# fewer columns.
BUSY = 264
# Adam's, as in torch.
BETAS, DIVISOR_EPSILON = (0.9, 0.999), 1e-8


@triton.jit
def normalise_forward(
    z,  # (K, n_rows, width), the products
    shortcut,  # (K, n_rows, width)
    weight,
    bias,
    shortcut_bias,
    y,  # (K, n_rows, width)
    means,  # (K * n_groups, width)
    rstds,  # (K * n_groups, width), 1 / standard deviations
    width,
    n_params,
    group,
    n_groups,  # of a replica
    slope,
    epsilon,
    ACTIVATES: tl.constexpr,
    HAS_SHORTCUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Normalise a group of rows, then ReLU, then add the shortcut."""
    n_blocks = tl.cdiv(width, COLUMNS)
    at_group = tl.program_id(0) // n_blocks
    columns = (tl.program_id(0) % n_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = columns < width
    own = (at_group // n_groups).to(tl.int64) * n_params + columns
    first = at_group.to(tl.int64) * group
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, group, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_in = (rows < group)[:, None] & is_column[None, :]
        at = (first + rows)[:, None] * width + columns[None, :]
        total += tl.sum(tl.load(z + at, mask=is_in, other=0.0).to(tl.float32), 0)
    mean = total / group
    # Centred before they are squared, for features with a large mean; and the rounding of the mean
    # is taken off.
    rest = tl.zeros((COLUMNS,), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, group, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_in = (rows < group)[:, None] & is_column[None, :]
        at = (first + rows)[:, None] * width + columns[None, :]
        v = tl.load(z + at, mask=is_in, other=0.0).to(tl.float32)
        v = tl.where(is_in, v - mean[None, :], 0.0)
        rest += tl.sum(v, 0)
        squares += tl.sum(v * v, 0)
    rest = rest / group
    mean += rest
    rstd = 1.0 / tl.sqrt(tl.maximum(squares / group - rest * rest, 0.0) + epsilon)
    at_statistics = at_group.to(tl.int64) * width + columns
    tl.store(means + at_statistics, mean, mask=is_column)
    tl.store(rstds + at_statistics, rstd, mask=is_column)
    scale = tl.load(weight + own, mask=is_column, other=0.0).to(tl.float32) * rstd
    shift = tl.load(bias + own, mask=is_column, other=0.0).to(tl.float32)
    if HAS_BIAS:
        more = tl.load(shortcut_bias + own, mask=is_column, other=0.0).to(tl.float32)
    for start in range(0, group, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_in = (rows < group)[:, None] & is_column[None, :]
        at = (first + rows)[:, None] * width + columns[None, :]
        v = tl.load(z + at, mask=is_in, other=0.0).to(tl.float32)
        v = (v - mean[None, :]) * scale[None, :] + shift[None, :]
        if ACTIVATES:
            v = tl.where(v > 0, v, v * slope)
        if HAS_SHORTCUT:
            v += tl.load(shortcut + at, mask=is_in, other=0.0).to(tl.float32)
        if HAS_BIAS:
            v += more[None, :]
        tl.store(y + at, v.to(y.dtype.element_ty), mask=is_in)


@triton.jit
def normalise_backward(
    grad,  # (K, n_rows, width), of y
    z,
    weight,
    bias,
    means,
    rstds,
    grad_z,  # (K, n_rows, width)
    sums,  # (n_groups of the batch, K, n_columns), see fused.GroupSums
    width,
    n_params,
    group,
    n_groups,
    slope,
    first_group,
    n_replicas,
    n_columns,
    column,
    ACTIVATES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute the gradient of z, and for each group those of weight, bias and shortcut's bias."""
    n_blocks = tl.cdiv(width, COLUMNS)
    at_group = tl.program_id(0) // n_blocks
    columns = (tl.program_id(0) % n_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = columns < width
    replica = at_group // n_groups
    own = replica.to(tl.int64) * n_params + columns
    first = at_group.to(tl.int64) * group
    at_statistics = at_group.to(tl.int64) * width + columns
    mean = tl.load(means + at_statistics, mask=is_column, other=0.0)
    rstd = tl.load(rstds + at_statistics, mask=is_column, other=0.0)
    scale = tl.load(weight + own, mask=is_column, other=0.0).to(tl.float32) * rstd
    shift = tl.load(bias + own, mask=is_column, other=0.0).to(tl.float32)
    sum_g = tl.zeros((COLUMNS,), tl.float32)
    sum_gx = tl.zeros((COLUMNS,), tl.float32)
    sum_all = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, group, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_in = (rows < group)[:, None] & is_column[None, :]
        at = (first + rows)[:, None] * width + columns[None, :]
        g = tl.load(grad + at, mask=is_in, other=0.0).to(tl.float32)
        centred = tl.load(z + at, mask=is_in, other=0.0).to(tl.float32) - mean[None, :]
        if HAS_BIAS:
            sum_all += tl.sum(g, 0)
        if ACTIVATES:
            g = tl.where(centred * scale[None, :] + shift[None, :] > 0, g, g * slope)
        sum_g += tl.sum(g, 0)
        sum_gx += tl.sum(g * centred, 0)
    sum_gx = sum_gx * rstd
    place = (first_group + at_group % n_groups).to(tl.int64) * n_replicas + replica
    to = sums + place * n_columns + column + columns
    tl.store(to, sum_gx, mask=is_column)
    tl.store(to + width, sum_g, mask=is_column)
    if HAS_BIAS:
        tl.store(to + 2 * width, sum_all, mask=is_column)
    mean_g = sum_g / group
    slant = rstd * (sum_gx / group)
    for start in range(0, group, ROWS):
        rows = start + tl.arange(0, ROWS)
        is_in = (rows < group)[:, None] & is_column[None, :]
        at = (first + rows)[:, None] * width + columns[None, :]
        g = tl.load(grad + at, mask=is_in, other=0.0).to(tl.float32)
        centred = tl.load(z + at, mask=is_in, other=0.0).to(tl.float32) - mean[None, :]
        if ACTIVATES:
            g = tl.where(centred * scale[None, :] + shift[None, :] > 0, g, g * slope)
        out = scale[None, :] * (g - mean_g[None, :] - centred * slant[None, :])
        tl.store(grad_z + at, out.to(grad_z.dtype.element_ty), mask=is_in)


@triton.jit
def add_groups(
    sums,  # (n_groups, K, n_columns)
    places,  # (n_columns,), where the gradient of each column lies among those of a replica
    gradients,  # (K, n_params)
    n_groups,
    n_columns,
    n_params,
    COLUMNS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Add the sums of groups up, always in the same order, and write them to their gradients."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = columns < n_columns
    replica = tl.program_id(1)
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, n_groups, GROUPS):
        groups = start + tl.arange(0, GROUPS)
        is_in = (groups < n_groups)[:, None] & is_column[None, :]
        row = groups.to(tl.int64) * tl.num_programs(1) + replica
        total += tl.sum(tl.load(sums + row[:, None] * n_columns + columns[None, :], is_in, 0.0), 0)
    place = tl.load(places + columns, mask=is_column, other=0)
    tl.store(gradients + replica.to(tl.int64) * n_params + place, total, mask=is_column)


@triton.jit
def update(
    values,  # (K, n_params)
    gradients,  # (K, n_params)
    average,  # (K, n_params)
    first_moment,  # (K, n_params - n_frozen)
    second_moment,
    narrow,  # (K, n_narrow)
    steps,  # (K,), of this step, from 1
    rates,  # (K,)
    decays,  # (K,)
    average_weights,  # (K,), the share of the new values in the average; 0 leaves it as it is
    n_params,
    n_frozen,
    n_narrow,
    beta_1,
    beta_2,
    epsilon,
    LOG_BETA_1: tl.constexpr,
    LOG_BETA_2: tl.constexpr,
    IS_ADAMW: tl.constexpr,
    HAS_NARROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update the values as torch's fused Adam or AdamW does, then their copy and their average."""
    replica = tl.program_id(1).to(tl.int64)
    at = n_frozen + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < n_params
    step = tl.load(steps + replica).to(tl.float64)
    correction_1 = 1.0 - tl.exp(step * tl.full((), LOG_BETA_1, tl.float64))
    correction_2 = 1.0 - tl.exp(step * tl.full((), LOG_BETA_2, tl.float64))
    rate = tl.load(rates + replica)
    decay = tl.load(decays + replica)
    own = replica * n_params + at
    moment = replica * (n_params - n_frozen) + at - n_frozen
    value = tl.load(values + own, mask=is_in, other=0.0)
    g = tl.load(gradients + own, mask=is_in, other=0.0)
    if IS_ADAMW:
        value -= rate * decay * value
    else:
        g += decay * value
    m = tl.load(first_moment + moment, mask=is_in, other=0.0)
    v = tl.load(second_moment + moment, mask=is_in, other=0.0)
    m = beta_1 * m + (1.0 - beta_1) * g
    v = beta_2 * v + (1.0 - beta_2) * g * g
    root = tl.sqrt(correction_2).to(tl.float32)
    value -= (rate / correction_1.to(tl.float32)) * m / (tl.sqrt(v) / root + epsilon)
    tl.store(values + own, value, mask=is_in)
    tl.store(first_moment + moment, m, mask=is_in)
    tl.store(second_moment + moment, v, mask=is_in)
    if HAS_NARROW:
        tl.store(narrow + replica * n_narrow + at, value.to(narrow.dtype.element_ty), mask=is_in)
    share = tl.load(average_weights + replica)
    if share > 0:
        mean = tl.load(average + own, mask=is_in, other=0.0)
        mean = tl.where(
            share < 0.5, mean + share * (value - mean), value - (value - mean) * (1 - share)
        )
        tl.store(average + own, mean, mask=is_in)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launch a kernel of this file."""
    kernel[grid](*arguments, **constants)


def forward(
    z: Tensor, norm: tuple[Tensor, Tensor], slope: float | None, shortcut: Shortcut, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise groups of rows of z, then ReLU, then add the shortcut.

    Args:
        z: (K, n_rows, width), contiguous.
        norm: weight and bias of the normalisation, (K, width) each.
        slope: of the leaky ReLU; None: no activation.
        shortcut: rows that are added at the end, (K, n_rows, width), and their bias (K, width);
            None for what there is not.
        group: rows of a group.

    Returns:
        The rows, and the means and 1 / standard deviations of the groups, (K * n_groups, width).
    """
    (k, n_rows, width), (weight, bias), (rows, rows_bias) = z.shape, norm, shortcut
    n_all = k * (n_rows // group)
    y = torch.empty_like(z)
    means, rstds = (weight.new_empty(n_all, width) for _ in range(2))
    shape = tile(group, width, n_all)
    launch(
        normalise_forward,
        (n_all * triton.cdiv(width, shape["COLUMNS"]),),
        *(z, rows, weight, bias, rows_bias, y, means, rstds),
        *(width, weight.stride(0), group, n_rows // group, slope or 0.0, EPSILON),
        ACTIVATES=slope is not None,
        HAS_SHORTCUT=rows is not None,
        HAS_BIAS=rows_bias is not None,
        **shape,
    )
    return y, means, rstds


def backward(
    grad: Tensor,
    z: Tensor,
    norm: tuple[Tensor, Tensor, Tensor, Tensor],
    slope: float | None,
    group: int,
    to: tuple[Tensor, int, int, bool],
) -> Tensor:
    """Return the gradient of z, and write sums over the rows of each group.

    Args:
        grad: (K, n_rows, width), of what `forward` returned, contiguous.
        z: (K, n_rows, width).
        norm: weight and bias (K, width), means and 1 / standard deviations as `forward` returns
            them.
        slope: as in `forward`.
        group: rows of a group.
        to: (n_groups of the batch, K, n_columns) float32, where the gradients of weight and bias
            are written, and that of the shortcut's bias; the first group and column; and whether
            the shortcut has a bias.
    """
    (k, n_rows, width), (weight, bias, means, rstds) = z.shape, norm
    sums, first_group, column, has_bias = to
    n_all = k * (n_rows // group)
    grad_z, shape = torch.empty_like(z), tile(group, width, n_all)
    launch(
        normalise_backward,
        (n_all * triton.cdiv(width, shape["COLUMNS"]),),
        *(grad, z, weight, bias, means, rstds, grad_z, sums),
        *(width, weight.stride(0), group, n_rows // group, slope or 0.0),
        *(first_group, k, sums.shape[-1], column),
        ACTIVATES=slope is not None,
        HAS_BIAS=has_bias,
        **shape,
    )
    return grad_z


def total(sums: Tensor, places: Tensor, gradients: Tensor) -> None:
    """Add sums of groups (n_groups, K, n_columns) up, and write them to `gradients` (K, n_params).

    `places` (n_columns,) says where the gradient of each column lies.
    """
    n_groups, k, n_columns = sums.shape
    launch(
        add_groups,
        (triton.cdiv(n_columns, SUM_COLUMNS), k),
        *(sums, places, gradients, n_groups, n_columns, gradients.stride(0)),
        COLUMNS=SUM_COLUMNS,
        GROUPS=SUM_GROUPS,
    )


def tile(group: int, width: int, n_groups: int) -> dict[str, int]:
    """Choose the rows and columns that a program holds at once, and its warps."""
    columns = 64 if n_groups * triton.cdiv(width, 64) >= BUSY else 16
    rows = max(16, min(TILE // columns, triton.next_power_of_2(group)))
    return {"ROWS": rows, "COLUMNS": columns, "num_warps": max(1, min(4, rows * columns // 512))}


def adam(
    flat: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor],
    narrow: Tensor | None,
    of_replicas: tuple[Tensor, Tensor, Tensor, Tensor],
    is_adamw: bool,
) -> None:
    """Take a step of Adam or AdamW; fused.fused_adam describes the arguments."""
    values, gradients, average = flat
    (k, n_params), n_trained = values.shape, moments[0].shape[1]
    assert values.is_contiguous() and gradients.stride(0) == average.stride(0) == n_params
    launch(
        update,
        (triton.cdiv(n_trained, UPDATE_BLOCK), k),
        *(values, gradients, average, *moments, narrow, *of_replicas),
        *(n_params, n_params - n_trained, 0 if narrow is None else narrow.stride(0)),
        *(*BETAS, DIVISOR_EPSILON),
        LOG_BETA_1=math.log(BETAS[0]),
        LOG_BETA_2=math.log(BETAS[1]),
        IS_ADAMW=is_adamw,
        HAS_NARROW=narrow is not None,
        BLOCK=UPDATE_BLOCK,
    )
