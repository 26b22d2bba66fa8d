"""The optimizers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from maskfleet.config import TrainConfig


class _TwoRates:
    """Mixin for a Keras optimizer: trains ``slow`` variables with a share of the learning rate, and of its decay.

    "Discriminative fine-tuning", Howard and Ruder, ACL 2018, with two groups: what is trained already shall
    move less than what begins at random.
    """

    slow: frozenset[str] = frozenset()
    share = 1.0

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """They come as the sum over the replicas: a norm, and whether all are finite, is a question to that sum."""
        return grads_and_vars

    def _backend_update_step(self, gradients: Any, variables: Any, learning_rate: tf.Tensor) -> None:
        # Once a step instead of once for each variable: there are hundreds to trace.
        self._rates = {False: learning_rate, True: learning_rate * self.share}
        self._decays = {slow: (self.weight_decay or 0.0) * rate for slow, rate in self._rates.items()}  # type: ignore[attr-defined]
        super()._backend_update_step(gradients, variables, learning_rate)  # type: ignore[misc]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        slow = self._var_key(variable) in self.slow  # type: ignore[attr-defined]
        if self.weight_decay and self._use_weight_decay(variable):  # type: ignore[attr-defined]
            variable.assign_sub(variable * self._decays[slow])
        super().update_step(gradient, variable, self._rates[slow])  # type: ignore[misc]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Keras decays all variables by one rate before their steps; here each decays in its own step, by its own."""


class _FusedAdam:
    """Mixin for Keras's Adam: the same formula in TensorFlow's one kernel, which passes over a variable once.

    Keras writes it as a dozen operations, each of which reads and writes all of a variable: a fifth of a training
    step of four images on a CPU.
    """

    def _backend_update_step(self: Any, gradients: Any, variables: Any, learning_rate: tf.Tensor) -> None:
        step = tf.cast(self.iterations + 1, tf.float32)
        beta1, beta2 = tf.constant(self.beta_1), tf.constant(self.beta_2)
        self._same_for_all = {
            "beta1": beta1,
            "beta2": beta2,
            "beta1_power": tf.pow(beta1, step),
            "beta2_power": tf.pow(beta2, step),
            "epsilon": tf.constant(self.epsilon),
        }
        super()._backend_update_step(gradients, variables, learning_rate)  # type: ignore[misc]

    def update_step(self: Any, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            lr=learning_rate,
            grad=tf.cast(gradient, tf.float32),
            **self._same_for_all,
        )


class _Adam(_TwoRates, _FusedAdam, keras.optimizers.Adam):
    pass


class _AdamW(_TwoRates, _FusedAdam, keras.optimizers.AdamW):
    pass


class _SGD(_TwoRates, keras.optimizers.SGD):
    pass


def build_optimizer(
    config: TrainConfig,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    encoder: keras.Model | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer that ``config`` asks for; it reads ``schedule`` at its own ``iterations``.

    With ``ema_decay`` it keeps the averages that :mod:`trainer.checkpoints.averaging` gives out. With ``precision``
    float16 it scales the loss: differentiate ``optimizer.scale_loss(loss)``, which is the loss itself for the
    other precisions.

    Args:
        encoder: unless it begins at random, it is trained with ``config.encoder_learning_rate`` of the rate.
    """
    # The norm is of what is applied: unscaled, and added up over the replicas (Pascanu et al., ICML 2013).
    same = {"use_ema": config.ema_decay > 0, "ema_momentum": config.ema_decay, "global_clipnorm": config.clip_norm}
    optimizer: keras.optimizers.Optimizer
    match config.optimizer:
        case "adam":
            optimizer = _Adam(schedule, name="adam", **same)
        case "adamw":
            optimizer = _AdamW(schedule, weight_decay=config.weight_decay, name="adamw", **same)
            # Loshchilov, Hutter, ICLR 2019; biases and norms are not what decay is to keep small.
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        case "sgd":
            optimizer = _SGD(schedule, momentum=config.momentum, name="sgd", **same)
    if encoder is not None and config.encoder_is_trained:
        optimizer.slow = frozenset(optimizer._var_key(variable) for variable in encoder.trainable_variables)
        optimizer.share = config.encoder_learning_rate
    if config.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
