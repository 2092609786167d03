"""The secrets that the processes of one server share, where the broker is a service of its own."""

from collections.abc import Mapping

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from broker.backends.nats.server import Keys
from broker.credential import Credential
from broker.errors import Invalid
from broker.settings import PREFIX, Settings

API = "testbed-api"
RECORDER = "testbed-recorder"
RECONCILER = "testbed-reconciler"
ADMINISTRATOR = "administrator"
_NONE = SecretStr("")


class SharedSecrets(Settings):
    """What the broker, the API and the recorder must know of one another."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    broker_callout_password: SecretStr = Field(
        default=_NONE, description="password of who answers knocks at the broker's doors"
    )
    broker_system_password: SecretStr = Field(
        default=_NONE, description="password of who ends connections to the broker"
    )
    broker_signing_key: SecretStr = Field(
        default=_NONE, description="seed of the key (SA…) whose answers the broker believes"
    )
    api_credential: SecretStr = Field(
        default=_NONE, description="credential of the API itself, testbed-api.secret"
    )
    recorder_credential: SecretStr = Field(
        default=_NONE, description="credential of the recorder, testbed-recorder.secret"
    )
    administrator_credential: SecretStr = Field(
        default=_NONE, description="credential of the first administrator, administrator.secret"
    )

    def keys(self) -> Keys:
        """What the broker's server shares with us; raises Invalid if one is missing."""
        return Keys(
            self._given("broker_callout_password"),
            self._given("broker_system_password"),
            self._given("broker_signing_key"),
        )

    def system(self) -> Mapping[str, Credential]:
        """The parts' own credentials by principal; raises Invalid."""
        return {
            API: self._credential("api_credential", API),
            RECORDER: self._credential("recorder_credential", RECORDER),
        }

    def administrator(self) -> Credential:
        """The first administrator's; raises Invalid."""
        return self._credential("administrator_credential", ADMINISTRATOR)

    def _credential(self, name: str, principal: str) -> Credential:
        credential = Credential.parse(self._given(name))
        if credential.principal != principal:
            raise Invalid(f"{PREFIX}{name.upper()} is not the credential of {principal!r}")
        return credential

    def _given(self, name: str) -> str:
        secret: SecretStr = getattr(self, name)
        if not secret.get_secret_value():
            variable = f"{PREFIX}{name.upper()}"
            raise Invalid(
                f"{variable} is not set",
                hint=f"set {variable}_FILE to a file of `testbed secrets init`",
            )
        return secret.get_secret_value()
