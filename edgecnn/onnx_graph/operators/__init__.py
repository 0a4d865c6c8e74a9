"""ONNX's operators that image classifiers are made of, each as torch computes it: one entry of `OPERATORS` each."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F

from edgecnn.onnx_graph.operators import elementwise, layers, shapes, windows
from edgecnn.onnx_graph.operators.inputs import Operator

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Operator] = {
    "Abs": elementwise.elementwise(torch.abs),
    "Add": elementwise.arithmetic(operator.add),
    "AveragePool": windows.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": elementwise.cast,
    "Clip": elementwise.clip,
    "Concat": shapes.concat,
    "Conv": layers.convolution,
    "Div": elementwise.arithmetic(operator.truediv),
    "Dropout": elementwise.dropout,
    "Elu": elementwise.activation(F.elu, alpha=1.0),
    "Erf": elementwise.elementwise(torch.erf),
    "Exp": elementwise.elementwise(torch.exp),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Gelu": elementwise.gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": windows.global_average,
    "GlobalMaxPool": windows.global_max,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.elementwise(F.hardswish),
    "Identity": elementwise.same,
    "InstanceNormalization": layers.instance_norm,
    "LRN": layers.local_response_norm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": elementwise.activation(F.leaky_relu, alpha=0.01),
    "Log": elementwise.elementwise(torch.log),
    "LogSoftmax": elementwise.softmax(F.log_softmax),
    "MatMul": layers.matmul,
    "Max": elementwise.extreme(torch.maximum, "min"),
    "MaxPool": windows.max_pool,
    "Min": elementwise.extreme(torch.minimum, "max"),
    "Mish": elementwise.elementwise(F.mish),
    "Mul": elementwise.arithmetic(operator.mul),
    "Neg": elementwise.elementwise(torch.neg),
    "PRelu": layers.prelu,
    "Pad": windows.pad,
    "Pow": elementwise.arithmetic(operator.pow),
    "Reciprocal": elementwise.elementwise(torch.reciprocal),
    "ReduceMax": elementwise.reduction(torch.amax),
    "ReduceMean": elementwise.reduction(torch.mean),
    "ReduceMin": elementwise.reduction(torch.amin),
    "ReduceSum": elementwise.reduction(torch.sum),
    "Relu": elementwise.elementwise(F.relu),
    "Reshape": shapes.reshape,
    "Resize": windows.resize,
    "Sigmoid": elementwise.elementwise(torch.sigmoid),
    "Slice": shapes.sliced,
    "Softmax": elementwise.softmax(F.softmax),
    "Softplus": elementwise.elementwise(F.softplus),
    "Split": shapes.split,
    "Sqrt": elementwise.elementwise(torch.sqrt),
    "Squeeze": shapes.squeeze,
    "Sub": elementwise.arithmetic(operator.sub),
    "Sum": elementwise.arithmetic(operator.add),
    "Tanh": elementwise.elementwise(torch.tanh),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
    "Upsample": windows.resize,
}
"""ONNX's name to what builds it."""
