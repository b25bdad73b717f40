// Handlers as people write them for AWS, with nothing that knows of hob.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import { setTimeout as pause } from "node:timers/promises";

const begun = Date.now();
let count = 0;

class Orders {
  #seen = [];

  handle = async (event, context) => {
    this.#seen.push(event);
    return { seen: this.#seen, function: context.functionName };
  };

  static async find(event) {
    return event.missing.key;
  }
}

export const method = new Orders().handle;
export const find = Orders.find;

// What the SDK does, without its signature.
async function call(name, event) {
  const url = `${process.env.AWS_ENDPOINT_URL_LAMBDA}/2015-03-31/functions/${name}/invocations`;
  return fetch(url, { method: "POST", body: JSON.stringify(event) });
}

export async function invoking(event) {
  const reply = await call("echo", { from: event });
  return { status: reply.status, told: await reply.json() };
}

export async function invokingNone(event) {
  const reply = await call("nobody", event);
  if (!reply.ok) throw new Error(`status ${reply.status}`, { cause: await reply.json() });
}

export async function together(event) {
  return Promise.all(event.map(async (number) => (await pause(1), number * 2)));
}

export async function eventNumbers() {
  return { count: ++count, isWarm: count > 1, hasBegun: begun > 0 };
}

export async function printing() {
  console.log("a", { b: [1, 2] }, new Map([[1, { deep: { deeper: {} } }]]));
  console.error(new RangeError("logged").message);
  console.table([{ a: 1, b: 2 }]);
  console.dir({ a: 1 });
  console.group("group");
  console.log("in a group");
  console.groupEnd();
  console.assert(false, "asserted");
  process.stdout.write("written to stdout\n");
  process.stderr.write("written to stderr\n");
  fs.writeSync(1, "written to 1\n");
  console.log("é 世界 🚀 \u0001 \x7f");
}

export async function programs() {
  try {
    execFileSync("sh", ["-c", "echo out; echo err >&2; exit 3"], { stdio: ["ignore", "inherit", "inherit"] });
  } catch (error) {
    return error.status;
  }
}

export async function scratch(event) {
  fs.appendFileSync("/tmp/scratch", event);
  return { text: fs.readFileSync("/tmp/scratch", "utf8"), directory: process.cwd(), tmp: fs.readdirSync("/tmp") };
}

export async function ending(event) {
  if (event === "exit") process.exit(7);
  if (event === "abort") process.kill(process.pid, "SIGABRT");
  if (event === "code") process.exitCode = 5;
  await pause(event === "abort" ? 60_000 : 1);
  return event;
}

export async function slow(event) {
  console.log("asleep");
  await pause(event * 1000);
}

let timer;

/** The first reply leaves before its timer, which the second event finds running. */
export async function later(event) {
  if (event === 2) return timer;
  timer = new Promise((resolve) => {
    setTimeout(() => {
      console.log("after the reply");
      resolve("the timer ran");
    }, 1000);
  });
  return "the timer runs";
}

export async function deadline(_event, context) {
  const left = context.getRemainingTimeInMillis();
  return { type: typeof left, isInTime: left > 0 && left <= 20_000 };
}

/** All variables but these, or these alone. */
export const environment = async (event) => {
  const isTold = (name) => (event.only ? event.only.includes(name) : !event.includes(name));
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => isTold(name)).sort());
};

export const program = async () => [process.version, fs.realpathSync(process.execPath), os.constants.signals.SIGTERM];
export const surroundings = async () => ({
  isModule: typeof require === "undefined",
  lambda: Object.keys(globalThis.awslambda).sort(),
  zone: new Date(0).getTimezoneOffset(),
});
export const listeners = async () =>
  ["SIGTERM", "beforeExit", "unhandledRejection", "uncaughtException"].map((name) => process.listenerCount(name));
export const stdin = async () => fs.readFileSync(0, "utf8");
export const store = async (_event, context) => {
  const { InvokeStore } = globalThis.awslambda;
  return [InvokeStore.getRequestId() === context.awsRequestId, InvokeStore.getXRayTraceId() !== undefined];
};
