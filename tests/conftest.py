"""What all tests share: hypothesis measures properties, not this machine's speed."""

from hypothesis import settings

# On top of what hypothesis has chosen: where CI is set, that is the same examples each time.
settings.register_profile("gristmill", parent=settings(), deadline=None)
settings.load_profile("gristmill")
