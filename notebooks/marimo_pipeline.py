"""A pipeline in marimo: `marimo edit marimo_pipeline.py`, or `python marimo_pipeline.py`."""

import marimo

__generated_with = "0.25.2"
app = marimo.App()


@app.cell
def _():
    import marimo as mo

    return (mo,)


@app.cell(hide_code=True)
def _(mo):
    mo.vstack(
        [
            mo.md("""
            # A pipeline in marimo

            At the end of this notebook you have a pipeline whose cells are stages, in one tree of runs. Move a
            slider, and marimo executes the cells that depend on it: their runs *supersede* those of the execution
            before, so the tree always shows what is on your page.
            """),
            mo.mermaid("""
            graph TD
                run[pipeline] --> data[data<br/>rows 898]
                run --> fit[fit<br/>depth 6, accuracy 0.71]
                run --> sweep[sweep]
                sweep --> one[depth-2]
                sweep --> two[depth-4]
                sweep --> more[…]
            """),
            mo.md("""
            Beside marimo you need scikit-learn, which brings the data: 1797 photographs of handwritten digits.

            marimo has no magics, and needs none: a stage is a `with` block. `start_logging` opens the run of the
            notebook.
            """),
        ]
    )
    return


@app.cell
def _():
    import matplotlib.pyplot as plt
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.tree import DecisionTreeClassifier

    import trackdsl

    pipeline = trackdsl.start_logging("pipeline", config={"experiment_name": "digits in marimo"})
    return (
        DecisionTreeClassifier,
        load_digits,
        pipeline,
        plt,
        trackdsl,
        train_test_split,
    )


@app.cell
def _(load_digits, trackdsl, train_test_split):
    with trackdsl.stage("data", test_size=0.5):
        X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), test_size=0.5, random_state=0)
        trackdsl.log_metric("rows", len(X))
    return X, X_test, y, y_test


@app.cell
def _(mo):
    depth = mo.ui.slider(1, 12, value=6, label="depth of the tree", show_value=True)
    depth
    return (depth,)


@app.cell
def _(DecisionTreeClassifier, X, X_test, depth, mo, trackdsl, y, y_test):
    with trackdsl.stage("fit", depth=depth.value):
        model = DecisionTreeClassifier(max_depth=depth.value, random_state=0).fit(X, y)
        accuracy = model.score(X_test, y_test)
        trackdsl.log_metric("accuracy", accuracy)

    mo.md(f"With a depth of {depth.value} the accuracy is **{accuracy:.3f}**.")
    return (accuracy,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    A cell may have as many stages as it likes, also inside of each other. Here each depth is one:
    """)
    return


@app.cell
def _(DecisionTreeClassifier, X, X_test, trackdsl, y, y_test):
    with trackdsl.stage("sweep") as sweep:
        for _depth in range(2, 13, 2):
            with trackdsl.stage("depth-{depth}", depth=_depth):
                _model = DecisionTreeClassifier(max_depth=_depth, random_state=0).fit(X, y)
                trackdsl.log_metric("train_accuracy", _model.score(X, y))
                trackdsl.log_metric("test_accuracy", _model.score(X_test, y_test))
    return (sweep,)


@app.cell
def _(plt, sweep, trackdsl):
    _frame = trackdsl.runs("digits in marimo", parent=sweep.run_id, order_by="start")
    _figure, _axis = plt.subplots(figsize=(7, 3))
    _frame.plot(x="params.depth", y=["metrics.train_accuracy", "metrics.test_accuracy"], marker="o", ax=_axis)
    _axis.set(xlabel="depth of the tree", ylabel="accuracy")
    _axis
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    The tree of all that counts:
    """)
    return


@app.cell
def _(accuracy, pipeline, sweep, trackdsl):
    accuracy, sweep  # so that marimo executes this cell after theirs
    trackdsl.tree(pipeline)
    return


if __name__ == "__main__":
    app.run()
