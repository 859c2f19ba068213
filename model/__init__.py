"""Token shards in, checkpoints and text out. Imports neither prefect nor the pipeline."""
