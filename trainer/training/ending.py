"""Which checkpoint counts at a run's end, and how good it is on the split that has chosen nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from maskfleet.child_processes import report_line
from maskfleet.errors import BadData
from maskfleet.records import FinalScores, SplitScores
from trainer.checkpoints.averaging import averaged_weights
from trainer.data.source import Split
from trainer.objective.metrics import Scores
from trainer.results.evaluation import BATCH, whole_matrix
from trainer.results.own_size import predictions_at_own_size
from trainer.results.predict import Predictor, network_of
from trainer.training.collectives import broadcast_from_chief, make_sum_over_workers, value_of_chief
from trainer.training.loop import validate
from trainer.training.state import Training
from trainer.training.steps import make_evaluation_function
from trainer.training.summaries import Validation, facts_of


def settle(training: Training, last: Validation, judges: Split) -> FinalScores:
    """Leaves the checkpoint that counts in the network, on all workers, and scores it.

    With a validation split that is the best by it, and the test split is scored now, for the first time. Without one it
    is the last, as choosing on the test split would make its score too good.

    Args:
        last: of the state that training ended with.
        judges: the split that says how good the result is, as it lies.
    """
    config, dataset, state = training.config, training.dataset, training.state
    ended = int(state.step.numpy())
    chosen_on = dataset.chooser if config.patience else None
    if dataset.validation is not None and _restore_best(training):
        chosen_on = "validation"
    step = int(state.step.numpy())
    result, add_up = last, make_sum_over_workers(training)
    if step != ended or dataset.judge != dataset.chooser:
        result = validate(training, make_evaluation_function(training), add_up, split=dataset.judge)
    count, epoch = len(dataset.judges.pictures), training.plan.epoch(step)
    final = FinalScores(dataset.judge, count, chosen_on, step, epoch, result.loss)
    own = _at_own_size(training, judges, add_up)
    if own is None:
        return replace(final, **facts_of(result.scores))
    at_network_size = SplitScores(**facts_of(result.scores))
    return replace(final, **facts_of(own), size="own", at_network_size=at_network_size)


def _at_own_size(
    training: Training, split: Split, add_up: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Scores | None:
    """Scores over ``split``, counted as ``trainer evaluate`` does; every worker sees its share, and all get the result.

    None where an image can't be read any more: a long training is not lost for that.
    """
    dataset, peers, model = training.dataset, training.peers, training.network.model
    classes = len(dataset.classes)
    config = training.config
    predictor = Predictor.fitted(config.fit, network_of(model), config.image_size, classes, batch_size=BATCH)
    totals = np.zeros(1 + classes * classes)
    try:
        with averaged_weights(model, training.optimizer):
            for truth, found, _ in predictions_at_own_size(predictor, split, peers.rank, peers.workers):
                totals[1:] += whole_matrix(truth, found, classes).ravel()
                training.heartbeat()
    except BadData as error:
        totals[0] = 1
        report_line(f"the final scores are at the network's input size alone: {error}")
    totals = add_up(totals)
    if totals[0]:
        return None
    background = None if dataset.background is None else dataset.classes[dataset.background]
    return Scores(totals[1:].reshape(classes, classes).astype(np.int64), dataset.classes, background)


def _restore_best(training: Training) -> bool:
    """Whether all workers have the state of the best validation now; else they keep what they have."""
    found = False
    if training.checkpoints is not None:
        best = float(training.state.best.numpy())
        problem = training.checkpoints.restore_best(best)
        found = problem is None
        if problem is not None:
            report_line(f"the last checkpoint counts, and not the best by {training.config.best_by}: {problem}")
    if not value_of_chief(int(found), training.peers, training.strategy):
        return False
    variables = [variable.value for variable in (*training.network.model.variables, *training.optimizer.variables)]
    broadcast_from_chief(training.strategy, [*variables, *training.state.variables], is_chief=training.peers.is_chief)
    return True
