"""A page with the pictures whose masks look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskfleet.files import write_atomically
from maskfleet.out_setting import writing
from trainer.data.cache import Dataset
from trainer.results.evaluation import masker
from trainer.results.label_quality import Suspect
from trainer.results.report import example_of
from trainer.results.report_page import document, gallery, section
from trainer.results.trained import Trained


def write_label_report(suspects: Sequence[Suspect], trained: Trained, dataset: Dataset, out: Path) -> None:
    """Writes a self-contained HTML page: picture, mask, and what the network sees, of each of ``suspects``.

    Raises:
        BadSettings: ``out`` can't be written.
    """
    predict = masker(trained.model)
    examples = []
    for suspect in suspects:
        images, masks = dataset.seen_whole(suspect.split).read(slice(suspect.index, suspect.index + 1))
        found = predict(images)[0]
        examples.append(example_of(suspect.name, images[0], masks[0], found, suspect.score, trained.legend))
    note = "Picture, its mask, and what the network sees; the score of the mask, from 0 (wrong) to 1. Worst first."
    content = section("Masks", gallery(examples), note)
    with writing(out):
        write_atomically(out, document(f"masks of {dataset.name} that look wrong", content).encode())
