"""The model of these tests."""

import pytest
from running import CONFIG

from arcforge.model.initialise import new_model


@pytest.fixture(scope="module")
def model():
    return new_model(CONFIG, seed=1)
