"""On-disk formats: a file or a subpackage for each, which reads, checks and writes the files of users."""
