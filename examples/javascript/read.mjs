// Reads the rig in JavaScript: its last minute with fetch, then each batch as it comes with mqtt.js.
// It needs Node 20 or newer and one package, `npm install mqtt`, and nothing of the testbed's own.

import mqtt from "mqtt";

const STREAM = "factory/pump-rig/rig";
const SIGNAL = "Pressure";
const { TESTBED_API, TESTBED_BROKER, TESTBED_CREDENTIAL } = process.env;
const SPACE = process.env.TESTBED_SPACE ?? "live";
const [principal, secret] = TESTBED_CREDENTIAL.split(".");

/** End with a sentence. */
function fail(sentence) {
  console.error(`error: ${sentence}`);
  process.exit(1);
}

/** The JSON that the API answers with; its error ends the program with its sentence. */
async function ask(path) {
  const headers = { Authorization: `Bearer ${TESTBED_CREDENTIAL}` };
  const url = `${TESTBED_API}/api/v1/streams/${STREAM}${path}`;
  const response = await fetch(url, { headers }).catch((error) => {
    fail(`${TESTBED_API} did not answer: ${error.cause?.message ?? error.message}`);
  });
  const answer = await response.json();
  if (!response.ok) fail(`${response.status}: ${answer.detail} ${answer.hint ?? ""}`);
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
const history = await ask(`/history?space=${SPACE}&signals=${SIGNAL}&from=${from}`);
const stored = history.frames.flatMap((frame) => valuesOf(frame, names));
console.log(`${stored.length} samples in the last minute, ${history.gaps.length} gaps`);

const client = mqtt.connect(TESTBED_BROKER, {
  clientId: `${principal}--js`,
  username: principal,
  password: secret,
  protocolVersion: 4,
});
client.on("connect", () => client.subscribe(`tb1/${SPACE}/data/${STREAM}`, { qos: 0 }));
client.on("error", (error) => fail(`the broker: ${error.message}`));
client.on("message", (_topic, payload) => {
  const batch = JSON.parse(payload);
  for (const value of batch.frames.flatMap((frame) => valuesOf(frame, names))) {
    console.log(SIGNAL, value);
  }
});
