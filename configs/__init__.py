"""The recipes. In a wheel this folder is the package segkit.configs; `segkit.utils.config_files` finds it anywhere."""
