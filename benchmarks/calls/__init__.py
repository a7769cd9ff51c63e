"""What benchmarks/async_calls.py is made of: tasks, words, teachers and a device that says what they say."""
