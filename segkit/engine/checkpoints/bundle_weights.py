"""The weights of a bundle in the form of a checkpoint."""

from __future__ import annotations

from typing import Any

from segkit.engine.checkpoints.footer import DAMAGED, DamagedFileError
from segkit.utils.bundles import WEIGHTS, read_description, read_part

# Of the description: the classes, as in the entry "segkit" of a checkpoint.
CLASS_KEYS = ("categories", "thing_channels", "plugins")
ENTRIES = "entries"  # of the description: what else a checkpoint says of its weights, such as the iteration


def read_bundle_entries(path: str) -> dict[str, Any]:
    """What a bundle says of its weights.

    Args:
        path: the bundle.

    Returns:
        "segkit": the classes; the other entries of its checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged or no bundle.
    """
    description = read_description(path)
    entries = description.get(ENTRIES, {})
    if not isinstance(entries, dict) or any(key not in description for key in CLASS_KEYS):
        problem = f"expected {', '.join(CLASS_KEYS)} and {ENTRIES} in its description"
        raise DamagedFileError(problem, where=path, remedy=DAMAGED)
    return {**entries, "segkit": {key: description[key] for key in CLASS_KEYS}}


def load_bundle(path: str) -> dict[str, Any]:
    """Read the weights of a bundle.

    Args:
        path: the bundle.

    Returns:
        "model": name -> tensor on the CPU; and `read_bundle_entries`.

    Raises:
        CheckpointError: the file is missing, damaged or no bundle.
    """
    from safetensors.torch import load

    entries = read_bundle_entries(path)
    content = read_part(path, WEIGHTS)
    try:
        return {**entries, "model": load(content)}
    except Exception as error:  # the package has its own errors beside Python's
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise DamagedFileError(f"{WEIGHTS} in it cannot be read ({cause})", where=path, remedy=DAMAGED) from error
