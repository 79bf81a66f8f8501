"""What a training will do and take, before it begins: steps, costs, time, memory, files, and what to change."""
