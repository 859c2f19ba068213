"""Raw text in, token shards out. Imports neither torch nor prefect."""

import logging

# What the package does is told through `logging` to whoever asks; nobody has to, not even for warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())
