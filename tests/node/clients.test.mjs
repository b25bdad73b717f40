// The same functions with the same events on Lambda's own clients: same answers, same log.
// CLIENTS is the folder that tests/conformance/run fills; RIC3 names an unpacked aws-lambda-ric 3
// with its native part beside dist/index.mjs. Without them there is nothing to compare with.
import assert from "node:assert/strict";
import path from "node:path";
import test from "node:test";
import { runOnClient } from "./client.mjs";
import { FUNCTIONS, folderOf, Worker } from "./host.mjs";

const json = (value) => JSON.stringify(value);
const values = "undefined null number text list date big circle function symbol json brokenJson nan map bytes";
const errors = "error type named cause aggregate text number object alike undefined stackless circle big multiline nameless other";
const each = (words) => words.split(" ").map(json);

const told = (id) => ({
  trace: id % 2 ? `Root=1-0-${id}` : undefined,
  client: json({ custom: { id }, client: {} }),
  identity: json({ cognitoIdentityId: "i", cognitoIdentityPoolId: "p" }),
});

const broken = {
  "syntax.js": "exports.handler = async () => {\n  return 1 +;\n};\n",
  "syntax.mjs": "export const handler = ;\n",
  "missing.js": "require('no-such-package');\n",
  "missing.mjs": "import 'no-such-package';\n",
  "throws.js": "throw new TypeError('while it loads');\n",
  "throwsText.js": "throw 'only text';\n",
  "empty.js": "",
  "value.js": "exports.handler = 5;\n",
  "streaming.js": "exports.handler = Object.assign(async () => 1, { [Symbol.for('aws.lambda.runtime.handler.streaming')]: 'both' });\n",
};
const inits =
  "syntax.handler missing.handler throws.handler throwsText.handler empty.handler value.handler " +
  "nowhere.handler nohandler ../up.handler dir/nowhere.handler value.handler.deeper";

// What both clients do alike.
const CASES = [
  ["replies that are or are not JSON", { handler: "all.value", events: each(values) }],
  ["what a handler returns without a promise", { handler: "all.syncValue", events: each(values) }],
  ["errors of async handlers", { handler: "all.fail", events: each(`${errors} null`) }],
  ["errors thrown at once", { handler: "all.syncFail", events: each(errors) }],
  ["context", { handler: "all.context", events: ["1", "2"], told }],
  ["trace", { handler: "all.trace", events: ["1", "2", "3"], told }],
  ["a thenable", { handler: "all.thenable", events: ["1"] }],
  ["a nested export", { handler: "all.deep.inner.handler", events: ["1"] }],
  ["text log", { handler: "all.log", events: ["1", "2"] }],
  ["JSON log", { handler: "all.log", events: ["1", "2"], env: { AWS_LAMBDA_LOG_FORMAT: "JSON" } }],
  ["JSON log of errors", { handler: "all.fail", events: each(errors), env: { AWS_LAMBDA_LOG_FORMAT: "json" } }],
  ...["trace", "DEBUG", "info", "WARN", "ERROR", "nonsense"].map((level) => [
    `log of level ${level}`,
    { handler: "all.log", events: ["1"], env: { AWS_LAMBDA_LOG_LEVEL: level } },
  ]),
  ["big events and replies", { handler: "all.echo", events: [json("ü".repeat(100_000)), json("x".repeat(3_000_000)), json("é\u0000")] }],
  ["an ES module", { handler: "modern.handler", events: ["1", "2"] }],
  ["errors of an ES module", { handler: "modern.fail", events: ["1"] }],
  ["an ES module that streams", { handler: "modern.stream", events: ["1", "2"] }],
  ["streams", { handler: "all.stream", events: each("a b") }],
  ["HTTP streams", { handler: "all.http", events: [json({ text: "body" })] }],
  ["a pipeline into a stream", { handler: "all.pipe", events: ["1"] }],
  ["streams that fail", { handler: "all.streamFail", events: each("error named text") }],
  ["streams of handlers that are not async", { handler: "all.streamSync", events: ["1"] }],
  ["streams and a value", { handler: "all.streamValue", events: ["1", "2"] }],
  ["a type that comes too late", { handler: "all.streamLate", events: ["1"] }],
  ["a stream that is one end", { handler: "all.streamEnd", events: ["1"] }],
  ...inits.split(" ").map((handler) => [`init: ${handler}`, { handler, events: ["1"], folder: folderOf(broken) }]),
  ...["syntax", "missing"].map((name) => {
    const folder = folderOf({ [`${name}.mjs`]: broken[`${name}.mjs`] });
    return [`init: ${name}.mjs`, { handler: `${name}.handler`, events: ["1"], folder }];
  }),
];

// What only the one of nodejs24.x does, or does right.
const MODERN = [
  ["init: a handler that streams both ways", { handler: "streaming.handler", events: ["1"], folder: folderOf(broken) }],
  ["defaults of an ES module", { handler: "modern.inDefault", events: ["1"] }],
  ["defaults of an ES module, nested", { handler: "modern.deep.handler", events: ["1"] }],
  ["a callback handler", { handler: "all.three", events: ["1"] }],
];

// What only those before it do.
const CLASSIC = [
  ["callback", { handler: "all.callback", events: [json({ a: 1 }), json({ later: 5 }), json({ error: "named" }), json({ again: true })] }],
  ["callback that does not wait", { handler: "all.callback", events: [json({ waits: false, again: true }), json({ waits: false })] }],
  ["callback with what is not JSON", { handler: "all.callback", events: [json({ value: "circle" })] }],
  ["nothing at all", { handler: "all.noAnswer", events: ["1", "2"] }],
  ["a promise that stays", { handler: "all.neverResolves", events: ["1", "2"] }],
  ["succeed", { handler: "all.succeed", events: ["1", "2"] }],
  ["fail", { handler: "all.failed", events: ["null", json("named"), json("text")] }],
  ["done", { handler: "all.done", events: [json({ value: 1 }), json({ error: "e" }), "{}"] }],
  ["done later", { handler: "all.doneLater", events: ["1", "2"] }],
  ["a rejection", { handler: "all.reject", events: ["1"] }],
  ["a rejection of text", { handler: "all.rejectText", events: ["1"] }],
  ["an uncaught error", { handler: "all.uncaught", events: ["1"] }],
  ["an exit", { handler: "all.exit", events: ["1"] }],
];

/** Leaves out times, and the frames of clients and Node. */
function normal(text) {
  return text
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
    .replace(/,?"    at [^"]*?(aws-lambda-ric|dist\/index\.mjs|src\/runtime\/node|node:|<anonymous>|\[eval)[^"]*"/g, "")
    .replace(/(\\n|\r) +at [^"\r\\]*?(aws-lambda-ric|dist\/index\.mjs|src\/runtime\/node|node:|<anonymous>|\[eval)[^"\r\\]*/g, "")
    .replace(/(\\n|\r|",")- [^"\s]*(index\.mjs|load\.cjs|main\.cjs|bootstrap\.cjs)(?=\\n|\r|")/g, "")
    .replaceAll("file://", "")
    .replace(/at (async )?([\w.<>]+ )?(\[as \w+\] )?\(?([^"()]*\.m?js:\d+(:\d+)?)\)?/g, "at $4");
}

async function runOnHost({ handler, folder, events, env, told: tell = () => ({}) }) {
  const worker = await Worker.start(handler, { folder, env });
  const answers = [];
  await worker.expect("Hello");
  let message = await worker.next();
  for (const event of events) {
    if (message.name !== "Ready") break;
    worker.send(event, tell(answers.length + 1));
    message = await worker.whole();
    if (message.name === "end") break;
    answers.push(message);
    message = await worker.next();
  }
  if (message.name === "InitError") answers.push(message);
  const exit = message.name === "Ready" ? null : await worker.gone();
  if (exit === null) await worker.stop();
  return { answers, log: worker.log, exit };
}

function compare(name, argv, runtime, given) {
  test(`${runtime}: ${name}`, async () => {
    const env = { AWS_EXECUTION_ENV: `AWS_Lambda_${runtime}`, ...given.env };
    const item = { folder: FUNCTIONS, ...given, env };
    const theirs = await runOnClient(argv(item), item);
    const ours = await runOnHost(item);
    const plain = ({ answers }) => answers.map((a) => ({ ...a, payload: normal(a.payload) }));
    assert.ok(theirs.answers.length > 0 || theirs.exit !== null, theirs.stderr);
    assert.deepEqual(plain(ours), plain(theirs));
    assert.equal(normal(ours.log), normal(theirs.log));
    // How the process ends after a failed init is our own affair.
    if (theirs.answers[0]?.name !== "InitError") assert.equal(ours.exit, theirs.exit);
  });
}

const { CLIENTS, RIC3 } = process.env;
const modern = CLIENTS && [path.join(CLIENTS, "node/node_modules/aws-lambda-ric/index.mjs")];
if (modern) {
  for (const [name, item] of [...CASES, ...MODERN]) {
    compare(name, () => modern, "nodejs24.x", item);
  }
} else {
  test("CLIENTS is not set: nothing to compare with for nodejs24.x", () => {});
}
if (RIC3) {
  const run = `const { run } = await import(process.argv[1]); await run(process.argv[2], process.argv[3]);`;
  const classic = ({ folder, handler }) => ["--input-type=module", "-e", run, path.join(RIC3, "dist/index.mjs"), folder, handler];
  for (const [name, item] of [...CASES, ...CLASSIC]) {
    compare(name, classic, "nodejs20.x", item);
  }
}
