"""Every test runs the mechanism with its array shapes and types checked at each call; users pay nothing for that."""

from jaxtyping import install_import_hook

MODULES_OF_ARRAYS = (
    "aggregation",
    "clearing",
    "geometric_path",
    "myerson_integral",
    "pricing",
    "properties",
    "randomness",
    "sampling",
    "shaping",
    "summation",
)

install_import_hook([f"tokenauction.engine.{name}" for name in MODULES_OF_ARRAYS], "beartype.beartype")
