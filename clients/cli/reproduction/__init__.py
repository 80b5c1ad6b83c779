"""Both papers again: their experiments, over a toy world whose truth is known and over any language model."""
