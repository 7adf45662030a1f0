"""The pipeline of `trackdsl demo`: it trains three classifiers of handwritten digits, and picks the best one.

Each decorated call becomes a run of its own, a child of the run it was called in:

    digits                the whole pipeline                    parameters, tags, the best model
    ├── load              @stage                              parameters
    ├── split             with stage(...)                     parameters, what was logged inside
    ├── sweep             with stage(...)
    │   ├── fit-linear    @stage("fit-{model}"), three times  parameters, loss by epoch, accuracy
    │   ├── fit-small-net
    │   └── fit-large-net
    └── evaluate          @stage                              metrics of the best model, report.json
"""

from __future__ import annotations

from typing import Annotated, Any

from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, classification_report, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from trackdsl import Metric, Model, experiment, log_dict, log_metrics, stage, steps, track_returns

CLASSES = list(range(10))


@stage
def load(pixels_as_fraction: bool = True) -> tuple[Any, Any]:
    """1,797 images of 8x8 pixels, which come with scikit-learn."""
    images, digits = load_digits(return_X_y=True)
    return (images / 16 if pixels_as_fraction else images), digits


def make(model: str, rate: float, seed: int) -> Any:
    """A classifier that learns epoch by epoch."""
    if model == "linear":
        return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=rate, random_state=seed)
    width = 16 if model == "small-net" else 64
    return MLPClassifier((width,), learning_rate_init=rate, random_state=seed)


@stage("fit-{model}")
@track_returns("classifier", "accuracy", metrics=["accuracy"], artifacts=[])
def fit(model: str, train: Any, test: Any, rate: float, epochs: int = 10, seed: int = 42) -> tuple[Any, float]:
    """Train one classifier; its loss is logged in every epoch."""
    classifier = make(model, rate, seed)
    for _ in steps(range(epochs), model):
        classifier.partial_fit(*train, classes=CLASSES)
        log_metrics(
            {
                "loss": log_loss(train[1], classifier.predict_proba(train[0]), labels=CLASSES),
                "test_accuracy": classifier.score(*test),
            }
        )
    return classifier, float(classifier.score(*test))


@stage
@track_returns
def evaluate(classifier: ClassifierMixin, test: Any) -> dict[str, float]:
    """The accuracy of a classifier on images that it has not seen; the returned values become metrics."""
    predicted = classifier.predict(test[0])
    report = classification_report(test[1], predicted, output_dict=True)
    log_dict(report, "report.json")
    return {"accuracy": accuracy_score(test[1], predicted), "macro_f1": report["macro avg"]["f1-score"]}


@experiment("trackdsl-demo", run_name="digits", tags={"data": "sklearn.datasets.load_digits"})
@track_returns
def pipeline(
    test_size: float = 0.25, seed: int = 42
) -> tuple[Annotated[Any, Model("digits")], Annotated[float, Metric("best_accuracy")]]:
    """Load, split, train three models, and keep the best."""
    images, digits = load()
    with stage("split", test_size=test_size, seed=seed) as run:
        parts = train_test_split(images, digits, test_size=test_size, random_state=seed, stratify=digits)
        train, test = (parts[0], parts[2]), (parts[1], parts[3])
        run.log_metrics({"rows/train": len(train[0]), "rows/test": len(test[0])})
    with stage("sweep"):
        fitted = [
            fit("linear", train, test, rate=0.01, seed=seed),
            fit("small-net", train, test, rate=0.01, seed=seed),
            fit("large-net", train, test, rate=0.01, seed=seed),
        ]
    best, _ = max(fitted, key=lambda found: found[1])
    return best, evaluate(best, test)["accuracy"]
