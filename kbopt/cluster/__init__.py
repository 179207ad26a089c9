"""The Ray actors: thin shells around an evaluation queue, the searches and the proposers."""

import os

# Read when Ray is imported. Under `uv run` Ray would pack the user's project and install it for each worker;
# the workers are to run in the driver's own environment.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
