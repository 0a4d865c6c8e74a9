"""What one image costs a network: parameters and multiply-accumulates, with what the count leaves out."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import nn

from edgecnn.artifact import Cost

_COUNTED = {"conv", "linear", "matmul", "addmm", "bmm", "einsum"}
"""fvcore's names. Its totals hold normalisation and pooling too: those are no multiply-accumulates of this count."""
_CHEAP = {
    "abs", "add", "add_", "adaptive_avg_pool2d", "avg_pool2d", "clamp", "clamp_", "constant_pad_nd", "cumsum", "div",
    "div_", "dropout", "dropout_", "elu", "exp", "feature_dropout", "gelu", "hardsigmoid", "hardsigmoid_", "hardswish",
    "hardswish_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "max_pool2d", "mean", "mish", "mul", "mul_",
    "neg", "norm", "pad", "pow", "prelu", "relu6", "relu6_", "rsqrt", "rsub", "sigmoid", "sigmoid_", "silu", "silu_",
    "softmax", "softplus", "sqrt", "square", "std", "sub", "sub_", "sum", "tanh", "tanh_", "var", "linalg_vector_norm",
    "fill_", "zeros", "ones", "ones_like", "zeros_like", "arange", "index", "gather", "eq", "ne", "lt", "gt", "le",
    "ge", "max", "min", "maximum", "minimum", "masked_fill", "masked_fill_", "repeat", "expand", "roll", "floor_divide",
    "remainder", "floor", "ceil", "log", "meshgrid", "pixel_shuffle", "pixel_unshuffle", "layer_norm", "group_norm",
    "where", "clone", "copy_", "bitwise_not", "clamp_min", "clamp_max", "sin", "cos", "expand_as",
    "bernoulli_", "amax", "amin", "normalize", "lift_fresh",
}  # fmt: skip
"""One operation an element at most: elementwise, reducing or moving. Any other that fvcore does not count is listed."""


def measure_cost(module: nn.Module, height: int, width: int) -> Cost:
    """Parameters, and the multiply-accumulates of convolutions, linear layers and matrix products for one image.

    `module` takes float32 (1, 3, height, width). Counted by fvcore on a trace. Fused attention is not counted and is
    listed in `uncounted`, as is any operation that is not known to be cheap.
    """
    parameter = next(module.parameters())
    images = torch.zeros(1, 3, height, width, dtype=parameter.dtype, device=parameter.device)
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    training, level = module.training, logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # fvcore's import and the tracer's: the trace is thrown away
            from fvcore.nn import FlopCountAnalysis

            analysis = FlopCountAnalysis(module.eval(), images)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            counts = analysis.by_operator()
            uncounted = analysis.unsupported_ops()
    finally:
        module.train(training)
        logger.setLevel(level)
    names = {operation.removeprefix("aten::") for operation in uncounted if not operation.startswith("prim::")}
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=int(sum(count for name, count in counts.items() if name in _COUNTED)),
        uncounted=tuple(sorted(names - _CHEAP)),
    )
