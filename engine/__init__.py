"""The mechanism and the loop around it; it knows no socket, no model class and no database."""
