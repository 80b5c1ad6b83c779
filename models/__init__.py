"""Language models behind one protocol (`base`): any causal LM of transformers, and an exactly solvable toy world."""
