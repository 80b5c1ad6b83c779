"""How the shipped checkpoint is made: corpus, training, evaluation; `python -m tokenauction.models.training --help`."""
