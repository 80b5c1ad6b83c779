"""How a ledger's database came to its present form, one step a file, run by the ledger when it opens."""
