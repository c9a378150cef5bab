"""Laws of training in several workers: it equals one process, any number resumes a checkpoint, and all end together.

Workers are real processes on loopback addresses, started by `launch --local`.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.executors import clustered
from support.forked import Forking
from support.learnable import write_shards
from support.sampled import sampled

import shardtrain.keras  # noqa: F401 - the classes that saved models name
from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import open_shards
from shardtrain.models.adapters import model_array, sparse_tensor
from shardtrain.training.distribution.cluster import VARIABLE, Cluster
from shardtrain.training.distribution.local import free_ports

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
# A batch of 40 of 2,001 rows leaves one row for the last step: none of it for all workers but one.
KINDS = {
    "ngram": ["--engine", "keras", "--model", "mlp", "--batch-size", "40"],
    # Adam divides by the size of gradients, also where that is rounding: two numbers of cores differ by 1e-3 with it
    "sequence": ["--optimizer", "sgd", "--learning-rate", "0.05", "--batch-size", "40"],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("workers")
    how: dict[str, Any] = {"rows": 2001, "validation_rows": 701, "test_rows": 103, "noise": 0.2}
    return {kind: write_shards(folder / kind, kind=kind, num_features=24, **how) for kind in KINDS}


def begin(number: int, *words: object, command: str = "fit", **how: Any) -> subprocess.Popen[bytes]:
    """Begin a training in so many workers; 1: in one process."""
    launch = ["launch", "--local", str(number), "--"] if number > 1 else []
    return subprocess.Popen(
        [sys.executable, "-m", "shardtrain", *launch, command, *map(str, words)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **how,
    )


def done(process: subprocess.Popen[bytes]) -> tuple[int, list[str], list[str]]:
    """Wait for its end: exit code, lines of results, and lines of messages."""
    out, text = process.communicate(timeout=600)
    return process.returncode, out.decode().splitlines(), text.decode().splitlines()


def trained(number: int, *words: object, **how: Any) -> list[str]:
    code, out, text = done(begin(number, *words, **how))
    assert code == 0, text
    return out


def weights(run: Path) -> list[np.ndarray]:
    model: Any = keras.saving.load_model(run / "model.keras")
    return [np.asarray(each) for each in model.get_weights()]


def labels(run: Path, shards: Path) -> np.ndarray:
    """The classes that a run predicts for all validation rows."""
    model: Any = keras.saving.load_model(run / "model.keras")
    with open_shards(shards) as opened:
        x, _ = opened.validation.rows(0, opened.validation.num_examples)
        return np.argmax(model(sparse_tensor(x) if isinstance(x, Csr) else model_array(x)), axis=1)


def history(run: Path) -> list[dict[str, float]]:
    with open(run / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def until_checkpoint(process: subprocess.Popen[bytes], run: Path, number: int) -> list[int]:
    """Wait until a new checkpoint is there; the workers in order."""
    before = set(run.glob("checkpoints/checkpoint-????????"))
    while not set(run.glob("checkpoints/checkpoint-????????")) - before:
        assert process.poll() is None, done(process)
        time.sleep(0.02)
    workers = children(process) if number > 1 else [process.pid]
    assert len(workers) == number
    return workers


def assert_equal(one: Path, several: Path, *, shards: Path) -> None:
    if len(history(one)) == 1:  # some 50 steps; rounding grows from step to step
        for mine, theirs in zip(weights(one), weights(several), strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-6)
    assert len(history(one)) == len(history(several))
    for mine, theirs in zip(history(one), history(several), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)
    runs = load_run(one), load_run(several)
    for name in ("train_examples", "test_examples", "epochs", "best_epoch"):
        assert runs[0].metrics[name] == runs[1].metrics[name]
    assert np.mean(labels(one, shards) == labels(several, shards)) >= 0.999


# Two workers of a cluster; what the second one prints goes to a file.
TWO = """
import os, sys
from shardtrain.cli.main import main
from shardtrain.training.distribution.cluster import VARIABLE, Cluster
from shardtrain.training.distribution.local import free_ports

addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
second = os.fork()
os.environ[VARIABLE] = Cluster(addresses=addresses, index=0 if second else 1).as_tf_config()
os.environ["CUDA_VISIBLE_DEVICES"] = ""
if not second:
    os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1)
code = main(sys.argv[2:])
if second:
    code = code or os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
sys.exit(code)
"""


@pytest.mark.heavy
def test_two_workers_are_one_process(shards: dict[str, Path], tmp_path: Path, forked: Forking) -> None:
    """And the chief alone prints the result and writes the run."""
    often = ["--batch-size", "100"]  # 21 steps, the last one of one row
    words = [shards["ngram"], *KINDS["ngram"], *often, "--dropout", "0", "--epochs", "1"]
    two = forked.run(TWO, tmp_path / "printed", "fit", *words, "--out", tmp_path / "two", "--json")
    assert two.returncode == 0, two.stderr
    out, text = two.stdout.decode().splitlines(), two.stderr.decode().splitlines()
    assert json.loads(out[0])["run"] == str(tmp_path / "two")
    assert len(out) == 1
    assert (tmp_path / "printed").read_bytes() == b""
    assert [line for line in text if line.startswith("epoch 1: ")]
    assert main(["fit", *map(str, words), "--out", str(tmp_path / "one"), "--quiet"]) == 0
    assert_equal(tmp_path / "one", tmp_path / "two", shards=shards["ngram"])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.slow
def test_two_workers_that_were_launched_are_one_process(shards: dict[str, Path], tmp_path: Path) -> None:
    """And say nothing but what one process does."""
    words = [shards["ngram"], *KINDS["ngram"], "--dropout", "0", "--epochs", "1"]
    code, out, text = done(begin(2, *words, "--out", tmp_path / "two", "--json"))
    assert code == 0, text
    assert json.loads(out[0])["run"] == str(tmp_path / "two")
    assert len(out) == 1
    assert [line for line in text if line.startswith("epoch 1: ")]
    assert not [line for line in text if "warning" in line.lower() or "error" in line.lower()], text
    trained(1, *words, "--out", tmp_path / "one")
    assert_equal(tmp_path / "one", tmp_path / "two", shards=shards["ngram"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_is_one_process(kind: str, number: int, shards: dict[str, Path], tmp_path: Path) -> None:
    words = [shards[kind], *KINDS[kind], "--dropout", "0", "--monitor", "macro_f1", "--class-weight", "balanced"]
    for epochs in ("1", "2"):  # 51 steps each
        trained(number, *words, "--epochs", epochs, "--out", tmp_path / f"several-{epochs}")
        trained(1, *words, "--epochs", epochs, "--out", tmp_path / f"one-{epochs}")
        assert_equal(tmp_path / f"one-{epochs}", tmp_path / f"several-{epochs}", shards=shards[kind])


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", ["none", "blocks", "global"])
def test_the_order_of_rows_is_that_of_one_process(shuffle: str, shards: dict[str, Path], tmp_path: Path) -> None:
    words = [shards["ngram"], *KINDS["ngram"], "--dropout", "0", "--epochs", "1", "--shuffle", shuffle]
    trained(2, *words, "--clip-norm", "0.5", "--out", tmp_path / "two")
    trained(1, *words, "--clip-norm", "0.5", "--out", tmp_path / "one")
    assert_equal(tmp_path / "one", tmp_path / "two", shards=shards["ngram"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_an_interrupted_training_goes_on_in_every_bit_with_as_many_workers(
    number: int, shards: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout draws from the random state of each worker, and metrics are summed up in each."""
    words = [shards["ngram"], *KINDS["ngram"], "--dropout", "0.3", "--epochs", "12", "--patience", "12"]
    often = ["--checkpoint-every", "10steps"]
    trained(number, *words, *often, "--out", tmp_path / "whole")
    for how in range(4):
        process = begin(number, *words, *often, "--out", tmp_path / "parts")
        workers = until_checkpoint(process, tmp_path / "parts", number)
        # Ctrl-C of a terminal, a signal to one worker, a kill
        os.kill([process.pid, workers[-1], workers[0], workers[-1]][how], signal.SIGKILL if how == 3 else signal.SIGINT)
        code, _, text = done(process)
        assert code == (1 if how == 3 else 130), text
        assert not (tmp_path / "parts" / "metrics.json").exists(), "make the training longer"
    trained(number, *words, *often, "--out", tmp_path / "parts")
    for mine, theirs in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(theirs, mine)
    assert history(tmp_path / "whole") == history(tmp_path / "parts")


@pytest.mark.slow
def test_a_killed_worker_ends_all_and_any_number_goes_on(shards: dict[str, Path], tmp_path: Path) -> None:
    words = [shards["ngram"], *KINDS["ngram"], "--dropout", "0", "--epochs", "60", "--patience", "60"]
    trained(1, *words, "--out", tmp_path / "whole")
    drawn, run = random.Random(), tmp_path / "parts"
    for kill in range(10):
        number = (2, 3)[kill % 2]
        process = begin(number, *words, "--checkpoint-every", "7steps", "--out", run)
        workers = until_checkpoint(process, run, number)
        time.sleep(drawn.random() / 2)
        lost = drawn.randrange(number)
        os.kill(workers[lost], signal.SIGKILL)
        code, out, text = done(process)
        assert (code, out) == (1, []), text
        errors = [line for line in text if line.startswith("error: ")]
        assert len(errors) == 1, text
        assert f"error: worker {lost} (127.0.0.1:" in errors[0]
        assert errors[0].endswith(f"; the same command resumes the training in '{run}', with any number of workers"), (
            errors
        )
        assert not [line for line in text if "Traceback" in line]
        assert not (run / "metrics.json").exists(), "make the training longer"
    process = begin(1, *words, "--checkpoint-every", "7steps", "--out", run)
    (worker,) = until_checkpoint(process, run, 1)
    os.kill(worker, signal.SIGTERM)
    assert done(process)[0] == 130
    trained(3, *words, "--out", run)
    found, expected = history(run)[-1], history(tmp_path / "whole")[-1]
    assert len(history(run)) == 60
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-2)  # 3,060 steps of Adam


@pytest.mark.slow
def test_train_builds_once_and_all_train(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "shardtrain", "demo", "--out", str(tmp_path / "demo"), "--documents", "600", "-q"]
    subprocess.run(demo, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    words = [tmp_path / "demo", "--engine", "keras", "--epochs", "2", "--dropout", "0"]
    out = trained(2, *words, "--out", tmp_path / "two", "--tensorboard", command="train")
    assert [line for line in out if line.startswith("validation accuracy")]
    trained(1, *words, "--out", tmp_path / "one", "--tensorboard", command="train")
    assert_equal(tmp_path / "one", tmp_path / "two", shards=tmp_path / "one" / "shards")
    assert len(list((tmp_path / "two" / "tensorboard").rglob("events*"))) == len(
        list((tmp_path / "one" / "tensorboard").rglob("events*"))
    )


def of_a_cluster(addresses: tuple[str, ...], index: int, *words: object) -> subprocess.Popen[bytes]:
    """Begin one worker as a cluster's launcher does."""
    config = Cluster(addresses=addresses, index=index).as_tf_config()
    return subprocess.Popen(
        [sys.executable, "-m", "shardtrain", *map(str, words)],
        env={**ENVIRONMENT, VARIABLE: config},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_workers_that_were_started_differently_end_with_what_differs(shards: dict[str, Path], tmp_path: Path) -> None:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    words = ["fit", shards["ngram"], *KINDS["ngram"], "--out", tmp_path / "run"]
    found = [of_a_cluster(addresses, index, *words, "--epochs", index + 1) for index in range(2)]
    said = f"error: worker 1 ({addresses[1]}) was started differently: --epochs was 1, it is 2 now, where the first is"
    for process in found:
        code, _, text = done(process)
        assert code == 1
        assert [line for line in text if line.startswith(said)], text
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_does_not_appear_is_named(shards: dict[str, Path], tmp_path: Path) -> None:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    words = ["fit", shards["ngram"], *KINDS["ngram"], "--out", tmp_path / "run", "--worker-timeout", "2"]
    for index, other in ((0, f"worker 1 ({addresses[1]}) did"), (1, f"worker 0 ({addresses[0]}), the chief, did")):
        code, _, text = done(of_a_cluster(addresses, index, *words))
        assert code == 1
        assert text[-1].startswith(f"error: {other} not appear within 2 s")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_of_one_machine_at_one_port_are_told_so(shards: dict[str, Path], tmp_path: Path) -> None:
    """TensorFlow listens at all addresses of a machine, and two workers were named as if they had one each."""
    (port,) = free_ports(1)
    addresses = (f"127.0.0.1:{port}", f"127.0.0.2:{port}")
    words = ["fit", shards["ngram"], *KINDS["ngram"], "--epochs", "1", "--out", tmp_path / "run"]
    found = [of_a_cluster(addresses, index, *words) for index in range(2)]
    ends = [done(process) for process in found]
    assert all(code in (1, 2) for code, _, _ in ends)
    for index, (_, _, text) in enumerate(ends):
        assert "unexpected" not in text[-1]
        assert any("TensorFlow cannot listen at the port of worker" in other[-1] for _, _, other in ends), (index, text)
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    sampled(
        [
            (["--engine", "fused"], "not with several workers; use --engine keras"),
            (["--engine", "keras", "--devices", "CPU:0"], "--devices is for one process"),
            (["--engine", "keras", "--on-corrupt", "skip"], "--on-corrupt skip is for one process"),
        ],
        ids=["the fused engine", "devices", "skipping rows"],
    ),
)
def test_what_several_workers_cannot_do_is_refused_in_one_line(
    options: list[str], said: str, shards: dict[str, Path], tmp_path: Path
) -> None:
    code, out, text = done(begin(2, shards["ngram"], *options, "--out", tmp_path / "run"))
    assert (code, out) == (2, [])
    assert [line for line in text if line.startswith("error: ")] == text[-1:]
    assert said in text[-1], text
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_on_each_node_of_ray_is_one_process(shards: dict[str, Path], tmp_path: Path) -> None:
    words = [shards["ngram"], *KINDS["ngram"], "--dropout", "0", "--worker-timeout", "120"]
    with clustered("ray", tmp_path) as cluster:
        start = [sys.executable, "-m", "shardtrain", "launch", "--ray", cluster.name.partition(":")[2], "--", "fit"]
        how: dict[str, Any] = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        out = tmp_path / "two"
        code, lines, text = done(subprocess.Popen([*start, *map(str, words), "--epochs", "1", "--out", out], **how))
        assert code == 0, text
        assert [line for line in lines if line.startswith("validation accuracy")]
        trained(1, *words, "--epochs", "1", "--out", tmp_path / "one")
        assert_equal(tmp_path / "one", out, shards=shards["ngram"])
        out = tmp_path / "lost"
        long = ["--epochs", "1000", "--patience", "1000", "--checkpoint-every", "1steps", "--out", out]
        process = subprocess.Popen([*start, *map(str, (*words, *long))], **how)
        while not list(out.glob("checkpoints/checkpoint-????????")):
            assert process.poll() is None, done(process)
            time.sleep(0.1)
        cluster.kill(1)
        code, lines, text = done(process)
        assert (code, lines) == (1, []), text
        assert [line for line in text if line.startswith("error: worker 1 (127.0.0.3:") and " was lost in " in line], (
            text
        )


@pytest.mark.slow
def test_workers_end_with_what_launched_them(shards: dict[str, Path], tmp_path: Path) -> None:
    words = [shards["ngram"], *KINDS["ngram"], "--epochs", "1000", "--patience", "1000", "--out", tmp_path / "run"]
    process = begin(2, *words, "--checkpoint-every", "1steps")
    workers = until_checkpoint(process, tmp_path / "run", 2)
    process.kill()
    done(process)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").is_dir() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
