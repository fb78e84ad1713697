"""Marks of tests that need a way to start processes that some systems lack."""

import multiprocessing
import sys

import pytest

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
needs_worker_processes = pytest.mark.skipif(sys.platform != "linux", reason="workers are processes only on Linux")
