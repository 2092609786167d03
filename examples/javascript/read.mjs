// Reads the rig in JavaScript: its last minute with fetch, then each batch as it comes with mqtt.js.
// It needs Node 20 or newer and one package, `npm install mqtt`, and nothing of the testbed's own.

import mqtt from "mqtt";

const STREAM = "factory/pump-rig/rig";
const SIGNAL = "Pressure";
const { TESTBED_API, TESTBED_BROKER, TESTBED_CREDENTIAL } = process.env;
const [principal, secret] = TESTBED_CREDENTIAL.split(".");

/** The JSON that the API answers with; an error holds its sentence. */
async function ask(path) {
  const headers = { Authorization: `Bearer ${TESTBED_CREDENTIAL}` };
  const response = await fetch(`${TESTBED_API}/api/v1/streams/${STREAM}${path}`, { headers });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.detail} ${answer.hint ?? ""}`);
  return answer;
}

/** The usable values of the signal in a frame of a batch; a bad sample is null. */
function valuesOf(frame, names) {
  const column = frame.values
    ? frame.values[SIGNAL] ?? []
    : frame.value.filter((_, at) => names[frame.signal[at]] === SIGNAL); // a long frame
  return column.filter((value) => value !== null);
}

const { spec } = await ask("");
const names = spec.signals.map((signal) => signal.name);
const from = new Date(Date.now() - 60_000).toISOString();
const history = await ask(`/history?signals=${SIGNAL}&from=${from}`);
const stored = history.frames.flatMap((frame) => valuesOf(frame, names));
console.log(`${stored.length} samples in the last minute, ${history.gaps.length} gaps`);

const client = mqtt.connect(TESTBED_BROKER, {
  clientId: `${principal}--js`,
  username: principal,
  password: secret,
  protocolVersion: 4,
});
client.on("connect", () => client.subscribe(`tb1/live/data/${STREAM}`, { qos: 1 }));
client.on("error", (error) => {
  console.error(`the broker: ${error.message}`);
  process.exit(1);
});
client.on("message", (_topic, payload) => {
  const batch = JSON.parse(payload);
  for (const value of batch.frames.flatMap((frame) => valuesOf(frame, names))) {
    console.log(SIGNAL, value);
  }
});
