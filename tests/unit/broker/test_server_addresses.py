"""Addresses of a testbed: which URLs are of the same API, and what is left to be said."""

from pathlib import Path

import pytest

from broker.errors import Invalid
from broker.server_addresses import ServerAddresses, server_of

SECRET = "qwertyuiopasdfghjklzxcvbnm0123456789"


@pytest.mark.parametrize(
    ("one_url", "other_url"),
    [
        ("http://127.0.0.1:8600", "http://127.0.0.1:8600/"),
        ("https://testbed.example", "https://Testbed.Example:443"),
        ("http://[::1]:8600/below/", "http://[::1]:8600/below"),
    ],
)
def test_two_ways_to_write_an_api_are_the_same_server(one_url, other_url):
    assert ServerAddresses.beside(one_url).is_of(other_url)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:8600", "http://127.0.0.1:8601", "http://localhost:8600"]
)
def test_another_scheme_port_or_host_is_another_server(url):
    assert not ServerAddresses().is_of(url)


@pytest.mark.parametrize(
    "url", ["", "localhost:8600", "testbed.example", "mqtt://h:1883", "http://", "http://h:99999"]
)
def test_what_is_no_address_of_an_api_is_said_with_the_form_of_one(url):
    with pytest.raises(Invalid, match="is not the address of an API") as raised:
        server_of(url)
    assert "http://host:port" in raised.value.hint


def test_a_secret_in_an_address_is_not_repeated():
    with pytest.raises(Invalid) as raised:
        server_of(f"http://fay:{SECRET}@h")
    assert SECRET not in str(raised.value)


def test_the_broker_is_expected_at_its_usual_port_on_the_host_of_the_api():
    assert ServerAddresses.beside("http://[::1]:8600").broker == "mqtt://[::1]:1883"
    assert ServerAddresses.beside("https://h.example/").broker == "mqtts://h.example:8883"


def test_the_environment_goes_before_what_is_known_variable_by_variable():
    known = ServerAddresses(api="https://a", broker="mqtts://b", ca=Path("ca.pem"))
    assert ServerAddresses.from_environment({"TESTBED_API": ""}, known) == known
    changed = ServerAddresses.from_environment({"TESTBED_BROKER": "mqtts://c"}, known)
    assert (changed.api, changed.broker, changed.ca) == ("https://a", "mqtts://c", Path("ca.pem"))


def test_the_options_name_what_is_not_usual():
    assert ServerAddresses().options() == ""
    elsewhere = ServerAddresses(api="https://h:8600", broker="mqtts://h:8883", ca=Path("x"))
    assert elsewhere.options() == "--api https://h:8600 --ca ca.pem"
    other_port = ServerAddresses(broker="mqtt://127.0.0.1:1884")
    assert other_port.options() == ""  # the API names its broker
