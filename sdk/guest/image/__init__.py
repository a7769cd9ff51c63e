"""What the interpreter image adds to CPython: it runs a payload of source files as a program of the kernel."""
