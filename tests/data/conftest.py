"""The mapper and the class counts look up specs that the models register."""

import segkit.modeling.meta_arch  # noqa: F401
