"""Features of whole data sets, written to files: in shards, on any number of processes, going on where a job was killed."""
