"""What panoptic quality is made of (overlaps, matching, counts), and what tells why it is so."""
