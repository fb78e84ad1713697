"""The losses of many steps, read back from the device once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import detectron2.utils.comm as comm
import torch

COUNT = ""  # key of the number of steps


class LossSums:
    """Sums on the device, over steps and processes; steps with a loss that is not finite are left out.

    Every process must read at the same steps.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Add the losses of a step.

        Args:
            losses: name -> () float, on the device.
        """
        values = torch.stack([value.float() for value in losses.values()])
        is_finite = torch.isfinite(values.sum())
        terms = {**dict(zip(losses, torch.where(is_finite, values, 0.0), strict=True)), COUNT: is_finite.float()}
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def read(self) -> dict[str, float]:
        """Read the means and start again.

        Returns:
            On the main process name -> mean over steps and processes, and "total_loss"; empty if no finite loss was
            added, and on the other processes.
        """
        totals = torch.stack([*self._sums.values()]).tolist() if self._sums else []
        gathered = comm.gather(dict(zip(self._sums, totals, strict=True)))
        self._sums = {}
        sums: Counter[str] = Counter()
        for each in gathered:
            sums.update(each)
        if not (count := sums.pop(COUNT, 0)):
            return {}
        means = {name: total / count for name, total in sums.items()}
        return {"total_loss": sum(means.values()), **means}
