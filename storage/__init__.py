"""What is on disk and in buckets: shards, manifests, snapshots, the catalog. Knows neither text rules nor tensors."""

import logging

# What the package does is told through `logging` to whoever asks; nobody has to, not even for warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())
