"""The machine below: files, child processes, processors, memory and time."""
