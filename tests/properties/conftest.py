"""Property tests: the same examples each time, and few enough to be quick."""

import contextlib
import importlib.util

collect_ignore_glob = []
if importlib.util.find_spec("hypothesis") is None:  # of the extra "dev"
    collect_ignore_glob.append("test_*.py")

with contextlib.suppress(ImportError):
    from hypothesis import settings

    settings.register_profile(
        "tests", derandomize=True, deadline=None, max_examples=25, database=None
    )
    settings.load_profile("tests")
