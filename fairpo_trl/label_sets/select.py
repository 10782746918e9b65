"""The promise, tested, of a model that writes label sets: the boldest scale of its adapter that is not worse.

F1 is no mean over items, so its bound is a bootstrap percentile over items. A candidate that loses few items wholly
would pass it too often, since many samples would not show one. So, as in the other bounds, one lost example is added
first: an item that the reference writes rightly and the candidate leaves empty (`benchmarks/label_set_level.py`).
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.classification.metrics.held_precision import HeldBy, testable_columns
from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation.models import LoadedModels, ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Step, copy_model, scaled_path
from fairpo_trl.evaluation.selection import SCALES, Candidate, Held, Resampled, assess, select_in_order
from fairpo_trl.evaluation.statement import LABEL_SETS, statement
from fairpo_trl.label_sets.decoding import write_sets
from fairpo_trl.label_sets.items import LabelledTexts
from fairpo_trl.label_sets.measures import ratio, resample_items
from fairpo_trl.label_sets.reader import Vocabulary
from fairpo_trl.reporting.selection_results import SelectionResults
from fairpo_trl.reporting.writers import write_selection


GROUP = "F1 of held labels"
"""What the F1 over all entries of the held labels is called."""

LEAST_ITEMS = 2
"""Fewer items with a label show nothing of it."""

Matrix: TypeAlias = NDArray[np.bool_]


class HeldSets:
    """
    Candidates against one reference, on the same items; all numbers are points of F1.

    Args:
        labels (`np.ndarray`):
            `[N, T]`: the true sets, 0 and 1.
        reference (`np.ndarray`):
            `[N, T]`: what the reference wrote; a malformed text is an empty set.
        partition ([`~fairpo_trl.Partition`]):
            Its names are the labels; F1 over all entries of the privileged ones is the gain.
        held (`str`, *optional*, defaults to `"mean"`):
            `labels`: every held label is a measure, and all must pass. `mean`: F1 over all their entries is the only
            one.
        margin (`float`, *optional*, defaults to `5.0`):
            Points that a measure may fall by.
        resamples (`int`, *optional*, defaults to `2000`):
            Of the bootstrap over items.
        seed (`int`, *optional*, defaults to `0`):
            Of the bootstrap.

    Raises:
        ValueError: If nothing can be measured of the privileged or of the held labels.
    """

    def __init__(
        self,
        labels: NDArray[np.integer],
        reference: Matrix,
        partition: Partition,
        *,
        held: HeldBy = "mean",
        margin: float = 5.0,
        resamples: int = 2000,
        seed: int = 0,
    ) -> None:
        self._true, self._reference, self._margin = labels == 1, reference, margin
        columns, self.untested = _testable(self._true, partition)
        """Held labels of which nothing can be shown here."""
        self._gain = columns["privileged"]
        self._held = (
            {GROUP: columns["non_privileged"]}
            if held == "mean"
            else {partition.names[t]: [t] for t in columns["non_privileged"]}
        )
        self._weights = resample_items(len(labels), resamples, seed)
        self._added = resample_items(len(labels) + 1, resamples, seed)

    def candidate(self, name: str, predicted: Matrix) -> Candidate:
        """One candidate's gain and held measures, from what it wrote on the same items, `[N, T]`."""
        held = {
            measure: Held(self._change(predicted, columns, lost=True), self._margin, lowest=-100.0, highest=100.0)
            for measure, columns in self._held.items()
        }
        gain = self._change(predicted, self._gain, lost=False)
        return Candidate(name, gain, held, gain_lowest=None, gain_highest=None)

    def _change(self, predicted: Matrix, columns: Sequence[int], lost: bool) -> Resampled:
        """F1 of the candidate less that of the reference; with the lost item in the resamples, if asked for."""
        true = self._true[:, columns]
        some = int(true.any(axis=1).sum())
        typical = true.sum() / some  # labels of an item that has any
        drawn, value = [], []
        for written in (predicted, self._reference):
            own = written[:, columns]
            above, below = 2.0 * (own & true).sum(axis=1), 1.0 * own.sum(axis=1) + true.sum(axis=1)
            value.append(ratio(above.sum(), below.sum()))
            if lost:
                right = written is self._reference
                above, below = np.append(above, 2 * typical * right), np.append(below, typical * (1 + right))
            weights = self._added if lost else self._weights
            drawn.append(ratio(weights @ above, weights @ below))
        return Resampled(100 * float(value[0] - value[1]), 100 * (drawn[0] - drawn[1]), some)


def divide_items(items: LabelledTexts, partition: Partition, aside_share: float, seed: int) -> list[LabelledTexts]:
    """
    The items that decide, and those that report what is handed over; the latter only if `aside_share` is above 0.

    Raises:
        ValueError: If the privileged or the held labels are too rare in one of the two.
    """
    parts = [items]
    if aside_share:
        deciding = set(items.split.carve_validation(aside_share, seed=seed)[0].ids)
        decides = np.array([item in deciding for item in items.ids])
        parts = [items.select(decides), items.select(~decides)]
    for part in parts:
        _testable(part.split.labels == 1, partition)
    return parts


def select_label_sets(
    trained: ModelSource,
    reference: ModelSource,
    items: LabelledTexts,
    vocabulary: Vocabulary,
    partition: Partition,
    output: Path,
    *,
    held: HeldBy = "mean",
    margin: float = 5.0,
    level: float = 0.05,
    scales: Sequence[float] = SCALES,
    aside_share: float = 0.3,
    seed: int = 0,
    max_new_tokens: int = 32,
    title: str = "items",
    command: str = "",
) -> SelectionResults:
    """
    Tests an adapter's scales, writes `selection.json`, its report and picture, and saves the chosen adapter.

    Sets are written greedily. Candidates come from the safest, testing stops at the first that fails (fixed-sequence
    test), and if every held label is a measure all must pass (intersection-union test): no further correction is due.

    Args:
        trained ([`~fairpo_trl.evaluation.models.ModelSource`]):
            The adapter, or a full model trained from the reference.
        reference ([`~fairpo_trl.evaluation.models.ModelSource`]):
            What it was trained from.
        items ([`LabelledTexts`]):
            Items that neither model was trained on.
        vocabulary ([`Vocabulary`]):
            Reads what is written.
        partition ([`~fairpo_trl.Partition`]):
            Who should have gained, and who is held.
        output (`Path`):
            Folder of the results; the chosen adapter is in `chosen` there, a plain PEFT folder.
        held, margin (`str`, `float`):
            See [`HeldSets`].
        level, scales, aside_share, seed:
            As in [`~fairpo_trl.classification.select.ClassifierTest`], over items.
        max_new_tokens (`int`, *optional*, defaults to `32`):
            Length limit of a set.
        title, command (`str`, *optional*):
            Name of the data and the command line, for the report.

    Returns:
        [`~fairpo_trl.reporting.selection_results.SelectionResults`]

    Raises:
        ValueError: If the scales do not rise, the adapter cannot be scaled, or nothing can be tested.
    """
    started, models = time.time(), LoadedModels()
    steps = {step.name: step for step in scaled_path(trained, reference, scales, output / "candidates")}
    parts = divide_items(items, partition, aside_share, seed)

    def written(source: ModelSource) -> list[Matrix]:
        """What a model writes for the items that decide, and for the others."""
        prompts = [prompt for part in parts for prompt in part.prompts]
        with models.open(source) as model:
            sets = write_sets(
                model, load_tokenizer(source), prompts, vocabulary, max_new_tokens=max_new_tokens,
                batch_size=32, desc=f"Sets of {source.name}",
            )  # fmt: skip
        whole = vocabulary.matrix([row[0] for row in sets])
        return np.split(whole, np.cumsum([len(part) for part in parts])[:-1])

    tests = [
        HeldSets(part.split.labels, found, partition, held=held, margin=margin, seed=seed)
        for part, found in zip(parts, written(reference), strict=True)
    ]
    kept: dict[str, tuple[ModelSource, list[Matrix]]] = {}  # of every candidate that wrote

    def measure(step: Step) -> Candidate:
        source = step.make()
        assert isinstance(source, ModelSource)
        sets = written(source)
        kept[step.name] = source, sets
        return tests[0].candidate(step.name, sets[0])

    how: dict[str, Any] = {"level": level, "bound": "bootstrap", "seed": seed}
    measures = [functools.partial(measure, step) for step in steps.values()]
    selection = select_in_order(measures, **how)
    models.close()
    on_others = None
    if selection.chosen is not None and len(parts) > 1:
        on_others = assess(tests[1].candidate(selection.chosen, kept[selection.chosen][1][1]), **how)
    results = SelectionResults(
        kind="label-set writer",
        model=f"adapter of {title}" if trained.base else f"model of {title}",
        reference="its reference",
        data=f"{len(parts[0])} items of {title}",
        selection=selection,
        statement=statement(selection, on_others, LABEL_SETS, untested=tests[0].untested),
        scales={test.name: float(steps[test.name].scale or 0) for test in selection.candidates},
        test=on_others,
        privileged=list(partition.privileged),
        judges={GROUP if held == "mean" else "each held label": "F1 of the written sets, bootstrap over items"},
        settings={
            "items": len(parts[0]),
            "items set aside": len(items) - len(parts[0]),
            "held": held,
            "seed": seed,
        },
        seconds=time.time() - started,
        command=command,
    )
    write_selection(results, output, lambda folder: copy_model(kept[str(selection.chosen)][0], folder))
    shutil.rmtree(output / "candidates", ignore_errors=True)
    return results


def _testable(true: Matrix, partition: Partition) -> tuple[dict[str, list[int]], list[str]]:
    """The columns of the labels of each role that stand in enough items, and the held labels that do not."""
    lacking = (
        f"stands in {LEAST_ITEMS} of {len(true)} items: nothing can be tested. Give more items, or set fewer of them "
        "aside (`aside_share`)."
    )
    return testable_columns(partition, true.sum(axis=0) >= LEAST_ITEMS, lacking)
