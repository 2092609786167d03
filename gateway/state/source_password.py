"""The password of a mapping's user at its source, from the mapping's own file or the settings."""

from pathlib import Path

from broker.errors import Invalid
from broker.process import files
from gateway.mapping.model import Mapping, MqttBroker
from gateway.settings import SourceSettings


def of_mapping(mapping: Mapping, settings: SourceSettings) -> str:
    """The password in the mapping's `password_file`, else TESTBED_SOURCE_PASSWORD; may be empty.

    Raises Invalid if the file cannot be read or is empty.
    """
    source = mapping.source
    login = source if isinstance(source, MqttBroker) else source.security
    if login is None or login.password_file is None:
        return settings.source_password.get_secret_value()
    return _read(login.password_file)


def _read(file: Path) -> str:
    text = files.read_secret(file, f"password_file: {file}")
    if not text:
        raise Invalid(f"password_file: {file} is empty", hint="write the password into it")
    return text
