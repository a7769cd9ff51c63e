"""The ABI: one short handler a call. Check and copy the arguments in, call the kernel, copy the answer out."""
