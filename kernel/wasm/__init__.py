"""The Wasm runtime: programs, compiled in a child process, run as guests on fibers of one thread."""
