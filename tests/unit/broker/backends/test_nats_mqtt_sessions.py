"""Where NATS keeps the session of a client id."""

from broker.backends.nats import mqtt_sessions


def test_a_session_is_kept_under_the_hash_that_the_server_makes():
    assert mqtt_sessions.subject("ada--k") == "$MQTT.sess.tXx9dg26"  # as nats-server 2.12 has it
