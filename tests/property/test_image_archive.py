"""An archive of an image with damaged bytes is taken whole or refused, and nothing else happens."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Invalid
from testbed_api.images import image_archive
from tests.services import image_archives as archives

WHOLE = archives.docker()
DIGEST = archives.digest(archives.config())


@given(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=600))
def test_an_archive_with_damage_is_the_same_image_or_refused(place, damage):
    archive = bytearray(WHOLE)
    archive[place : place + len(damage)] = damage
    try:
        image = image_archive.check(io.BytesIO(archive), 1_000_000)
    except Invalid as exc:
        assert 0 < len(exc.message) < 1_000  # noqa: PT017 - either outcome is right
    else:
        assert image.digest == DIGEST


@given(st.binary(max_size=3_000))
def test_any_bytes_are_refused(content):
    with pytest.raises(Invalid):
        image_archive.check(io.BytesIO(content), 1_000_000)
