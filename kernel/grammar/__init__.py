"""What may be said, as a grammar: compiled, followed token by token, and taken back."""
