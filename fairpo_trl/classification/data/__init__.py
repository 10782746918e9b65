"""Multi-label data: one split, and the loaders of COCO 2014, NUS-WIDE, tables, datasets and feature folders."""

from fairpo_trl.classification.data.split import ImageSource, MultiLabelSplit, check_splits, print_data_summary


__all__ = ["ImageSource", "MultiLabelSplit", "check_splits", "print_data_summary"]
