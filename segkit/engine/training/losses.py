"""The losses of many steps, read back from the device once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist

COUNT = ""  # key of the number of steps


class LossSums:
    """Sums on the device, over steps and processes; steps with a loss that is not finite are left out.

    Every process must add the same losses and read at the same steps.
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
        """Read the means and begin anew.

        Returns:
            name -> mean over steps and processes, and "total_loss"; empty if no finite loss was added.
        """
        if not self._sums:
            return {}
        names, totals = [*self._sums], torch.stack([*self._sums.values()])
        self._sums = {}
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(totals)
        sums = dict(zip(names, totals.tolist(), strict=True))
        if not (count := sums.pop(COUNT)):
            return {}
        means = {name: total / count for name, total in sums.items()}
        return {"total_loss": sum(means.values()), **means}
