"""Weights & Biases and MLflow: the numbers of a training in an experiment tracker, if it is installed and asked for.

OUTPUT_DIR/trackers.json has the ids of the runs there, with which a resumed training goes on.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from segkit.engine.training.writers import NumbersWriter
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.files import dump_json, load_json

TRACKERS = "trackers.json"
INVALID_IN_MLFLOW = re.compile(r"[^\w. :/-]")  # in the name of a metric

logger = logging.getLogger(__name__)


class Tracker(NumbersWriter):
    """Base class of writers to a tracker. If it fails during the training, the training goes on, with one warning.

    Args:
        cfg: the run's config.

    Raises:
        ConfigError: the package is not installed, or cannot be imported.
    """

    name = ""  # of the tracker
    key = ""  # of its config, and of its id in TRACKERS
    package = ""  # which pip installs
    function = ""  # which the module must have

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg.SOLVER.LOG_PERIOD)
        self.cfg, self.options = cfg, cfg.LOG[self.key]
        self.module = import_tracker(self)
        self._run: Any = None
        self._has_failed = False

    def start(self, first_iteration: int) -> None:
        """Begin a run of the tracker, or go on with the one of the training that is resumed.

        Args:
            first_iteration: above 0: the training is resumed.

        Raises:
            ConfigError: the tracker refuses.
        """
        super().start(first_iteration)
        path = Path(self.cfg.OUTPUT_DIR, TRACKERS)
        ids = _read_ids(path)
        try:
            run_id = self.open_run(ids.get(self.key) if first_iteration else None)
        except Exception as error:  # of its network, its server, its settings
            problem = f"{self.name} does not start a run: {' '.join(str(error).split())}"
            raise ConfigError(problem, where=f"LOG.{self.key}", remedy=f"set LOG.{self.key}.ENABLED False") from error
        dump_json(path, {**ids, self.key: run_id})

    def write_numbers(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """See base class. What is not finite is left out."""
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        with self._surviving():
            if finite:
                self.send(iteration, finite)

    def close(self) -> None:
        """End the run of the tracker: as finished, if the training is."""
        if self._run is not None:
            with self._surviving():
                self.end_run()
        self._run = None

    def open_run(self, run_id: str | None) -> str:
        """Open a run.

        Args:
            run_id: of the run to go on with; None: a run of its own.

        Returns:
            Its id.
        """
        raise NotImplementedError

    def send(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """Send numbers to the run.

        Args:
            iteration: from 0.
            numbers: by name, finite.
        """
        raise NotImplementedError

    def end_run(self) -> None:
        """End the run."""
        raise NotImplementedError

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._has_failed:
                text = "%s fails, and the training goes on: its numbers are in training.jsonl too (%s: %s)"
                logger.warning(text, self.name, type(error).__name__, " ".join(str(error).split()))
            self._has_failed = True


class WandbTracker(Tracker):
    """Writes to Weights & Biases. A resumed run keeps what it has: iterations that are repeated have the same numbers.

    Args:
        cfg: the run's config, with LOG.WANDB.
    """

    name, key, package, function = "Weights & Biases", "WANDB", "wandb", "init"

    def open_run(self, run_id: str | None) -> str:
        """See base class."""
        options: dict[str, Any] = {"id": run_id, "resume": "allow"} if run_id else {}
        if self.options.PROJECT:
            options["project"] = self.options.PROJECT
        if self.options.NAME:
            options["name"] = self.options.NAME
        config = _to_plain(self.cfg)
        self._run = self.module.init(dir=self.cfg.OUTPUT_DIR, config=config, allow_val_change=True, **options)
        return str(self._run.id)

    def send(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """See base class."""
        if iteration >= self._run.starting_step:  # it refuses steps that it has
            self._run.log({**numbers}, step=iteration)

    def end_run(self) -> None:
        """See base class."""
        self._run.finish(exit_code=0 if self.is_finished else 1)


class MlflowTracker(Tracker):
    """Writes to MLflow, in the background. The config is the artifact config.yaml.

    Args:
        cfg: the run's config, with LOG.MLFLOW.
    """

    name, key, package, function = "MLflow", "MLFLOW", "mlflow", "MlflowClient"

    def open_run(self, run_id: str | None) -> str:
        """See base class."""
        # Without names, MLflow reads its environment variables.
        client = self.module.MlflowClient(tracking_uri=self.options.URI or None)
        if run_id:
            client.update_run(run_id, status="RUNNING")
        else:
            name = self.options.EXPERIMENT or os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
            experiment = client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
            run_id = str(client.create_run(experiment_id, run_name=self.options.NAME or None).info.run_id)
        client.log_text(run_id, self.cfg.dump(), "config.yaml")
        self._run, self._run_id = client, run_id
        return run_id

    def send(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """See base class."""
        build_metric = importlib.import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        names = {name: INVALID_IN_MLFLOW.sub("_", name) for name in numbers}
        metrics = [build_metric(names[name], value, now, iteration) for name, value in numbers.items()]
        self._run.log_batch(self._run_id, metrics=metrics, synchronous=False)

    def end_run(self) -> None:
        """See base class."""
        self._run.set_terminated(self._run_id, status="FINISHED" if self.is_finished else "KILLED")


ALL = (WandbTracker, MlflowTracker)


def check_trackers(cfg: CfgNode) -> None:
    """Check that the trackers that the config asks for are installed.

    Args:
        cfg: config with segkit's keys.

    Raises:
        ConfigError: one is missing.
    """
    for tracker in ALL:
        if cfg.LOG[tracker.key].ENABLED:
            import_tracker(tracker)


def build_trackers(cfg: CfgNode) -> list[Tracker]:
    """Build the writers to the trackers that the config asks for.

    Args:
        cfg: config with segkit's keys.

    Returns:
        The writers.

    Raises:
        ConfigError: a package is missing.
    """
    return [tracker(cfg) for tracker in ALL if cfg.LOG[tracker.key].ENABLED]


def import_tracker(tracker: Tracker | type[Tracker]) -> Any:
    """Import the package of a tracker.

    Args:
        tracker: names it.

    Returns:
        The module.

    Raises:
        ConfigError: it is missing, or cannot be imported.
    """
    problem = f"{tracker.name} is asked for, but the package {tracker.package} is not installed"
    remedy = f"pip install {tracker.package}, or set LOG.{tracker.key}.ENABLED False"
    where = f"LOG.{tracker.key}.ENABLED"
    try:
        module = importlib.import_module(tracker.package)
    except ModuleNotFoundError as error:
        if error.name not in (None, tracker.package):
            problem = f"the package {tracker.package} cannot be imported: {error}"
        raise ConfigError(problem, where=where, remedy=remedy) from error
    except Exception as error:
        problem = f"the package {tracker.package} cannot be imported: {' '.join(str(error).split())}"
        raise ConfigError(problem, where=where, remedy=remedy) from error
    if not hasattr(module, tracker.function):  # a folder of this name, such as the one into which wandb writes
        raise ConfigError(problem, where=where, remedy=remedy)
    return module


def _read_ids(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        ids = load_json(path)
    except DatasetError as error:
        logger.warning("the run of the tracker is unknown, and another one begins: %s", error)
        return {}
    return ids if isinstance(ids, dict) else {}


def _to_plain(node: Any) -> Any:
    return {str(key): _to_plain(value) for key, value in node.items()} if isinstance(node, Mapping) else node
