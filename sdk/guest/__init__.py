"""The guest side of Python inferlets: the package `cadenza` that they import, and the interpreter image that runs them."""
