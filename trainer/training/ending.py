"""Which checkpoint counts at a run's end, and how good it is on the split that has chosen nothing."""

from __future__ import annotations

from dataclasses import replace

from maskfleet.child_processes import report_line
from maskfleet.records import FinalScores
from trainer.training.collectives import broadcast_from_chief, make_sum_over_workers, value_of_chief
from trainer.training.loop import validate
from trainer.training.state import Training
from trainer.training.steps import make_evaluation_function
from trainer.training.summaries import Validation, facts_of


def settle(training: Training, last: Validation) -> FinalScores:
    """Leaves the checkpoint that counts in the network, on all workers, and scores it.

    With a validation split that is the best by it, and the test split is scored now, for the first time. Without one it
    is the last, as choosing on the test split would make its score too good.

    Args:
        last: of the state that training ended with.
    """
    config, dataset, state = training.config, training.dataset, training.state
    ended = int(state.step.numpy())
    chosen_on = dataset.chooser if config.patience else None
    if dataset.validation is not None and _restore_best(training):
        chosen_on = "validation"
    step = int(state.step.numpy())
    result = last
    if step != ended or dataset.judge != dataset.chooser:
        functions = make_evaluation_function(training), make_sum_over_workers(training)
        result = validate(training, *functions, split=dataset.judge)
    return replace(
        FinalScores(dataset.judge, len(dataset.judges), chosen_on, step, training.plan.epoch(step), result.loss),
        **facts_of(result.scores),
    )


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
