"""upsnet, efficientps and mask_argmax as in their papers: pixel by pixel, without the code of segkit.fusion.

Only the results of `compute_crop_probs`, exp and log are used, so that floats are equal to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.fusion.paste import compute_crop_probs, paste_masks
from segkit.structures import HeadOutputs, InstanceMasks, PanopticSegmentation, SemanticScores

NO_OWNER = None
Label = tuple[str, int] | None


def drawn(probs: Any, scores: Any, class_ids: Any, boxes: Any = None) -> InstanceMasks:
    """Returns instances with the given probability at each pixel of their boxes; by default boxes fill the image.

    Boxes have integer corners, so that each pixel is a block of equal cells of the mask.
    """
    drawn_probs = np.array(probs, dtype=np.float32)
    size_hw = (drawn_probs.shape[1], drawn_probs.shape[2])
    if boxes is None:
        boxes = [[0, 0, size_hw[1], size_hw[0]]] * len(drawn_probs)
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    cells_hw = [math.lcm(*(int(b[axis + 2] - b[axis]) for b in boxes)) for axis in (1, 0)]
    mask_probs = np.zeros((len(boxes), *cells_hw), dtype=np.float32)
    for instance_probs, (x0, y0, x1, y1), cells in zip(drawn_probs, boxes.astype(int), mask_probs, strict=True):
        times = cells_hw[0] // (y1 - y0), cells_hw[1] // (x1 - x0)
        cells[:] = instance_probs[y0:y1, x0:x1].repeat(times[0], axis=0).repeat(times[1], axis=1)
    return paste_masks(mask_probs, boxes, np.array(scores, np.float32), np.array(class_ids, np.int64), size_hw)


def semantic(logits: Any, stuff_ids: Any, thing_ids: Any) -> SemanticScores:
    """Dense logits (C, H, W) and the channels that follow from them."""
    dense = np.array(logits, dtype=np.float32)
    return SemanticScores(
        channels=dense.argmax(axis=0), stuff_ids=np.array(stuff_ids), thing_ids=np.array(thing_ids), logits=dense
    )


def highest(scores_of_head: SemanticScores, count: int) -> SemanticScores:
    """Returns scores with only the `count` highest logits of each pixel; of equal logits the last channel is first."""
    assert scores_of_head.logits is not None
    backwards = np.argsort(-scores_of_head.logits[::-1], axis=0, kind="stable")[:count]
    order = len(scores_of_head.logits) - 1 - backwards
    highest_logits = np.take_along_axis(scores_of_head.logits, order, axis=0)
    return SemanticScores(
        channels=scores_of_head.channels,
        stuff_ids=scores_of_head.stuff_ids,
        thing_ids=scores_of_head.thing_ids,
        logits=highest_logits,
        logit_channels=order.astype(np.uint8),
    )


def scene(seed: int, *, ties: bool, shared: bool, stuff_masks: bool = False) -> HeadOutputs:
    """Up to 6 instances, 5 channels; ties: few distinct numbers; shared: one channel for all things."""
    rng = np.random.default_rng(seed)
    size_hw = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    logits = rng.normal(0, 3, (5, *size_hw))
    logits = np.round(logits / 2) if ties else logits
    stuff_ids, thing_ids = ([2, 0, 1, 3, 4], [-1] * 5) if shared else ([1, 0, 0, 2, 0], [-1, 0, 1, -1, 2])
    instances = _masks(rng, size_hw, ties, (0, 3))
    stuff = _masks(rng, size_hw, ties, (1, 4)) if stuff_masks else None
    return HeadOutputs(instances, semantic(logits, stuff_ids, thing_ids), stuff)


def _masks(rng: np.random.Generator, size_hw: tuple[int, int], ties: bool, classes: tuple[int, int]) -> InstanceMasks:
    count = int(rng.integers(0, 7))
    low = rng.uniform(-2, np.array(size_hw[::-1]), (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 8, (count, 2))], axis=1)
    probs = rng.random((count, 4, 4)) ** rng.choice([0.2, 1, 3], (count, 1, 1))
    scores = rng.uniform(0.3, 1, count)
    if ties:
        boxes, scores = np.round(boxes), rng.choice([0.5, 0.9], count)
        probs = rng.choice([0.0, 0.25, 0.5, 1.0], (count, 4, 4))
    class_ids = rng.integers(*classes, count)
    return paste_masks(
        probs.astype(np.float32), boxes.astype(np.float32), scores.astype(np.float32), class_ids, size_hw
    )


def upsnet(method: Any, outputs: HeadOutputs) -> list[Any]:
    instances = outputs.instances
    rows = [row for row in sort_by_score(instances) if instances.scores[row] >= method.instance_score_threshold]
    remaining_rows: list[int] = []
    for row in rows:
        if all(
            box_iou(instances.boxes_xyxy[row], instances.boxes_xyxy[other]) <= method.nms_threshold
            for other in remaining_rows
        ):
            remaining_rows.append(row)
    selected = pruned(instances, remaining_rows, method.overlap_threshold, lambda row: instances.class_ids[row])
    boxed, mask_logits = in_boxes(instances), compute_mask_logits(instances)

    def owner(y: int, x: int) -> Label:
        by_channel, lowest = channels_at(outputs.semantic, y, x)
        line = stuff_line(outputs.semantic, by_channel, lowest)
        x_mask = []
        for row in selected:
            value = class_logit(outputs.semantic, instances, row, by_channel, lowest)
            x_mask.append(value if boxed[row][y, x] else np.float32(0))
            if boxed[row][y, x]:
                line.append((value + mask_logits[row][y, x], ("thing", row)))
        thing_logits = {c: v for c, v in by_channel.items() if outputs.semantic.stuff_ids[c] == 0}
        if method.unknown_class and (outputs.semantic.stuff_ids == 0).any():
            line.append((max(thing_logits.values(), default=lowest) - max(x_mask, default=np.float32(0)), NO_OWNER))
        return first_of_highest(line)

    return summarize_owners(outputs, owner, selected, method.stuff_area_limit_px)


def efficientps(method: Any, outputs: HeadOutputs) -> list[Any]:
    instances = outputs.instances
    rows = [row for row in sort_by_score(instances) if instances.scores[row] >= method.instance_score_threshold]
    selected = pruned(instances, rows, method.overlap_threshold, lambda row: 0)
    boxed, ml_a, probs = in_boxes(instances), compute_mask_logits(instances), clipped(instances)

    def owner(y: int, x: int) -> Label:
        by_channel, lowest = channels_at(outputs.semantic, y, x)
        line = stuff_line(outputs.semantic, by_channel, lowest)
        for row in selected:
            if boxed[row][y, x]:
                ml_b = class_logit(outputs.semantic, instances, row, by_channel, lowest)
                sigmoid = np.float32(1) / (np.float32(1) + np.exp(-ml_b))
                line.append(((probs[row][y, x] + sigmoid) * (ml_a[row][y, x] + ml_b), ("thing", row)))
        won = first_of_highest(line)
        best = int(outputs.semantic.stuff_ids[outputs.semantic.channels[y, x]])
        return won if won and won[0] == "thing" else (("stuff", best) if best else NO_OWNER)

    return summarize_owners(outputs, owner, selected, method.stuff_area_limit_px)


def mask_argmax(method: Any, outputs: HeadOutputs) -> list[Any]:
    """Candidates are (kind, row): "stuff" of stuff_masks, "channel" of the semantic head, "thing"."""
    instances, stuff = outputs.instances, outputs.stuff_masks
    groups = [("stuff", stuff)] if stuff is not None else []
    masks = {
        (kind, row): (group.scores[row], spread(group)[row], inside_crops(group)[row])
        for kind, group in [*groups, ("thing", instances)]
        for row in sort_by_score(group)
        if group.scores[row] > np.float32(method.object_mask_threshold)
    }
    won: dict[tuple[str, int], set[tuple[int, int]]] = {name: set() for name in masks}
    channels: dict[tuple[int, int], int] = {}
    for y, x in pixels(outputs):
        line: list[tuple[Any, Any]] = [] if stuff is not None else [softmax_entry(outputs.semantic, y, x)]
        line += [(score * p[y, x], name) for name, (score, p, inside) in masks.items() if inside[y, x]]
        owner = first_of_highest(line)
        if owner in won:
            won[owner].add((y, x))
        elif owner and outputs.semantic.stuff_ids[outputs.semantic.channels[y, x]]:
            channels[y, x] = owner[1]
    labels: dict[tuple[int, int], Label] = {}
    for (kind, row), won_pixels in won.items():
        own = {pixel for pixel in pixels(outputs) if masks[kind, row][1][pixel] >= 0.5 and masks[kind, row][2][pixel]}
        if own and won_pixels & own and len(won_pixels) / len(own) >= method.overlap_threshold:
            label = ("thing", row) if kind == "thing" or stuff is None else ("stuff", int(stuff.class_ids[row]))
            labels.update(dict.fromkeys(won_pixels & own, label))
    labels.update({pixel: ("stuff", int(outputs.semantic.stuff_ids[c])) for pixel, c in channels.items()})
    rows = [row for kind, row in masks if kind == "thing"]
    return summarize_owners(outputs, lambda y, x: labels.get((y, x)), rows, method.stuff_area_limit_px)


def softmax_entry(scores_of_head: SemanticScores, y: int, x: int) -> tuple[Any, Any]:
    """Rounds exponentials to steps of 2^-24, so that their sum is exact."""
    by_channel, lowest = channels_at(scores_of_head, y, x)
    top = max(by_channel.values())
    power = {c: int(np.rint(np.exp(v - top) * np.float32(2**24))) for c, v in by_channel.items()}
    unknown = len(scores_of_head.stuff_ids) - len(by_channel)
    total = sum(power.values()) + unknown * int(np.rint(np.exp(lowest - top) * np.float32(2**24)))
    value, name = max(stuff_line(scores_of_head, by_channel, lowest), key=lambda entry: entry[0])
    channel = next(
        (c for c in sorted(by_channel) if name and by_channel[c] == value and scores_of_head.stuff_ids[c]), None
    )
    prob = np.float32(np.rint(np.exp(value - top) * np.float32(2**24)) / np.float64(total))
    return prob, NO_OWNER if channel is None else ("channel", channel)


def sort_by_score(masks: InstanceMasks) -> list[int]:
    return sorted(range(len(masks)), key=lambda row: (-masks.scores[row], row))


def box_iou(first: Any, second: Any) -> float:
    a, b = [float(v) for v in first], [float(v) for v in second]
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / either if either > 0 else 0.0


def pruned(
    instances: InstanceMasks, rows: list[int], threshold: float, get_canvas_key: Callable[[int], Any]
) -> list[int]:
    full, canvases, selected = instances.to_full(), {}, []
    for row in rows:
        own = {tuple(pixel) for pixel in np.argwhere(full[row]).tolist()}
        canvas: set[Any] = canvases.setdefault(get_canvas_key(row), set())
        if own and len(own & canvas) / len(own) <= threshold:
            canvas |= own
            selected.append(row)
    return selected


def spread(masks: InstanceMasks) -> NDArray[np.float32]:
    full = np.zeros((len(masks), *masks.size_hw), dtype=np.float32)
    for row in range(len(masks)):
        full[row][masks.window(row)] = compute_crop_probs(masks, row)
    return full


def inside_crops(masks: InstanceMasks) -> NDArray[np.bool_]:
    full = np.zeros((len(masks), *masks.size_hw), dtype=np.bool_)
    for row in range(len(masks)):
        full[row][masks.window(row)] = True
    return full


def in_boxes(masks: InstanceMasks) -> NDArray[np.bool_]:
    full = inside_crops(masks)
    for row, (x0, y0, x1, y1) in enumerate(masks.boxes_xyxy.tolist()):
        for y, x in np.argwhere(full[row]).tolist():
            full[row, y, x] = x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1
    return full


def clipped(masks: InstanceMasks) -> NDArray[np.float32]:
    return np.clip(spread(masks), np.float32(1e-4), 1 - np.float32(1e-4))


def compute_mask_logits(masks: InstanceMasks) -> NDArray[np.float32]:
    probs = clipped(masks)
    logits: NDArray[np.float32] = np.log(probs / (1 - probs))
    return logits


def channels_at(scores_of_head: SemanticScores, y: int, x: int) -> tuple[dict[int, Any], Any]:
    """Returns the stored logits by channel, and the logit of all other channels."""
    assert scores_of_head.logits is not None
    if scores_of_head.logit_channels is None:
        return {c: scores_of_head.logits[c, y, x] for c in range(len(scores_of_head.logits))}, np.float32(-np.inf)
    won_pixels = zip(scores_of_head.logit_channels[:, y, x].tolist(), scores_of_head.logits[:, y, x], strict=True)
    return dict(won_pixels), scores_of_head.logits[-1, y, x]


def stuff_line(scores_of_head: SemanticScores, by_channel: dict[int, Any], lowest: Any) -> list[tuple[Any, Label]]:
    stuff_id_by_channel = {c: int(i) for c, i in enumerate(scores_of_head.stuff_ids) if i}
    line: list[tuple[Any, Label]] = [
        (by_channel[c], ("stuff", i)) for c, i in stuff_id_by_channel.items() if c in by_channel
    ]
    return line or [(lowest if stuff_id_by_channel else np.float32(-np.inf), NO_OWNER)]


def class_logit(
    scores_of_head: SemanticScores, instances: InstanceMasks, row: int, by_channel: dict[int, Any], lowest: Any
) -> Any:
    own = [c for c, i in enumerate(scores_of_head.thing_ids) if i == instances.class_ids[row]]
    shared = [c for c, i in enumerate(scores_of_head.stuff_ids) if i == 0 and scores_of_head.thing_ids[c] == -1]
    return by_channel.get((own or shared)[0], lowest)


def first_of_highest(line: list[tuple[Any, Any]]) -> Any:
    best, owner = -np.inf, NO_OWNER
    for value, name in line:
        if value > best:
            best, owner = value, name
    return owner


def pixels(outputs: HeadOutputs) -> list[tuple[int, int]]:
    height, width = outputs.semantic.size_hw
    return [(y, x) for y in range(height) for x in range(width)]


def summarize_owners(
    outputs: HeadOutputs, owner: Callable[[int, int], Label], rows: list[int], area_limit_px: float
) -> list[Any]:
    """Returns the map, and (class, score, row, pixels) of each segment: things in the order of `rows`, then stuff."""
    owners = {pixel: owner(*pixel) for pixel in pixels(outputs)}
    area = {label: sum(second == label for second in owners.values()) for label in owners.values() if label}
    stuff = sorted(i for kind, i in area if kind == "stuff" and area[kind, i] >= area_limit_px)
    line = [("thing", row) for row in rows if ("thing", row) in area] + [("stuff", i) for i in stuff]
    number = {label: pixel for pixel, label in enumerate(line, 1)}
    height, width = outputs.semantic.size_hw
    ids = [[number.get(owners[y, x], 0) for x in range(width)] for y in range(height)]
    instances = outputs.instances
    segments = [
        (int(instances.class_ids[i]), float(instances.scores[i]), i, area[kind, i])
        if kind == "thing"
        else (i, None, None, area[kind, i])
        for kind, i in line
    ]
    return [ids, segments]


def summarize(fused: PanopticSegmentation) -> list[Any]:
    """Returns a segmentation in the form of `summarize_owners`."""
    assert [s.segment_id for s in fused.segments] == [*range(1, len(fused.segments) + 1)]
    return [
        fused.segment_ids.tolist(),
        [(s.category_id, s.score, s.instance_id, s.area_px) for s in fused.segments],
    ]
