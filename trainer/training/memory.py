"""The memory that a training step takes on a GPU, by a dry run of its shapes: nothing is computed, no GPU is needed.

TensorFlow traces the step as it would to take it. Gone through in order, its operations say which tensors are there
together: the activations that wait for the backward pass, gradients, and what lives for a moment.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import DONE, MaskfleetError
from maskfleet.gpu_memory import StepMemory
from maskfleet.quiet import leave_out_warnings
from maskfleet.settings import Layer
from trainer.own_code import use_code
from trainer.training.batch_size import step_of

_SAME_MEMORY = frozenset(
    ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient", "CheckNumerics")
)
"""Operations whose output is their first input's memory."""
_MAY_REUSE = frozenset(
    (
        "Abs", "Add", "AddN", "AddV2", "BiasAdd", "Div", "DivNoNan", "Exp", "FusedBatchNormV3", "Log",
        "Maximum", "Minimum", "Mul", "MulNoNan", "Neg", "RealDiv", "Relu", "Relu6", "Relu6Grad", "ReluGrad",
        "Rsqrt", "SelectV2", "Sigmoid", "SigmoidGrad", "Softmax", "Sqrt", "Square", "SquaredDifference", "Sub", "Tanh",
        "TanhGrad",
    )
)  # fmt: skip
"""Operations that write over an input of the same size that nobody else reads any more."""
_ELSEWHERE = frozenset(("Const", "Placeholder", "ReadVariableOp"))
"""Operations that give what is there already."""


def memory_of(config: TrainConfig, batch: int, classes: int) -> StepMemory:
    """What a replica's step takes, ``batch`` examples at a time.

    Raises:
        MaskfleetError: there is no such network.
    """
    return memory_of_step(*step_of(config, classes), config, batch)


def memory_of_step(
    step: tf.types.experimental.PolymorphicFunction, variables: Sequence[tf.Variable], config: TrainConfig, batch: int
) -> StepMemory:
    """Of what :func:`~trainer.training.batch_size.step_of` has made."""
    kept = sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)
    if config.accumulate > 1:  # the gradients' sums
        kept += sum(4 * variable.shape.num_elements() for variable in variables if variable.trainable)
    shape = [batch, *config.image_size]
    images, masks = tf.TensorSpec([*shape, config.bands], tf.uint8), tf.TensorSpec(shape, tf.uint8)
    traced = step.get_concrete_function(images, masks)
    return StepMemory(batch, kept, _size(images) + _size(masks) + live_peak(traced.graph))


def live_peak(graph: tf.Graph) -> int:
    """Bytes of the tensors that are there together at most while a function's operations run one after another.

    Neither what they read from outside counts, nor what a kernel takes for itself.
    """
    needed = _needed(graph)
    operations = [operation for operation in graph.get_operations() if operation in needed]
    memory: dict[str, str] = {}  # of each tensor: the tensor that it was made for
    for operation in operations:
        for place, output in enumerate(operation.outputs):
            shared = operation.type in _SAME_MEMORY
            memory[output.name] = memory[operation.inputs[place].name] if shared else output.name
    readers = Counter(memory[tensor.name] for operation in operations for tensor in operation.inputs)
    sizes: dict[str, int] = {}  # of what is there now
    now = peak = 0
    for operation in operations:
        inputs = [memory[tensor.name] for tensor in operation.inputs]
        for output in operation.outputs:
            if memory[output.name] != output.name or operation.type in _ELSEWHERE:
                continue
            size = _size(output)
            last = [each for each in inputs if readers[each] == 1 and sizes.get(each) == size]
            if operation.type in _MAY_REUSE and last:
                now -= sizes.pop(last[0])
            sizes[output.name] = size
            now += size
        peak = max(peak, now)
        readers.subtract(inputs)
        for name in {*inputs, *(memory[output.name] for output in operation.outputs)}:
            if not readers[name]:
                now -= sizes.pop(name, 0)
    return peak


def _needed(graph: tf.Graph) -> set[tf.Operation]:
    """The operations that TensorFlow does not leave out: what gives the function's results, or has an effect."""
    needed: set[tf.Operation] = set()
    left = [*graph.control_outputs, *(tensor.op for tensor in graph.outputs)]
    while left:
        operation = left.pop()
        if operation not in needed:
            needed.add(operation)
            left += [*operation.control_inputs, *(tensor.op for tensor in operation.inputs)]
    return needed


def _size(tensor: tf.Tensor | tf.TensorSpec) -> int:
    """Bytes; 0 where the shape is not known before, or it is a handle."""
    return (tensor.shape.num_elements() or 0) * tensor.dtype.size if tensor.dtype != tf.resource else 0


def main(arguments: list[str]) -> int:
    """Takes settings as JSON from standard input, and prints a :class:`StepMemory` as JSON; returns the exit code.

    Args:
        arguments: the batch, and the number of classes.
    """
    batch, classes = map(int, arguments)
    leave_out_warnings()
    try:
        config = TrainConfig.resolve([Layer("{}", json.load(sys.stdin))])
        use_code(config.code)
        print(json.dumps(asdict(memory_of(config, batch, classes))))
    except MaskfleetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
