"""Check, repair, convert and count datasets."""
