// The connection of a prototype to the testbed, without the SDK: HTTP, MQTT and JSON.
// It needs Node 20 or newer, and `npm install` for the MQTT client.

import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const environment = process.env;
const SPACE = environment.TESTBED_SPACE ?? "live";
const CREDENTIAL =
  environment.TESTBED_CREDENTIAL ??
  readFileSync(environment.TESTBED_CREDENTIAL_FILE, "utf8").trim();
const [principal, secret] = CREDENTIAL.split(".");
const epoch = Date.now().toString(36); // this life of the program

/** End with a sentence: exit code 2 for what somebody must change, 3 for a fault of the testbed. */
function fail(sentence, code = 2) {
  console.error(`error: ${sentence}`);
  process.exit(code);
}

/** The address that a name stands for: NAME=ORGANISATION/EQUIPMENT/STREAM,… */
function bound(variable, name) {
  const pairs = (environment[variable] ?? "").split(",").map((pair) => pair.split("="));
  return Object.fromEntries(pairs)[name] ?? fail(`${variable} does not name ${name}`);
}

/** The JSON that the API answers with. */
async function ask(method, path, body) {
  const headers = { Authorization: `Bearer ${CREDENTIAL}`, "Content-Type": "application/json" };
  const url = `${environment.TESTBED_API}/api/v1${path}`;
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) }).catch(
    (error) => fail(`the API does not answer: ${error.message}`, 3),
  );
  const answer = await response.json();
  if (!response.ok) fail(`${response.status}: ${answer.detail} ${answer.hint ?? ""}`);
  return answer;
}

/** Rows of a frame: ns after its t0, and the good values by signal. */
function rowsOf(frame, names) {
  if (frame.values) {
    const columns = Object.entries(frame.values);
    return frame.dt.map((dt, at) => ({
      dt,
      values: Object.fromEntries(columns.map(([name, column]) => [name, column[at]])),
    }));
  }
  return frame.dt.map((dt, at) => ({
    dt,
    values: { [names[frame.signal[at]]]: frame.value[at] },
  }));
}

/** Connect, and hand each frame of the input to `work`, with a function that publishes its answer. */
export async function connect({ input, output, signals }, work) {
  const from = bound("TESTBED_INPUTS", input);
  const to = bound("TESTBED_OUTPUTS", output);
  const equipment = to.split("/").slice(0, 2).join("/");
  const [kind, source] = SPACE === "live" ? ["real", "live"] : ["simulated", "simulated"];
  await ask("PUT", `/equipment/${equipment}`, { name: principal, kind });
  const names = (await ask("GET", `/streams/${from}`)).spec.signals.map((each) => each.name);
  const spec = await ask("POST", `/streams/${to}/specs`, { signals });

  const client = await mqtt
    .connectAsync(environment.TESTBED_BROKER, {
      clientId: `${principal}--js`,
      username: principal,
      password: secret,
      protocolVersion: 4,
      ca: environment.TESTBED_CA && readFileSync(environment.TESTBED_CA),
    })
    .catch((error) => fail(`the broker: ${error.message}`, 3));
  client.stream.setNoDelay?.(true);
  client.on("error", (error) => fail(`the broker: ${error.message}`, 3));
  const send = (verb, address, message, options) =>
    client.publishAsync(`tb1/${SPACE}/${verb}/${address}`, JSON.stringify(message), {
      qos: 1,
      ...options,
    });

  let seq = 0;
  /** Publish samples beside the frame that they answer. */
  const publish = (t0) => async (dt, values) => {
    seq += 1;
    const pub = new Date().toISOString().replace("Z", "000000Z");
    const frames = [{ t0, dt, values }];
    await send("data", to, { v: 1, pub, spec: spec.version, source, epoch, seq, frames });
  };

  // In a scenario time passes in steps: a tick names the last batch of each input, and the program
  // answers once it has worked these off.
  const clock = `tb1/${SPACE}/clock/${equipment}`;
  const ready = (message) => send("ready", equipment, { v: 1, ...message });
  const arrived = {};
  let tick = null;
  let joining = null;
  async function answer() {
    const named = Object.entries(tick?.last[from] ?? {});
    if (tick === null || named.some(([life, last]) => (arrived[life] ?? 0) < last)) return;
    await ready({ quantum: tick.quantum, last: seq ? { [to]: { [epoch]: seq } } : {} });
    tick = null;
  }

  async function handle(topic, message) {
    if (topic === clock) {
      clearInterval(joining);
      tick = message;
    } else {
      for (const frame of message.frames) await work(rowsOf(frame, names), publish(frame.t0));
      if (message.epoch) arrived[message.epoch] = message.seq;
    }
    await answer();
  }
  let handled = Promise.resolve();
  client.on("message", (topic, payload) => {
    const message = JSON.parse(payload);
    handled = handled.then(() => handle(topic, message)).catch((error) => fail(error.message));
  });
  await send("spec", to, spec, { retain: true });
  await client.subscribeAsync(`tb1/${SPACE}/data/${from}`, { qos: 1 });
  if (environment.TESTBED_CLOCK === "run") {
    await client.subscribeAsync(clock, { qos: 1 });
    const join = () => ready({ quantum: null, last: {} });
    joining = setInterval(join, 500);
    await join();
  }
  console.log(`reading ${from}`);
  process.on("SIGTERM", () => client.end(false, {}, () => process.exit(0)));
}
