"""What AP is made of: COCO's entries, matching and curves; Cityscapes' precision."""
