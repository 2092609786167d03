"""A product that is built from source is built in the version that the tests ask for."""

import re
from pathlib import Path

import pytest

from tests.services import influxd, telegraf

SERVICES = Path(__file__).parents[1] / "services"
PRODUCTS = {
    "influxd": ("github.com/influxdata/influxdb/v2", influxd.VERSION),
    "telegraf": ("github.com/influxdata/telegraf", telegraf.VERSION),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_module_build_and_test_name_one_version(name):
    module, version = PRODUCTS[name]
    requirements = (SERVICES / name / "go.mod").read_text(encoding="utf-8")
    assert re.search(rf"{re.escape(module)} v{re.escape(version)}\b", requirements)
    script = (SERVICES / name / "build").read_text(encoding="utf-8")
    assert re.search(rf"^version={re.escape(version)}\b", script, re.MULTILINE)


def test_telegraf_of_other_plugins_is_another_binary():
    script = (SERVICES / "telegraf" / "build").read_text(encoding="utf-8")
    assert re.search(rf"^variant={telegraf.VARIANT}\b", script, re.MULTILINE)
