"""Variables that nobody reads and settings without an effect, as a start warns of them."""

from pydantic import SecretStr

from testbed.server import unused_settings
from testbed_api.settings import ServerSettings


def test_a_variable_that_nobody_reads_is_named_with_the_nearest_one():
    environment = dict.fromkeys(
        [
            *("TESTBED_LIMTI_STREAMS", "TESTBED_NONSENSE", "OTHER_LIMIT"),
            *("TESTBED_LIMIT_STREAMS", "TESTBED_STORE_TOKEN_FILE", "TESTBED_PROFILE"),
            *("TESTBED_SPOOL_BYTES", "TESTBED_ADMINISTRATOR_CREDENTIAL_FILE", "TESTBED_INPUTS"),
        ],
        "1",
    )
    assert list(unused_settings.unread(environment)) == [
        ("TESTBED_LIMTI_STREAMS", "TESTBED_LIMIT_STREAMS"),
        ("TESTBED_NONSENSE", ""),
    ]


def test_a_setting_that_needs_another_one_is_named_with_it():
    alone = ServerSettings(
        notify_webhook_secret=SecretStr("x" * 16), notify_smtp_from="a@b.example", store_ca=""
    )
    assert list(unused_settings.without_effect(alone)) == [
        ("TESTBED_NOTIFY_WEBHOOK_SECRET", "TESTBED_NOTIFY_WEBHOOK"),
        ("TESTBED_NOTIFY_SMTP_FROM", "TESTBED_NOTIFY_SMTP"),
    ]
    together = alone.model_copy(
        update={"notify_webhook": "https://h.example", "notify_smtp": "smtp://h"}
    )
    assert list(unused_settings.without_effect(together)) == []


def test_a_child_process_does_not_get_what_was_warned_of():
    own = ServerSettings(notify_smtp_user="fay")
    used = {"TESTBED_LIMIT_STREAMS": "1", "LANG": "C"}
    unused = {"TESTBED_LIMTI_STREAMS": "1", "TESTBED_NOTIFY_SMTP_USER": "fay"}
    assert unused_settings.without_unused(own, used | unused) == used
