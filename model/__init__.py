"""Token shards in, checkpoints and text out. Imports neither prefect nor the pipeline."""

import logging

# What the package does is told through `logging` to whoever asks; nobody has to, not even for warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())
