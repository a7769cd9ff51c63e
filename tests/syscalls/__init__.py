"""System calls against a real kernel, without Wasm: the test is the program."""
