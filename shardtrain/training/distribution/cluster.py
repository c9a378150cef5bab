"""Say which processes train together: their addresses and the place of this one, from TF_CONFIG.

TF_CONFIG is TensorFlow's own declaration of a cluster, which Kubeflow, SageMaker and others set. What other launchers
set is turned into it by the command `launch` (`launchers`), so this is the one place that decides.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardtrain.errors import UsageError
from shardtrain.runtime.schema import Either, Fields, Integer, Items, Keyed, Mismatch, Text, check, parse_json

VARIABLE = "TF_CONFIG"
LAST_PORT = (1 << 16) - 1
_JOBS = ("chief", "worker")
_DECLARED = Fields(
    {},
    {
        "cluster": Keyed(Items(Text())),
        "task": Fields({"type": Text(), "index": Either((Integer(), Text()))}, others=True),
    },
    others=True,
)
_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that train together.

    Attributes:
        addresses: host:port of each; the first one is the chief, which alone writes files.
        index: of this process.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.addresses)

    def name(self, index: int) -> str:
        """Return a worker as messages name it."""
        return f"worker {index} ({self.addresses[index]})"

    def as_tf_config(self) -> str:
        """Return the cluster as the value of TF_CONFIG."""
        return json.dumps(
            {"cluster": {"worker": list(self.addresses)}, "task": {"type": "worker", "index": self.index}}
        )


ALONE = Cluster(addresses=("",), index=0)


def address_of(host: str, port: int) -> str:
    """Return the address of a port, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of an address, of which an IPv6 host is in brackets: TensorFlow waits for one that is not.

    Raises:
        UsageError: it is none.
    """
    host, _, port = address.rpartition(":")
    if not _is_host(host) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= LAST_PORT:
        raise UsageError(
            f"'{address}' is not the address of a worker; write HOST:PORT, with an IPv6 number as [HOST]:PORT"
        )
    return host.strip("[]"), int(port)


def _is_host(text: str) -> bool:
    """Return whether a text can be the name or the number of a host."""
    if {*":[]"} & {*text} and not re.fullmatch(r"\[[^\[\]]+\]", text):
        return False
    try:
        return bool(text.encode("idna")) and not re.search(r"\s", text)
    except UnicodeError:
        return False


def this_cluster(environment: Mapping[str, str] | None = None) -> Cluster:
    """Return the cluster that TF_CONFIG declares; without it, this process alone.

    Raises:
        UsageError: TF_CONFIG makes no sense, or has tasks that do not train synchronously.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if not text:
        return ALONE
    try:
        found = parse_json(text.encode())
        check(found, _DECLARED)
    except Mismatch as mismatch:
        raise UsageError(f"the variable {VARIABLE} makes no sense: {mismatch}; expected such as {_EXAMPLE}") from None
    except ValueError as error:
        raise UsageError(f"the variable {VARIABLE} is no JSON ({error}); expected such as {_EXAMPLE}") from error
    return _parsed(found.get("cluster", {}), found.get("task", {}))


def _parsed(jobs: Mapping[str, list[str]], task: Mapping[str, Any]) -> Cluster:
    if sum(map(len, jobs.values())) < 2:
        return ALONE
    if not task:
        raise UsageError(f"the variable {VARIABLE} does not say which task this is; expected such as {_EXAMPLE}")
    kind, index = task["type"], _number(task["index"])
    if others := [job for job in (*jobs, kind) if job not in _JOBS]:
        raise UsageError(
            f"{VARIABLE} has a task '{others[0]}'; all workers of a training are equal here: name them 'worker', of "
            "which the first is the chief, or one 'chief'"
        )
    chiefs = jobs.get("chief", [])
    addresses = (*chiefs, *jobs.get("worker", []))
    number = index + (len(chiefs) if kind == "worker" else 0)
    if len(chiefs) > 1 or not 0 <= index < len(jobs.get(kind, ())):
        raise UsageError(f"{VARIABLE} has no task {kind} {index}: it names {', '.join(addresses)}")
    for address in addresses:
        split_address(address)
    if len(set(addresses)) != len(addresses):
        raise UsageError(f"{VARIABLE} names an address twice: {', '.join(addresses)}")
    return Cluster(addresses=addresses, index=number)


def _number(index: int | str) -> int:
    return int(index) if str(index).isdecimal() else -1
