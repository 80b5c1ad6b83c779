"""The server: live streams, remote bidding agents and the ledger; it imports the engine and knows no model class."""
