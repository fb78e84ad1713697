"""The layers of a network that have a row for each class: which rows of other weights they keep, by the classes' names.

Fine-tuning (Girshick et al. 2014) replaces these layers. Rows of classes that both datasets have are worth keeping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch

from segkit.structures import CategorySet
from segkit.utils.text import abbreviate

BACKGROUND = object()  # the last row of a classifier of boxes or queries
# end of a layer's name -> (kind of its classes, rows of a class)
LAYERS = {
    "cls_score": ("scores", 1),
    "bbox_pred": ("things", 4),
    "mask_head.predictor": ("things", 1),
    "sem_seg_head.predictor": ("channels", 1),
    "predictor.class_embed": ("classes", 1),  # Mask2Former
    "head.class_head": ("classes", 1),  # EoMT
}


def list_class_layers(
    weights: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, str, int]]:
    """List the class layers that a file and a model share.

    Args:
        weights: name -> tensor of the file.
        model: name -> tensor of the model.

    Yields:
        (name of the tensor, kind of its classes: "scores", "things", "channels" or "classes", rows of a class). Layers
        that have the same rows for all classes (class-agnostic boxes and masks) are left out.
    """
    for name, weight in weights.items():
        layer = name.rpartition(".")[0]
        kind, rows = next((value for end, value in LAYERS.items() if layer.endswith(end)), ("", 0))
        if not kind or name not in model or model[name].shape[1:] != weight.shape[1:]:
            continue
        if kind == "things" and model[name].shape[0] == weight.shape[0] == rows:
            continue
        yield name, kind, rows


def keep_classes_by_name(
    weights: MutableMapping[str, Any],
    model: Mapping[str, torch.Tensor],
    saved: tuple[CategorySet, str],
    classes: tuple[CategorySet, str],
) -> tuple[list[str], list[str]]:
    """Give the class layers of a file the rows of the model, in place: those of classes of equal names are the file's.

    Args:
        weights: name -> tensor of the file; the tensors of class layers are replaced.
        model: name -> tensor of the model, whose rows other classes get.
        saved: (classes of the file, meaning of its semantic channels, see `CategorySet.build_semantic_space`).
        classes: the same of the model.

    Returns:
        (names of the classes whose rows are kept, names of the model's other classes), things before stuff.
    """
    saved_names, names = _list_names(*saved), _list_names(*classes)
    for name, kind, rows in list(list_class_layers(weights, model)):
        pairs = _match(saved_names[kind], names[kind])
        if len(weights[name]) != rows * len(saved_names[kind]) or len(model[name]) != rows * len(names[kind]):
            continue  # of another meaning: loaded by its shape, or not at all
        tensor = model[name].detach().clone()
        for theirs, ours in pairs:
            tensor[ours * rows : (ours + 1) * rows] = weights[name][theirs * rows : (theirs + 1) * rows].to(tensor)
        weights[name] = tensor
    known = {category.name.casefold() for category in saved[0].categories}
    all_names = [category.name for category in (*classes[0].things, *classes[0].stuff)]
    kept = [name for name in all_names if name.casefold() in known]
    return kept, [name for name in all_names if name.casefold() not in known]


def describe_class_layers(
    weights: Mapping[str, torch.Tensor],
    model: Mapping[str, torch.Tensor],
    kept: Sequence[str] | None,
    fresh: Sequence[str] = (),
) -> list[str]:
    """Say what a training keeps of the class layers of a file.

    Args:
        weights: name -> tensor of the file, before `keep_classes_by_name`.
        model: name -> tensor of the model.
        kept: the classes that are kept by name; None if all rows are kept or none, by the shape.
        fresh: the classes that are not kept.

    Returns:
        Lines of a table; empty if every layer is kept whole by its shape.
    """
    shapes = [(name, len(weights[name]), len(model[name])) for name, _, _ in list_class_layers(weights, model)]
    if kept is None and all(rows == needed for _, rows, needed in shapes):
        return []
    width = max([5, *(len(name) for name, _, _ in shapes)])
    lines = [f"{'layer':<{width}}  rows of the file  of the model  what is kept"]
    for name, rows, needed in shapes:
        what = "all rows" if rows == needed else "nothing: the layer starts afresh"
        what = what if kept is None else "rows of equal names"
        lines.append(f"{name:<{width}}  {rows:>16}  {needed:>12}  {what}")
    if kept is not None:
        lines.append(f"classes kept: {len(kept)}: {abbreviate(kept)}" if kept else "classes kept: none")
        lines.append(f"classes that start afresh: {len(fresh)}: {abbreviate(fresh)}" if fresh else "all are kept")
    return lines


def _list_names(categories: CategorySet, channels: str) -> dict[str, list[object]]:
    """Kind of classes -> the name of each row."""
    things: list[object] = [category.name.casefold() for category in categories.things]
    semantic = [name.casefold() for name in categories.build_semantic_space(channels).names]
    classes = [*semantic, BACKGROUND]
    return {"things": things, "scores": [*things, BACKGROUND], "channels": [*semantic], "classes": classes}


def _match(saved: Sequence[object], names: Sequence[object]) -> list[tuple[int, int]]:
    """(row of the file, row of the model) of equal names; the first one of the file if a name is repeated."""
    rows = {name: row for row, name in reversed(list(enumerate(saved)))}
    return [(rows[name], row) for row, name in enumerate(names) if name in rows]
