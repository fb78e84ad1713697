"""The path after the network's heads: masks onto the image, the semantic map, fusion; where the tensors are."""
