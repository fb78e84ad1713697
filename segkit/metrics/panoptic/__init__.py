"""Parts of panoptic quality (overlaps, matching, counts), and the analyses of its errors."""
