"""The guest side of Python inferlets: the package `cadenza` that they import, and the image that runs them."""
