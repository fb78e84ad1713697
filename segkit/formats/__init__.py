"""One file per on-disk format, each with read, write and the checks between a user's files and the rest of segkit."""
