"""Decide by names whether lists of numbers are the history of a training, or data.

`{"loss": [...], "val_loss": [...]}` is a history; `{"y_true": [...], "y_pred": [...]}` are predictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_METRICS = """
loss losses acc accuracy auc auroc auprc roc ap map f1 fbeta precision recall specificity sensitivity mse mae rmse
rmsle mape smape msle r2 rsquared error err merror logloss mlogloss multiclass crossentropy entropy xent perplexity
ppl bleu rouge meteor wer cer iou miou dice jaccard ndcg mrr hinge kappa mcc brier nll elbo kl kld score scores
metric lr reward rewards return returns fid psnr ssim gini pinball quantile poisson tweedie l1 l2 huber cindex norm
top1 top5
"""
#: The endings of words that contain the name of a metric, such as `trainloss`.
_ENDINGS = ("loss", "acc", "accuracy", "score", "error")
_DATA = """
true pred preds prediction predictions predicted target targets label labels truth actual expected y x yhat id ids
index idx feature features input inputs output outputs weight weights coef coefs importance importances residual
residuals proba probas prob probs probability probabilities threshold thresholds timestamp timestamps date sample
samples
"""
#: Names of the whole history, or of the dataset that was measured.
_WHOLES = """
history log logs curve curves evals eval result results metrics train training learn valid validation val test dev
holdout fold
"""
_OF_METRICS, _OF_DATA, _OF_WHOLES = (frozenset(words.split()) for words in (_METRICS, _DATA, _WHOLES))
_BETWEEN_WORDS = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")


def name_rounds(names: Iterable[str], around: str = "") -> bool:
    """Whether lists with these names are a training history: at least one name is a metric, and none is data.

    Args:
        names: of the lists.
        around: the name of the structure around them; `validation_0` and `history` count like the name of a metric.

    >>> name_rounds(["loss", "seconds"]), name_rounds(["y_true", "y_pred"]), name_rounds(["custom"], "validation_0")
    (True, False, True)
    """
    metric = not _OF_WHOLES.isdisjoint(_words(around))
    for words in map(_words, names):
        if words & _OF_METRICS or any(word.endswith(_ENDINGS) for word in words):
            metric = True
        elif words & _OF_DATA:
            return False
    return metric


def _words(name: str) -> set[str]:
    return {word.lower() for word in _BETWEEN_WORDS.split(name) if word}
