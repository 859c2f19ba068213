"""What all tests share: hypothesis measures properties, not this machine's speed, and each process takes one core."""

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # torch's threads would wait for each other, spinning
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# On top of what hypothesis has chosen: where CI is set, that is the same examples each time.
settings.register_profile("gristmill", parent=settings(), deadline=None)
settings.load_profile("gristmill")
