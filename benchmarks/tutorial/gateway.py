"""What a tutorial would write to bring OPC UA to MQTT: asyncua's callbacks, a JSON list a second.

For comparison only.  gateway.py OPC-URL MQTT-PORT USER PASSWORD ITEMS
"""

import asyncio
import json
import sys

import paho.mqtt.client as mqtt
from asyncua import Client


class Handler:
    """Collects what the subscription brings."""

    def __init__(self):
        self.values = []

    def datachange_notification(self, node, value, data):
        moment = data.monitored_item.Value.SourceTimestamp
        self.values.append(
            {"node": node.nodeid.Identifier, "value": value, "time": moment.isoformat()}
        )


async def main(url, port, user, password, items):
    publisher = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="tutorial-gateway")
    publisher.username_pw_set(user, password)
    publisher.connect("127.0.0.1", int(port))
    publisher.loop_start()
    handler = Handler()
    async with Client(url) as client:
        nodes = [client.get_node(f"ns=1;s=Load.{item}") for item in range(int(items))]
        subscription = await client.create_subscription(1000, handler)
        for start in range(0, len(nodes), 500):
            await subscription.subscribe_data_change(nodes[start : start + 500], queuesize=100)
        while True:
            await asyncio.sleep(1)
            values, handler.values = handler.values, []
            if values:
                publisher.publish("factory/values", json.dumps(values), qos=1)


asyncio.run(main(*sys.argv[1:]))
