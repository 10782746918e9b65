"""The MULAN Yeast benchmark: a real multi-label set of features that needs no images and no download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from fairpo_trl.classification.data.split import MultiLabelSplit


_TEST_ROWS = 917


def load_yeast() -> dict[str, MultiLabelSplit]:
    """
    Loads MULAN Yeast (Elisseeff and Weston, 2002): 2,417 genes, 103 features, 14 functional classes.

    The data are a file of the package `river`, which is not imported. The split is the published one, 1,500 for
    `"train"` and 917 for `"test"`; in this file, as in MULAN's own `yeast.arff`, the test rows come **first**. Ids are
    `gene-0000` to `gene-2416` in the order of the file, and labels are `Class1` to `Class14`.

    Returns:
        `dict[str, MultiLabelSplit]`: `"train"` and `"test"`, with float32 features and no images.

    Raises:
        FileNotFoundError: If river or its file is not there; names the command that installs it.
        ValueError: If the file has other rows or columns.
    """
    spec = importlib.util.find_spec("river")  # finds a package without importing it or what it depends on
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = next((p for p in (Path(f) / "datasets" / "yeast.csv.gz" for f in folders) if p.is_file()), None)
    if path is None:
        raise FileNotFoundError("Yeast is read from the package river: pip install --no-deps river==0.26.1")
    table = pd.read_csv(path)
    attributes, classes = [f"Att{i}" for i in range(1, 104)], [f"Class{i}" for i in range(1, 15)]
    if list(table.columns) != attributes + classes or len(table) != 2417:
        raise ValueError(
            f"{path.name} has {len(table)} rows and {len(table.columns)} columns instead of 2417 and 117 (Att1-Att103,"
            " Class1-Class14): pip install --no-deps river==0.26.1"
        )
    whole = MultiLabelSplit(
        name="train",
        label_names=tuple(classes),
        labels=table[classes].to_numpy(),
        ids=tuple(f"gene-{row:04d}" for row in range(len(table))),
        features=table[attributes].to_numpy(dtype=np.float32),
    )
    return {
        "train": whole.select(np.arange(_TEST_ROWS, len(whole))),
        "test": whole.select(np.arange(_TEST_ROWS), name="test"),
    }
