"""Many trainings on many machines: workers that share a list of tasks, started on this machine or through SLURM."""
