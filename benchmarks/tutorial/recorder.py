"""What a tutorial would write to bring MQTT to InfluxDB: a Point a value, the client's batching.

For comparison only.  recorder.py MQTT-PORT USER PASSWORD INFLUXDB-URL TOKEN ORGANISATION BUCKET
"""

import json
import sys

import paho.mqtt.client as mqtt
from influxdb_client import InfluxDBClient, Point, WriteOptions


def main(port, user, password, url, token, organisation, bucket):
    influx = InfluxDBClient(url=url, token=token, org=organisation)
    writer = influx.write_api(WriteOptions(batch_size=5000, flush_interval=1000))

    def on_connect(client, _userdata, _flags, _reason, _properties):
        client.subscribe("factory/values", qos=1)

    def on_message(_client, _userdata, message):
        for sample in json.loads(message.payload):
            point = Point("values").tag("node", sample["node"])
            point = point.field("value", sample["value"]).time(sample["time"])
            writer.write(bucket=bucket, record=point)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="tutorial-recorder")
    client.username_pw_set(user, password)
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", int(port))
    print('{"event": "ready"}', flush=True)
    client.loop_forever()


main(*sys.argv[1:])
