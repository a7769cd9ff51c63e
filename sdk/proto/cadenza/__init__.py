"""Kept so that the .proto files lie under their package name, cadenza.v1."""
