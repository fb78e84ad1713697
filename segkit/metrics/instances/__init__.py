"""Parts of COCO's average precision: matching and curves."""
