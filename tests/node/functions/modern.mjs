// The same as an ES module, with what only those can do.
import { setTimeout as pause } from "node:timers/promises";

const begun = await pause(1, "awaited");

export const handler = async (event) => ({ begun, event });
export const fail = async () => {
  throw new TypeError("from a module");
};
export default {
  inDefault: async () => "in default",
  deep: { handler: async () => "deep in default" },
};
export const stream = awslambda.streamifyResponse(async (event, reply, context) => {
  reply.write(JSON.stringify({ event, function: context.functionName }));
  reply.end();
});
