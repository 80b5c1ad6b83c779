"""A streaming token-level auction engine: several advertisers' language models write one text, and pay for it."""

__version__ = "0.1.0"
