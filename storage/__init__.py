"""What is on disk and in buckets: shards, manifests, snapshots, the catalog. Knows neither text rules nor tensors."""
