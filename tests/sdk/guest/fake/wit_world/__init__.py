"""Stands in for the bindings of the world `interpreter`: the same types, over a toy kernel."""


class WitWorld:
    pass
