from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.report.labels import MAX_PER_CLASS, Label, Place, draw_labels, place_labels

SHAPE = (200, 300)


def place(*segments: tuple[str, bool, slice, slice]) -> tuple[np.ndarray, list[Place]]:
    """Segments (name, isthing, rows, columns), later ones over earlier ones."""
    numbers = np.zeros(SHAPE, dtype=np.int32)
    for number, (_, _, rows, columns) in enumerate(segments, 1):
        numbers[rows, columns] = number
    labels = [Label((name,), (200, 0, 0), isthing, (rows, columns)) for name, isthing, rows, columns in segments]
    return numbers, place_labels(numbers, labels)


def list_covered(numbers: np.ndarray, place: Place) -> set[int]:
    left, top, width, height = place.box
    return {*numbers[top : top + height, left : left + width].ravel().tolist()}


WALL = ("wall", False, slice(0, 200), slice(0, 300))


def test_small_things_come_before_large_ones_and_things_before_stuff():
    _, places = place(
        WALL,
        ("window", False, slice(10, 60), slice(10, 100)),
        ("bed", True, slice(110, 190), slice(20, 280)),
        ("chair", True, slice(20, 90), slice(150, 250)),
    )
    assert [p.text for p in places] == ["chair", "bed", "window", "wall"]


def test_a_name_is_in_the_thickest_part_of_its_segment():
    numbers, places = place(
        ("cat", True, slice(40, 180), slice(100, 280)), ("box", True, slice(40, 100), slice(100, 200))
    )
    cat = next(p for p in places if p.text == "cat")
    # the rest of the cat is an L: the block 100..180 x 100..280 is wider than the block 40..100 x 200..280
    assert list_covered(numbers, cat) == {1}
    assert cat.box[1] >= 100
    assert cat.box[1] + cat.box[3] <= 180


def test_the_name_of_a_small_thing_is_beside_it():
    numbers, places = place(WALL, ("vase", True, slice(100, 112), slice(150, 158)))
    vase = places[0]
    assert vase.text == "vase"
    assert list_covered(numbers, vase) == {1}
    left, top, width, height = vase.box
    assert max(left - 158, 150 - left - width, top - 112, 100 - top - height) <= 1  # next to it


def test_a_name_beside_does_not_hide_another_thing():
    cup, plate = ("cup", True, slice(100, 112), slice(150, 160)), ("plate", True, slice(80, 100), slice(140, 170))
    numbers, places = place(WALL, plate, cup)
    assert 2 not in list_covered(numbers, next(p for p in places if p.text == "cup"))


def test_specks_have_no_name():
    assert [p.text for p in place(WALL, ("fly", True, slice(50, 53), slice(50, 53)))[1]] == ["wall"]


def test_without_room_stuff_is_left_out():
    numbers = np.ones((30, 60), dtype=np.int32)
    floor, vase = (slice(0, 30), slice(0, 60)), (slice(0, 8), slice(26, 34))
    numbers[vase] = 2
    labels = [Label(("floor",), (0, 0, 0), False, floor), Label(("vase",), (0, 0, 0), True, vase)]
    # a plate is 13 pixels high and more than 20 wide: below the vase, it leaves no place for another one
    assert [p.text for p in place_labels(numbers, labels)] == ["vase"]
    labels[1] = Label((), (0, 0, 0), True, vase)
    assert [p.text for p in place_labels(numbers, labels)] == ["floor"]


def test_many_instances_have_names_on_the_largest():
    cells = [(slice(y, y + 30 + x // 30), slice(x, x + 25)) for y in (0, 45, 90, 135) for x in (0, 30, 60, 90)]
    _, places = place(WALL, *(("cell", True, *window) for window in cells))
    named = [p.number for p in places if p.text == "cell"]
    assert len(named) == MAX_PER_CLASS
    assert {number for number in named if (number - 2) % 4 >= 2} == {*named}  # the larger two of each row
    assert [p.text for p in place(*(("cell", True, *window) for window in cells))[1]] == ["cell"]


def test_the_score_is_left_out_if_there_is_no_room_for_it():
    def write(width: int) -> str:
        numbers = np.zeros((200, width), dtype=np.int32)
        numbers[50:150] = 1
        window = slice(50, 150), slice(0, width)
        return place_labels(numbers, [Label(("cat 0.93", "cat"), (0, 0, 0), True, window)])[0].text

    assert write(300) == "cat 0.93"
    assert write(40) == "cat"


def test_the_plate_has_the_segments_hue_and_white_text():
    canvas, numbers = np.full((*SHAPE, 3), 100, dtype=np.uint8), np.ones(SHAPE, dtype=np.int32)
    labels = [Label(("cat",), (200, 0, 0), True, (slice(0, 200), slice(0, 300)))]
    left, top, width, height = place_labels(numbers, labels)[0].box
    draw_labels(canvas, numbers, labels)
    # 100 * 0.3 + 0.7 * 0.25 * (200, 0, 0) = (65, 30, 30)
    assert canvas[top, left].tolist() == [65, 30, 30]
    assert (canvas[top : top + height, left : left + width] == 255).all(axis=2).any()
    canvas[top : top + height, left : left + width] = 100
    assert (canvas == 100).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cat", "a rather long name", "i", ""]),
            st.booleans(),
            st.tuples(st.integers(0, 199), st.integers(1, 200)).map(lambda pair: slice(pair[0], min(sum(pair), 200))),
            st.tuples(st.integers(0, 299), st.integers(1, 300)).map(lambda pair: slice(pair[0], min(sum(pair), 300))),
        ),
        max_size=12,
    )
)
def test_names_never_overlap_or_leave_the_image(segments):
    _, places = place(*segments)
    used = np.zeros(SHAPE, dtype=int)
    for _, text, _, (left, top, width, height) in places:
        assert text
        assert left >= 0
        assert top >= 0
        assert used[top : top + height, left : left + width].shape == (height, width)
        used[top : top + height, left : left + width] += 1
    assert used.max() <= 1
    assert place(*segments)[1] == places
