"""Settings of all tests."""

import hypothesis

# How long an example takes says more of what else the machine does.
hypothesis.settings.register_profile("maskfleet", deadline=None)
hypothesis.settings.load_profile("maskfleet")
