"""The privileged core: processes, the two schedulers, batches, devices, models, the Wasm runtime, limits."""
