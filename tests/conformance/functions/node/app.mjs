// Does what its event says, on aws-lambda-ric.
import fs from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

let count = 0;

if (process.env.CLEANUP) {
  process.on("SIGTERM", () => {
    fs.writeFileSync(process.env.CLEANUP, String(process.pid));
    process.exit(0);
  });
}

const deeds = {
  nothing: () => null,
  big: (event) => "x".repeat(event.size),
  context: (event, context) => ({
    request: context.awsRequestId,
    function: context.functionName,
    version: context.functionVersion,
    memory: context.memoryLimitInMB,
    arn: context.invokedFunctionArn,
    remaining: context.getRemainingTimeInMillis(),
    group: context.logGroupName,
    stream: context.logStreamName,
    identity: context.identity ?? null,
    client: context.clientContext
      ? {
          installation: context.clientContext.client.installation_id,
          custom: context.clientContext.custom,
        }
      : null,
  }),
  environment: () => ({ directory: process.cwd(), variables: { ...process.env } }),
  count: () => ({ count: ++count, pid: process.pid }),
  say: (event) => {
    console.log(event.text, "out");
    console.error(event.text, "err");
    return null;
  },
  fail: (event) => {
    throw new TypeError(event.message);
  },
  exit: (event) => process.exit(event.status),
  kill: async () => {
    process.kill(process.pid, "SIGKILL");
    await pause(60_000);
  },
  sleep: async (event) => {
    await pause(event.seconds * 1000);
    return null;
  },
  meet: async (event, context) => {
    fs.writeFileSync(path.join(event.place, context.awsRequestId), "");
    while (fs.readdirSync(event.place).length < event.count) await pause(10);
    return { pid: process.pid };
  },
};

export const handler = async (event, context) =>
  event?.do ? deeds[event.do](event, context) : event;

// Writes `parts`, after the first of them waits for the file `gate`, then writes `size` bytes, and
// throws if there is `fail`.
export const stream = awslambda.streamifyResponse(async (event, reply) => {
  // By the URL it comes in the body.
  const { head, parts = [], gate, size = 0, fail } = event.body ? JSON.parse(event.body) : event;
  const to = head ? awslambda.HttpResponseStream.from(reply, head) : reply;
  for (const [n, part] of parts.entries()) {
    to.write(part);
    while (n === 0 && gate && !fs.existsSync(gate)) await pause(5);
  }
  for (let left = size; left > 0; left -= 50_000) {
    if (!to.write("x".repeat(Math.min(left, 50_000)))) {
      await new Promise((resolve) => to.once("drain", resolve));
    }
  }
  if (fail) throw new TypeError(fail);
  to.end();
});
