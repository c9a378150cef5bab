"""Laws of several workers that need no TensorFlow: who they are, how they meet, and how each learns of a loss."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.errors import RunError, ShardtrainError, UsageError, WorkerLostError
from shardtrain.loader.info import DatasetInfo
from shardtrain.training.distribution import local as launching
from shardtrain.training.distribution.cluster import ALONE, VARIABLE, Cluster, split_address, this_cluster
from shardtrain.training.distribution.launchers import expanded, kubernetes_cluster, mpi_cluster, slurm_cluster
from shardtrain.training.distribution.local import free_ports
from shardtrain.training.distribution.team import Team
from shardtrain.training.launch_options import LaunchOptions
from shardtrain.training.options import FitOptions
from shardtrain.training.recipes import choose

SLURM = {"SLURM_STEP_NODELIST": "a[01-02],b", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}


def declared(**value: Any) -> dict[str, str]:
    return {VARIABLE: json.dumps(value)}


@given(number=st.integers(2, 9), data=st.data())
def test_a_cluster_is_read_back_from_its_variable(number: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, number - 1))
    cluster = Cluster(addresses=tuple(f"host{each}:1" for each in range(number)), index=index)
    assert this_cluster({VARIABLE: cluster.as_tf_config()}) == cluster


def test_a_chief_comes_first_and_one_worker_is_alone() -> None:
    jobs = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    assert this_cluster(declared(cluster=jobs, task={"type": "worker", "index": 1})) == Cluster(
        addresses=("c:1", "a:1", "b:1"), index=2
    )
    assert this_cluster(declared(cluster=jobs, task={"type": "chief", "index": 0})).index == 0
    for alone in ({}, {VARIABLE: ""}, declared(cluster={"chief": ["c:1"]}, task={"type": "chief", "index": 0})):
        assert this_cluster(alone) == ALONE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected such as"),
        ("[]", "makes no sense"),
        ('{"cluster": {"worker": "a:1"}}', "makes no sense"),
        (json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}), "does not say which task this is"),
        (
            json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}),
            "no task worker 2",
        ),
        (json.dumps({"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}), "write HOST:PORT,"),
        *(
            (json.dumps({"cluster": {"worker": ["a:1", each]}, "task": {"type": "worker", "index": 0}}), "HOST:PORT")
            for each in (
                "a:65536",
                "a:" + "9" * 5000,
                "é..x:1",
                "a b:1",
                " :1",
                "x" * 64 + ":1",
                "::1:1",
                "[::1:1",
                "[]:1",
            )
        ),
        (json.dumps({"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}), "address twice"),
        (
            json.dumps({"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "ps", "index": 0}}),
            "a task 'ps'",
        ),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_with_what_is_expected(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        this_cluster({VARIABLE: text})


def test_the_tasks_of_a_slurm_step_agree_on_their_addresses() -> None:
    places = [("a01", 0), ("a01", 1), ("a02", 0), ("a02", 1), ("b", 0)]
    for rank, (_, local) in enumerate(places):
        found = slurm_cluster({**SLURM, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local)}, 100)
        assert found == Cluster(addresses=tuple(f"{host}:{100 + each}" for host, each in places), index=rank)
    with pytest.raises(UsageError, match="distribution=block"):
        slurm_cluster({**SLURM, "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, 100)
    with pytest.raises(UsageError, match="needs the variable SLURM_PROCID, which is not set; start it with `srun`"):
        slurm_cluster({}, 100)


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("one", ["one"]),
        ("n[8-10]", ["n8", "n9", "n10"]),
        ("n[08-10,3],x", ["n08", "n09", "n10", "n3", "x"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
    ],
)
def test_a_list_of_nodes_is_expanded_as_slurm_does(nodes: str, names: list[str]) -> None:
    assert expanded(nodes) == names


def test_the_pods_of_a_job_agree_on_their_addresses() -> None:
    addresses = tuple(f"train-{number}.peers.ns.svc:7" for number in range(3))
    for index in range(3):
        name = f"train-{index}.peers.ns.svc"
        found = kubernetes_cluster({"JOB_COMPLETION_INDEX": str(index)}, 3, name, 7)
        assert found == Cluster(addresses=addresses, index=index)
    with pytest.raises(UsageError, match="set `subdomain`"):
        kubernetes_cluster({"JOB_COMPLETION_INDEX": "1"}, 3, "train-1", 7)
    with pytest.raises(UsageError, match="this is number 3"):
        kubernetes_cluster({"JOB_COMPLETION_INDEX": "3"}, 3, "train-3.peers", 7)


@pytest.mark.parametrize(
    "names",
    [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ],
)
def test_the_ranks_of_mpi_agree_on_their_addresses(names: tuple[str, ...]) -> None:
    for rank in range(4):
        variables = dict(zip(names, (str(rank), "4", str(rank % 2)), strict=True))
        found = mpi_cluster(variables, ["a", "b"], 5)
        assert found == Cluster(addresses=("a:5", "a:6", "b:5", "b:6"), index=rank)
    with pytest.raises(UsageError, match="do not divide evenly"):
        mpi_cluster({**variables, names[1]: "5"}, ["a", "b"], 5)


WORDS = st.sampled_from(
    ["", "0", "1", "2", "01", "-1", "x", "1.5", "\u00b2", "9" * 5000, "a", "a,b", "a[1-2]", "a[", "1(x2)", "1,1", ","]
)
STARTED = {
    "slurm": (SLURM, lambda variables: slurm_cluster({"SLURM_PROCID": "0", **variables}, 65000)),
    "kubernetes": (
        {"JOB_COMPLETION_INDEX": "1"},
        lambda variables: kubernetes_cluster(variables, 2, f"job-{variables['JOB_COMPLETION_INDEX']}.peers", 7),
    ),
    "mpi": (
        {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"},
        lambda variables: mpi_cluster(variables, ["a", "b"], 5),
    ),
}


@pytest.mark.parametrize("launcher", STARTED)
@given(st.data())
def test_variables_of_a_launcher_give_addresses_or_an_error_that_is_ours(launcher: str, data: st.DataObject) -> None:
    usual, found = STARTED[launcher]
    names = [*usual, *(["SLURM_PROCID", "SLURM_LOCALID"] if launcher == "slurm" else [])]
    variables = {**usual, **data.draw(st.dictionaries(st.sampled_from(names), WORDS))}
    with contextlib.suppress(UsageError):
        cluster = found(variables)
        assert this_cluster({VARIABLE: cluster.as_tf_config()}) in (cluster, ALONE)


def test_nodes_and_tasks_of_slurm_that_contradict_each_other_are_no_smaller_training() -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        slurm_cluster({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1"}, 100)


def test_a_port_beyond_the_last_one_is_said_of_the_option() -> None:
    with pytest.raises(UsageError, match="would have port 65536"):
        slurm_cluster({**SLURM, "SLURM_PROCID": "0"}, 65535)


def test_hosts_of_version_6_of_ip_are_in_brackets() -> None:
    found = mpi_cluster({"PMI_RANK": "1", "PMI_SIZE": "2"}, ["::1", "[::2]"], 5)
    assert found.addresses == ("[::1]:5", "[::2]:5")
    assert [split_address(address) for address in found.addresses] == [("::1", 5), ("::2", 5)]


def test_one_way_to_launch_is_chosen() -> None:
    assert LaunchOptions(local=2).way == "local"
    assert LaunchOptions(mpi=("a", "b")).way == "mpi"
    for several in (LaunchOptions(), LaunchOptions(local=2, slurm=True)):
        with pytest.raises(UsageError, match="choose one of"):
            _ = several.way


def test_the_engine_of_several_workers_is_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(addresses=("a:1", "b:1"), index=0)
    monkeypatch.setenv(VARIABLE, cluster.as_tf_config())
    description = DatasetInfo(
        kind="ngram",
        num_features=5,
        vocabulary_size=5,
        class_names=("a", "b"),
        num_train=10,
        num_validation=5,
        vectorizer="",
        fingerprint="",
    )
    chosen, why = choose(FitOptions(), "mlp", description)
    assert (chosen.engine, why) == ("keras", "several workers")
    with pytest.raises(UsageError, match="not with several workers; use engine keras"):
        choose(FitOptions(engine="fused"), "mlp", description)


@contextmanager
def teams(number: int, *, seconds: float = 20.0) -> Iterator[list[Team]]:
    """Teams of one cluster, as if each were in a process of its own, joined."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(number))
    found = [Team(Cluster(addresses=addresses, index=index)) for index in range(number)]
    together(lambda team: team.join(seconds), found)
    try:
        yield found
    finally:
        for team in found:
            team.leave()


def together(call: Callable[[Team], Any], found: list[Team]) -> list[Any]:
    with ThreadPoolExecutor(len(found)) as pool:
        results: list[Future[Any]] = [pool.submit(call, team) for team in found]
        return [each.result(60) for each in results]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_workers_act_as_one(number: int) -> None:
    with teams(number) as found:
        assert together(lambda team: team.shared(f"of {team.index}"), found) == ["of 0"] * number
        wishes = together(lambda team: team.agreed(team.index == number - 1, False), found)
        assert wishes == [[True, False]] * number
        gathered = together(lambda team: team.gathered([team.index]), found)
        assert gathered == [[[index] for index in range(number)], *[[]] * (number - 1)]
        together(lambda team: team.check(""), found)


def test_a_problem_of_one_is_the_error_of_all() -> None:
    with teams(3) as found:

        def said(team: Team) -> str:
            with pytest.raises(RunError) as raised:
                team.check("sees nothing" if team.index == 2 else "")
            return raised.value.on_command_line

        assert set(together(said, found)) == {f"{found[0].cluster.name(2)} sees nothing"}


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_all_learn_which_worker_has_ended(lost: int) -> None:
    with teams(3) as found:
        aborted: list[str] = []
        for team in found:
            team.abort = aborted.append
            team.where, team.advice = "in epoch 3", "run it again"
        left = [team for team in found if team.index != lost]
        found[lost]._left = True  # it has no time to notice anything
        for link in found[lost]._links.values():
            link.finish()  # as the kernel does for a process that is killed

        def said(team: Team) -> str:
            with pytest.raises(WorkerLostError) as raised:
                team.agreed(False)
            return raised.value.on_command_line

        assert set(together(said, left)) == {f"{found[0].cluster.name(lost)} was lost in epoch 3; run it again"}
        deadline = time.monotonic() + 30
        while not any("was lost" in text for text in aborted):  # said by other threads, a little later
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_failure_of_one_is_reported_by_all() -> None:
    with teams(2) as found:
        assert isinstance(found[1].explained(UsageError("--epochs is wrong")), UsageError)
        with pytest.raises(WorkerLostError) as raised:
            found[0].shared(1)
        name = found[0].cluster.name(1)
        assert raised.value.on_command_line == (
            f"{name} failed before the training began: --epochs is wrong; start all workers again"
        )


def test_a_farewell_is_no_loss() -> None:
    with teams(2) as found:
        found[1].leave()
        threading.Event().wait(0.2)
        assert found[0]._gone == {}


def test_a_chief_that_has_all_it_needs_goes_on_without_the_others() -> None:
    with teams(3) as found:
        found[0].release()
        found[1]._left = True
        found[1]._links[0].finish()
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(found[2].shared)
            found[0].dismiss()
            assert answered.result(30) is True
        assert found[0]._gone == {}


def test_a_worker_that_does_not_appear_is_named() -> None:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))

    def said(index: int) -> str:
        with pytest.raises(WorkerLostError) as raised:
            Team(Cluster(addresses=addresses, index=index)).join(1.0 if index == 0 else 10.0)
        return raised.value.on_command_line

    with ThreadPoolExecutor(2) as pool:
        chief, other = pool.map(said, [0, 2])
    assert chief == other
    assert chief.startswith(f"worker 1 ({addresses[1]}) did not appear within 1 s; start all workers")
    with pytest.raises(WorkerLostError, match=rf"worker 0 \({addresses[0]}\), the chief, did not appear within 0.5 s"):
        Team(Cluster(addresses=addresses, index=1)).join(0.5)


def test_a_worker_of_another_cluster_or_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    chief = Team(Cluster(addresses=(addresses[0], addresses[1]), index=0))
    other = Team(Cluster(addresses=(addresses[0], addresses[2]), index=1))

    def said(team: Team) -> str:
        with pytest.raises(ShardtrainError) as raised:
            team.join(10.0)
        return raised.value.on_command_line

    for text in together(said, [chief, other]):
        assert text.startswith(f"worker 1 ({addresses[1]}) has TF_CONFIG with the workers")


def test_a_stranger_at_the_port_of_the_chief_is_turned_away() -> None:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    found = [Team(Cluster(addresses=addresses, index=index)) for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        joined = pool.submit(found[0].join, 20.0)
        while True:
            try:
                stranger = socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2])), timeout=1)
                break
            except OSError:
                threading.Event().wait(0.05)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        pool.submit(found[1].join, 20.0).result(30)
        joined.result(30)
    stranger.close()
    assert together(lambda team: team.shared(team.index), found) == [0, 0]
    for team in found:
        team.leave()


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_that_is_killed_before_all_have_joined_ends_the_others_with_a_line(
    killed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "_ENDING_KILLED", 0.3)
    code = "import os, signal, sys, time\nif int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)"
    with open(tmp_path / "printed", "w+b") as printed:
        workers = [
            subprocess.Popen([sys.executable, "-c", code, str(int(number == killed))], stderr=printed)
            for number in range(2)
        ]
        assert launching._wait(workers, [printed]) == 1
    assert all(worker.returncode == -signal.SIGKILL for worker in workers)
    assert capsys.readouterr().err == (
        f"error: worker {killed} was killed by signal 9, and the others were ended; run the same command again, which "
        "goes on from the last checkpoint\n"
    )
