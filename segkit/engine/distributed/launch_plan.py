"""Which process of the job this is: read from torchrun's or Slurm's variables, or from Detectron2's arguments."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from segkit.utils.errors import ConfigError

TORCHRUN, SLURM, SPAWN, SINGLE = "torchrun", "slurm", "spawn", "single"
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
ADDRESS, PORT = "MASTER_ADDR", "MASTER_PORT"
STORE_IS_SERVED = "TORCHELASTIC_USE_AGENT_STORE"  # "True": torchrun's agent holds the store, not rank 0
LOOPBACK, MAX_PORT = "127.0.0.1", 2**16 - 1
# A Slurm job's port: below those that Linux gives to outgoing connections (from 32768).
FIRST_PORT, PORTS = 15000, 17000
FIRST_SPECIAL_STEP = 0xFFFFFFF0  # Slurm's ids of batch scripts and interactive shells, which are no steps of srun
# More are a mistake: every process loads torch and the dataset before it sees that there are fewer GPUs.
PROCESSES_PER_CPU = 4


@dataclass(frozen=True)
class LaunchPlan:
    """The place of a process in its job.

    Attributes:
        launcher: who started the ranks: "torchrun", "slurm", "spawn" (segkit, which has yet to) or "single" (one rank).
        rank: of this process in the job; for "spawn" that of the first process of this machine.
        local_rank: of this process on its machine: index of its GPU.
        world_size: processes of the job.
        local_world_size: processes of this machine.
        address: host where the processes meet, "" for "single".
        port: port of that host; 0: any free one, which only "spawn" on one machine has.
        store_is_served: the launcher holds the store at this address; otherwise rank 0 does.
        hosts: host of each rank, where the launcher says it.
        hint: the likely reason if other ranks do not start, or "".
    """

    launcher: str = SINGLE
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    address: str = ""
    port: int = 0
    store_is_served: bool = False
    hosts: tuple[str, ...] = ()
    hint: str = ""

    @property
    def machine_rank(self) -> int:
        """Rank of this machine."""
        return self.rank // self.local_world_size


def plan_launch(
    num_gpus: int | None = None,
    num_machines: int | None = None,
    machine_rank: int | None = None,
    dist_url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> LaunchPlan:
    """Find out who starts the processes of the job, and which of them this is.

    torchrun's variables go before Slurm's, and these before the arguments. A Slurm job of one task is no launcher: it
    may start the processes of its machine by `num_gpus`.

    Args:
        num_gpus: processes on this machine, one per GPU; None: not given, which is 1.
        num_machines: machines of the job; None: not given, which is 1.
        machine_rank: rank of this machine, from 0; None: not given, which is 0.
        dist_url: tcp://HOST:PORT where the processes meet; "auto" or None: a free port of this machine.
        environment: variables; None: those of this process.

    Returns:
        The plan.

    Raises:
        ConfigError: variables are missing or no numbers, or contradict each other or the arguments, or `num_gpus` is
            above `PROCESSES_PER_CPU` times the CPUs.
    """
    variables = os.environ if environment is None else environment
    has_slurm_tasks = bool(variables.get("SLURM_PROCID")) and _read_slurm_tasks(variables) > 1
    if _has_torchrun_variables(variables, has_slurm_tasks):
        plan = _read_torchrun(variables)
    elif has_slurm_tasks:
        plan = _read_slurm(variables)
    else:
        return _plan_spawn(num_gpus, num_machines, machine_rank, dist_url)
    _check_arguments(plan, num_gpus, num_machines, machine_rank, dist_url)
    return plan


def expand_hosts(hosts: str) -> list[str]:
    """Expand Slurm's short form of host names, as `scontrol show hostnames` does.

    Args:
        hosts: as in "gpu[03-05,9],x1".

    Returns:
        The names in their order: gpu03, gpu04, gpu05, gpu9, x1.

    Raises:
        ConfigError: the text is no list of hosts.
    """
    names: list[str] = []
    for entry in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", hosts):
        parts = re.split(r"\[([^\]]*)\]", entry)  # text and ranges take turns
        choices = [_expand_ranges(part, hosts) if i % 2 else [part] for i, part in enumerate(parts)]
        names += ["".join(choice) for choice in itertools.product(*choices)]
    return names


def _expand_ranges(ranges: str, where: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ConfigError(f"expected host names such as gpu[01-04], got {where!r}", where="SLURM_JOB_NODELIST")
        first, last = match[1], match[2] or match[1]
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return numbers


def _has_torchrun_variables(variables: Mapping[str, str], has_slurm_tasks: bool) -> bool:
    """Whether something like torchrun has started this process.

    Kubernetes operators and container hooks set RANK and WORLD_SIZE without the local variables: of a single process,
    or beside Slurm's own, they say nothing.
    """
    if has_slurm_tasks and not variables.get("LOCAL_WORLD_SIZE"):
        return False
    is_one_process = variables.get("WORLD_SIZE") == "1" and variables.get("RANK") == "0"
    names = ("LOCAL_RANK", "LOCAL_WORLD_SIZE") if is_one_process else RANK_VARIABLES
    return any(variables.get(name) for name in names)


def _read_torchrun(variables: Mapping[str, str]) -> LaunchPlan:
    needed = (*RANK_VARIABLES, ADDRESS, PORT)
    missing = [name for name in needed if not variables.get(name)]
    if missing:
        present = [name for name in needed if name not in missing]
        problem = f"{_join_names(present)} set, but {_join_names(missing)} not"
        raise ConfigError(problem, remedy="start with torchrun, which sets them all, or unset them")
    rank, local_rank, world_size, local_world_size = (_read_number(variables, name) for name in RANK_VARIABLES)
    _check_order(("RANK", rank), ("WORLD_SIZE", world_size))
    _check_order(("LOCAL_RANK", local_rank), ("LOCAL_WORLD_SIZE", local_world_size))
    if world_size % local_world_size:
        problem = f"WORLD_SIZE is {world_size}, but LOCAL_WORLD_SIZE is {local_world_size}, which does not divide it"
        raise ConfigError(problem, remedy="start the same number of processes on every machine")
    is_served = variables.get(STORE_IS_SERVED) == str(True)
    port = _read_number(variables, PORT, maximum=MAX_PORT)
    return LaunchPlan(
        TORCHRUN, rank, local_rank, world_size, local_world_size, variables[ADDRESS], port, store_is_served=is_served
    )


def _read_slurm_tasks(variables: Mapping[str, str]) -> int:
    """Tasks of the step; those of the job where the variables of a step are missing."""
    name = _find(variables, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    return _read_number(variables, name, minimum=1) if name else 1


def _read_slurm(variables: Mapping[str, str]) -> LaunchPlan:
    rank, world_size = _read_number(variables, "SLURM_PROCID"), _read_slurm_tasks(variables)
    tasks_name = _find(variables, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    _check_order(("SLURM_PROCID", rank), (tasks_name, world_size))
    nodes_name = _find(variables, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    nodes = expand_hosts(variables[nodes_name]) if nodes_name else []
    local_world_size = _read_tasks_per_node(variables, world_size, max(len(nodes), 1))
    local_rank = _read_number(variables, "SLURM_LOCALID")
    _check_order(("SLURM_LOCALID", local_rank), ("the number of tasks per node", local_world_size))
    address = variables.get(ADDRESS) or (nodes[0] if nodes else "")
    if not address:
        raise ConfigError(f"{tasks_name} is {world_size}, but neither SLURM_JOB_NODELIST nor {ADDRESS} is set")
    if variables.get(PORT):
        port = _read_number(variables, PORT, maximum=MAX_PORT)
    else:
        port = FIRST_PORT + _read_number(variables, _find(variables, "SLURM_JOB_ID", "SLURM_JOBID") or PORT) % PORTS
    is_block = not variables.get("SLURM_DISTRIBUTION", "block").startswith(("cyclic", "plane", "arbitrary"))
    hosts = [node for node in nodes for _ in range(local_world_size)] if is_block else []
    step = variables.get("SLURM_STEP_ID", "")
    in_step = step.isdecimal() and int(step) < FIRST_SPECIAL_STEP
    hint = "" if in_step else "in a batch script, start the command with srun, which starts every task"
    hosts = hosts if len(hosts) == world_size else []
    return LaunchPlan(SLURM, rank, local_rank, world_size, local_world_size, address, port, False, tuple(hosts), hint)


def _read_tasks_per_node(variables: Mapping[str, str], world_size: int, nodes: int) -> int:
    """The number of tasks of each node, from a text such as "2(x3)"."""
    name = _find(variables, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    text = variables[name] if name else ""
    matches = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")] if text else []
    counts = [int(match[1]) for match in matches if match for _ in range(int(match[2] or 1))]
    if None in matches or 0 in counts:
        raise ConfigError(f"expected numbers of tasks such as 2(x3), got {text!r}", where=name)
    if not counts:
        counts, name = [world_size // nodes] * nodes, "the number of tasks"
    if len(set(counts)) > 1 or sum(counts) != world_size:
        problem = f"the job has {world_size} tasks, but {name} is {text or f'that of {nodes} nodes'}"
        raise ConfigError(problem, remedy="ask for the same number of tasks on every node: --ntasks-per-node")
    return counts[0]


def _check_arguments(
    plan: LaunchPlan, num_gpus: int | None, num_machines: int | None, machine_rank: int | None, dist_url: str | None
) -> None:
    """Arguments that say the same as the launcher pass."""
    name = "torchrun" if plan.launcher == TORCHRUN else "Slurm"
    problem, machines = "", plan.world_size // plan.local_world_size
    if num_gpus is not None and num_gpus != plan.local_world_size:
        number = f"{plan.local_world_size} {'process' if plan.local_world_size == 1 else 'processes'}"
        problem = f"--num-gpus is {num_gpus}, but {name} started {number} on this machine"
    elif num_machines is not None and (num_machines > 1 or num_machines != machines):
        problem = f"--num-machines is {num_machines}, but {name} starts the processes, on {machines}"
    elif machine_rank:
        problem = f"--machine-rank is {machine_rank}, but {name} gives the ranks: this is {plan.rank}"
    elif dist_url not in (None, "auto"):
        problem = f"--dist-url is {dist_url}, but {name} says that the processes meet at {plan.address}:{plan.port}"
    if problem:
        flag = problem.partition(" ")[0]
        hint = f", or {plan.hint}" if plan.hint else ""
        raise ConfigError(problem, remedy=f"leave {flag} out where {name} starts the processes{hint}")


def _plan_spawn(
    num_gpus: int | None, num_machines: int | None, machine_rank: int | None, dist_url: str | None
) -> LaunchPlan:
    local, machines = 1 if num_gpus is None else num_gpus, 1 if num_machines is None else num_machines
    for flag, number in (("--num-gpus", local), ("--num-machines", machines)):
        if number < 1:
            raise ConfigError(f"expected at least 1, got {number}", where=flag)
    most = PROCESSES_PER_CPU * (os.cpu_count() or 1)
    if local > most:
        problem = f"expected at most {most} processes, {PROCESSES_PER_CPU} for each CPU of this machine, got {local}"
        raise ConfigError(problem, where="--num-gpus", remedy="start one process per GPU")
    machine_rank = machine_rank or 0
    if machine_rank < 0:
        raise ConfigError(f"expected at least 0, got {machine_rank}", where="--machine-rank")
    _check_order(("--machine-rank", machine_rank), ("--num-machines", machines))
    plan = LaunchPlan(SPAWN, machine_rank * local, 0, machines * local, local, LOOPBACK, store_is_served=True)
    if plan.world_size == 1:
        return LaunchPlan()
    if dist_url in (None, "auto"):
        if machines > 1:
            problem = f"--num-machines is {machines}, but --dist-url does not say where the machines meet"
            raise ConfigError(problem, remedy="give each the same --dist-url tcp://HOST:PORT of the first machine")
        return plan
    parts = urlsplit(str(dist_url))
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or not port:
        raise ConfigError(f"expected tcp://HOST:PORT or auto, got {dist_url!r}", where="--dist-url")
    return replace(plan, address=parts.hostname, port=port)


def _join_names(names: Sequence[str]) -> str:
    """One "is", two "and ... are", more with commas before the last."""
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def _find(variables: Mapping[str, str], *names: str) -> str:
    """The first name that is set, or ""."""
    return next((name for name in names if variables.get(name)), "")


def _read_number(variables: Mapping[str, str], name: str, minimum: int = 0, maximum: int | None = None) -> int:
    text = variables.get(name, "")
    if not text.isdecimal() or int(text) < minimum or (maximum is not None and int(text) > maximum):
        limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        got = f"got {text!r}" if text else "it is not set"
        raise ConfigError(f"expected a number {limits}, {got}", where=name, remedy="start with torchrun or srun")
    return int(text)


def _check_order(index: tuple[str, int], count: tuple[str, int]) -> None:
    if index[1] >= count[1]:
        raise ConfigError(f"{index[0]} is {index[1]}, but {count[0]} is {count[1]}", remedy="ranks start at 0")
