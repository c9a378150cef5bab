"""Laws of calls that fail and of power that fails, for every command (`support.faulted`, `support.powerless`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.faulted import COMMANDS, Fault, Home, calls_of, faults_of, home_of, inject
from support.powerless import LOSSES, followed, judged

# Faults and states per command in `make test`; `make soak` takes all. Those that load TensorFlow's code take seconds.
FAULTS = {
    "build": 2,
    **dict.fromkeys(("build parallel", "build words", "predict page", "thresholds", "export folder", "tune"), 0),
}
FAULTS_ELSEWHERE = 1
STATES = {"build": 2, "convert": 0}
STATES_ELSEWHERE = 1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home_of(tmp_path_factory.mktemp("faults") / "home") as home:
        yield home


def broken_by_faults(home: Home, name: str, faults: list[Fault]) -> list[str]:
    """How a command broke the law, one line per fault."""
    outcomes = [inject(home, name, fault) for fault in faults]
    return [
        f"{each.fault}: {each.wrong} | {each.call and each.call.path} | {each.said}" for each in outcomes if each.wrong
    ]


def broken_by_power(home: Home, name: str, wanted: int | None) -> list[str]:
    """How a command broke the law in a number of states, spread over it; in all if None."""
    disk = followed(home, name)
    states = list(disk.states.items())[:: len(disk.states) // wanted if wanted else 1]
    judgements = ((when, judged(home, name, disk, state)) for state, when in states)
    return [f"{when}: {wrong}" for when, wrong in judgements if wrong]


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in COMMANDS if FAULTS.get(name, FAULTS_ELSEWHERE)])
def test_a_command_in_which_a_call_fails_says_so_in_a_line_and_then_completes(home: Home, name: str) -> None:
    faults = sorted(faults_of(calls_of(home, name)), key=lambda fault: (fault.kind, fault.error))
    wanted = FAULTS.get(name, FAULTS_ELSEWHERE)
    first = sum(map(ord, name)) % (len(faults) // wanted)  # other places in every command
    assert not broken_by_faults(home, name, faults[first :: len(faults) // wanted][:wanted])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_so_it_is_for_every_call(home: Home, name: str) -> None:
    assert not broken_by_faults(home, name, faults_of(calls_of(home, name))[:: COMMANDS[name].every])


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in LOSSES if STATES.get(name, STATES_ELSEWHERE)])
def test_a_command_that_lost_power_is_recovered_or_refused(home: Home, name: str) -> None:
    assert not broken_by_power(home, name, STATES.get(name, STATES_ELSEWHERE))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_so_it_is_at_every_point(home: Home, name: str) -> None:
    assert not broken_by_power(home, name, None)
