"""A prototype with an MQTT client and JSON alone: any language can do what this file does.

It reads the rig's batches, and publishes their mean pressure as a stream of its own.
It needs one package, `pip install paho-mqtt`, and nothing of the testbed's own.
"""

import json
import os
import sys
import time
import urllib.request
from contextlib import suppress
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

API = os.environ["TESTBED_API"] + "/api/v1"
PRINCIPAL, SECRET = os.environ["TESTBED_CREDENTIAL"].split(".")
SPACE = os.environ.get("TESTBED_SPACE", "live")
BROKER = urlsplit(os.environ["TESTBED_BROKER"])
INPUT, OUTPUT = "factory/pump-rig/rig", "company/plain/mean"


def ask(method: str, path: str, body: dict) -> dict:
    """Send a request to the API and return its response; its error ends the program."""
    request = urllib.request.Request(API + path, json.dumps(body).encode(), method=method)
    request.add_header("Authorization", f"Bearer {PRINCIPAL}.{SECRET}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except HTTPError as error:
        sys.exit(f"error: {json.load(error)['detail']}")
    except URLError as error:
        sys.exit(f"error: {API} did not answer: {error.reason}")


def on_message(client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
    """Answer each batch with the mean of its pressures."""
    batch = json.loads(message.payload)
    for frame in batch["frames"]:
        pressures = [
            value for value in frame.get("values", {}).get("Pressure", []) if value is not None
        ]
        if pressures:
            mean = sum(pressures) / len(pressures)
            answer = {"t0": frame["t0"], "dt": [0], "values": {"mean": [mean]}}
            publish(client, "data", {"spec": spec["version"], "source": source, "frames": [answer]})
            print("mean pressure", round(mean, 3), flush=True)


def publish(client: mqtt.Client, verb: str, document: dict, *, retain: bool = False) -> None:
    """Publish a document on one of our own topics."""
    if verb == "data":
        now = time.time_ns()
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        document |= {"v": 1, "pub": f"{whole}.{now % 10**9:09d}Z"}
    client.publish(f"tb1/{SPACE}/{verb}/{OUTPUT}", json.dumps(document), qos=1, retain=retain)


kind, source = ("real", "live") if SPACE == "live" else ("simulated", "simulated")
ask("PUT", "/equipment/company/plain", {"name": "plain", "kind": kind})
spec = ask("POST", f"/streams/{OUTPUT}/specs", {"signals": [{"name": "mean", "unit": "bar"}]})

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"{PRINCIPAL}--plain")
client.username_pw_set(PRINCIPAL, SECRET)
client.on_message = on_message
client.connect(BROKER.hostname, BROKER.port)
publish(client, "spec", spec, retain=True)
client.subscribe(f"tb1/{SPACE}/data/{INPUT}", qos=0)  # at QoS 1 a connection has three at most
with suppress(KeyboardInterrupt):  # Ctrl-C ends it
    client.loop_forever()
