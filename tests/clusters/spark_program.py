"""Everything that Spark can be given, by a program with clusters of its own: a folder, and where its runs go."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FOLDER, URI = Path(sys.argv[1]), sys.argv[2]

os.environ |= {
    "PYSPARK_PYTHON": sys.executable,
    "SPARK_LOCAL_IP": "127.0.0.1",
    "SPARK_LOCAL_DIRS": str(FOLDER / "local"),
    "SPARK_WORKER_DIR": str(FOLDER / "work"),  # By default inside the installed package.
    # Compiling for a long life is half of what such short ones cost.
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}

import pandas as pd  # noqa: E402
import psutil  # noqa: E402
from pyspark import TaskContext  # noqa: E402
from pyspark.sql import DataFrame, SparkSession  # noqa: E402
from pyspark.sql.functions import pandas_udf, udf  # noqa: E402

from trackdsl import configure, log_metric, stage  # noqa: E402
from trackdsl._core import context as _context  # noqa: E402
from trackdsl._core import patching  # noqa: E402
from trackdsl.distributed.spark import PROPERTY  # noqa: E402


@stage
def work(x: int) -> int:
    log_metric("x", x)
    return x


@stage
def passed(items: Iterator[Any]) -> Iterator[Any]:
    yield from items


@stage
def plus(x: int) -> int:
    return x + 1


@stage
def vector(column: pd.Series) -> pd.Series:
    return column + 1


@stage
def group(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


@stage
def keyed(key, frame):  # type: ignore[no-untyped-def] # Spark counts parameters in another way without annotations
    return frame


@stage
def batch(frame: DataFrame, number: int) -> None:
    frame.rdd.map(lambda row: work(row.id)).collect()


def plain(x: int) -> int:
    log_metric("plain", x)
    return x


def path_here(_: int) -> str:
    """The path of the run that plain MLflow would write to."""
    scope = _context.current()
    return "" if scope is None else scope.run.path


def plain_thread(x: int) -> int:
    thread = threading.Thread(target=work, args=(x,))
    thread.start()
    thread.join()
    return x


def fail_twice(_: int) -> int:
    with stage("attempt"):
        attempt = TaskContext.get().attemptNumber()
        if attempt == 0:
            raise ValueError("not yet")
        if attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempt


def lose_executor(_: int) -> int:
    with stage("attempt"):
        attempt = TaskContext.get().attemptNumber()
        if attempt == 0:
            # This is a child of the daemon, and that one of the JVM.
            os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
            threading.Event().wait()
        return attempt


def meet(name: str, folder: Path) -> str:
    """Two of these run at the same time, or neither ends."""
    (folder / f"meet-{name}").touch()
    wait_for(lambda: len(list(folder.glob("meet-*"))) == 2)
    with stage(f"met-{name}"):
        return name


def wait_for(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        threading.Event().wait(0.01)


def session(master: str) -> SparkSession:
    return (
        SparkSession.builder.master(master)
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "OFF")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.executor.memory", "512m")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.warehouse.dir", str(FOLDER / "warehouse"))
        .config("spark.executorEnv.TRACKDSL_SPOOL", str(FOLDER / "far"))
        .config("spark.executorEnv.TRACKDSL_TRACKING_URI", URI)
        .getOrCreate()
    )


def rdds(spark: SparkSession) -> None:
    context = spark.sparkContext
    with stage("lazy"):
        mapped = context.parallelize([1, 2], 2).map(work)
    with stage("action"):
        assert mapped.collect() == [1, 2]
    with stage("foreach"):
        context.parallelize([3], 1).foreach(work)
        context.parallelize([4, 5], 2).foreachPartition(passed)
    with stage("partitions"):
        context.parallelize([6, 7], 2).mapPartitions(passed).map(lambda x: (x % 2, x)).reduceByKey(max).count()
    with stage("plain"):
        context.parallelize([10, 20], 2).foreach(plain)
    with stage("from-plain"):
        context.parallelize([8], 1).foreach(plain_thread)


def frames(spark: SparkSession) -> None:
    one = spark.range(1).coalesce(1)
    with stage("udf"):
        assert one.select(udf(plus, "int")("id")).first()[0] == 1
    with stage("pandas-udf"):
        assert one.select(pandas_udf(vector, "long")("id")).first()[0] == 1
    with stage("map-in-pandas"):
        assert one.mapInPandas(passed, "id long").count() == 1
    with stage("apply-in-pandas"):
        assert one.groupBy("id").applyInPandas(group, "id long").count() == 1
        assert one.groupBy("id").applyInPandas(keyed, "id long").count() == 1


def streams(spark: SparkSession) -> None:
    source = str(FOLDER / "source")
    spark.range(2).coalesce(1).write.parquet(source)
    stream = spark.readStream.schema("id long").parquet(source)

    def start(name: str, **trigger: Any) -> Any:
        writer = stream.writeStream.option("checkpointLocation", str(FOLDER / f"checkpoints-{name}"))
        return writer.trigger(**trigger).foreachBatch(batch).start()

    def done(query: Any, number: int) -> bool:
        return any(progress["batchId"] == number for progress in query.recentProgress)

    with stage("stream"):
        query = start("stream", processingTime="0 seconds")
        wait_for(lambda: done(query, 0))
    # This one continues where no scope is open.
    spark.range(2, 3).coalesce(1).write.mode("append").parquet(source)
    wait_for(lambda: done(query, 1))
    query.stop()
    start("none", availableNow=True).awaitTermination()


def scopes(spark: SparkSession, reported: dict[str, Any]) -> None:
    context = spark.sparkContext
    properties = []
    for x in range(3):
        with stage("inside"):
            context.parallelize([x], 1).foreach(work)
            with stage("further"):
                properties.append(json.loads(context.getLocalProperty(PROPERTY))["path"])
            properties.append(json.loads(context.getLocalProperty(PROPERTY))["path"])
        context.parallelize([x], 1).map(work).collect()
        properties.append(context.getLocalProperty(PROPERTY))
    reported["properties"] = properties
    paths = []
    for name in ("first", "second"):
        with stage(name):
            paths.append(context.parallelize([0, 1], 2).map(path_here).collect())
        paths.append(context.parallelize([0, 1], 2).map(path_here).collect())
    reported["paths"] = paths

    def submit(name: str) -> None:
        with stage(f"meet-{name}"):
            context.parallelize([name], 1).foreach(lambda name, folder=FOLDER: meet(name, folder))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(submit, ["one", "two"]))
        # Its threads serve any caller.
        list(pool.map(lambda x: context.parallelize([x], 1).map(work).collect(), [97, 98]))
    reported["patched"] = patching._installed


def losses(spark: SparkSession) -> None:
    context = spark.sparkContext
    with stage("retries"):
        assert context.parallelize([0], 1).map(fail_twice).collect() == [2]
    with stage("executor"):
        assert context.parallelize([0], 1).map(lose_executor).collect() == [1]


def main() -> None:
    reported: dict[str, Any] = {}
    configure(tracking_uri=URI)
    with stage("maker"):  # The cluster outlives the stage that starts it, and serves others.
        spark = session("local-cluster[1,2,512]")  # One executor with two cores: each is a JVM, which takes seconds.
    rdds(spark)
    frames(spark)
    scopes(spark, reported)
    streams(spark)
    losses(spark)
    spark.stop()
    # Executors of another kind, which are not programs of their own: what they start has our environment.
    spark = session("local[2]")
    with stage("local"):
        spark.sparkContext.parallelize([1, 2], 2).map(work).collect()
    spark.stop()
    (FOLDER / "reported.json").write_text(json.dumps(reported))


if __name__ == "__main__":
    main()
