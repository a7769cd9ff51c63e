"""The Wasm runtime: programs are compiled in a child process and run as guests on fibers, all on the event loop's thread."""
