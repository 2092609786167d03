// Says how thick a part of the press becomes, while it is still being pressed.
// The model is a few coefficients in model.json; testbed.mjs is the connection to the testbed.

import { readFileSync } from "node:fs";
import { connect } from "./testbed.mjs";

const MODEL = JSON.parse(readFileSync(new URL("model.json", import.meta.url)));
const SIGNALS = [
  { name: "thickness", unit: MODEL.unit, low: 0, high: 10 },
  { name: "good", dtype: "bool" },
];

/** The predicted thickness of a row of values by signal; null while nothing is pressed. */
export function thickness(row) {
  const { signal, above } = MODEL.pressed;
  if (!(row[signal] > above)) return null;
  let sum = MODEL.intercept;
  for (const [name, coefficient] of Object.entries(MODEL.coefficients)) {
    if (!Number.isFinite(row[name])) return null;
    sum += coefficient * row[name];
  }
  return sum;
}

const [low, high] = MODEL.tolerance;
await connect({ input: "press", output: "quality", signals: SIGNALS }, async (rows, publish) => {
  const answers = rows
    .map(({ dt, values }) => ({ dt, value: thickness(values) }))
    .filter(({ value }) => value !== null);
  if (answers.length) {
    await publish(answers.map(({ dt }) => dt), {
      thickness: answers.map(({ value }) => value),
      good: answers.map(({ value }) => value >= low && value <= high),
    });
  }
});
