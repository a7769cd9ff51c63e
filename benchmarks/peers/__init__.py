"""Other engines on the same weights, each in a process of its own. They are no part of the product."""
