"""Runs on shared storage: a stopped training whose folder was taken over changes nothing in it when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hosts import Host
from support.sampled import sampled

from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.run_folder import HISTORY, METRICS, MODEL, RunFolder

# Trains; when a file is about to get its name, it stops, or waits for its input to end.
FIT = """
import os, signal, sys
from shardtrain.cli.main import main
shards, out, how, name = sys.argv[1:]
real = os.replace
def replace(source, target):
    if os.path.basename(target) == name and out in str(target):
        print("now", flush=True)
        sys.stdin.read() if how == "wait" else os.kill(os.getpid(), signal.SIGSTOP)
    real(source, target)
os.replace = replace
sys.exit(main(["fit", shards, "--out", out, "--model", "linear", "--epochs", "3"]))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("name", sampled([HISTORY, MODEL], (1,)))
def test_a_stopped_training_whose_folder_was_taken_over_changes_nothing_when_it_goes_on(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    lines = [f'"{"ab"[n % 2]}",{" ".join(f"w{n * k % 23}" for k in range(1, 9))}' for n in range(400)]
    (tmp_path / "corpus.csv").write_text("\n".join(lines) + "\n")
    build(tmp_path / "corpus.csv", tmp_path / "shards", BuildOptions(workers=1))
    out = tmp_path / "disk" / "run"
    with Host("node7", tmp_path / "disk").start(FIT, tmp_path / "shards", out, "stop", name) as first:
        assert first.line("now", "error") == "now"
        with Host("node8", tmp_path / "disk").start(FIT, tmp_path / "shards", out, "wait", METRICS) as second:
            assert second.line("now", "error") == "now"
            first.go_on()
            code, said = first.end()
            assert code == 1
            assert f"was taken over by process {second.process.pid} on node8" in said.splitlines()[-1]
            assert not RunFolder(out).finished
            code, said = second.end()
            assert code == 0, said
    assert RunFolder(out).read().metrics["epochs"] == 3
    assert not [path.name for path in out.rglob("*") if ".partial" in path.name or path.name.startswith(".lock")]
