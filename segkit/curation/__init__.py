"""Looking after datasets: what is wrong with one, told in full, and the repaired copy."""
