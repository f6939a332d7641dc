// Checks dashboards against the schema that Grafana publishes: node check.mjs DASHBOARD…
//
// Prints one line for each thing that Grafana does not know, and exits with 1; else the number of panels.
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import { createGenerator } from "ts-json-schema-generator";

const here = new URL(".", import.meta.url).pathname;
const generator = createGenerator({
  path: `${here}types.ts`,
  tsconfig: `${here}tsconfig.json`,
  type: "*",
  skipTypeCheck: true,
  // A key that Grafana does not know is most likely misspelt.
  additionalProperties: false,
});
const ajv = new Ajv({ strict: false, allErrors: true });
const validator = (type, change = (schema) => schema) => ajv.compile(change(generator.createSchema(type)));
const validators = { row: validator("row"), stat: validator("stat"), timeseries: validator("timeseries") };
// Panels are judged one by one, by the type that each says to be of: else one mistake is told for all types.
const whole = validator("Dashboard", (schema) => {
  schema.definitions.Dashboard.properties.panels.items.additionalProperties = true;
  return schema;
});

let failed = false;
for (const file of process.argv.slice(2)) {
  const dashboard = JSON.parse(readFileSync(file, "utf8"));
  const found = (validate, value, what) => (validate?.(value) ? [] : (validate?.errors ?? [])).map(
    ({ instancePath, message, params }) => `${file}: ${what}${instancePath}: ${message} ${JSON.stringify(params)}`,
  );
  const findings = [
    ...found(whole, dashboard, ""),
    ...dashboard.panels.flatMap((panel) => found(validators[panel.type], panel, `${panel.type} "${panel.title}" `)),
  ];
  findings.forEach((finding) => console.log(finding));
  failed ||= findings.length > 0;
  if (findings.length === 0) console.log(`${file}: ${dashboard.panels.length} panels are as Grafana's schema wants them`);
}
process.exit(failed ? 1 : 0);
