"""Trains the small model that ships with the system, on dialogues that this folder makes up itself."""
