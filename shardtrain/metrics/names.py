"""Name the metrics that a training can be chosen by, without importing what computes them."""

from __future__ import annotations

# Whether the higher value is the better one; "accuracy" and "loss" are those that the model was compiled with.
HIGHER_IS_BETTER = {
    "accuracy": True,
    "loss": False,
    "macro_f1": True,
    "weighted_f1": True,
    "micro_f1": True,
    "macro_precision": True,
    "macro_recall": True,
    "balanced_accuracy": True,
    "matthews": True,
    "log_loss": False,
    "calibration_error": False,
    "macro_roc_auc": True,
    "macro_average_precision": True,
    "top_2_accuracy": True,
    "top_3_accuracy": True,
    "top_4_accuracy": True,
    "top_5_accuracy": True,
}
COMPILED = ("accuracy", "loss")  # that need no sums of probabilities
RANKED = frozenset({"macro_roc_auc", "macro_average_precision"})  # that need the order of all probabilities
MEASURES = tuple(HIGHER_IS_BETTER)
MAX_MATRIX = 1000  # classes of a confusion matrix, which then takes 8 MB, and of rankings


def least_classes(name: str) -> int:
    """Return of how many classes a metric needs at least: a top-k accuracy is for more than k."""
    return int(name.split("_")[1]) + 1 if name.startswith("top_") else 2


def suited(name: str, num_classes: int) -> str:
    """Return for how many classes a metric is, in words, if it is not for as many as these; else nothing."""
    if num_classes < least_classes(name):
        return f"at least {least_classes(name)}"
    return f"at most {MAX_MATRIX:,}" if name in RANKED and num_classes > MAX_MATRIX else ""
