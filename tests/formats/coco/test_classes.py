"""Class names and categories from a JSON."""

import json

import pytest

from segkit.formats.coco import read_classes
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError


def test_classes_from_json(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('["background", "tumour"]')
    assert read_classes(path) == ("background", "tumour")
    entries = [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]
    for content in (entries, {"categories": entries, "images": []}):
        path.write_text(json.dumps(content))
        classes = read_classes(path)
        assert isinstance(classes, CategorySet)
        assert [(c.category_id, c.isthing) for c in classes.categories] == [(7, False), (26, True)]
    path.write_text('[{"id": 7, "name": "road"}]')
    assert read_classes(path).categories[0].isthing
    for wrong in ("{}", "[]", "3", '["a", 1]', '{"categories": 3}', '{"0": "a"}', '[{"id": 1}]'):
        path.write_text(wrong)
        with pytest.raises(DatasetError, match=r"classes\.json"):
            read_classes(path)
