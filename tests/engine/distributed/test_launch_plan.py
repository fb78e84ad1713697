"""Who starts the processes of a job: torchrun, Slurm, segkit or nobody."""

from __future__ import annotations

import os

import pytest
import torch

from segkit.engine.distributed.joining import find_gpu
from segkit.engine.distributed.launch_plan import LaunchPlan, expand_hosts, plan_launch
from segkit.utils.errors import ConfigError

MOST = 4 * (os.cpu_count() or 1)
TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu01",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_TASKS_PER_NODE": "2(x4)",
    "SLURM_STEP_NODELIST": "gpu[03-05]",
    "SLURM_JOB_NODELIST": "gpu[03-06]",
    "SLURM_JOB_ID": "17042",
}


def test_torchruns_variables() -> None:
    plan = plan_launch(environment=TORCHRUN)
    assert plan == LaunchPlan("torchrun", 3, 1, 4, 2, "gpu01", 29400, store_is_served=True)
    assert plan.machine_rank == 1
    assert plan_launch(2, None, 0, "auto", environment=TORCHRUN) == plan
    # Started by srun, one for each machine: torchrun's own variables are the ones of this process.
    assert plan_launch(environment={**SLURM, **TORCHRUN}) == plan


def test_slurms_variables_of_the_step_go_before_those_of_the_job() -> None:
    hosts = ("gpu03", "gpu03", "gpu04", "gpu04", "gpu05", "gpu05")
    # 15000 + 17042 % 17000
    assert plan_launch(environment=SLURM) == LaunchPlan("slurm", 3, 1, 6, 2, "gpu03", 15042, hosts=hosts)
    address = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"}
    plan = plan_launch(environment={**SLURM, **address})
    assert (plan.address, plan.port) == ("10.0.0.1", 5000)
    # What container hooks add, without LOCAL_WORLD_SIZE.
    assert plan_launch(environment={**SLURM, **address, "RANK": "3", "WORLD_SIZE": "6", "LOCAL_RANK": "1"}) == plan


def test_few_variables_of_slurm_suffice_and_a_batch_script_gets_a_hint() -> None:
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_JOB_NODELIST", "SLURM_JOB_ID")
    plan = plan_launch(environment={name: SLURM[name] for name in names})
    assert (plan.world_size, plan.local_world_size, plan.address) == (8, 2, "gpu03")
    assert "srun" in plan.hint
    assert not plan_launch(environment=SLURM).hint


def test_a_slurm_job_of_one_task_starts_its_own_processes() -> None:
    variables = {**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert plan_launch(environment=variables) == LaunchPlan()
    assert plan_launch(4, environment=variables).launcher == "spawn"


@pytest.mark.parametrize(
    ("visible", "variables", "gpu"),
    [
        (1, {"SLURM_GPUS_PER_TASK": "1"}, 0),  # Slurm shows each task its own GPU
        (1, {"SLURM_TRES_PER_TASK": "cpu:8,gres/gpu:1"}, 0),
        (2, {"SLURM_GPUS_PER_TASK": "1"}, 1),  # Slurm shows all GPUs of the machine to each task
        (2, {}, 1),
        (1, {}, None),
        (0, {"SLURM_GPUS_PER_TASK": "1"}, None),
    ],
)
def test_the_gpu_of_a_slurm_task(
    visible: int, variables: dict[str, str], gpu: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**SLURM, **variables, "CUDA_VISIBLE_DEVICES": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    plan = plan_launch()
    assert (plan.launcher, plan.local_rank) == ("slurm", 1)
    if gpu is not None:
        assert find_gpu(plan) == gpu
        return
    with pytest.raises(
        ConfigError, match=rf"MODEL.DEVICE is cuda, but .* has {visible} GPUs for 2 processes; start one"
    ):
        find_gpu(plan)


def test_detectron2s_arguments() -> None:
    assert plan_launch(environment={}) == LaunchPlan("single", 0, 0, 1, 1)
    assert plan_launch(2, environment={}) == LaunchPlan("spawn", 0, 0, 2, 2, "127.0.0.1", 0, store_is_served=True)
    plan = plan_launch(4, 2, 1, "tcp://10.0.0.1:1234", environment={})
    assert plan == LaunchPlan("spawn", 4, 0, 8, 4, "10.0.0.1", 1234, store_is_served=True)
    # A Kubernetes operator says so of a pod without others.
    assert plan_launch(2, environment={"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "pod"}).launcher == "spawn"


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("gpu[03-05,9],x1", ["gpu03", "gpu04", "gpu05", "gpu9", "x1"]),
        ("a", ["a"]),
        ("r[1-2]n[08-09]-ib", ["r1n08-ib", "r1n09-ib", "r2n08-ib", "r2n09-ib"]),
        ("n[99-101]", ["n99", "n100", "n101"]),
    ],
)
def test_names_of_hosts(hosts: str, names: list[str]) -> None:
    assert expand_hosts(hosts) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gpus": 4}, "--num-gpus is 4, but {launcher} started 2 processes on this machine; leave --num-gpus out"),
        ({"num_machines": 2}, "--num-machines is 2, but {launcher} starts the processes"),
        ({"num_machines": 1}, "--num-machines is 1, but {launcher} starts the processes"),
        ({"machine_rank": 1}, "--machine-rank is 1, but {launcher} gives the ranks"),
        ({"dist_url": "tcp://x:1"}, "--dist-url is tcp://x:1, but {launcher} says that the processes meet at gpu0"),
    ],
)
@pytest.mark.parametrize(("launcher", "variables"), [("torchrun", TORCHRUN), ("Slurm", SLURM)])
def test_arguments_that_contradict_the_launcher(
    launcher: str, variables: dict[str, str], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_launch(**arguments, environment=variables)  # type: ignore[arg-type]
    assert message.format(launcher=launcher) in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            "RANK and WORLD_SIZE are set, but LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT are not",
        ),
        (
            {"LOCAL_RANK": "0"},
            "LOCAL_RANK is set, but RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT are not",
        ),
        ({**TORCHRUN, "MASTER_PORT": ""}, "MASTER_PORT is not; start with torchrun"),
        ({**TORCHRUN, "RANK": "four"}, "RANK: expected a number of at least 0, got 'four'"),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, "MASTER_PORT: expected a number from 0 to 65535, got '70000'"),
        ({**TORCHRUN, "RANK": "4"}, "RANK is 4, but WORLD_SIZE is 4"),
        ({**TORCHRUN, "LOCAL_RANK": "2"}, "LOCAL_RANK is 2, but LOCAL_WORLD_SIZE is 2"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "3"}, "WORLD_SIZE is 4, but LOCAL_WORLD_SIZE is 3"),
        ({**SLURM, "SLURM_PROCID": "6"}, "SLURM_PROCID is 6, but SLURM_STEP_NUM_TASKS is 6"),
        ({**SLURM, "SLURM_LOCALID": ""}, "SLURM_LOCALID: expected a number of at least 0, it is not set"),
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4,2"},
            "but SLURM_STEP_TASKS_PER_NODE is 4,2; ask for the same number",
        ),
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x4)"},
            "the job has 6 tasks, but SLURM_STEP_TASKS_PER_NODE is 2(x4)",
        ),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "two"}, "SLURM_STEP_TASKS_PER_NODE: expected numbers of tasks"),
        ({**SLURM, "SLURM_STEP_NODELIST": "gpu[a-b]"}, "expected host names such as gpu[01-04], got 'gpu[a-b]'"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "x"}, "SLURM_STEP_NUM_TASKS: expected a number of at least 1, got 'x'"),
    ],
)
def test_variables_that_contradict_each_other(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_launch(environment=variables)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "--num-gpus: expected at least 1, got 0"),
        ((1_000_000,), f"--num-gpus: expected at most {MOST} processes, 4 for each CPU of this machine, got 1000000"),
        ((1, 2), "--num-machines is 2, but --dist-url does not say where the machines meet"),
        ((1, 2, 2, "tcp://a:1"), "--machine-rank is 2, but --num-machines is 2"),
        ((1, 2, -1, "tcp://a:1"), "--machine-rank: expected at least 0, got -1"),
        ((2, 1, 0, "file:///tmp/x"), "--dist-url: expected tcp://HOST:PORT or auto, got 'file:///tmp/x'"),
        ((2, 1, 0, "tcp://a:99999"), "--dist-url: expected tcp://HOST:PORT or auto, got 'tcp://a:99999'"),
    ],
)
def test_arguments_that_contradict_each_other(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_launch(*arguments, environment={})  # type: ignore[arg-type]
    assert message in str(caught.value)
